"""Does a second stage with AUC-M help? One protocol over five sets of real images.

    make proof                                          everything: days of a CPU, hours of a GPU
    python -m pipeline.paper.proof --sets chexpert --folds 0 --seeds 1 --size 64 --epochs 1 1
    python -m pipeline.paper.proof --methods systems    partial AUC, pairs, PPD-SG, PDSCA
    python -m pipeline.paper.proof --page               only the page, from the stored results

reads   data/<comp>/{images,folds}.csv and images/, $DATA/<benchmark>/raw; ImageNet weights
        (core/networks/imagenet.py)
writes  models/proof/<settings>/<set>/: protocol.json, and in fold<f>/seed<s>/ stage_1.safetensors,
        tries.jsonl and a table of scores for each method; appends each set's result to
        pipeline/paper/results/proof.jsonl, from whose lines it makes pipeline/paper/PROOF.md

The protocol. Backbone lite0 from ImageNet weights. Stage 1 is cross-entropy with Adam for E1
epochs; from its weights every method goes on for E2, with the same views and batch size, so all see
the same number of images; cross-entropy goes on with its classifier. Each method, and stage 1, has
three rates: the best on inner validation (a fifth of the training patients, first seed) is taken
for every seed of that fold, and trained on the whole training part. The test fold is scored once.
What exists is not made again: the same command goes on after the last whole training. Results of
several machines are merged by putting their lines into one file or folder (proof-lab2.jsonl).
"""

import argparse
import hashlib
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold
from tqdm import tqdm

from pipeline.core.artifacts.files import read_json, write_json, write_text
from pipeline.core.artifacts.paths import root
from pipeline.core.artifacts.provenance import commit, first_difference
from pipeline.core.artifacts.tables import write_csv
from pipeline.core.losses.checks import NotFinite
from pipeline.core.metrics import auc
from pipeline.core.networks.image import Network, read_tensors, save_weights
from pipeline.core.networks.imagenet import backbone_digest
from pipeline.core.runtime.command import run_stage, stage_parser, time_left
from pipeline.core.runtime.device import device
from pipeline.core.runtime.errors import TimeLimitReached, UserError
from pipeline.paper.benchmark.run import device_name
from pipeline.paper.benchmark.store import FOLDER, append, read_lines, stored
from pipeline.paper.proof import page
from pipeline.paper.proof.methods import (
    ALL_METHODS,
    BASELINE,
    OURS,
    PROOF_METHODS,
    STAGE_1_RATES,
    SYSTEMS,
    Method,
    fresh_network,
    mirrored_scores,
    train,
)
from pipeline.paper.proof.sets import BENCHMARKS, SETS, ImageSet, read_set, why_missing

PAGE = Path(__file__).parents[1] / "PROOF.md"
DIVERGED = 0.0  # the AUC of a try whose scores were not finite: it is never the best
STORE = FOLDER / "proof.jsonl"
GROUPS = {"paper": PROOF_METHODS, "systems": SYSTEMS, "all": ALL_METHODS}
STAGE_1_ROW = "stage 1"


def folder_of(options: argparse.Namespace) -> Path:
    """Where the runs of these settings lie: others have a folder of their own."""
    first, second = options.epochs
    name = f"{options.size}px_{first}+{second}epochs_batch{options.batch}"
    return root("MODELS") / "proof" / (f"{name}_random" if options.random else name)


def require_same_protocol(options: argparse.Namespace, data: ImageSet) -> None:
    """Write what decides a set's runs beside them; UserError when they were made with other methods
    or images than today's."""
    path = folder_of(options) / data.name / "protocol.json"
    chosen = chosen_methods(options)
    backbone = fresh_network(options.size, 0, first_weights(options)).backbone
    today = {
        STAGE_1_ROW: list(STAGE_1_RATES),
        "methods": {name: method.in_words() for name, method in chosen.items()},
        "images": hashlib.sha256(data.images.tobytes() + data.labels.tobytes()).hexdigest(),
        "folds": hashlib.sha256(data.folds.tobytes()).hexdigest(),
        "first weights": backbone_digest(backbone) if not options.random else "random",
    }
    # Methods that join later, or are not asked for now, change nothing of the others.
    recorded = read_json(path) if path.exists() else today
    before = recorded["methods"]
    same = {name: before.get(name, words) for name, words in today["methods"].items()}
    found = first_difference({**recorded, "methods": same}, today)
    if found:
        field, old, new = found
        raise UserError(
            f"{path}: made with {field}={old!r}, today's is {new!r}; delete {path.parent} to begin "
            "again, or restore that"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {**today, "methods": {**before, **today["methods"]}})


def chosen_methods(options: argparse.Namespace) -> dict[str, Method]:
    """The methods asked for by name or group, in their order, and the baseline with ours."""
    names = {BASELINE, OURS}
    for name in options.methods:
        names.update(GROUPS.get(name, {name}))
    return {name: method for name, method in ALL_METHODS.items() if name in names}


def first_weights(options: argparse.Namespace) -> str:
    return "random" if options.random else "imagenet"


def inner_split(data: ImageSet, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(training, validation) rows: a fifth of the patients validate, stratified by label."""
    splitter = StratifiedGroupKFold(5, shuffle=True, random_state=0)
    parts = splitter.split(rows, data.labels[rows], data.patients[rows])
    training, validation = next(iter(parts))
    return rows[training], rows[validation]


def file_words(method: str) -> str:
    """The name of a method's file, without its ending."""
    return method.replace(",", "").replace("%", "percent").replace(" ", "_")


class Unit:
    """One fold and seed of a set: its stage 1, its tries, its tables of scores."""

    def __init__(self, options: argparse.Namespace, data: ImageSet, fold: int, seed: int) -> None:
        self.options = options
        self.methods = chosen_methods(options)
        self.data = data
        self.fold = fold
        self.seed = seed
        self.folder = folder_of(options) / data.name / f"fold{fold}" / f"seed{seed}"

    def scores_path(self, method: str) -> Path:
        return self.folder / f"{file_words(method)}.csv"

    def first_stage(self, rows: np.ndarray, rate: float, name: str) -> Path:
        """The weights of stage 1 on `rows`, trained unless they are there."""
        path = self.folder / f"{name}.safetensors"
        if not path.exists():
            network = self.fresh()
            method = Method(PROOF_METHODS["CE"].loss, STAGE_1_RATES, restart=False, adam=True)
            self.train(network, method, rate, rows, self.options.epochs[0])
            path.parent.mkdir(parents=True, exist_ok=True)
            save_weights(path, network, {"rate": rate, "source": network.source})
        return path

    def fresh(self) -> Network:
        return fresh_network(self.options.size, self.seed, first_weights(self.options))

    def train(
        self, network: Network, method: Method, rate: float, rows: np.ndarray, epochs: int
    ) -> None:
        if time_left() < 0:
            raise TimeLimitReached(f"{self.folder}: the same command goes on from there")
        images = self.data.images[rows]
        labels = self.data.labels[rows]
        train(network, method, rate, images, labels, epochs, self.options.batch, self.seed)

    def second_stage(
        self, stage_1: Path, name: str, rate: float, rows: np.ndarray, scored: np.ndarray
    ) -> np.ndarray:
        """Scores of the rows `scored` after a method's stage 2 on `rows`."""
        network = fresh_network(self.options.size, self.seed, "random")
        network.load_state_dict(read_tensors(stage_1))
        self.train(network, ALL_METHODS[name], rate, rows, self.options.epochs[1])
        return mirrored_scores(network, self.data.images[scored])

    def rates(self) -> dict[str, float]:
        """The best rate of stage 1 and of each method on inner validation; every try is a line of
        tries.jsonl."""
        path = self.folder / "tries.jsonl"
        rows, _ = self.data.split(self.fold)
        training, validation = inner_split(self.data, rows)
        truth = self.data.labels[validation]
        best: dict[str, float] = {}
        for name, tried in (
            (STAGE_1_ROW, STAGE_1_RATES),
            *((n, m.rates) for n, m in self.methods.items()),
        ):
            done = {line["rate"]: line["auc"] for line in read_lines(path) if line["name"] == name}
            for rate in tried:
                if rate in done:
                    continue
                if name == STAGE_1_ROW:
                    weights = self.first_stage(training, rate, f"inner_{rate:g}")
                    network = fresh_network(self.options.size, self.seed, "random")
                    network.load_state_dict(read_tensors(weights))
                    scores = mirrored_scores(network, self.data.images[validation])
                else:
                    weights = self.folder / f"inner_{best[STAGE_1_ROW]:g}.safetensors"
                    try:
                        scores = self.second_stage(weights, name, rate, training, validation)
                    except NotFinite:
                        scores = None
                done[rate] = float(auc(scores, truth)) if scores is not None else DIVERGED
                append(path, {"name": name, "rate": rate, "auc": round(done[rate], 6)})
            best[name] = max(tried, key=lambda rate: done[rate])
        return best

    def run(self, rates: dict[str, float], bar: tqdm) -> None:
        """Every method on the whole training part, scored on the test fold."""
        rows, tested = self.data.split(self.fold)
        stage_1 = self.first_stage(rows, rates[STAGE_1_ROW], "stage_1")
        for name in self.methods:
            path = self.scores_path(name)
            if not path.exists():
                scores = self.second_stage(stage_1, name, rates[name], rows, tested)
                table = pd.DataFrame({"patient": self.data.patients[tested]})
                table["label"] = self.data.labels[tested]
                table["score"] = scores
                write_csv(path, table)
            bar.update()

    def table(self) -> pd.DataFrame:
        """patient, label, and a column of scores for each method."""
        tables = {
            name: pd.read_csv(self.scores_path(name), dtype={"patient": str})
            for name in self.methods
        }
        first = tables[BASELINE][["patient", "label"]]
        return first.assign(**{name: table["score"] for name, table in tables.items()})


def run_set(options: argparse.Namespace, name: str) -> dict[tuple[int, int], pd.DataFrame]:
    """Whatever of a set is not there yet; (fold, seed) -> scores of every method."""
    found: dict[tuple[int, int], pd.DataFrame] = {}
    data = read_set(name, options.size, 0)
    require_same_protocol(options, data)
    folds = [fold for fold in sorted(set(data.folds.tolist())) if fold >= 0]
    folds = [fold for fold in folds if options.folds is None or fold in options.folds]
    total = len(folds) * options.seeds * len(chosen_methods(options))
    bar = tqdm(total=total, desc=name, unit="run")
    for fold in folds:
        rates = None
        for seed in range(options.seeds):
            # Of a benchmark the seed draws the positives, as the paper's training sets do.
            data = read_set(name, options.size, seed) if seed and name in BENCHMARKS else data
            unit = Unit(options, data, fold, seed)
            rates = rates or unit.rates()
            unit.run(rates, bar)
            found[fold, seed] = unit.table()
    bar.close()
    return found


def proof_settings(options: argparse.Namespace) -> page.ProofSettings:
    return page.ProofSettings(options.size, *options.epochs, options.batch, first_weights(options))


def main(options: argparse.Namespace) -> None:
    absent = {name: why_missing(name) or "not run" for name in SETS}
    for name in [] if options.page else options.sets:
        if not why_missing(name):
            result = page.summarise(name, run_set(options, name))
            made_by = {"commit": commit(), "device": device_name(device())}
            append(options.store, asdict(proof_settings(options)) | asdict(result) | made_by)
            # After each set: a run that is cut leaves what it has.
            write_page(options, absent)
    write_page(options, absent)
    print("wrote", options.out)


def write_page(options: argparse.Namespace, absent: dict[str, str]) -> None:
    """PROOF.md, or what --out names, from the stored lines of all machines."""
    program = options.store.stem.split("-")[0]
    records = stored(program, options.store.parent)
    write_text(options.out, page.proof_page(records, absent))


def parser() -> argparse.ArgumentParser:
    options = stage_parser(__doc__, targets=False)
    options.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    options.add_argument(
        "--methods",
        nargs="+",
        choices=[*GROUPS, *ALL_METHODS],
        default=["paper"],
        metavar="METHOD",
        help=f"{', '.join(GROUPS)}, or names (paper); {BASELINE} and {OURS} always are",
    )
    options.add_argument("--folds", nargs="+", type=int, default=None, help="test folds (all)")
    options.add_argument("--seeds", type=int, default=3, help="seeds 0 to N-1 (3)")
    options.add_argument("--size", type=int, default=160, help="pixels (160)")
    options.add_argument(
        "--epochs", nargs=2, type=int, default=(4, 4), metavar=("E1", "E2"), help="(4 4)"
    )
    options.add_argument("--batch", type=int, default=64, help="images in a batch (64)")
    options.add_argument("--random", action="store_true", help="start from random weights")
    options.add_argument("--page", action="store_true", help="train nothing, write the page")
    options.add_argument("--store", type=Path, default=STORE, help="where lines are appended")
    options.add_argument(
        "--out", type=Path, default=PAGE, help="the page (pipeline/paper/PROOF.md)"
    )
    return options


if __name__ == "__main__":
    run_stage(main, parser())
