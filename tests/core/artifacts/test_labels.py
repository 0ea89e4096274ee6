"""Uncertain and blank labels, per label and phase."""

import numpy as np
import pandas as pd

from pipeline.core.artifacts.labels import targets, targets_text, truth, valid_labels
from pipeline.core.config.task import Task, Uncertain

NAN = float("nan")
IMAGES = pd.DataFrame(
    {
        "image_id": ["a", "b", "c", "d"],
        "Edema": [1.0, 0.0, -1.0, NAN],
        "Fracture": [-1.0, -1.0, 0, 1],
    }
)
TASK = Task(title="t", labels=("Edema", "Fracture"), blank="negative")
IGNORING = Task(title="t", labels=("Edema", "Fracture"), blank="ignore")


def test_policies():
    ones = targets(IMAGES, ["Edema"], TASK, {"Edema": Uncertain(policy="ones")}, 0)[:, 0]
    zeros = targets(IMAGES, ["Edema"], TASK, {"Edema": Uncertain(policy="zeros")}, 0)[:, 0]
    assert ones.tolist() == [1, 0, 1, 0] and zeros.tolist() == [1, 0, 0, 0]
    ignored = targets(IMAGES, ["Edema"], TASK, {}, 0)[:, 0]
    assert np.isnan(ignored).tolist() == [False, False, True, False]


def test_blank_may_be_left_out():
    assert np.isnan(targets(IMAGES, ["Edema"], IGNORING, {}, 0)[:, 0]).tolist() == [
        False,
        False,
        True,
        True,
    ]


def test_smoothing_draws_in_range_whatever_the_order_of_rows():
    policy = {"Fracture": Uncertain(policy="ones", low=0.55, high=0.85)}
    drawn = targets(IMAGES, ["Fracture"], TASK, policy, 3)[:2, 0]
    assert ((drawn >= 0.55) & (drawn <= 0.85)).all() and drawn[0] != drawn[1]
    backwards = targets(IMAGES[::-1], ["Fracture"], TASK, policy, 3)[::-1][:2, 0]
    assert (drawn == backwards).all()
    assert (targets(IMAGES, ["Fracture"], TASK, policy, 4)[:2, 0] != drawn).any()


def test_smoothed_labels_spread_evenly_over_their_range():
    many = pd.DataFrame({"image_id": [f"i{n}" for n in range(4000)], "Edema": -1.0})
    task = Task(title="t", labels=("Edema",))
    drawn = targets(
        many, ["Edema"], task, {"Edema": Uncertain(policy="zeros", low=0.0, high=0.3)}, 0
    )
    counts = np.histogram(drawn, 10, (0, 0.3))[0]
    assert counts.min() > 330 and counts.max() < 470  # 400 expected, standard deviation 19


def test_valid_labels_are_1_0_minus_1_and_the_blanks_that_may_be():
    cells = pd.Series([1, "0", "-1.0", "", "", "2", "yes", NAN, 0.5])
    blank = np.array([False] * 3 + [True] + [False] * 5)
    assert valid_labels(cells, blank).tolist() == [True] * 4 + [False] * 5
    assert valid_labels(np.array([-1.0, NAN, 3.0]), np.array([False, True, False])).tolist() == [
        True,
        True,
        False,
    ]


def test_truth_leaves_uncertain_out():
    assert np.isnan(truth(IMAGES, ["Fracture"], TASK)[:, 0]).tolist() == [True, True, False, False]


def test_the_table_counts_what_was_given_and_what_the_loss_sees():
    policies = {"Edema": Uncertain(policy="ones", low=0.55, high=0.85)}
    made = targets(IMAGES, ["Edema", "Fracture"], TASK, policies, 0)
    lines = targets_text(IMAGES, ["Edema", "Fracture"], made, policies).splitlines()
    assert " ".join(lines[1].split()) == "Edema 1 1 1 1 ones in [0.55, 0.85] 2 2 0"
    assert " ".join(lines[2].split()) == "Fracture 1 1 2 0 ignore 1 1 2"
