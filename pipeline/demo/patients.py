"""Synthetic patients: who they are, what they have, and the rows that the organisers' tables would
hold about them.

Every function draws from the generator it is given and returns a table with one row for each image.
Columns beside the organiser's say how to draw it: `number` (of the patient, whose style all his
images share), `severity` and `view`.

A label follows from the columns (age, sex, site: a signal of their own), and from a risk of the
patient's that no column shows, so that a patient's images share labels as well as looks and a
split by image leaks.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

SITE = "anatom_site_general_challenge"
SITES = ("head/neck", "upper extremity", "lower extremity", "torso", "palms/soles", "oral/genital")
SITE_SHARES = (0.08, 0.15, 0.25, 0.5, 0.015, 0.005)
# Of the images of the SIIM-ISIC and ISIC 2024 downloads. The real rates are 1.8 % and 0.1 %: of 640
# images, 11 and one at most, too few for five folds.
MELANOMA_RATE = 0.07

FINDINGS = (
    "No Finding",
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Opacity",
    "Lung Lesion",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Pleural Other",
    "Fracture",
    "Support Devices",
)
DRAWN = ("Cardiomegaly", "Edema", "Consolidation", "Atelectasis", "Pleural Effusion")
# Of the drawn findings: the data set's own shares, the rarer ones raised a little.
PREVALENCE = (0.14, 0.26, 0.10, 0.20, 0.36)
# Chance that a study's label of each is -1, as in the data set.
UNCERTAIN = (0.04, 0.06, 0.12, 0.15, 0.05)
SEVERITY_NOISE = 0.3  # standard deviation over the images of a label; the label moves it by 1


def numbered(rng: np.random.Generator, count: int, below: int = 10_000_000) -> np.ndarray:
    """`count` different numbers below `below`, in random order."""
    # An eighth more than needed, since some are drawn twice; in order of size, so shuffled.
    numbers = np.unique(rng.integers(0, below, count + count // 8 + 16))
    while len(numbers) < count:
        numbers = np.union1d(numbers, rng.integers(0, below, count))
    return rng.permutation(numbers)[:count]


def name_rows(
    rng: np.random.Generator, tables: Sequence[pd.DataFrame], column: str
) -> tuple[str, str]:
    """Give the rows of all tables their image ids (into `column`) and patient ids, in place; return
    one of each to spare.

    ISIC_0015719, IP_7279968: seven digits, in no order.
    """
    # Of one draw, so that no id is in two tables; one more than needed of each.
    rows_in_all = sum(map(len, tables))
    patients_in_all = 1 + max(int(rows["number"].max()) for rows in tables)
    images = [f"ISIC_{number:07d}" for number in numbered(rng, rows_in_all + 1)]
    patients = [f"IP_{number:07d}" for number in numbered(rng, patients_in_all + 1)]

    # Images take theirs in order, patients by their number.
    start = 0
    for rows in tables:
        rows[column] = images[start : start + len(rows)]
        rows["patient_id"] = [patients[number] for number in rows["number"]]
        start += len(rows)
    return images[start], patients[-1]


def owners(
    rng: np.random.Generator, count: int, fewest: int, share: float, most: int
) -> np.ndarray:
    """The patient, 0 upward, of each of `count` images: geometric numbers of images, `fewest` to
    `most` each."""
    sizes = np.minimum(fewest - 1 + rng.geometric(share, count), most)
    return np.repeat(np.arange(count), sizes)[:count]


def happens(rng: np.random.Generator, odds: np.ndarray, rate: float) -> np.ndarray:
    """Which of N events happen, bool (N,): likelier ones more often, and in all a part of `rate`.

    The chances are expit(odds + c), with c such that they average `rate`; the number of events is
    exact to 1.
    """
    # The constant c by bisection: 60 halvings of [-30, 30] leave less than 1e-16 of it.
    low = -30.0
    high = 30.0
    for _ in range(60):
        middle = (low + high) / 2
        if expit(odds + middle).mean() < rate:
            low = middle
        else:
            high = middle

    # Systematic sampling: an event wherever the running sum of chances passes a whole number. Drawn
    # one by one, 7 % of 50 images would be none in one seed of 37.
    order = rng.permutation(len(odds))
    total = np.cumsum(expit(odds[order] + low)) + rng.random()
    drawn = np.empty(len(odds), bool)
    drawn[order] = np.diff(np.floor(total), prepend=0) > 0
    return drawn


def expit(odds: np.ndarray) -> np.ndarray:
    """The logistic function: log odds to chances."""
    return 1 / (1 + np.exp(-odds))


def missing_mask(rng: np.random.Generator, count: int, share: float) -> np.ndarray:
    """What is missing, bool (count,): true for about that share."""
    return rng.random(count) < share


def skin_rows(rng: np.random.Generator, count: int, rate: float, first: int = 0) -> pd.DataFrame:
    """SIIM-ISIC's train.csv for `count` images, `rate` of them melanomas; image_name and patient_id
    stay blank.

    Patients are numbered from `first`; each has 2 to 12 images.
    """
    # The patient's own facts, repeated for each of his images; the site is the image's.
    owner = owners(rng, count, 2, 0.35, 12)
    patients = owner[-1] + 1
    age = np.clip(np.round(rng.normal(50, 16, patients) / 5) * 5, 10, 90)[owner]
    male = rng.random(patients)[owner] < 0.52
    site = rng.choice(SITES, count, p=SITE_SHARES)

    # The label: from the columns, and from a risk that no column shows.
    risk = rng.normal(0, 2.0, patients)[owner]
    odds = 1.2 * (age - 50) / 16 + 0.6 * male + 1.0 * (site == "head/neck") + risk
    target = happens(rng, odds, rate).astype(int)

    # What the table leaves out; age and sex come from one form: both are missing, or neither.
    unknown = missing_mask(rng, patients, 0.02)[owner]
    site_missing = missing_mask(rng, count, 0.03)
    benign = np.where(rng.random(count) < 0.8, "unknown", "nevus")
    return pd.DataFrame(
        {
            "image_name": "",
            "patient_id": "",
            "sex": np.where(unknown, None, np.where(male, "male", "female")),
            "age_approx": np.where(unknown, np.nan, age),
            SITE: np.where(site_missing, None, site),
            "diagnosis": np.where(target, "melanoma", benign),
            "benign_malignant": np.where(target, "malignant", "benign"),
            "target": target,
            "number": first + owner,
            "severity": target + rng.normal(0, SEVERITY_NOISE, count),
        }
    )


def chest_rows(rng: np.random.Generator, split: str, count: int, first: int) -> pd.DataFrame:
    """CheXpert's train.csv for about `count` views of patients from number `first`; Path begins at
    the split.

    One to three studies a patient in training, else one; most have a frontal, some a lateral too, a
    few a lateral only. `severity` holds five numbers a row.
    """
    # Patients and their studies; the organiser's validation and test patients have one each.
    if split == "train":
        owner = owners(rng, count, 1, 0.55, 3)
    else:
        owner = np.arange(count)
    patients = owner[-1] + 1
    age = np.clip(rng.normal(60, 17, patients).astype(int), 18, 90)[owner]
    male = rng.random(patients)[owner] < 0.59

    # Findings: an illness of the patient's that all share, and a risk of each finding's own. Who is
    # ill is photographed in bed (portable), so that the view tells something too.
    illness = 0.9 * (age - 60) / 17 + 0.3 * male + rng.normal(0, 0.7, patients)[owner]
    portable = rng.random(count) < 0.5 + 0.1 * np.clip(illness, -2, 2)
    risks = rng.normal(0, 0.7, (patients, 5))[owner]
    odds = illness[:, None] + 0.6 * portable[:, None] + risks
    sick = np.column_stack([happens(rng, odds[:, k], PREVALENCE[k]) for k in range(5)])

    # One row a study, with the labels as its report has them; `row` leads back to `sick`.
    studies = pd.DataFrame(
        {
            "number": first + owner,
            "Sex": np.where(male, "Male", "Female"),
            "Age": age,
            "portable": portable,
            "study": 1 + pd.Series(owner).groupby(owner).cumcount(),
            **dict(zip(FINDINGS, written_labels(rng, sick, split).T)),
            "row": np.arange(count),
        }
    )

    # Views: the rows of the organiser's table.
    rows = views_of(rng, studies)[:count].reset_index(drop=True)
    present = sick[rows["row"]]
    rows["severity"] = list(present + rng.normal(0, 0.25, present.shape) * (1 + present))
    rows["Path"] = [
        f"{split}/patient{row.number:05d}/study{row.study}/view{row.order}_{row.side.lower()}.jpg"
        for row in rows.itertuples()
    ]
    rows = rows.rename(columns={"side": "Frontal/Lateral"})
    facts = ["Path", "Sex", "Age", "Frontal/Lateral", "AP/PA"]
    return rows[[*facts, *FINDINGS, "number", "severity", "view"]]


def views_of(rng: np.random.Generator, studies: pd.DataFrame) -> pd.DataFrame:
    """One row for each view: frontal (AP where portable, else PA); of the PA studies 40 % have a
    lateral too and 6 % a lateral only."""
    projection = np.where(studies["portable"], "AP", "PA")
    frontal = studies.assign(side="Frontal", order=1, view=projection)
    frontal["AP/PA"] = projection
    lateral = studies.assign(side="Lateral", order=2, view="Lateral", **{"AP/PA": None})
    # A patient in bed is not turned on the side: no lateral beside an AP.
    draw = rng.random(len(studies))
    lateral_too = ~studies["portable"] & (draw < 0.4)
    lateral_only = ~studies["portable"] & (draw > 0.94)
    # Views are numbered within a study from 1, whichever they are.
    alone = lateral[lateral_only].assign(order=1)
    views = [frontal[~lateral_only], lateral[lateral_too], alone]
    return pd.concat(views).sort_values(["row", "order"])


def written_labels(rng: np.random.Generator, sick: np.ndarray, split: str) -> np.ndarray:
    """The labels as train.csv has them, (studies, 14).

    In training 1, -1, 0 or NaN (blank), as a labeler of reports writes them; elsewhere 1 or 0.
    """
    count = len(sick)
    train = split == "train"
    written = np.full((count, len(FINDINGS)), np.nan if train else 0.0)

    # The five drawn findings.
    for k, name in enumerate(DRAWN):
        # A report seldom says what is absent: 70 % of the negatives stay blank.
        negative = np.where(train & (rng.random(count) < 0.7), np.nan, 0.0)
        certain = np.where(sick[:, k], 1.0, negative)
        doubtful = train & missing_mask(rng, count, UNCERTAIN[k])
        written[:, FINDINGS.index(name)] = np.where(doubtful, -1.0, certain)

    # Three of the others, which no task reads: a reader must find his columns by name.
    written[~sick.any(axis=1), FINDINGS.index("No Finding")] = 1.0
    written[sick[:, 1:4].any(axis=1), FINDINGS.index("Lung Opacity")] = 1.0
    written[rng.random(count) < 0.5, FINDINGS.index("Support Devices")] = 1.0
    return written


# What the scanner measures, as columns tbp_lv_<name>.
TBP = (
    "A",
    "Aext",
    "B",
    "Bext",
    "C",
    "Cext",
    "H",
    "Hext",
    "L",
    "Lext",
    "areaMM2",
    "area_perim_ratio",
    "color_std_mean",
    "deltaA",
    "deltaB",
    "deltaL",
    "deltaLB",
    "deltaLBnorm",
    "eccentricity",
    "location",
    "location_simple",
    "minorAxisMM",
    "nevi_confidence",
    "norm_border",
    "norm_color",
    "perimeterMM",
    "radial_color_std_max",
    "stdL",
    "stdLExt",
    "symm_2axis",
    "symm_2axis_angle",
    "x",
    "y",
    "z",
)
# Places on the body: tbp_lv_location, tbp_lv_location_simple, anatom_site_general.
PLACES = np.array(
    [
        ("Torso Back Top Third", "Torso Back", "posterior torso"),
        ("Torso Front Top Half", "Torso Front", "anterior torso"),
        ("Left Leg - Upper", "Left Leg", "lower extremity"),
        ("Right Arm - Lower", "Right Arm", "upper extremity"),
        ("Head & Neck", "Head & Neck", "head/neck"),
    ]
)


def tile_metadata(
    rng: np.random.Generator, count: int, rate: float, first: int = 0
) -> pd.DataFrame:
    """ISIC 2024's train-metadata.csv for `count` tiles, its 55 columns; isic_id and patient_id are
    left blank.

    Patients are numbered from `first`; each has 4 to 60 tiles.
    """
    # The patient's own facts, repeated for each of his tiles.
    owner = owners(rng, count, 4, 0.1, 60)
    patients = owner[-1] + 1
    age = np.clip(np.round(rng.normal(58, 13, patients) / 5) * 5, 5, 85)[owner]
    male = rng.random(patients)[owner] < 0.66

    # The label, from age, sex and a risk that no column shows; then the lesion it is about.
    risk = rng.normal(0, 1.0, patients)[owner]
    odds = 0.7 * (age - 58) / 13 + 0.3 * male + risk
    target = happens(rng, odds, rate).astype(int)
    size = np.round(np.exp(rng.normal(1.2, 0.35, count) + 0.25 * target), 2)
    place = rng.integers(0, len(PLACES), count)

    # What the scanner measures; area and colour go with the label, the rest is noise.
    measured = {f"tbp_lv_{name}": np.round(rng.normal(10, 3, count), 4) for name in TBP}
    lesions = [f"IL_{number:07d}" for number in numbered(rng, count)]
    measured["tbp_lv_areaMM2"] = np.round(0.6 * size**2, 4)
    measured["tbp_lv_norm_color"] = rng.gamma(2, 1, count) + target
    measured["tbp_lv_location"] = PLACES[place, 0]
    measured["tbp_lv_location_simple"] = PLACES[place, 1]

    # What the table leaves out; every cancer has a lesion_id, few of the others do.
    age_missing = missing_mask(rng, patients, 0.02)[owner]
    sex_missing = missing_mask(rng, patients, 0.03)[owner]
    light = np.where(rng.random(patients)[owner] < 0.7, "3D: XP", "3D: white")
    lesion_missing = missing_mask(rng, count, 0.95) & (target == 0)
    diagnosis = np.where(target, "Malignant", "Benign")
    unknown = ("iddx_2", "iddx_3", "iddx_4", "iddx_5", "mel_mitotic_index", "mel_thick_mm")
    return pd.DataFrame(
        {
            "isic_id": "",
            "target": target,
            "patient_id": "",
            "age_approx": np.where(age_missing, np.nan, age),
            "sex": np.where(sex_missing, None, np.where(male, "male", "female")),
            "anatom_site_general": PLACES[place, 2],
            "clin_size_long_diam_mm": size,
            "image_type": "TBP tile: close-up",
            "tbp_tile_type": light,
            **measured,
            "attribution": "Made data",
            "copyright_license": "CC-0",
            "lesion_id": np.where(lesion_missing, None, lesions),
            "iddx_full": diagnosis,
            "iddx_1": diagnosis,
            **dict.fromkeys(unknown),
            "tbp_lv_dnn_lesion_confidence": np.round(rng.uniform(50, 100, count), 4),
            "number": first + owner,
            "severity": target + rng.normal(0, SEVERITY_NOISE, count),
        }
    )
