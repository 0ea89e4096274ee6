"""What all figures share: colours that colour-blind readers can tell apart, axes, and the file
format, which holds the command that drew the figure."""

import argparse
import shlex
import sys
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from pipeline.core.artifacts.files import atomic
from pipeline.paper.published import NETWORK_NAMES

FIGURES_FOLDER = Path(__file__).parent / "figures"
# Okabe and Ito's palette, which colour-blind readers can tell apart, and a gray.
COLOURS = {"ce": "#7f7f7f", "focal": "#009e73", "aucs": "#d55e00", "aucm": "#0072b2"}
POSITIVE = "#0072b2"
NEGATIVE = "#d55e00"


def axes_grid(
    rows: int, columns: int, width: float = 3.4, height: float = 2.9
) -> tuple[Figure, np.ndarray]:
    """A figure of rows x columns axes (width and height of each in inches) without top and right
    spines; the axes as a 2-D array."""
    # Without pyplot, which keeps every figure and may look for a screen.
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=8)
        axis.title.set_fontsize(9.5)
    return figure, axes


def label(axis: Axes, title: str, x: str = "", y: str = "") -> None:
    """The title of axes and the names of both."""
    axis.set_title(title, fontsize=9.5)
    axis.set_xlabel(x, fontsize=9)
    axis.set_ylabel(y, fontsize=9)


def scale_of(options: argparse.Namespace) -> str:
    """What a figure's runs were, for its title: `ResNet20, 10 epochs, 1 training set`."""
    seeds = getattr(options, "seeds", 1)
    sets = "training set" if seeds == 1 else "training sets"
    return f"{NETWORK_NAMES[options.network]}, {options.epochs} epochs, {seeds} {sets}"


def curve(
    axis: Axes,
    histories: list[list[float]],
    colour: str,
    name: str,
    start: int = 1,
    style: str = "-",
) -> None:
    """The mean over runs of one value per epoch, with a band of one standard deviation where there
    are two or more."""
    values = np.asarray(histories, float)
    epochs = np.arange(start, start + values.shape[1])
    mean = values.mean(0)
    axis.plot(epochs, mean, style, color=colour, label=name, linewidth=1.5)

    # One run has no spread; a band of width 0 would claim there is none.
    if len(values) > 1:
        spread = values.std(0, ddof=1)
        band = dict(color=colour, alpha=0.18, linewidth=0)
        axis.fill_between(epochs, mean - spread, mean + spread, **band)


def save(figure: Figure, name: str, folder: Path = FIGURES_FOLDER) -> Path:
    """Write `<folder>/<name>.png`, which holds the command that drew it, and return its path."""
    path = folder / f"{name}.png"
    # In the file itself, so that a figure cannot be parted from its command; RESULTS.md reads it.
    with atomic(path) as temporary:
        figure.savefig(temporary, format="png", dpi=130, metadata={"Description": command()})
    return path


def command() -> str:
    """The command that is running, as one would type it."""
    # Under `python -m`, argv[0] is a path of this machine; the module's name is what was typed.
    spec = sys.modules["__main__"].__spec__
    program = ["-m", spec.name] if spec else sys.argv[:1]
    return shlex.join(["python", *program, *sys.argv[1:]])


def drawn_by(path: Path) -> str:
    """The command that a figure was drawn by."""
    with Image.open(path) as image:
        return image.info["Description"]
