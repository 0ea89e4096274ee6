"""The reliability curve of one label: what the score said against what was seen."""

from pipeline.core.report.figures.svg import Plot

STYLES = {"raw": "c-ce", "Platt": "c-aucm", "isotonic": "c-final dashed"}


def reliability_plot(label: str, curves: dict[str, list[dict]]) -> str:
    """SVG; curves: name -> rows of `metrics.calibration.reliability`. The axes are alike, so that
    the diagonal is where a probability is right."""
    ends = [
        value for rows in curves.values() for row in rows for value in (row["said"], row["high"])
    ]
    top = min(1.0, max(0.05, 1.05 * max(ends)))
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
