"""PESG, the proximal epoch stochastic gradient method (paper Algorithm 1).

With v = (w, a, b) and all gradients taken at the old point,

    v ← v - η(∇_v F + γ(v - v_ref)) - λ η v        α ← max(0, α + η ∇_α F)

With `adam` the weights w follow AdamW's direction m̂ / (√n̂ + ε) in place of ∇_w F (Loshchilov and
Hutter, 2019), with the same pull and decay beside it; a, b and α take their gradients as above. The
paper's theorems are about the gradient itself and say nothing of this.

v_ref starts at v_1. `next_stage` makes it the mean of the iterates of the stage just ended, and
starts the mean anew; in PPD-SG's stages the iterate goes on from that mean too.
"""

import copy
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from pipeline.core.losses import AUCMargin

# AdamW's, as in torch: how much of the mean of gradients, and of their squares, a step keeps; ε.
BETAS = (0.9, 0.999)
EPSILON = 1e-8
# Weights updated together on a CPU: 0.5 to 4 MiB take the same time, all at once 1.15 times.
CHUNK_BYTES = 1 << 20


class PESG(torch.optim.Optimizer):
    """Proximal epoch stochastic gradient, with projected ascent in α.

    params          as for torch.optim.SGD: tensors or groups with their own lr, gamma,
                    weight_decay, momentum
    loss            an AUC loss: its a and b join v, its α ascends, and they are saved in this
                    optimizer's `state_dict` (other losses, and duals in closed form, have nothing
                    to join)
    lr              η > 0
    gamma           γ ≥ 0, weight of the pull to v_ref; 1/500 in the paper. 0: no reference and no
                    mean are kept
    weight_decay    λ ≥ 0, coupled as in torch.optim.SGD
    momentum        torch's convention: buffer ← momentum · buffer + gradient. Algorithm 1 has none;
                    never for α
    adam            True: the weights follow AdamW's direction; with momentum a ValueError
    dual_lr         the rate of a, b and α, None = lr; `lr_scale` of their groups is dual_lr / lr
    regularize_dual True: γ and λ also act on a and b, as printed in the paper. At small p this
                    biases them: they rest at 2p(1-p)/(2p(1-p) + γ + λ) of the class mean, 0.69 for
                    0.8 at p = 0.01

    `state_dict()` holds everything but w: v_ref, running mean, steps, momentum, a, b, α. With γ = λ
    = 0 and no loss the steps are those of torch.optim.SGD, bit for bit; with adam and γ = 0 those
    of torch.optim.AdamW.

    Cost: with γ > 0 a step has to read v, gradient, v_ref and mean and to write v and mean, 24
    bytes per float32 weight (SGD with momentum: 20). On one Zen 5 core, densenet121's 6.95 M
    weights: 6.2 ms, 1.5 times that memory traffic alone (4.0 ms); torch's SGD with momentum and
    foreach takes as long, fused about half. Momentum beside γ has to move 32 bytes and goes through
    torch's fused kernel: 1.05 times that SGD (tests/bench/bench_pesg.py).
    """

    ascends_alpha = True  # asked by losses/checks.py before any optimizer's step

    def __init__(
        self,
        params: Iterable,
        loss: torch.nn.Module | None = None,
        lr: float = 0.1,
        gamma: float = 0.0,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        regularize_dual: bool = False,
        adam: bool = False,
        dual_lr: float | None = None,
    ) -> None:
        # Every group holds the step of its stage, so that torch's own state_dict saves it; only α's
        # group ascends, down to its floor.
        self.loss = loss
        recipe = dict(lr=lr, gamma=gamma, weight_decay=weight_decay, momentum=momentum, adam=adam)
        super().__init__(params, {**recipe, "ascend": False, "floor": None, "stage_step": 0})
        if isinstance(loss, AUCMargin) and loss.dual == "sgd":
            self.add_dual(loss, regularize_dual, dual_lr)

    def add_dual(self, loss: AUCMargin, regularized: bool, lr: float | None) -> None:
        """Groups of their own for the loss's a and b, which descend, and its α, which ascends."""
        own: dict[str, Any] = dict(adam=False)
        if lr is not None:
            own |= dict(lr=lr, lr_scale=lr / self.defaults["lr"])

        # Neither pulled nor decayed, unless asked for: at p = 0.01 that would hold a and b at 0.69
        # where the class mean is 0.8. α never is.
        free = dict(gamma=0.0, weight_decay=0.0)
        regularizers = {} if regularized else free
        self.add_param_group({"params": [loss.a, loss.b], **regularizers, **own})

        # The hinge's α is projected to α ≥ 0; the square loss's may have either sign.
        floor = 0.0 if loss.hinge else None
        ascent = dict(ascend=True, floor=floor, momentum=0.0)
        self.add_param_group({"params": [loss.alpha], **ascent, **free, **own})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As torch's, checking the values; a group added in mid-stage counts as unchanged since the
        stage began."""
        # `stage_step` is the same for all groups; one that is added later takes it over.
        if self.param_groups:
            param_group.setdefault("stage_step", self.param_groups[0]["stage_step"])
        super().add_param_group(param_group)

        # nan fails this comparison as well as a negative value does.
        group = self.param_groups[-1]
        for name in ("lr", "gamma", "weight_decay", "momentum"):
            if not 0 <= group[name] < torch.inf:
                raise ValueError(f"{name}={group[name]} is negative or not finite")
        if group["adam"] and group["momentum"]:
            raise ValueError(f"momentum={group['momentum']} beside adam, which has its own")
        has_alpha = any(hasattr(parameter, "ascends") for parameter in group["params"])
        if has_alpha and not group["ascend"]:
            raise ValueError(
                "α of an AUC loss is among the parameters to minimise: give PESG the loss, as "
                "loss=loss"
            )

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        """One iteration of Algorithm 1 from the gradients that are there; parameters without one
        stay as they are. Returns what the closure returns, None without one."""
        value = None
        if closure is not None:
            with torch.enable_grad():
                value = closure()

        # Every gradient is of the old point already, so the order of the groups does not matter.
        for group in self.param_groups:
            group["stage_step"] += 1
            moving = [parameter for parameter in group["params"] if parameter.grad is not None]
            if group["ascend"]:
                ascend(moving, group)
            else:
                for chunk in chunks(moving):
                    self.descend(chunk, group)
        return value

    def descend(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        """v ← v - η(∇_v F + γ(v - v_ref)) - λ η v, then v into the running mean."""
        gradients = [parameter.grad for parameter in parameters]
        lr = group["lr"]
        gamma = group["gamma"]
        # Without γ no reference is needed, and the two copies of the weights are not kept.
        means = []
        references = []
        if gamma:
            means, references = self.references(parameters, group)
        if group["adam"]:
            gradients = self.adam_directions(parameters, gradients)

        # The pull first, from the old v, as algorithm 1 has it; then the gradient.
        if group["momentum"]:
            self.descend_with_momentum(parameters, gradients, references, group)
        else:
            pull(parameters, references, gamma * lr, group["weight_decay"] * lr)
            torch._foreach_add_(parameters, gradients, alpha=-lr)
        # A running mean: after step t it is ((t - 1) · mean + v) / t.
        if gamma:
            torch._foreach_lerp_(means, parameters, 1 / group["stage_step"])

    def adam_directions(self, parameters: list[Tensor], gradients: list[Tensor]) -> list[Tensor]:
        """m̂ / (√n̂ + ε), m and n the running means of gradients and of their squares, both without
        the bias of their start at 0."""
        # In the parameters' layout, also after a checkpoint, whose tensors come back row by row.
        states = [self.state[parameter] for parameter in parameters]
        for parameter, state in zip(parameters, states):
            for name in ("gradient_mean", "square_mean"):
                before = state.get(name)
                fresh = before is None
                state[name] = torch.zeros_like(parameter) if fresh else laid_out(before, parameter)
            state["adam_steps"] = state.get("adam_steps", 0) + 1
        steps = [state["adam_steps"] for state in states]
        means = [state["gradient_mean"] for state in states]
        squares = [state["square_mean"] for state in states]

        # The running means, then the direction.
        keep_mean, keep_square = BETAS
        torch._foreach_lerp_(means, gradients, 1 - keep_mean)
        torch._foreach_mul_(squares, keep_square)
        torch._foreach_addcmul_(squares, gradients, gradients, 1 - keep_square)
        sizes = torch._foreach_sqrt(squares)
        torch._foreach_div_(sizes, [(1 - keep_square**step) ** 0.5 for step in steps])
        torch._foreach_add_(sizes, EPSILON)
        torch._foreach_mul_(sizes, [1 - keep_mean**step for step in steps])
        return list(torch._foreach_div(means, sizes))

    def references(
        self, parameters: list[Tensor], group: dict[str, Any]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Running means up to the previous step, and references; both start at the current
        value."""
        # `averaged`: up to which step of the stage the mean counts. It lags for a parameter that
        # had no gradient for a while.
        states = [self.state[parameter] for parameter in parameters]
        before = group["stage_step"] - 1
        for parameter, state in zip(parameters, states):
            if "reference" not in state:
                state["reference"] = parameter.clone()
                state["mean"] = parameter.clone()
            elif state["averaged"] < before:
                extend_mean(parameter, state, before)
            state["averaged"] = group["stage_step"]
        means = [state["mean"] for state in states]
        references = [state["reference"] for state in states]
        return means, references

    def descend_with_momentum(
        self,
        parameters: list[Tensor],
        gradients: list[Tensor],
        references: list[Tensor],
        group: dict[str, Any],
    ) -> None:
        """buffer ← momentum · buffer + ∇_v F + γ(v - v_ref) + λ v, then v ← v - η buffer.

        γ v_ref / momentum leaves the buffer beforehand, and the rest is SGD with decay γ + λ: three
        passes, not six.
        """
        # Buffers in the parameters' own layout: the fused kernel reads memory in order.
        states = [self.state[parameter] for parameter in parameters]
        for parameter, state in zip(parameters, states):
            if "momentum_buffer" not in state:
                state["momentum_buffer"] = torch.zeros_like(parameter)
            else:
                state["momentum_buffer"] = laid_out(state["momentum_buffer"], parameter)
        buffers = [state["momentum_buffer"] for state in states]
        momentum = group["momentum"]
        lr = group["lr"]
        decay = group["weight_decay"]

        # momentum (buffer - γ v_ref / momentum) + ∇F + (γ + λ) v is the new buffer.
        if references:
            gamma = group["gamma"]
            torch._foreach_add_(buffers, references, alpha=-gamma / momentum)
            rates = dict(momentum=momentum, lr=lr, weight_decay=gamma + decay)
            fused_sgd(parameters, gradients, buffers, **rates)
            return

        # Without a reference: torch's own foreach SGD, operation by operation, hence bit for bit.
        torch._foreach_mul_(buffers, momentum)
        torch._foreach_add_(buffers, gradients)
        if decay:
            torch._foreach_add_(buffers, parameters, alpha=decay)
        torch._foreach_add_(parameters, buffers, alpha=-lr)

    @torch.no_grad()
    def next_stage(self, lr: float | None = None, restart: bool = False) -> None:
        """End the stage: v_ref ← mean of its iterates (v after each step), the mean starts anew, η
        ← lr if given.

        restart  v too becomes the mean, as in PPD-SG (Liu, Yuan, Ying, Yang 2020, Algorithm 1);
                 ValueError with γ = 0, which keeps no mean
        Groups with other rates keep their ratio to the first group's. A stage without steps changes
        no reference.
        """
        if restart and not any(group["gamma"] for group in self.param_groups):
            raise ValueError(
                "restart=True goes on from the stage's mean, which gamma=0 does not keep"
            )
        for group in self.param_groups:
            steps = group["stage_step"]
            group["stage_step"] = 0
            if steps == 0:
                continue
            # A parameter that has had no gradient so far has no state, and needs none.
            for parameter in group["params"]:
                state = self.state.get(parameter, {})
                if "reference" not in state:
                    continue
                if state["averaged"] < steps:
                    extend_mean(parameter, state, steps)
                # The old reference's memory becomes the new mean's, whose first step overwrites it.
                state["reference"], state["mean"] = state["mean"], state["reference"]
                state["averaged"] = 0
                if restart:
                    parameter.copy_(state["reference"])
        if lr is not None:
            self.set_lr(lr)

    def set_lr(self, lr: float) -> None:
        """The first group's rate becomes lr; the others keep their ratio to it."""
        first = self.param_groups[0]["lr"]
        for group in self.param_groups:
            # Equal rates stay exactly equal, and a first rate of 0 divides nothing equal to it.
            group["lr"] = lr if group["lr"] == first else lr * group["lr"] / first

    def state_dict(self) -> dict[str, Any]:
        """torch's, and the loss's a, b, α: a snapshot, which later steps do not change."""
        # torch's state_dict shares its tensors, and the next step would change a kept checkpoint.
        state = super().state_dict()
        if self.loss is not None:
            state = {**state, "loss": self.loss.state_dict()}
        return copy.deepcopy(state)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the optimizer and the loss's a, b, α; what is given is copied."""
        super().load_state_dict({**state_dict, "state": copy.deepcopy(state_dict["state"])})
        if self.loss is not None and "loss" in state_dict:
            self.loss.load_state_dict(state_dict["loss"])

    def __setstate__(self, state: dict[str, Any]) -> None:
        """torch's; groups of an older version's checkpoint follow the gradient."""
        super().__setstate__(state)
        for group in self.param_groups:
            group.setdefault("adam", False)

    def __getstate__(self) -> dict[str, Any]:
        """What copy.deepcopy and pickle keep: torch leaves out attributes that it does not know."""
        return {**super().__getstate__(), "loss": self.loss}


def ascend(alphas: list[Tensor], group: dict[str, Any]) -> None:
    """α ← max(floor, α + η ∇_α F); no floor for the square loss."""
    for alpha in alphas:
        alpha.add_(alpha.grad, alpha=group["lr"])
        if group["floor"] is not None:
            alpha.clamp_(min=group["floor"])


def pull(
    parameters: list[Tensor], references: list[Tensor], to_reference: float, to_zero: float
) -> None:
    """v ← v - to_reference (v - v_ref) - to_zero v, as (1 - to_zero) · lerp: exactly v where v =
    v_ref and no decay."""
    # lerp moves by a share of the way to v_ref; divided by `kept`, since the factor comes after it.
    kept = 1 - to_zero
    if kept <= 0:
        raise ValueError(
            f"lr · weight_decay = {to_zero:g} is 1 or more: a step would turn every weight's sign"
        )
    if references:
        torch._foreach_lerp_(parameters, references, to_reference / kept)
    if to_zero:
        torch._foreach_mul_(parameters, kept)


def extend_mean(parameter: Tensor, state: dict[str, Any], steps: int) -> None:
    """Count the steps since `averaged`, in which a frozen parameter stayed where it is, into its
    mean of `steps`."""
    state["mean"].lerp_(parameter, (steps - state["averaged"]) / steps)


def laid_out(value: Tensor, parameter: Tensor) -> Tensor:
    """The value in its parameter's memory layout: itself, or a copy (a checkpoint's buffers come
    back row by row)."""
    if value.stride() == parameter.stride():
        return value
    return torch.empty_like(parameter).copy_(value)


def fused_sgd(
    parameters: list[Tensor],
    gradients: list[Tensor],
    buffers: list[Tensor],
    momentum: float,
    lr: float,
    weight_decay: float,
) -> None:
    """torch's one-pass SGD, which reads memory in order whatever the strides: all must lie as the
    parameters do."""
    pairs = zip(parameters, gradients)
    gradients = [laid_out(gradient, parameter) for parameter, gradient in pairs]
    torch._fused_sgd_(
        parameters,
        gradients,
        buffers,
        momentum=momentum,
        lr=lr,
        weight_decay=weight_decay,
        dampening=0.0,
        nesterov=False,
        maximize=False,
        is_first_step=False,
    )


def chunks(parameters: list[Tensor]) -> Iterable[list[Tensor]]:
    """Parts of the parameters to update together, each of one device and dtype.

    On an accelerator all at once, which saves launches; on a CPU as many as stay in the cache.
    """
    chunk: list[Tensor] = []
    size = 0
    for parameter in parameters:
        # A parameter larger than that is a chunk of its own.
        full = parameter.device.type == "cpu" and size + parameter.nbytes > CHUNK_BYTES
        if chunk:
            first = chunk[0]
            other = parameter.device != first.device or parameter.dtype != first.dtype
            if full or other:
                yield chunk
                chunk = []
                size = 0
        chunk.append(parameter)
        size += parameter.nbytes
    if chunk:
        yield chunk
