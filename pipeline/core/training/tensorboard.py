"""TensorBoard events beside `log.jsonl`, for who asks for them with TENSORBOARD=1."""

from pathlib import Path

from pipeline.core.runtime.device import is_main
from pipeline.core.runtime.environment import tensorboard
from pipeline.core.runtime.errors import UserError


def event_writer(folder: Path):
    """A TensorBoard writer when TENSORBOARD=1 asks for one, else None; UserError where the package
    is not installed."""
    # Imported only when it is asked for: requirements.txt does not have it.
    if not tensorboard() or not is_main():
        return None
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise UserError(
            "TENSORBOARD=1 needs the package tensorboard: pip install tensorboard"
        ) from None
    return SummaryWriter(folder / "events")


def tensorboard_scalars(line: dict) -> dict[str, float]:
    """The numbers of a log line, one name each, as TensorBoard wants them.

    >>> tensorboard_scalars({"loss": 0.5, "valid_auc": {"mean": 0.9}, "alpha": [0.1, 0.2]})
    {'loss/0': 0.5, 'valid_auc/mean': 0.9, 'alpha/0': 0.1, 'alpha/1': 0.2}
    """
    # A number for each label is named by the label, or by its place.
    flat = {}
    for name, value in line.items():
        if isinstance(value, dict):
            items = value.items()
        elif isinstance(value, list):
            items = enumerate(value)
        else:
            items = [(0, value)]
        for key, item in items:
            if isinstance(item, (int, float)):
                flat[f"{name}/{key}"] = float(item)
    return flat
