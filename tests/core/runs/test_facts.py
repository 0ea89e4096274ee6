"""Recorded recipes against today's: a field that an older file does not know has its default."""

import pytest

from pipeline.core.config.run import Finetune, Metadata, Pretrain, Run, as_json
from pipeline.core.runs.facts import comparable_recipe

RUN = Run(network="n", size=32, pretrain=Pretrain(lr=1.0), finetune=Finetune())


@pytest.mark.parametrize(
    ("kind", "recipe", "younger"),
    [
        (Run, RUN, ["drop_path", "pretrain.clip", "finetune.smoothing", "finetune.dual_lr"]),
        (Metadata, Metadata(), ["finetune.optimizer", "finetune.layer_decay"]),
    ],
)
def test_a_younger_field_has_its_default(kind, recipe, younger):
    today = as_json(recipe)
    recorded = as_json(recipe)
    for path in younger:
        *parts, name = path.split(".")
        place = recorded
        for part in parts:
            place = place[part]
        del place[name]
    # Through JSON a tuple is a list, on both sides.
    found = comparable_recipe(kind, recorded, today)
    assert found == comparable_recipe(kind, today, today)
    recorded["finetune"]["lr"] = 7.0
    assert comparable_recipe(kind, recorded, today) != found
    assert comparable_recipe(kind, None, today) is None
