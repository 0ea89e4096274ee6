"""What it costs to check prepared images as they are read, and to have them on the disk.

    python -m tests.bench.bench_prepared_images [--rounds 15]

Reading: processor time of files of a prepared size, in memory, decoded as training does it, without
the check and with it. Writing: one journal's images (SHARD of them, encoded beforehand) at four
sizes, without a sync, with one of the file system (what `prepare` does) and with one of each file.
"""

import argparse
import os
import tempfile
import time
import zlib
from pathlib import Path

import cv2
import numpy as np

from pipeline.core.artifacts.files import sync_filesystem
from pipeline.core.artifacts.prepared_images import PreparedImage
from pipeline.core.images.prepared import put
from pipeline.core.images.views import read_prepared_image
from pipeline.prepare import SHARD
from tests.bench.rounds import interleaved, show

SIZES = (96, 224, 384, 512)
IMAGES = 64  # that are read in a round


def encoded(size: int, seed: int) -> bytes:
    """A JPEG of about a bit a pixel, as photographs have."""
    noise = np.random.default_rng(seed).integers(0, 256, (size // 8, size // 8, 3), dtype=np.uint8)
    pixels = cv2.resize(noise, (size, size), interpolation=cv2.INTER_CUBIC)
    return cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()


def time_reading(images: list[PreparedImage]) -> float:
    started = time.process_time()  # files are in memory, so that nothing is waited for
    for image in images:
        read_prepared_image(image, 3)
    return time.process_time() - started


def time_writing(folder: Path, contents: list[bytes], sync: str) -> float:
    started = time.perf_counter()
    for number in range(SHARD):
        for content in contents:
            name = f"{len(content)}-{number}.jpg"
            put(folder / name, content)
            if sync == "each file":
                handle = os.open(folder / name, os.O_RDONLY)
                os.fsync(handle)
                os.close(handle)
    if sync == "the file system once":
        sync_filesystem(folder)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as temporary:
        folder = Path(temporary)
        for size in SIZES:
            checked = []
            for seed in range(IMAGES):
                content = encoded(size, seed)
                path = folder / f"{size}-{seed}.jpg"
                path.write_bytes(content)
                checked.append(PreparedImage(path, len(content), zlib.crc32(content)))
            unchecked = [PreparedImage(image.path) for image in checked]
            readers = {
                "not checked": lambda images=unchecked: time_reading(images),
                "checked": lambda images=checked: time_reading(images),
            }
            times = interleaved(readers, rounds * 4)
            show(f"reading at {size} px", times, "not checked", 1e6 / IMAGES, "µs an image")

        contents = [encoded(size, 0) for size in SIZES]
        writers = {
            sync: lambda sync=sync: time_writing(folder, contents, sync)
            for sync in ("not at all", "the file system once", "each file")
        }
        times = interleaved(writers, max(1, rounds // 5), warm=1)
        show("syncing a journal's images", times, "not at all", 1e3 / SHARD, "ms an image")


if __name__ == "__main__":
    main()
