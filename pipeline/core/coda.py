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

    optimizer = PESG(network.parameters(), loss, lr=0.1)
    sites = Sites(network, optimizer, every=8)
    with own_batch():                               # the loss sees this site's batch alone
        loss(network(images), labels).backward()
    sites.step()                                    # in place of optimizer.step()
"""

from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from pipeline.core.losses.global_batch import own_batch
from pipeline.core.pesg import PESG


class Sites:
    """The rounds of CODA around PESG.

    network    of this site; all sites begin with the same weights, which is checked
    optimizer  PESG with the loss's a, b and α
    every      I ≥ 1 local steps a round; 0 = no rounds, each site alone
    control    control variates: CODASCA
    """

    def __init__(
        self, network: nn.Module, optimizer: PESG, every: int, control: bool = False
    ) -> None:
        if every < 0:
            raise ValueError(f"every={every} is negative")
        if control and not every:
            raise ValueError("control variates are of rounds: every=0 has none")
        self.optimizer = optimizer
        self.every = every
        self.control = control
        self.steps = 0
        self.moving = [
            parameter for group in optimizer.param_groups for parameter in group["params"]
        ]
        self.statistics = [buffer for buffer in network.buffers() if buffer.is_floating_point()]
        # c_k, d_k; c, d; and the sums of this round's gradients.
        kept = self.moving if control else []
        self.own = [torch.zeros_like(value) for value in kept]
        self.common = [torch.zeros_like(value) for value in kept]
        self.sums = [torch.zeros_like(value) for value in kept]
        self.require_same_start()

    @torch.no_grad()
    def require_same_start(self) -> None:
        """ValueError unless every site begins with the same weights: an average of networks that
        began differently is no network."""
        if not self.every or site_count() == 1:
            return
        mine = flat([*self.moving, *self.statistics])
        mean = averaged(mine)
        if not torch.allclose(mine, mean, rtol=1e-5, atol=1e-6):
            raise ValueError("the sites begin with different weights: seed them alike")

    @torch.no_grad()
    def step(self) -> None:
        """Equation 1 from this site's gradients; after every I-th step equations 2 and 3."""
        if self.control:
            for number, parameter in enumerate(self.moving):
                if parameter.grad is None:
                    continue
                self.sums[number].add_(parameter.grad)
                parameter.grad.sub_(self.own[number]).add_(self.common[number])
        self.optimizer.step()
        self.steps += 1
        if self.every and self.steps % self.every == 0:
            self.exchange()

    @torch.no_grad()
    def exchange(self) -> None:
        """Equations 2 and 3."""
        for own, total in zip(self.own, self.sums):
            own.copy_(total / self.every)
            total.zero_()
        for common, own in zip(self.common, self.own):
            common.copy_(own)
        average([*self.moving, *self.statistics, *self.common])

    @torch.no_grad()
    def next_stage(self, batches: Iterable[tuple[Tensor, Tensor]] = ()) -> None:
        """PPD-SG's stage: v and v_ref ← the mean over sites and steps; a, b, α from the class means
        of each site's own `batches`, averaged. At the end of a round only: RuntimeError else."""
        if self.every and self.steps % self.every:
            raise RuntimeError(f"a stage ends with a round: {self.steps} steps, every={self.every}")
        self.optimizer.next_stage(restart=True)
        with own_batch():
            self.optimizer.loss.restart(batches)
        if not self.every:
            return
        # The references too: each site's mean is of its own steps.
        states = [self.optimizer.state.get(parameter, {}) for parameter in self.moving]
        references = [state["reference"] for state in states if "reference" in state]
        average([*self.moving, *references])

    def state_dict(self) -> dict[str, Any]:
        """The place in the round and the control variates, which are this site's own."""
        lists = {name: [one.clone() for one in getattr(self, name)] for name in CONTROL}
        return {"steps": self.steps, **lists}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.steps = state["steps"]
        for name in CONTROL:
            for mine, other in zip(getattr(self, name), state[name], strict=True):
                mine.copy_(other)


CONTROL = ("own", "common", "sums")


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
    means = averaged(flat(values))
    sizes = [value.numel() for value in values]
    for value, mean in zip(values, means.split(sizes), strict=True):
        value.copy_(mean.view_as(value))
