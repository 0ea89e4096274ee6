"""The lines of log.jsonl: each a JSON object with its checksum, as training appends them and the
report reads them."""

import json
from pathlib import Path

from pipeline.core.artifacts.files import CHECKSUM, is_intact, require_plain, sealed
from pipeline.core.runtime.errors import UserError


def log_text(line: dict) -> str:
    """A line of log.jsonl, with its checksum."""
    return json.dumps(sealed(line)) + "\n"


def read_log(path: Path, made_by: str = "") -> list[dict]:
    """The lines of a log.jsonl without their checksums; a last one that a crash or a full disk cut
    is left out. UserError for any other line that is not as it was written, and, where `made_by`
    names the command that writes it, for a missing file."""
    require_plain(path)
    if made_by and not path.exists():
        raise UserError(f"{path}: there is no such file; `{made_by}` writes it while it trains")
    text = path.read_bytes().decode("utf-8", "replace") if path.exists() else ""
    lines = []
    for number, part in enumerate(text.split("\n")[:-1], 1):
        try:
            line = json.loads(part)
            if not (isinstance(line, dict) and "phase" in line and is_intact(line)):
                raise ValueError("differs from what was written")
        except (ValueError, RecursionError):
            raise UserError(
                f"{path}: line {number}: {part[:40]!r} is no line of this log (damaged, or changed "
                "by hand); delete that line and run the same command again"
            ) from None
        line.pop(CHECKSUM, None)
        lines.append(line)
    return lines
