"""# Train for as long as a session lasts

Attached: the competition, a dataset with the code, and, from the second session on, this notebook's
own last output.

Prepares the images, makes the folds, and trains; stops in time and leaves its checkpoints as
output, from which the next session continues. When it says that everything is complete, download
the output's `models` folder.
"""

# %%
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

# %% settings
SLUG = "competition"  # the competition's name on Kaggle
PACKAGE = "competition"  # the package's name, in its package.json
HOURS = 8.5  # time for everything; sessions end after 9 to 12 hours
TARGET = "competition/run/fold0"  # what to train

# %%
STARTED = time.monotonic()
ROOT = Path(os.environ.get("KAGGLE_ROOT", "/kaggle"))
INPUT = ROOT / "input"
WORKING = ROOT / "working"
TEMP = Path(tempfile.mkdtemp())  # for what is made anew: WORKING, the output, holds 20 GB
NAME = TARGET.split("/")[0]
STAGES = (
    ("pipeline.prepare", NAME),
    ("pipeline.folds", NAME),
    ("pipeline.pretrain", TARGET),
    ("pipeline.finetune", TARGET),
    ("pipeline.predict", TARGET),
)
MANY = 2000  # as many files in a folder are images; mounts lie beside fewer


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
    with os.scandir(folder) as entries:
        names = [entry.name for entry, _ in zip(entries, range(MANY))]
    return [folder / name for name in sorted(names)] if len(names) < MANY else []


def find_all(is_wanted, tried=()):
    """Every folder under the inputs that is wanted: those tried first, then all to a depth of
    five."""
    mounts = [*(INPUT / one for one in tried), *folders(INPUT, 5)]
    return [folder for folder in mounts if folder.is_dir() and is_wanted(folder)]


def is_package(folder):
    """Is this the dataset with the networks and the code?"""
    contents = folder / "package.json"
    return contents.is_file() and json.loads(contents.read_text()).get("competition") == PACKAGE


def is_competition(folder):
    """Are these the competition's files?"""
    return (folder / "sample_submission.csv").is_file() and not (folder / "package.json").exists()


def is_earlier_output(folder):
    """Are these the weights and checkpoints of an earlier session?"""
    return folder.name == "models" and (folder / NAME).is_dir()


folder = find_all(is_package)[0]
package = json.loads((folder / "package.json").read_text())
raw = find_all(is_competition, (f"competitions/{SLUG}", SLUG))[0]
print(f"package {folder}\nraw     {raw}")

# %%
# Images and tables are made anew each session: they are the same bytes, and weights carry their
# hashes.
data = TEMP / "data"
models = WORKING / "models"
(data / NAME).mkdir(parents=True, exist_ok=True)
(data / NAME / "raw").symlink_to(raw)
for earlier in find_all(is_earlier_output):
    shutil.copytree(earlier, models, dirs_exist_ok=True)
    print(f"continues from {earlier}")

# %%
# Kaggle unpacks the zips of a data set, or does not.
unpacked = [one for one in folders(folder, 3) if (one / "pipeline/finetune.py").is_file()]
code = unpacked[0] if unpacked else TEMP / "code"
if not unpacked:
    with zipfile.ZipFile(folder / "code.zip") as archive:
        archive.extractall(code)

# The packages that this machine lacks, from the wheels in the package, in a folder of their own.
site = TEMP / "site"
wheels = package["wheels"].items()
missing = [wanted for module, wanted in wheels if importlib.util.find_spec(module) is None]
if missing:
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]
    where = ["--find-links", str(folder), "--target", str(site)]
    done = subprocess.run([*pip, *where, *missing], check=False)
    print(f"pip: status {done.returncode}")


def stage(*arguments):
    """Run a stage to its end or to the time limit and return its exit status: 0 done, 75 out of
    time."""
    left = HOURS * 3600 - (time.monotonic() - STARTED)
    environment = {
        **os.environ,
        "PYTHONPATH": f"{code}{os.pathsep}{site}",
        "PYTHONUNBUFFERED": "1",
        "TIME_LIMIT": f"{max(left, 1):.0f}s",
        "DATA": str(data),
        "MODELS": str(models),
    }
    process = subprocess.Popen(
        [sys.executable, "-m", *arguments],
        cwd=TEMP,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    for line in process.stdout:
        print(line, end="")
    return process.wait()


# %%
# Each stage skips what is complete, so that every session runs the same list from the start.
for arguments in STAGES:
    status = stage(*arguments)
    hours = (time.monotonic() - STARTED) / 3600
    print(f"{' '.join(arguments)}: status {status} after {hours:.2f} h")
    if status:
        break
if status == 0:
    print(f"everything is complete in {models}")
elif status == 75:
    print("out of time: attach this output and run again to continue")
else:
    print(f"failed with status {status}")
