"""The search for balanced folds of patient groups: iterative stratification, then exchanges.

A fold is judged by totals: images, patients, values of every label, patients with a positive,
sources, categories such as sex, and how many patients have at most s images. Each total should be
one K-th of the whole. The search lowers

    J = sum over folds k and totals f of w_f (S_kf - T_f)^2,    T_f = whole / K,    w_f = 1 / T_f^2,

by the best single move or swap of groups between two folds. With g leaving fold a, h leaving fold
b, x = g - h and gap = S_a - S_b, J changes by 2 (|x|^2 - x.gap) in the norm of w, so all swaps of
two folds are one matrix product. Where no exchange lowers J, exchanges that lower the worst
deviations follow.

Bound: where no move lowers J, J <= (1 - 1/K) sum over groups of |g|^2, the mean over random splits.
(Add |g|^2 >= g.(S_a - S_b) over the groups g of a, then over b and a.) The search never ends above
it.

All totals are whole numbers and the weights are rounded to whole numbers, so that float64 sums are
exact in any order: the folds do not depend on the machine's linear algebra. Random numbers are
numpy's frozen RandomState stream.
"""

from itertools import combinations

import numpy as np
import pandas as pd
from iterstrat.ml_stratifiers import IterativeStratification

# At most so many counts of images per patient are balanced; SIIM has 84 different ones.
SIZE_STEPS = 128
# Groups of a fold that one matrix of swaps looks at: 1,500 x 1,500 float64 are 18 MB. SIIM's folds
# (411 patients) fit whole; five folds of CheXpert's training set (12,908: 1.3 GB) are sampled.
PATIENTS_OF_A_SAMPLE = 1500
STRICTER = 2  # of images, the one total that all others pull at
LOOSER = 3  # of sizes and categories: of the one there are 84 in SIIM, of the other 10
PATIENCE = 3  # rounds over all pairs of folds without a gain before a sampled search ends
ASSIGNMENTS_TRIED = 5_000
POWER = 8  # the worst deviation rules, those behind it still count
# The least relative gain in that power; an eighth of it off the worst deviation. With 0 the search
# would exchange rounding errors for ever.
GAIN = 1e-3
# A worst deviation of sampled folds that is not worked on; hundreds of others are as large.
ENOUGH = 1e-3
EXACT_BELOW = 2.0**53  # whole numbers below it are exact in float64


def group_table(
    rows: pd.DataFrame,
    group: np.ndarray,
    patient: np.ndarray,
    labels: tuple[str, ...],
    categorical: tuple[str, ...] = (),
) -> pd.DataFrame:
    """What each group brings to a fold.

    rows: the scored images, with the label columns (1, 0, -1, blank), perhaps `source` and the
    categorical columns; group, patient: (rows,). Returns whole numbers as float64, a row a group in
    ascending order, columns (kind, value): ("images", ""), ("patients", ""), ("label",
    "melanoma=1"), ("positive patients", "melanoma"), ("source", "isic2020"), ("category",
    "sex=female"), ("at most", 5) = patients with at most 5 images.
    """
    columns = {("images", ""): np.ones(len(rows))}

    # Uncertain and blank are balanced as well: a fold rich in -1 would train and score differently.
    for label in labels:
        values = rows[label].to_numpy(dtype=float)
        columns["label", f"{label}=1"] = values == 1
        columns["label", f"{label}=-1"] = values == -1
        columns["label", f"{label}=blank"] = np.isnan(values)

    # A single source would repeat the count of images.
    sources = sorted(rows["source"].dropna().unique()) if "source" in rows else []
    if len(sources) > 1:
        for source in sources:
            columns["source", source] = rows["source"].to_numpy() == source

    # Categories that the patient network reads, such as sex and site.
    for name in (name for name in categorical if name in rows):
        texts = rows[name].astype("str")
        for value in sorted(rows[name].dropna().astype("str").unique()):
            columns["category", f"{name}={value}"] = (texts == value).to_numpy()

    # Totals per group; a column of zeros says nothing.
    table = pd.DataFrame(columns).astype(float).groupby(group).sum()
    table = table.join(patient_counts(rows, group, patient, labels))
    varies = table.sum() > 0
    return table.loc[:, varies]


def patient_counts(
    rows: pd.DataFrame, group: np.ndarray, patient: np.ndarray, labels: tuple[str, ...]
) -> pd.DataFrame:
    """The columns of group_table that count patients rather than images."""
    # A row a patient: whether any image is positive, the group, the number of images.
    positive = pd.DataFrame({label: rows[label].to_numpy(dtype=float) == 1 for label in labels})
    frame = positive.assign(group=group, images=1)
    how = {**dict.fromkeys(labels, "max"), "group": "first", "images": "sum"}
    patients = frame.groupby(patient).agg(how)

    # An AUC's interval is over patients, so their number matters beside that of positive images.
    columns = {("patients", ""): np.ones(len(patients))}
    for label in labels:
        columns["positive patients", label] = patients[label].to_numpy()

    # How many patients have at most s images, for every s or, of more than 128, for quantiles: the
    # distribution function, whose largest gap to the whole is the Kolmogorov-Smirnov distance.
    count = patients["images"].to_numpy()
    steps = np.unique(count)
    if len(steps) > SIZE_STEPS:
        parts = np.arange(1, SIZE_STEPS + 1) / SIZE_STEPS
        steps = np.unique(np.quantile(count, parts, method="inverted_cdf"))
    for step in steps:
        columns["at most", int(step)] = count <= step
    return pd.DataFrame(columns).astype(float).groupby(patients["group"].to_numpy()).sum()


def split_groups(table: pd.DataFrame, folds: int, seed: int = 0) -> np.ndarray:
    """The fold of every group, (groups,) int64 in 0..folds-1, none empty.

    table: as `group_table` returns it. Needs 2 <= folds <= groups.
    """
    assert 2 <= folds <= len(table), f"{folds} folds of {len(table)} groups"
    x = table.to_numpy()
    scale = scales(table, folds)
    random = np.random.RandomState(seed)

    # The start: on SIIM's table within 3.7 % of a fifth of the images.
    fold = iterative_stratification(table, folds, random)
    fold = fill_empty(fold, x, folds)

    # Then all totals together, then the worst ones: 0.04 %.
    lower_sum(x, whole_weights(scale, folds), fold, folds, random)
    lower_worst(x, scale, fold, folds, random)
    return fold


def iterative_stratification(
    table: pd.DataFrame, folds: int, random: np.random.RandomState
) -> np.ndarray:
    """The fold of every group, (groups,) int64, by iterative stratification (Sechidis et al. 2011).

    It shares out groups with a positive, groups of each source and each tenth of group sizes. The
    search starts from it, and is compared with it.
    """
    # It takes traits that a group has or has not: which tenth its size is in, ...
    size = table["images", ""].to_numpy()
    borders = np.unique(np.quantile(size, np.arange(1, 10) / 10))
    tenths = np.searchsorted(borders, size)

    # ... and whether any of its patients is positive or its images are of a source.
    kinds = table.columns.get_level_values(0)
    has = table.loc[:, (kinds == "positive patients") | (kinds == "source")].to_numpy() > 0
    traits = np.column_stack([tenths[:, None] == np.unique(tenths), has])

    # It hands out groups as they come; shuffled, so that the order of the ids has no say.
    order = random.permutation(len(table))
    fold = np.empty(len(table), dtype=np.int64)
    fold[order] = IterativeStratification(traits[order], np.full(folds, 1 / folds), random)
    return fold


def fill_empty(fold: np.ndarray, x: np.ndarray, folds: int) -> np.ndarray:
    """Give every empty fold the smallest group of the fold that has most groups."""
    for empty in np.flatnonzero(np.bincount(fold, minlength=folds) == 0):
        richest = np.flatnonzero(fold == np.bincount(fold, minlength=folds).argmax())
        # Column 0 counts images; the smallest group disturbs the balance least.
        fold[richest[x[richest, 0].argmin()]] = empty
    return fold


def scales(table: pd.DataFrame, folds: int) -> np.ndarray:
    """What a deviation of each column is divided by, (columns,), at least 1 so that a label with a
    single positive does not rule the rest.

    The fold's fair share; for "at most", LOOSER x all its patients (1 / LOOSER of the
    Kolmogorov-Smirnov distance); for categories, LOOSER x all its images; for images, their share /
    STRICTER.
    """
    share = table.sum().to_numpy() / folds
    kinds = table.columns.get_level_values(0)
    share[kinds == "at most"] = LOOSER * table["patients", ""].sum() / folds
    share[kinds == "category"] = LOOSER * table["images", ""].sum() / folds
    share[kinds == "images"] /= STRICTER
    return np.maximum(share, 1.0)


def whole_weights(scale: np.ndarray, folds: int) -> np.ndarray:
    """w_f = 1 / T_f^2 up to a common factor, as whole numbers small enough for exact sums."""
    # A total is at most folds x scale, of images STRICTER times that (squared: 4), and products
    # are doubled (2): with a factor up to `finest`, no sum over the columns passes 2^53.
    finest = EXACT_BELOW / (8 * len(scale) * (folds * scale.max()) ** 2)
    # Where there is room, the least weight is 16, so that rounding changes none by more than 1/16.
    factor = min(16.0, finest)
    return np.maximum(1, np.floor(factor * (scale.max() / scale) ** 2))


def totals(x: np.ndarray, fold: np.ndarray, folds: int) -> np.ndarray:
    """S, the totals of every fold: (folds, columns)."""
    return np.stack([x[fold == k].sum(axis=0) for k in range(folds)])


def lower_sum(
    x: np.ndarray, weight: np.ndarray, fold: np.ndarray, folds: int, random: np.random.RandomState
) -> None:
    """Exchange groups between one pair of folds after another, in place, until nothing lowers J.

    Folds of more than PATIENTS_OF_A_SAMPLE groups are sampled; then the end is: no single move of
    any group, and no swap found in PATIENCE rounds over all pairs.
    """
    sums = totals(x, fold, folds)
    pairs = list(combinations(range(folds), 2))
    # A whole matrix without a gain is final; a sampled one may have missed the swap.
    rounds = 1 if np.bincount(fold).max() <= PATIENTS_OF_A_SAMPLE else PATIENCE
    turn = 0
    idle = 0  # turns without a gain
    while idle < rounds * len(pairs):
        gained = exchange_pair(x, weight, fold, sums, *pairs[turn % len(pairs)], random)
        turn += 1
        idle = 0 if gained else idle + 1
        # The bound holds where no single move of any group, sampled or not, lowers J.
        if idle == rounds * len(pairs) and apply_best_move(x, weight, fold, sums):
            idle = 0


def exchange_pair(
    x: np.ndarray,
    weight: np.ndarray,
    fold: np.ndarray,
    sums: np.ndarray,
    a: int,
    b: int,
    random: np.random.RandomState,
) -> int:
    """Apply the best exchanges between folds a and b (sampled), in place, until none lowers J;
    returns how many."""
    # -1 is "none": one against none is a single move.
    leaving = np.append(sample(fold, a, random), -1)
    entering = np.append(sample(fold, b, random), -1)
    change = changes(x, weight, leaving, entering, sums[a] - sums[b])

    # Many exchanges from one matrix: it is corrected after each, which is far cheaper than anew.
    count = 0
    while change.flat[best := change.argmin()] < 0:
        i, j = divmod(best, len(entering))
        step = sums[a].copy()
        exchange(x, fold, sums, a, b, leaving[i], entering[j])
        step -= sums[a]
        # The gap falls by 2 step, so every -x.gap rises by 2 x.step.
        change += 2 * (rows(x, leaving) @ (weight * step))[:, None]
        change -= 2 * (rows(x, entering) @ (weight * step))
        # What was exchanged rests until the next matrix: it has left the fold its row is about.
        if leaving[i] >= 0:
            change[i, :] = np.inf
        if entering[j] >= 0:
            change[:, j] = np.inf
        count += 1
    return count


def apply_best_move(x: np.ndarray, weight: np.ndarray, fold: np.ndarray, sums: np.ndarray) -> bool:
    """Move the one group, of all, whose move lowers J most; False where no move lowers it."""
    # Half the change in J by moving g from its fold a to b: |g|^2 - g.(S_a - S_b), (groups, folds).
    pull = (weight * x * x).sum(axis=1) - ((x * weight) * sums[fold]).sum(axis=1)
    change = pull[:, None] + x @ (weight * sums).T
    change[np.arange(len(x)), fold] = np.inf  # to where it is already
    group, target = np.unravel_index(change.argmin(), change.shape)
    if change[group, target] >= 0:
        return False
    exchange(x, fold, sums, fold[group], target, group, -1)
    return True


def sample(fold: np.ndarray, k: int, random: np.random.RandomState) -> np.ndarray:
    """The groups of fold k, or PATIENTS_OF_A_SAMPLE of them drawn at random, ascending."""
    members = np.flatnonzero(fold == k)
    if len(members) <= PATIENTS_OF_A_SAMPLE:
        return members
    return np.sort(random.choice(members, PATIENTS_OF_A_SAMPLE, replace=False))


def rows(x: np.ndarray, index: np.ndarray) -> np.ndarray:
    """The rows of x with these numbers, zeros for -1 (no group)."""
    return np.where(index[:, None] >= 0, x[index], 0.0)


def changes(
    x: np.ndarray, weight: np.ndarray, leaving: np.ndarray, entering: np.ndarray, gap: np.ndarray
) -> np.ndarray:
    """Half the change in J for every exchange in which g leaves fold a and h enters it.

    |g - h|^2 - (g - h).gap, (leaving, entering) float64; index -1 is no group.
    """
    # Multiplied out, so that the only work in leaving x entering is one matrix product:
    # |g|^2 - g.gap + |h|^2 + h.gap - 2 g.h, each product weighted.
    g = rows(x, leaving)
    h = rows(x, entering)
    wg = g * weight
    wh = h * weight
    change = -2.0 * (wg @ h.T)
    change += ((wg * g).sum(axis=1) - wg @ gap)[:, None]
    change += (wh * h).sum(axis=1) + wh @ gap
    return change


def exchange(
    x: np.ndarray, fold: np.ndarray, sums: np.ndarray, a: int, b: int, g: int, h: int
) -> None:
    """Move group g from fold a to b and h from b to a, in place; -1 = none."""
    for group, source, target in ((g, a, b), (h, b, a)):
        if group >= 0:
            fold[group] = target
            sums[source] -= x[group]
            sums[target] += x[group]


def excess(sums: np.ndarray, share: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """How far totals are from a fair share, as parts of `scale`; 0 where whole numbers allow no
    better (of 584 positives in five folds, 116 and 117 are both 0)."""
    above = sums - np.ceil(share)
    below = np.floor(share) - sums
    return np.maximum(np.maximum(above, below), 0) / scale


def lower_worst(
    x: np.ndarray, scale: np.ndarray, fold: np.ndarray, folds: int, random: np.random.RandomState
) -> None:
    """Apply exchanges that lower the sum of POWER-th powers of `excess`, in place, until no pair of
    folds has one.

    None raises the worst excess of its two folds, nor J above the bound. The ASSIGNMENTS_TRIED
    exchanges with the least J are tried.
    """
    sums = totals(x, fold, folds)
    weight = whole_weights(scale, folds)
    share = x.sum(axis=0) / folds
    # The mean of J over random splits (the head of this module): never to be passed again.
    bound = (1 - 1 / folds) * (weight * x * x).sum()
    pairs = list(combinations(range(folds), 2))
    turn = 0
    idle = 0  # turns without a gain
    while idle < len(pairs):
        a, b = pairs[turn % len(pairs)]
        # Half, because `changes` gives half the change in J.
        room = (bound - (weight * (sums - share) ** 2).sum()) / 2
        groups = best_levelling(x, weight, scale, fold, sums, a, b, room, random)
        if groups:
            exchange(x, fold, sums, a, b, *groups)
        turn += 1
        idle = 0 if groups else idle + 1


def best_levelling(
    x: np.ndarray,
    weight: np.ndarray,
    scale: np.ndarray,
    fold: np.ndarray,
    sums: np.ndarray,
    a: int,
    b: int,
    room: float,
    random: np.random.RandomState,
) -> tuple[int, int] | None:
    """The exchange (g, h) between folds a and b that lowers their worst deviations most, or None.

    Judged by the sum of the POWER-th powers of their excess; room: by how much half of J may rise.
    """
    # How bad the two folds are now, and whether there is anything to gain.
    share = sums.sum(axis=0) / len(sums)
    before = excess(sums[[a, b]], share, scale)
    leaving = np.append(sample(fold, a, random), -1)
    entering = np.append(sample(fold, b, random), -1)
    sampled = max(len(leaving), len(entering)) > PATIENTS_OF_A_SAMPLE
    if before.max() <= (ENOUGH if sampled else 0):
        return None

    # The exchanges to try: those with the least J, of any that stay within the room.
    change = changes(x, weight, leaving, entering, sums[a] - sums[b])
    change[-1, -1] = np.inf  # none for none
    if len(entering) == 2:  # a fold's last group stays
        change[-1, :] = np.inf
    if len(leaving) == 2:
        change[:, -1] = np.inf
    place = min(ASSIGNMENTS_TRIED, change.size) - 1
    last = np.partition(change.ravel(), place)[place]
    i, j = np.nonzero(change <= min(last, room))
    # Equal groups tie at the last place, possibly in thousands: no more than as many again.
    g = leaving[i[: 2 * ASSIGNMENTS_TRIED]]
    h = entering[j[: 2 * ASSIGNMENTS_TRIED]]

    # The best of them by the powers of the excess; none may raise the worst.
    step = rows(x, g) - rows(x, h)
    after = np.hstack([excess(sums[a] - step, share, scale), excess(sums[b] + step, share, scale)])
    power = np.where(after.max(axis=1) <= before.max(), (after**POWER).sum(axis=1), np.inf)
    if not len(power) or power.min() >= (before**POWER).sum() * (1 - GAIN):
        return None
    return g[power.argmin()], h[power.argmin()]
