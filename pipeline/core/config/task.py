"""Configuration: frozen values in a competition's Python file, checked when they are made.

A competition is one file, `pipeline/competitions/<name>.py`, holding

    task        Task: what is predicted, for whom, and how the images are resized
    runs        a tuple of Run: one network at one resolution each
    trials      more runs, made only when they are named; may be left out
    modern      the same, of today's networks and recipes; RUN=modern names them all
    metadata    Metadata, or None: the network on patient columns; may be left out
    blend       Blend: how runs and metadata are averaged
    submission  Submission: the organiser's file
    published   (stage, AUC, what of) of the paper, for the report, stage "final" for what is
                submitted; may be left out
    auxiliary(raw) -> DataFrame, image_id and columns for `Run.auxiliary`; may be left out
    read_raw(raw)  -> DataFrame, a row an image (columns in `artifacts.tables.IMAGE_COLUMNS`)
    sample(raw)    -> DataFrame, the organiser's file to fill in: its ids, in its order
    masks(raw)     -> image_id -> label -> raw.masks.Mask, where findings are drawn; may be left out

`dataclasses.replace` makes variants; a misspelt field is a TypeError; a wrong value is a UserError
that names it. Nothing is overridden from the command line, so an experiment is a line in that file
and hence in git.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from pipeline.core.runtime.errors import UserError

# A value of Task.folds: the organiser's validation set is fold 0, everyone else always trains.
OFFICIAL = "official"


def require(condition: bool, owner: object, message: str) -> None:
    """Raise a UserError that names the class of `owner` unless `condition` holds."""
    if not condition:
        raise UserError(f"{type(owner).__name__}: {message}")


def require_in(owner: object, name: str, allowed: tuple) -> None:
    """Raise unless the field is one of the allowed values."""
    value = getattr(owner, name)
    choices = ", ".join(map(repr, allowed))
    require(value in allowed, owner, f"{name}={value!r} is none of {choices}")


def require_between(owner: object, name: str, low: float, high: float = float("inf")) -> None:
    """Raise unless low <= field <= high."""
    value = getattr(owner, name)
    require(low <= value <= high, owner, f"{name}={value!r} is not between {low} and {high}")


@dataclass(frozen=True, kw_only=True)
class Resize:
    """How an image becomes size x size, in training and at inference alike.

    fit       "square": both sides to size, the aspect ratio changes (the paper's CheXpert);
              "short": the short side to size, the centre cut out square; "long": the long side to
              size, the rest padded
    channels  1 or 3: gray images stay one channel on disk and until the device
    exact     decode in full before averaging; otherwise at the smallest JPEG scale that keeps 55 dB
    quality   JPEG quality of what is stored
    pad       gray level of padding, 0 to 255
    largest   sizes up to this one come from one decode, whichever of them are prepared, so that
              inference at one size sees the pixels that training saw; set it to the largest run's
              size where that is smaller
    """

    fit: str = "square"
    channels: int = 3
    exact: bool = False
    quality: int = 95  # at 384 pixels 45 dB, 47 KB an image
    pad: int = 0
    largest: int = 768  # of the paper's melanoma networks

    def __post_init__(self) -> None:
        require_in(self, "fit", ("square", "short", "long"))
        require_in(self, "channels", (1, 3))
        require_between(self, "quality", 1, 100)
        require_between(self, "pad", 0, 255)
        # Twice the largest size of a run; as a colour image 0.2 GB.
        require_between(self, "largest", 1, 8192)


@dataclass(frozen=True, kw_only=True)
class Uncertain:
    """What a label of -1 becomes in one phase.

    policy    "ones", "zeros" or "ignore"
    low, high the label is drawn uniformly from [low, high] once per image (label smoothing, Pham et
              al.); None keeps the hard 1 or 0
    """

    policy: str = "ignore"
    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        require_in(self, "policy", ("ones", "zeros", "ignore"))
        require((self.low is None) == (self.high is None), self, "low and high go together")
        # Pham et al.: ones are drawn from [0.55, 0.85], zeros from [0, 0.3].
        if self.low is not None:
            inside = 0 <= self.low <= self.high <= 1
            require(inside, self, f"low={self.low}, high={self.high} is not a part of [0, 1]")
            require(self.policy != "ignore", self, "an ignored label has no range")

    @property
    def smooth(self) -> bool:
        """True where the label is drawn from a range."""
        return self.low is not None


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is predicted, for whom, and what the rows mean.

    labels            columns of 1, 0, -1 (uncertain) and blank, in the order of every prediction
                      file
    numeric           patient columns that hold numbers; `categorical`: those that hold categories
    unit              what the organiser scores: "image" or "study" (rows of one unit_id)
    aggregate         image scores to a unit's score: "max", "mean" or "frontal_first"
    view              patient column that says Frontal or Lateral (needed by frontal_first)
    blank             what a blank label means: "negative", "ignore" or "error"
    uncertain_pretrain, uncertain_finetune   label -> Uncertain; labels not named are ignored where
                                             uncertain
    folds             number of patient-grouped folds, or "official"
    scored_source     the value of `source` that is validated and scored; rows of other sources
                      always train; "" = all
    patient_missing   "error", or "own_group": an image without patient id is a patient of its own
    test_patients     training patients who are also in the test set: "report" or "drop" (from
                      training)
    metric            "auc" or "partial_auc" (above 80 % sensitivity)
    slug              the competition's name on Kaggle, "" when it is not there
    """

    title: str
    labels: tuple[str, ...]
    numeric: tuple[str, ...] = ()
    categorical: tuple[str, ...] = ()
    unit: str = "image"
    aggregate: str = "mean"
    view: str = ""
    blank: str = "error"
    uncertain_pretrain: Mapping[str, Uncertain] = field(default_factory=dict)
    uncertain_finetune: Mapping[str, Uncertain] = field(default_factory=dict)
    resize: Resize = Resize()
    folds: int | str = 5
    scored_source: str = ""
    patient_missing: str = "error"
    test_patients: str = "report"
    metric: str = "auc"
    slug: str = ""

    def __post_init__(self) -> None:
        # Labels name the columns of every table from here on, so each name is one column.
        require(bool(self.labels), self, "labels is empty")
        different = len(set(self.labels)) == len(self.labels)
        require(different, self, f"labels={self.labels!r} repeats one")

        # The choices.
        require_in(self, "unit", ("image", "study"))
        require_in(self, "aggregate", ("max", "mean", "frontal_first"))
        require_in(self, "blank", ("negative", "ignore", "error"))
        require_in(self, "patient_missing", ("error", "own_group"))
        require_in(self, "test_patients", ("report", "drop"))
        require_in(self, "metric", ("auc", "partial_auc"))

        # One fold would validate everyone and leave no one to train on.
        if self.folds != OFFICIAL:
            enough = isinstance(self.folds, int) and self.folds >= 2
            neither = f"folds={self.folds!r} is neither a number of 2 or more nor 'official'"
            require(enough, self, neither)
        if self.aggregate == "frontal_first":
            require(bool(self.view), self, "aggregate='frontal_first' needs view")

        # A misspelt label's policy would be ignored in silence; a smoothed label would stop stage 2
        # after the hours of stage 1.
        for name in (*self.uncertain_pretrain, *self.uncertain_finetune):
            unknown = f"an uncertainty policy names {name!r}, which is not in labels"
            require(name in self.labels, self, unknown)
        hard = "AUC losses take hard labels, so no low and high in uncertain_finetune"
        for name, policy in self.uncertain_finetune.items():
            require(not policy.smooth, self, f"{name}: {hard}")


@dataclass(frozen=True, kw_only=True)
class Blend:
    """How members are averaged.

    metadata the metadata network's weight; the image networks' mean has the rest
    method   "mean" of scores, "rank" within fold, or "quantile": ranks by maps frozen from the
             out-of-fold scores
    weights  "uniform"; "selected": Caruana's selection, used where the interval of its nested gain
             excludes 0; "earned": of means, blends, selection and a second level on patient
             columns, all scored nested, the one that has earned its place by the rule of
             `core.ensemble.second_level.candidates` (`method` and `metadata` then decide nothing)
    second_level  score these nested, side by side, also where they are not submitted
    """

    metadata: float = 0.5
    method: str = "mean"
    weights: str = "uniform"
    second_level: bool = False

    def __post_init__(self) -> None:
        require_between(self, "metadata", 0, 1)
        require_in(self, "method", ("mean", "rank", "quantile"))
        require_in(self, "weights", ("uniform", "selected", "earned"))


@dataclass(frozen=True, kw_only=True)
class Submission:
    """The organiser's file.

    file         its name
    id_column    the column of its ids
    columns      label -> column of its scores
    probability  scores must lie in [0, 1]
    """

    file: str
    id_column: str
    columns: Mapping[str, str]
    probability: bool = False
