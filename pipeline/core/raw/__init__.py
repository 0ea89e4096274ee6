"""What the organiser sent: CSV tables, and images in folders, zips, HDF5 files and TFRecords.

A competition file reads its download with these:

    from pipeline.core import raw as source
    table = source.read_table(raw, source.need_table(raw, "train.csv"), ("image_name", "target"))
"""

from pipeline.core.raw.masks import Mask, read_masks
from pipeline.core.raw.tables import (
    archives,
    categories,
    clean_name,
    find_images,
    find_table,
    has_image,
    labels,
    names,
    need_table,
    numbers,
    optional_ids,
    paths,
    prefix,
    present,
    read_table,
    refuse,
)

__all__ = [
    "Mask",
    "archives",
    "categories",
    "clean_name",
    "find_images",
    "find_table",
    "has_image",
    "labels",
    "names",
    "need_table",
    "numbers",
    "optional_ids",
    "paths",
    "prefix",
    "present",
    "read_masks",
    "read_table",
    "refuse",
]
