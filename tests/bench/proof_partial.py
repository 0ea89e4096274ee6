"""ISIC 2024's form, the partial AUC above 80 % sensitivity, of the scores that the proof's runs of
a set have left: does a loss for it win there?

    python -m tests.bench.proof_partial models/proof/48px_1+1epochs_batch64/melanoma --seeds 2

reads   <folder>/fold<f>/seed<s>/<method>.csv
prints  a row for each method: AUC and partial AUC in the mean over folds and seeds, each with its
        paired difference to "AUC-M, ours" [95 %, bootstrap over patients within folds and over
        seeds]
"""

import argparse
from pathlib import Path

import pandas as pd

from pipeline.core.metrics import auc, partial_auc
from pipeline.paper.proof.__main__ import file_words
from pipeline.paper.proof.methods import ALL_METHODS, OURS
from tests.bench.bench_systems import compared, table_rows


def read_tables(folder: Path, methods: list[str]) -> pd.DataFrame:
    """patient_id, label and a column of scores for each method, of one fold and seed."""
    found = [pd.read_csv(folder / f"{file_words(name)}.csv") for name in methods]
    table = found[0][["patient", "label"]].rename(columns={"patient": "patient_id"})
    return table.assign(**{name: own["score"] for name, own in zip(methods, found)})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=1)
    arguments = parser.parse_args()

    places = {
        (int(one.parent.name.removeprefix("fold")), int(one.name.removeprefix("seed"))): one
        for one in arguments.folder.glob("fold*/seed*")
    }
    places = {key: one for key, one in places.items() if key[1] < arguments.seeds}
    first = next(iter(places.values()))
    there = [name for name in ALL_METHODS if (first / f"{file_words(name)}.csv").exists()]
    methods = sorted(there, key=lambda name: name != OURS)
    runs = {key: read_tables(one, methods) for key, one in places.items()}
    print(f"| stage 2 | AUC | over {OURS} | partial AUC | over {OURS} |\n|---|---|---|---|---|")
    found = [compared(runs, methods, metric) for metric in (auc, partial_auc)]
    for cells in table_rows(methods, found):
        print("|", " | ".join(cells), "|")


if __name__ == "__main__":
    main()
