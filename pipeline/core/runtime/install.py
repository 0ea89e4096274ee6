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

# The oldest versions that the code is known to run on.
OLDEST = {"torch": (2, 6), "timm": (1, 0), "pandas": (2, 2)}
# Other builds of a package that serve as well; two builds of cv2 must not be installed together.
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
    """What is installed under that name, or another build's, as "name==version"; None when it is
    not there."""
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
    # What is here, and what is missing.
    present: list[str] = []
    missing: list[str] = []
    for name, line in requirements(Path(sys.argv[1]).read_text()).items():
        pinned = installed(name)
        if pinned is None:
            missing.append(line)
        else:
            present.append(pinned)
    for pinned in present:
        if too_old(pinned):
            sys.exit(
                f"error: {pinned} is older than this code runs on; upgrade it, then run this again"
            )
    if present:
        print("already here, left as they are:", ", ".join(present))
    if not missing:
        return

    # pip, with what is here as constraints.
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as constraints:
        constraints.write("\n".join(present))
        constraints.flush()
        pip = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "-q"]
        done = subprocess.run([*pip, "-c", constraints.name, *missing])
        sys.exit(done.returncode)


if __name__ == "__main__":
    main()
