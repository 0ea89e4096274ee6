"""What a run with a hierarchy of labels is taught: parents closed upward, masks, and what a user
may get wrong in the tables."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from pipeline.core.artifacts.labels import part
from pipeline.core.config.label_tree import LabelTree, label_tree
from pipeline.core.config.run import Auxiliary, Finetune, Pretrain, Run
from pipeline.core.config.task import Task, Uncertain
from pipeline.core.runs.extra_labels import lesson
from pipeline.core.runs.hierarchy import close_values, closed_upward, given_ancestors
from pipeline.core.runs.job import Job
from pipeline.core.runtime.errors import UserError

TASK = Task(
    title="t",
    labels=("leaf", "alone"),
    blank="negative",
    uncertain_pretrain={"leaf": Uncertain(policy="ones", low=0.55, high=0.85)},
    uncertain_finetune={"leaf": Uncertain(policy="ones")},
)
RUN = Run(
    network="n",
    size=32,
    pretrain=Pretrain(lr=1.0),
    finetune=Finetune(),
    auxiliary=(Auxiliary(column="parent"), Auxiliary(column="depth")),
    hierarchy={"leaf": "parent"},
)
BLANK = np.nan
#       leaf   parent        closed   leaf is taught
ROWS = [
    (1, BLANK),  # 1        1
    (1, -1),  # 1        1
    (1, 1),  # 1        1
    (1, 0),  # 0        nothing: a contradiction
    (0, 1),  # 1        0
    (-1, 1),  # 1        a number of [.55, .85]
    (-1, -1),  # -1       nothing
    (0, 0),  # 0        nothing
    (BLANK, BLANK),  # blank    nothing: not mentioned is negative
    (BLANK, 1),  # 1        0
]
IMAGES = pd.DataFrame(
    {
        "image_id": [f"i{number}" for number in range(10)],
        "patient_id": [f"p{number}" for number in range(10)],
        "split": "train",
        "leaf": [row[0] for row in ROWS],
        "alone": [1.0, 0.0] * 5,
    }
)
PARENT = pd.DataFrame(
    {"image_id": IMAGES["image_id"], "parent": [row[1] for row in ROWS], "depth": 1.0}
)
FOLDS = pd.DataFrame({"patient_id": IMAGES["patient_id"], "fold": -1})
DROPPED = pd.DataFrame({"image_id": [], "reason": [], "twin": []}, dtype="str")


@pytest.fixture
def job(tmp_path, monkeypatch):
    """A function run, parents -> its job."""
    monkeypatch.setenv("DATA", str(tmp_path / "data"))
    (tmp_path / "data" / "comp" / "raw").mkdir(parents=True)
    known = SimpleNamespace(images=IMAGES, folds=FOLDS, dropped=DROPPED)
    monkeypatch.setattr(Job, "tables", property(lambda _: known))

    def make(run: Run = RUN, parents: pd.DataFrame = PARENT) -> Job:
        module = SimpleNamespace(auxiliary=lambda _: parents)
        labels = lambda _: TASK.labels  # noqa: E731
        return Job(SimpleNamespace(name="comp", task=TASK, labels=labels, module=module), run, 0)

    return make


def test_positive_children_close_their_parents_and_the_cells_are_counted(job):
    rows, notes = closed_upward(job(), IMAGES, label_tree(RUN, TASK.labels))
    np.testing.assert_array_equal(rows["parent"], [1, 1, 1, 0, 1, 1, -1, 0, BLANK, 1])
    np.testing.assert_array_equal(rows["leaf"], IMAGES["leaf"])
    assert notes == (
        "hierarchy: 2 cells became positive for a positive child: parent 2",
        "hierarchy: 1 negative cells above a positive child stay",
    )


def test_closing_goes_all_the_way_up_whatever_the_order_of_the_nodes():
    chain = LabelTree(("leaf", "top", "middle"), (2, None, 1), 1)
    values = np.array([[1, BLANK, -1], [1, -1, BLANK], [-1, BLANK, BLANK], [1, BLANK, 0]])
    closed, contradictions = close_values(values, chain)
    expected = [[1, 1, 1], [1, 1, 1], [-1, BLANK, BLANK], [1, BLANK, 0]]
    np.testing.assert_array_equal(closed, expected)
    assert contradictions == 1
    assert np.isnan(values[0, 1])  # its argument is left as it was


def test_a_node_is_taught_where_all_its_ancestors_are_positive(job):
    taught = lesson(job(), seed=3)
    drawn = 0.55 + 0.3 * part(3, "leaf", "i5")
    leaf = [1, 1, 1, BLANK, 0, drawn, BLANK, BLANK, BLANK, 0]
    np.testing.assert_allclose(taught.labels[:, 0], leaf, rtol=1e-6)
    np.testing.assert_array_equal(taught.labels[:, 1], IMAGES["alone"])
    # The parent is a root: a blank is what the task says, an uncertain one is left out.
    parent = [1, 1, 1, 0, 1, 1, BLANK, 0, 0, 1]
    np.testing.assert_array_equal(taught.auxiliary, np.stack([parent, np.ones(10)], axis=1))
    assert taught.weights is None and "2 cells" in taught.notes[0]


def test_the_mask_is_of_all_ancestors_by_brute_force(job):
    tree = LabelTree(("a", "b", "c", "d"), (1, 2, None, 2), 4)
    rng = np.random.default_rng(0)
    values = rng.choice([0, 1, 0.7, BLANK], size=(300, 4))
    found = given_ancestors(job(), values, tree)
    for row, node in np.ndindex(values.shape):
        taught = all(values[row, above] == 1 for above in tree.ancestors(node))
        expected = values[row, node] if taught else BLANK
        assert found[row, node] == expected or (np.isnan(found[row, node]) and np.isnan(expected))


@pytest.mark.parametrize(
    ("parents", "message"),
    [
        (PARENT.assign(parent=2.0), "auxiliary column 'parent': '2' is not 0, 1, -1 or blank"),
        (PARENT.drop(columns="parent"), "the column 'parent' is missing; there are depth"),
        (PARENT.assign(parent=0.0), "comp/n_32/fold0: hierarchy: no training row teaches 'leaf'"),
    ],
)
def test_wrong_parents_are_named(job, parents, message):
    with pytest.raises(UserError, match=message):
        lesson(job(RUN, parents), 0)


def test_a_run_without_a_hierarchy_leaves_parents_alone(job):
    taught = lesson(job(replace(RUN, hierarchy={})), 3)
    np.testing.assert_array_equal(taught.labels[:, 0][[3, 7, 8]], [1, 0, 0])
    # As any auxiliary column: blank is left out, nothing is closed.
    np.testing.assert_array_equal(
        taught.auxiliary[:, 0], [BLANK, BLANK, 1, 0, 1, 1, BLANK, 0, BLANK, 1]
    )
    assert taught.notes == ()
