"""Each artifact is made once, however many processes try; a dead one's work is taken over."""

import errno
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.core.runs import launch
from pipeline.core.runtime import claims
from pipeline.core.runtime.errors import TimeLimitReached, UserError

WORKER = """
import sys, time
from pathlib import Path
from pipeline.core.runtime.claims import unfinished
folder, name = Path(sys.argv[1]), sys.argv[2]
for path in unfinished([folder / f"{number}.done" for number in range(12)]):
    with (folder / "made.txt").open("a") as file:
        file.write(f"{path.name} {name}\\n")
    time.sleep(0.05)
    path.write_text(name)
"""


def test_two_launchers_make_each_artifact_once(tmp_path):
    started = [
        subprocess.Popen([sys.executable, "-c", WORKER, str(tmp_path), name]) for name in "ab"
    ]
    assert [process.wait(timeout=60) for process in started] == [0, 0]
    made = [line.split() for line in (tmp_path / "made.txt").read_text().splitlines()]
    assert sorted(name for name, _ in made) == sorted(f"{number}.done" for number in range(12))
    assert not list(tmp_path.glob(".*.claim*"))


def test_the_claim_of_a_killed_process_is_taken_over(tmp_path):
    artifact = tmp_path / "x.done"
    hold = (
        "import sys, time; from pathlib import Path; from pipeline.core.runtime.claims import "
        "unfinished\n"
        "for path in unfinished([Path(sys.argv[1])]): print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", hold, str(artifact)], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout.readline().strip() == "held"
    assert not claims.acquire(artifact, claims.Watch())
    holder.kill()
    holder.wait()
    began = time.monotonic()
    for path in claims.unfinished([artifact]):
        path.write_text("made by the next")
    assert artifact.read_text() == "made by the next" and time.monotonic() - began < 20


def test_a_claim_from_another_machine_goes_stale_by_the_watchers_clock(tmp_path, monkeypatch):
    artifact = tmp_path / "x.done"
    path = claims.claim_path(artifact)
    path.write_text(json.dumps({"machine": "elsewhere", "pid": 1, "started": "1"}))
    monkeypatch.setattr(claims, "STALE", 0.3)
    watch = claims.Watch()
    assert not claims.acquire(artifact, watch)
    time.sleep(0.2)
    path.touch()  # a heartbeat
    assert not claims.acquire(artifact, watch)
    time.sleep(0.2)
    assert not claims.acquire(artifact, watch)
    assert path.exists()
    time.sleep(0.4)
    assert claims.acquire(artifact, watch)


def test_a_disk_that_does_not_answer_for_once_ends_no_heartbeat(tmp_path, monkeypatch):
    path = tmp_path / ".x.claim"
    answers = [OSError(errno.EIO, "Input/output error"), OSError(errno.ESTALE, "Stale file handle")]
    utime = os.utime

    def asked(path):
        if answers:
            raise answers.pop()
        utime(path)

    monkeypatch.setattr(claims, "BEAT", 0.01)
    monkeypatch.setattr(os, "utime", asked)
    end = time.monotonic() + 10
    with claims.claimed(tmp_path / "x", claims.Watch()) as mine:
        assert mine
        utime(path, (0, 0))
        while path.stat().st_mtime == 0:
            assert time.monotonic() < end
            time.sleep(0.01)
    assert not path.exists()


def test_a_claim_that_has_just_gone_is_not_taken_over(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(claims, "try_claim", lambda _: False)
    assert not claims.acquire(tmp_path / "x", claims.Watch())
    assert "taking over" not in capsys.readouterr().out


class Clock:
    """Time that passes when somebody sleeps; `at` is called with the time after each."""

    def __init__(self, at=lambda _: None):
        self.now = 0.0
        self.at = at

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds
        self.at(self.now)


def claim_of_another_machine(artifact: Path) -> Path:
    path = claims.claim_path(artifact)
    path.write_text(json.dumps({"machine": "elsewhere", "pid": 1, "started": "1"}))
    return path


@pytest.mark.parametrize("how", ["stop", "time"])
def test_waiting_for_another_launcher_ends_when_asked_to(tmp_path, monkeypatch, how):
    """After 20 s, when it looks every 8 s already: in the same half second."""
    artifact = tmp_path / "x.done"
    claim_of_another_machine(artifact)
    monkeypatch.setattr(launch.Stop, "requested", False)
    clock = Clock()
    if how == "stop":
        clock.at = lambda now: setattr(launch.Stop, "requested", now > 20)
    else:
        monkeypatch.setattr(launch, "time_left", lambda: 20 - clock.now)
    monkeypatch.setattr(claims, "time", clock)
    with pytest.raises(TimeLimitReached, match="between folds"):
        list(launch.shared([artifact]))
    assert 20 < clock.now <= 20.5


def test_a_launcher_leaves_what_others_are_seen_to_make(tmp_path, monkeypatch):
    """The other one touches its claim every 5 s: seen within three looks, at 0.5, 1.5, 3.5, 7.5."""
    artifact = tmp_path / "x.done"
    path = claim_of_another_machine(artifact)
    os.utime(path, (0, 0))
    clock = Clock(lambda now: os.utime(path, (now // 5, now // 5)))
    monkeypatch.setattr(claims, "time", clock)
    with pytest.raises(TimeLimitReached, match=r"x.done: others are making it"):
        list(launch.shared([artifact]))
    assert clock.now == 7.5


def test_a_launcher_waits_until_a_silent_claim_is_stale(tmp_path, monkeypatch):
    """Looks back off to one every 15 s: the first after 150 s is at 150.5."""
    artifact = tmp_path / "x.done"
    claim_of_another_machine(artifact)
    clock = Clock()
    monkeypatch.setattr(claims, "time", clock)
    made = []
    for path in launch.shared([artifact]):
        made.append((path, clock.now))
        path.write_text("")
    pauses = [0.5, 1, 2, 4, 8]
    assert made == [(artifact, sum(pauses) + 15 * 9)]


def test_what_others_finish_meanwhile_is_not_waited_for(tmp_path, monkeypatch):
    artifact = tmp_path / "x.done"
    claim_of_another_machine(artifact)
    clock = Clock(lambda now: artifact.write_text("") if now > 30 else None)
    monkeypatch.setattr(claims, "time", clock)
    assert list(launch.shared([artifact])) == []
    assert clock.now <= 30 + claims.LOOK_LAST + claims.LOOK_FIRST


def test_what_a_network_disk_still_denies_is_not_made_again(tmp_path, monkeypatch):
    """It was finished by another machine; this one is told so late, but it can list the folder."""
    artifact = tmp_path / "x.done"
    artifact.write_text("")
    clock = Clock()
    monkeypatch.setattr(claims, "time", clock)
    exists = Path.exists
    monkeypatch.setattr(Path, "exists", lambda path: exists(path) and clock.now > 60)
    assert list(claims.unfinished([artifact])) == []
    assert 60 < clock.now <= 60 + claims.LOOK_LAST + claims.LOOK_FIRST
    assert list(tmp_path.iterdir()) == [artifact]


def test_what_exists_is_not_made(tmp_path):
    artifact = tmp_path / "x.done"
    artifact.write_text("")
    assert list(claims.unfinished([artifact])) == []


def test_a_claim_is_removed_when_the_work_fails(tmp_path):
    generator = claims.unfinished([tmp_path / "x.done"])
    next(generator)
    assert claims.claim_path(tmp_path / "x.done").exists()
    generator.close()
    assert not list(Path(tmp_path).iterdir())


def test_an_interrupted_artifact_is_gone_on_with_before_another(tmp_path):
    first, second = tmp_path / "fold0.done", tmp_path / "fold1.done"
    gone = {"machine": claims.machine(), "pid": 2**22 + 1, "started": "1"}
    claims.claim_path(first).write_text(json.dumps(gone))
    made = []
    for path in claims.unfinished([first, second]):
        path.write_text("x")
        made.append(path)
    assert made == [first, second]


@pytest.mark.parametrize("text", ["", "{}", "[]", "3", "{", "\x00"])
def test_a_damaged_claim_is_of_nobody_here(tmp_path, text):
    path = tmp_path / ".x.claim"
    path.write_text(text)
    assert not claims.owner_is_gone(path)


def test_a_pipe_for_a_claim_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / ".x.claim")
    assert claims.acquire(tmp_path / "x", claims.Watch())
    assert claims.owner_of(tmp_path / ".x.claim")["pid"] == os.getpid()


def test_a_folder_for_a_claim_is_told(tmp_path):
    (tmp_path / ".x.claim").mkdir()
    with pytest.raises(UserError, match=r"\.x\.claim: is a folder, not a file"):
        claims.acquire(tmp_path / "x", claims.Watch())


def test_a_claim_that_outlived_its_work_goes(tmp_path):
    artifact = tmp_path / "x"
    artifact.write_text("whole")
    gone = {"machine": claims.machine(), "pid": os.getpid(), "started": "another"}
    claims.claim_path(artifact).write_text(json.dumps(gone))
    assert list(claims.unfinished([artifact])) == []
    assert list(tmp_path.iterdir()) == [artifact]
