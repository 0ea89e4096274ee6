"""Prepare against what public solutions do: `cv2.imread` and `cv2.resize(INTER_AREA)` once per
size.

    python -m tests.bench.bench_prepare [--rounds 15]

Each side runs in a process of its own (the one keeps glibc's defaults, the other reuses memory as
prepare's workers do), on the same core, in turns; a ratio is the median over the rounds. Pictures
are made here, structure at every scale, at quality 90 and about one bit a pixel. PSNR: to the full
decode averaged exactly, the worst of the sizes.
"""

import argparse
import multiprocessing
import os
import tempfile
import time
from pathlib import Path
from statistics import median

import cv2
import numpy as np

from pipeline.core.config.task import Resize
from pipeline.core.images.area import warm_up
from pipeline.core.images.phash import perceptual_hash
from pipeline.core.images.prepared import prepare_one
from pipeline.core.images.resize import resized
from pipeline.core.raw.read import read_file
from pipeline.core.runtime.workers import keep_memory, worker_pool

FOUR = (256, 384, 512, 768)
CASES = (  # name, (height, width), gray, sizes, target ratio
    ("6000x4000 to four sizes", (4000, 6000), False, FOUR, 10.0),
    ("6000x4000 to 384", (4000, 6000), False, (384,), 3.0),
    ("1920x1080 to four sizes", (1080, 1920), False, FOUR, 3.0),
    ("2828x2320 gray to 320", (2320, 2828), True, (320,), 1.4),
)


def picture(height: int, width: int, gray: bool, seed: int = 0) -> np.ndarray:
    """Noise of all octaves, amplitude falling with frequency, and some grain."""
    rng = np.random.default_rng(seed)
    channels = 1 if gray else 3
    out = np.zeros((height, width, channels), np.float32)
    for octave in (2**k for k in range(2, 12)):
        noise = rng.standard_normal((max(2, octave * height // width), octave, channels)).astype(
            np.float32
        )
        out += (
            cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC).reshape(out.shape)
            / octave**1.25
        )
    out = (out - out.mean()) * (45 / out.std()) + 130
    out += rng.standard_normal((height, width, 1)).astype(np.float32) * (3 if gray else 2)
    return np.clip(out, 0, 255).astype(np.uint8).squeeze()


def plain(path: str, sizes: tuple[int, ...], gray: bool) -> dict[int, np.ndarray]:
    flag = cv2.IMREAD_GRAYSCALE if gray else cv2.IMREAD_COLOR
    return {
        size: cv2.resize(cv2.imread(path, flag), (size, size), interpolation=cv2.INTER_AREA)
        for size in sizes
    }


def ours(
    path: str, sizes: tuple[int, ...], gray: bool, exact: bool = False
) -> dict[int, np.ndarray]:
    resize = Resize(fit="square", channels=1 if gray else 3, exact=exact, largest=max(sizes))
    return resized(read_file(Path(path)), sizes, resize)[0]


def hashing(path: str, sizes: tuple[int, ...], gray: bool) -> None:
    """What the perceptual hash adds, timed alone."""
    perceptual_hash(hashed_picture(path, max(sizes), gray))


def hashed_picture(path: str, largest: int, gray: bool, kept: dict = {}) -> np.ndarray:  # noqa: B006  # a cache
    if path not in kept:
        kept[path] = resized(
            read_file(Path(path)), (largest,), Resize(channels=1 if gray else 3, largest=largest)
        )[1]
    return kept[path].pixels


def serve(pipe, core: int, reuse: bool) -> None:
    """Time what is asked for, on one core."""
    os.sched_setaffinity(0, {core})
    cv2.setNumThreads(1)
    if reuse:
        keep_memory()
    while (asked := pipe.recv()) is not None:
        function, arguments = asked
        start = time.perf_counter()
        function(*arguments)
        pipe.send(time.perf_counter() - start)


def helper(reuse: bool):
    """(process, pipe) of a timing process."""
    context = multiprocessing.get_context("spawn")
    mine, theirs = context.Pipe()
    process = context.Process(
        target=serve, args=(theirs, min(os.sched_getaffinity(0)), reuse), daemon=True
    )
    process.start()
    return process, mine


def timed(pipe, function, *arguments) -> float:
    pipe.send((function, arguments))
    return pipe.recv()


def psnr(path: str, sizes: tuple[int, ...], gray: bool) -> float:
    """The worst over the sizes, to the exact form."""
    quick = ours(path, sizes, gray)
    exact = ours(path, sizes, gray, exact=True)
    return min(
        10 * np.log10(255**2 / max(1e-10, np.mean((quick[s].astype(float) - exact[s]) ** 2)))
        for s in sizes
    )


def single_core(folder: Path, rounds: int) -> None:
    (_, usual), (_, reusing) = helper(False), helper(True)
    titles = "".join(
        f"{title:>9}"
        for title in ("plain ms", "ours ms", "ratio", "target", "exact", "PSNR dB", "hash")
    )
    print(f"{'one core':26}{titles}")
    for name, sides, gray, sizes, target in CASES:
        path = str(folder / f"{sides[0]}.jpg")
        if not Path(path).exists():
            cv2.imwrite(path, picture(*sides, gray), [cv2.IMWRITE_JPEG_QUALITY, 90])
        arguments = (path, sizes, gray)
        rows = [
            (
                timed(usual, plain, *arguments),
                timed(reusing, ours, *arguments),
                timed(reusing, ours, *arguments, True),
                timed(reusing, hashing, *arguments),
            )
            for _ in range(rounds + 2)
        ][2:]
        first, second, _, hashed = (median(column) for column in zip(*rows))
        ratio = median(a / b for a, b, _, _ in rows)
        exact_ratio = median(a / c for a, _, c, _ in rows)
        print(
            f"{name:26}{first * 1e3:9.1f}{second * 1e3:9.1f}{ratio:9.2f}{target:9.1f}"
            f"{exact_ratio:9.2f}"
            f"{psnr(*arguments):9.1f}{hashed / second:9.1%}",
            flush=True,
        )
    for pipe in (usual, reusing):
        pipe.send(None)


def rate(raw: Path, tasks: list, workers: int, sizes: tuple[int, ...], resize: Resize) -> float:
    """Pictures a second, end to end: read, decode, resize, hash, encode, write."""
    with (
        tempfile.TemporaryDirectory(dir=raw) as images,
        worker_pool(workers, prepare_one, raw, Path(images), sizes, resize) as run,
    ):
        for size in sizes:
            (Path(images) / str(size)).mkdir()
        list(run(tasks[: workers * 2]))
        start = time.perf_counter()
        if any("reason" in line or "failed" in line for _, line in run(tasks)):
            raise SystemExit("a picture could not be prepared")
        return len(tasks) / (time.perf_counter() - start)


def several_workers(folder: Path, rounds: int) -> None:
    """One worker against two, in turns, with writing."""
    warm_up()
    print(f"\n{'end to end':26}{'one /s':>10}{'two /s':>10}{'ratio':>8}{'target':>8}")
    cv2.imwrite(str(folder / "small.jpg"), picture(450, 600, False), [cv2.IMWRITE_JPEG_QUALITY, 90])
    for name, file, sizes, channels, count in (
        ("6000x4000 to four sizes", "4000.jpg", FOUR, 3, 40),
        ("2828x2320 gray to 320", "2320.jpg", (320,), 1, 120),
        ("600x450 to 256", "small.jpg", (256,), 3, 1000),
    ):
        tasks = [(f"{i:05d}", file, [0, 0]) for i in range(count)]
        resize = Resize(fit="square", channels=channels, largest=max(sizes))
        rows = [
            tuple(rate(folder, tasks, workers, sizes, resize) for workers in (1, 2))
            for _ in range(rounds)
        ]
        one, two = (median(column) for column in zip(*rows))
        print(
            f"{name:26}{one:10.1f}{two:10.1f}{median(b / a for a, b in rows):8.2f}{1.85:8.2f}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=15, help="interleaved rounds (default 15)")
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        single_core(Path(folder), rounds)
        several_workers(Path(folder), max(3, rounds // 3))


if __name__ == "__main__":
    main()
