"""Environment variables: every wrong value is one line that names it; empty ones are not set."""

import pytest

from pipeline.core.runtime import environment
from pipeline.core.runtime.errors import UserError

NAMES = (*environment.ROOTS, *environment.TORCHRUN, "SMOKE", "TIME_LIMIT", "WORKERS")
NAMES += ("CHECKPOINT_SECONDS", "TENSORBOARD", "LOCAL_WORLD_SIZE", "PRETRAINED", "SITE")


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch):
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    "name, value",
    [("WORKERS", value) for value in ("abc", "1.5", "-2", "²", "1" * 12)]
    + [("CHECKPOINT_SECONDS", value) for value in ("abc", "nan", "-5", "inf")]
    + [("TIME_LIMIT", value) for value in ("8.5", "90", "soon", "-1h", "8,5h", "h")]
    + [("SMOKE", value) for value in ("false", "yes", "2")]
    + [("TENSORBOARD", "true"), ("LOCAL_RANK", "0"), ("LOCAL_RANK", "x")]
    + [("LOCAL_WORLD_SIZE", "abc")]
    + [("PRETRAINED", path) for path in ("/nix", "/etc/passwd", "/dev/null", "/nix.safetensors")]
    + [(name, "/etc/passwd") for name in environment.ROOTS],
)
def test_a_value_that_cannot_be_used_is_named(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=name):
        environment.check_variables()


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_variable_is_not_set(monkeypatch, name):
    monkeypatch.setenv(name, "")
    environment.check_variables()
    assert environment.workers() is None and environment.time_limit() is None
    assert environment.checkpoint_seconds() == 600 and not environment.smoke()


def test_values_are_parsed(monkeypatch, tmp_path):
    values = {"WORKERS": "3", "CHECKPOINT_SECONDS": "0", "TIME_LIMIT": "30m", "SMOKE": "1"}
    for name, value in (values | {"DATA": str(tmp_path)}).items():
        monkeypatch.setenv(name, value)
    environment.check_variables()
    assert environment.workers() == 3 and environment.checkpoint_seconds() == 0
    assert environment.time_limit() == 1800 and environment.smoke()
    assert environment.folder("DATA") == tmp_path and environment.folder("MODELS") is None


@pytest.mark.parametrize("path", ["/nix", "/etc", "/dev/zero"])
def test_a_site_file_that_is_none_is_named_where_it_is_read(monkeypatch, path):
    monkeypatch.setenv("SITE", path)
    environment.check_variables()
    with pytest.raises(UserError, match=f"^SITE={path}: is not a file"):
        environment.site()


def test_torchruns_variables_go_together(monkeypatch):
    for name in environment.TORCHRUN:
        monkeypatch.setenv(name, "1")
    assert environment.local_rank() == 1
    for name in ("RANK", "WORLD_SIZE", "MASTER_PORT"):
        with monkeypatch.context() as changed, pytest.raises(UserError, match=f"^{name}='x'"):
            changed.setenv(name, "x")
            environment.check_variables()
    monkeypatch.delenv("MASTER_PORT")
    with pytest.raises(UserError, match="LOCAL_RANK=1 without MASTER_PORT"):
        environment.local_rank()
