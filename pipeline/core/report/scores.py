"""Sections of the report about scores: the summary, paired differences, ROC curves, histograms, members."""
from collections.abc import Sequence
from html import escape

import numpy as np
import pandas as pd
from tqdm import tqdm

from pipeline.core.artifacts.tables import models_folder
from pipeline.core.ensemble.scores import classes
from pipeline.core.metrics import auc, roc_band, roc_points
from pipeline.core.report.html import (
    Html,
    bullets,
    drawn,
    figure,
    legend,
    panels,
    paragraph,
    scale,
    shaded,
    source,
    table,
)
from pipeline.core.report.inputs import Evidence
from pipeline.core.report.svg import Plot, interval_bar, limits_of, nice_ticks, steps, thinned

STYLES = {"CE": "c-ce", "blend": "c-final", "ensemble": "c-final", "metadata": "c-other"}
BINS = (10, 40)  # fewest and most; the square root of the rarer class, doubled, between them
ROOT_TICKS = (0, 0.01, 0.05, 0.1, 0.25, 0.5, 1)  # of a square-root axis of shares


def style_of(stage: str) -> str:
    return STYLES.get(stage, "c-aucm")


def named(member: str, stage: str) -> str:
    """`b5_384, AUC-M`, `ensemble of the runs`, `ensemble, blended with metadata`."""
    if member == stage:
        return {"ensemble": "ensemble of the runs"}.get(member, member)
    return f"{member}, " + {"blend": "blended with metadata"}.get(stage, stage)


def with_interval(row: dict | pd.Series) -> str:
    """`.8123 [.7801, .8432]`, a dash where there is none."""
    if pd.isna(row["auc"]):
        return "–"
    return f"{row['auc']:.4f} [{row['low']:.4f}, {row['high']:.4f}]"


def made_by(evidence: Evidence) -> str:
    return f"make ensemble COMP={evidence.name}"


def published(evidence: Evidence) -> tuple:
    """(stage, AUC, what of) of the paper, where the competition's file tells any; the ensemble is a stage."""
    return tuple(getattr(evidence.competition.module, "published", ()))


def summary(evidence: Evidence) -> str:
    """Every member's mean AUC with its interval, the paper's numbers beside; then label by label."""
    scores, theirs = evidence.scores, published(evidence)
    means, beside = scores[scores["label"] == "mean"], {}
    for stage, value, _ in theirs:
        beside.setdefault(stage, value)
    limits = limits_of([*means["low"], *means["high"], *beside.values()])
    rows, strong = [], []
    for _, row in means.iterrows():
        final = row["member"] == "ensemble"
        mark = beside.get("final" if final and row["stage"] == evidence.final_stage else row["stage"])
        mark = None if final and row["stage"] != evidence.final_stage else mark
        strong += [len(rows)] if final and row["stage"] == evidence.final_stage else []
        bar = interval_bar(row["auc"], row["low"], row["high"], limits, style_of(row["stage"]), mark)
        cells = [f"{int(row['n']):,}", f"{int(row['positives']):,}", int(row["views"])]
        rows.append([named(row["member"], row["stage"]), with_interval(row), drawn(bar), *cells,
                     *([f"{mark:.4f}" if mark else ""] if theirs else [])])
    head = ["member", "AUC [95 % interval]", scale(limits), "n", "positives", "views"]
    what = "mean over labels, out of fold" if len(evidence.labels) > 1 else "out of fold"
    made = table([*head, *(["the paper's ◇"] if theirs else [])], rows, f"AUC, {what}", strong)
    if theirs:
        made += paragraph("◇ The paper's numbers are of other data (its test set, its training set): "
                          + "; ".join(f"{value:.4f} {told}" for _, value, told in theirs)
                          + ". They stand beside ours for orientation; the difference measures nothing.", "soft")
    return made + by_label(evidence) + partial(evidence) + source(
        f"{models_folder(evidence.name)}/scores.csv", made_by(evidence))


def by_label(evidence: Evidence) -> str:
    """Members by labels, where there is more than one label."""
    if len(evidence.labels) == 1:
        return ""
    scores = evidence.scores.set_index(["member", "stage", "label"])
    rows = []
    for member, stage in evidence.scores[["member", "stage"]].drop_duplicates().itertuples(index=False):
        found = [scores.loc[key] if (key := (member, stage, label)) in scores.index else None
                 for label in evidence.labels]
        rows.append([named(member, stage), *("–" if row is None else with_interval(row) for row in found)])
    counted = evidence.scores.drop_duplicates("label").set_index("label")
    heads = [Html(f"{escape(label)}<br>{int(counted['positives'][label]):,} of {int(counted['n'][label]):,}")
             if label in counted.index else label for label in evidence.labels]
    return table(["member", *heads], rows, "AUC [95 % interval] label by label; in the heading the positives")


def partial(evidence: Evidence) -> str:
    """The partial AUC, where that is the organiser's score."""
    if "partial_auc" not in evidence.scores:
        return ""
    known = evidence.scores[evidence.scores["partial_auc"].notna()]
    rows = [[named(row["member"], row["stage"]), row["label"],
             f"{row['partial_auc']:.4f} [{row['partial_low']:.4f}, {row['partial_high']:.4f}]"]
            for _, row in known.iterrows()]
    return table(["member", "label", "partial AUC [95 % interval]"], rows, "Area above 80 % sensitivity, 0 to 0.2")


def differences(evidence: Evidence) -> str:
    """Which difference is more than noise."""
    found = evidence.facts["differences"]
    if not found:
        return paragraph("Nothing to compare: one member, one stage.")
    limits = limits_of([0, *(row[key] for row in found for key in ("low", "high"))], 0.01)
    rows = []
    for row in found:
        real = row["low"] > 0 or row["high"] < 0
        better = "first" if row["difference"] > 0 else "second"
        rows.append([f"{pair_name(row['first'])} − {pair_name(row['second'])}",
                     f"{row['difference']:+.4f} [{row['low']:+.4f}, {row['high']:+.4f}]",
                     drawn(interval_bar(row["difference"], row["low"], row["high"], limits,
                                        "c-final" if real else "c-soft", zero=0)), f"{row['p']:.3f}",
                     f"the {better} is better" if real else "within noise"])
    text = ("Both are scored on the same 1,000 resamples of patients, so that what they share cancels out. The best "
            "single run is the best on these very rows, which flatters it.")
    return (paragraph(text) + table(["difference", "AUC [95 % interval]", scale(limits), "p",
                                     "verdict"], rows, "Paired differences of the mean AUC")
            + source(f"{models_folder(evidence.name)}/ensemble.json", made_by(evidence)))


def pair_name(text: str) -> str:
    """`b5_384 AUC-M` as ensemble.json says it, as the tables here do."""
    return named(*text.split(" ", 1))


def stages(evidence: Evidence) -> list[tuple[str, str, np.ndarray]]:
    """(style, name, scores) of what the curves compare: stage 1, stage 2, the final scores."""
    runs = "" if len(evidence.after) == 1 else f", mean of {len(evidence.after)} runs"
    before, made = evidence.mean_before(), []
    if before is not None:
        made.append(("c-ce", "CE" + runs, before))
    made.append(("c-aucm", evidence.stage_2 + runs, evidence.mean_after()))
    if evidence.facts["metadata"]:
        made.append(("c-final", "with metadata (final)", evidence.final))
    return made


def roc(evidence: Evidence) -> str:
    """A curve for each stage and label, the last with its band, and the corner beside it."""
    drawings, truth = [], evidence.units.truth
    scored = [k for k, both in enumerate(classes(truth)) if both]
    for k in tqdm(scored, desc="ROC bands, 1,000 resamples each", unit="label", leave=False):
        lines = [(style, name, roc_points(scores[:, k], truth[:, k])[:2])
                 for style, name, scores in stages(evidence) if not np.isnan(scores[:, k]).any()]
        band = roc_band(stages(evidence)[-1][2][:, k], truth[:, k], evidence.patients)
        areas = ", ".join(f"{name} {auc(scores[:, k], truth[:, k]):.3f}" for _, name, scores in stages(evidence))
        side = max(corner(*curve) for _, _, curve in lines)
        for limit in (1.0, side):
            plot = roc_plot(lines, band, stages(evidence)[-1][0], limit)
            described = f"ROC curve of {evidence.labels[k]}" + (", upper left corner" if limit < 1 else "")
            svg = plot.svg(f"{described}. AUC: {areas}", clip=f"roc{k}{'z' if limit < 1 else ''}")
            drawings.append(figure(svg, evidence.labels[k], areas if limit == 1 else "the corner where one would work"))
    keys = [(style, name) for style, name, _ in stages(evidence)]
    final = stages(evidence)[-1]
    return (legend([*keys, (f"{final[0]} band", f"95 % band of “{final[1]}”, pointwise, over patients")])
            + panels(drawings, pairs=True)
            + source(f"{models_folder(evidence.name)}/<run>/fold*/predictions*.csv, ensemble.csv",
                                        f"make predict COMP={evidence.name}"))


def roc_plot(lines: Sequence, band: tuple, style: str, side: float, points: Sequence = ()) -> Plot:
    """Axes over the upper left square of that side; points: (specificity, sensitivity, name) of readers."""
    plot = Plot((0, side), (1 - side, 1), "false positive rate (1 − specificity)", "sensitivity")
    if side == 1:
        plot.line([0, 1], [0, 1], "c-soft thin dotted")
    plot.area(*band, style)
    for colour, name, (x, y) in lines:
        plot.line(*thinned(x, y), colour, name)
    for specificity, sensitivity, name in points:
        plot.dot(1 - specificity, sensitivity, "c-other", name)
    return plot


def corner(x: np.ndarray, y: np.ndarray) -> float:
    """The side of the upper left square to zoom into: as small as the curve's best point allows."""
    distance = float(np.min(np.maximum(x, 1 - y)))
    return next((side for side in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6) if side >= 1.5 * distance), 0.6)


def histograms(evidence: Evidence) -> str:
    """Scores of positives and negatives after each stage, of the run that is best after stage 2 (paper, figure 2)."""
    run, truth, drawings = best_run(evidence), evidence.units.truth, []
    shown = [("CE", evidence.before.get(run)), (evidence.stage_2, evidence.after[run]), ("final", evidence.final)]
    shown = [(name, scores) for name, scores in shown[:2 if alone(evidence) else 3] if scores is not None]
    for k in np.flatnonzero(classes(truth)):
        for name, scores in shown:
            if not np.isnan(scores[:, k]).any():
                drawings.append(histogram(f"{evidence.labels[k]}, {name}" if len(evidence.labels) > 1 else name,
                                          scores[:, k], truth[:, k]))
    text = (f"Out-of-fold scores of {run} after each stage, and the final ones. Each class is shown as shares of its "
            "own, so that the rare one can be seen; a square-root scale keeps small bars visible.")
    return (paragraph(text) + legend([("c-aucm", "positives"), ("c-ce", "negatives")])
            + panels(drawings, pairs=len(shown) == 2)
            + source(f"{models_folder(evidence.name)}/{run}/fold*/predictions*.csv",
                     f"make predict COMP={evidence.name} RUN={run}"))


def alone(evidence: Evidence) -> bool:
    """True where the final scores are those of the only run."""
    return len(evidence.after) == 1 and not evidence.facts["metadata"]


def best_run(evidence: Evidence) -> str:
    """The run with the highest mean AUC after stage 2; the first where none has a mean."""
    means = evidence.scores[(evidence.scores["label"] == "mean") & (evidence.scores["stage"] == evidence.stage_2)]
    return means.loc[means["auc"].idxmax(), "member"] if len(means) else next(iter(evidence.after))


def histogram(name: str, scores: np.ndarray, truth: np.ndarray) -> str:
    """One panel: over [0, 1] where the scores fill half of it, else over their own range."""
    known = scores[~np.isnan(truth)]
    low, high = (0.0, 1.0) if np.ptp(known) >= 0.5 and known.min() >= 0 and known.max() <= 1 else (
        float(known.min()), float(known.max()))
    high = high if high > low else low + 1e-6
    rarer = min((truth == value).sum() for value in (0, 1))
    edges = np.linspace(low, high, int(np.clip(2 * np.sqrt(rarer), *BINS)) + 1)
    shares = [np.histogram(scores[truth == value], edges)[0] / max((truth == value).sum(), 1) for value in (0, 1)]
    top = float(max(share.max() for share in shares)) * 1.05
    plot = Plot((low, high), (0, top), "score" if high - low > 0.9 else "score (its own range)", "share of the class",
                root=True)
    for share, style in zip(shares, ("c-ce", "c-aucm")):
        x, y = steps(edges, share)
        plot.area(x, np.zeros(len(x)), y, style)
        plot.line(x, y, style)
    area = auc(scores, truth)
    means = [scores[truth == value].mean() for value in (1, 0)]
    described = f"{name}: AUC {area:.3f}; mean score of positives {means[0]:.3g}, of negatives {means[1]:.3g}"
    svg = plot.svg(f"Histogram of scores. {described}", nice_ticks(low, high, 5),
                   [tick for tick in ROOT_TICKS if tick <= top])
    return figure(svg, name, f"AUC {area:.3f}; means {means[0]:.3g} and {means[1]:.3g}")


def members(evidence: Evidence) -> str:
    """How alike the members rank, and what the ensemble made of it."""
    facts, names = evidence.facts, list(evidence.facts["weights"])
    stacked = np.array([[[np.nan if value is None else value for value in row] for row in matrix]
                        for matrix in facts["correlations"].values()], float)
    there = ~np.isnan(stacked)
    mean = np.where(there.any(0), np.where(there, stacked, 0).sum(0) / np.maximum(there.sum(0), 1), np.nan)
    rows = [[name, *map(shaded, mean[place]), weights_text(facts["weights"][name])] for place, name in enumerate(names)]
    over = "" if len(evidence.labels) == 1 else ", mean over labels"
    made = table(["run", *names, "weight"], rows, f"Rank correlation of out-of-fold scores{over}, and weight")
    if len(names) == 1:
        made = paragraph(f"{names[0]} is the only run: nothing is averaged over runs.")
    method = {"mean": "scores", "rank": "ranks within fold", "quantile": "quantiles by frozen out-of-fold maps"}
    lines = [f"The members' {method[facts['method']]} are averaged over folds and runs, {facts['weighting']} weights.",
             *selection_lines(facts),
             f"Metadata has the weight {facts['metadata']:g} beside the mean of the runs." if facts["metadata"]
             else "Metadata is not blended in."]
    lines += [f"Near-duplicates on {twin['label']}: {twin['first']} and {twin['second']} (ρ = {twin['rho']:.5f}); they "
              "count once." for twin in facts["near_duplicates"]] or (
        ["No two runs rank any label alike (ρ > .999)."] if len(names) > 1 else [])
    return made + bullets(lines) + source(f"{models_folder(evidence.name)}/ensemble.json", made_by(evidence))


def weights_text(weights: dict[str, float]) -> str:
    """One number where all labels have the same weight, else one a label."""
    values = [f"{value:.3g}" for value in weights.values()]
    return values[0] if len(set(values)) == 1 else ", ".join(f"{k} {v}" for k, v in zip(weights, values))


def selection_lines(facts: dict) -> list[str]:
    """Whether fitted weights held in the nested estimate."""
    if "selection" not in facts:
        return []
    gain = facts["selection"]
    told = f"{gain['gain']:+.4f} [{gain['low']:+.4f}, {gain['high']:+.4f}]"
    used = "so they are used" if gain["accepted"] else "an interval that does not exclude 0, so they are not used"
    return [f"Selected weights gain {told} over uniform ones in a nested estimate: {used}."]
