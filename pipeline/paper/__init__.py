"""The paper's tables and figures as programs: `python -m pipeline.paper.<name> --help`.

    table1      Tables 1 and 8: benchmarks made imbalanced, four losses     -> results/table1.jsonl
    levers      one change at a time to Table 1's AUC-M row                 -> results/levers.jsonl
    figure3     batch score normalisation on and off (also the other normalisers)  ->
                results/figure3.jsonl
    figure4     Figures 4 and 5: noisy and easy data, alpha >= 0 on and off -> results/figure4.jsonl
    figure1     toy data with easy and noisy points      figure2   histograms of scores, from any run
    table5      DDSM+ and PatchCamelyon, from the pipeline's own runs
    table6      AUC against accuracy                     appendix_e  one data point at a time
    render      everything in results/ -> RESULTS.md, the paper's numbers beside ours

One line of results/*.jsonl is one training run (`trial.Trial`) with every epoch's AUC; the last
epoch's is the result. Data sets are read from their own downloads under $DATA/<name>/raw
(`datasets`).
"""
