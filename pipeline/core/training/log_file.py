"""`log.jsonl`: a JSON line for each step, window and epoch of a fold's phases.

A run that goes on from a checkpoint first cuts the file to what it was then, so that no line is
missing or repeated.
"""

import json
import os
from pathlib import Path

from pipeline.core.artifacts.files import write_text
from pipeline.core.runtime.device import is_main
from pipeline.core.runtime.errors import UserError


class LogFile:
    """The lines of one phase in a fold's `log.jsonl`; only the main process writes."""

    def __init__(self, path: Path, phase: str) -> None:
        self.path = path
        self.phase = phase

    def whole_lines(self) -> list[str]:
        """The lines as text; one that a crash or a full disk cut is left out."""
        text = self.path.read_text(encoding="utf-8") if self.path.exists() else ""
        return [line for line in text.splitlines(keepends=True) if line.endswith("\n")]

    def drop_phase(self) -> None:
        """Drop the lines of an earlier attempt at this phase that left no checkpoint."""
        if is_main():
            lines = self.whole_lines()
            others = [line for line in lines if json.loads(line)["phase"] != self.phase]
            write_text(self.path, "".join(others))

    def append(self, line: dict) -> None:
        """Add a line; a UserError says what to do where the disk is full."""
        if not is_main():
            return
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"phase": self.phase, **line}) + "\n")
        except OSError as error:
            raise UserError(
                f"{self.path}: could not be written ({error}); make room and run the same "
                "command again, it goes on from the last checkpoint"
            ) from None

    def synced_size(self) -> int:
        """Bytes of the file, all of them on the disk when this returns."""
        # A checkpoint that survives a power cut must not speak of lines that did not.
        with self.path.open("rb") as file:
            os.fsync(file.fileno())
            return file.seek(0, os.SEEK_END)

    def cut(self, size: int) -> None:
        """Cut the file to its size at the checkpoint; a shorter one is told and left as it is."""
        if not is_main():
            return
        # Steps after the checkpoint are taken again, and write their lines again.
        with self.path.open("a+b") as file:
            now = file.seek(0, os.SEEK_END)
            if now < size:
                short = size - now
                print(f"{self.path}: {short} bytes shorter than at the checkpoint, lines are gone")
            # Never longer than it is: that would fill it up with zeros.
            file.truncate(min(now, size))
