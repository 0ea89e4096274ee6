"""Which members to average: near-duplicates found, and ensemble selection (Caruana et al. 2004),
bagged and nested.

Measured on the real CheXpert test: weights fitted on one half and scored on the other lose .0016 to
the uniform mean. So the uniform mean is the default, and fitted weights are used only where their
gain, estimated on rows they were not fitted on, has an interval that excludes 0.
"""

import numpy as np

from pipeline.core.ensemble.averages import weighted_mean
from pipeline.core.metrics.bootstrap import auc_difference, midranks
from pipeline.core.metrics.roc import auc_of_classes, checked

NEAR = 0.999  # rank correlation above which two members are one
STEPS, BAGS, PART = 50, 20, 0.5


def rank_correlations(members: np.ndarray) -> np.ndarray:
    """Spearman's rho of each pair of members, per label: (K, M, M) of scores (M, n, K); NaN where
    one lacks the label or is constant."""
    _, _, labels = members.shape
    result = np.full((labels, len(members), len(members)), np.nan)
    for label in range(labels):
        ranks = np.stack(
            [midranks(member[:, label]) - (members.shape[1] + 1) / 2 for member in members]
        )
        ranks[np.isnan(members[:, :, label]).any(axis=1)] = np.nan
        norms = np.sqrt((ranks**2).sum(axis=1))
        with np.errstate(invalid="ignore", divide="ignore"):
            result[label] = (ranks @ ranks.T) / np.outer(norms, norms)
    return result


def nearly_equal_members(
    members: np.ndarray, limit: float = NEAR
) -> list[tuple[int, int, int, float]]:
    """(label, first, second, rho) of every pair of members with |rho| > limit; a rho near -1 is an
    inverted member."""
    rho = rank_correlations(members)
    labels, first, second = np.nonzero(np.abs(np.nan_to_num(rho)) > limit)
    return [
        (int(k), int(i), int(j), float(rho[k, i, j]))
        for k, i, j in zip(labels, first, second)
        if i < j
    ]


def without_duplicates(members: np.ndarray, limit: float = NEAR) -> np.ndarray:
    """Weights (M, K) of 1 and 0: of the members that rank a label alike only the first counts."""
    weights = (~np.isnan(members).any(axis=1)).astype(float)
    for label, first, second, rho in nearly_equal_members(members, limit):
        if rho > 0 and weights[first, label]:
            weights[second, label] = 0
    return weights


class Climber:
    """The members of one label, split by class, so that a step tries every member with one addition
    and one sort each.

    scores: (M, n), comparable between members and folds (quantiles or ranks within fold); labels:
    (n,) of 0, 1, NaN. singles: the AUC of each member (M,).
    """

    def __init__(self, scores: np.ndarray, labels: np.ndarray) -> None:
        _, positive, negative = checked(scores[0], labels)
        self.positives = np.ascontiguousarray(scores[:, positive])
        self.negatives = np.ascontiguousarray(scores[:, negative])
        self.singles = np.array(
            [auc_of_classes(one, other) for one, other in zip(self.positives, self.negatives)]
        )

    def auc(self, counts: np.ndarray) -> float:
        """AUC of the sum in which member m stands counts[m] times."""
        return auc_of_classes(counts @ self.positives, counts @ self.negatives)

    def best_step(self, counts: np.ndarray, allowed: np.ndarray) -> tuple[int, float]:
        """(member, AUC) of the best single addition to the sum; the earliest of equals."""
        one, other = counts @ self.positives, counts @ self.negatives
        areas = [
            auc_of_classes(one + self.positives[m], other + self.negatives[m]) for m in allowed
        ]
        best = int(np.argmax(areas))
        return int(allowed[best]), areas[best]

    def climb(self, allowed: np.ndarray, steps: int) -> np.ndarray:
        """How often each member (M,) was added: sorted start, then `steps` additions with
        replacement, cut back to the best sum on the way."""
        counts = self.sorted_start(allowed)
        best_counts, best_area = counts.copy(), self.auc(counts)
        for _ in range(steps):
            member, area = self.best_step(counts, allowed)
            counts[member] += 1
            if area > best_area:
                best_counts, best_area = counts.copy(), area
        return best_counts

    def sorted_start(self, allowed: np.ndarray) -> np.ndarray:
        """Members from the best down, as long as each raises the AUC of the sum."""
        counts, area = np.zeros(len(self.positives)), -1.0
        for member in allowed[np.argsort(-self.singles[allowed], kind="stable")]:
            counts[member] += 1
            raised = self.auc(counts)
            if raised <= area:
                counts[member] -= 1
                break
            area = raised
        return counts


def select(
    scores: np.ndarray, labels: np.ndarray, steps: int = STEPS, bags: int = BAGS, seed: int = 0
) -> np.ndarray:
    """Weights (M,), summing to 1: the mean over `bags` climbs, each among a random half of the
    members.

    scores: (M, n) comparable between members; labels: (n,) of 0, 1, NaN. With one class only:
    uniform.
    """
    members, generator = len(scores), np.random.default_rng(seed)
    climber = Climber(scores, labels)
    if not climber.positives.shape[1] or not climber.negatives.shape[1]:
        return np.full(members, 1 / members)
    weights = np.zeros(members)
    for _ in range(bags):
        half = np.sort(generator.permutation(members)[: max(1, round(PART * members))])
        counts = climber.climb(half, steps)
        weights += counts / counts.sum()
    return weights / bags


def select_columns(
    members: np.ndarray, truth: np.ndarray, candidates: np.ndarray, rows: np.ndarray, seed: int = 0
) -> np.ndarray:
    """Weights (M, K) fitted per label on the given rows, among the candidates (M, K) of weight >
    0."""
    weights = np.zeros(candidates.shape)
    for label in range(truth.shape[1]):
        of = np.flatnonzero(candidates[:, label] > 0)
        if len(of):
            weights[of, label] = select(members[of][:, rows, label], truth[rows, label], seed=seed)
    return weights


def nested_scores(
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
    values, no patient in two; groups: (n,) patients. `accepted` only where the interval excludes 0.
    """
    fitted = nested_scores(members, truth, candidates, folds, seed)
    uniform = weighted_mean(list(members), candidates)
    scored = [
        k for k in range(truth.shape[1]) if len(np.unique(truth[~np.isnan(truth[:, k]), k])) == 2
    ]
    gain, low, high, p = auc_difference(
        fitted[:, scored], uniform[:, scored], truth[:, scored], groups
    )
    return {"gain": gain, "low": low, "high": high, "p": p, "accepted": bool(low > 0)}


def patient_folds(groups: np.ndarray, folds: int = 5) -> np.ndarray:
    """A fold for each row (n,) by its patient, where there is one official validation set only;
    fixed, not seeded."""
    names = np.unique(np.asarray(groups).astype(str))
    order = dict(
        zip(names[np.random.default_rng(0).permutation(len(names))], np.arange(len(names)) % folds)
    )
    return np.array([order[str(group)] for group in groups])
