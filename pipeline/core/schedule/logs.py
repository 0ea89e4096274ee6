"""What a step's log ends with: the reason, where it failed."""

from pathlib import Path

TAIL = 8192  # bytes of a log's end that are looked at


def last_line(log: Path) -> str:
    """The last line that is the stage's own: "" where it has none. Of progress bars, which write
    over themselves, the last state."""
    if not log.is_file():
        return ""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - TAIL))
        text = file.read().decode("utf-8", "replace")
    # What Slurm and torchrun add when they end a process tells nothing of the reason.
    lines = [line.split("\r")[-1].strip() for line in text.splitlines()]
    own = [line for line in lines if line and not line.startswith(("slurmstepd", "srun:"))]
    return own[-1] if own else ""
