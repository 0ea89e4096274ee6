"""Where the numbers are from: every prediction file that was averaged is named, that of the network
of all rows too."""

from dataclasses import replace
from types import SimpleNamespace

import pandas as pd
import pytest

from pipeline.core.artifacts.files import write_sealed
from pipeline.core.artifacts.paths import data_folder, fold_folder
from pipeline.core.artifacts.tables import write_csv
from pipeline.core.config.run import ALL
from pipeline.core.report.origins.sources import prediction_rows
from tests.cases.ensembles import NAME, competition


@pytest.mark.parametrize(
    ("whole", "folder", "commits"),
    [("", "fold*", "aaaa, bbbb"), ("recipe", "{fold*,all}", "aaaa, bbbb, cccc")],
)
def test_the_network_of_all_rows_is_among_them(tmp_path, monkeypatch, whole, folder, commits):
    for root in ("DATA", "MODELS"):
        monkeypatch.setenv(root, str(tmp_path / root.lower()))
    made = competition()
    made = replace(made, runs=(replace(made.runs[0], whole=whole), made.runs[1]))
    write_csv(
        data_folder(NAME) / "folds.csv", pd.DataFrame({"patient_id": ["a", "b"], "fold": [0, 1]})
    )
    for fold, commit in ((0, "bbbb"), (1, "aaaa"), (ALL, "cccc")):
        path = fold_folder(NAME, "one", fold) / "predictions.json"
        path.parent.mkdir(parents=True)
        write_sealed(path, {"commit": commit, "hashes": {}, "versions": {}})
    evidence = SimpleNamespace(
        name=NAME,
        competition=made,
        rows=SimpleNamespace(folds=(0, 1)),
        facts={"predictions": {"one": "1234"}, "runs": ["one"]},
    )
    ((file, _, _, found),) = prediction_rows(evidence)
    assert f"/one/{folder}/predictions.csv" in file and found == commits
