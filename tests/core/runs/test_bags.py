"""Units in training: their rows, their one label, and what a user may get wrong."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from pipeline.core.artifacts.labels import targets
from pipeline.core.config.run import Augment, Auxiliary, Finetune, Pretrain, Run
from pipeline.core.config.task import Task, Uncertain
from pipeline.core.runs.bags import (
    bags_of,
    count_text,
    drawn_once,
    mean_of_bags,
    of_bags,
    rows_of_units,
)
from pipeline.core.runtime.errors import UserError

RUN = Run(network="n", size=32, pretrain=Pretrain(lr=1.0), finetune=Finetune(), bag="max")
ROWS = pd.DataFrame(
    {
        "image_id": list("abcdef"),
        "unit_id": ["s2", "s1", "s2", "s3", "s1", "s2"],
        "y": [np.nan, -1, 1, -1, -1, 0],
    },
    index=[9, 4, 4, 7, 1, 0],  # positions count, not the index
)


def test_rows_of_units_in_order_of_first_appearance():
    bags = bags_of(RUN, ROWS)
    assert [bag.tolist() for bag in bags] == [[0, 2, 5], [1, 4], [3]]
    assert count_text(ROWS, bags) == "6 images of 3 units"
    assert bags_of(replace(RUN, bag=""), ROWS) is None and count_text(ROWS, None) == "6 images"
    assert rows_of_units([]) == []
    with pytest.raises(UserError, match="image d: column unit_id: blank"):
        bags_of(RUN, ROWS.assign(unit_id=ROWS["unit_id"].where(ROWS["image_id"] != "d")))


def test_a_units_label_is_the_largest_known():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(200, 3)).astype(np.float32)
    values[rng.random((200, 3)) < 0.6] = np.nan
    units = rng.integers(0, 80, 200).astype(str)
    bags = rows_of_units(units)
    expected = pd.DataFrame(values).groupby(units, sort=False).max()
    found = of_bags(values, bags)
    np.testing.assert_array_equal(found, expected.to_numpy())
    assert found.dtype == np.float32 and np.isnan(found).any()
    weights = rng.random(200).astype(np.float32)
    means = pd.Series(weights).groupby(units, sort=False).mean()
    np.testing.assert_allclose(mean_of_bags(weights, bags), means, rtol=1e-5)
    assert of_bags(values, None) is values and mean_of_bags(weights, None) is weights
    assert of_bags(values[:0], []).shape == (0, 3)
    assert of_bags(values[:, :0], bags).shape == (len(bags), 0)


def test_a_smoothed_label_is_drawn_once_a_unit():
    task = Task(title="t", labels=("y",), blank="ignore", unit="study")
    policies = {"y": Uncertain(policy="ones", low=0.55, high=0.85)}
    bags = bags_of(RUN, ROWS)
    each = targets(drawn_once(ROWS, bags), ("y",), task, policies, 3)
    assert each[1] == each[4] != each[3]
    found = of_bags(each, bags)[:, 0]
    # A certain positive image decides; the others' draw is that of the unit's first image.
    assert found[0] == 1 and found[1] == targets(ROWS, ("y",), task, policies, 3)[1, 0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(bag="mean"), "bag='mean' is none of '', 'max', 'attention'"),
        (dict(bag_images=0), "bag_images=0 is not between 1 and 64"),
        (dict(pretrain=Pretrain(lr=1.0, mixup=0.2)), "bag='max' learns whole units: leave mixup"),
        (dict(finetune=Finetune(loss="ce", cutmix=1.0)), "leave mixup and cutmix out"),
        (dict(auxiliary=(Auxiliary(column="view"),)), "auxiliary columns are of images"),
        (dict(hierarchy={"y": "x"}), "bag='max' and hierarchy: take one"),
        (dict(bag="attention", pool="pcam"), "bag='attention' pools the features of a whole"),
        (
            dict(pretrain=Pretrain(lr=1.0, epochs=0), finetune=Finetune(site_column="hospital")),
            "bag='max' and site_column",
        ),
    ],
)
def test_what_does_not_go_with_units_is_one_clear_line(changes, message):
    with pytest.raises(UserError, match=message) as error:
        replace(RUN, augment=Augment(), **changes)
    assert "\n" not in str(error.value)
