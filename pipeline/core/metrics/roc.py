"""AUC, partial AUC, the ROC curve and the organiser's count of readers below it: exact, ties
included.

Rows whose label is NaN are left out. Any other label than 0 and 1, and a NaN score of a labelled
row, is a ValueError that names the row. Scores may be any real numbers, infinities included; -0.0
equals 0.0. With one class only, an AUC is undefined: NaN.
"""

import numpy as np


def checked_rows(scores, labels) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(scores, positive, negative): scores as a flat array, and the boolean masks of the two
    classes; NaN labels are in neither."""
    scores = np.asarray(scores)
    labels = np.asarray(labels)
    if scores.dtype == object:
        scores = scores.astype(np.float64)
    if labels.dtype == object:
        labels = labels.astype(np.float64)
    if scores.ndim != 1 or scores.shape != labels.shape:
        shapes = f"scores of shape {scores.shape} and labels of shape {labels.shape}"
        raise ValueError(f"{shapes} must be flat and equally long")
    if labels.dtype == bool:
        positive = labels
        negative = ~labels
    else:
        positive = labels == 1
        negative = labels == 0
        # The usual case, no other label, is known by two counts.
        if np.count_nonzero(positive) + np.count_nonzero(negative) != len(labels):
            check_binary(labels, positive | negative)
    if scores.dtype.kind == "f" and np.isnan(scores).any():
        check_not_nan(scores, positive | negative)
    return scores, positive, negative


def check_binary(labels: np.ndarray, known: np.ndarray) -> None:
    """Raise for the first label that is neither 0, 1 nor NaN."""
    wrong = ~known
    if labels.dtype.kind == "f":
        wrong &= ~np.isnan(labels)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise ValueError(f"row {row}: the label {labels[row]} is not 0, 1 or NaN")


def check_not_nan(scores: np.ndarray, known: np.ndarray) -> None:
    """Raise for the first labelled row whose score is NaN."""
    wrong = known & np.isnan(scores)
    if wrong.any():
        raise ValueError(
            f"row {int(np.argmax(wrong))}: the score is NaN ({np.count_nonzero(wrong)} such rows)"
        )


def auc(scores, labels) -> float:
    """Area under the ROC curve: the share of (positive, negative) pairs in order, a tied pair
    counting 1/2.

    scores, labels: (n,). Equal to the O(n^2) definition to the last bit, since pairs are counted in
    integers. NaN with one class only.
    """
    scores, positive, negative = checked_rows(scores, labels)
    # take(flatnonzero) is 6 times faster than a boolean index where the classes are mixed evenly.
    of_positives = scores.take(np.flatnonzero(positive))
    of_negatives = scores.take(np.flatnonzero(negative))
    return auc_of_classes(of_positives, of_negatives)


def auc_of_classes(positives: np.ndarray, negatives: np.ndarray) -> float:
    """AUC from the scores of the two classes, in any order.

    Two sorts and one search of sorted keys, no argsort: numpy sorts plain floats with vector
    instructions, and sorted keys are looked up in cache.
    """
    if not len(positives) or not len(negatives):
        return float("nan")
    # Twice the pairs, so that a tied one, which counts 1/2, is an integer too.
    pairs = 2 * len(positives) * len(negatives)
    # The rarer class is looked up in the other: fewer searches.
    if len(positives) <= len(negatives):
        return twice_below(np.sort(positives), np.sort(negatives)) / pairs
    return (pairs - twice_below(np.sort(negatives), np.sort(positives))) / pairs


def twice_below(keys: np.ndarray, others: np.ndarray) -> int:
    """Sum over the sorted keys of twice the number of sorted others below it, ties counting one."""
    below = others.searchsorted(keys, "left")
    tied = others[np.minimum(below, len(others) - 1)] == keys
    twice = 2 * int(below.sum())
    tied_keys = keys[tied]
    # The second search is for tied keys only, which most scores are not.
    if not len(tied_keys):
        return twice
    ties = others.searchsorted(tied_keys, "right") - below[tied]
    return twice + int(ties.sum())


def roc_points(
    scores, labels, drop_collinear: bool = True
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(false positive rate, true positive rate, threshold), from (0, 0) at threshold inf to (1, 1);
    a row counts when score >= threshold.

    With drop_collinear the points inside a straight piece are left out, as scikit-learn's roc_curve
    does and the organiser's readers' rule therefore assumes. One class only: ValueError.
    """
    scores, positive, negative = checked_rows(scores, labels)
    known = positive | negative
    scores = scores[known].astype(np.float64)
    positive = positive[known]
    if positive.all() or not positive.any():
        raise ValueError(
            f"{np.count_nonzero(positive)} positives in {len(positive)} rows: a curve needs both "
            "classes"
        )

    # A point per distinct score, at its last row: the rows down to it count as positive.
    order = np.argsort(-scores, kind="stable")
    scores = scores[order]
    last = np.append(np.flatnonzero(scores[1:] != scores[:-1]), len(scores) - 1)
    true_positives = np.cumsum(positive[order])[last]
    false_positives = 1 + last - true_positives

    # Both ends, and the points where the curve turns.
    if drop_collinear and len(last) > 2:
        corner = (np.diff(false_positives, 2) != 0) | (np.diff(true_positives, 2) != 0)
        kept = np.flatnonzero(np.concatenate([[True], corner, [True]]))
        last = last[kept]
        true_positives = true_positives[kept]
        false_positives = false_positives[kept]

    false_positive_rate = np.concatenate([[0], false_positives]) / false_positives[-1]
    true_positive_rate = np.concatenate([[0], true_positives]) / true_positives[-1]
    return false_positive_rate, true_positive_rate, np.concatenate([[np.inf], scores[last]])


def readers_below_curve(scores, labels, points) -> int:
    """How many readers lie on or below the ROC curve, by the CheXpert organiser's rule.

    points: a (specificity, sensitivity) pair per reader, each in [0, 1]. For a reader at x = 1 -
    specificity the curve is read at the point before the first one with false positive rate >= x,
    the step on the left; the reader counts when the true positive rate there is at least the
    sensitivity. At x = 0 there is no point before, and the organiser's program reads the last one,
    (1, 1): such a reader always counts.
    """
    false_positive, true_positive, _ = roc_points(scores, labels)
    count = 0
    for specificity, sensitivity in points:
        if not (0 <= specificity <= 1 and 0 <= sensitivity <= 1):
            raise ValueError(
                f"reader (specificity {specificity}, sensitivity {sensitivity}) is outside [0, 1]"
            )
        # Index -1 where the first point is meant already, as in the organiser's program.
        first = int(np.argmax(false_positive >= 1 - specificity))
        count += bool(true_positive[first - 1] >= sensitivity)
    return count


def reader_point(calls, labels) -> tuple[float, float]:
    """(specificity, sensitivity) of a reader's 0/1 calls (n,) against 0/1 labels (n,); NaN labels
    are left out."""
    calls, positive, negative = checked_rows(calls, labels)
    wrong = ~np.isin(calls, (0, 1)) & (positive | negative)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise ValueError(f"row {row}: the reader's call {calls[row]} is not 0 or 1")
    if not positive.any() or not negative.any():
        raise ValueError("a reader's point needs both classes")
    specificity = np.count_nonzero(negative & (calls == 0)) / np.count_nonzero(negative)
    sensitivity = np.count_nonzero(positive & (calls == 1)) / np.count_nonzero(positive)
    return float(specificity), float(sensitivity)


def partial_auc(scores, labels, min_tpr: float = 0.8) -> float:
    """Area between the ROC curve and the line true positive rate = min_tpr: ISIC 2024's score, from
    0 to 1 - min_tpr.

    The organiser computes it from scikit-learn's standardised partial AUC s of the swapped problem
    (labels 1 - y, scores -s, max_fpr 1 - min_tpr) and undoes the standardisation; both together are
    this plain area. min_tpr = 0 is the AUC. NaN with one class.
    """
    if not 0 <= min_tpr < 1:
        raise ValueError(f"min_tpr={min_tpr} is not in [0, 1)")
    scores, positive, negative = checked_rows(scores, labels)
    if not positive.any() or not negative.any():
        return float("nan")
    known_labels = np.where(positive, 1.0, np.where(negative, 0.0, np.nan))
    false_positive, true_positive, _ = roc_points(scores, known_labels)
    # Mirrored, the curve is specificity over false negative rate, and the area is where that rate
    # is <= 1 - min_tpr.
    missed = (1 - true_positive)[::-1]
    specificity = (1 - false_positive)[::-1]
    limit = 1 - min_tpr
    inside = np.searchsorted(missed, limit, "right")
    at_limit = np.interp(limit, missed[inside - 1 :], specificity[inside - 1 :])
    x = np.append(missed[:inside], limit)
    y = np.append(specificity[:inside], at_limit)
    return float(np.trapezoid(y, x))


def paired_columns(scores, labels) -> tuple[np.ndarray, np.ndarray]:
    """(scores (n, K), labels (n, K)); given, either may be (n,), and labels (n, 1)."""
    columns = np.asarray(scores)
    columns = columns[:, None] if columns.ndim == 1 else columns
    truth = np.asarray(labels)
    truth = truth[:, None] if truth.ndim == 1 else truth
    if len(truth) != len(columns) or truth.shape[1] not in (1, columns.shape[1]):
        shapes = f"scores of shape {np.shape(scores)} and labels of shape {np.shape(labels)}"
        raise ValueError(f"{shapes} do not fit")
    return columns, np.broadcast_to(truth, columns.shape)


def mean_auc(scores, labels) -> float:
    """Mean over columns of their AUCs: scores (n, K), labels (n, K) or (n,); plain AUC for (n,).
    NaN when a column has one class only."""
    columns, truth = paired_columns(scores, labels)
    return float(np.mean([auc(column, label) for column, label in zip(columns.T, truth.T)]))


def midranks(values) -> np.ndarray:
    """Ranks from 1, tied values sharing their mean rank: float64 (n,)."""
    values = np.asarray(values)
    ordered = np.sort(values)
    return (ordered.searchsorted(values, "left") + ordered.searchsorted(values, "right") + 1) / 2


def auc_or_nan(scores: np.ndarray, labels: np.ndarray) -> float:
    """AUC of one label, soft labels counting as positive above 1/2; NaN with one class only.

    scores, labels: (n,); rows whose label is NaN are left out.
    """
    known = ~np.isnan(labels)
    positive = labels[known] > 0.5
    if not 0 < positive.sum() < positive.size:
        return float("nan")
    return auc(scores[known], positive)


def classes(truth: np.ndarray) -> np.ndarray:
    """(K,) True for the labels that have both classes; truth (n, K) of 1, 0, NaN."""
    return (truth == 1).any(axis=0) & (truth == 0).any(axis=0)
