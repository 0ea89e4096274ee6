"""Made raw downloads in the organisers' own layouts, so that every stage can be seen to work without any data.

    python -m pipeline.demo                                      melanoma and CheXpert, sizes for the demo
    python -m pipeline.demo --competition melanoma --images 100000 --side 64 --seed 3

writes  $DATA/<competition>/raw    a folder it did not make itself is never touched; one that stands is left as it is

The pictures show what their labels say, not too plainly. What makes real data hard is in them: several pictures of a
patient that look alike, metadata with a signal of its own, missing values, few positives, a picture that stands twice
under two patients, a file that was cut short, uncertain and blank labels, laterals, an unknown sex, a newborn of age 0.
"""
import argparse
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from tqdm import tqdm

from pipeline.core.command import UserError, run_stage
from pipeline.core.synthetic import chest, chest_style, lesion, skin_style
from pipeline.core.tables import data_folder

MARKER = ".made-by-demo.json"
SITE = "anatom_site_general_challenge"
SITES = ("head/neck", "upper extremity", "lower extremity", "torso", "palms/soles", "oral/genital")
FINDINGS = ("No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion", "Edema",
            "Consolidation", "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion", "Pleural Other",
            "Fracture", "Support Devices")
DRAWN = ("Cardiomegaly", "Edema", "Consolidation", "Atelectasis", "Pleural Effusion")
PREVALENCE = (0.14, 0.26, 0.10, 0.20, 0.36)  # of the drawn findings; the data set's own, rarer ones raised a little
UNCERTAIN = (0.04, 0.06, 0.12, 0.15, 0.05)   # chance that a study's label of each is -1, as in the data set


def main(arguments: argparse.Namespace) -> None:
    makers = {"melanoma": make_melanoma, "chexpert": make_chexpert}
    for name in [arguments.competition] if arguments.competition else makers:
        raw = data_folder(name) / "raw"
        asked = {"images": arguments.images, "seed": arguments.seed, "side": arguments.side}
        if (raw / MARKER).exists():
            if json.loads((raw / MARKER).read_text()) != asked:
                raise UserError(f"{raw}: made with {(raw / MARKER).read_text().strip()}; delete it to make it anew")
            continue
        if raw.exists():
            raise UserError(f"{raw}: stands already and was not made by this program; point DATA elsewhere")
        unfinished = raw.with_name("raw.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        makers[name](unfinished, arguments.images, arguments.side, np.random.default_rng(arguments.seed))
        (unfinished / MARKER).write_text(json.dumps(asked))
        unfinished.rename(raw)
        print(f"{raw}: made {sum(1 for _ in raw.rglob('*.jpg')):,} pictures")


def save(path: Path, picture: np.ndarray, quality: int = 92) -> None:
    """Write RGB or gray as JPEG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), picture if picture.ndim == 2 else picture[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a CSV as the organisers do: floats as 1.0, not 1."""
    table.to_csv(path, index=False)


def blank_some(values: list, rng: np.random.Generator, share: float) -> list:
    """The values with a share of them missing."""
    return [None if rng.random() < share else value for value in values]


# ---- SIIM-ISIC ------------------------------------------------------------------------------------------------------

def make_melanoma(raw: Path, images: int, side: int, rng: np.random.Generator) -> None:
    """train.csv, test.csv, sample_submission.csv, jpeg/{train,test}/ and external/isic2019/ without patient ids."""
    numbers = iter(rng.permutation(9_000_000)[:3 * images + 10] + 10_000)
    names = (f"ISIC_{number:07d}" for number in numbers)
    counts = {"train": images, "test": max(1, images // 4), "external": max(1, images // 6)}
    with tqdm(total=sum(counts.values()), unit="picture", desc="melanoma") as bar:
        train = skin_pictures(raw / "jpeg/train", names, counts["train"], side, rng, bar, 0.07)
        test = skin_pictures(raw / "jpeg/test", names, counts["test"], side, rng, bar, 0.07)
        folder = raw / "external/isic2019"
        external = skin_pictures(folder / "ISIC_2019_Training_Input", names, counts["external"], side, rng, bar, 0.2)
    add_twin(raw / "jpeg/train", train, next(names))
    cut_short(raw / "jpeg/train" / f"{train['image_name'].iloc[7]}.jpg")

    write_table(raw / "train.csv", train)
    write_table(raw / "test.csv", test.iloc[:, :5])
    write_table(raw / "sample_submission.csv", test[["image_name"]].assign(target=0))
    kinds = ("MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC", "UNK")
    truth = external[["image_name"]].set_axis(["image"], axis=1)
    for kind in kinds:
        truth[kind] = {"MEL": external["target"], "NV": 1 - external["target"]}.get(kind, 0)
        truth[kind] = truth[kind].map("{:.1f}".format)
    write_table(folder / "ISIC_2019_Training_GroundTruth.csv", truth)
    write_table(folder / "ISIC_2019_Training_Metadata.csv", pd.DataFrame({
        "image": external["image_name"], "age_approx": external["age_approx"],
        "anatom_site_general": external[SITE], "lesion_id": None, "sex": external["sex"]}))


def skin_pictures(folder: Path, names: Iterator[str], count: int, side: int, rng: np.random.Generator, bar: tqdm,
                  rate: float) -> pd.DataFrame:
    """Draw `count` pictures of patients with one to a dozen each; returns their rows in train.csv's columns.

    Age, sex and site move the chance of a melanoma, and so does a patient's own risk, which no column tells.
    """
    rows = []
    while len(rows) < count:
        patient, style = f"IP_{rng.integers(10_000_000):07d}", skin_style(rng)
        age, sex = float(np.clip(rng.normal(50, 16) // 5 * 5, 10, 90)), ("female", "male")[rng.integers(2)]
        risk = 0.9 * (age - 50) / 16 + 0.5 * (sex == "male") + rng.normal(0, 0.8)
        for _ in range(min(1 + rng.geometric(0.35), 12, count - len(rows))):
            site = rng.choice(SITES, p=(0.08, 0.15, 0.25, 0.5, 0.015, 0.005))
            chance = 1 / (1 + np.exp(-(np.log(rate / (1 - rate)) - 0.8 + risk + 0.8 * (site == "head/neck"))))
            target = int(rng.random() < chance)
            name = next(names)
            save(folder / f"{name}.jpg", lesion(rng, style, target + rng.normal(0, 0.3), side, side * 3 // 2))
            rows.append((name, patient, sex, age, site, "melanoma" if target else "unknown",
                         "malignant" if target else "benign", target))
            bar.update()
    table = pd.DataFrame(rows, columns=["image_name", "patient_id", "sex", "age_approx", SITE, "diagnosis",
                                        "benign_malignant", "target"])
    for column in ("sex", "age_approx", SITE):
        table[column] = blank_some(table[column].tolist(), rng, 0.03)
    return table


def add_twin(folder: Path, train: pd.DataFrame, name: str) -> None:
    """Append a copy of the last picture, smaller and saved anew, under another patient: a duplicate no column tells."""
    twin = train.iloc[-1].copy()
    picture = cv2.imread(str(folder / f"{twin['image_name']}.jpg"))
    smaller = cv2.resize(picture, None, fx=0.8, fy=0.8, interpolation=cv2.INTER_AREA)
    cv2.imwrite(str(folder / f"{name}.jpg"), smaller, [cv2.IMWRITE_JPEG_QUALITY, 80])
    twin["image_name"], twin["patient_id"] = name, "IP_0000001"
    train.loc[len(train)] = twin


def cut_short(path: Path) -> None:
    """Keep the first half of a file, as a broken download does."""
    content = path.read_bytes()
    path.write_bytes(content[:len(content) // 2])


# ---- CheXpert -------------------------------------------------------------------------------------------------------

def make_chexpert(raw: Path, images: int, side: int, rng: np.random.Generator) -> None:
    """CheXpert-v1.0-small/{train,valid,test}/, train.csv, valid.csv, and the list of test views."""
    home = raw / "CheXpert-v1.0-small"
    counts = {"train": images, "valid": max(1, images // 4), "test": max(1, images // 4)}
    first = 1
    with tqdm(total=sum(counts.values()), unit="picture", desc="chexpert") as bar:
        for split, count in counts.items():
            table = chest_pictures(home, split, first, count, side, rng, bar)
            first += count
            if split == "train":
                table.loc[0, "Sex"], table.loc[1, "Age"] = "Unknown", 0
            if split == "test":
                write_table(home / "test_image_paths.csv", table[["Path"]])
            else:
                write_table(home / f"{split}.csv", table)
    cut_short(raw / pd.read_csv(home / "train.csv")["Path"].iloc[11])


def chest_pictures(home: Path, split: str, first: int, count: int, side: int, rng: np.random.Generator,
                   bar: tqdm) -> pd.DataFrame:
    """Draw `count` views of patients with one to three studies of one or two views; rows in train.csv's columns."""
    rows, patient = [], first
    while len(rows) < count:
        style, sex = chest_style(rng), ("Female", "Male")[rng.integers(2)]
        age = int(np.clip(rng.normal(60, 17), 18, 90))
        illness = 0.9 * (age - 60) / 17 + 0.3 * (sex == "Male") + rng.normal(0, 0.7)
        for study in range(1, 1 + (rng.integers(1, 4) if split == "train" else 1)):
            portable = rng.random() < 0.55 + 0.1 * np.clip(illness, -2, 2)
            odds = np.log(np.array(PREVALENCE) / (1 - np.array(PREVALENCE))) - 0.3 + illness + 0.6 * portable - 0.3
            sick = rng.random(5) < 1 / (1 + np.exp(-odds))
            labels = written_labels(sick, split, rng)
            views = [("Frontal", "AP" if portable else "PA")]
            if not portable and rng.random() < 0.4:
                views.append(("Lateral", ""))
            for number, (view, position) in enumerate(views[:count - len(rows)], 1):
                name = f"{split}/patient{patient:05d}/study{study}/view{number}_{view.lower()}.jpg"
                severity = sick + rng.normal(0, 0.25, 5) * (1 + sick)
                save(home / name, chest(rng, style, severity, position or view, side, side * 11 // 9))
                rows.append((f"{home.name}/{name}", sex, age, view, position or None, *labels))
                bar.update()
        patient += 1
    return pd.DataFrame(rows, columns=["Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *FINDINGS])


def written_labels(sick: np.ndarray, split: str, rng: np.random.Generator) -> list[float | None]:
    """The fourteen labels of a study: in training 1, -1, 0 or blank, as a labeler writes them; elsewhere 1 or 0."""
    written = dict.fromkeys(FINDINGS, 0.0 if split != "train" else None)
    for name, present, uncertain in zip(DRAWN, sick, UNCERTAIN, strict=True):
        written[name] = float(present)
        if split == "train":
            written[name] = 1.0 if present else None if rng.random() < 0.7 else 0.0
            if rng.random() < uncertain:
                written[name] = -1.0
    written["No Finding"] = 1.0 if not sick.any() else written["No Finding"]
    written["Lung Opacity"] = 1.0 if sick[1:4].any() else written["Lung Opacity"]
    if rng.random() < 0.5:
        written["Support Devices"] = 1.0
    return list(written.values())


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--competition", choices=("melanoma", "chexpert"), help="only this one (default: both)")
    made.add_argument("--images", type=int, default=640, help="training pictures of each (default %(default)s)")
    made.add_argument("--side", type=int, default=120, help="short side in pixels (default %(default)s)")
    made.add_argument("--seed", type=int, default=0, help="another seed, other data (default %(default)s)")
    return made


if __name__ == "__main__":
    run_stage(main, parser())
