"""A run that sees whole studies, from raw files to a submission, a page and a bundle: a study is
trained, validated and scored as one."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from pipeline import ensemble, finetune, folds, predict, prepare, pretrain, report, submit
from pipeline.competitions import chexpert, melanoma
from pipeline.core.artifacts.files import file_hash
from pipeline.core.artifacts.labels import truth
from pipeline.core.artifacts.paths import FINETUNED, PREDICTIONS, PRETRAINED, submissions_folder
from pipeline.core.artifacts.provenance import read_weights_header
from pipeline.core.artifacts.tables import read_csv
from pipeline.core.artifacts.training_log import read_log
from pipeline.core.config.competition import load_competition
from pipeline.core.metrics import mean_auc
from pipeline.core.networks.image import read_tensors
from pipeline.core.runs.facts import require_current
from pipeline.core.runs.job import Job, jobs_of
from pipeline.core.runtime.command import Stop
from pipeline.core.runtime.errors import TimeLimitReached, UserError
from pipeline.core.training import loop
from pipeline.deploy.away import stream
from pipeline.deploy.away.stream import Progress, load_scorer, raw_images, units_together
from tests.cases.trained import chexpert as write_raw

RUNS = tuple(
    replace(
        chexpert.runs[0],
        bag=bag,
        bag_images=2,
        views=3,
        named=bag,
        # Class-aware batches and the pull of AUC-M are of studies too.
        finetune=replace(chexpert.finetune, positives=1),
    )
    for bag in ("attention", "max")
)


@pytest.fixture(scope="module", autouse=True)
def house(tmp_path_factory):
    """CheXpert's smoke form with these runs, studies of one to three views."""
    folder = tmp_path_factory.mktemp("bags")
    with pytest.MonkeyPatch.context() as patch:
        for root in ("DATA", "MODELS", "SUBMISSIONS"):
            patch.setenv(root, str(folder / root.lower()))
        patch.setenv("SMOKE", "1")
        patch.setenv("WORKERS", "0")
        patch.setattr(chexpert, "runs", RUNS)
        patch.setattr(chexpert, "modern", ())
        patch.setattr(chexpert, "metadata", None)
        raw = folder / "data" / "chexpert" / "raw"
        raw.mkdir(parents=True)
        write_raw(raw, train=42, valid=15, views=3)
        call(prepare, "chexpert")
        call(folds, "chexpert")
        for stage in (pretrain, finetune, predict):
            call(stage, "chexpert")
        call(ensemble, "chexpert")
        call(submit, "chexpert")
        yield folder


def call(stage, *arguments: str) -> None:
    parser = getattr(stage, "parser", None)
    options = parser() if parser else stage.stage_parser(stage.__doc__)
    stage.main(options.parse_args(list(arguments)))


def job_of(name: str) -> Job:
    (job,) = jobs_of([f"chexpert/{name}/fold0"])
    return job


@pytest.mark.parametrize("name", ["attention", "max"])
def test_a_step_and_a_validation_count_studies(name):
    job = job_of(name)
    rows = job.training()
    assert len(rows) == 84 and rows["unit_id"].nunique() == 42
    for phase, epochs in (("pretrained", 6), ("finetuned", 6)):
        lines = [line for line in read_log(job.folder / "log.jsonl") if line["phase"] == phase]
        # 42 studies in batches of 32 are a step an epoch.
        assert max(line["step"] for line in lines) == epochs

    # The header's AUC is that of the studies, one view.
    rows = job.validation()
    scores = predict.scores_of_views(replace_views(job, 1), FINETUNED, rows)[:, 0]
    table = pd.DataFrame(scores).groupby(rows["unit_id"].to_numpy(), sort=False)
    assert (table.nunique() == 1).all(axis=None)
    known = pd.DataFrame(truth(rows, job.labels, job.competition.task))
    known = known.groupby(rows["unit_id"].to_numpy(), sort=False).max().to_numpy()
    header = read_weights_header(job.folder / FINETUNED)
    assert len(known) == 15
    found = mean_auc(table.first().to_numpy(), known)
    assert header["validation_auc"]["mean"] == pytest.approx(found, abs=1e-6)
    keys = {name.split(".")[0] for name in read_tensors(job.folder / PRETRAINED)}
    assert ("attention" in keys) == (name == "attention")


def replace_views(job: Job, views: int) -> Job:
    return replace(job, run=replace(job.run, views=views))


@pytest.mark.parametrize("name", ["attention", "max"])
def test_predictions_and_the_submission_have_one_score_a_study(name):
    job = job_of(name)
    table = read_csv(job.folder / PREDICTIONS).set_index("image_id")
    images = job.tables.images.set_index("image_id")["unit_id"]
    by_study = table[list(job.labels)].groupby(images.loc[table.index].to_numpy())
    assert (by_study.nunique() == 1).all(axis=None) and len(by_study) < len(table)
    submission = read_csv(submissions_folder("chexpert") / "predictions.csv")
    assert len(submission) == 9 and submission["Study"].is_unique


def test_another_way_or_number_is_another_networks_weights():
    job = job_of("max")
    for changes in (dict(bag=""), dict(bag_images=3)):
        other = replace(job, run=replace(job.run, **changes))
        field = next(iter(changes))
        with pytest.raises(UserError, match=f"made with {field}="):
            require_current(other, job.folder / PRETRAINED)
    # Where images were left out of a study of the raw table, all that are there are seen.
    assert job.run.bag_images == 2 and job.training()["unit_id"].value_counts().max() == 3


@pytest.mark.parametrize(("name", "accumulate"), [("attention", 1), ("max", 2)])
def test_cut_and_resumed_it_ends_with_the_same_weights(name, accumulate, monkeypatch, tmp_path):
    job = job_of(name)
    uncut = read_tensors(job.folder / PRETRAINED)
    monkeypatch.setenv("MODELS", str(tmp_path / "models"))
    run = replace(job.run, accumulate=accumulate)
    job = replace(job, run=run)
    if accumulate > 1:
        pretrain.pretrain(job)
        uncut = read_tensors(job.folder / PRETRAINED)
        (job.folder / PRETRAINED).unlink()
    take_step = loop.take_step

    def cut(running, batch):
        take_step(running, batch)
        Stop.requested = running.step == 4

    monkeypatch.setattr(loop, "take_step", cut)
    with pytest.raises(TimeLimitReached):
        pretrain.pretrain(job)
    Stop.requested = False
    monkeypatch.setattr(loop, "take_step", take_step)
    pretrain.pretrain(job)
    again = read_tensors(job.folder / PRETRAINED)
    assert all((again[key] == value).all() for key, value in uncut.items())


def test_the_page_says_what_the_networks_saw():
    call(report, "chexpert")
    page = (submissions_folder("chexpert") / "report.html").read_text()
    assert "all images of a unit at once, by attention over their features" in page
    assert "first one alone here" in page


def test_a_package_scores_studies_that_do_not_lie_together(monkeypatch, house):
    """The organiser's list in another order, each study's views apart, in chunks of two images."""
    monkeypatch.setattr(stream, "IMAGES_OF_FIRST_CHUNK", 2)
    monkeypatch.setattr(stream, "IMAGES_A_CHUNK", 2)
    competition = load_competition("chexpert")
    for run in competition.runs:
        job = Job(competition, run, 0)
        test = job.test()
        rows = units_together(test.sort_values("image_id", key=lambda ids: ids.str[-5:]))
        path = job.folder / FINETUNED
        entry = {"member": run.name, "fold": 0, "sha256": file_hash(path)}
        scorer = load_scorer(path, entry)
        scores = Progress()
        images = raw_images([scorer], house / "data/chexpert/raw", rows["file"])
        units = rows["unit_id"].tolist()
        stream.stream([scorer], images, lambda: float("inf"), scores, units=units)
        found = scores.tables[run.name, 0].set_index(rows["image_id"].to_numpy())
        home = read_csv(job.folder / PREDICTIONS).set_index("image_id").loc[rows["image_id"]]
        np.testing.assert_allclose(found, home[list(job.labels)], atol=2e-3)


def test_images_that_are_units_by_themselves_have_no_bags(monkeypatch):
    run = replace(melanoma.runs[0], bag="max", named="bag")
    monkeypatch.setattr(melanoma, "runs", (run,))
    with pytest.raises(UserError, match=r"run bag has bag='max', which needs Task\(unit='study'\)"):
        load_competition("melanoma")
