"""PDSCA, compositional training of an AUC loss (Yuan, Guo, Chawla, Yang: Compositional Training for
End-to-End Deep AUC Maximization, ICLR 2022).

(1) min over w, a, b, max over α of F(u(w), a, b, α), u(w) = w - η₀ ∇L(w), L the cross-entropy. One
step, with the same batch for both gradients, v = (w, a, b) and the rates β₀, β₁:

(2) u ← (1-β₀) u + β₀ (w - η₀ ∇L(w))
(3) z ← (1-β₁) z + β₁ ∇F(u, a, b)
(4) v ← v - η (z + γ(v - v_ref)) - λ η v        α ← max(0, α + η ∇_α F)

u and z begin at their first values, not at 0. As the authors' own program, (3) takes the gradient
at u for that of (1), whose factor I - η₀ ∇²L is left out. With η₀ = 0 and β₀ = β₁ = 1 it is PESG.

    optimizer = PDSCA(network.parameters(), loss, lr=0.1, inner_lr=0.1)
    optimizer.inner_loss(network(images), labels).backward()
    optimizer.look_ahead()                          # the network has the weights u
    loss(network(images), labels).backward()
    optimizer.step()                                # and w again

The loss has no second branch and counts no calls: what a validation does with it, or with the
network between two steps, changes nothing.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from pipeline.core.losses import AUCMargin, CrossEntropy
from pipeline.core.pesg import PESG


class PDSCA(PESG):
    """PESG whose gradients are taken one cross-entropy step ahead, and averaged.

    params, loss, lr, gamma, weight_decay   those of PESG; momentum is z's
    inner_lr    η₀ ≥ 0 at the rate lr; it falls as lr does
    keep_ahead  1 - β₀ in [0, 1): how much of u outlives a step
    keep        1 - β₁ in [0, 1): how much of z does

    `state_dict` has u and z beside PESG's. Memory: u, z and, within a step, w. A step without
    look_ahead() before it, and look_ahead() twice, are a RuntimeError.
    """

    def __init__(
        self,
        params: Iterable,
        loss: AUCMargin,
        lr: float = 0.1,
        inner_lr: float = 0.1,
        keep_ahead: float = 0.1,
        keep: float = 0.1,
        gamma: float = 0.0,
        weight_decay: float = 0.0,
    ) -> None:
        for name, value in (("keep_ahead", keep_ahead), ("keep", keep)):
            if not 0 <= value < 1:
                raise ValueError(f"{name}={value} is not in [0, 1)")
        if not 0 <= inner_lr < torch.inf:
            raise ValueError(f"inner_lr={inner_lr} is negative or not finite")
        super().__init__(params, loss, lr=lr, gamma=gamma, weight_decay=weight_decay)
        self.inner_loss = CrossEntropy()
        self.inner_ratio = inner_lr / lr
        self.keep_ahead = keep_ahead
        self.keep = keep
        self.is_ahead = False

    def weights(self) -> list[tuple[Tensor, float]]:
        """w, each with the rate of its group; without a, b and α."""
        duals = {id(self.loss.a), id(self.loss.b), id(self.loss.alpha)}
        return [
            (parameter, group["lr"])
            for group in self.param_groups
            for parameter in group["params"]
            if id(parameter) not in duals
        ]

    @torch.no_grad()
    def look_ahead(self) -> None:
        """Equation 2 from the gradients of `inner_loss`, which are then dropped; the parameters
        become u until `step`."""
        if self.is_ahead:
            raise RuntimeError("look_ahead() twice without a step() in between")
        for parameter, lr in self.weights():
            if parameter.grad is None:
                continue
            state = self.state[parameter]
            target = parameter - self.inner_ratio * lr * parameter.grad
            if "ahead" in state:
                target = torch.lerp(target, state["ahead"], self.keep_ahead)
            state["ahead"] = target
            state["here"] = parameter.clone()
            parameter.copy_(target)
            parameter.grad = None
        # The cross-entropy has no a, b and α; a gradient that stands there is of another call.
        self.zero_grad()
        self.is_ahead = True

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> None:
        """Equations 3 and 4 from the gradients at u."""
        if closure is not None:
            raise RuntimeError("PDSCA takes no closure: its two gradients are of two losses")
        if not self.is_ahead:
            raise RuntimeError(
                "look_ahead(), with the gradients of inner_loss, comes before step()"
            )
        for parameter, _ in self.weights():
            here = self.state[parameter].pop("here", None)
            if here is not None:
                parameter.copy_(here)
        self.is_ahead = False

        # z takes the gradient's place; α ascends along its own.
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None or group["ascend"]:
                    continue
                state = self.state[parameter]
                if "averaged_gradient" in state:
                    z = torch.lerp(parameter.grad, state["averaged_gradient"], self.keep)
                    parameter.grad.copy_(z)
                state["averaged_gradient"] = parameter.grad.clone()
        super().step()

    def state_dict(self) -> dict[str, Any]:
        """PESG's, with u and z. RuntimeError between look_ahead() and step()."""
        if self.is_ahead:
            raise RuntimeError("a state between look_ahead() and step() is that of no step")
        return super().state_dict()

    def __getstate__(self) -> dict[str, Any]:
        own = ("inner_loss", "inner_ratio", "keep_ahead", "keep", "is_ahead")
        return {**super().__getstate__(), **{name: getattr(self, name) for name in own}}
