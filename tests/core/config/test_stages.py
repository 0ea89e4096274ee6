"""The names of scores.csv's stages: quoted right by every competition file."""

import pytest

from pipeline.core.config.competition import check_competition, competition_names, load_competition
from pipeline.core.runtime.errors import UserError


@pytest.mark.parametrize("name", competition_names())
def test_published_numbers_name_stages_that_scores_csv_has(name):
    check_competition(load_competition(name))


def test_a_mistyped_stage_is_named(monkeypatch):
    competition = load_competition("melanoma")
    monkeypatch.setattr(competition.module, "published", (("AUCM", 0.9, "one network"),))
    with pytest.raises(UserError, match="published names the stage 'AUCM'; there are CE, AUC-M"):
        check_competition(competition)
