"""Everything that a stage still needs, run by Slurm or packed onto this machine.

    python -m pipeline.schedule report melanoma --on slurm     (make report COMP=melanoma ON=slurm)
    python -m pipeline.schedule finetune melanoma --on local --run "b5_384 b6_512" --folds "0 1"

slurm   a job for each stage of each fold, which begins when those before it have ended; jobs that
        are in the queue already stay, those held after an error are released. What sbatch is told
        stands in the site file (SITE=, slurm.toml; `core/schedule/site.py`).
local   folds side by side, one a GPU (PER_GPU= several) or one a core; Ctrl-C stops all of them
        after a checkpoint.

reads   what the stages record in their artifacts
writes  what the stages write; their output into models/<comp>/<run>/fold<k>/<stage>.log, that of
        the other stages into models/<comp>/<stage>.log

`pipeline.status` shows how far they are, `pipeline.cancel` stops the jobs of Slurm.
"""

import argparse

from pipeline.core.runs.missing import BEFORE, request_of
from pipeline.core.runtime.command import run_stage, stage_parser
from pipeline.core.runtime.errors import UserError
from pipeline.core.schedule.graph import steps_of
from pipeline.core.schedule.local import run_here
from pipeline.core.schedule.site import read_site
from pipeline.core.schedule.slurm import submit_steps


def main(options: argparse.Namespace) -> None:
    if options.on not in ("slurm", "local"):
        raise UserError(f"ON={options.on!r}: write ON=slurm, ON=local, or leave it out")
    request = request_of(options.competition, options.run, options.folds, options.k)
    site = read_site() if options.on == "slurm" else None
    steps = steps_of(options.stage, request)
    if options.on == "slurm":
        submit_steps(request.name, steps, site, options.gpus, options.nodes)
    else:
        run_here(steps, options.gpus)


def parser() -> argparse.ArgumentParser:
    parser = stage_parser(__doc__, targets=False)
    parser.add_argument("stage", choices=tuple(BEFORE), metavar="STAGE", help=", ".join(BEFORE))
    parser.add_argument("competition", metavar="COMPETITION")
    parser.add_argument("--on", required=True, metavar="WHERE", help="slurm or local")
    parser.add_argument("--run", default="", metavar='"RUN ..."', help="these runs (default: all)")
    parser.add_argument("--folds", default="", metavar='"K ..."', help="these folds (default: all)")
    parser.add_argument("--k", default="", metavar="K", help="how many folds are wanted")
    parser.add_argument("--gpus", type=int, default=0, metavar="N", help="processes of a fold")
    parser.add_argument("--nodes", type=int, default=1, metavar="N", help="machines of a fold")
    return parser


if __name__ == "__main__":
    run_stage(main, parser())
