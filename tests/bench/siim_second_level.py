"""The second level on the real SIIM-ISIC train.csv and the out-of-fold scores of two models.

    python -m tests.bench.siim_second_level                the table
    python -m tests.bench.siim_second_level --size         with the picture's width and
                                                           height as columns
    python -m tests.bench.siim_second_level --choice       and the rule, nested too
    python -m tests.bench.siim_second_level --columns      and which columns matter

Reads    siim_isic/{train.csv, siim_oof_model{1,2}.csv.gz,
         siim_isic_train_tfrecord_folds.csv.gz} under SHARED_DATA
Writes   nothing
"""

import argparse
import os
import time
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.core.ensemble.second_level.candidates import (
    gain_of,
    last_earned,
    nested_choice,
    score_candidates,
    with_recipe,
)
from pipeline.core.ensemble.second_level.importance import learning_curve, what_mattered
from pipeline.core.ensemble.second_level.nested import (
    Recipe,
    StackingRows,
    nested_logits,
    out_of_fold_members,
    stacking_rows,
)
from pipeline.core.ensemble.second_level.patient_context import Columns
from pipeline.core.metrics import auc

SHARED = Path(__file__).parents[3] / "shared" / "data"
FOLDER = Path(os.environ.get("SHARED_DATA") or SHARED) / "siim_isic"

SITE = "anatom_site_general_challenge"

MODELS = ("model1", "model2")


def read(size: bool = False, passes: bool = True) -> StackingRows:
    """The 33,126 rows of train.csv with both models' scores; `size` adds width and height, `passes`
    the TTA passes.
    """
    table = pd.read_csv(FOLDER / "train.csv").drop(columns=["diagnosis", "benign_malignant"])
    files = [
        pd.read_csv(FOLDER / f"siim_oof_{name}.csv.gz")
        .set_index("image_name")
        .loc[table["image_name"]]
        for name in MODELS
    ]
    numeric = ("age_approx",)
    if size:
        pictures = pd.read_csv(FOLDER / "siim_isic_train_tfrecord_folds.csv.gz").set_index(
            "image_name"
        )
        table[["width", "height"]] = pictures.loc[
            table["image_name"], ["width", "height"]
        ].to_numpy()
        numeric = (*numeric, "width", "height")
    fold = files[0]["fold"].to_numpy()
    if not all((file["fold"].to_numpy() == fold).all() for file in files):
        raise SystemExit("the two models were trained on different folds")
    scores = np.column_stack([file["tta_mean"].to_numpy(np.float64) for file in files])
    single = {
        name: file[["tta0", "tta1"]].to_numpy(np.float64) for name, file in zip(MODELS, files)
    }
    members = out_of_fold_members(MODELS, scores, fold, single if passes else {})
    return stacking_rows(
        table, members, table["target"].to_numpy(), fold, Columns(numeric, ("sex", SITE), SITE)
    )


def show(name: str, scores: np.ndarray, data: StackingRows) -> dict:
    """Print and return one row: AUC and the gain over model 1."""
    gain = gain_of(scores, data.scores[0], data.labels, data.patients)
    row = {"name": name, "auc": auc(scores, data.labels), **gain}
    print(
        f"{name:34} {row['auc']:.4f}   {row['gain']:+.4f} [{row['low']:+.4f}, {row['high']:+.4f}]",
        flush=True,
    )
    return row


def main() -> None:
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for flag in ("--size", "--choice", "--columns", "--no-passes"):
        made.add_argument(flag, action="store_true")
    made.add_argument("--threads", type=int, default=1)
    asked = made.parse_args()
    started = time.perf_counter()
    data = read(asked.size, not asked.no_passes)
    recipe = Recipe(threads=asked.threads)
    print(
        f"{len(data.labels)} rows, {int(data.labels.sum())} positive, "
        f"{len(np.unique(data.patients))} patients, "
        f"{data.table.shape[1]} columns\n{'':34} AUC      over model 1 [95 %]"
    )

    # The members alone, and every candidate.
    for name, raw, ranks in zip(MODELS, data.scores, data.quantiles):
        show(name, raw, data)
        show(f"{name}, ranks within fold", ranks, data)
    candidates = with_recipe(recipe)
    table, scores, fits = score_candidates(data, candidates)
    for name, values in scores.items():
        show(name, values, data)

    # What the parts of the second level bring.
    for name, part in (("trees alone", 1.0), ("logistic regression alone", 0.0)):
        show(name, nested_logits(data, Recipe(threads=asked.threads, share=part)), data)
    flat = [
        name for name in data.table if name in (*data.alone, *MODELS) or name.endswith(": logit")
    ]
    show("without patient-relative columns", nested_logits(data, recipe, columns=flat), data)
    print("\n" + table.to_string(index=False, float_format="{:+.4f}".format))
    print("last that earned its place:", last_earned(scores, data.labels, data.patients))
    print(f"{time.perf_counter() - started:.0f} s", flush=True)
    if asked.choice:
        chosen, choice = nested_choice(data, candidates)
        show("the rule (last earned), nested too", chosen, data)
        print(choice, f"{time.perf_counter() - started:.0f} s")
    if asked.columns:
        learners = {fold: one.second_level for fold, one in fits["second level"].items()}
        for rows in (what_mattered(data, learners), learning_curve(data, learners)):
            print("\n" + pd.DataFrame(rows).to_string(index=False, float_format="{:.4f}".format))


if __name__ == "__main__":
    main()
