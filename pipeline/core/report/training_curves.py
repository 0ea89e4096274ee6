"""log.jsonl of a fold as curves: validation and training AUC, α and what drives it, over the steps
of both phases."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pipeline.core.runtime.errors import UserError

Curve = tuple[list[float], list[float]]


@dataclass
class Curves:
    """Steps and values, means over labels. Steps of stage 2 follow those of stage 1; `border` is
    where it begins.

    valid: AUC at the end of each epoch; train: AUC on the last scores; alpha; gap: of the class
    means of a batch; reach: the largest gap that the normaliser allows.
    """

    valid: Curve = field(default_factory=lambda: ([], []))
    train: Curve = field(default_factory=lambda: ([], []))
    alpha: Curve = field(default_factory=lambda: ([], []))
    gap: Curve = field(default_factory=lambda: ([], []))
    reach: Curve = field(default_factory=lambda: ([], []))
    border: int = 0
    last: int = 0


def read_log(path: Path, made_by: str) -> list[dict]:
    """The lines of a log.jsonl; UserError for a missing file or a line that is no JSON."""
    if not path.is_file():
        raise UserError(f"{path}: there is no such file; `{made_by}` writes it while it trains")
    lines = []
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            raise UserError(f"{path}: line {number}: {text[:40]!r} is no JSON") from None
    return lines


def curves_of(lines: list[dict]) -> Curves:
    """The curves in a log's lines; values that a batch did not give (NaN) are left out."""
    made = Curves(
        border=max((line["step"] for line in lines if line["phase"] == "pretrained"), default=0)
    )
    for line in lines:
        step = line["step"] + (made.border if line["phase"] == "finetuned" else 0)
        made.last = max(made.last, step)
        if "valid_auc" in line:
            note(made.valid, step, [line["valid_auc"]["mean"]])
        if "train_auc" in line:
            note(made.train, step, line["train_auc"])
        for name in ("alpha", "gap", "reach"):
            if name in line:
                note(getattr(made, name), step, line[name])
    return made


def note(curve: Curve, step: int, values: list[float]) -> None:
    """Add the mean of the values that are numbers."""
    known = [value for value in values if value is not None and np.isfinite(value)]
    if known:
        curve[0].append(step)
        curve[1].append(float(np.mean(known)))
