"""Which images belong together: same patient, same lesion, known duplicates, near-identical pixels.

A pair of images is an edge, a patient is a node, and a group is a connected component, so that no
chain of duplicates can cross a fold. Test images link nothing: adding test rows leaves every group
as it was.
"""

from functools import lru_cache

import numpy as np
import pandas as pd
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from pipeline.core.config.task import Task
from pipeline.core.folds.split import patient_keys, scored
from pipeline.core.images.phash import DIGITS
from pipeline.core.runtime.errors import UserError


def check_patients(where: object, images: pd.DataFrame, task: Task) -> None:
    """Raise a UserError for a train or valid image without patient, unless each such image may be
    its own."""
    # Never repaired silently: two nameless images of one patient could train and validate.
    blank = (images["patient_id"].isna() & (images["split"] != "test")).to_numpy()
    if blank.any() and task.patient_missing != "own_group":
        row = blank.argmax()
        cell = f"{where}: row {row + 2}, column patient_id"
        image = images["image_id"].iloc[row]
        count = f"({blank.sum()} such rows)"
        raise UserError(
            f"{cell}: blank, so image {image} cannot be kept out of its patient's validation fold "
            f"{count}; patient_missing='own_group' in the competition's task makes each a patient "
            "of its own"
        )


def links(images: pd.DataFrame, task: Task, part: np.ndarray | None = None) -> pd.DataFrame:
    """Pairs of images that belong together beyond their patient: columns first, second (row
    positions), reason.

    reason is "lesion_id", "duplicate_of" or "phash"; part: (rows,) bool, the rows that may be in a
    pair. A lesion, chain of duplicates or hash that n images share is a star around a scored image
    (else one of another source), and where test images are among them a second star around one of
    those.
    """
    part = np.ones(len(images), dtype=bool) if part is None else part
    test = (images["split"] == "test").to_numpy()
    # Scored images first: an external twin is dropped where it is paired with one directly.
    rank = np.where(scored(images, task), 0, 1)

    # Stars rather than all pairs: n images that share a tag give n - 1 pairs, not n (n - 1) / 2.
    columns = pd.DataFrame({"first": [], "second": [], "reason": []})
    parts = [columns.astype({"first": int, "second": int})]
    for reason, known_tags, all_tags in tags(images, test):
        same = near_hashes(hashes_of(images)) if reason == "phash" else None
        # Stars outside the test set, by what its rows do not say; then those around test images.
        parts += [
            stars(images, known_tags, rank, part & ~test, ~test, same).assign(reason=reason),
            stars(images, all_tags, rank, part, test, same).assign(reason=reason),
        ]
    return pd.concat(parts, ignore_index=True)


def tags(images: pd.DataFrame, test: np.ndarray) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """The columns that may join images: (reason, a tag for each row, the same with test rows).

    Images that share a tag belong together. The first tags know only what rows outside the test set
    say, the second what all rows say.
    """
    # A lesion or a hash stands in the row itself, so that other rows cannot change it.
    columns = []
    for reason in ("lesion_id", "phash"):
        if reason in images and images[reason].notna().any():
            values = images[reason].to_numpy(dtype=object)
            columns.append((reason, values, values))

    # A chain of duplicates may run through a test row: without those rows it may be two chains.
    if "duplicate_of" in images and images["duplicate_of"].notna().any():
        everywhere = np.ones(len(images), dtype=bool)
        chains = [duplicate_chains(images, part) for part in (~test, everywhere)]
        columns.append(("duplicate_of", *chains))
    return columns


def duplicate_chains(images: pd.DataFrame, part: np.ndarray) -> np.ndarray:
    """A tag per image, shared by all that are duplicates over any chain, also of absent images.

    part: (rows,) bool, the rows whose `duplicate_of` counts.
    """
    named = images["duplicate_of"].where(images["duplicate_of"].notna() & part)
    # Images and those they name get numbers in one go: a named image may have no row of its own,
    # and two that name it belong together all the same.
    code, ids = pd.factorize(pd.concat([images["image_id"], named]), use_na_sentinel=True)
    first = code[: len(images)]
    second = code[len(images) :]
    return components(len(ids), first[second >= 0], second[second >= 0])[first]


def components(nodes: int, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The connected component of every node, (nodes,), given edges first[i] - second[i]."""
    edges = coo_matrix((np.ones(len(first)), (first, second)), shape=(nodes, nodes))
    return connected_components(edges, directed=False)[1]


def stars(
    images: pd.DataFrame,
    tag: np.ndarray,
    rank: np.ndarray,
    part: np.ndarray,
    centres: np.ndarray,
    same: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Pairs (centre, other) of rows of `part` that share a tag, as columns first and second.

    Tags that are near each other count as shared where `same` (columns tag, other) lists them. The
    centre of a tag is its row of `centres` with the least rank, then image_id. Where test rows are
    the centres, only pairs with rows outside the test set are given.
    """
    columns = {
        "tag": tag,
        "rank": rank,
        "image_id": images["image_id"].to_numpy(),
        "row": np.arange(len(images)),
    }
    rows = pd.DataFrame(columns)[part].dropna(subset="tag")

    # tag -> row of its centre; by image_id among equals, so that the order of the rows is nothing.
    able = rows[centres[rows["row"]]].sort_values(["tag", "rank", "image_id"])
    centre = able.drop_duplicates("tag").set_index("tag")["row"]

    # Each other row with its own tag's centre, then with the centres of near tags.
    test = (images["split"] == "test").to_numpy()
    rows = rows[~centres[rows["row"]] | ~test[rows["row"]]]
    pairs = pd.DataFrame({"first": rows["tag"].map(centre), "second": rows["row"]})
    if same is not None:
        across = rows[["tag", "row"]].merge(same, on="tag")
        near = pd.DataFrame({"first": across["other"].map(centre), "second": across["row"]})
        pairs = pd.concat([pairs, near])
    pairs = pairs.dropna().astype(int)
    return pairs[pairs["first"] != pairs["second"]]


def hashes_of(images: pd.DataFrame) -> tuple[str, ...]:
    """The different perceptual hashes, ascending.

    Hashes in another form than that of `images.phash` are left out: they are compared for equality
    only.
    """
    # A foreign hash cannot be unpacked into the bits that the search compares.
    known = images["phash"].dropna().astype("str").drop_duplicates()
    return tuple(sorted(known[known.str.fullmatch(f"[0-9a-f]{{{DIGITS}}}")]))


@lru_cache(maxsize=2)
def near_hashes(hashes: tuple[str, ...]) -> pd.DataFrame:
    """Pairs of different hashes that are near each other, both ways round: columns tag and other.

    Kept for the next call: folds and audit ask about the same table, and 223,414 hashes take a
    minute.
    """
    # numba: half a second that reading folds.csv need not wait
    from pipeline.core.images.near_duplicates import near_duplicates

    pairs = np.array(near_duplicates(hashes), dtype=np.int64).reshape(-1, 2)
    both = np.concatenate([pairs, pairs[:, ::-1]])
    known = np.array(hashes, dtype=object)
    return pd.DataFrame({"tag": known[both[:, 0]], "other": known[both[:, 1]]})


def patient_groups(images: pd.DataFrame, linked: pd.DataFrame) -> pd.Series:
    """The group of every train and valid patient: patient key -> 0..groups-1, numbered by each
    group's first key.

    linked: pairs of row positions in `images`, as `links` gives them.
    """
    known = (images["split"] != "test").to_numpy()
    # Sorted, so that the numbers of the groups do not depend on the order of images.csv.
    code, patients = pd.factorize(patient_keys(images).where(known), sort=True)

    # A link with a test image has code -1 on one side, and joins nobody.
    first = code[linked["first"].to_numpy()]
    second = code[linked["second"].to_numpy()]
    inside = (first >= 0) & (second >= 0)
    component = components(len(patients), first[inside], second[inside])
    return pd.Series(pd.factorize(component)[0], index=patients.astype(str))
