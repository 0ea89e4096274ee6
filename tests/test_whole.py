"""A run with a network of all rows, from raw files to a package: its test scores are that
network's, its out-of-fold scores those of the folds."""

from dataclasses import replace

import numpy as np
import pytest

from pipeline import ensemble, finetune, folds, forget, predict, prepare, pretrain
from pipeline.competitions import melanoma
from pipeline.core.artifacts.files import read_json
from pipeline.core.artifacts.paths import models_folder
from pipeline.core.artifacts.provenance import read_weights_header
from pipeline.core.artifacts.tables import read_csv
from pipeline.core.config import Blend
from pipeline.core.config.competition import load_competition
from pipeline.core.config.run import ALL
from pipeline.core.runs.job import jobs_of
from pipeline.core.runs.missing import request_of
from pipeline.core.runtime.errors import UserError
from pipeline.core.schedule.graph import next_command
from pipeline.deploy.away.combine import scores_on_scale
from pipeline.deploy.package import trained_networks
from tests.cases.trained import melanoma as write_raw

# Of the modern runs, so that AdamW in both stages, mixup and clipping go all the way as well.
MODERN = melanoma.modern[0]
MIXED = replace(MODERN.pretrain, mixup=0.2, cutmix=1.0, negatives=2.0)
RUN = replace(MODERN, whole="best", stage="finetuned", pretrain=MIXED)
NAME = RUN.name


@pytest.fixture
def house(tmp_path, monkeypatch):
    """Melanoma in its smoke form with that run alone, no metadata, and quantiles averaged."""
    for root in ("DATA", "MODELS", "SUBMISSIONS"):
        monkeypatch.setenv(root, str(tmp_path / root.lower()))
    monkeypatch.setenv("SMOKE", "1")
    monkeypatch.setenv("WORKERS", "0")
    monkeypatch.setattr(melanoma, "runs", (RUN,))
    monkeypatch.setattr(melanoma, "modern", ())
    monkeypatch.setattr(melanoma, "metadata", None)
    monkeypatch.setattr(melanoma, "blend", Blend(metadata=0.0, method="quantile"))
    raw = tmp_path / "data" / "melanoma" / "raw"
    raw.mkdir(parents=True)
    write_raw(raw)


def run(stage, *arguments: str) -> None:
    parser = getattr(stage, "parser", None)
    options = parser() if parser else stage.stage_parser(stage.__doc__)
    stage.main(options.parse_args(list(arguments)))


@pytest.mark.usefixtures("house")
def test_from_raw_files_to_a_package(monkeypatch):
    run(prepare, "melanoma")
    run(folds, "melanoma", "--folds", "2")
    assert [job.fold for job in jobs_of(["melanoma"])] == [0, 1, ALL]
    for stage in (pretrain, finetune, predict):
        run(stage, f"melanoma/{NAME}")
    run(ensemble, f"melanoma/{NAME}")

    # All 40 training rows trained it, for the median of the folds' best epochs.
    folder = models_folder("melanoma") / NAME
    everyone = jobs_of([f"melanoma/{NAME}/all"])[0]
    assert len(everyone.training()) == 40 and len(everyone.validation()) == 0
    header = read_weights_header(folder / "all" / "finetuned.safetensors")
    assert 1 <= header["epoch"] <= 6 and header["target"] == f"melanoma/{NAME}/all"

    # Its scores of the test rows are the ensemble's, by the map of all out-of-fold scores.
    own = read_csv(folder / "all" / "predictions.csv")
    assert set(own["split"]) == {"test"} and set(own["fold"]) == {ALL}
    table = read_csv(models_folder("melanoma") / "ensemble.csv")
    test = table[table["split"] == "test"].set_index("image_id")["target"]
    maps = read_json(models_folder("melanoma") / "quantiles.json")["members"]
    expected = scores_on_scale((NAME, ALL), own[["target"]], "quantile", maps)[:, 0]
    np.testing.assert_allclose(test.loc[own["image_id"]], expected, rtol=1e-6)
    oof = table[table["split"] != "test"]
    assert set(oof["fold"]) == {0, 1} and len(oof) == 40

    # A package takes that network alone; nothing is left to make; forget removes it.
    competition = load_competition("melanoma")
    facts = read_json(models_folder("melanoma") / "ensemble.json")
    networks = trained_networks(competition, facts)
    assert [(one["fold"], one["file"]) for one in networks] == [
        (ALL, f"{NAME}/all/finetuned.safetensors")
    ]
    assert next_command("ensemble", request_of("melanoma", NAME)) == []
    run(forget, "melanoma", "--run", NAME, "--folds", ALL)
    assert not list((folder / "all").glob("*.safetensors"))
    assert (folder / "fold0" / "finetuned.safetensors").exists()
    assert next_command("ensemble", request_of("melanoma", NAME))[0] == "pretrain"

    # A run without `whole` has no such target, and an earned combination takes no such run.
    monkeypatch.setattr(melanoma, "blend", Blend(weights="earned"))
    with pytest.raises(UserError, match="leave one of the two"):
        load_competition("melanoma")
    monkeypatch.setattr(melanoma, "runs", (melanoma.trials[0],))
    monkeypatch.setattr(melanoma, "trials", ())
    with pytest.raises(UserError, match="has no network of all rows; set whole"):
        jobs_of([f"melanoma/{melanoma.runs[0].name}/all"])
