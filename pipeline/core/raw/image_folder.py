"""Every file below a folder of new images, and inside the zips there: what may be an image.

    listing = list_folder(Path("new photos"))        or "photos.zip", or "photos.zip::ward 3"
    read_source(listing.root, listing.locators[0])

A file is known by its locator, the path relative to the folder; two files of one name in two
folders are two images. Nothing is opened but zips, and of these only the directory, so whether a
file is an image shows when it is read; what can never be read is listed with its reason.
"""

import os
import zipfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.core.runtime.errors import UserError


@dataclass
class FolderListing:
    """What lies below a folder.

    root      what locators are relative to
    locators  `a/b.jpg` or `a.zip::b/c.dcm`, ascending
    refused   locator -> why it will not be read
    hidden    how many files whose name, or whose folder's, begins with a dot were left out
    """

    root: Path
    locators: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    hidden: int = 0


def list_folder(images: Path) -> FolderListing:
    """The listing of a folder, a zip, or a folder inside a zip (`photos.zip::ward 3`); UserError
    where there is none."""
    text, inside, part = str(images).partition("::")
    path = Path(text)
    if path.is_file() and zipfile.is_zipfile(path):
        listing = FolderListing(path.parent)
        add_zip(listing, path.name, part.strip("/"))
    elif path.is_dir() and not inside:
        listing = FolderListing(path)
        add_folder(listing)
    else:
        kind = "is not a zip file" if path.is_file() else "there is no such folder"
        raise UserError(f"{images}: {kind}; name a folder of images, or a zip of them")
    if not listing.locators:
        reasons = [f"; {name}: {reason}" for name, reason in listing.refused.items()]
        raise UserError(f"{images}: there are no files to score in it{''.join(reasons[:1])}")
    listing.locators.sort()
    return listing


def add_folder(listing: FolderListing) -> None:
    """All plain files below the root, links to folders not followed."""
    for folder, folders, files in os.walk(listing.root):
        folders.sort()
        for name in sorted(files):
            path = Path(folder) / name
            locator = path.relative_to(listing.root).as_posix()
            if is_hidden(locator):
                listing.hidden += 1
            elif not is_text(locator):
                shown = locator.encode("utf-8", "backslashreplace").decode()
                listing.refused[shown] = "refused: its name is not UTF-8"
            elif "::" in locator:
                listing.refused[locator] = "refused: its name has '::'"
            elif path.suffix.lower() == ".zip":
                add_zip(listing, locator)
            else:
                listing.locators.append(locator)


def add_zip(listing: FolderListing, locator: str, part: str = "") -> None:
    """The members of a zip that lie below its folder `part`."""
    try:
        with zipfile.ZipFile(listing.root / locator) as archive:
            names = [info.filename for info in archive.infolist() if not info.is_dir()]
    except (zipfile.BadZipFile, OSError, NotImplementedError) as error:
        listing.refused[locator] = f"damaged: not a whole zip file ({error})"
        return
    for name, count in Counter(names).items():
        member = f"{locator}::{name}"
        if part and not name.startswith(f"{part}/"):
            continue
        if is_hidden(name) or name.startswith("__MACOSX/"):
            listing.hidden += count
        elif count > 1:
            listing.refused[member] = f"refused: the archive has {count} members of that name"
        else:
            listing.locators.append(member)


def is_hidden(path: str) -> bool:
    """True where a part of a relative path begins with a dot (`..` inside a zip is no name)."""
    return any(part.startswith(".") and part != ".." for part in path.split("/"))


def is_text(name: str) -> bool:
    """False for a file name whose bytes are not UTF-8, which no CSV can hold."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
