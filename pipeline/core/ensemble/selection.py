"""Weights of the members: near-duplicates count once; ensemble selection (Caruana et al. 2004),
bagged and nested.

Measured on the real CheXpert test: weights fitted on one half and scored on the other lose .0016 to
the uniform mean. So the uniform mean is the default, and fitted weights are used only where their
gain, estimated on rows they were not fitted on, has an interval that excludes 0.
"""

import numpy as np

from pipeline.core.ensemble.averages import weighted_mean
from pipeline.core.metrics.exchange_test import auc_difference
from pipeline.core.metrics.roc import auc_of_classes, checked_rows, classes, midranks

SAME_MEMBER_CORRELATION = 0.999  # rank correlation above which two members are one

CLIMB_STEPS = 50  # additions of one climb
BAGS = 20  # climbs whose weights are averaged
PART = 0.5  # share of the members that one climb may choose from


def rank_correlations(members: np.ndarray) -> np.ndarray:
    """Spearman's rho of each pair of members, per label: (K, M, M) of scores (M, n, K); NaN where
    one lacks the label or is constant."""
    count, n, labels = members.shape
    result = np.full((labels, count, count), np.nan)
    for label in range(labels):
        # centred ranks, whose mean is exactly 0 also with ties
        ranks = np.stack([midranks(member[:, label]) - (n + 1) / 2 for member in members])
        ranks[np.isnan(members[:, :, label]).any(axis=1)] = np.nan
        norms = np.sqrt((ranks**2).sum(axis=1))
        with np.errstate(invalid="ignore", divide="ignore"):  # 0 / 0 = NaN for a constant
            result[label] = (ranks @ ranks.T) / np.outer(norms, norms)
    return result


def nearly_equal_members(
    members: np.ndarray, limit: float = SAME_MEMBER_CORRELATION
) -> list[tuple[int, int, int, float]]:
    """(label, first, second, rho) of every pair of members with |rho| > limit; a rho near -1 is an
    inverted member. members: (M, n, K)."""
    rho = rank_correlations(members)
    near = np.abs(np.nan_to_num(rho)) > limit
    return [
        (int(label), int(first), int(second), float(rho[label, first, second]))
        for label, first, second in np.argwhere(near)
        if first < second
    ]


def without_duplicates(members: np.ndarray, limit: float = SAME_MEMBER_CORRELATION) -> np.ndarray:
    """Weights (M, K) of 1 and 0: of the members that rank a label alike only the first counts."""
    weights = (~np.isnan(members).any(axis=1)).astype(float)
    for label, first, second, rho in nearly_equal_members(members, limit):
        # a member that is near only to one that is dropped itself is kept
        if rho > 0 and weights[first, label]:
            weights[second, label] = 0
    return weights


class Climber:
    """The members of one label, split by class, so that a step tries every member with one addition
    and one sort each.

    scores: (M, n), comparable between members and folds (quantiles or ranks within fold); labels:
    (n,) of 0, 1, NaN. singles: the AUC of each member (M,). metric: "auc", or "partial_auc", whose
    climb looks at the positives that are missed first.
    """

    def __init__(self, scores: np.ndarray, labels: np.ndarray, metric: str = "auc") -> None:
        self.area = AREAS[metric]
        _, positive, negative = checked_rows(scores[0], labels)
        self.positives = np.ascontiguousarray(scores[:, positive])
        self.negatives = np.ascontiguousarray(scores[:, negative])
        self.singles = np.array(
            [self.area(one, other) for one, other in zip(self.positives, self.negatives)]
        )

    def auc(self, counts: np.ndarray) -> float:
        """AUC of the sum in which member m is counted counts[m] times."""
        return self.area(counts @ self.positives, counts @ self.negatives)

    def best_step(self, counts: np.ndarray, allowed: np.ndarray) -> tuple[int, float]:
        """(member, AUC) of the best single addition to the sum; the earliest of equals."""
        # one step of 200 members and 33,126 rows: 0.044 s by sorting, 1.39 s with scikit-learn
        positives = counts @ self.positives
        negatives = counts @ self.negatives
        areas = [
            self.area(positives + self.positives[m], negatives + self.negatives[m]) for m in allowed
        ]
        best = int(np.argmax(areas))
        return int(allowed[best]), areas[best]

    def climb(self, allowed: np.ndarray, steps: int) -> np.ndarray:
        """How often each member (M,) was added: sorted start, then `steps` additions with
        replacement, cut back to the best sum on the way."""
        # the last additions may have lowered the AUC again, so the best sum is remembered
        counts = self.sorted_start(allowed)
        best_counts = counts.copy()
        best_area = self.auc(counts)
        for _ in range(steps):
            member, area = self.best_step(counts, allowed)
            counts[member] += 1
            if area > best_area:
                best_counts = counts.copy()
                best_area = area
        return best_counts

    def sorted_start(self, allowed: np.ndarray) -> np.ndarray:
        """Members from the best down, as long as each raises the AUC of the sum."""
        counts = np.zeros(len(self.positives))
        area = -1.0
        for member in allowed[np.argsort(-self.singles[allowed], kind="stable")]:
            counts[member] += 1
            raised = self.auc(counts)
            if raised <= area:
                # this one does not help: take it out again
                counts[member] -= 1
                break
            area = raised
        return counts


def area_missed_first(positives: np.ndarray, negatives: np.ndarray) -> float:
    """The AUC of the fifth of the positives that scores lowest: the partial AUC above 80 %
    sensitivity, divided by 0.2, but for rounding to whole positives."""
    count = max(1, round(0.2 * len(positives)))
    return auc_of_classes(np.sort(positives)[:count], negatives)


AREAS = {"auc": auc_of_classes, "partial_auc": area_missed_first}


def select(
    scores: np.ndarray,
    labels: np.ndarray,
    steps: int = CLIMB_STEPS,
    bags: int = BAGS,
    seed: int = 0,
    metric: str = "auc",
) -> np.ndarray:
    """Weights (M,), summing to 1: the mean over `bags` climbs, each among a random half of the
    members.

    scores: (M, n) comparable between members; labels: (n,) of 0, 1, NaN. With one class only:
    uniform.
    """
    members = len(scores)
    climber = Climber(scores, labels, metric)
    if not climber.positives.shape[1] or not climber.negatives.shape[1]:
        return np.full(members, 1 / members)
    # bags: a member that is lucky on these rows is missing from half of the climbs
    generator = np.random.default_rng(seed)
    size = max(1, round(PART * members))
    weights = np.zeros(members)
    for _ in range(bags):
        allowed = np.sort(generator.permutation(members)[:size])
        counts = climber.climb(allowed, steps)
        weights += counts / counts.sum()
    return weights / bags


def select_columns(
    members: np.ndarray, truth: np.ndarray, candidates: np.ndarray, rows: np.ndarray, seed: int = 0
) -> np.ndarray:
    """Weights (M, K) fitted per label on the given rows, among the candidates (M, K) of weight >
    0.

    members: (M, n, K); truth: (n, K); rows: (n,) bool.
    """
    weights = np.zeros(candidates.shape)
    for label in range(truth.shape[1]):
        chosen = np.flatnonzero(candidates[:, label] > 0)
        if len(chosen):
            scores = members[chosen][:, rows, label]
            weights[chosen, label] = select(scores, truth[rows, label], seed=seed)
    return weights


def nested_weighted_scores(
    members: np.ndarray, truth: np.ndarray, candidates: np.ndarray, folds: np.ndarray, seed: int = 0
) -> np.ndarray:
    """(n, K): each fold's rows averaged with weights fitted on the other folds' rows."""
    result = np.full(truth.shape, np.nan)
    for fold in np.unique(folds):
        inside = folds == fold
        weights = select_columns(members, truth, candidates, ~inside, seed)
        result[inside] = weighted_mean(list(members[:, inside]), weights)
    return result


def nested_gain(
    members: np.ndarray,
    truth: np.ndarray,
    candidates: np.ndarray,
    folds: np.ndarray,
    groups: np.ndarray,
    seed: int = 0,
) -> dict[str, float | bool]:
    """Gain in mean AUC of fitted weights over uniform ones on rows that they were not fitted on,
    with its interval.

    members: (M, n, K) units; truth: (n, K); candidates: (M, K) 1 and 0; folds: (n,) of at least two
    values, no patient in two; groups: (n,) patients. `accepted` only where the interval lies
    above 0; too few to tell (NaN) is not accepted.
    """
    fitted = nested_weighted_scores(members, truth, candidates, folds, seed)
    uniform = weighted_mean(list(members), candidates)
    scored = np.flatnonzero(classes(truth))
    gain, low, high, p = auc_difference(
        fitted[:, scored], uniform[:, scored], truth[:, scored], groups
    )
    return {"gain": gain, "low": low, "high": high, "p": p, "accepted": bool(low > 0)}


def patient_folds(groups: np.ndarray, folds: int = 5) -> np.ndarray:
    """A fold for each row (n,) by its patient, where there is one official validation set only;
    fixed, not seeded."""
    # as many patients in each fold, whatever their number of images
    names = np.unique(np.asarray(groups).astype(str))
    shuffled = names[np.random.default_rng(0).permutation(len(names))]
    fold_of = dict(zip(shuffled, np.arange(len(names)) % folds))
    return np.array([fold_of[str(group)] for group in groups])
