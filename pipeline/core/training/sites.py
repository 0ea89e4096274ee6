"""Hospitals that share no images train one network (CODA, `core/coda.py`): under torchrun a process
is a site, and what leaves it is the network's weights, a, b, α and running statistics.

    torchrun --nproc-per-node 3 -m pipeline.finetune melanoma/resnet10t_96/fold0

A site is a value of a column of images.csv, in alphabetical order, or ("process") all rows of the
DATA that the process has. Every site takes as many steps as the largest one's rows give: the rows
of the others come more often. Beside the weights two numbers of a site are known to the others:
how many rows the largest has, and whether one of them has to stop or to write a checkpoint.

Each site validates by itself, on all validation rows that its DATA has, and has a log and a
checkpoint of its own: the first in the fold's folder, the k-th in `site<k>` below it, where the
same weights are kept.
"""

import warnings

import numpy as np
import pandas as pd
import torch
import torch.distributed as dist

from pipeline.core.losses.checks import OneClassWarning
from pipeline.core.losses.global_batch import own_batch
from pipeline.core.runtime.device import alone, device, world
from pipeline.core.runtime.errors import UserError
from pipeline.core.training.loop import begin, keep, take_steps
from pipeline.core.training.phase import Phase

PROCESS = "process"  # the value of `site_column` by which a process is a site


def site_rows(rows: pd.DataFrame, column: str) -> pd.DataFrame:
    """The training rows of this process's site, repeated in their order up to the number of the
    largest site's."""
    rank, processes = world()
    if column != PROCESS:
        rows = rows[of_site(rows, column, rank, processes)]
    if rows.empty:
        raise UserError(f"site_column={column!r}: process {rank} has no training row")
    longest = extremes_of(len(rows))[1]
    return rows.iloc[np.arange(longest) % len(rows)].reset_index(drop=True)


def of_site(rows: pd.DataFrame, column: str, rank: int, processes: int) -> np.ndarray:
    """bool (n,): the rows of the rank-th site; UserError unless there is a process for each."""
    if column not in rows:
        raise UserError(f"images.csv: there is no column {column!r}, which site_column names")
    if rows[column].isna().any():
        image = rows["image_id"][rows[column].isna()].iloc[0]
        raise UserError(f"images.csv: image {image}: column {column}: blank, so it has no site")
    names = sorted(rows[column].astype(str).unique())
    if len(names) != processes:
        raise UserError(
            f"images.csv: column {column} names {len(names)} sites ({', '.join(names[:5])}), and "
            f"there are {processes} processes: torchrun --nproc-per-node {len(names)} (GPUS=)"
        )
    return (rows[column].astype(str) == names[rank]).to_numpy()


def train_sites(phase: Phase) -> None:
    """Train a phase whose rows are this site's and whose optimizer is CODA, and keep the weights
    that all sites end with."""
    rank, _ = world()
    if rank:
        phase.folder = phase.folder / f"site{rank}"
        phase.folder.mkdir(parents=True, exist_ok=True)
    with (
        alone(),
        own_batch(),
        warnings.catch_warnings(action="ignore", category=OneClassWarning),
    ):
        running = begin(phase)
        phase.optimizer.share(phase.network)
        require_same_step(running.step)
        if running.step == 0:
            phase.optimizer.require_same_start()
        take_steps(running)
        phase.optimizer.finish()
        keep(phase, running.network)


def require_same_step(step: int) -> None:
    """UserError unless the sites' checkpoints are of the same step: a kill between two writes."""
    low, high = extremes_of(step)
    if low != high:
        raise UserError(
            f"the sites' checkpoints are of steps {low} to {high}: delete the newest one of every "
            "site that is ahead, its `previous` takes its place"
        )


def extremes_of(number: int) -> tuple[int, int]:
    """The least and the largest of the processes' numbers."""
    if not dist.is_initialized():
        return number, number
    box = torch.tensor([-number, number], device=device())
    dist.all_reduce(box, dist.ReduceOp.MAX)
    return -int(box[0].item()), int(box[1].item())
