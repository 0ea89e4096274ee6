"""# Predict without the internet

Attached: the competition, and a dataset with the trained networks and the code that trained them.

1. Find the mounts, whatever Kaggle calls them today. 2. Write a submission that scores 0.5, so that
there is one whatever happens next. 3. Predict in a process of its own, in order of value, within
the time there is; every improvement replaces the file. 4. Check the file once more.
"""

# %%
import csv
import importlib.util
import json
import math
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from importlib.metadata import version
from pathlib import Path

# %% settings
SLUG = "competition"  # the competition's name on Kaggle
PACKAGE = "competition"  # the package's name, in its package.json
HOURS = 8.5  # time for everything; sessions end after 9 to 12 hours

# %%
STARTED = time.monotonic()
ROOT = Path(os.environ.get("KAGGLE_ROOT", "/kaggle"))
INPUT = ROOT / "input"
WORKING = ROOT / "working"
TEMP = Path(tempfile.mkdtemp())  # not WORKING, which is the notebook's output and holds 20 GB
SAMPLE = "sample_submission.csv"
PROGRAM = "pipeline.deploy.away.kaggle"
MANY = 2000  # as many files in a folder are images; mounts lie beside fewer
RERUN = bool(os.environ.get("KAGGLE_IS_COMPETITION_RERUN"))  # the hidden test set is swapped in
print(f"Python {sys.version.split()[0]}, hidden test set: {RERUN}")


def folders(top, depth):
    """A folder and those below it, breadth first, so that a mount is found before the images in it
    are listed."""
    level = [top]
    for _ in range(depth + 1):
        yield from level
        below = []
        for folder in level:
            below += [entry for entry in listed(folder) if entry.is_dir()]
        level = below


def listed(folder):
    """What is in a folder, in order; nothing where there are as many files as only images are."""
    # Stops at MANY: a folder of 400,000 images is not listed to its end.
    with os.scandir(folder) as entries:
        names = [entry.name for entry, _ in zip(entries, range(MANY))]
    return [folder / name for name in sorted(names)] if len(names) < MANY else []


def first_folder(is_wanted, tried=()):
    """The first folder under the inputs that is wanted: those tried first, then all to a depth of
    five."""
    for folder in [*(INPUT / one for one in tried), *folders(INPUT, 5)]:
        if folder.is_dir() and is_wanted(folder):
            return folder
    cure = "attach the competition and the dataset"
    raise SystemExit(f"{INPUT}: nothing in it is what was looked for; {cure}")


def is_package(folder):
    """Is this the dataset with the networks and the code?"""
    contents = folder / "package.json"
    return contents.is_file() and json.loads(contents.read_text()).get("competition") == PACKAGE


def is_competition(folder):
    """Are these the competition's files?"""
    return (folder / SAMPLE).is_file() and not (folder / "package.json").exists()


# Kaggle has moved its mounts before, so what is in a folder counts, not what it is called. A
# package is not taken for the competition, though it may carry a sample.
folder = first_folder(is_package)
package = json.loads((folder / "package.json").read_text())
raw = first_folder(is_competition, (f"competitions/{SLUG}", SLUG))
print(f"package {folder}\nraw     {raw}")

# %%
# The organiser's sample, as it is mounted now: in the rerun its ids are the hidden ones.
submission = WORKING / package["file"]
WORKING.mkdir(parents=True, exist_ok=True)
with (raw / SAMPLE).open(encoding="utf-8-sig", newline="") as file:
    sample = list(csv.reader(file))
header = sample[0]
id_column = header.index(package["id_column"])
ids = [row[id_column] for row in sample[1:] if row]


def write_fallback():
    """Every id with the share of positives in training."""
    # A constant column has an AUC of 0.5: little, but without a file there is no score at all.
    prior = {package["columns"][label]: share for label, share in package["prior"].items()}
    temporary = submission.with_name(".fallback.csv")
    with temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, header, restval=0.5, lineterminator="\n")
        writer.writeheader()
        writer.writerows({**prior, package["id_column"]: one} for one in ids)
    temporary.replace(submission)


write_fallback()
print(f"{submission}: {len(ids)} rows, prior only")


# %%
def code_folder():
    """The folder to import the code from: unpacked by Kaggle, or unpacked here."""
    program = PROGRAM.replace(".", "/") + ".py"
    for candidate in folders(folder, 3):
        if (candidate / program).is_file():
            return candidate
    with zipfile.ZipFile(folder / "code.zip") as archive:
        archive.extractall(TEMP / "code")
    return TEMP / "code"


def install(missing):
    """Put the packages that this machine lacks into a folder of their own, from the wheels in the
    package."""
    if missing:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]
        where = ["--find-links", str(folder), "--target", str(TEMP / "site")]
        done = subprocess.run([*pip, *where, *missing], check=False)
        print(f"pip install {' '.join(missing)}: status {done.returncode}")
    return TEMP / "site"


def version_parts(text):
    """The parts of a version: 1.0.31 -> [1, 0, 31]."""
    return [int(part) for part in re.findall(r"\d+", text)]


def lacks(module, wanted):
    """Is a package not there, or older than wanted ("timm>=1.0.31")?"""
    name, _, oldest = wanted.partition(">=")
    if importlib.util.find_spec(module) is None:
        return True
    return version_parts(version(name)) < version_parts(oldest)


site = install([wanted for module, wanted in package["wheels"].items() if lacks(module, wanted)])

# A process of its own: if it crashes or runs out of memory, this notebook goes on, and the file
# that was last written stands. No look at the hub, which would wait for a network that is not
# there.
left = HOURS * 3600 - (time.monotonic() - STARTED)
environment = {
    **os.environ,
    "PYTHONPATH": f"{code_folder()}{os.pathsep}{site}",
    "PYTHONUNBUFFERED": "1",
    "TIME_LIMIT": f"{left:.0f}s",
    "HF_HUB_OFFLINE": "1",
}
process = subprocess.Popen(
    [sys.executable, "-m", PROGRAM, str(folder), str(raw), str(submission)],
    cwd=TEMP,
    env=environment,
    text=True,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
)

# The program ends by itself before the time is up; the watchdog is for one that hangs.
watchdog = threading.Timer(left, process.kill)
watchdog.start()
for line in process.stdout:
    print(line, end="")
print(f"ended with status {process.wait()}")
watchdog.cancel()


# %%
def is_sound():
    """Does the submission have the sample's ids in order and a finite number in each other
    field?"""
    # With the standard library alone: what broke the program may be a package.
    try:
        with submission.open(encoding="utf-8", newline="") as file:
            rows = list(csv.reader(file))
    except (OSError, UnicodeDecodeError, csv.Error):
        return False
    if rows[:1] != [header] or any(len(row) != len(header) for row in rows):
        return False
    if [row[id_column] for row in rows[1:]] != ids:
        return False
    scores = (row[:id_column] + row[id_column + 1 :] for row in rows[1:])
    return all(is_finite(value) for row in scores for value in row)


def is_finite(text):
    """Is a field a finite number?"""
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


if not is_sound():
    write_fallback()
    print("the submission was not sound; it is the prior alone again")
print(f"{submission}: {len(ids)} rows after {time.monotonic() - STARTED:.0f} s")
