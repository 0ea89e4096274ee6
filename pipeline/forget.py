"""Remove the weights, predictions and logs of runs, so that they are made again.

    python -m pipeline.forget melanoma --run b5_384                      all folds, both stages
    python -m pipeline.forget melanoma --run b5_384 --folds "0 1" --stage finetune

--stage says where to begin: "pretrain" removes all, "finetune" keeps stage 1, "predict" keeps both
weights. Every file is listed before it is removed; on a terminal, after a question.

Removes  models/<comp>/<run>/fold<k>/{pretrained,finetuned}.safetensors, checkpoints, log.jsonl,
         predictions*.csv, *.json, *.npz. The average, the submission and the report are made anew
         from what is left.
"""

import argparse
import sys
from pathlib import Path

from pipeline.core.artifacts.paths import models_folder
from pipeline.core.config.run import ALL, METADATA, fold_name
from pipeline.core.runs.missing import Request, request_of
from pipeline.core.runtime.command import run_stage, stage_parser
from pipeline.core.runtime.errors import UserError

FORGETTABLE_STAGES = ("pretrain", "finetune", "predict")
# What each stage writes into a fold's folder. The log is of both stages: it goes with stage 1.
FILES = {
    "pretrain": ("pretrained.*", "log.jsonl", "events.*", "pretrain.log"),
    "finetune": ("finetuned.*", "site*/*", "finetune.log"),
    "predict": ("predictions*", "predict.log"),
}


def main(options: argparse.Namespace) -> None:
    # An empty RUN means "all" elsewhere in make; here all weights would go, so it must be named.
    runs = options.run.split()
    if not runs:
        raise UserError('RUN is empty; name what to forget, as in RUN="b5_384" or RUN=metadata')
    request = request_of(options.competition, options.run, options.folds)
    files = files_to_remove(request, runs, options.stage)
    if not files:
        print(f"{models_folder(request.name)}: nothing of {', '.join(runs)} to forget")
        return

    # Name every file before the first is removed. Without a terminal, as in a
    # job, nobody could answer, and the command itself is taken for a yes.
    for path in files:
        print(f"{path}  {path.stat().st_size / 1e6:.1f} MB")
    if sys.stdin.isatty() and input(f"remove these {len(files)} files? [y/N] ").lower() != "y":
        raise UserError("nothing was removed")
    for path in files:
        path.unlink()
    print(f"{len(files)} files removed")


def files_to_remove(request: Request, runs: list[str], stage: str) -> list[Path]:
    """The files of these runs and folds that the stage and those after it have written."""
    files = []
    for run in runs:
        # The metadata network trains and predicts in one stage, so all of it goes together.
        first = "pretrain" if run == METADATA else stage
        stages = FORGETTABLE_STAGES[FORGETTABLE_STAGES.index(first) :]
        for folder in fold_folders(request, run):
            for name in stages:
                for pattern in FILES[name]:
                    files += sorted(path for path in folder.glob(pattern) if path.is_file())
    # A run named twice would otherwise have its files removed twice, which is an error.
    return list(dict.fromkeys(files))


def fold_folders(request: Request, run: str) -> list[Path]:
    """The folders of the folds asked for, or of all that there are."""
    folder = models_folder(request.name) / run
    if request.folds:
        return [folder / fold_name(fold) for fold in request.folds]
    return sorted(path for name in ("fold*", ALL) for path in folder.glob(name) if path.is_dir())


def parser() -> argparse.ArgumentParser:
    parser = stage_parser(__doc__, targets=False)
    parser.add_argument("competition", metavar="COMPETITION")
    parser.add_argument("--run", default="", metavar='"RUN ..."', help="runs, or metadata")
    parser.add_argument("--folds", default="", metavar='"K ..."', help="these folds (default: all)")
    parser.add_argument(
        "--stage", choices=FORGETTABLE_STAGES, default="pretrain", help="where to begin"
    )
    return parser


if __name__ == "__main__":
    run_stage(main, parser())
