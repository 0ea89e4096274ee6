"""Install what requirements.txt lists and this environment lacks; what is there stays as it is.

    python -m pipeline.core.runtime.install requirements.txt

On Kaggle or in conda torch is there already, built for that machine: it must not be replaced by
another. Packages that are there are handed to pip as constraints, so that none is upgraded on
behalf of another. Needs Python alone.
"""

import re
import subprocess
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

OLDEST = {"torch": (2, 6), "timm": (1, 0), "pandas": (2, 2)}  # what the code is known to run on
SAME = {
    "opencv-python-headless": (
        "opencv-python",
        "opencv-contrib-python",
        "opencv-contrib-python-headless",
    )
}


def requirements(text: str) -> dict[str, str]:
    """name -> the line that pins it, comments left out."""
    lines = [line.split("#")[0].strip() for line in text.splitlines()]
    return {re.split(r"[=<>!~\[; ]", line)[0]: line for line in lines if line}


def installed(name: str) -> str | None:
    """ "name==version" of what is there under that name, or under another build's name; None when
    it is not there."""
    for candidate in (name, *SAME.get(name, ())):
        try:
            return f"{candidate}=={version(candidate)}"
        except PackageNotFoundError:
            continue
    return None


def too_old(pinned: str) -> bool:
    """True for a version older than the code runs on."""
    name, number = pinned.split("==")
    return tuple(map(int, re.findall(r"\d+", number)[:2])) < OLDEST.get(name, (0,))


def main() -> None:
    wanted = requirements(Path(sys.argv[1]).read_text())
    there = {name: found for name in wanted if (found := installed(name))}
    for found in there.values():
        if too_old(found):
            sys.exit(
                f"error: {found} is older than this code runs on; upgrade it, then run this again"
            )
    missing = [line for name, line in wanted.items() if name not in there]
    if there:
        print("already here, left as they are:", ", ".join(there.values()))
    if missing:
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as constraints:
            constraints.write("\n".join(there.values()))
            constraints.flush()
            pip = [
                sys.executable,
                "-m",
                "pip",
                "install",
                "--disable-pip-version-check",
                "-q",
                "-c",
                constraints.name,
            ]
            sys.exit(subprocess.run([*pip, *missing]).returncode)


if __name__ == "__main__":
    main()
