"""Made patients: who they are, what they have, and the rows that the organisers' tables would hold
about them.

Every function draws from the generator it is given and returns a table with a row a picture.
Columns beside the organiser's say how to draw it: `number` (of the patient, whose style all his
pictures share), `severity` and `view`.

A label follows from the columns (age, sex, site: a signal of their own), and from a risk of the
patient's that no column tells, so that a patient's pictures share labels as well as looks and a
split by picture leaks.
"""

import numpy as np
import pandas as pd

SITE = "anatom_site_general_challenge"
SITES = ("head/neck", "upper extremity", "lower extremity", "torso", "palms/soles", "oral/genital")
SITE_SHARES = (0.08, 0.15, 0.25, 0.5, 0.015, 0.005)

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
PREVALENCE = (
    0.14,
    0.26,
    0.10,
    0.20,
    0.36,
)  # of the drawn findings; the data set's own, rarer ones raised a little
UNCERTAIN = (
    0.04,
    0.06,
    0.12,
    0.15,
    0.05,
)  # chance that a study's label of each is -1, as in the data set
SEVERITY_NOISE = 0.3  # of the pictures; the label moves it by 1


def numbered(rng: np.random.Generator, count: int, below: int = 10_000_000) -> np.ndarray:
    """`count` different numbers below `below`, in random order."""
    found = np.unique(rng.integers(0, below, count + count // 8 + 16))
    while len(found) < count:
        found = np.union1d(found, rng.integers(0, below, count))
    return rng.permutation(found)[:count]


def owners(
    rng: np.random.Generator, count: int, fewest: int, share: float, most: int
) -> np.ndarray:
    """The patient, 0 upward, of each of `count` pictures: geometric numbers of pictures, `fewest`
    to `most` each."""
    sizes = np.minimum(fewest - 1 + rng.geometric(share, count), most)
    return np.repeat(np.arange(count), sizes)[:count]


def happens(rng: np.random.Generator, odds: np.ndarray, rate: float) -> np.ndarray:
    """Bool: the chances expit(odds + c), with c such that they average `rate`; their number is
    exact to 1."""
    low, high = -30.0, 30.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (
            (middle, high) if (1 / (1 + np.exp(-odds - middle))).mean() < rate else (low, middle)
        )
    order = rng.permutation(len(odds))
    total = np.cumsum(1 / (1 + np.exp(-odds[order] - low))) + rng.random()
    drawn = np.empty(len(odds), bool)
    drawn[order] = np.diff(np.floor(total), prepend=0) > 0
    return drawn


def missing(rng: np.random.Generator, count: int, share: float) -> np.ndarray:
    """Bool, true for about that share."""
    return rng.random(count) < share


def skin_rows(rng: np.random.Generator, count: int, rate: float, first: int = 0) -> pd.DataFrame:
    """SIIM-ISIC's train.csv for `count` pictures, `rate` of them melanomas; image_name and
    patient_id stay blank."""
    owner = owners(rng, count, 2, 0.35, 12)
    patients = owner[-1] + 1
    age = np.clip(np.round(rng.normal(50, 16, patients) / 5) * 5, 10, 90)[owner]
    male = rng.random(patients)[owner] < 0.52
    site = rng.choice(SITES, count, p=SITE_SHARES)
    odds = (
        1.2 * (age - 50) / 16
        + 0.6 * male
        + 1.0 * (site == "head/neck")
        + rng.normal(0, 2.0, patients)[owner]
    )
    target = happens(rng, odds, rate).astype(int)
    unknown = missing(rng, patients, 0.02)[owner]  # age and sex come from one form: both or neither
    return pd.DataFrame(
        {
            "image_name": "",
            "patient_id": "",
            "sex": np.where(unknown, None, np.where(male, "male", "female")),
            "age_approx": np.where(unknown, np.nan, age),
            SITE: np.where(missing(rng, count, 0.03), None, site),
            "diagnosis": np.where(
                target, "melanoma", np.where(rng.random(count) < 0.8, "unknown", "nevus")
            ),
            "benign_malignant": np.where(target, "malignant", "benign"),
            "target": target,
            "number": first + owner,
            "severity": target + rng.normal(0, SEVERITY_NOISE, count),
        }
    )


def chest_rows(rng: np.random.Generator, split: str, count: int, first: int) -> pd.DataFrame:
    """CheXpert's train.csv for about `count` views of patients from number `first`; Path begins at
    the split.

    One to three studies a patient in training, else one; most a frontal, some a lateral too, few a
    lateral only. `severity` holds five numbers a row.
    """
    owner = owners(rng, count, 1, 0.55, 3) if split == "train" else np.arange(count)
    patients = owner[-1] + 1
    age = np.clip(rng.normal(60, 17, patients).astype(int), 18, 90)[owner]
    male = rng.random(patients)[owner] < 0.59
    illness = (0.9 * (age - 60) / 17 + 0.3 * male + rng.normal(0, 0.7, patients)[owner])[:, None]
    portable = rng.random(count) < 0.5 + 0.1 * np.clip(illness[:, 0], -2, 2)
    odds = illness + 0.6 * portable[:, None] + rng.normal(0, 0.7, (patients, 5))[owner]
    sick = np.column_stack([happens(rng, odds[:, k], PREVALENCE[k]) for k in range(5)])
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
    rows = views_of(rng, studies)[:count].reset_index(drop=True)
    present = sick[rows["row"]]
    rows["severity"] = list(present + rng.normal(0, 0.25, present.shape) * (1 + present))
    rows["Path"] = [
        f"{split}/patient{row.number:05d}/study{row.study}/view{row.order}_{row.side.lower()}.jpg"
        for row in rows.itertuples()
    ]
    return rows.rename(columns={"side": "Frontal/Lateral"})[
        ["Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *FINDINGS, "number", "severity", "view"]
    ]


def views_of(rng: np.random.Generator, studies: pd.DataFrame) -> pd.DataFrame:
    """One row a view: frontal (AP where portable, else PA), beside 40 % of the PA ones a lateral,
    few laterals only."""
    frontal = studies.assign(
        side="Frontal", order=1, view=np.where(studies["portable"], "AP", "PA")
    )
    frontal["AP/PA"] = frontal["view"]
    lateral = studies.assign(side="Lateral", order=2, view="Lateral", **{"AP/PA": None})
    draw = rng.random(len(studies))
    alone = ~studies["portable"] & (draw > 0.94)
    both = pd.concat(
        [
            frontal[~alone],
            lateral[~studies["portable"] & (draw < 0.4)],
            lateral[alone].assign(order=1),
        ]
    )
    return both.sort_values(["row", "order"])


def written_labels(rng: np.random.Generator, sick: np.ndarray, split: str) -> np.ndarray:
    """(studies, 14): in training 1, -1, 0 or NaN (blank), as a labeler of reports writes them;
    elsewhere 1 or 0."""
    count, train = len(sick), split == "train"
    written = np.full((count, len(FINDINGS)), np.nan if train else 0.0)
    for k, name in enumerate(DRAWN):
        said = np.where(sick[:, k], 1.0, np.where(train & (rng.random(count) < 0.7), np.nan, 0.0))
        doubtful = train & missing(rng, count, UNCERTAIN[k])
        written[:, FINDINGS.index(name)] = np.where(doubtful, -1.0, said)
    written[~sick.any(axis=1), FINDINGS.index("No Finding")] = 1.0
    written[sick[:, 1:4].any(axis=1), FINDINGS.index("Lung Opacity")] = 1.0
    written[rng.random(count) < 0.5, FINDINGS.index("Support Devices")] = 1.0
    return written


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
PLACES = (
    "Torso Back Top Third",
    "Torso Front Top Half",
    "Left Leg - Upper",
    "Right Arm - Lower",
    "Head & Neck",
)


def tile_rows(rng: np.random.Generator, count: int, rate: float, first: int = 0) -> pd.DataFrame:
    """ISIC 2024's train-metadata.csv for `count` tiles, its 55 columns; isic_id and patient_id are
    left blank."""
    owner = owners(rng, count, 4, 0.1, 60)
    patients = owner[-1] + 1
    age = np.clip(np.round(rng.normal(58, 13, patients) / 5) * 5, 5, 85)[owner]
    male = rng.random(patients)[owner] < 0.66
    odds = 0.7 * (age - 58) / 13 + 0.3 * male + rng.normal(0, 1.0, patients)[owner]
    target = happens(rng, odds, rate).astype(int)
    size = np.round(np.exp(rng.normal(1.2, 0.35, count) + 0.25 * target), 2)
    place = rng.integers(0, len(PLACES), count)
    facts = {f"tbp_lv_{name}": np.round(rng.normal(10, 3, count), 4) for name in TBP}
    lesions = [f"IL_{number:07d}" for number in numbered(rng, count)]
    facts |= {
        "tbp_lv_areaMM2": np.round(0.6 * size**2, 4),
        "tbp_lv_norm_color": rng.gamma(2, 1, count) + target,
        "tbp_lv_location": np.array(PLACES)[place],
        "tbp_lv_location_simple": np.array(
            [name.split(" -")[0].split(" Top")[0] for name in PLACES]
        )[place],
    }
    return pd.DataFrame(
        {
            "isic_id": "",
            "target": target,
            "patient_id": "",
            "age_approx": np.where(missing(rng, patients, 0.02)[owner], np.nan, age),
            "sex": np.where(
                missing(rng, patients, 0.03)[owner], None, np.where(male, "male", "female")
            ),
            "anatom_site_general": np.array(
                (
                    "posterior torso",
                    "anterior torso",
                    "lower extremity",
                    "upper extremity",
                    "head/neck",
                )
            )[place],
            "clin_size_long_diam_mm": size,
            "image_type": "TBP tile: close-up",
            "tbp_tile_type": np.where(rng.random(patients)[owner] < 0.7, "3D: XP", "3D: white"),
            **facts,
            "attribution": "Made data",
            "copyright_license": "CC-0",
            "lesion_id": np.where(missing(rng, count, 0.95) & (target == 0), None, lesions),
            "iddx_full": np.where(target, "Malignant", "Benign"),
            "iddx_1": np.where(target, "Malignant", "Benign"),
            **dict.fromkeys(
                ("iddx_2", "iddx_3", "iddx_4", "iddx_5", "mel_mitotic_index", "mel_thick_mm")
            ),
            "tbp_lv_dnn_lesion_confidence": np.round(rng.uniform(50, 100, count), 4),
            "number": first + owner,
            "severity": target + rng.normal(0, SEVERITY_NOISE, count),
        }
    )
