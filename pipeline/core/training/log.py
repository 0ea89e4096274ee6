"""What one phase of a fold reports while it trains: its log lines, the progress bar's numbers, and
the checks that stop a run with advice.

Lines of a step hold loss and rate; every `WINDOW` steps a line adds the training AUC on the last
`BUFFER` scores, A_M, the duals and the margin's bound in the last batch, and images per second;
every epoch one holds the validation AUCs. With several processes the buffer is that of the main
one, an even share of every batch.
"""

import math
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from pipeline.core.losses import AUCMargin
from pipeline.core.metrics.roc import auc_or_nan
from pipeline.core.runtime.errors import UserError
from pipeline.core.training.collapse import COLLAPSED, CollapseCheck
from pipeline.core.training.log_file import LogFile
from pipeline.core.training.tensorboard import event_writer, tensorboard_scalars

# Steps between two transfers from the device, and between two window lines: to read a loss holds
# the host until the device is done, so it is not done at every step.
WINDOW = 20
# Latest scores that the training AUC is of: at 1.8 % positives (melanoma) 37 positives, which gives
# it a standard error of some .04 at .85.
BUFFER = 2048
DIVERGED = (
    "lower the learning rate, bound the scores (normalize), or set precision='fp32' in the run"
)


class PendingStep(NamedTuple):
    """A step whose numbers are still on the device."""

    step: int
    value: torch.Tensor
    scores: torch.Tensor
    targets: torch.Tensor
    rate: float


class RunLog:
    """The log of one phase of one fold. Scores stay on the device until a window ends: one transfer
    per window.

    progress       what the progress bar shows
    scores, labels the buffer, (n <= BUFFER, K) float32
    images, since  images trained on since the last window's end, and when that was
    epoch_since    when the epoch began, or this process did
    """

    def __init__(self, path: Path, phase: str, loss: nn.Module) -> None:
        self.path = path
        self.phase = phase
        self.file = LogFile(path, phase)
        self.events = event_writer(path.parent)
        self.loss = loss
        self.progress: dict[str, str] = {}
        self.pending: list[PendingStep] = []
        self.scores = np.empty((0, 0), np.float32)
        self.labels = np.empty((0, 0), np.float32)
        self.collapse = CollapseCheck()
        self.images = 0
        self.since = time.monotonic()
        self.epoch_since = self.since

    def state(self) -> dict:
        """What a checkpoint keeps: the buffer, and how long the file was."""
        return {
            "level": self.collapse.level,
            "scores": torch.from_numpy(self.scores),
            "labels": torch.from_numpy(self.labels),
            "collapsed": self.collapse.windows,
            "bytes": self.file.synced_size(),
        }

    def resume(self, state: dict) -> None:
        """Go on from a checkpoint's `state`: the buffer as it was, the file cut to its size."""
        self.scores = state["scores"].numpy()
        self.labels = state["labels"].numpy()
        self.collapse.windows = state["collapsed"]
        self.collapse.level = state["level"]
        self.file.cut(state["bytes"])

    def write(self, line: dict) -> None:
        """Append a line to the file and its numbers to TensorBoard."""
        self.file.append(line)
        if self.events:
            for name, value in tensorboard_scalars(line).items():
                self.events.add_scalar(f"{self.phase}/{name}", value, line["step"])

    def step(
        self,
        step: int,
        value: torch.Tensor,
        scores: torch.Tensor,
        targets: torch.Tensor,
        rate: float,
        images: int,
    ) -> None:
        """Note one step of so many images; at a window's end, write and judge."""
        self.pending.append(PendingStep(step, value, scores, targets, rate))
        self.images += images
        if step % WINDOW == 0:
            self.flush()

    def flush(self) -> None:
        """Write the pending steps, and the window's line where one ends with them."""
        if not self.pending:
            return
        # Every loss in one transfer, a line for each. A NaN is found up to WINDOW steps late, but
        # before the weights are kept.
        steps = self.pending
        values = torch.stack([one.value for one in steps]).tolist()
        for one, value in zip(steps, values, strict=True):
            self.write({"step": one.step, "loss": value, "lr": one.rate})
            if not math.isfinite(value):
                raise UserError(f"{self.path}: step {one.step}: the loss is {value}; {DIVERGED}")

        # Scores and labels into the buffer; which scores of a batch were all equal.
        scores = torch.cat([one.scores for one in steps]).float().cpu().numpy()
        labels = torch.cat([one.targets for one in steps]).float().cpu().numpy()
        ends = np.cumsum([len(one.scores) for one in steps])[:-1]
        for batch in np.split(scores, ends):
            self.collapse.add(batch)
        self.keep(scores, labels)
        last = steps[-1].step
        self.pending = []

        # A checkpoint or an epoch's end flushes in mid-window, which does not end it.
        if last % WINDOW == 0:
            self.judge(last)
            self.window(last, values)

    def keep(self, scores: np.ndarray, labels: np.ndarray) -> None:
        """Append to the buffer and forget what is older than its length."""
        if self.scores.size:
            scores = np.concatenate([self.scores, scores])
            labels = np.concatenate([self.labels, labels])
        # A copy, since a view would keep all of the concatenation.
        self.scores = scores[-BUFFER:].copy()
        self.labels = labels[-BUFFER:].copy()

    def judge(self, step: int) -> None:
        """Stop a run that has collapsed: it learns no ranking."""
        if self.collapse.end_window():
            raise UserError(
                f"{self.path}: step {step}: the scores of some label have been equal for "
                f"{COLLAPSED * WINDOW} steps; lower the learning rate, or begin from pretrained "
                "weights"
            )

    def window(self, step: int, values: list[float]) -> None:
        """Write one line: training AUC on the buffer, `duals`, speed; and show it."""
        # Speed counts validation and checkpoints too: what a run takes, not what a step takes.
        now = time.monotonic()
        speed = self.images / (now - self.since)
        self.since = now
        self.images = 0

        # Scores of the last steps, made by weights that changed meanwhile: an estimate.
        aucs = [auc_or_nan(*columns) for columns in zip(self.scores.T, self.labels.T, strict=True)]
        duals = self.duals()
        line = {"step": step, "window": True, "train_auc": aucs}
        self.write({**line, "images_per_second": round(speed, 1), **duals})
        self.show(np.mean(values), aucs, speed, duals)

    def show(self, loss: float, aucs: list[float], speed: float, duals: dict) -> None:
        """Set the progress bar's numbers, means over labels; the validation AUC stays."""
        auc = np.nanmean(aucs) if not np.isnan(aucs).all() else float("nan")
        progress = {"loss": f"{loss:.4f}", "auc": f"{auc:.3f}", "img/s": f"{speed:.0f}"}
        if duals:
            progress["A_M"] = f"{np.mean(duals['a_m']):.3f}"
        if "valid" in self.progress:
            progress["valid"] = self.progress["valid"]
        # α beside the margin's bound, where the normaliser sets one: a margin above the bound can
        # never be met, and α then stays above 0.
        if duals:
            alpha = f"{np.mean(duals['alpha']):.2f}"
            if np.isfinite(duals["reach"]).all():
                progress["alpha/bound"] = f"{alpha}/{np.mean(duals['reach']):.2f}"
            else:
                progress["alpha"] = alpha
        self.progress = progress

    def duals(self) -> dict:
        """A_M, the gap of the class means and its bound, a, b, alpha, counts in the last batch;
        nothing for a loss that is not an AUC loss."""
        if not isinstance(self.loss, AUCMargin):
            return {}
        return {name: value.float().cpu().tolist() for name, value in self.loss.last.items()}

    def epoch(self, step: int, epoch: int, aucs: dict[str, float]) -> None:
        """One line per epoch with the validation AUCs, and its seconds with validation."""
        self.flush()
        now = time.monotonic()
        seconds = round(now - self.epoch_since, 1)
        self.epoch_since = now
        self.write({"step": step, "epoch": epoch, "valid_auc": aucs, "seconds": seconds})
        self.progress["valid"] = f"{aucs['mean']:.4f}"
