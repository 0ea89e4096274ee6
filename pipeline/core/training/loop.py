"""The training loop of both stages: any loss, any optimizer, one process or many, resumed bit for
bit.

No random state is kept: the order of an epoch, the view of an image and the dropout of a step are
functions of (seed, epoch), (seed, epoch, image) and (seed, step). A checkpoint therefore holds
weights, optimizer, loss, scaler, average, the step, and the scores that the log's training AUC is
made from.
"""

import contextlib
import json
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from pipeline.core.artifacts.checkpoints import generations, remove_checkpoints
from pipeline.core.artifacts.files import file_hash
from pipeline.core.artifacts.provenance import provenance
from pipeline.core.images.batches import loader
from pipeline.core.losses.checks import NotFinite, OneClassWarning
from pipeline.core.networks.image import save_weights
from pipeline.core.pdsca import PDSCA
from pipeline.core.runs.facts import same_key
from pipeline.core.runtime.command import Stop, time_left
from pipeline.core.runtime.device import (
    agree,
    autocast,
    device,
    hardware,
    in_step,
    is_main,
    out_of_memory_advice,
    reuse_memory,
    world,
)
from pipeline.core.runtime.environment import checkpoint_seconds
from pipeline.core.runtime.errors import TimeLimitReached, UserError
from pipeline.core.training import checkpoint
from pipeline.core.training.log import DIVERGED, RunLog
from pipeline.core.training.phase import Phase, StepBatch


def seed_step(seed: int, step: int, micro: int) -> None:
    """Set torch's generators (dropout, drop-path) for one micro-batch of one step of this
    process."""
    sequence = np.random.SeedSequence((seed, step, micro, world()[0]))
    # torch takes 63 bits of the 64.
    torch.manual_seed(sequence.generate_state(1, np.uint64).item() >> 1)


def gradients(
    phase: Phase,
    model: nn.Module,
    scaler: torch.amp.GradScaler,
    step: int,
    batch: StepBatch,
    loss: nn.Module | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Backward through one step, of the phase's loss if no other is given; returns the loss and the
    scores (B, K).

    With micro-batches the loss still sees the whole batch: all are scored without a graph, the loss
    gives its gradient with respect to the scores, and each micro-batch is passed again to carry its
    part back. One more forward pass is the price; averaging the AUC losses of parts would be
    another loss.
    """
    # The usual step: one graph, one backward.
    loss = loss or phase.loss
    if phase.micro == 1:
        seed_step(phase.seed, step, 0)
        with autocast(phase.dtype):
            scores = model(batch.inputs)
        value = batch.value(loss, scores)
        scaler.scale(value).backward()
        return value.detach(), scores.detach()

    # All scores, and the loss's gradient with respect to them.
    parts = batch.inputs.chunk(phase.micro)
    scores = torch.cat(first_pass(phase, model, step, parts)).requires_grad_()
    value = batch.value(loss, scores)
    scaler.scale(value).backward()

    # Each part again, with the dropout of the first pass, to carry its share back.
    grads = scores.grad.split([len(part) for part in parts])
    for number, (part, grad) in enumerate(zip(parts, grads, strict=True)):
        seed_step(phase.seed, step, number)
        with autocast(phase.dtype), unsynchronised(model, number < len(parts) - 1):
            model(part).backward(grad)
    return value.detach(), scores.detach()


@torch.no_grad()
def first_pass(
    phase: Phase, model: nn.Module, step: int, parts: tuple[torch.Tensor, ...]
) -> list[torch.Tensor]:
    """Scores of each micro-batch, leaving the running statistics of BatchNorm as they are."""
    # Else both passes would count, and the statistics would run at twice their rate. The same seeds
    # as in the second pass, hence the same dropout.
    scores = []
    with statistics_kept(model):
        for number, part in enumerate(parts):
            seed_step(phase.seed, step, number)
            with autocast(phase.dtype):
                scores.append(model(part))
    return scores


@contextlib.contextmanager
def statistics_kept(model: nn.Module) -> Iterator[None]:
    """Forward passes in training mode that leave the running statistics of BatchNorm as they
    are."""
    # With momentum 0 a pass changes nothing but the count of batches, put right afterwards.
    kind = nn.modules.batchnorm._BatchNorm
    norms = [module for module in model.modules() if isinstance(module, kind)]
    before = [(norm.momentum, norm.num_batches_tracked.clone()) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, (momentum, batches) in zip(norms, before, strict=True):
            norm.momentum = momentum
            norm.num_batches_tracked.copy_(batches)


def unsynchronised(model: nn.Module, skip: bool):
    """DDP's no_sync for all micro-batches but the last, whose backward exchanges the sum."""
    if skip and isinstance(model, DistributedDataParallel):
        return model.no_sync()
    return torch.enable_grad()


@dataclass
class Running:
    """A phase under way: what changes from step to step beside its network, loss and optimizer.

    model    the phase's network, in DistributedDataParallel with several processes
    average  the exponential moving average of its weights, None without one
    step     steps taken so far
    slowest  seconds of the slowest step of this process
    """

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
            "origin": phase.origin,
        }


def begin(phase: Phase) -> Running:
    """The phase on its device, at its newest checkpoint or at step 0."""
    processes = world()[1]
    if phase.batch_size % processes:
        raise UserError(
            f"batch_size={phase.batch_size} cannot be shared evenly by {processes} processes"
        )
    if phase.mixing:
        phase.mixing.require_even(phase.batch_size, processes)

    # The parts that change from step to step.
    reuse_memory()
    phase.network.to(device()).train()
    phase.loss.to(device())
    average = None
    if phase.ema:
        decay = get_ema_multi_avg_fn(phase.ema)
        average = AveragedModel(phase.network, multi_avg_fn=decay, use_buffers=True)
    # Only float16 needs a scaler: bfloat16 has the range of float32.
    scaler = torch.amp.GradScaler(device().type, enabled=phase.dtype == torch.float16)
    log = RunLog(phase.folder / "log.jsonl", phase.name, phase.loss)
    running = Running(phase, phase.network, scaler, average, log)

    # DDP comes after the checkpoint: it copies the main process's weights as it is made.
    restore(running)
    if processes > 1:
        running.model = DistributedDataParallel(phase.network)
    return running


def restore(running: Running) -> None:
    """Load the newest checkpoint there is."""
    phase = running.phase
    state = checkpoint.load_checkpoint(phase.folder, phase.name)
    if state is None:
        running.log.file.drop_phase()
        return

    # A checkpoint of another recipe would be trained to its end by this one's rates.
    if not same_key(json.loads(state["key"]), phase.key):
        path = generations(phase.folder, phase.name)[0]
        raise UserError(
            f"{path}: made by another configuration or data than today's; delete it to start this "
            "phase again, or restore what it was made from"
        )

    # Everything that decides the rest of the run: `Running.state`.
    phase.network.load_state_dict(state["network"])
    phase.loss.load_state_dict(state["loss"])
    phase.optimizer.load_state_dict(state["optimizer"])
    running.scaler.load_state_dict(state["scaler"])
    if running.average:
        running.average.load_state_dict(state["average"])
    running.log.resume(state["log"])
    phase.origin = state.get("origin", {})
    running.step = state["step"]


def fit_epochs(phase: Phase) -> nn.Module:
    """Run a phase from its newest checkpoint, or its beginning, to its end; returns the network to
    keep.

    Raises TimeLimitReached after a checkpoint when time is up, UserError when the scores break
    down.
    """
    # Batches of one class are counted by the loss, and printed once at the end, by `keep`.
    with warnings.catch_warnings(action="ignore", category=OneClassWarning):
        running = begin(phase)
        take_steps(running)
    return running.network


def take_steps(running: Running) -> None:
    """The steps that are left, with their checkpoints, and a validation after every epoch."""
    # The batches of all epochs that are left are one stream, so that loader processes start once
    # and the first batch of an epoch is prepared during the last of the one before.
    phase = running.phase
    rank, processes = world()
    order = phase.order
    each = order.steps_per_epoch
    total = each * phase.epochs
    keys = order.remaining_keys(running.step, rank, processes)
    batches = loader(phase.data, keys, phase.workers, device().type == "cuda")
    target = phase.key["target"]
    shown = dict(desc=target, disable=not is_main(), smoothing=0.1, dynamic_ncols=True)
    saved = time.monotonic()
    # Closed also by an error, whose line would otherwise stand behind the bar.
    with tqdm(total=total, initial=running.step, unit="step", **shown) as bar:
        for inputs, indices in batches:
            # One step, and after the last of an epoch a validation.
            began = time.monotonic()
            batch = phase.batch(running.step, inputs, indices)
            with divergence_advice(running):
                take_step(running, batch)
                bar.update()
                bar.set_postfix(running.log.progress, refresh=False)
                end_of_epoch = running.step % each == 0
                if end_of_epoch:
                    same_buffers(running.network)
                    aucs = phase.validate(running.network)
                    running.log.epoch(running.step, running.step // each, aucs)
                    phase.network.train()

            # A checkpoint, or a stop: three times the slowest step so far (which may have had a
            # validation), and five seconds to write.
            running.slowest = max(running.slowest, time.monotonic() - began)
            out_of_time = agree(Stop.requested or time_left() < 3 * running.slowest + 5)
            due = in_step(time.monotonic() - saved > checkpoint_seconds())
            if out_of_time or end_of_epoch or due:
                save_running(running)
                saved = time.monotonic()
            if out_of_time and running.step < total:
                raise TimeLimitReached(
                    f"{target}: {phase.name} stopped at step {running.step} of {total}; the same "
                    "command goes on from there"
                )


def take_step(running: Running, batch: StepBatch) -> None:
    """One step of the optimizer on a batch that lies on the device."""
    # The rate, a function of the step: no scheduler whose state would have to be saved; groups with
    # rates of their own have a part of it in `lr_scale`, as timm calls it. At PESG's milestones a
    # stage begins before its first step.
    phase = running.phase
    step = running.step
    rate = phase.rate(step)
    for group in phase.optimizer.param_groups:
        group["lr"] = rate * group.get("lr_scale", 1.0)
    if step in phase.restarts:
        begin_stage(running)

    # Gradients, and the update.
    model = running.model
    scaler = running.scaler
    with out_of_memory_advice(phase.network, phase.batch_size):
        ahead = isinstance(phase.optimizer, PDSCA)
        if ahead:
            gradients(phase, model, scaler, step, batch, phase.optimizer.inner_loss)
            phase.optimizer.look_ahead()
        # The same images twice, one step of cross-entropy apart. They count once in BatchNorm, with
        # the weights w, since those are validated and kept, not u.
        with statistics_kept(model) if ahead else contextlib.nullcontext():
            value, scores = gradients(phase, model, scaler, step, batch)
    if phase.clip:
        # After DDP's average, so that all processes shorten the same gradient; the loss's own a, b
        # and α are not weights and keep theirs.
        scaler.unscale_(phase.optimizer)
        nn.utils.clip_grad_norm_(phase.network.parameters(), phase.clip)
    scaler.step(phase.optimizer)
    scaler.update()
    phase.optimizer.zero_grad(set_to_none=True)
    if running.average:
        running.average.update_parameters(phase.network)

    # Logged as the number of steps taken, so the first is 1; of the labels only.
    running.step += 1
    images = len(batch.inputs) * world()[1]
    scores, targets = map(phase.of_labels, (scores, batch.targets))
    running.log.step(running.step, value, scores, targets, rate, images)


def begin_stage(running: Running) -> None:
    """PESG's mean becomes its reference; in PPD-SG the weights too, and a, b, α begin at the saddle
    of the scores that these weights give to the next batches."""
    phase = running.phase
    phase.optimizer.next_stage(restart=phase.restart_batches > 0)
    if phase.restart_batches:
        phase.loss.restart(coming_scores(running, phase.restart_batches))


def coming_scores(running: Running, count: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Scores and targets of this process's part of the next batches, without gradients; the
    statistics of BatchNorm stay as they are."""
    phase = running.phase
    keys = phase.order.remaining_keys(running.step, *world())[:count]
    for inputs, rows in loader(phase.data, keys, 0, False):
        parts = inputs.to(device()).chunk(phase.micro)
        scores = torch.cat(first_pass(phase, running.model, running.step, parts))
        yield scores, phase.targets[rows].to(device())


def same_buffers(network: nn.Module) -> None:
    """Give every process the main one's running statistics of BatchNorm: those that are kept are
    validated."""
    # DDP copies the main one's before each forward pass; the last pass has moved each on by itself.
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


def save_running(running: Running) -> None:
    """Write a checkpoint from the main process."""
    running.log.flush()
    if is_main():
        checkpoint.save_checkpoint(running.phase.folder, running.phase.name, running.state())


def keep(phase: Phase, network: nn.Module) -> None:
    """Write the last epoch's weights, then let go of the checkpoints that led to them."""
    # Validated once more, since a phase that was resumed after its last step has no figure left.
    # Every process takes part.
    aucs = phase.validate(network)
    if not is_main():
        return
    path = phase.folder / f"{phase.name}.safetensors"
    header = {
        **phase.key,
        **phase.origin,
        "phase": phase.name,
        "epoch": phase.epochs,
        "validation_auc": aucs,
        "log": file_hash(phase.folder / "log.jsonl"),
        "made": datetime.now(UTC).isoformat(timespec="minutes"),
        "hardware": hardware(),
        **provenance(phase.key["target"].split("/")[0]),
    }
    save_weights(path, network, header)
    remove_checkpoints(phase.folder, phase.name)
    said = f"validation AUC {aucs['mean']:.4f} " if aucs["mean"] == aucs["mean"] else ""
    print(f"{path}: {said}after epoch {phase.epochs}", flush=True)
    print_one_class_batches(phase)


def print_one_class_batches(phase: Phase) -> None:
    """Print in one line how many batches lacked one class of a label: an AUC loss learns nothing
    from those."""
    if not hasattr(phase.loss, "one_class"):
        return
    # At 1 % positives a batch of 32 has no positive in 72 % of cases.
    counts = phase.loss.one_class.sum(0).tolist()
    if not any(counts):
        return
    labels = zip(phase.key["labels"], counts, strict=True)
    lacking = ", ".join(f"{label} {count}" for label, count in labels if count)
    batches = phase.order.steps_per_epoch * phase.epochs
    print(
        f"batches of one class, which teach an AUC loss nothing: {lacking} of {batches}; a "
        "larger batch_size, or positives=1 in the recipe, gives each batch both",
        flush=True,
    )
