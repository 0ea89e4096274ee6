"""Where everything lies: the three roots, a competition's folders, the names of the artifacts.

The roots are the environment variables DATA, MODELS and SUBMISSIONS, by default the folders of
those names.
"""

import zlib
from pathlib import Path

from pipeline.core.config.run import fold_name
from pipeline.core.runtime import environment
from pipeline.core.runtime.errors import UserError

# The artifacts of one fold of one run.
PRETRAINED = "pretrained.safetensors"
FINETUNED = "finetuned.safetensors"
PREDICTIONS = "predictions.csv"
STAGE_1_PREDICTIONS = "predictions_pretrained.csv"

SYNTHETIC_MARKER = ".made-by-demo.json"  # in a raw folder that the demo wrote; its arguments


def root(name: str) -> Path:
    """The folder that the environment variable DATA, MODELS or SUBMISSIONS names."""
    named = environment.folder(name)
    if named:
        return named
    folder = Path(name.lower())
    return folder / "smoke" if environment.smoke() and name != "DATA" else folder


def data_folder(competition: str) -> Path:
    return root("DATA") / competition


def raw_folder(competition: str) -> Path:
    """The raw download, which must be there; nothing is ever written in it."""
    raw = data_folder(competition) / "raw"
    if not raw.is_dir():
        raise UserError(
            f"{raw}: there is no such folder; put (or link) the download of {competition} there"
        )
    return raw


def image_path(competition: str, size: int, image_id: str) -> Path:
    """Where prepare puts an image of that size."""
    return image_in(data_folder(competition) / "images" / str(size), image_id)


def image_in(folder: Path, image_id: str) -> Path:
    """The image in images/<size>, or in the one of its folders 00 to ff that its id decides: a
    million images are 3,900 in each, where network disks take long over one folder of all."""
    name = f"{image_id}.jpg"
    if not fans_out(folder):
        return folder / name
    return folder / f"{zlib.crc32(image_id.encode()) & 0xFF:02x}" / name


def fans_out(folder: Path) -> bool:
    """Whether images/<size> has its images in 256 folders."""
    return (folder / "00").is_dir()


def fan_out(folder: Path) -> None:
    """Make those folders; the one that counts is made last."""
    for number in reversed(range(256)):
        (folder / f"{number:02x}").mkdir(parents=True, exist_ok=True)


def models_folder(competition: str) -> Path:
    return root("MODELS") / competition


def fold_folder(competition: str, run: str, fold: int | str) -> Path:
    return models_folder(competition) / run / fold_name(fold)


def submissions_folder(competition: str) -> Path:
    return root("SUBMISSIONS") / competition
