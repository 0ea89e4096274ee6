"""Cancel the jobs of a competition that Slurm has or runs; those that run write a checkpoint first.

    python -m pipeline.cancel melanoma       (make cancel COMP=melanoma)

reads   Slurm's queue
writes  nothing; the same `make ... ON=slurm` goes on from the checkpoints
"""

import argparse

from pipeline.core.config.competition import load_competition
from pipeline.core.runtime.command import run_stage, stage_parser
from pipeline.core.schedule.slurm import cancel_jobs


def main(options: argparse.Namespace) -> None:
    jobs = cancel_jobs(load_competition(options.competition).name)
    for job in jobs:
        print(f"job {job.number}: {job.name}: cancelled")
    print(f"{len(jobs)} jobs cancelled")


def parser() -> argparse.ArgumentParser:
    parser = stage_parser(__doc__, targets=False)
    parser.add_argument("competition", metavar="COMPETITION")
    return parser


if __name__ == "__main__":
    run_stage(main, parser())
