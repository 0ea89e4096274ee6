"""Image files of the synthetic downloads: drawn from jobs, encoded as JPEG, spoilt on purpose.

A job is a tuple of plain values that carries its own seeds, so the files do not depend on how many
processes draw them or in which order.
"""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from tqdm import tqdm

from pipeline.demo.drawings import chest, chest_style, lesion, skin_style

# Height and width over the short side, one of them for each patient.
SHAPES = ((1.0, 1.0), (1.0, 4 / 3), (1.0, 3 / 2))
DEMO_JPEG_QUALITY = 92
DRAWN_AT_A_TIME = 32  # images that a process draws at a time
ONE_PROCESS_BELOW = 2000  # images; for fewer, starting processes costs more than it saves


def draw_all(draw: Callable, jobs: Iterable[tuple], desc: str) -> list:
    """The result of `draw` for each job, in order; on every core where there are many jobs."""
    jobs = list(jobs)
    processes = len(os.sched_getaffinity(0)) if len(jobs) >= ONE_PROCESS_BELOW else 1
    bar = partial(tqdm, total=len(jobs), desc=desc, unit="image")
    if processes == 1:
        return list(bar(map(draw, jobs)))

    # One thread of OpenCV's in each process: more would only fight for the same cores.
    with ProcessPoolExecutor(processes, initializer=cv2.setNumThreads, initargs=(1,)) as pool:
        return list(bar(pool.map(draw, jobs, chunksize=DRAWN_AT_A_TIME)))


def jpeg(image: np.ndarray, quality: int) -> bytes:
    """RGB (H, W, 3) or gray (H, W), uint8, as JPEG."""
    if image.ndim == 3:
        image = image[:, :, ::-1]  # OpenCV encodes BGR
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


# ---- Skin lesions ---------------------------------------------------------------------------


def skin_jobs(rows: pd.DataFrame, first: int, seed: int, side: int) -> list[tuple]:
    """The jobs of skin_jpeg for a table; `first` is the number of its first image."""
    drawn = zip(rows["number"], rows["severity"])
    return [
        (seed, patient, number, severity, side)
        for number, (patient, severity) in enumerate(drawn, first)
    ]


def skin_jpeg(job: tuple) -> bytes:
    """A lesion as JPEG; job: (seed, patient number, image number, severity, short side)."""
    seed, patient, number, severity, side = job
    # The patient's own generator: what all his images share.
    of_patient = np.random.default_rng((seed, 1, patient))
    style = skin_style(of_patient)
    shape = SHAPES[of_patient.integers(len(SHAPES))]
    height, width = (round(side * part) for part in shape)

    # The image's own: everything else.
    of_image = np.random.default_rng((seed, 2, number))
    return jpeg(lesion(of_image, style, severity, height, width), DEMO_JPEG_QUALITY)


def write_skin(job: tuple) -> None:
    """Draw and write a lesion; job: (path, the job of skin_jpeg)."""
    path, drawing = job
    Path(path).write_bytes(skin_jpeg(drawing))


# ---- Chest X-rays ---------------------------------------------------------------------------


def write_chest(job: tuple) -> None:
    """Draw and write an X-ray; job: (path, seed, patient number, image number, severities, view,
    short side)."""
    path, seed, patient, number, severity, view, side = job
    style = chest_style(np.random.default_rng((seed, 3, patient)))
    of_image = np.random.default_rng((seed, 4, number))
    # Of real ones at a short side of 320, a usual size is 390 x 320: 11 to 9.
    image = chest(of_image, style, severity, view, side, round(side * 11 / 9))
    Path(path).write_bytes(jpeg(image, DEMO_JPEG_QUALITY))


# ---- What is wrong with real downloads ------------------------------------------------------


def save_again(source: Path, target: Path) -> None:
    """A copy at four fifths of the size and lower quality: the same image, other bytes."""
    # Byte hashes cannot tell that it is a copy; a perceptual hash can.
    image = cv2.imread(str(source), cv2.IMREAD_UNCHANGED)
    smaller = cv2.resize(image, None, fx=0.8, fy=0.8, interpolation=cv2.INTER_AREA)
    target.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(target), smaller, [cv2.IMWRITE_JPEG_QUALITY, 80])


def truncate(path: Path) -> None:
    """Keep the first half of a file, as a broken download does."""
    # The head is whole, so the size can be read, and most decoders give half an image and no error.
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
