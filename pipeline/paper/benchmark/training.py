"""The training loop of the paper's benchmarks, and the scores it is judged by."""

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from pipeline.core.losses import AUCMargin, AUCSquare, CrossEntropy, Focal
from pipeline.core.losses.checks import NotFinite
from pipeline.core.metrics import auc
from pipeline.core.pesg import PESG
from pipeline.core.runtime import device as machine
from pipeline.paper.benchmark.inputs import Images, batches
from pipeline.paper.benchmark.networks import NETWORKS
from pipeline.paper.benchmark.trial import Trial

SCORE_BATCH = 512  # images scored at a time


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


def optimizer_of(
    trial: Trial, network: nn.Module, criterion: nn.Module, loss: str
) -> torch.optim.Optimizer:
    """SGD for cross-entropy and focal loss, PESG for the AUC losses."""
    shared = dict(lr=trial.lr, weight_decay=trial.weight_decay, momentum=trial.momentum)
    if loss in ("ce", "focal"):
        return torch.optim.SGD(network.parameters(), **shared)
    return PESG(network.parameters(), loss=criterion, gamma=trial.gamma, **shared)


def fit(
    trial: Trial, train: Images, tested: dict[str, Images]
) -> tuple[nn.Module, dict[str, list]]:
    """Train a fresh network; returns (the network that scores, every epoch's AUC on each of
    `tested`, and alpha)."""
    # The network, and the mean of its weights where that is what scores.
    torch.manual_seed(trial.seed)
    network = NETWORKS[trial.network]().to(train.pixels.device)
    update = get_ema_multi_avg_fn(trial.average)
    mean = AveragedModel(network, multi_avg_fn=update, use_buffers=True)
    scoring = mean.module if trial.average else network

    # Phases: cross-entropy for `first_ce` epochs, then the trial's own loss on a fresh classifier.
    generator = torch.Generator().manual_seed(trial.seed)
    labels = train.labels.cpu()
    history: dict[str, list] = {name: [] for name in tested}
    title = f"{trial.dataset} {trial.network} {trial.loss} {trial.seed}"
    bar = tqdm(total=trial.epochs, desc=title, unit="epoch")
    for loss, epochs in (("ce", trial.first_ce), (trial.loss, trial.epochs - trial.first_ce)):
        if loss != "ce" and trial.first_ce:
            network.classifier.reset_parameters()
        criterion = criterion_of(trial, loss).to(train.pixels.device)
        optimizer = optimizer_of(trial, network, criterion, loss)
        for epoch in range(epochs):
            if epoch in decays(trial, loss, epochs):
                decay(optimizer, trial.divide)
            network.train()
            try:
                for pixels, targets in batches(train, labels, trial, generator):
                    step(network, criterion, optimizer, pixels, targets, trial.precision)
                    if trial.average:
                        mean.update_parameters(network)
            except NotFinite as error:
                return scoring, diverged(history, tested, trial.epochs, str(error))
            record(history, scoring, criterion, tested, trial.precision)
            bar.set_postfix({name: values[-1] for name, values in history.items()})
            bar.update()
    bar.close()
    return scoring, history


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


def step(
    network: nn.Module,
    criterion: nn.Module,
    optimizer: torch.optim.Optimizer,
    pixels: Tensor,
    targets: Tensor,
    precision: str,
) -> None:
    """One update."""
    dtype = machine.precision(precision)
    with torch.autocast(pixels.device.type, dtype, enabled=dtype != torch.float32):
        scores = network(pixels)
    optimizer.zero_grad(set_to_none=True)
    criterion(scores, targets).backward()
    optimizer.step()


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


def record(
    history: dict[str, list],
    network: nn.Module,
    criterion: nn.Module,
    tested: dict[str, Images],
    precision: str,
) -> None:
    """Append this epoch's AUC on each of `tested`, and the dual variable where there is one."""
    for name, images in tested.items():
        scores = score(network, images, precision).numpy()
        history[name].append(round(float(auc(scores, images.labels.cpu().numpy())), 6))
    if isinstance(criterion, AUCMargin):
        history.setdefault("alpha", []).append(round(float(criterion.alpha.detach()), 5))
