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

from pipeline.core.ensemble.earned import (
    gain_of,
    last_earned,
    measure,
    nested_choice,
    simplest_earned,
    with_recipe,
)
from pipeline.core.ensemble.patient_context import Columns
from pipeline.core.ensemble.second_level import (
    Data,
    Recipe,
    learn,
    logits,
    nested,
    out_of_fold_members,
    prepare,
)
from pipeline.core.metrics import auc

SHARED = Path(__file__).parents[3] / "shared" / "data"
FOLDER = Path(os.environ.get("SHARED_DATA") or SHARED) / "siim_isic"

SITE = "anatom_site_general_challenge"

MODELS = ("model1", "model2")


def read(size: bool = False, passes: bool = True) -> Data:
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
    return prepare(
        table, members, table["target"].to_numpy(), fold, Columns(numeric, ("sex", SITE), SITE)
    )


def show(name: str, scores: np.ndarray, data: Data) -> dict:
    """Print and return one row: AUC and the gain over model 1."""
    gain = gain_of(scores, data.raw[0], data.labels, data.patients)
    row = {"name": name, "auc": auc(scores, data.labels), **gain}
    print(
        f"{name:34} {row['auc']:.4f}   {row['gain']:+.4f} [{row['low']:+.4f}, {row['high']:+.4f}]",
        flush=True,
    )
    return row


def columns_that_matter(data: Data, recipe: Recipe, shown: int = 20) -> None:
    """Print gain of the trees, and the fall of AUC when a column (or a kind of column) of held-out
    patients is
    permuted, all five folds."""
    import lightgbm

    groups = {"patient-relative": [], "patient columns": list(data.alone), "passes": []}
    for name in data.table:
        if "pass" in name:
            groups["passes"].append(name)
        elif (
            ": " in name
            and name not in data.alone
            and not name.endswith("logit")
            and not name.startswith("members")
        ):
            groups["patient-relative"].append(name)
    every = {**groups, **{name: [name] for name in data.table}}
    gain = np.zeros(data.table.shape[1])
    fall = dict.fromkeys(every, 0.0)
    generator = np.random.default_rng(0)
    folds = np.unique(data.fold)
    for number in folds:
        held = data.fold == number
        learners = learn(data.table[~held], data.labels[~held], data.patients[~held], recipe)
        gain += sum(
            lightgbm.Booster(model_str=text).feature_importance("gain") for text in learners.trees
        )
        table = data.table[held]
        truth = data.labels[held]
        before = auc(logits(learners, table), truth)
        for name, columns in every.items():
            mixed = table.copy()
            mixed[columns] = table[columns].to_numpy()[generator.permutation(len(table))]
            fall[name] += (before - auc(logits(learners, mixed), truth)) / len(folds)
    print(f"\n{'column':48} share of gain   fall of AUC when permuted")
    order = np.argsort(-gain)[:shown]
    for name in groups:
        inside = data.table.columns.isin(groups[name])
        print(f"all {name:44} {gain[inside].sum() / gain.sum():10.3f}   {fall[name]:+.4f}")
    for position in order:
        name = data.table.columns[position]
        print(f"{name:48} {gain[position] / gain.sum():10.3f}   {fall[name]:+.4f}")


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
    for name, raw, ranks in zip(MODELS, data.raw, data.members):
        show(name, raw, data)
        show(f"{name}, ranks within fold", ranks, data)
    candidates = with_recipe(recipe)
    table, scores = measure(data, candidates)
    for name, values in scores.items():
        show(name, values, data)

    # What the parts of the second level bring.
    for name, part in (("trees alone", 1.0), ("logistic regression alone", 0.0)):
        show(name, nested(data, Recipe(threads=asked.threads, share=part)), data)
    flat = [
        name for name in data.table if name in (*data.alone, *MODELS) or name.endswith(": logit")
    ]
    show("without patient-relative columns", nested(data, recipe, columns=flat), data)
    print("\n" + table.to_string(index=False, float_format="{:+.4f}".format))
    print("simplest that earned its place:", simplest_earned(scores, data.labels, data.patients))
    print("last that earned its place:", last_earned(scores, data.labels, data.patients))
    print(f"{time.perf_counter() - started:.0f} s", flush=True)
    if asked.choice:
        chosen, choice = nested_choice(data, candidates)
        show("the rule (last earned), nested too", chosen, data)
        print(choice, f"{time.perf_counter() - started:.0f} s")
    if asked.columns:
        columns_that_matter(data, recipe)


if __name__ == "__main__":
    main()
