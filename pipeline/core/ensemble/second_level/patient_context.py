"""Columns that put an image's scores beside the other images of its patient: what the second level
learns from.

A dermatologist looks for the ugly duckling, the one mole unlike a patient's others; a network that
sees one image at a time cannot. These columns tell it: a score's distance to the patient's mean,
median, maximum, to the images of the same site, its rank among them, all with the image itself left
out; and the patient's age, sex, site and number of images.

Reads    arrays and a table in memory: members' scores and quantiles, the patient columns, test-time
         passes if known
Writes   nothing; returns a table of float32 columns, NaN where a column is unknown (a patient with
         one image)

Every column is computed from the rows handed over, without labels. Hand over whole patients, and
the rows of one split only: then no row of the training set reaches into a test row's columns, nor
the other way round. As the out-of-fold folds keep patients whole, one call for all out-of-fold rows
gives what a call for each fold would give.

    columns   which patient columns there are           Columns(numeric=("age_approx",),
              categorical=("sex", "site"))
    levels    {column: [category, ...]}, frozen in fit  an unseen category becomes NaN, as a blank
              does
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from pipeline.core.runtime.errors import UserError

# The mean of all members, treated as one member more.
CONSENSUS = "consensus"

# Scores are kept this far from 0 and 1, so that their logit is finite.
LOGIT_EDGE = 1e-6

# Added to a spread within a patient (in logits) in the z score, since two images tell little of it.
SHRINK = 1.0


@dataclass(frozen=True)
class Columns:
    """The patient columns of a competition.

    numeric       columns that hold numbers, such as age
    categorical   columns that hold categories, such as sex and site
    place         the categorical column that varies between a patient's images (the site); "" where
                  there is none
    """

    numeric: tuple[str, ...] = ()
    categorical: tuple[str, ...] = ()
    place: str = ""


@dataclass(frozen=True)
class Members:
    """The scores of M members on n images.

    names       (M,) str
    scores      (n, M) float64 in [0, 1], as the members gave them
    quantiles   (n, M) float64 in (0, 1): the score among those of the same network, by rank or by a
                frozen map
    passes      {name: (n, P) float64 in [0, 1]}: single test-time passes, of the members that carry
                them
    """

    names: tuple[str, ...]
    scores: np.ndarray
    quantiles: np.ndarray
    passes: Mapping[str, np.ndarray]


class Groups:
    """Rows grouped by a key, sorted once, so that each statistic is one pass over the rows.

    codes: (n,) int64 from 0 to G - 1, each of them in use; size: (n,) int64, the number of rows in
    the row's group.
    """

    def __init__(self, codes: np.ndarray) -> None:
        self.codes = codes
        self.counts = np.bincount(codes)
        self.size = self.counts[codes]
        self.starts = np.cumsum(self.counts) - self.counts

    def sums(self, values: np.ndarray) -> np.ndarray:
        """(n,) float64: the sum over the row's group."""
        return np.bincount(self.codes, values, len(self.counts))[self.codes]

    def mean(self, values: np.ndarray) -> np.ndarray:
        """(n,) float64: the mean over the row's group, the row itself among them."""
        return self.sums(values) / self.size

    def others_mean(self, values: np.ndarray) -> np.ndarray:
        """(n,) float64: the mean over the other rows of the group; NaN for a group of one."""
        return divided(self.sums(values) - values, self.size - 1)

    def sort(self, values: np.ndarray) -> "Sorted":
        """The values in order within their group."""
        return Sorted(self, values)


class Sorted:
    """One column sorted within groups, for what needs an order: ranks, medians, the largest of the
    others.

    place: (n,) int64, the row's position in its group, 0 = lowest, ties in order of rows.
    """

    def __init__(self, groups: Groups, values: np.ndarray) -> None:
        order = np.lexsort((values, groups.codes))
        self.groups = groups
        self.values = values
        self.sorted = values[order]
        self.first = groups.starts[groups.codes]
        self.place = np.empty(len(values), np.int64)
        self.place[order] = np.arange(len(values)) - groups.starts[groups.codes[order]]

    def at(self, position: np.ndarray) -> np.ndarray:
        """(n,) float64: the group's value at that position (n,) int64, which must be in it."""
        return self.sorted[self.first + position]

    def other_at(self, position: np.ndarray) -> np.ndarray:
        """(n,) float64: the value at that position among the other rows; NaN without any."""
        skipped = position + (position >= self.place)
        alone = self.groups.size < 2
        return np.where(alone, np.nan, self.at(np.where(alone, 0, skipped)))

    def median(self) -> np.ndarray:
        """(n,) float64: the median of the group."""
        last = self.groups.size - 1
        return (self.at(last // 2) + self.at((last + 1) // 2)) / 2

    def others_median(self) -> np.ndarray:
        """(n,) float64: the median of the other rows; NaN for a group of one."""
        last = np.maximum(self.groups.size - 2, 0)
        return (self.other_at(last // 2) + self.other_at((last + 1) // 2)) / 2

    def others_max(self) -> np.ndarray:
        """(n,) float64: the largest of the other rows; NaN for a group of one."""
        return self.other_at(np.maximum(self.groups.size - 2, 0))

    def others_below(self) -> np.ndarray:
        """(n,) float64 in [0, 1]: the share of the other rows below this one, a tie counting 1/2;
        NaN for one row.
        """
        return divided(self.midplace(), self.groups.size - 1)

    def others_above(self) -> np.ndarray:
        """(n,) float64: how many of the other rows are above this one, a tie counting 1/2."""
        return self.groups.size - 1 - self.midplace()

    def midplace(self) -> np.ndarray:
        """(n,) float64: `place`, ties sharing their mean."""
        tie = codes_of(self.groups.codes, self.values)
        return Groups(tie).mean(self.place.astype(np.float64))


def context_columns(
    patients: pd.DataFrame, members: Members, columns: Columns, levels: Mapping[str, Sequence[str]]
) -> pd.DataFrame:
    """All columns of the second level, (n, F) float32, in a fixed order that depends on the names
    alone.

    patients: n rows, `patient_id` (str) and the columns that `columns` names; members: their
    scores, in the same order.
    """
    require_columns_and_scores(patients, members, columns)
    patient = Groups(codes_of(patients["patient_id"]))
    place = place_groups(patients, columns, patient)
    made: dict[str, np.ndarray] = {}

    # What is known of the patient.
    made |= patient_columns(patients, columns, levels, patient, place)

    # Each member, and their consensus, among the patient's images.
    ranked = logit(members.quantiles)
    for name, values, scores in zip(members.names, ranked.T, members.scores.T):
        made[f"{name}: logit"] = logit(scores)
        made |= relative_columns(name, values, patient, place)
    if len(members.names) > 1:
        made |= relative_columns(CONSENSUS, ranked.mean(axis=1), patient, place)
        made |= disagreement_columns(ranked)

    # How far a member's passes over one image lie apart.
    for name in members.names:
        if name in members.passes:
            made |= pass_columns(name, logit(members.passes[name]))
    return pd.DataFrame({name: values.astype(np.float32) for name, values in made.items()})


def patient_columns(
    patients: pd.DataFrame,
    columns: Columns,
    levels: Mapping[str, Sequence[str]],
    patient: Groups,
    place: Groups | None,
) -> dict[str, np.ndarray]:
    """Numbers and categories, each against the patient's own, and how many images the patient has:
    {name: (n,)}.
    """
    made = {"images": np.log(patient.size)}
    for name in columns.numeric:
        values = pd.to_numeric(patients[name], errors="coerce").to_numpy(np.float64)
        known = ~np.isnan(values)
        filled = np.where(known, values, 0.0)

        # Against the patient's mean, first and last; unknown values take no part.
        mean = divided(patient.sums(filled), patient.sums(known.astype(np.float64)))
        lowest = patient.sort(np.where(known, values, np.inf)).at(np.zeros(len(values), np.int64))
        highest = patient.sort(np.where(known, values, -np.inf)).at(patient.size - 1)
        made[name] = values
        made[f"{name}: to mean"] = values - mean
        made[f"{name}: to lowest"] = values - np.where(np.isinf(lowest), np.nan, lowest)
        made[f"{name}: to highest"] = values - np.where(np.isinf(highest), np.nan, highest)

        # How many of the patient's images were taken at that value.
        same = Groups(codes_of(patient.codes, values))
        made[f"{name}: same"] = np.where(known, np.log(same.size), np.nan)
        made[f"{name}: same share"] = np.where(known, same.size / patient.size, np.nan)
    for name in columns.categorical:
        codes = category_codes(patients[name], levels[name])
        for position, level in enumerate(levels[name]):
            made[f"{name}={level}"] = np.where(np.isnan(codes), np.nan, codes == position)
    if place is not None:
        made[f"{columns.place}: same"] = np.log(place.size)
        made[f"{columns.place}: same share"] = place.size / patient.size
    return made


def relative_columns(
    name: str, values: np.ndarray, patient: Groups, place: Groups | None
) -> dict[str, np.ndarray]:
    """One member's score among those of its patient: {name: (n,)}. values: (n,) float64, logits of
    quantiles.
    """
    ordered = patient.sort(values)
    mean, others = patient.mean(values), patient.others_mean(values)
    deviation = np.sqrt(np.maximum(patient.mean(values**2) - mean**2, 0.0))
    made = {
        "": values,
        # The patient's own level.
        "patient mean": mean,
        "others mean": others,
        "others max": ordered.others_max(),
        "patient spread": np.where(patient.size > 1, deviation, np.nan),
        # The image against that level.
        "to mean": values - mean,
        "to median": values - ordered.median(),
        "to max": values - ordered.at(patient.size - 1),
        "to others mean": values - others,
        "to others median": values - ordered.others_median(),
        "to others max": values - ordered.others_max(),
        "z": (values - mean) / (deviation + SHRINK),
        "rank": ordered.others_below(),
        "above": np.log1p(ordered.others_above()),
        "share": values - np.log(patient.sums(np.exp(values))),
    }
    if place is not None:
        made["to same place"] = values - place.others_mean(values)
    return {f"{name}: {form}" if form else name: column for form, column in made.items()}


def disagreement_columns(values: np.ndarray) -> dict[str, np.ndarray]:
    """How far the members lie apart on an image: {name: (n,)} of logits (n, M)."""
    highest, lowest = values.max(axis=1), values.min(axis=1)
    return {
        "members: spread": values.std(axis=1),
        "members: highest": highest,
        "members: lowest": lowest,
    }


def pass_columns(name: str, passes: np.ndarray) -> dict[str, np.ndarray]:
    """How far a member's passes lie apart on an image: {name: (n,)} of logits (n, P)."""
    return {
        f"{name}: pass spread": passes.std(axis=1),
        f"{name}: highest pass": passes.max(axis=1),
        f"{name}: lowest pass": passes.min(axis=1),
    }


def place_groups(patients: pd.DataFrame, columns: Columns, patient: Groups) -> Groups | None:
    """The patient's images of one place (blanks are a place of their own); None without such a
    column.
    """
    return Groups(codes_of(patient.codes, patients[columns.place])) if columns.place else None


def category_levels(patients: pd.DataFrame, columns: Columns) -> dict[str, list[str]]:
    """The categories of the rows, sorted, for every categorical column: to be frozen in fit."""
    return {
        name: sorted(category_texts(patients[name]).dropna().unique())
        for name in columns.categorical
    }


def category_codes(values: pd.Series, levels: Sequence[str]) -> np.ndarray:
    """(n,) float64: the position of each category in `levels`; NaN where it is blank or not among
    them."""
    codes = pd.Index(levels, dtype=object).get_indexer(category_texts(values))
    return np.where(codes < 0, np.nan, codes)


def category_texts(values: pd.Series) -> pd.Series:
    """Categories as text, blanks as None: 1, 1.0 and "1.0", as tables read in other ways have them,
    are one category."""
    texts = {value: category_text(value) for value in values.dropna().unique()}
    return values.astype("object").map(texts).astype("object").where(values.notna(), None)


def category_text(value: object) -> str:
    """One category as text, numbers in their shortest form."""
    try:
        return f"{float(value):g}"
    except ValueError:
        return str(value)


def codes_of(*keys: Sequence) -> np.ndarray:
    """(n,) int64: consecutive integers for the combinations of the keys (n,) each; blanks are a
    value of their own.
    """
    codes = np.zeros(len(keys[0]), np.int64)
    for key in keys:
        found = pd.factorize(np.asarray(key), use_na_sentinel=False)[0]
        codes = codes * (int(found.max(initial=0)) + 1) + found
        codes = pd.factorize(codes)[0].astype(np.int64)
    return codes


def logit(values: np.ndarray) -> np.ndarray:
    """log(p / (1 - p)) of values in [0, 1], float64, finite."""
    kept = np.clip(values, LOGIT_EDGE, 1 - LOGIT_EDGE)
    return np.log(kept) - np.log1p(-kept)


def divided(values: np.ndarray, by: np.ndarray) -> np.ndarray:
    """values / by, (n,) float64; NaN where `by` is 0."""
    return np.divide(values, by, out=np.full(len(values), np.nan), where=np.asarray(by) > 0)


def require_columns_and_scores(patients: pd.DataFrame, members: Members, columns: Columns) -> None:
    """Raise a UserError that names the first column that is missing, or the row, column and value
    that is not a score.
    """
    for name in ("patient_id", *columns.numeric, *columns.categorical):
        if name not in patients:
            raise UserError(
                f"second level: the patient column {name!r} is missing; there are "
                f"{', '.join(map(str, patients.columns))}"
            )
    blank = patients["patient_id"].isna().to_numpy()
    if blank.any():
        raise UserError(f"second level: row {int(blank.argmax())}, column patient_id: blank")
    if columns.place and columns.place not in columns.categorical:
        raise UserError(
            f"second level: the place {columns.place!r} is none of the categorical columns"
        )
    for name, scores, quantiles in zip(members.names, members.scores.T, members.quantiles.T):
        for values in (scores, quantiles):
            require_unit_interval(name, values)
    for name, passes in members.passes.items():
        for values in passes.T:
            require_unit_interval(f"{name}, a pass", values)


def require_unit_interval(name: str, values: np.ndarray) -> None:
    """Raise a UserError that names the first row whose score does not lie in [0, 1]."""
    good = (values >= 0) & (values <= 1)
    if not good.all():
        row = int(np.argmin(good))
        raise UserError(
            f"second level: row {row}, column {name}: {values[row]} is not a score in [0, 1]"
        )
