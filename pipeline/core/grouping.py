"""Which images belong together: same patient, same lesion, known duplicates, near-identical pixels.

A pair of images is an edge, a patient is a node, and a group is a connected component, so that no chain of duplicates
can cross a fold. Test images link nothing: adding test rows leaves every group as it was.
"""
import numpy as np
import pandas as pd
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from pipeline.core.command import UserError
from pipeline.core.config import Task

# Reasons that say two pictures show the same; a lesion may be photographed twice.
SAME_PICTURE = ("duplicate_of", "phash")


def near_duplicates(phash: pd.Series) -> list[tuple[int, int]]:
    """Pairs (i, j) of positions with equal hashes."""
    rows = pd.DataFrame({"hash": phash.to_numpy(), "row": np.arange(len(phash))})
    first = rows["hash"].map(rows.drop_duplicates("hash").set_index("hash")["row"])
    return [(int(i), int(j)) for i, j in zip(first, rows["row"]) if i != j]


def patient_keys(images: pd.DataFrame) -> pd.Series:
    """The patient of every image, as folds.csv names it: patient_id, or "image:<image_id>" where that is blank."""
    return images["patient_id"].fillna("image:" + images["image_id"].astype(str)).astype(str)


def check_patients(where: object, images: pd.DataFrame, task: Task) -> None:
    """Raise a UserError for a train or valid image without patient, unless each such image may be its own."""
    blank = (images["patient_id"].isna() & (images["split"] != "test")).to_numpy()
    if blank.any() and task.patient_missing != "own_group":
        row = blank.argmax()
        raise UserError(f"{where}: row {row + 2}, column patient_id: blank, so image {images['image_id'].iloc[row]} "
                        f"cannot be kept out of its patient's validation fold ({blank.sum()} such rows); "
                        "patient_missing='own_group' in the competition's task makes each a patient of its own")


def scored(images: pd.DataFrame, task: Task) -> np.ndarray:
    """True for the images that may be validated, (rows,): not test, and from the task's scored source.

    A table without that source (all of one origin, named otherwise) counts as scored throughout.
    """
    known = (images["split"] != "test").to_numpy()
    if "source" not in images or not task.scored_source:
        return known
    own = (images["source"] == task.scored_source).to_numpy()
    return known & own if (known & own).any() else known


def links(images: pd.DataFrame, task: Task, part: np.ndarray | None = None) -> pd.DataFrame:
    """Pairs of images that belong together beyond their patient: columns first, second (row positions), reason.

    reason is "lesion_id", "duplicate_of" or "phash"; part: (rows,) bool, the rows that may be in a pair. A lesion or
    a chain of duplicates with n images is a star around a scored image (else one of another source), and where test
    images are among them a second star around one of those.
    """
    part = np.ones(len(images), dtype=bool) if part is None else part
    test = (images["split"] == "test").to_numpy()
    rank = np.where(test, 2, np.where(scored(images, task), 0, 1))
    parts = [pd.DataFrame({"first": [], "second": [], "reason": []}).astype({"first": int, "second": int})]
    if "lesion_id" in images:
        lesion = images["lesion_id"].to_numpy(dtype=object)
        parts += [stars(images, lesion, rank, part & ~test).assign(reason="lesion_id"),
                  stars(images, lesion, -rank, part, test).assign(reason="lesion_id")]
    if "duplicate_of" in images:
        parts += [stars(images, duplicate_chains(images, ~test), rank, part & ~test).assign(reason="duplicate_of"),
                  stars(images, duplicate_chains(images), -rank, part, test).assign(reason="duplicate_of")]
    if "phash" in images:
        parts.append(near_pairs(images, part).assign(reason="phash"))
    return pd.concat(parts, ignore_index=True)


def duplicate_chains(images: pd.DataFrame, told: np.ndarray | None = None) -> np.ndarray:
    """A tag per image, shared by all that the rows `told` say are duplicates, over any chain, also of absent images."""
    named = images["duplicate_of"].where(images["duplicate_of"].notna() & (True if told is None else told))
    code, ids = pd.factorize(pd.concat([images["image_id"], named]), use_na_sentinel=True)
    first, second = code[:len(images)], code[len(images):]
    return components(len(ids), first[second >= 0], second[second >= 0])[first]


def components(nodes: int, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The connected component of every node, (nodes,), given edges first[i] - second[i]."""
    edges = coo_matrix((np.ones(len(first)), (first, second)), shape=(nodes, nodes))
    return connected_components(edges, directed=False)[1]


def stars(images: pd.DataFrame, tag: np.ndarray, rank: np.ndarray, part: np.ndarray,
          centres: np.ndarray | None = None) -> pd.DataFrame:
    """Pairs (centre, other) of the rows of `part` that share a tag; the centre has the least rank, then image_id.

    centres: the rows that may be one, and then only pairs with rows outside `centres` are given.
    """
    rows = pd.DataFrame({"tag": tag, "rank": rank, "image_id": images["image_id"].to_numpy(),
                         "row": np.arange(len(images))})[part].dropna(subset="tag")
    rows = rows.sort_values(["tag", "rank", "image_id"])
    may = rows if centres is None else rows[centres[rows["row"]]]
    first = rows["tag"].map(may.drop_duplicates("tag").set_index("tag")["row"])
    inside = False if centres is None else centres[rows["row"]]
    there = (first.notna() & (first != rows["row"]) & ~np.asarray(inside)).to_numpy()
    return pd.DataFrame({"first": first[there].astype(int), "second": rows["row"][there]})


def near_pairs(images: pd.DataFrame, part: np.ndarray) -> pd.DataFrame:
    """Pairs of rows of `part` whose perceptual hashes are nearly equal; images without hash have none."""
    hashed = np.flatnonzero(images["phash"].notna().to_numpy() & part)
    pairs = np.array(near_duplicates(images["phash"].iloc[hashed]), dtype=np.int64).reshape(-1, 2)
    return pd.DataFrame({"first": hashed[pairs[:, 0]], "second": hashed[pairs[:, 1]]})


def patient_groups(images: pd.DataFrame, linked: pd.DataFrame) -> pd.Series:
    """The group of every train and valid patient: patient key -> 0..groups-1, numbered by each group's first key.

    linked: pairs of row positions in `images`, as `links` gives them.
    """
    known = (images["split"] != "test").to_numpy()
    code, patients = pd.factorize(patient_keys(images).where(known), sort=True)
    first, second = code[linked["first"].to_numpy()], code[linked["second"].to_numpy()]
    inside = (first >= 0) & (second >= 0)
    component = components(len(patients), first[inside], second[inside])
    return pd.Series(pd.factorize(component)[0], index=patients.astype(str))
