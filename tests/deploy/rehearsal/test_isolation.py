"""The fresh environment holds what it is said to hold, reaches nobody, and wheels made here install
there."""

import subprocess
from importlib.metadata import version

import pytest

from pipeline.deploy.rehearsal import isolation
from pipeline.deploy.wheels import repack


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    return isolation.fresh_environment(
        tmp_path_factory.mktemp("env") / "e", ("numpy", "pandas", "pip")
    )


def run(command: list[str], folder) -> subprocess.CompletedProcess:
    return subprocess.run(
        command,
        cwd=folder,
        env=isolation.clean_variables(),
        capture_output=True,
        text=True,
        check=False,
    )


def test_only_the_named_packages_and_what_they_require(python, tmp_path):
    names = ("pandas", "dateutil", "torch", "pipeline")
    code = f"import importlib.util as u; print([n for n in {names} if u.find_spec(n)])"
    assert run([str(python), "-c", code], tmp_path).stdout.strip() == "['pandas', 'dateutil']"


def test_the_network_is_cut(python):
    isolation.check_cut(python)


@pytest.mark.parametrize("permitted", [True, False])
def test_sockets_and_folders_with_and_without_namespaces(tmp_path, monkeypatch, permitted):
    if permitted and not isolation.namespaces():
        pytest.skip("this machine permits no namespaces")
    monkeypatch.setattr(isolation, "namespaces", lambda: permitted)
    python = isolation.fresh_environment(tmp_path / "env", ())
    isolation.check_cut(python)
    source = tmp_path / "source"
    target = tmp_path / "kaggle" / "input"
    source.mkdir()
    target.parent.mkdir()
    (source / "file").write_text("content")
    code = f"print(open('{target}/file').read()); open('{target}/new', 'w')"
    done = run(isolation.cut_off([str(python), "-c", code], [(source, target)]), tmp_path)
    assert done.stdout == "content\n"
    assert ("Read-only" in done.stderr) == permitted


def test_a_missing_requirement_can_be_left_out(tmp_path):
    python = isolation.fresh_environment(
        tmp_path / "env", ("pandas",), without=("python_dateutil",)
    )
    assert run([str(python), "-c", "import dateutil"], tmp_path).returncode == 1


@pytest.mark.parametrize("name", ["safetensors", "iterative-stratification", "tqdm"])
def test_a_wheel_of_what_is_installed_installs_elsewhere(tmp_path, python, name):
    first = repack(name, tmp_path)
    content = first.read_bytes()
    assert repack(name, tmp_path).read_bytes() == content
    site = str(tmp_path / "site")
    pip = [str(python), "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]
    done = run([*pip, "--find-links", str(tmp_path), "--target", site, name], tmp_path)
    assert done.returncode == 0, done.stderr
    code = (
        f"import sys; sys.path.insert(0, {site!r}); "
        f"from importlib.metadata import version; print(version({name!r}))"
    )
    assert run([str(python), "-c", code], tmp_path).stdout.strip() == version(name)


def test_what_is_not_installed_gives_no_wheel(tmp_path):
    assert repack("no-such-distribution", tmp_path) is None
