"""What a stage and those before it have still to make: the next one to run. The Makefile asks.

    python -m pipeline.todo report melanoma --run "b5_384 b6_512" --folds "0 1" --k 5

prints the next stage with its arguments (`finetune melanoma/b5_384/fold0 ...`), or nothing when all
exist and are what today's configuration makes. Exit status 2, with one line on stderr, where one
was made from something else and is too dear to be made again without asking.

Reads what the stages record in their artifacts; writes nothing.
"""

import argparse

from pipeline.core.runs.missing import BEFORE, request_of
from pipeline.core.runtime.command import run_stage, stage_parser
from pipeline.core.schedule.graph import next_command


def main(options: argparse.Namespace) -> None:
    request = request_of(options.competition, options.run, options.folds, options.k)
    print(*next_command(options.stage, request))


def parser() -> argparse.ArgumentParser:
    parser = stage_parser(__doc__, targets=False)
    parser.add_argument("stage", choices=tuple(BEFORE), metavar="STAGE", help=", ".join(BEFORE))
    parser.add_argument("competition", metavar="COMPETITION")
    parser.add_argument("--run", default="", metavar='"RUN ..."', help="these runs (default: all)")
    parser.add_argument("--folds", default="", metavar='"K ..."', help="these folds (default: all)")
    parser.add_argument("--k", default="", metavar="K", help="how many folds are wanted")
    return parser


if __name__ == "__main__":
    run_stage(main, parser())
