"""The training loop of both stages: any loss, any optimizer, one process or many, resumed bit for
bit.

Nothing random is kept: the order of an epoch, the view of an image and the dropout of a step are
functions of (seed, epoch), (seed, epoch, image) and (seed, step). A checkpoint therefore holds
weights, optimizer, loss, scaler, average, the step, and the scores that the log's training AUC is
made from.
"""

import contextlib
import json
import os
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from pipeline.core.artifacts.provenance import provenance
from pipeline.core.images.batches import loader
from pipeline.core.losses.checks import NotFinite
from pipeline.core.networks.image import save_weights
from pipeline.core.runtime.command import Stop, time_left
from pipeline.core.runtime.device import (
    agree,
    autocast,
    device,
    is_main,
    out_of_memory_advice,
    world,
)
from pipeline.core.runtime.errors import TimeLimitReached, UserError
from pipeline.core.training import checkpoint
from pipeline.core.training.batch_order import remaining_keys, steps_per_epoch
from pipeline.core.training.log import DIVERGED, RunLog
from pipeline.core.training.phase import Phase

CHECKPOINT_SECONDS = (
    600.0  # a kill loses at most this much work, at under 1 % of the time for writing
)


def seed_step(seed: int, step: int, micro: int) -> None:
    """Set torch's generators (dropout, drop-path) for one micro-batch of one step of this
    process."""
    torch.manual_seed(
        np.random.SeedSequence((seed, step, micro, world()[0])).generate_state(1, np.uint64).item()
        >> 1
    )


def gradients(
    phase: Phase,
    model: nn.Module,
    scaler: torch.amp.GradScaler,
    step: int,
    pictures: torch.Tensor,
    targets: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Backward through one step; returns the loss and the scores (B, K).

    With micro-batches the loss still sees the whole batch: all are scored without a graph, the loss
    gives its gradient with respect to the scores, and each micro-batch is passed again to carry its
    part back. One more forward pass is the price; averaging the AUC losses of parts would be
    another loss.
    """
    if phase.micro == 1:
        seed_step(phase.seed, step, 0)
        with autocast(phase.dtype):
            scores = model(pictures)
        value = phase.loss(scores, targets)
        scaler.scale(value).backward()
        return value.detach(), scores.detach()
    parts = pictures.chunk(phase.micro)
    scores = torch.cat(first_pass(phase, model, step, parts)).requires_grad_()
    value = phase.loss(scores, targets)
    scaler.scale(value).backward()
    for number, (part, grad) in enumerate(
        zip(parts, scores.grad.split([len(p) for p in parts]), strict=True)
    ):
        seed_step(phase.seed, step, number)
        with autocast(phase.dtype), unsynchronised(model, number < len(parts) - 1):
            model(part).backward(grad)
    return value.detach(), scores.detach()


@torch.no_grad()
def first_pass(
    phase: Phase, model: nn.Module, step: int, parts: tuple[torch.Tensor, ...]
) -> list[torch.Tensor]:
    """Scores of each micro-batch, leaving the running statistics of BatchNorm as they are."""
    norms = [
        module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)
    ]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    scores = []
    for number, part in enumerate(parts):
        seed_step(phase.seed, step, number)
        with autocast(phase.dtype):
            scores.append(model(part))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.num_batches_tracked -= len(parts)
    return scores


def unsynchronised(model: nn.Module, skip: bool):
    """DDP's no_sync for all micro-batches but the last, whose backward exchanges the sum."""
    return (
        model.no_sync()
        if skip and isinstance(model, DistributedDataParallel)
        else torch.enable_grad()
    )


@dataclass
class Running:
    """A phase under way: what changes from step to step beside its network, loss and optimizer."""

    phase: Phase
    model: nn.Module
    scaler: torch.amp.GradScaler
    average: AveragedModel | None
    log: RunLog
    step: int = 0
    slowest: float = 0.0

    @property
    def network(self) -> nn.Module:
        """The network to validate and keep."""
        return self.average.module if self.average else self.phase.network

    def state(self) -> dict:
        """Everything that decides the rest of the run."""
        phase = self.phase
        return {
            "step": self.step,
            "key": json.dumps(phase.key),
            "network": phase.network.state_dict(),
            "loss": phase.loss.state_dict(),
            "optimizer": phase.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "log": self.log.state(),
            "average": self.average.state_dict() if self.average else None,
        }


def begin(phase: Phase) -> Running:
    """The phase on its device, at its newest checkpoint or at step 0."""
    processes = world()[1]
    if phase.batch_size % processes:
        raise UserError(
            f"batch_size={phase.batch_size} cannot be shared evenly by {processes} processes"
        )
    phase.network.to(device()).train()
    phase.loss.to(device())
    ema = get_ema_multi_avg_fn(phase.ema)
    running = Running(
        phase,
        phase.network,
        torch.amp.GradScaler(device().type, enabled=phase.dtype == torch.float16),
        AveragedModel(phase.network, multi_avg_fn=ema, use_buffers=True) if phase.ema else None,
        RunLog(phase.folder / "log.jsonl", phase.name, phase.loss),
    )
    restore(running)
    if processes > 1:
        running.model = DistributedDataParallel(phase.network)
    return running


def restore(running: Running) -> None:
    """Load the newest checkpoint there is."""
    phase = running.phase
    if is_main():
        checkpoint.sweep(phase.folder, phase.name)
    state = checkpoint.load(phase.folder, phase.name)
    if state is None:
        running.log.start_afresh()
        return
    if state["key"] != json.dumps(phase.key):
        path = checkpoint.generations(phase.folder, phase.name)[0]
        raise UserError(
            f"{path}: made by another configuration or data than today's; delete it to start this "
            "phase "
            "again, or restore what it was made from"
        )
    phase.network.load_state_dict(state["network"])
    phase.loss.load_state_dict(state["loss"])
    phase.optimizer.load_state_dict(state["optimizer"])
    running.scaler.load_state_dict(state["scaler"])
    if running.average:
        running.average.load_state_dict(state["average"])
    running.log.resume(state["log"])
    running.step = state["step"]


def fit(phase: Phase) -> nn.Module:
    """Run a phase from its newest checkpoint, or its beginning, to its end; returns the network to
    keep.

    Raises TimeLimitReached after a checkpoint when time is up, UserError when the scores break
    down.
    """
    warnings.filterwarnings("ignore", "label .* had no ")  # counted, and told once at the end
    running = begin(phase)
    rank, processes = world()
    each = steps_per_epoch(len(phase.targets), phase.batch_size)
    total, saved = each * phase.epochs, time.monotonic()
    keys = remaining_keys(phase, running.step, rank, processes)
    bar = tqdm(
        total=total,
        initial=running.step,
        unit="step",
        desc=phase.key["target"],
        disable=not is_main(),
        smoothing=0.1,
        dynamic_ncols=True,
    )
    for pictures, indices in loader(phase.data, keys, phase.workers, device().type == "cuda"):
        began = time.monotonic()
        with divergence_advice(running):
            take_step(
                running,
                pictures.to(device(), non_blocking=True),
                phase.targets[indices].to(device()),
            )
            bar.update()
            bar.set_postfix(running.log.progress, refresh=False)
            end_of_epoch = running.step % each == 0
            if end_of_epoch:
                same_buffers(running.network)
                running.log.epoch(
                    running.step, running.step // each, phase.validate(running.network)
                )
                phase.network.train()
        running.slowest = max(running.slowest, time.monotonic() - began)
        out_of_time = agree(Stop.requested or time_left() < 3 * running.slowest + 5)
        if out_of_time or end_of_epoch or time.monotonic() - saved > checkpoint_seconds():
            save(running)
            saved = time.monotonic()
        if out_of_time and running.step < total:
            raise TimeLimitReached(
                f"{phase.key['target']}: {phase.name} stopped at step {running.step} of {total}; "
                "the same command goes on from there"
            )
    bar.close()
    return running.network


def take_step(running: Running, pictures: torch.Tensor, targets: torch.Tensor) -> None:
    """One step of the optimizer on a batch that lies on the device."""
    phase, rate = running.phase, running.phase.rate(running.step)
    for group in phase.optimizer.param_groups:
        group["lr"] = rate
    if running.step in phase.restarts:
        phase.optimizer.next_stage()
    with out_of_memory_advice(phase.network, phase.batch_size):
        value, scores = gradients(
            phase, running.model, running.scaler, running.step, pictures, targets
        )
    running.scaler.step(phase.optimizer)
    running.scaler.update()
    phase.optimizer.zero_grad(set_to_none=True)
    if running.average:
        running.average.update_parameters(phase.network)
    running.step += 1
    running.log.step(running.step, value, scores, targets, rate, len(pictures) * world()[1])


def same_buffers(network: nn.Module) -> None:
    """Give every process the main one's running statistics of BatchNorm: those that are kept are
    validated."""
    if world()[1] > 1:
        for buffer in network.buffers():
            torch.distributed.broadcast(buffer, 0)


@contextlib.contextmanager
def divergence_advice(running: Running) -> Iterator[None]:
    """Turn scores that are not finite, in training or in validation, into a UserError that says
    what to change."""
    try:
        yield
    except NotFinite as error:
        raise UserError(f"{running.log.path}: step {running.step}: {error}; {DIVERGED}") from None


def checkpoint_seconds() -> float:
    """Seconds between checkpoints; CHECKPOINT_SECONDS overrides (0: after every step)."""
    return float(os.environ.get("CHECKPOINT_SECONDS", CHECKPOINT_SECONDS))


def save(running: Running) -> None:
    """Write a checkpoint from the main process."""
    running.log.flush()
    if is_main():
        checkpoint.save(running.phase.folder, running.phase.name, running.state())


def keep(phase: Phase, network: nn.Module) -> None:
    """Write the last epoch's weights, then let go of the checkpoints that led to them."""
    aucs = phase.validate(network)
    if is_main():
        path = phase.folder / f"{phase.name}.safetensors"
        save_weights(
            path,
            network,
            {
                **phase.key,
                "phase": phase.name,
                "epoch": phase.epochs,
                "validation_auc": aucs,
                **provenance(phase.key["target"].split("/")[0]),
            },
        )
        checkpoint.remove(phase.folder, phase.name)
        print(f"{path}: validation AUC {aucs['mean']:.4f} after epoch {phase.epochs}", flush=True)
        tell_one_class_batches(phase)


def tell_one_class_batches(phase: Phase) -> None:
    """Say in one line how many batches lacked one class of a label: an AUC loss learns nothing from
    those."""
    if not hasattr(phase.loss, "one_class"):
        return
    counts = phase.loss.one_class.sum(0).tolist()
    if any(counts):
        batches = steps_per_epoch(len(phase.targets), phase.batch_size) * phase.epochs
        told = ", ".join(
            f"{label} {count}"
            for label, count in zip(phase.key["labels"], counts, strict=True)
            if count
        )
        print(
            f"batches of one class, which teach an AUC loss nothing: {told} of {batches}; a "
            "larger batch_size, or "
            "positives=1 in the recipe, gives each batch both",
            flush=True,
        )
