"""The paper's tables and figures as programs: `python -m pipeline.paper.<name> --help`.

    table1      Tables 1 and 8: imbalanced benchmarks, four losses          -> results/table1.jsonl
    levers      one change at a time to Table 1's AUC-M row                 -> results/levers.jsonl
    figure3     batch score normalisation and the other normalisers         -> results/figure3.jsonl
    figure4     Figures 4 and 5: noisy and easy data, alpha >= 0 on and off -> results/figure4.jsonl
    figure1     toy data with easy and noisy points
    figure2     histograms of scores, from any run
    table5      DDSM+ and PatchCamelyon, from the pipeline's own runs
    table6      AUC against accuracy
    appendix_e  one data point at a time
    synthetic   closed-form dual and normalisers on synthetic data
    render      everything in results/ -> RESULTS.md, the paper's numbers beside ours
    everything  all of the above that the data there allow

One line of results/*.jsonl is one training run (`benchmark.trial.Trial`) with every epoch's AUC;
the last epoch's is the result. Data sets are read from their own downloads under $DATA/<name>/raw
(`benchmark.datasets`).
"""
