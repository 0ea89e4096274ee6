"""What a run tells: `log.jsonl` with every number, one progress line, a stop with advice when
scores break down.

Lines of a step hold loss and rate; every `WINDOW` steps a line adds the training AUC on the last
`BUFFER` scores, A_M, the duals and the margin's bound in the last batch, and images per second;
every epoch one holds the validation AUCs. With several processes the buffer is that of the main
one, an even share of every batch.
"""

import json
import math
import os
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

from pipeline.core.artifacts.files import write_text
from pipeline.core.metrics.roc import auc_or_nan
from pipeline.core.runtime.device import is_main
from pipeline.core.runtime.errors import UserError

WINDOW, BUFFER = 20, 2048
DIVERGED = (
    "lower the learning rate, bound the scores (normalize), or set precision='fp32' in the run"
)
COLLAPSED = 5  # windows of equal scores, that is 100 steps, before a run is stopped


def event_writer(folder: Path):
    """A TensorBoard writer when TENSORBOARD=1 asks for one, else None; UserError where the package
    is not installed."""
    if os.environ.get("TENSORBOARD", "") in ("", "0") or not is_main():
        return None
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise UserError(
            "TENSORBOARD=1 needs the package tensorboard: pip install tensorboard"
        ) from None
    return SummaryWriter(folder / "events")


def numbers(line: dict) -> dict[str, float]:
    """The numbers of a log line, one name each.

    >>> numbers({"loss": 0.5, "valid_auc": {"mean": 0.9}, "alpha": [0.1, 0.2]})
    {'loss/0': 0.5, 'valid_auc/mean': 0.9, 'alpha/0': 0.1, 'alpha/1': 0.2}
    """
    flat = {}
    for name, value in line.items():
        items = (
            value.items()
            if isinstance(value, dict)
            else enumerate(value if isinstance(value, list) else [value])
        )
        flat |= {
            f"{name}/{key}": float(item) for key, item in items if isinstance(item, (int, float))
        }
    return flat


class RunLog:
    """The log of one phase of one fold. Scores stay on the device until a window ends: one transfer
    per window."""

    def __init__(self, path: Path, phase: str, loss: nn.Module) -> None:
        self.path, self.phase, self.loss = path, phase, loss
        self.progress: dict[str, str] = {}
        self.pending: list[tuple[int, torch.Tensor, torch.Tensor, torch.Tensor, float]] = []
        self.scores = self.labels = np.empty((0, 0), np.float32)
        self.level: list[
            list[bool]
        ] = []  # of the window's steps: which labels' scores were all equal
        self.collapsed = 0
        self.images, self.since = 0, time.monotonic()
        self.events = event_writer(path.parent)

    def start_afresh(self) -> None:
        """Drop the lines of an earlier attempt at this phase that left no checkpoint."""
        if is_main():
            write_text(
                self.path,
                "".join(line for line in self.lines() if json.loads(line)["phase"] != self.phase),
            )

    def lines(self) -> list[str]:
        """The file's whole lines; one that a crash or a full disk cut is left out."""
        text = self.path.read_text(encoding="utf-8") if self.path.exists() else ""
        return [line for line in text.splitlines(keepends=True) if line.endswith("\n")]

    def state(self) -> dict:
        """What a checkpoint keeps: the buffer, and how long the file was. The file is on the disk
        before it is told."""
        with self.path.open("rb") as file:
            os.fsync(file.fileno())
            size = file.seek(0, os.SEEK_END)
        return {
            "level": self.level,
            "scores": torch.from_numpy(self.scores),
            "labels": torch.from_numpy(self.labels),
            "collapsed": self.collapsed,
            "bytes": size,
        }

    def resume(self, state: dict) -> None:
        """Cut the file to what it was at the checkpoint, so that no line is missing or repeated."""
        self.scores, self.labels = state["scores"].numpy(), state["labels"].numpy()
        self.collapsed, self.level = state["collapsed"], state["level"]
        if is_main():
            with self.path.open("a+b") as file:
                size = file.seek(0, os.SEEK_END)
                if size < state["bytes"]:
                    print(
                        f"{self.path}: {state['bytes'] - size} bytes shorter than at the "
                        "checkpoint, lines are gone"
                    )
                file.truncate(min(size, state["bytes"]))

    def write(self, line: dict) -> None:
        if is_main():
            try:
                with self.path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"phase": self.phase, **line}) + "\n")
            except OSError as error:
                raise UserError(
                    f"{self.path}: could not be written ({error}); make room and run the same "
                    "command "
                    "again, it goes on from the last checkpoint"
                ) from None
        if self.events:
            for name, value in numbers(line).items():
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
        """Note one step; at a window's end, write and judge."""
        self.pending.append((step, value, scores, targets, rate))
        self.images += images
        if step % WINDOW == 0:
            self.flush()

    def flush(self) -> None:
        """Write the pending steps, and the window's line where one ends with them."""
        if not self.pending:
            return
        values = torch.stack([value for _, value, _, _, _ in self.pending]).tolist()
        for (step, _, _, _, rate), value in zip(self.pending, values, strict=True):
            self.write({"step": step, "loss": value, "lr": rate})
            if not math.isfinite(value):
                raise UserError(f"{self.path}: step {step}: the loss is {value}; {DIVERGED}")
        fresh = [
            torch.cat([item[place] for item in self.pending]).float().cpu().numpy()
            for place in (2, 3)
        ]
        ends = np.cumsum([len(item[2]) for item in self.pending])[:-1]
        self.level += [all_equal(batch) for batch in np.split(fresh[0], ends) if len(batch) > 1]
        self.keep(*fresh)
        last = self.pending[-1][0]
        self.pending = []
        if last % WINDOW == 0:
            self.judge(last)
            self.window(last, values)

    def keep(self, scores: np.ndarray, labels: np.ndarray) -> None:
        """Append to the buffer and forget what is older than its length."""
        if self.scores.size:
            scores, labels = (
                np.concatenate([self.scores, scores]),
                np.concatenate([self.labels, labels]),
            )
        self.scores, self.labels = scores[-BUFFER:].copy(), labels[-BUFFER:].copy()

    def judge(self, step: int) -> None:
        """Stop a run in which some label's scores were equal within every batch of 100 steps: it
        learns no ranking.

        Within a batch, since a bias may still move from one to the next.
        """
        equal = bool(self.level) and bool(np.all(self.level, axis=0).any())
        self.collapsed, self.level = self.collapsed + 1 if equal else 0, []
        if self.collapsed >= COLLAPSED:
            raise UserError(
                f"{self.path}: step {step}: the scores of some label have been equal for "
                f"{COLLAPSED * WINDOW} steps; lower the learning rate, or begin from pretrained "
                "weights"
            )

    def window(self, step: int, values: list[float]) -> None:
        """One line: training AUC on the buffer, what the loss tells of its last batch, speed."""
        elapsed, images = time.monotonic() - self.since, self.images
        self.since, self.images = time.monotonic(), 0
        aucs = [
            auc_or_nan(self.scores[:, k], self.labels[:, k]) for k in range(self.scores.shape[1])
        ]
        line = {
            "step": step,
            "window": True,
            "train_auc": aucs,
            "images_per_second": round(images / elapsed, 1),
        }
        line |= self.duals()
        self.write(line)
        mean = np.nanmean(aucs) if not np.isnan(aucs).all() else float("nan")
        self.progress = {
            "loss": f"{np.mean(values):.4f}",
            "auc": f"{mean:.3f}",
            "img/s": f"{images / elapsed:.0f}",
            **({"A_M": f"{np.mean(line['a_m']):.3f}"} if "a_m" in line else {}),
            **{name: self.progress[name] for name in ("valid",) if name in self.progress},
        }
        if "alpha" in line:
            bound = f"/{np.mean(line['reach']):.2f}" if np.isfinite(line["reach"]).all() else ""
            self.progress["alpha/bound" if bound else "alpha"] = (
                f"{np.mean(line['alpha']):.2f}{bound}"
            )

    def duals(self) -> dict:
        """A_M, the gap of the class means and its bound, a, b, alpha; nothing where the loss has
        none."""
        if not hasattr(self.loss, "last"):
            return {}
        return {name: value.float().cpu().tolist() for name, value in self.loss.last.items()}

    def epoch(self, step: int, epoch: int, aucs: dict[str, float]) -> None:
        """One line per epoch with the validation AUCs."""
        self.flush()
        self.write({"step": step, "epoch": epoch, "valid_auc": aucs})
        self.progress["valid"] = f"{aucs['mean']:.4f}"


def all_equal(scores: np.ndarray) -> list[bool]:
    """Of each label, whether a batch's scores (B, K) are the same but for rounding."""
    return (np.ptp(scores, axis=0) <= 1e-6 * (1 + np.abs(scores).max(axis=0))).tolist()
