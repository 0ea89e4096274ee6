"""The audit's figures against numbers worked out by hand and scipy's Kolmogorov-Smirnov
distance."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ks_2samp

from pipeline.core.folds.audit import audit
from pipeline.core.folds.audit_text import audit_text, describe, distance
from tests.cases.synthetic_images import TASK, audited, images_of, twelve


def hand_made() -> pd.DataFrame:
    """Fold 0: a (3 images, 1 positive), b (1, uncertain); fold 1: c (2, 1 positive, 1 blank); x
    always trains."""
    images = images_of(
        ["a", "a", "a", "b", "c", "c"],
        melanoma=[1, 0, 0, -1, 1, np.nan],
        age=[40, 40, 40, None, 70, 60],
        sex=["f", "f", "f", "m", "m", None],
    )
    other = images_of(["x"], source="other", start=10, age=[None], sex=[None])
    return pd.concat([images, other], ignore_index=True)


FOLDS = pd.DataFrame({"patient_id": ["a", "b", "c", "x"], "fold": [0, 0, 1, -1]})
NOTHING = pd.DataFrame({"image_id": [], "reason": [], "twin": []}, dtype="str")


def test_figures_of_a_table_worked_out_by_hand():
    found = audit("folds.csv", hand_made(), FOLDS, NOTHING, TASK, {"by": "hand"})
    first, second = found["folds"]
    assert [first[key] for key in ("images", "patients")] == [4, 2]
    assert (first["positives"], first["negatives"], first["uncertain"]) == (
        {"melanoma": 1},
        {"melanoma": 2},
        {"melanoma": 1},
    )
    assert second["positive_patients"] == {"melanoma": 1}
    assert first["deviation"] == {
        "images": pytest.approx(1 / 3),
        "patients": pytest.approx(1 / 3),
        "positives": {"melanoma": 0.0},
        "sizes": pytest.approx(1 / 6),
    }
    assert second["deviation"]["sizes"] == pytest.approx(
        1 / 3
    )  # all of {2} against thirds of {1, 2, 3}
    assert first["metadata"]["age"] == {"mean": 40.0, "missing": 0.25}
    assert second["metadata"]["sex"] == {"m": 0.5, "missing": 0.5}
    assert found["worst"] == {
        "images": pytest.approx(1 / 3),
        "patients": pytest.approx(1 / 3),
        "sizes": pytest.approx(1 / 3),
        "positives": {"melanoma": 0.0},
    }
    assert (found["all"]["images"], found["always_trains"]["images"]) == (6, 1)
    assert found["always_trains"]["sources"] == {"other": 1}


def test_the_audit_is_json_and_prints_every_fold():
    found = audited(twelve(), folds=3)[1]
    assert json.loads(json.dumps(found)) == found
    text = audit_text(found)
    assert all(f"fold {k}" in text for k in range(3)) and "leaks: 0" in text


@pytest.mark.parametrize("seed", range(5))
def test_distance_is_the_kolmogorov_smirnov_statistic(seed):
    random = np.random.RandomState(seed)
    first = np.sort(random.geometric(0.2, 60))
    second = np.sort(random.geometric(0.3, 90))
    assert distance(first, second) == pytest.approx(ks_2samp(first, second).statistic)


def test_nothing_to_describe():
    empty = describe(twelve()[:0], TASK)
    assert (empty["images"], empty["patients"], empty["positives"]) == (0, 0, {"melanoma": 0})
    assert distance(np.array([]), np.array([])) == 0
