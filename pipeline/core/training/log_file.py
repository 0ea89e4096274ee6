"""`log.jsonl`: a JSON line for each step, window and epoch of a fold's phases.

A run that goes on from a checkpoint first cuts the file to what it was then, so that no line is
missing or repeated.
"""

import os
from pathlib import Path

from pipeline.core.artifacts.files import require_plain, write_text
from pipeline.core.artifacts.training_log import log_text, read_log
from pipeline.core.runtime.device import is_main
from pipeline.core.runtime.errors import UserError


class LogFile:
    """The lines of one phase in a fold's `log.jsonl`; only the main process writes."""

    def __init__(self, path: Path, phase: str) -> None:
        require_plain(path)
        self.path = path
        self.phase = phase

    def drop_phase(self) -> None:
        """Drop the lines of an earlier attempt at this phase that left no checkpoint."""
        if is_main():
            others = [line for line in read_log(self.path) if line["phase"] != self.phase]
            write_text(self.path, "".join(map(log_text, others)))

    def append(self, line: dict) -> None:
        """Add a line; a UserError says what to do where the disk is full."""
        if not is_main():
            return
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(log_text({"phase": self.phase, **line}))
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
