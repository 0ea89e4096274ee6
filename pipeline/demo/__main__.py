"""Write synthetic raw downloads in the organisers' own layouts, so that every stage can be seen to
work without any data.

    python -m pipeline.demo                                      melanoma and CheXpert, in the
                                                                 demo's size
    python -m pipeline.demo --competition isic2024
    python -m pipeline.demo --competition melanoma --images 100000 --side 64 --seed 3

reads   nothing
writes  $DATA/<competition>/raw    a folder that this program did not write is never touched; one
                                   that exists already is left as it is

The images show what their labels say, not too plainly. What makes real data hard is in them:
several images of a patient that look alike and share labels, metadata with a signal of its own,
missing values, few positives, an image that appears twice under two patients, a truncated file, an
external set without patient ids, uncertain and blank labels, laterals, an unknown sex, a newborn of
age 0. The same arguments give the same files, byte for byte.
"""

import argparse
import json
import shutil
from pathlib import Path

from pipeline.core.artifacts.files import read_json
from pipeline.core.artifacts.paths import SYNTHETIC_MARKER, data_folder
from pipeline.core.runtime.command import run_stage
from pipeline.core.runtime.errors import UserError
from pipeline.demo import chexpert, isic2024, melanoma

WRITERS = {"melanoma": melanoma.write, "chexpert": chexpert.write, "isic2024": isic2024.write}
DEFAULT = ("melanoma", "chexpert")
FEWEST_IMAGES = 50  # at 7 % melanomas they are three or four; a fold without one has no AUC
SMALLEST_SIDE = 32  # pixels


def main(arguments: argparse.Namespace) -> None:
    if arguments.images < FEWEST_IMAGES or arguments.side < SMALLEST_SIDE:
        asked = f"--images {arguments.images} --side {arguments.side}"
        least = f"at least {FEWEST_IMAGES} images of {SMALLEST_SIDE} pixels"
        raise UserError(f"{asked}: {least}")

    # The settings decide every byte, so that equal settings need no second making.
    settings = {"images": arguments.images, "seed": arguments.seed, "side": arguments.side}
    names = [arguments.competition] if arguments.competition else DEFAULT
    for name in names:
        raw = data_folder(name) / "raw"
        if not is_written(raw, settings):
            write(name, raw, settings)
            print(f"{raw}: made with {json.dumps(settings)}")


def is_written(raw: Path, settings: dict) -> bool:
    """True where this very download exists; a UserError where something else does."""
    marker = raw / SYNTHETIC_MARKER
    if marker.exists():
        earlier = read_json(marker)
        if earlier != settings:
            raise UserError(f"{raw}: made with {json.dumps(earlier)}; delete it to make it anew")
        return True

    # Without our marker it may be a real download, or a link to one, even a dangling one.
    if raw.exists() or raw.is_symlink():
        reason = "exists already and was not made by this program"
        raise UserError(f"{raw}: {reason}; point DATA elsewhere")
    return False


def write(name: str, raw: Path, settings: dict) -> None:
    """Write one download beside its place and rename it when it is complete; what a killed run left
    is deleted first."""
    # On the same disk, so that the last step is one rename: a killed run leaves no half download.
    unfinished = raw.with_name(f".{raw.name}.unfinished-demo")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    WRITERS[name](unfinished, **settings)

    # The marker is what puts "synthetic data" on every table and page made from it.
    (unfinished / SYNTHETIC_MARKER).write_text(json.dumps(settings) + "\n")
    unfinished.rename(raw)


def parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument(
        "--competition",
        choices=tuple(WRITERS),
        help="only this one (default: melanoma and chexpert)",
    )
    options.add_argument(
        "--images", type=int, default=640, help="training images of each (default %(default)s)"
    )
    options.add_argument(
        "--side", type=int, default=120, help="short side in pixels (default %(default)s)"
    )
    options.add_argument(
        "--seed", type=int, default=0, help="another seed, other data (default %(default)s)"
    )
    return options


if __name__ == "__main__":
    run_stage(main, parser())
