"""Recipes: what one run trains, and how. Frozen values like those of `config/task.py`, checked when
they are made.

Standard library only: what the names of losses and normalisers mean is in `training/recipe.py` and
`losses/normalize.py`, which import torch; tests compare the lists.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from pipeline.core.config.task import Resize, require, require_between, require_in

# The choices of a recipe, written out rather than imported from where they are implemented: a
# competition's file and make's questions, answered within a second, need no torch.
LOSSES = ("aucm", "aucs", "pairwise", "sopa", "sopa_s", "sota_s", "ce", "focal")
POINTWISE = ("ce", "focal")  # of these, the ones that are a mean over labels, soft ones too
# The names of losses.partial.FORMS: partial AUCs, with a state for each training row.
PARTIAL = ("sopa", "sopa_s", "sota_s")
# The names of losses.pairwise.SURROGATES, which need torch; a test holds the two equal.
SURROGATES = ("square", "squared_hinge", "logistic", "barrier_hinge")
NORMALIZERS = ("none", "l2", "l2*sqrt_b", "sigmoid")
# "avg", and the names in networks/pooling.py; a test holds them equal.
POOLS = ("avg", "max", "lse", "gem", "pcam", "csra")
FEATURE_BAGS = ("attention",)  # of the ways to see a unit at once, those that pool features
BAGS = ("", "max", *FEATURE_BAGS)
PRECISIONS = ("auto", "fp32", "bf16", "fp16")
MEMBER_STAGES = ("finetuned", "pretrained", "both", "best")
# The fold in which all training rows train and none is validated.
ALL = "all"


@dataclass(frozen=True, kw_only=True)
class Augment:
    """Random views in training. Angles in degrees; shifts and hole sizes as parts of the side.

    probability  of the geometric part and of the holes
    photometric  probability of each change of colour, blur and noise
    """

    flip: bool = False
    rotate: float = 0.0
    translate: float = 0.0
    scale: float = 0.0
    shear: float = 0.0
    holes: int = 0
    hole_size: float = 0.1
    photometric: float = 0.0
    probability: float = 1.0

    def __post_init__(self) -> None:
        # Shears near 90 degrees have no bound: at 89 a side is moved by 57 times its length.
        require_between(self, "rotate", 0, 180)
        for name in ("translate", "scale", "hole_size", "photometric", "probability"):
            require_between(self, name, 0, 1)
        require_between(self, "shear", 0, 89)
        require_between(self, "holes", 0, 64)


@dataclass(frozen=True, kw_only=True)
class Auxiliary:
    """A column that stage 1 learns beside the labels: never validated, submitted or kept in the
    weights file, which has the features it helped to learn.

    column   of images.csv, or of the table that the competition's `auxiliary(raw)` gives
    classes  () = a label like the task's (1, 0; -1 and blank are left out); else the names of the
             classes of one softmax, any other value is left out
    weight   of its cross-entropy beside that of the labels
    """

    column: str
    classes: tuple[str, ...] = ()
    weight: float = 0.5

    def __post_init__(self) -> None:
        require_between(self, "weight", 1e-6, 100)
        different = len(set(self.classes)) == len(self.classes) != 1
        require(different, self, f"classes={self.classes!r} is not none or two or more")

    @property
    def outputs(self) -> int:
        """How many outputs of the network it takes."""
        return len(self.classes) or 1


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What the recipes of both stages share; the defaults do nothing, as in the paper.

    warmup_epochs  of a cosine: from 0 to lr on a straight line
    backbone_lr    the backbone's rate as a part of the classifier's
    layer_decay    the rate falls by this factor from layer to layer of the backbone, from its head
                   to the image; below 1, biases, norms and tokens have no weight decay (timm's
                   groups)
    clip           a longer gradient of all weights is shortened to this (L2), 0 = none is
    smoothing      s of label smoothing: a label y is trained as y + s (1/2 - y)
    mixup, cutmix  alpha of the Beta(alpha, alpha) that the share of each of two images is drawn
                   from, 0 = they are not mixed; with both, a step takes one of them by chance
    """

    warmup_epochs: float = 0.0
    backbone_lr: float = 1.0
    layer_decay: float = 1.0
    clip: float = 0.0
    smoothing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0

    def check_shared(self, is_cosine: bool) -> None:
        """Raise a UserError for values that these fields cannot have."""
        for name in ("warmup_epochs", "clip", "mixup", "cutmix"):
            require_between(self, name, 0)
        for name in ("backbone_lr", "layer_decay"):
            require_between(self, name, 1e-6, 1)
        # At 1 every label would be 1/2.
        require_between(self, "smoothing", 0, 0.99)
        alone = is_cosine or not self.warmup_epochs
        require(alone, self, f"warmup_epochs={self.warmup_epochs} needs schedule='cosine'")


@dataclass(frozen=True, kw_only=True)
class Pretrain(Stage):
    """Stage 1: cross-entropy on all layers with Adam (paper, section 4).

    lr             the constant rate, or the bottom of a triangle up to `lr_max` and back every
                   `cycle_epochs`, or the top of a cosine
    optimizer      "adam" (the paper; weight decay joins the gradient) or "adamw" (it does not)
    schedule       "constant" (or triangles), or "cosine": half a cosine from lr to 0
    negatives      so many images without a positive label for each with one, drawn anew for each
                   epoch; 0 = all of them
    labels_file    a CSV in data/<competition>: image_id, any of the labels (0 to 1, blank = as it
                   was), `weight` (>= 0, of the row) and `fold` (the row is for the network of that
                   fold only; blank = for all). Test images in it train too: pseudo-labels
    """

    lr: float
    lr_max: float | None = None
    cycle_epochs: int | None = None
    weight_decay: float = 1e-5  # the paper's, for every data set
    epochs: int = 2  # these two: the paper's CheXpert
    batch_size: int = 32
    optimizer: str = "adam"
    schedule: str = "constant"
    negatives: float = 0.0
    labels_file: str = ""

    def __post_init__(self) -> None:
        require_between(self, "lr", 1e-12, 1e3)
        require_between(self, "negatives", 0)
        name = self.labels_file
        plain = not name or (name.endswith(".csv") and "/" not in name)
        require(plain, self, f"labels_file={name!r} is not the name of a .csv")
        require_between(self, "weight_decay", 0)
        require_in(self, "optimizer", ("adam", "adamw"))
        require_in(self, "schedule", ("constant", "cosine"))
        is_cosine = self.schedule == "cosine"
        one = not is_cosine or self.lr_max is None
        require(one, self, "schedule='cosine' falls from lr; leave lr_max and cycle_epochs out")
        self.check_shared(is_cosine)
        # 0 epochs: the initial weights are kept as stage 1's.
        require_between(self, "epochs", 0)
        require_between(self, "batch_size", 1)
        together = (self.lr_max is None) == (self.cycle_epochs is None)
        require(together, self, "lr_max and cycle_epochs go together")


@dataclass(frozen=True, kw_only=True)
class Finetune(Stage):
    """Stage 2: a fresh classifier, then an AUC loss with PESG on all layers.

    layers        "all" (the paper), or "head": the fresh classifier alone, on a backbone that stays
                  as stage 1 left it, its BatchNorm too
    loss          "aucm" (AUC margin), "aucs" (AUC square), "pairwise" (over the batch's pairs),
                  "sopa", "sopa_s", "sota_s" (partial AUC with a state for each row: exact, soft,
                  soft in both classes), "ce" or "focal" (ablations)
    margin        m of equation 8, or of a pair; one value, or one per label (not for pairs)
    normalize     scores before the loss: "none", "l2" (the paper's BSN), "l2*sqrt_b", "sigmoid"
    dual          "sgd" (the paper) or "closed_form"
    gamma         weight of the proximal term, 1/500 in the paper; weight_decay is lambda
    optimizer     "pesg" (the paper), or "adamw": PESG whose weights follow AdamW's direction in
                  place of the gradient, with the same pull and decay beside it; no theorem of the
                  paper covers it
    dual_lr       the rate of the loss's a, b and alpha, on the schedule of lr; None: lr. They
                  always take the gradient itself
    schedule      "steps" (the paper), or "cosine": half a cosine from lr to 0, the milestones only
                  restart the reference
    milestones    where the rate is divided by `divide` and the reference restarts; in
                  `milestone_unit`s
    first_stage   T₀ > 0: the stages of PPD-SG instead of milestones, in `milestone_unit`s: stage k
                  takes T₀ · divide^k steps at lr / divide^k, begins at the mean of the one before,
                  and takes a, b, α from class means
    inner_lr      η₀ > 0: compositional training (PDSCA), whose gradients are taken after a step of
                  cross-entropy at this rate; two passes a step
    site_column   a column of images.csv that names hospitals which share no images (CODA), a
                  process each under torchrun; "process": each process has a DATA of its own
    site_steps    steps between two averages of the sites' weights
    site_control  control variates (CODASCA), for sites that differ
    positives     at least this many positives in each batch (class-aware sampling); 0 = plain
                  shuffling (the paper)
    surrogate     the loss of one pair: "square", "squared_hinge", "logistic", "barrier_hinge"
    hardest_negatives, hardest_positives
                  shares of a batch's classes whose pairs count: hardest_positives=0.2 trains for
                  the partial AUC above 80 % sensitivity; "sopa" takes one of the two
    temperature_negatives, temperature_positives
                  λ, how soft the choice of the hard images is: "sopa_s" takes one (positives: for
                  the area at high sensitivity), "sota_s" both
    state_rate    of those three: how fast a row's state follows its batches
    """

    layers: str = "all"
    loss: str = "aucm"
    lr: float = 0.1  # the paper's CheXpert; 0.01 for melanoma
    gamma: float = 1 / 500  # the paper tries 1/300, 1/500, 1/800
    weight_decay: float = 0.0
    momentum: float = 0.0  # algorithm 1 has none
    margin: float | tuple[float, ...] = 1.0
    normalize: str = "none"
    dual: str = "sgd"
    dual_lr: float | None = None
    optimizer: str = "pesg"
    schedule: str = "steps"
    prior: str | float | tuple[float, ...] = "batch"
    epochs: int = 2
    batch_size: int = 32
    milestones: tuple[int, ...] = ()
    milestone_unit: str = "step"
    divide: float = 3.0
    first_stage: int = 0
    inner_lr: float = 0.0
    site_column: str = ""
    site_steps: int = 8
    site_control: bool = False
    positives: int = 0
    surrogate: str = "squared_hinge"
    hardest_negatives: float = 1.0
    hardest_positives: float = 1.0
    temperature_negatives: float | None = None
    temperature_positives: float | None = None
    state_rate: float = 0.5

    def __post_init__(self) -> None:
        require_in(self, "layers", ("all", "head"))
        require_in(self, "loss", LOSSES)
        require_in(self, "surrogate", SURROGATES)
        require_in(self, "normalize", NORMALIZERS)
        require_in(self, "dual", ("sgd", "closed_form"))
        require_in(self, "milestone_unit", ("step", "epoch"))
        require_in(self, "optimizer", ("pesg", "adamw"))
        require_in(self, "schedule", ("steps", "cosine"))
        require_between(self, "lr", 1e-12, 1e3)
        if self.dual_lr is not None:
            require_between(self, "dual_lr", 1e-12, 1e3)
        self.check_shared(self.schedule == "cosine")
        self.check_adamw()
        rates = self.backbone_lr == self.layer_decay == 1
        still = "layers='head' trains no backbone, so no backbone_lr and no layer_decay"
        require(self.layers == "all" or rates, self, still)
        soft = self.loss in POINTWISE
        hard = f"loss={self.loss!r} takes hard labels, so no smoothing"
        require(soft or not self.smoothing, self, hard)
        neither = "compares images of one class with those of the other, and a mixed one is neither"
        mixed = f"loss={self.loss!r} {neither}: mixup and cutmix are for 'ce' and 'focal'"
        require(soft or self.mixup == self.cutmix == 0, self, mixed)
        for name in ("gamma", "weight_decay", "epochs", "positives"):
            require_between(self, name, 0)
        require_between(self, "momentum", 0, 0.999)
        for name in ("hardest_negatives", "hardest_positives"):
            require_between(self, name, 1e-6, 1)
        self.require_pair_fields()
        self.require_stages()
        self.require_sites()
        # An AUC loss compares the two classes of a batch; one image has one, and the loss is 0.
        require_between(self, "batch_size", 2)
        require_between(self, "divide", 1)
        increasing = list(self.milestones) == sorted(set(self.milestones))
        require(increasing, self, f"milestones={self.milestones!r} do not increase")
        no_room = f"positives={self.positives} leaves no room for negatives"
        require(self.positives < self.batch_size, self, no_room)

    def check_adamw(self) -> None:
        """Raise a UserError for what does not go with AdamW's direction."""
        if self.optimizer != "adamw":
            return
        own = "optimizer='adamw' has a momentum of its own"
        require(self.momentum == 0, self, f"{own}; leave momentum out")
        # AdamW moves a weight by about lr in a step whatever its gradient, so its rates are some
        # 1e-4, at which a, b and alpha, moved by lr times their gradient, would stand still.
        dual = self.loss == "aucs" or (self.loss == "aucm" and self.dual == "sgd")
        still = "optimizer='adamw' needs dual_lr, about 0.1, or dual='closed_form'"
        require(not dual or self.dual_lr is not None, self, still)
        systems = "first_stage and inner_lr take the gradient itself: optimizer='pesg'"
        require(not self.first_stage and not self.inner_lr, self, systems)

    def require_stages(self) -> None:
        """Raise for stages of PPD-SG or steps of PDSCA that lack what they need."""
        require_between(self, "first_stage", 0)
        require_between(self, "inner_lr", 0, 1e3)
        if self.inner_lr:
            ahead = f"inner_lr={self.inner_lr}"
            require(self.loss in ("aucm", "aucs"), self, f"{ahead} takes loss='aucm' or 'aucs'")
            require(self.momentum == 0, self, f"{ahead} averages gradients; leave momentum out")
            require(not self.first_stage, self, f"{ahead} and first_stage: take one of the two")
            require(self.dual_lr is None, self, f"{ahead} takes one rate: leave dual_lr out")
            require(self.dual_lr is None, self, f"{ahead} has one rate; leave dual_lr out")
        if not self.first_stage:
            return
        stages = f"first_stage={self.first_stage}"
        require(self.schedule == "steps", self, f"{stages} sets the rate; leave the cosine out")
        require(
            not self.milestones, self, f"{stages} takes the place of milestones; leave them out"
        )
        saddle = self.loss in ("aucm", "aucs") and self.dual == "sgd"
        require(saddle, self, f"{stages} restarts α: loss='aucm' or 'aucs' with dual='sgd'")
        require(self.gamma > 0, self, f"{stages} goes on from a mean that gamma=0 does not keep")
        require(self.momentum == 0, self, f"{stages} takes momentum=0, as PPD-SG does")
        require(self.schedule == "steps", self, f"{stages} divides the rate: schedule='steps'")

    def require_sites(self) -> None:
        """Raise for what sites that share no images do not go with."""
        require_between(self, "site_steps", 1)
        if not self.site_column:
            require(not self.site_control, self, "site_control needs a site_column")
            return
        sites = f"site_column={self.site_column!r}"
        saddle = self.loss in ("aucm", "aucs") and self.dual == "sgd"
        require(saddle, self, f"{sites} takes loss='aucm' or 'aucs' with dual='sgd'")
        plain = self.momentum == self.first_stage == self.inner_lr == 0
        require(plain, self, f"{sites} takes no momentum, first_stage or inner_lr")
        gradient = self.optimizer == "pesg" and self.dual_lr is None
        require(gradient, self, f"{sites} takes optimizer='pesg' and no dual_lr")

    def require_pair_fields(self) -> None:
        """Raise for fields of losses over pairs that are missing or would do nothing."""
        # Pairs take scores as they are and one margin.
        name = f"loss={self.loss!r}"
        if self.loss == "pairwise" or self.loss in PARTIAL:
            require(self.normalize == "none", self, f"{name} takes normalize='none'")
            require(isinstance(self.margin, float | int), self, f"{name} takes one margin")

        # How many shares below 1, and how many temperatures, each loss takes.
        shares = (self.hardest_negatives < 1) + (self.hardest_positives < 1)
        given = [self.temperature_negatives, self.temperature_positives]
        temperatures = [value for value in given if value is not None]
        for value in temperatures:
            require(value > 0, self, f"a temperature of {value} is not above 0")
        allowed = {"pairwise": (0, 1, 2), "sopa": (1,)}.get(self.loss, (0,))
        wrong = "need loss='pairwise' or 'sopa'" if allowed == (0,) else "of one class, for 'sopa'"
        require(shares in allowed, self, f"shares of the hardest images {wrong}, not {name}")
        wanted = {"sopa_s": 1, "sota_s": 2}.get(self.loss, 0)
        counted = f"{name} takes {wanted} of temperature_negatives and temperature_positives"
        require(len(temperatures) == wanted, self, f"{counted}, not {len(temperatures)}")
        if self.loss in PARTIAL:
            require_in(self, "surrogate", ("squared_hinge", "logistic"))
        require(0 < self.state_rate <= 1, self, f"state_rate={self.state_rate} is not in (0, 1]")


# The folder of the metadata network, beside those of the runs.
METADATA = "metadata"
# In RUN= the name of all runs of a competition's `modern`.
MODERN = "modern"
# Ends the name of a member that has a run's weights after stage 1.
AFTER_STAGE_1 = "-pretrained"
# A smoke run: timm's own test network, 0.37 M parameters, and recipes of 6 epochs, in which it
# learns the demo's images to an out-of-fold AUC of .82 to .90 (tests/bench/RESULTS.md).
SMOKE_NETWORK = "test_resnet.r160_in1k"
SMOKE_PRETRAIN = dict(lr=2e-3, lr_max=None, cycle_epochs=None, epochs=6, batch_size=32)
SMOKE_FINETUNE = dict(epochs=6, batch_size=32)
SMOKE_MILESTONE = 4


def few_stages(recipe: Finetune, mark: int) -> dict[str, Any]:
    """Where the stages of a recipe with few epochs end: PPD-SG's grow from one, others end at
    `mark`."""
    stages = dict(first_stage=1) if recipe.first_stage else dict(milestones=(mark,))
    return dict(**stages, milestone_unit="epoch")


@dataclass(frozen=True, kw_only=True)
class Run:
    """One network at one resolution, trained once per fold.

    network        a timm model name
    size           side of the square input in pixels
    labels         which labels it predicts; () = all the task's
    auxiliary      columns that stage 1 learns beside them
    hierarchy      child -> parent, labels or auxiliary columns of 1 and 0, the latter first in
                   `auxiliary`: stage 1 learns each given that its ancestors are positive, all
                   scores are those of the product along the path (core/networks/hierarchy.py)
    weights        "imagenet" (PRETRAINED=, an installed package, or timm's download: see
                   core/networks/imagenet.py), a path to a .safetensors file, or "random"
    views          test-time views per image
    precision      "auto" (bf16 where the machine computes in it), "fp32", "bf16" or "fp16" (with a
                   scaler)
    accumulate     micro-batches per step; the AUC losses still see the whole batch
    checkpointing  recompute activations backward, for sizes that do not fit otherwise
    ema            decay of an exponential moving average of the weights, 0 = none
    dropout        of the features before the classifier
    drop_path      of whole residual branches, rising from 0 at the image to this at the head
    pool           how the last feature map becomes a score: "avg" (the paper), "max", "lse", "gem",
                   "pcam" or "csra"; equations in core/networks/pooling.py
    bag            "attention" or "max": the network sees all images of a unit (a study) at once and
                   learns one label for it; core/networks/bags.py. "" = each image by itself, and
                   the scores of a unit are averaged as the task's `aggregate` says
    bag_images     so many images of a unit at most in training, drawn anew for each epoch; all of
                   them are scored
    stage          which weights are members of the ensemble: "finetuned", "pretrained", "both", or
                   "best": stage 2's where its gain over stage 1 out of fold has an interval above
                   0, else stage 1's. Both stages are trained and scored whatever it says
    whole          "recipe" or "best": one more network, fold `all`, learns from all training rows,
                   and its scores of the test images take the place of those of the folds' networks;
                   epochs are the recipe's, or of each stage the median over the folds of the one
                   with the best validation AUC, at which the same schedule stops. "" = none
    tag            ends the name where two runs share network and size
    named          the whole name instead; "" = `name` makes it from network, size and tag
    """

    network: str
    size: int
    pretrain: Pretrain
    finetune: Finetune
    labels: tuple[str, ...] = ()
    auxiliary: tuple[Auxiliary, ...] = ()
    hierarchy: Mapping[str, str] = field(default_factory=dict)
    weights: str = "imagenet"
    augment: Augment = Augment()
    views: int = 30  # the paper's
    precision: str = "auto"
    accumulate: int = 1
    checkpointing: bool = False
    ema: float = 0.0
    dropout: float = 0.0
    drop_path: float = 0.0
    pool: str = "avg"
    bag: str = ""
    bag_images: int = 4
    stage: str = "finetuned"
    whole: str = ""
    seed: int = 0
    tag: str = ""
    named: str = ""

    def __post_init__(self) -> None:
        require_between(self, "size", 16, 4096)
        require_between(self, "views", 1, 256)
        require_between(self, "accumulate", 1, 1024)
        require_in(self, "precision", PRECISIONS)
        require_in(self, "pool", POOLS)
        require_in(self, "bag", BAGS)
        require_between(self, "bag_images", 1, 64)
        require_in(self, "stage", MEMBER_STAGES)
        require_in(self, "whole", ("", "recipe", "best"))
        for name in ("ema", "dropout", "drop_path"):
            require_between(self, name, 0, 0.99999)
        halves = self.precision == "fp16" and self.finetune.inner_lr > 0
        require(not halves, self, "inner_lr with precision='fp16' has two losses to scale: 'bf16'")
        if self.finetune.site_column:
            apart = "site_column trains apart, and stage 1 would not: give pretrain epochs=0"
            require(self.pretrain.epochs == 0, self, apart)
            require(self.ema == 0, self, "site_column averages sites; leave ema out")
        if self.hierarchy:
            self.require_for_hierarchy()
        self.require_bag()
        known = self.weights in ("imagenet", "random") or self.weights.endswith(".safetensors")
        choice = "none of 'imagenet', 'random', or a .safetensors file"
        require(known, self, f"weights={self.weights!r} is {choice}")

    def require_for_hierarchy(self) -> None:
        """Raise a UserError for what does not go with a hierarchy of labels."""
        stage_1 = self.pretrain
        unmixed = stage_1.mixup == stage_1.cutmix == 0
        neither = "hierarchy: of two mixed images one may lack the parent; leave mixup, cutmix out"
        require(unmixed, self, neither)
        alone = f"hierarchy: the rows of labels_file={stage_1.labels_file!r} have no parents"
        require(not stage_1.labels_file, self, alone)
        hard = "hierarchy: smoothing belongs to stage 1; leave it out of finetune"
        require(self.finetune.smoothing == 0, self, hard)

    def require_bag(self) -> None:
        """Raise for what has no meaning where a network sees all images of a unit at once."""
        if not self.bag:
            return
        bag = f"bag={self.bag!r}"
        stages = (self.pretrain, self.finetune)
        unmixed = all(stage.mixup == stage.cutmix == 0 for stage in stages)
        require(unmixed, self, f"{bag} learns whole units: leave mixup and cutmix out")
        images = f"{bag} learns units, auxiliary columns are of images: leave one out"
        require(not self.auxiliary, self, images)
        paths = f"{bag} and hierarchy: take one of the two"
        require(not self.hierarchy, self, paths)
        sites = f"{bag} and site_column: take one of the two"
        require(not self.finetune.site_column, self, sites)
        features = f"{bag} pools the features of a whole image: pool='avg', not {self.pool!r}"
        require(self.bag not in FEATURE_BAGS or self.pool == "avg", self, features)

    @property
    def name(self) -> str:
        """`tf_efficientnet_b5.ns_jft_in1k` at 384 is `b5_384`."""
        # Made from the values, so that no name contradicts what it names; never parsed back. The
        # part behind the point names pretrained weights, which are a value of their own.
        if self.named:
            return self.named
        short = self.network.split(".")[0]
        for prefix in ("tf_efficientnet_", "efficientnet_"):
            short = short.removeprefix(prefix)
        return "_".join(part for part in (short, str(self.size), self.tag) if part)

    def smoke(self) -> "Run":
        """The same run with a tiny network, size and few epochs; it keeps its name."""
        # An eighth of the size, in whole multiples of 16.
        tiny = max(32, self.size // 8 // 16 * 16)
        # A few dozen steps want a high rate; scores that no normaliser bounds run away at it.
        lr = 1.0 if self.finetune.normalize in ("l2", "sigmoid") else 0.1
        # A run without stage 1 stays one.
        no_epochs = {} if self.pretrain.epochs else {"epochs": 0}
        if self.finetune.optimizer == "adamw":
            lr = SMOKE_PRETRAIN["lr"]
        return replace(
            self,
            named=self.name,
            network=SMOKE_NETWORK,
            auxiliary=(),  # synthetic data have no such columns
            hierarchy={},
            size=tiny,
            weights="random",
            views=min(self.views, 4),
            dropout=0.0,
            drop_path=0.0,
            pretrain=replace(self.pretrain, **SMOKE_PRETRAIN | no_epochs),
            finetune=replace(
                self.finetune,
                lr=lr,
                **SMOKE_FINETUNE,
                **few_stages(self.finetune, SMOKE_MILESTONE),
            ),
        )


@dataclass(frozen=True, kw_only=True)
class Metadata:
    """The two-layer network on patient columns (the paper's 256 x 128), with stage 2's loss and
    schedule.

    hidden   units of the two hidden layers
    through  "" trains it on its own; the name of a run trains it through 0.5 cnn + 0.5 mlp with
             that network frozen (paper, figure 9)
    """

    hidden: tuple[int, int] = (256, 128)
    finetune: Finetune = Finetune()
    through: str = ""
    seed: int = 0

    def __post_init__(self) -> None:
        recipe = self.finetune
        column = recipe.site_column
        require(not column, self, f"site_column={column!r} is for networks on images")
        whole = recipe.backbone_lr == recipe.layer_decay == 1 and recipe.layers == "all"
        missing = "it has no backbone, so no backbone_lr, layer_decay or layers"
        require(whole, self, missing)
        unmixed = recipe.mixup == recipe.cutmix == 0
        require(unmixed, self, "it has no images, so no mixup and no cutmix")

    @property
    def name(self) -> str:
        """Its folder beside those of the runs."""
        return METADATA

    def smoke(self) -> "Metadata":
        """The same network with few epochs."""
        tiny = dict(epochs=20, batch_size=64, **few_stages(self.finetune, 15))
        return replace(self, finetune=replace(self.finetune, **tiny))


def seeded(run: Run, seeds: int) -> tuple[Run, ...]:
    """The run with so many seeds, 0 and up: members that differ by chance alone. The first keeps
    its name; the others' ends with the seed.

    >>> run = Run(network="resnet18", size=64, pretrain=Pretrain(lr=1), finetune=Finetune())
    >>> [one.name for one in seeded(run, 3)]
    ['resnet18_64', 'resnet18_64_seed1', 'resnet18_64_seed2']
    """
    tags = ["_".join(part for part in (run.tag, f"seed{n}") if part) for n in range(1, seeds)]
    others = [replace(run, seed=n, tag=tag) for n, tag in enumerate(tags, 1)]
    return (replace(run, seed=0), *others)


def fold_name(fold: int | str) -> str:
    """The name of a fold in paths and messages.

    >>> fold_name(0), fold_name(ALL)
    ('fold0', 'all')
    """
    return ALL if fold == ALL else f"fold{fold}"


def stage_1_member(run: str) -> str:
    """The name in the ensemble of a run's weights after stage 1; those of stage 2 have the run's.

    >>> stage_1_member("b5_384")
    'b5_384-pretrained'
    """
    return run + AFTER_STAGE_1


def as_json(value: Any) -> dict:
    """A configuration as plain JSON values, for headers and logs."""
    return asdict(value)


def from_json(cls: type, values: Mapping) -> Any:
    """The configuration back from `as_json`; lists become tuples, nested classes are rebuilt."""
    nested = {"pretrain": Pretrain, "finetune": Finetune, "augment": Augment, "resize": Resize}
    arguments = {}
    for item in fields(cls):
        # A field younger than the file that holds the values has its default.
        name = item.name
        if name not in values:
            continue
        value = values[name]
        if name in nested and isinstance(value, Mapping):
            value = from_json(nested[name], value)
        elif name == "auxiliary":
            value = tuple(from_json(Auxiliary, one) for one in value)
        elif isinstance(value, list):
            value = tuple(value)
        arguments[name] = value
    return cls(**arguments)
