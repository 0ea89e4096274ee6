"""The training loop of the paper's benchmarks, and the scores it is judged by."""

import torch
from torch import Tensor, nn
from tqdm import tqdm

from pipeline.core.losses import AUCMargin
from pipeline.core.losses.checks import NotFinite
from pipeline.core.metrics import auc
from pipeline.core.pesg import PESG
from pipeline.core.runtime import device as machine
from pipeline.core.runtime.command import time_left
from pipeline.core.runtime.errors import TimeLimitReached
from pipeline.paper.benchmark.inputs import Images, batches
from pipeline.paper.benchmark.progress import Checkpoints, Training
from pipeline.paper.benchmark.trial import Trial

SCORE_BATCH = 512  # images scored at a time
# What an epoch's batches did, in the mean: ‖∂F/∂h‖ and ‖h‖ of the scores as the network gives them,
# ‖∂F/∂w‖, the step's length η ‖∂F/∂w‖ / ‖w‖, and the share of batches without a positive.
SEEN = ("score_gradient", "score_norm", "gradient", "relative_step", "no_positive")
STOP_BEFORE = 5.0  # seconds kept of TIME_LIMIT, for a step and a checkpoint


def fit(
    trial: Trial,
    train: Images,
    tested: dict[str, Images],
    checkpoints: Checkpoints | None = None,
) -> tuple[nn.Module, dict[str, list]]:
    """Train a fresh network, or go on from the newest of `checkpoints`; returns (the network that
    scores, every epoch's AUC on each of `tested`, and alpha)."""
    checkpoints = checkpoints or Checkpoints()
    machine.reuse_memory()
    training = Training(trial, train, list(tested))
    state = checkpoints.load()
    if state is not None:
        training.restore(state, f"{checkpoints.folder}/{checkpoints.name}.checkpoint.safetensors")

    title = f"{trial.dataset} {trial.network} {trial.loss} {trial.seed}"
    bar = tqdm(total=trial.epochs, initial=training.epoch, desc=title, unit="epoch")
    while training.epoch < trial.epochs:
        try:
            take_epoch(training, checkpoints)
        except NotFinite as error:
            history = diverged(training.history, tested, trial.epochs, str(error))
            return training.scoring, history
        record(training, tested)
        training.epoch += 1
        training.step = 0
        bar.set_postfix({name: training.history[name][-1] for name in tested})
        bar.update()
    checkpoints.save(training.state())
    bar.close()
    return training.scoring, training.history


def take_epoch(training: Training, checkpoints: Checkpoints) -> None:
    """The steps of an epoch that are left, with their checkpoints."""
    if training.step == 0:
        start_epoch(training)
    training.network.train()
    labels = training.train.labels.cpu()
    left = batches(training.train, labels, training.trial, training.generator, training.step)
    for pixels, targets in left:
        step(training, pixels, targets)
        if training.trial.average:
            training.mean.update_parameters(training.network)
        training.step += 1
        # After a step and never before an epoch's first, when its order is drawn already.
        out_of_time = time_left() < STOP_BEFORE
        if out_of_time or checkpoints.due():
            checkpoints.save(training.state())
        if out_of_time:
            raise TimeLimitReached(
                f"{checkpoints.name}: stopped in epoch {training.epoch + 1} of "
                f"{training.trial.epochs}; the same command goes on from there"
            )


def start_epoch(training: Training) -> None:
    """What happens between epochs: after `first_ce` of them the trial's own loss on a fresh
    classifier; a lower rate."""
    trial = training.trial
    if trial.first_ce and training.epoch == trial.first_ce:
        if trial.loss != "ce":
            training.network.classifier.reset_parameters()
        training.begin_phase(trial.loss)
    first = training.epoch < trial.first_ce
    begun = 0 if first else trial.first_ce
    epochs = trial.first_ce if first else trial.epochs - trial.first_ce
    if training.epoch - begun in decays(trial, training.loss, epochs):
        decay(training.optimizer, trial.divide)
    training.drawn = training.generator.get_state()


def diverged(
    history: dict[str, list], tested: dict[str, Images], epochs: int, reason: str
) -> dict[str, list]:
    """The history of a training that ended in NaN: an AUC of 0.5 and the last alpha for the epochs
    it did not finish, so that a sweep goes on."""
    for name, values in history.items():
        filler = 0.5 if name in tested else values[-1]
        values += [filler] * (epochs - len(values))
    return {**history, "diverged": [reason]}


def decays(trial: Trial, loss: str, epochs: int) -> tuple[int, ...]:
    """The epochs that start with a lower rate: at 50 % and 75 % of the last phase; a first phase
    has none."""
    if loss == "ce" and trial.first_ce:
        return ()
    return tuple(sorted({epochs // 2, epochs * 3 // 4} - {0}))


def decay(optimizer: torch.optim.Optimizer, divide: float) -> None:
    """Divide the rate; PESG also takes the mean of the stage as its new reference."""
    lr = optimizer.param_groups[0]["lr"] / divide
    if isinstance(optimizer, PESG):
        optimizer.next_stage(lr=lr)
    else:
        optimizer.param_groups[0]["lr"] = lr


def step(training: Training, pixels: Tensor, targets: Tensor) -> None:
    """One update."""
    dtype = machine.precision(training.trial.precision)
    with torch.autocast(pixels.device.type, dtype, enabled=dtype != torch.float32):
        scores = training.network(pixels)
    scores.retain_grad()
    training.optimizer.zero_grad(set_to_none=True)
    training.criterion(scores, targets).backward()
    training.seen.append(seen(training, scores, targets))
    training.optimizer.step()


@torch.no_grad()
def seen(training: Training, scores: Tensor, targets: Tensor) -> Tensor:
    """The numbers of `SEEN` for one batch, then its scores and labels, on the device: nothing waits
    for them."""
    weights = list(training.network.parameters())
    gradient = torch.nn.utils.get_total_norm([weight.grad for weight in weights])
    rate = training.optimizer.param_groups[0]["lr"]
    step = rate * gradient / torch.nn.utils.get_total_norm(weights)
    none = (targets.sum() == 0).float()
    numbers = torch.stack([scores.grad.norm(), scores.norm(), gradient, step, none])
    return torch.cat([numbers, scores, targets])


@torch.no_grad()
def score(network: nn.Module, images: Images, precision: str) -> Tensor:
    """Scores (N,) float32 on the CPU, in inference mode and without any normalisation over the
    batch."""
    network.eval()
    dtype = machine.precision(precision)
    parts = []
    for pixels in images.pixels.split(SCORE_BATCH):
        with torch.autocast(pixels.device.type, dtype, enabled=dtype != torch.float32):
            parts.append(network(images.normalised(pixels)))
    return torch.cat(parts).cpu()


def record(training: Training, tested: dict[str, Images]) -> None:
    """Append this epoch's AUC on each of `tested`, what its batches did, the AUC of the scores they
    had in training, and the dual variable where there is one."""
    history = training.history
    for name, images in tested.items():
        scores = score(training.scoring, images, training.trial.precision).numpy()
        history[name].append(round(float(auc(scores, images.labels.cpu().numpy())), 6))
    batches_seen = torch.stack(training.seen).cpu()
    training.seen.clear()
    means = batches_seen[:, : len(SEEN)].mean(0).tolist()
    for name, value in zip(SEEN, means, strict=True):
        history.setdefault(name, []).append(float(f"{value:.4g}"))
    scores, labels = batches_seen[:, len(SEEN) :].chunk(2, 1)
    of_training = auc(scores.flatten().numpy(), labels.flatten().numpy())
    history.setdefault("batches_auc", []).append(round(float(of_training), 6))
    if isinstance(training.criterion, AUCMargin):
        alpha = float(training.criterion.alpha.detach())
        history.setdefault("alpha", []).append(round(alpha, 5))
