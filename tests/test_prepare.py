"""The stage: its tables, what it refuses, what it sets aside, and that no kill and no second
machine spoils it."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pipeline import prepare as stage
from pipeline.core.artifacts.paths import image_path
from pipeline.core.artifacts.prepared_images import prepared_images, prepared_sizes
from pipeline.core.artifacts.tables import read_images
from pipeline.core.config.competition import Competition
from pipeline.core.config.task import Blend, Resize, Submission, Task
from pipeline.core.images import prepared
from pipeline.core.images.decoding.decode import decode
from pipeline.core.images.views import read_prepared_image
from pipeline.core.raw.unreadable import UnreadableImage
from pipeline.core.runtime.errors import UserError
from tests.cases import bad_files
from tests.cases.network_input import network_input

SHARED = Path(os.environ.get("SHARED_DATA", Path(__file__).parents[1] / ".." / "shared" / "data"))
SIZES = (16, 24)
TASK = Task(
    title="made", labels=("target",), numeric=("age",), resize=Resize(fit="short", channels=3)
)


def rows_of(files: list[str]) -> pd.DataFrame:
    """A table as read_raw gives it."""
    count = len(files)
    return pd.DataFrame(
        {
            "image_id": [f"i{i:05d}" for i in range(count)],
            "file": files,
            "patient_id": [f"p{i // 2}" for i in range(count)],
            "unit_id": [f"i{i:05d}" for i in range(count)],
            "split": "train",
            "source": "made",
            "age": [float(i % 90) for i in range(count)],
            "target": [float(i % 2) for i in range(count)],
        }
    )


@pytest.fixture
def made(tmp_path, monkeypatch):
    """A competition of twelve images; `made.table` is what its read_raw gives."""
    monkeypatch.setenv("DATA", str(tmp_path))
    raw = tmp_path / "made" / "raw"
    raw.mkdir(parents=True)
    for i in range(12):
        (raw / f"{i}.jpg").write_bytes(bad_files.encoded(i))
    given = SimpleNamespace(
        table=rows_of([f"{i}.jpg" for i in range(12)]), raw=raw, folder=raw.parent
    )
    module = SimpleNamespace(read_raw=lambda _: given.table)
    runs = tuple(SimpleNamespace(size=size) for size in SIZES)
    submission = Submission(file="s.csv", id_column="id", columns={"target": "target"})
    given.competition = Competition("made", TASK, runs, None, Blend(), submission, module)
    given.prepare = lambda: stage.prepare_images(given.competition, SIZES, 2)
    return given


def images(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "images.csv", dtype={"image_id": str, "phash": str})


def errors(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "prepare_errors.csv")


def test_tables_and_images(made):
    made.prepare()
    table = images(made.folder)
    assert list(table) == [
        "image_id",
        "file",
        "patient_id",
        "unit_id",
        "split",
        "source",
        "width",
        "height",
        "phash",
        "decoded",
        "brightness",
        "file_bytes",
        "age",
        "target",
    ]
    assert list(table["image_id"]) == list(made.table["image_id"])
    assert (table[["width", "height"]] == 64).all().all() and (table["decoded"] == "jpeg").all()
    for row in table.itertuples():
        for size in SIZES:
            path = made.folder / "images" / str(size) / f"{row.image_id}.jpg"
            source = (made.raw / row.file).read_bytes()
            stored = cv2.imread(str(path))[:, :, ::-1]
            assert np.array_equal(stored, network_input(source, size, TASK.resize))
    record = json.loads((made.folder / "prepare.json").read_text())
    assert (
        record["resize"]["fit"] == "short" and record["sizes"] == list(SIZES) and record["commit"]
    )
    assert errors(made.folder).empty
    assert not list(made.folder.rglob(".*"))


@pytest.mark.parametrize(
    "column, row, value, message",
    [
        ("image_id", 3, "i00002", "occurs twice"),
        ("image_id", 3, "../x", "not a plain name"),
        ("image_id", 3, None, "blank"),
        ("image_id", 3, "x" * 240, "longer"),
        ("file", 3, "../secret.jpg", "inside the raw"),
        ("file", 3, "/etc/passwd", "inside the raw"),
        ("file", 3, None, "blank"),
        ("split", 3, "holdout", "none of"),
        ("patient_id", 3, None, "blank"),
        ("target", 3, 2.0, "not 0, 1"),
        ("target", 3, None, "blank"),
    ],
)
def test_a_wrong_table_writes_nothing(made, column, row, value, message):
    made.table.loc[row, column] = value
    with pytest.raises(UserError, match=message) as raised:
        made.prepare()
    assert column in str(raised.value)
    assert [path.name for path in made.folder.iterdir()] == ["raw"]


def test_a_missing_column_is_named(made):
    made.table = made.table.drop(columns="age")
    with pytest.raises(UserError, match="'age' is missing"):
        made.prepare()


def test_bad_files_of_twenty_kinds_are_set_aside_with_true_reasons(made):
    kinds = {bad_files.make(made.raw, kind, 1): kind for kind in bad_files.KINDS}
    assert len(kinds) == 20
    made.table = rows_of([*made.table["file"], *kinds])
    made.prepare()
    assert len(images(made.folder)) == 12
    reported = errors(made.folder)
    assert len(reported) == 20
    for row in reported.itertuples():
        assert row.reason.startswith(bad_files.REASONS[kinds[row.file]]), (
            row.file,
            kinds[row.file],
        )


def test_nothing_readable_is_an_error(made):
    made.table = made.table.assign(file="none.jpg")
    with pytest.raises(UserError, match="none of the 12"):
        made.prepare()
    assert not (made.folder / "images.csv").exists() and len(errors(made.folder)) == 12


def stamps(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in (folder / "images").rglob("*.jpg")}


def test_again_does_only_what_has_changed(made):
    (made.raw / "5.jpg").write_bytes(b"broken")
    made.prepare()
    before = stamps(made.folder)
    table = (made.folder / "images.csv").read_bytes()
    made.prepare()
    assert stamps(made.folder) == before and (made.folder / "images.csv").read_bytes() == table
    (made.raw / "5.jpg").write_bytes(bad_files.encoded(5))  # mended
    (made.folder / "images" / "16" / "i00003.jpg").unlink()  # lost
    made.table = rows_of([f"{i}.jpg" for i in range(11)])  # a row fewer
    made.prepare()
    assert len(images(made.folder)) == 11
    after = stamps(made.folder)
    redone = {Path(path).stem for path in after if after[path] != before.get(path)}
    assert redone == {"i00003", "i00005"}


GRAY = cv2.imencode(".jpg", np.full((1, 1), 128, np.uint8))[1].tobytes()
DAMAGES = {
    "no bytes": lambda _path: b"",
    "NULs, as after a power cut": lambda path: bytes(path.stat().st_size),
    "another image": lambda path: path.with_name("i00007.jpg").read_bytes(),
    "a gray pixel": lambda _path: GRAY,
    "a byte short": lambda path: path.read_bytes()[:-1],
    "a byte more": lambda path: path.read_bytes() + b"\0",
    "a changed bit": lambda path: flipped(path.read_bytes()),
}


def flipped(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def test_damaged_prepared_images_are_refused_and_made_again(made, capsys):
    made.prepare()
    paths = [image_path("made", 24, f"i{i:05d}") for i in range(len(DAMAGES))]
    sound = {path: path.read_bytes() for path in sorted((made.folder / "images").rglob("*.jpg"))}
    for path, (_, damage) in zip(paths, DAMAGES.items()):
        path.write_bytes(damage(path))
    (made.folder / "images/16/i00009.jpg").unlink()
    os.mkfifo(made.folder / "images/16/i00009.jpg")

    # Whoever reads one is told which, and what to do.
    ids = list(images(made.folder)["image_id"])
    for path, image in zip(paths, prepared_images("made", 24, ids)):
        with pytest.raises(UserError, match=f"{path.name}: .*; `make prepare COMP=made`"):
            read_prepared_image(image, 3)
    with pytest.raises(UserError, match=r"i00009\.jpg: 0 bytes, where prepare wrote"):
        prepared_images("made", 16, ids)[9].read()

    # Which is true: what was damaged is named and made again, the same as before.
    table = (made.folder / "images.csv").read_bytes()
    before = stamps(made.folder)
    capsys.readouterr()
    made.prepare()
    assert {path: path.read_bytes() for path in sound} == sound
    assert capsys.readouterr().out.count("made again: ") == 6  # five by name, then how many more
    assert (made.folder / "images.csv").read_bytes() == table
    whole = {Path(path).stem for path, time in stamps(made.folder).items() if time == before[path]}
    assert whole == {"i00007", "i00008", "i00010", "i00011"}


def test_checksums_that_are_lost_or_wrong_are_told(made):
    made.prepare()
    path = made.folder / "images/16.csv"
    text = path.read_text()
    for content, message in (
        ("", "not a CSV"),
        (text.replace("crc32", "x"), "'crc32' is missing"),
        (text.replace("i00003", "i99999"), "i00003.jpg: not listed in"),
        (text.replace("\ni00003,", "\ni00003,x"), "not all are whole numbers"),
    ):
        path.write_text(content)
        with pytest.raises(UserError, match=message):
            prepared_images("made", 16, ["i00003"])
    path.unlink()
    assert prepared_sizes(made.competition) == {24}
    made.prepare()
    assert path.read_text() == text


def test_images_are_on_the_disk_before_their_journal_counts(made, monkeypatch):
    seen = []

    def sync(folder: Path) -> None:
        files = [path for path in folder.rglob("*.jpg") if not path.name.startswith(".")]
        seen.append((folder, len(files), list((made.folder / "prepare").rglob("*.jsonl"))))

    monkeypatch.setattr(stage, "sync_filesystem", sync)
    made.prepare()
    assert seen == [(made.folder / "images", 12 * len(SIZES), [])]
    assert len(list((made.folder / "prepare").rglob("*.jsonl"))) == 1


HOSTILE = (
    "<script>alert(1)</script>",
    'a "quoted" one',
    "=cmd|' /C calc'!A0",
    "two\nlines",
    "\u202eright to left",
    "+49 30",
    "NA",
)


def test_hostile_text_of_patients_is_kept_and_formulas_are_warned_of(made, capsys):
    made.table["patient_id"] = [f"{HOSTILE[i % len(HOSTILE)]}{i}" for i in range(12)]
    made.prepare()
    assert list(read_images("made")["patient_id"]) == list(made.table["patient_id"])
    warnings = [line for line in capsys.readouterr().err.splitlines() if "warning:" in line]
    assert len(warnings) == 1 and "begins like a formula (3 such rows)" in warnings[0]
    assert "column patient_id: \"=cmd|' /C calc'!A02\"" in warnings[0]


def test_a_file_that_changes_while_it_is_read_is_told(made, monkeypatch):
    def changes(raw, file):
        content = (raw / file).read_bytes()
        if file == "5.jpg":
            os.utime(raw / file, ns=(1, 1))
        return content

    monkeypatch.setattr(prepared, "read_source", changes)
    made.prepare()
    assert list(errors(made.folder)["image_id"]) == ["i00005"]
    assert errors(made.folder)["reason"][0].startswith("changed")
    monkeypatch.undo()
    monkeypatch.setenv("DATA", str(made.folder.parent))
    made.prepare()
    assert errors(made.folder).empty


def test_another_specification_prepares_all_again(made):
    made.prepare()
    first = images(made.folder)
    stage.prepare_images(made.competition, (16,), 2)
    assert images(made.folder).equals(first)  # sizes change no row
    task = Task(
        title="made", labels=("target",), numeric=("age",), resize=Resize(fit="long", channels=1)
    )
    changed = Competition(
        "made", task, (), None, Blend(), made.competition.submission, made.competition.module
    )
    before = stamps(made.folder)
    stage.prepare_images(changed, (16,), 2)
    assert all(
        after != before[path] for path, after in stamps(made.folder).items() if "/16/" in path
    )
    assert (
        cv2.imread(str(made.folder / "images" / "16" / "i00000.jpg"), cv2.IMREAD_UNCHANGED).ndim
        == 2
    )


def melanoma_raw(folder: Path, count: int) -> None:
    """A small download in the organiser's layout, images large enough to take a while."""
    raw = folder / "melanoma" / "raw"
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        (raw / "jpeg" / split).mkdir(parents=True)
        ids = [f"ISIC_{i:07d}" for i in range(count)] if split == "train" else ["ISIC_9000000"]
        for name in ids:
            pixels = cv2.resize(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8), (1200, 900))
            cv2.imwrite(str(raw / "jpeg" / split / f"{name}.jpg"), pixels)
        table = pd.DataFrame(
            {
                "image_name": ids,
                "patient_id": [f"IP_{i // 3}" for i in range(len(ids))],
                "sex": "male",
                "age_approx": 45,
                "anatom_site_general_challenge": "torso",
            }
        )
        if split == "train":
            table = table.assign(
                diagnosis="nevus",
                benign_malignant="benign",
                target=[i % 2 for i in range(len(ids))],
            )
        table.to_csv(raw / f"{split}.csv", index=False)


def start(data: Path) -> subprocess.Popen:
    environment = {**os.environ, "DATA": str(data), "SMOKE": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "pipeline.prepare", "melanoma", "--workers", "1"],
        env=environment,
        cwd=Path(__file__).parents[1],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def journalled(data: Path) -> int:
    return sum(
        path.read_bytes().count(b"\n")
        for path in (data / "melanoma" / "prepare").glob("*/*/*.jsonl*")
    )


def wait_until(condition, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)


def test_a_kill_loses_no_more_than_the_images_in_hand_and_two_at_once_share(tmp_path):
    count = 150
    melanoma_raw(tmp_path, count)
    interrupted = start(tmp_path)
    wait_until(lambda: journalled(tmp_path) >= 5)
    interrupted.send_signal(signal.SIGINT)
    assert "interrupted" in interrupted.communicate(timeout=60)[0] and interrupted.returncode == 130
    killed = start(tmp_path)
    wait_until(lambda: journalled(tmp_path) >= 20)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    done = journalled(tmp_path)
    before = stamps(tmp_path / "melanoma")
    assert 20 <= done <= count and not (tmp_path / "melanoma" / "images.csv").exists()
    both = [start(tmp_path), start(tmp_path)]
    output = [process.communicate(timeout=120)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], output
    table = images(tmp_path / "melanoma")
    assert len(table) == count + 1 and table["image_id"].is_unique
    after = stamps(tmp_path / "melanoma")
    kept = sum(after[path] == before[path] for path in before)
    sizes = len([path for path in (tmp_path / "melanoma" / "images").iterdir() if path.is_dir()])
    assert kept >= (done - 1) * sizes  # a line cut short by the kill at most
    assert not list((tmp_path / "melanoma" / "images").rglob(".*"))


def test_many_images_are_spread_over_folders(made, monkeypatch):
    """Found there by whoever reads them, repaired there; a folder that has images stays as it
    is."""
    monkeypatch.setattr(stage, "MOST_IN_A_FOLDER", 11)
    made.prepare()
    ids = list(made.table["image_id"])
    for size in SIZES:
        folder = made.folder / "images" / str(size)
        assert len(list(folder.iterdir())) == 256 and not list(folder.glob("*.jpg"))
        assert sorted(path.stem for path in folder.glob("??/*.jpg")) == sorted(ids)
        assert all(image.read() for image in prepared_images("made", size, ids))

    lost = image_path("made", SIZES[0], ids[3])
    content = lost.read_bytes()
    lost.write_bytes(b"damaged")
    with pytest.raises(UserError, match="make prepare COMP=made"):
        prepared_images("made", SIZES[0], ids)[3].read()
    made.prepare()
    assert lost.read_bytes() == content


def test_a_folder_that_has_images_is_not_spread(made, monkeypatch):
    made.prepare()
    before = stamps(made.folder)
    monkeypatch.setattr(stage, "MOST_IN_A_FOLDER", 11)
    made.prepare()
    assert stamps(made.folder) == before


@pytest.mark.slow
def test_ten_thousand_files_with_two_hundred_bad_ones(made):
    bad = {
        bad_files.make(made.raw, kind, seed): kind for kind in bad_files.KINDS for seed in range(10)
    }
    good = []
    for seed in range(9800):
        good.append(f"{seed % 100}/{seed}.jpg")
        (made.raw / good[-1]).parent.mkdir(exist_ok=True)
        (made.raw / good[-1]).write_bytes(bad_files.encoded(seed))
    files = [*good, *bad]
    made.table = rows_of([files[i] for i in np.random.default_rng(0).permutation(len(files))])
    made.prepare()
    assert len(images(made.folder)) == 9800
    reported = errors(made.folder)
    assert len(reported) == 200
    for row in reported.itertuples():
        assert row.reason.startswith(bad_files.REASONS[bad[row.file]]), row.file


# What is right for each awkward file: "image" (pixels as Pillow's first frame, upright), 16-bit
# kinds apart, or the beginning of the reason.
AWKWARD = {
    "pillow__16_bit_binary.pgm": "16 bit",
    "pillow__hopper_16bit.pgm": "16 bit",
    "pillow__i_trns.png": "16 bit",
    "pillow__broken.png": "truncated",
    "pillow__bw_gradient.imt": "not an image",
    "pillow__decompression_bomb.gif": "too large",
    "pillow__decompression_bomb.ico": "not an image",
    "pillow__eps__zero_bb.eps": "not an image",
    "pillow__eps__zero_bb_emptyline.eps": "not an image",
    "pillow__eps__zero_bb_eof_before_boundingbox.eps": "not an image",
    "pillow__truncated_end_chunk.png": "truncated",
    "pillow__fli_oob__06r__reproducing": "not an image",
    "pillow__unimplemented_dxgi_format.dds": "not an image",
    "pillow__unimplemented_pfflags.dds": "not an image",
    "pillow__unimplemented_pixel_format.dds": "not an image",
    "pillow__zero_height.j2k": "no pixels",
    "index.csv": "not an image",
    "ivmartel__dwv-test_no-number-rows.dcm": "no pixels",
    "robyoung__MR_truncated.dcm": "truncated",
}
AWKWARD_FILES = sorted([*SHARED.glob("awkward/*"), *SHARED.glob("dicom/*")])


@pytest.mark.skipif(not AWKWARD_FILES, reason=f"no awkward files in {SHARED}")
@pytest.mark.parametrize("path", AWKWARD_FILES, ids=lambda path: path.name)
def test_awkward_files(path):
    right = AWKWARD.get(path.name, "image")
    if right not in ("image", "16 bit"):
        with pytest.raises(UnreadableImage, match=f"^{right}"):
            decode(path.read_bytes())
        return
    pixels = decode(path.read_bytes()).pixels.astype(int)
    if path.suffix == ".dcm":
        assert np.abs(pixels - by_pydicom(path)).max() <= 1
    elif right == "16 bit":
        values = by_pillow(path).astype(float)
        full = next(top for top in (255, 4095, 65535) if values.max() <= top)
        assert np.abs(pixels - values * 255 / full).max() <= 0.5
    else:
        assert np.array_equal(pixels, by_pillow(path))


def by_pillow(path: Path) -> np.ndarray:
    """Upright, alpha dropped: gray where the file is gray, else BGR; the values themselves where
    they have 16 bits."""
    from PIL import Image, ImageOps

    image = ImageOps.exif_transpose(Image.open(path))
    if image.mode.startswith("I"):
        return np.asarray(image)
    if image.mode in ("1", "L"):
        return np.asarray(image.convert("L"))
    pixels = np.asarray(image.convert("RGB"))[:, :, ::-1]
    return pixels[:, :, 0] if image.mode == "LA" else pixels


def by_pydicom(path: Path) -> np.ndarray:
    """As pydicom's own functions show it, scaled to 0..255 over the range of the stored bits."""
    import pydicom
    from pydicom.pixels import apply_modality_lut, apply_voi_lut

    dataset = pydicom.dcmread(path, force=True)
    pixels = dataset.pixel_array
    if pixels.ndim == 3:
        return pixels[:, :, ::-1]
    if dataset.get("WindowWidth"):
        low = dataset.get("RescaleIntercept", 0)
        top = low + dataset.get("RescaleSlope", 1) * (2**dataset.BitsStored - 1)
        pixels = (
            (apply_voi_lut(apply_modality_lut(pixels, dataset), dataset) - low) / (top - low) * 255
        )
    return 255 - pixels if dataset.PhotometricInterpretation == "MONOCHROME1" else pixels


def test_brightness_and_bytes_are_the_files_own(made):
    made.prepare()
    for row in images(made.folder).itertuples():
        content = (made.raw / row.file).read_bytes()
        assert row.file_bytes == len(content)
        gray = Image.open(io.BytesIO(content)).convert("L")
        assert row.brightness == pytest.approx(np.asarray(gray).mean(), abs=0.6)


def test_an_older_images_csv_keeps_its_columns(made):
    """Weights carry the hash of images.csv: preparing another size must not change it."""
    made.prepare()
    path = made.folder / "images.csv"
    older = images(made.folder).drop(columns=["brightness", "file_bytes"])
    older.to_csv(path, index=False, lineterminator="\n")
    before = path.read_bytes()
    stage.prepare_images(made.competition, (*SIZES, 32), 2)
    assert path.read_bytes() == before
