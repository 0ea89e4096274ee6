"""The reliability curve of one label: what the score said against what was seen."""

from collections.abc import Sequence

from pipeline.core.report.figures.svg import Plot

STYLES = {"raw": "c-ce", "Platt": "c-aucm", "isotonic": "c-final dashed"}


def axis_end(curves_of_labels: Sequence[dict[str, list[dict]]]) -> float:
    """Where both axes of all labels end, since labels are compared; at most 1."""
    ends = [0.05]
    for curves in curves_of_labels:
        for rows in curves.values():
            ends += [value for row in rows for value in (row["said"], row["high"])]
    return min(1.0, 1.05 * max(ends))


def reliability_plot(label: str, curves: dict[str, list[dict]], top: float) -> str:
    """SVG; curves: name -> rows of `metrics.calibration.reliability`.

    top: where both axes end; they are alike, so that a probability is right on the diagonal.
    """
    plot = Plot((0, top), (0, top), "mean score said", "share of positives seen")
    plot.line([0, top], [0, top], "c-soft thin dotted")
    for name, rows in curves.items():
        style = STYLES[name]
        said = [row["said"] for row in rows]
        if name != "isotonic":
            for row in rows:
                plot.line([row["said"]] * 2, [row["low"], min(row["high"], top)], f"{style} thin")
        plot.line(said, [row["seen"] for row in rows], style, name)
        for row in rows:
            text = f"{name}: said {row['said']:.3f}, seen {row['seen']:.3f} of {row['n']:,}"
            plot.dot(row["said"], row["seen"], style.split()[0], text)
    clip = "reliability-" + "".join(letter if letter.isalnum() else "-" for letter in label)
    return plot.svg(f"Reliability curve of {label}", clip=clip)
