"""The tree of a run's labels, and every way to write one wrong."""

from dataclasses import replace

import pytest

from pipeline.core.config.label_tree import label_tree
from pipeline.core.config.run import (
    Auxiliary,
    Finetune,
    Metadata,
    Pretrain,
    Run,
    as_json,
    from_json,
)
from pipeline.core.runtime.errors import UserError

LABELS = ("a", "b", "c")
PLAIN = Run(network="n", size=32, pretrain=Pretrain(lr=1.0), finetune=Finetune())
RUN = replace(
    PLAIN,
    auxiliary=(Auxiliary(column="top"), Auxiliary(column="view", classes=("AP", "PA"))),
    hierarchy={"a": "b", "b": "top"},
)


def test_nodes_are_the_labels_and_the_columns_above_them():
    tree = label_tree(RUN, LABELS)
    assert tree.names == ("a", "b", "c", "top") and tree.columns == ("top",)
    assert tree.parents == (1, 3, None, None)
    assert [tree.ancestors(node) for node in range(4)] == [[1, 3], [3], [], []]
    order = tree.from_roots()
    assert order.index(3) < order.index(1) < order.index(0)


def test_a_run_without_a_hierarchy_has_none_and_is_recorded_as_before():
    assert label_tree(PLAIN, LABELS) is None
    assert from_json(Run, as_json(RUN)) == RUN
    # A file that is older than the field holds the same run.
    recorded = as_json(PLAIN)
    del recorded["hierarchy"], recorded["finetune"]["layers"]
    assert from_json(Run, recorded) == PLAIN
    assert RUN.smoke().hierarchy == {}


@pytest.mark.parametrize(
    ("hierarchy", "message"),
    [
        ({"a": "b", "b": "c", "c": "a"}, "hierarchy: a < b < c < a is a circle"),
        ({"a": "a"}, "a < a is a circle"),
        ({"a": "top", "top": "b", "b": "top"}, "is a circle"),
        ({"a": "Lung"}, "'Lung' is neither a label of the run .a, b, c. nor one of its auxiliary"),
        ({"d": "a"}, "'d' is neither a label"),
        ({"a": "view"}, "'view' has classes, and a parent is 1 or 0"),
        ({"top": "a"}, "'top' is above no label"),
    ],
)
def test_a_wrong_tree_is_named(hierarchy, message):
    run = replace(RUN, hierarchy=hierarchy)
    if "view" in hierarchy.values():
        run = replace(run, auxiliary=run.auxiliary[::-1])
    with pytest.raises(UserError, match=message):
        label_tree(run, LABELS)


def test_columns_of_the_tree_come_first_and_are_no_labels():
    with pytest.raises(UserError, match="its columns come first in auxiliary, before 'view'"):
        label_tree(replace(RUN, auxiliary=RUN.auxiliary[::-1]), LABELS)
    with pytest.raises(UserError, match="'b' is a label already"):
        label_tree(replace(RUN, auxiliary=(*RUN.auxiliary, Auxiliary(column="b"))), LABELS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(pretrain=Pretrain(lr=1.0, mixup=0.2)), "leave mixup, cutmix out"),
        (dict(pretrain=Pretrain(lr=1.0, labels_file="own.csv")), "own.csv' have no parents"),
        (dict(finetune=Finetune(loss="ce", smoothing=0.1)), "smoothing belongs to stage 1"),
    ],
)
def test_what_does_not_go_with_a_hierarchy(changes, message):
    with pytest.raises(UserError, match=message):
        replace(RUN, **changes)
    replace(PLAIN, **changes)


def test_a_still_backbone_has_no_rates():
    with pytest.raises(UserError, match="layers='head' trains no backbone"):
        Finetune(layers="head", backbone_lr=0.1)
    with pytest.raises(UserError, match="layers='none' is none of 'all', 'head'"):
        Finetune(layers="none")
    with pytest.raises(UserError, match="no backbone, so no backbone_lr, layer_decay or layers"):
        Metadata(finetune=Finetune(layers="head"))
