"""CODA and CODASCA: an AUC loss trained by sites that share no images (Guo, Liu, Yuan, Shen, Liu,
Yang: Communication-Efficient Distributed Stochastic AUC Maximization, ICML 2020; Yuan, Guo, Xu,
Ying, Yang: Federated Deep AUC Maximization for Heterogeneous Data, ICML 2021).

Each of K sites, a process each, has its own rows, hence its own F_k. A round is I local steps,

(1) v_k ← v_k - η (∇_v F_k - c_k + c + γ(v_k - v_ref)) - λ η v_k
    α_k ← max(0, α_k + η (∇_α F_k - d_k + d))

with v = (w, a, b), after which the sites average, all with the same weight,

(2) v ← 1/K Σ v_k,  α ← 1/K Σ α_k,  BatchNorm's running statistics ← their means

and, in CODASCA (in CODA c and d are 0), take as control variates the means of the round's
gradients,

(3) c_k ← 1/I Σ ∇_v F_k,  c ← 1/K Σ c_k;  d_k, d the same of ∇_α F_k.

One all-reduce a round, of one vector: v, α, the running statistics, and c_k and d_k with control
variates; nothing whose length or content is of a row.

With I = 1, equal batches and a given prior p the steps are those of the global batch: F is a mean
over entries then. With the batch's own p they are not: each site has its own p, and no positive of
one site is compared with the negatives of another but through a, b and α.

    optimizer = CODA(network.parameters(), loss, lr=0.1, every=8)
    optimizer.share(network)                        # its running statistics are averaged too
    with own_batch():                               # the loss sees this site's batch alone
        loss(network(images), labels).backward()
    optimizer.step()
    optimizer.finish()                              # at the end, also within a round
"""

import copy
from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from pipeline.core.losses import AUCMargin
from pipeline.core.losses.global_batch import own_batch
from pipeline.core.pesg import PESG


class CODA(PESG):
    """PESG of one site of several, with the rounds of CODA.

    every     I ≥ 1 local steps a round; 0 = no rounds, each site alone
    control   control variates: CODASCA
    settings  the other arguments of PESG, without momentum, whose buffers would stay each site's
              own

    `state_dict` is this site's: its place in the round and its control variates beside PESG's.
    """

    def __init__(
        self,
        params: Iterable,
        loss: AUCMargin,
        every: int = 8,
        control: bool = False,
        **settings: float,
    ) -> None:
        if every < 0:
            raise ValueError(f"every={every} is negative")
        if control and not every:
            raise ValueError("control variates are of rounds: every=0 has none")
        if settings.get("momentum"):
            raise ValueError(f"momentum={settings['momentum']} has a buffer of each site's own")
        super().__init__(params, loss, **settings)
        self.every = every
        self.control = control
        self.steps = 0
        self.statistics: list[Tensor] = []
        # c_k, d_k; c, d; and the sums of this round's gradients; made on the weights' device.
        self.variates: dict[str, list[Tensor]] = {}

    @property
    def moving(self) -> list[Tensor]:
        """v and α."""
        return [parameter for group in self.param_groups for parameter in group["params"]]

    def share(self, network: nn.Module) -> None:
        """Average this network's running statistics too."""
        self.statistics = [value for value in network.buffers() if value.is_floating_point()]

    @torch.no_grad()
    def require_same_start(self) -> None:
        """ValueError unless every site begins with the same weights: an average of networks that
        began differently is no network."""
        if not self.every or site_count() == 1:
            return
        mine = flat([*self.moving, *self.statistics])
        apart = (mine - averaged(mine)).abs().max().reshape(1)
        # Shared too, so that every site raises: one of three may lie at the mean.
        if averaged(apart).item() > 1e-5 * (1 + mine.abs().max().item()):
            raise ValueError("the sites begin with different weights: seed them alike")

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> None:
        """Equation 1 from this site's gradients; after every I-th step equations 2 and 3."""
        if closure is not None:
            raise RuntimeError("CODA takes no closure")
        if self.control:
            self.correct()
        super().step()
        self.steps += 1
        if self.every and self.steps % self.every == 0:
            self.exchange()

    def correct(self) -> None:
        """Add the gradients to the round's sums, and c - c_k to them."""
        moving = self.moving
        if not self.variates:
            zeros = {name: [torch.zeros_like(value) for value in moving] for name in VARIATES}
            self.variates = zeros
        parts = [self.variates[name] for name in VARIATES]
        for parameter, own, common, total in zip(moving, *parts, strict=True):
            if parameter.grad is not None:
                total.add_(parameter.grad)
                parameter.grad.sub_(own).add_(common)

    @torch.no_grad()
    def exchange(self) -> None:
        """Equations 2 and 3, over as many steps as the round has had."""
        common = []
        if self.control:
            owns, common, totals = (self.variates[name] for name in VARIATES)
            for own, every, total in zip(owns, common, totals, strict=True):
                own.copy_(total / ((self.steps - 1) % self.every + 1))
                every.copy_(own)
                total.zero_()
        average([*self.moving, *self.statistics, *common])

    def finish(self) -> None:
        """End a round before its I steps, so that every site has the same weights."""
        if self.every and self.steps % self.every:
            self.exchange()

    @torch.no_grad()
    def next_stage(
        self,
        lr: float | None = None,
        restart: bool = False,
        batches: Iterable[tuple[Tensor, Tensor]] = (),
    ) -> None:
        """PESG's, with references averaged over the sites. With `restart`, a stage of PPD-SG: v ←
        the mean over sites and steps, and a, b, α from the class means of each site's own
        `batches`, averaged; at the end of a round only: RuntimeError else."""
        if restart and self.every and self.steps % self.every:
            raise RuntimeError(f"a stage ends with a round: {self.steps} steps, every={self.every}")
        super().next_stage(lr, restart)
        if restart:
            with own_batch():
                self.loss.restart(batches)
        if not self.every:
            return
        # Each site's mean was of its own steps.
        states = [self.state.get(parameter, {}) for parameter in self.moving]
        references = [state["reference"] for state in states if "reference" in state]
        average([*(self.moving if restart else []), *references])

    def state_dict(self) -> dict[str, Any]:
        """PESG's, with this site's place in the round and control variates."""
        rounds = {"steps": self.steps, "variates": self.variates}
        return {**super().state_dict(), "rounds": copy.deepcopy(rounds)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        rounds = copy.deepcopy(state_dict["rounds"])
        self.steps = rounds["steps"]
        device = self.moving[0].device
        self.variates = {
            name: [value.to(device) for value in values]
            for name, values in rounds["variates"].items()
        }

    def __getstate__(self) -> dict[str, Any]:
        own = ("every", "control", "steps", "statistics", "variates")
        return {**super().__getstate__(), **{name: getattr(self, name) for name in own}}


VARIATES = ("own", "common", "sums")


def site_count() -> int:
    """Number of processes, also inside `own_batch`; 1 without a process group."""
    if not (dist.is_available() and dist.is_initialized()):
        return 1
    return dist.get_world_size()


def flat(values: list[Tensor]) -> Tensor:
    """All values as one float32 vector."""
    return torch.cat([value.detach().float().flatten() for value in values])


def averaged(vector: Tensor) -> Tensor:
    """The mean of a vector over the processes: all that ever leaves one."""
    if site_count() == 1:
        return vector
    total = vector.clone()
    dist.all_reduce(total)
    return total / site_count()


def average(values: list[Tensor]) -> None:
    """Set each value to its mean over the processes, in one exchange."""
    if not values:
        return
    means = averaged(flat(values))
    sizes = [value.numel() for value in values]
    for value, mean in zip(values, means.split(sizes), strict=True):
        value.copy_(mean.view_as(value))
