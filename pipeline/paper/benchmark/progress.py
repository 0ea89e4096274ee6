"""A training in mid-run, and its checkpoints: a cut run goes on to the same result, bit for bit.

reads, writes  <folder>/<trial's key>.checkpoint.safetensors and its previous generation

Order and shifts of an epoch are drawn at its start, so a checkpoint holds the generator as it was
then and the number of steps taken since.
"""

import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from pipeline.core.artifacts.checkpoints import remove_checkpoints
from pipeline.core.losses import AUCMargin, AUCSquare, CrossEntropy, Focal
from pipeline.core.pesg import PESG
from pipeline.core.runtime.environment import checkpoint_seconds
from pipeline.core.runtime.errors import UserError
from pipeline.core.training import checkpoint
from pipeline.paper.benchmark.inputs import Images
from pipeline.paper.benchmark.networks import NETWORKS
from pipeline.paper.benchmark.trial import Trial

# At most this much work is lost; ResNet20's state takes some 10 ms to write, DenseNet121's 0.5 s.
TRIAL_CHECKPOINT_SECONDS = 300.0


@dataclass
class Checkpoints:
    """Where one training keeps its checkpoints (folder=None: nowhere), and the time it has taken.

    seconds, cpu_seconds  spent by earlier processes
    """

    folder: Path | None = None
    name: str = ""
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    started: float = field(default_factory=time.monotonic)
    worked: float = field(default_factory=time.process_time)
    saved: float = field(default_factory=time.monotonic)

    def spent(self) -> dict[str, float]:
        """Seconds of the clock and of the CPU, of this process and the earlier ones."""
        return {
            "seconds": self.seconds + time.monotonic() - self.started,
            "cpu_seconds": self.cpu_seconds + time.process_time() - self.worked,
        }

    def due(self) -> bool:
        """Whether the last one is old enough; CHECKPOINT_SECONDS overrides (0: after every
        step)."""
        most = checkpoint_seconds(TRIAL_CHECKPOINT_SECONDS)
        return self.folder is not None and time.monotonic() - self.saved >= most

    def save(self, state: dict) -> None:
        """Keep the state of a training."""
        if self.folder is not None:
            checkpoint.save_checkpoint(self.folder, self.name, {**state, "spent": self.spent()})
            self.saved = time.monotonic()

    def load(self) -> dict | None:
        """The newest state, None when there is none."""
        if self.folder is None:
            return None
        state = checkpoint.load_checkpoint(self.folder, self.name)
        if state is not None:
            self.seconds = state["spent"]["seconds"]
            self.cpu_seconds = state["spent"]["cpu_seconds"]
        return state

    def remove(self) -> None:
        """Delete them, once the result is stored."""
        if self.folder is not None:
            remove_checkpoints(self.folder, self.name)


def criterion_of(trial: Trial, loss: str) -> nn.Module:
    """The loss with the trial's hyper-parameters."""
    if loss == "ce":
        return CrossEntropy()
    if loss == "focal":
        return Focal(alpha=trial.focal_alpha, gamma=trial.focal_gamma)
    if loss == "aucs":
        return AUCSquare(normalize=trial.normalize)
    criterion = AUCMargin(margin=trial.margin, normalize=trial.normalize, dual=trial.dual)
    criterion.hinge = trial.constrained
    return criterion


def trial_optimizer(
    trial: Trial, network: nn.Module, criterion: nn.Module, loss: str
) -> torch.optim.Optimizer:
    """SGD for cross-entropy and focal loss, PESG for the AUC losses."""
    shared = dict(lr=trial.lr, weight_decay=trial.weight_decay, momentum=trial.momentum)
    if loss in ("ce", "focal"):
        return torch.optim.SGD(network.parameters(), **shared)
    return PESG(network.parameters(), loss=criterion, gamma=trial.gamma, **shared)


class Training:
    """A trial under way.

    loss     what the present phase minimises
    epoch    epochs finished
    step     steps taken in the epoch under way
    drawn    state of `generator` at the start of that epoch
    history  every finished epoch's AUC on each of the scored sets, and more
    seen     of each step of this epoch, what `training.seen` measures
    """

    def __init__(self, trial: Trial, train: Images, scored: list[str]) -> None:
        self.trial = trial
        self.train = train
        self.device = train.pixels.device
        torch.manual_seed(trial.seed)
        self.network = NETWORKS[trial.network]().to(self.device)
        # The mean of its weights, where that is what scores.
        update = get_ema_multi_avg_fn(trial.average)
        self.mean = AveragedModel(self.network, multi_avg_fn=update, use_buffers=True)
        if trial.compiled:
            self.network.compile(dynamic=False)
            self.mean.module.compile(dynamic=False)
        self.generator = torch.Generator().manual_seed(trial.seed)
        self.history: dict[str, list] = {name: [] for name in scored}
        self.seen: list[torch.Tensor] = []
        self.epoch = 0
        self.step = 0
        self.drawn = self.generator.get_state()
        self.begin_phase("ce" if trial.first_ce else trial.loss)

    @property
    def scoring(self) -> nn.Module:
        """The network that scores."""
        return self.mean.module if self.trial.average else self.network

    def begin_phase(self, loss: str) -> None:
        """A loss and an optimizer of its own."""
        self.loss = loss
        self.criterion = criterion_of(self.trial, loss).to(self.device)
        self.optimizer = trial_optimizer(self.trial, self.network, self.criterion, loss)

    def state(self) -> dict:
        """Everything that decides the rest of the run, and what it is a run of."""
        cuda = self.device.type == "cuda"
        return {
            "trial": asdict(self.trial),
            "images": self.images(),
            "loss": self.loss,
            "epoch": self.epoch,
            "step": self.step,
            "history": self.history,
            "seen": self.seen,
            "drawn": self.drawn,
            "generator": self.generator.get_state(),
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state(self.device) if cuda else None,
            "network": self.network.state_dict(),
            "mean": self.mean.state_dict() if self.trial.average else None,
            "criterion": self.criterion.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def images(self) -> list:
        """What tells one training set from another: its size, positives, and pixels' constants."""
        train = self.train
        sizes = [len(train.labels), int(train.labels.sum())]
        return sizes + train.mean.flatten().tolist() + train.deviation.flatten().tolist()

    def restore(self, state: dict, path: str) -> None:
        """Go on from a state; UserError when it is another trial's or was made from other
        images."""
        if state["trial"] != asdict(self.trial) or state["images"] != self.images():
            raise UserError(
                f"{path}: made by another trial or from other images than today's; delete it to "
                "start this run again"
            )
        self.network.load_state_dict(state["network"])
        if self.trial.average:
            self.mean.load_state_dict(state["mean"])
        self.begin_phase(state["loss"])
        self.criterion.load_state_dict(state["criterion"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.epoch = state["epoch"]
        self.step = state["step"]
        self.history = state["history"]
        self.seen = [seen.to(self.device) for seen in state["seen"]]
        self.drawn = state["drawn"]
        # An epoch under way draws its order again.
        self.generator.set_state(self.drawn if self.step else state["generator"])
        torch.set_rng_state(state["torch"])
        if state["cuda"] is not None and self.device.type == "cuda":
            torch.cuda.set_rng_state(state["cuda"], self.device)
