"""A run with a hierarchy of labels from raw files to scores: everywhere its scores are the products
of the conditionals along the paths."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from pipeline import ensemble, finetune, folds, predict, prepare, pretrain, submit
from pipeline.competitions import chexpert
from pipeline.core.artifacts.files import file_hash, read_json
from pipeline.core.artifacts.labels import truth
from pipeline.core.artifacts.paths import data_folder, models_folder
from pipeline.core.artifacts.prepared_images import prepared_images
from pipeline.core.artifacts.provenance import read_weights_header
from pipeline.core.artifacts.tables import read_csv
from pipeline.core.config.competition import load_competition
from pipeline.core.config.run import SMOKE_NETWORK
from pipeline.core.images.views import read_prepared_image, view_matrices
from pipeline.core.metrics import auc
from pipeline.core.networks.image import load_weights
from pipeline.core.networks.scoring import score_views
from pipeline.core.runs.job import Job, jobs_of
from pipeline.core.runtime.errors import UserError
from pipeline.deploy.away.stream import load_scorer, score_chunk
from pipeline.deploy.package import trained_networks
from tests.cases.trained import chexpert as write_raw

RUN = replace(
    chexpert.hierarchical,
    network=SMOKE_NETWORK,
    size=32,
    weights="random",
    views=3,
    precision="fp32",
    tag="tiny",
    pretrain=replace(chexpert.pretrain, lr=2e-3, epochs=2, batch_size=16),
    finetune=replace(chexpert.hierarchical.finetune, epochs=2, batch_size=16, milestones=()),
)
NAME = RUN.name
DISEASES = list(chexpert.DISEASES)
PARENTS = list(dict.fromkeys(chexpert.PARENTS.values()))


@pytest.fixture
def house(tmp_path, monkeypatch):
    """CheXpert with that run alone, prepared and split."""
    for root in ("DATA", "MODELS", "SUBMISSIONS"):
        monkeypatch.setenv(root, str(tmp_path / root.lower()))
    monkeypatch.delenv("SMOKE", raising=False)
    monkeypatch.setenv("WORKERS", "0")
    monkeypatch.setattr(chexpert, "runs", (RUN,))
    monkeypatch.setattr(chexpert, "trials", ())
    monkeypatch.setattr(chexpert, "modern", ())
    monkeypatch.setattr(chexpert, "metadata", None)
    raw = tmp_path / "data" / "chexpert" / "raw"
    raw.mkdir(parents=True)
    write_raw(raw)
    # Not mentioned, uncertain, negative: as the real tables have them.
    path = raw / "CheXpert-v1.0" / "train.csv"
    table = pd.read_csv(path)
    for name in PARENTS:
        negative = np.flatnonzero(table[name] == 0)
        table.loc[negative[::3], name] = np.nan
        table.loc[negative[1::3], name] = -1
    table.to_csv(path, index=False)
    stage(prepare, "chexpert", "--workers", "1")
    stage(folds, "chexpert")


def stage(module, *arguments: str) -> None:
    parser = getattr(module, "parser", None)
    options = parser() if parser else module.stage_parser(module.__doc__)
    module.main(options.parse_args(list(arguments)))


def nodes_of(job: Job, weights: str, rows: pd.DataFrame) -> np.ndarray:
    """float64 (n, views, nodes): each node's own sigmoid, by a network without its tree."""
    network = load_weights(job.folder / weights, job.run, job.labels)
    network.tree = None
    heads = [network.classifier, network.ancestors]
    both = torch.nn.Linear(network.features, sum(head.out_features for head in heads))
    with torch.no_grad():
        both.weight.copy_(torch.cat([head.weight for head in heads]))
        both.bias.copy_(torch.cat([head.bias for head in heads]))
    network.classifier, network.ancestors = both, None
    images = prepared_images("chexpert", RUN.size, rows["image_id"])
    matrices = view_matrices(RUN.views, RUN.size, RUN.augment)
    read = lambda index: read_prepared_image(images[index], 1)  # noqa: E731
    scores = score_views(network.eval(), read, len(images), matrices, torch.float32, 0)
    return 1 / (1 + np.exp(-scores.astype(np.float64)))


def products(nodes: np.ndarray) -> np.ndarray:
    """P of each of the five diseases, by the names of its parents."""
    names = [*DISEASES, *PARENTS]
    columns = []
    for label in chexpert.DISEASES:
        product = nodes[..., names.index(label)].copy()
        if label in chexpert.PARENTS:
            product *= nodes[..., names.index(chexpert.PARENTS[label])]
        columns.append(product)
    return np.stack(columns, axis=-1)


@pytest.mark.usefixtures("house")
def test_from_raw_files_to_scores(capsys, monkeypatch):
    stage(pretrain, "chexpert")
    printed = capsys.readouterr().out
    # By the table itself: which cells a positive child closes, and how many rows teach a child.
    job = jobs_of(["chexpert"])[0]
    raw = pd.read_csv(data_folder("chexpert") / "auxiliary.csv", dtype={"image_id": str})
    rows = job.training().merge(raw, on="image_id")
    closed = 0
    for name in PARENTS:
        children = [child for child, parent in chexpert.PARENTS.items() if parent == name]
        positive = (rows[children] == 1).any(axis=1)
        closed += (positive & (rows[name].isna() | (rows[name] == -1))).sum()
        taught = (positive & (rows[name] != 0)) | (rows[name] == 1)
        line = next(line for line in printed.splitlines() if line.split()[:1] == children[:1])
        assert int(line.split()[-1]) == (~taught).sum()
    assert closed > 0
    assert f"hierarchy: {closed} cells became positive for a positive child" in printed
    assert "negative cells above a positive child stay" in printed

    stage(finetune, "chexpert")
    stage(predict, "chexpert")
    stage(ensemble, f"chexpert/{NAME}")
    stage(submit, "chexpert")

    # Out of fold, after either stage; and of the test images, mean over views of products.
    scored = pd.concat([job.validation(), job.test()])
    for weights, file, rows in (
        ("pretrained.safetensors", "predictions_pretrained.csv", job.validation()),
        ("finetuned.safetensors", "predictions.csv", scored),
    ):
        table = read_csv(job.folder / file)
        expected = products(nodes_of(job, weights, rows))
        assert list(table["image_id"]) == list(rows["image_id"])
        found = table[DISEASES].to_numpy(np.float64)
        np.testing.assert_allclose(found, expected.mean(axis=1), rtol=1e-5)
        # The log's and the header's validation AUC: one view, the product too.
        header = read_weights_header(job.folder / weights)
        labels = truth(job.validation(), chexpert.DISEASES, chexpert.task)
        for column, label in enumerate(chexpert.DISEASES):
            own = auc(expected[: len(labels), 0, column], labels[:, column])
            assert header["validation_auc"][label] == pytest.approx(own)
        assert header["run"]["hierarchy"] == chexpert.PARENTS
    views = np.load(job.folder / "predictions_views.npz")["views"]
    per_view = products(nodes_of(job, "finetuned.safetensors", job.validation()))
    np.testing.assert_allclose(views, per_view, rtol=1e-4)

    # What a package takes along scores by its header alone.
    facts = read_json(models_folder("chexpert") / "ensemble.json")
    entry = trained_networks(load_competition("chexpert"), facts)[0]
    path = models_folder("chexpert") / entry["file"]
    scorer = load_scorer(path, {**entry, "sha256": file_hash(path)})
    images = prepared_images("chexpert", RUN.size, job.test()["image_id"])
    away = score_chunk(scorer, [{RUN.size: image.read()} for image in images])
    np.testing.assert_allclose(away, table[table["split"] == "test"][DISEASES], rtol=1e-5)

    # Weights of another tree are another network's.
    other = replace(RUN, hierarchy={"Edema": "Lung Opacity"}, auxiliary=RUN.auxiliary[1:])
    monkeypatch.setattr(chexpert, "runs", (other,))
    with pytest.raises(UserError, match="made with"):
        stage(predict, "chexpert")
