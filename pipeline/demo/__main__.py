"""Made raw downloads in the organisers' own layouts, so that every stage can be seen to work
without any data.

    python -m pipeline.demo                                      melanoma and CheXpert, sizes for
                                                                 the demo
    python -m pipeline.demo --competition isic2024
    python -m pipeline.demo --competition melanoma --images 100000 --side 64 --seed 3

writes  $DATA/<competition>/raw    a folder it did not make itself is never touched; one that stands is left as it is

The pictures show what their labels say, not too plainly. What makes real data hard is in them:
several pictures of a patient that look alike and share labels, metadata with a signal of its own,
missing values, few positives, a picture that stands twice under two patients, a file that was cut
short, an external set without patient ids, uncertain and blank labels, laterals, an unknown sex, a
newborn of age 0. The same arguments give the same files, byte for byte.
"""

import argparse
import json
import os
import shutil
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from tqdm import tqdm

from pipeline.core.artifacts.paths import SYNTHETIC_MARKER, data_folder
from pipeline.core.runtime.command import run_stage
from pipeline.core.runtime.errors import UserError
from pipeline.demo.drawings import chest, chest_style, lesion, skin_style
from pipeline.demo.patients import SITE, chest_rows, numbered, skin_rows, tile_rows

DEFAULT = ("melanoma", "chexpert")
MELANOMAS, EXTERNAL_MELANOMAS = 0.07, 0.2
SHAPES = (
    (1.0, 1.0),
    (1.0, 4 / 3),
    (1.0, 3 / 2),
)  # height and width over the short side, one for each patient
BATCH = 32  # pictures that a worker draws at a time
ALONE = 2000  # pictures below which starting workers costs more than it saves


def main(arguments: argparse.Namespace) -> None:
    if arguments.images < 50 or arguments.side < 32:
        raise UserError(
            f"--images {arguments.images} --side {arguments.side}: at least 50 pictures of 32 "
            "pixels"
        )
    for name in [arguments.competition] if arguments.competition else DEFAULT:
        raw = data_folder(name) / "raw"
        asked = {"images": arguments.images, "seed": arguments.seed, "side": arguments.side}
        if not stands(raw, asked):
            make(name, raw, asked)
            print(f"{raw}: made with {json.dumps(asked)}")


def stands(raw: Path, asked: dict) -> bool:
    """True when these very data are there; a UserError when something else is."""
    if (raw / SYNTHETIC_MARKER).exists():
        made = (raw / SYNTHETIC_MARKER).read_text().strip()
        if json.loads(made) != asked:
            raise UserError(f"{raw}: made with {made}; delete it to make it anew")
        return True
    if raw.exists() or raw.is_symlink():
        raise UserError(
            f"{raw}: stands already and was not made by this program; point DATA elsewhere"
        )
    return False


def make(name: str, raw: Path, asked: dict) -> None:
    """Make one download beside its place and rename it when whole; what a killed run left is made
    anew."""
    unfinished = raw.with_name(f".{raw.name}.unfinished-demo")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    MAKERS[name](unfinished, **asked)
    (unfinished / SYNTHETIC_MARKER).write_text(json.dumps(asked) + "\n")
    unfinished.rename(raw)


# ---- Pictures -------------------------------------------------------------------------------------------------------


def draw_all(draw: Callable, jobs: Iterable[tuple], desc: str) -> list:
    """What `draw` gives for each job, in order; on every core where there are many. Jobs carry
    their own seeds."""
    jobs = list(jobs)
    workers = len(os.sched_getaffinity(0)) if len(jobs) >= ALONE else 1
    bar = partial(tqdm, total=len(jobs), desc=desc, unit="picture")
    if workers == 1:
        return list(bar(map(draw, jobs)))
    with ProcessPoolExecutor(workers, initializer=cv2.setNumThreads, initargs=(1,)) as pool:
        return list(bar(pool.map(draw, jobs, chunksize=BATCH)))


def jpeg(picture: np.ndarray, quality: int) -> bytes:
    """RGB or gray as JPEG."""
    picture = picture if picture.ndim == 2 else picture[:, :, ::-1]
    return cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


def skin_jpeg(job: tuple) -> bytes:
    """A lesion as JPEG; job: (seed, patient number, picture number, severity, short side)."""
    seed, patient, number, severity, side = job
    rng = np.random.default_rng((seed, 1, patient))
    style, shape = skin_style(rng), SHAPES[rng.integers(len(SHAPES))]
    height, width = (round(side * part) for part in shape)
    return jpeg(
        lesion(np.random.default_rng((seed, 2, number)), style, severity, height, width), 92
    )


def write_skin(job: tuple) -> None:
    """Draw and write a lesion; job: (path, the job of skin_jpeg)."""
    Path(job[0]).write_bytes(skin_jpeg(job[1]))


def write_chest(job: tuple) -> None:
    """Draw and write an X-ray; job: (path, seed, patient number, picture number, severities, view,
    short side)."""
    path, seed, patient, number, severity, view, side = job
    style = chest_style(np.random.default_rng((seed, 3, patient)))
    picture = chest(
        np.random.default_rng((seed, 4, number)), style, severity, view, side, round(side * 11 / 9)
    )
    Path(path).write_bytes(jpeg(picture, 92))


def skin_jobs(rows: pd.DataFrame, first: int, seed: int, side: int) -> list[tuple]:
    """The jobs of skin_jpeg for a table; `first` numbers its pictures."""
    return [
        (seed, patient, number, severity, side)
        for number, (patient, severity) in enumerate(zip(rows["number"], rows["severity"]), first)
    ]


def save_again(source: Path, target: Path) -> None:
    """A copy at four fifths of the size and lower quality: the same picture, other bytes."""
    picture = cv2.imread(str(source), cv2.IMREAD_UNCHANGED)
    smaller = cv2.resize(picture, None, fx=0.8, fy=0.8, interpolation=cv2.INTER_AREA)
    target.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(target), smaller, [cv2.IMWRITE_JPEG_QUALITY, 80])


def cut_short(path: Path) -> None:
    """Keep the first half of a file, as a broken download does."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


# ---- SIIM-ISIC ------------------------------------------------------------------------------------------------------


def make_melanoma(raw: Path, images: int, seed: int, side: int) -> None:
    """train.csv, test.csv, sample_submission.csv, jpeg/{train,test}/ and external/isic2019/ without
    patient ids."""
    rng = np.random.default_rng((seed, 11))
    train = skin_rows(rng, images, MELANOMAS)
    test = skin_rows(rng, images // 4, MELANOMAS, first=int(train["number"].max()) + 1)
    external = skin_rows(rng, images // 6, EXTERNAL_MELANOMAS, first=int(test["number"].max()) + 1)
    twin = name_rows(rng, (train, test, external), "image_name")

    folder = raw / "external/isic2019"
    places = (raw / "jpeg/train", raw / "jpeg/test", folder / "ISIC_2019_Training_Input")
    jobs, first = [], 0
    for place, rows in zip(places, (train, test, external)):
        place.mkdir(parents=True)
        files = [str(place / f"{name}.jpg") for name in rows["image_name"]]
        jobs += zip(files, skin_jobs(rows, first, seed, side))
        first += len(rows)
    draw_all(write_skin, jobs, "melanoma")

    train = add_twin(raw / "jpeg/train", train, *twin)
    cut_short(raw / f"jpeg/train/{train['image_name'][train['target'] == 0].iloc[7]}.jpg")
    written = list(train.columns.drop(["number", "severity"]))
    train[written].to_csv(raw / "train.csv", index=False)
    test[written[:5]].to_csv(raw / "test.csv", index=False)
    test[["image_name"]].assign(target=0).to_csv(raw / "sample_submission.csv", index=False)
    write_isic2019(folder, external)


def name_rows(
    rng: np.random.Generator, tables: Iterable[pd.DataFrame], column: str
) -> tuple[str, str]:
    """Give the rows of all tables their picture and patient ids, in place; returns one of each to
    spare.

    ISIC_0015719, IP_7279968: seven digits, in no order.
    """
    names = [f"ISIC_{number:07d}" for number in numbered(rng, 1 + sum(map(len, tables)))]
    patients = [
        f"IP_{number:07d}"
        for number in numbered(rng, 2 + max(int(rows["number"].max()) for rows in tables))
    ]
    for rows in tables:
        rows[column], names = names[: len(rows)], names[len(rows) :]
        rows["patient_id"] = [patients[number] for number in rows["number"]]
    return names[0], patients[-1]


def add_twin(folder: Path, train: pd.DataFrame, name: str, patient: str) -> pd.DataFrame:
    """The rows and one more: a picture saved anew under another name and another patient, which no
    column tells."""
    save_again(folder / f"{train['image_name'].iloc[0]}.jpg", folder / f"{name}.jpg")
    twin = train.iloc[[0]].assign(image_name=name, patient_id=patient)
    return pd.concat([train, twin], ignore_index=True)


def write_isic2019(folder: Path, rows: pd.DataFrame) -> None:
    """ISIC 2019's two tables: nine kinds of lesion as 0.0 and 1.0, and the metadata."""
    truth = rows[["image_name"]].set_axis(["image"], axis=1)
    for kind in ("MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC", "UNK"):
        truth[kind] = {"MEL": rows["target"], "NV": 1 - rows["target"]}.get(kind, 0)
        truth[kind] = truth[kind].astype(float)
    truth.to_csv(folder / "ISIC_2019_Training_GroundTruth.csv", index=False)
    facts = pd.DataFrame(
        {
            "image": rows["image_name"],
            "age_approx": rows["age_approx"],
            "anatom_site_general": rows[SITE],
            "lesion_id": None,
            "sex": rows["sex"],
        }
    )
    facts.to_csv(folder / "ISIC_2019_Training_Metadata.csv", index=False)


# ---- CheXpert -------------------------------------------------------------------------------------------------------


def make_chexpert(raw: Path, images: int, seed: int, side: int) -> None:
    """CheXpert-v1.0-small/{train,valid,test}/, train.csv, valid.csv, and the list of test views."""
    home, rng = raw / "CheXpert-v1.0-small", np.random.default_rng((seed, 12))
    first, number, jobs, tables = 1, 0, [], {}
    for split, count in (("train", images), ("valid", images // 4), ("test", images // 4)):
        rows = tables[split] = chest_rows(rng, split, count, first)
        for folder in {os.path.dirname(path) for path in rows["Path"]}:  # noqa: PTH120  # ten times as fast as Path
            (home / folder).mkdir(parents=True)
        jobs += [
            (str(home / row.Path), seed, row.number, number + i, row.severity, row.view, side)
            for i, row in enumerate(rows.itertuples())
        ]
        first, number = int(rows["number"].max()) + 1, number + len(rows)
    draw_all(write_chest, jobs, "chexpert")

    train = spoil(home, tables["train"], first)
    for split, rows in {**tables, "train": train}.items():
        rows = rows.drop(columns=["number", "severity", "view"]).assign(
            Path=f"{home.name}/" + rows["Path"]
        )
        if split == "test":
            rows[["Path"]].to_csv(home / "test_image_paths.csv", index=False)
        else:
            rows.to_csv(home / f"{split}.csv", index=False)


def spoil(home: Path, train: pd.DataFrame, patient: int) -> pd.DataFrame:
    """The rows with a sex Unknown, an age 0, a frontal of view LL, a file cut short, and a picture
    standing twice."""
    frontals = train.index[train["Frontal/Lateral"] == "Frontal"]
    train.loc[frontals[1], "Sex"] = "Unknown"
    train.loc[frontals[2], "Age"] = 0
    train.loc[frontals[3], "AP/PA"] = "LL"
    cut_short(home / train.loc[frontals[4], "Path"])
    twin = train.loc[[frontals[5]]].assign(
        Path=f"train/patient{patient:05d}/study1/view1_frontal.jpg"
    )
    save_again(home / train.loc[frontals[5], "Path"], home / twin["Path"].iloc[0])
    return pd.concat([train, twin], ignore_index=True)


# ---- ISIC 2024 ------------------------------------------------------------------------------------------------------


def make_isic2024(raw: Path, images: int, seed: int, side: int) -> None:
    """{train,test}-image.hdf5 of JPEGs by id, {train,test}-metadata.csv, sample_submission.csv;
    three test rows."""
    import h5py  # only this layout needs it

    rng = np.random.default_rng((seed, 13))
    train = tile_rows(rng, images, MELANOMAS)
    test = tile_rows(rng, 50, MELANOMAS, first=int(train["number"].max()) + 1).iloc[[0, 20, 40]]
    test = test.reset_index(drop=True)
    name_rows(rng, (train, test), "isic_id")
    for split, rows, first in (("train", train, 0), ("test", test, len(train))):
        pictures = draw_all(skin_jpeg, skin_jobs(rows, first, seed, side), f"isic2024 {split}")
        with h5py.File(raw / f"{split}-image.hdf5", "w") as file:
            for name, picture in zip(rows["isic_id"], pictures):
                file[name] = np.void(picture)
    told = list(train.columns.drop(["number", "severity"]))
    secret = (
        "target",
        "lesion_id",
        "iddx_full",
        *(f"iddx_{k}" for k in range(1, 6)),
        "mel_mitotic_index",
        "mel_thick_mm",
        "tbp_lv_dnn_lesion_confidence",
    )
    train[told].to_csv(raw / "train-metadata.csv", index=False)
    test[[name for name in told if name not in secret]].to_csv(
        raw / "test-metadata.csv", index=False
    )
    test[["isic_id"]].assign(target=0.3).to_csv(raw / "sample_submission.csv", index=False)


MAKERS = {"melanoma": make_melanoma, "chexpert": make_chexpert, "isic2024": make_isic2024}


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument(
        "--competition",
        choices=tuple(MAKERS),
        help="only this one (default: melanoma and chexpert)",
    )
    made.add_argument(
        "--images", type=int, default=640, help="training pictures of each (default %(default)s)"
    )
    made.add_argument(
        "--side", type=int, default=120, help="short side in pixels (default %(default)s)"
    )
    made.add_argument(
        "--seed", type=int, default=0, help="another seed, other data (default %(default)s)"
    )
    return made


if __name__ == "__main__":
    run_stage(main, parser())
