"""A finished competition to do harm to, the harms, and the table of what was tried."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pipeline.core.artifacts.files import file_hash, read_json, write_sealed
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
    sidecar = page.with_suffix(".json")
    write_sealed(sidecar, read_json(sidecar) | {"digest": file_hash(page)})
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
    made, the digest of their tensors; of a report, its text without the paths of this home and the
    minute in which it was made. Not compared: what is recorded beside a report, and journals, which
    are in the order in which workers ended."""
    found: dict[str, bytes | str] = {}
    for name, data in contents(home, patterns).items():
        if name.endswith(".safetensors"):
            found[name] = data_digest(home / name)
        elif name.endswith(".html"):
            # The page names the digest of the average's facts, of which white space is a part.
            facts = home / "models/melanoma/ensemble.json"
            digest = file_hash(facts)[:12] if facts.is_file() else ""
            text = data.replace(str(home).encode(), b"").replace(digest.encode(), b"")
            found[name] = re.sub(rb"(?<=page )[-0-9]+ [0-9:]+(?= UTC)", b"", text)
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


KINDS = ("flip", "replace", "cut", "swap", "text", "zeros", "repeat")
PLACES = 1 << 30
HEAD = 12_000  # bytes at the beginning, where headers are


class Harm(NamedTuple):
    """A change of a file's bytes.

    kind   one of KINDS
    place  where in the file, or in its first HEAD bytes, from 0 to PLACES - 1
    head   which of the two
    byte   which bit is flipped, what a byte is replaced by, which text the file becomes
    """

    kind: str
    place: int
    head: bool
    byte: int

    def done_to(self, data: bytes, others: bytes) -> tuple[str, bytes]:
        """(what was done, the bytes after it). others: the file of another fold, or of another
        artifact."""
        reach = min(len(data), HEAD) if self.head else len(data)
        at = self.place * reach // PLACES
        changed = bytearray(data)
        match self.kind:
            case "flip" if data:
                changed[at] ^= 1 << self.byte % 8
            case "replace" if data:
                changed[at] = self.byte
            case "cut":
                del changed[at:]
            case "swap":
                changed = bytearray(others)
            case "text":
                changed = bytearray(TEXTS[self.byte % len(TEXTS)])
            case "zeros":
                changed[at : at + 64] = bytes(min(64, len(data) - at))
            case "repeat":
                changed[at:at] = data[at : at + 40]
        return f"{self.kind} at byte {at} of {len(data)}", bytes(changed)


class Tally:
    """Counts of what was tried and what ended wrong, one line a kind of fault."""

    def __init__(self) -> None:
        self.tried: dict[str, int] = {}
        self.wrong: dict[str, int] = {}
        self.new: list[str] = []

    def note(self, kind: str, case: str, fault: str) -> None:
        """One case of a kind; fault: what is wrong with how it ended, "" where nothing is."""
        self.tried[kind] = self.tried.get(kind, 0) + 1
        self.wrong[kind] = self.wrong.get(kind, 0) + bool(fault)
        if fault:
            self.new.append(f"{case}: {fault}")

    def require_none_wrong(self) -> None:
        """Fail with the first cases that ended wrong since this was last asked."""
        wrong, self.new = self.new, []
        shown = "\n".join(wrong[:20])
        assert not wrong, f"{len(wrong)} ended wrong:\n{shown}"

    def table(self) -> str:
        """The counts as Markdown."""
        lines = ["| fault | tried | wrong |", "|---|---|---|"]
        for kind, tried in self.tried.items():
            lines.append(f"| {kind} | {tried:,} | {self.wrong[kind]:,} |")
        wrong = sum(self.wrong.values())
        lines.append(f"| all | {sum(self.tried.values()):,} | {wrong:,} |")
        return "\n".join(lines)


TALLY = Tally()
