"""Files: written whole or not at all, with the user's mode; JSON tells of any changed byte."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.artifacts import files
from pipeline.core.artifacts.files import (
    atomic,
    file_hash,
    read_json,
    read_text,
    write_sealed,
    write_text,
)
from pipeline.core.runtime.errors import UserError

FACTS = {"members": ["a", "b"], "share": 0.5, "runs": {"a": 1}, "note": "ü", "none": float("nan")}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("umask, mode", [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_the_mode_is_the_users(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        write_text(tmp_path / "a.txt", "x")
        with atomic(tmp_path / "b.txt") as temporary:
            # As safetensors does: a private file of its own, renamed over the temporary one.
            own = temporary.with_name("own")
            own.write_text("x")
            own.chmod(0o600)
            own.replace(temporary)
    finally:
        os.umask(before)
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in ("a.txt", "b.txt")] == [mode] * 2


def test_what_fails_leaves_the_file_as_it_was(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "before")
    with pytest.raises(RuntimeError), atomic(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "before" and names(tmp_path) == ["a.txt"]


def test_an_error_of_the_disk_names_the_file(tmp_path):
    path = tmp_path / "a.txt"
    with pytest.raises(OSError) as caught, atomic(path):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.filename == str(path) and caught.value.errno == errno.ENOSPC


@pytest.mark.parametrize("last", ["t.write_text('half')", "t.unlink()"])
def test_what_a_killed_writer_left_goes_and_what_a_living_one_writes_stays(tmp_path, last):
    # Killed in the middle of the file, and between its renaming and the end.
    path = tmp_path / "a.txt"
    program = (
        "import os\nfrom pathlib import Path\nfrom pipeline.core.artifacts.files import atomic\n"
        f"with atomic(Path({str(path)!r})) as t: {last}; os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", program], check=False)
    assert len(names(tmp_path)) == 1 and not path.exists()
    with atomic(path) as first:
        first.write_text("first")
        assert len(names(tmp_path)) == 1
        write_text(path, "second")
        assert first.read_text() == "first"
    assert path.read_text() == "first" and names(tmp_path) == ["a.txt"]


def test_a_folder_taken_away_before_it_is_locked_is_made_again(tmp_path, monkeypatch):
    made = files.tempfile.mkdtemp
    calls = []

    def taken_away(**options):
        folder = made(**options)
        calls.append(folder)
        if len(calls) == 1:
            Path(folder).rmdir()
        return folder

    monkeypatch.setattr(files.tempfile, "mkdtemp", taken_away)
    write_text(tmp_path / "a[1].txt", "x")
    assert len(calls) == 2 and names(tmp_path) == ["a[1].txt"]


@pytest.mark.parametrize(
    "text", [b"", b"{", b"{}", b"[]", b"null", b"3", b"\xff\xfe{", b"[" * 100_000, b'{"a": 1}']
)
def test_json_that_nobody_wrote_is_one_line(tmp_path, text):
    path = tmp_path / "a.json"
    path.write_bytes(text)
    with pytest.raises(UserError, match=r"a\.json: .*; delete it and make it again$"):
        read_json(path, needed=("members",))


def test_a_key_that_is_there_twice_is_told(tmp_path):
    path = tmp_path / "a.json"
    write_sealed(path, FACTS)
    text = path.read_text()
    path.write_text(text.replace('"share": 0.5,', '"share": 0.5, "share": 0.5,'))
    with pytest.raises(UserError, match="the key 'share' is there twice"):
        read_json(path)


def test_json_is_read_as_it_was_written(tmp_path):
    write_sealed(tmp_path / "a.json", {key: FACTS[key] for key in FACTS if key != "none"})
    assert read_json(tmp_path / "a.json") == {key: FACTS[key] for key in FACTS if key != "none"}


def test_letters_that_the_language_lacks_are_written(tmp_path):
    # As os.fsdecode gives them under LANG=C: of "größe" in UTF-8, and of a byte that is not.
    path = "gr\udcc3\udcb6\udcc3\udc9fe \udce4"
    write_text(tmp_path / "a.txt", path)
    assert read_text(tmp_path / "a.txt") == "größe \ufffd"
    write_sealed(tmp_path / "a.json", {"path": path, "folds": (0, 1)})
    assert read_json(tmp_path / "a.json") == {"path": "größe \ufffd", "folds": [0, 1]}


@settings(deadline=None)
@given(place=st.floats(0, 1), byte=st.integers(0, 255), cut=st.booleans())
def test_no_changed_byte_is_read_without_a_word(tmp_path_factory, place, byte, cut):
    path = tmp_path_factory.mktemp("json") / "a.json"
    write_sealed(path, FACTS)
    data = bytearray(path.read_bytes())
    at = min(int(place * len(data)), len(data) - 1)
    if cut:
        del data[at:]
    else:
        data[at] = byte
    path.write_bytes(data)
    try:
        found = read_json(path, needed=("members",))
    except UserError:
        return
    # White space, or the name of the checksum itself.
    assert json.dumps({key: found.get(key) for key in FACTS}) == json.dumps(FACTS)


@pytest.mark.parametrize("read", [read_json, read_text, file_hash])
def test_a_pipe_is_refused_and_not_waited_for(tmp_path, read):
    os.mkfifo(tmp_path / "a.json")
    with pytest.raises(UserError, match="is a pipe, a socket or a device, not a file"):
        read(tmp_path / "a.json")
