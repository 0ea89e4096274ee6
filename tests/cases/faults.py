"""A finished competition to do harm to, the harms, and the table of what was tried."""

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

from pipeline.core.artifacts.provenance import data_digest
from tests.cases.forked import run_forked

RUN = "melanoma/b3_256"
FOLD = f"{RUN}/fold0"
# A stage, its arguments, and the files that it makes (patterns below the home).
PREPARED = ("data/melanoma/images.csv", "data/melanoma/prepare*", "data/melanoma/images")
AVERAGE = ("ensemble.*", "scores.csv", "quantiles.json")
STAGES = {
    "prepare": ((RUN,), PREPARED),
    "folds": (("melanoma", "--folds", "2"), ("data/melanoma/folds*",)),
    "pretrain": ((FOLD,), (f"models/{FOLD}/pretrained*",)),
    "finetune": ((FOLD,), (f"models/{FOLD}/finetuned*",)),
    "metadata": (("melanoma/metadata/fold0",), ("models/melanoma/metadata/fold0/*",)),
    "predict": ((FOLD,), (f"models/{FOLD}/predictions*",)),
    "ensemble": ((RUN,), tuple(f"models/melanoma/{name}" for name in AVERAGE)),
    "submit": (("melanoma",), ("submissions/melanoma/submission.*",)),
    "report": (("melanoma",), ("submissions/melanoma/report.*",)),
}
# What a broken program or an editor may leave in a file.
TEXTS = (b"", b"{", b"{}", b"[]", b"null", b"\xff\xfe", b"a,b\n")


def finish(home: Path) -> None:
    """Take a small synthetic download through every stage."""
    demo = ("--images", "100", "--side", "40", "--competition", "melanoma")
    assert run_forked(home, "demo.__main__", *demo).status == 0
    for stage, (arguments, _) in STAGES.items():
        # All folds, not the one that faults are done to.
        whole = [text.replace("/fold0", "") for text in arguments]
        done = run_forked(home, stage, *whole, limit=1800.0)
        assert done.status == 0, f"{stage}: {done.printed}"


def copied(house: Path, home: Path) -> Path:
    """A copy of a finished house that may be spoilt."""
    shutil.copytree(house, home, symlinks=True)
    # The page names its files: in the copy, those of the copy.
    page = home / "submissions/melanoma/report.html"
    page.write_bytes(page.read_bytes().replace(str(house).encode(), str(home).encode()))
    return home


def files_of(home: Path, patterns: tuple[str, ...]) -> Iterator[Path]:
    """The files that the patterns mean, folders with all that is in them."""
    for pattern in patterns:
        for path in sorted(home.glob(pattern)):
            if path.is_dir():
                yield from (inner for inner in sorted(path.rglob("*")) if inner.is_file())
            else:
                yield path


def contents(home: Path, patterns: tuple[str, ...]) -> dict[str, bytes]:
    """The bytes of those files, by their path below the home."""
    return {str(path.relative_to(home)): path.read_bytes() for path in files_of(home, patterns)}


def results(home: Path, patterns: tuple[str, ...]) -> dict[str, bytes | str]:
    """What is compared of those files: their bytes; of weights, whose header says when they were
    made, the digest of their tensors; of a report, its text without the paths of this home. Not
    compared: what is recorded beside a report, and journals, which are in the order in which
    workers ended."""
    found: dict[str, bytes | str] = {}
    for name, data in contents(home, patterns).items():
        if name.endswith(".safetensors"):
            found[name] = data_digest(home / name)
        elif name.endswith(".html"):
            found[name] = data.replace(str(home).encode(), b"")
        elif not name.endswith((".jsonl", ".jsonl.part", "report.json")):
            found[name] = data
    return found


def remove(home: Path, patterns: tuple[str, ...]) -> None:
    """Remove those files."""
    for path in list(files_of(home, patterns)):
        path.unlink()


def restore(home: Path, before: dict[str, bytes]) -> None:
    """Write the files back that differ from what they were."""
    for name, data in before.items():
        path = home / name
        if not path.is_file() or path.is_symlink() or path.read_bytes() != data:
            if path.is_dir():
                shutil.rmtree(path)
            path.unlink(missing_ok=True)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)


def leftovers(home: Path, marks: tuple[str, ...] = (".tmp", ".claim", ".part")) -> list[str]:
    """Temporary files, claims and unfinished journals that a stage left behind."""
    found = []
    for path in home.rglob("*"):
        if any(mark in path.name for mark in marks) and "raw" not in path.parts:
            found.append(str(path.relative_to(home)))
    return found


def harmed(data: bytes, others: bytes, chance: random.Random) -> tuple[str, bytes]:
    """(what was done, the bytes after it): a flipped bit, a replaced byte, a cut, and so on.

    others: the file of another fold, or of another artifact.
    """
    kind = chance.choice(
        ("flip", "flip", "flip", "replace", "replace", "cut", "swap", "text", "zeros", "repeat")
    )
    # Headers and heads decide the most: half of the harm is done to the first bytes.
    reach = len(data) if chance.random() < 0.5 else min(len(data), 12_000)
    place = chance.randrange(max(reach, 1))
    changed = bytearray(data)
    if kind == "flip" and data:
        changed[place] ^= 1 << chance.randrange(8)
    elif kind == "replace" and data:
        changed[place] = chance.randrange(256)
    elif kind == "cut":
        del changed[place:]
    elif kind == "swap":
        changed = bytearray(others)
    elif kind == "text":
        changed = bytearray(chance.choice(TEXTS))
    elif kind == "zeros":
        changed[place : place + 64] = bytes(min(64, len(data) - place))
    elif kind == "repeat":
        changed[place:place] = data[place : place + 40]
    return f"{kind} at byte {place} of {len(data)}", bytes(changed)


class Tally:
    """Counts of what was tried and what ended wrong, one line a kind of fault."""

    def __init__(self) -> None:
        self.tried: dict[str, int] = {}
        self.wrong: dict[str, list[str]] = {}

    def note(self, kind: str, case: str, fault: str) -> None:
        """One case of a kind; fault: what is wrong with how it ended, "" where nothing is."""
        self.tried[kind] = self.tried.get(kind, 0) + 1
        self.wrong.setdefault(kind, [])
        if fault:
            self.wrong[kind].append(f"{case}: {fault}")

    def require_none_wrong(self, kind: str) -> None:
        """Fail with the first cases that ended wrong."""
        wrong = self.wrong.get(kind, [])
        shown = "\n".join(wrong[:20])
        assert not wrong, f"{len(wrong)} of {self.tried[kind]} ended wrong:\n{shown}"

    def table(self) -> str:
        """The counts as Markdown."""
        lines = ["| fault | tried | wrong |", "|---|---|---|"]
        for kind, tried in self.tried.items():
            lines.append(f"| {kind} | {tried:,} | {len(self.wrong[kind]):,} |")
        wrong = sum(map(len, self.wrong.values()))
        lines.append(f"| all | {sum(self.tried.values()):,} | {wrong:,} |")
        return "\n".join(lines)


TALLY = Tally()
