"""log.jsonl of a fold as curves: validation and training AUC, α and what drives it, over the steps
of both stages."""

from dataclasses import dataclass, field

import numpy as np

Curve = tuple[list[float], list[float]]  # steps and values


def empty_curve() -> Curve:
    return [], []


@dataclass
class Curves:
    """Steps and values, means over labels. Steps of stage 2 follow those of stage 1.

    valid   AUC at the end of each epoch
    train   AUC on the last scores
    alpha   α of the AUC loss
    gap     between the class means of a batch
    reach   the largest gap that the normaliser allows
    border  the step where stage 2 begins, 0 without stage 1
    last    the last step
    """

    valid: Curve = field(default_factory=empty_curve)
    train: Curve = field(default_factory=empty_curve)
    alpha: Curve = field(default_factory=empty_curve)
    gap: Curve = field(default_factory=empty_curve)
    reach: Curve = field(default_factory=empty_curve)
    border: int = 0
    last: int = 0


def curves_of(lines: list[dict]) -> Curves:
    """The curves in a log's lines; values that a batch did not give (NaN) are left out."""
    stage_1_steps = [line["step"] for line in lines if line["phase"] == "pretrained"]
    curves = Curves(border=max(stage_1_steps, default=0))
    for line in lines:
        # each stage counts its steps from 1
        step = line["step"]
        if line["phase"] == "finetuned":
            step += curves.border
        curves.last = max(curves.last, step)
        if "valid_auc" in line:
            append_mean(curves.valid, step, [line["valid_auc"]["mean"]])
        if "train_auc" in line:
            append_mean(curves.train, step, line["train_auc"])
        for name in ("alpha", "gap", "reach"):
            if name in line:
                append_mean(getattr(curves, name), step, line[name])
    return curves


def append_mean(curve: Curve, step: int, values: list[float | None]) -> None:
    """Append the mean of the values that are finite numbers; nothing where none is."""
    # NaN: a batch without one of the classes; infinite: a normaliser without a bound
    known = [value for value in values if value is not None and np.isfinite(value)]
    if known:
        curve[0].append(step)
        curve[1].append(float(np.mean(known)))
