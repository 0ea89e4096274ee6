"""Where a training step of tf_efficientnet_lite0 at 160 px goes on one CPU core: each kind of
convolution, forward and both gradients, channels_last beside contiguous, and pointwise ones beside
a matrix product.

    OMP_NUM_THREADS=1 python -m tests.bench.lite0_layers

CPU milliseconds (not the clock's: other work on the machine counts less) for a batch of 16 images,
the best of three, and what share of the multiplications' peak that is, where PEAK_GFLOPS is set.
"""

import argparse
import os
import time
from collections.abc import Callable

import torch
from torch.nn import functional as F

BATCH = 16
# kind, channels in and out, kernel, stride, groups, side: one of each stage at 160 px
LAYERS = (
    ("stem", 3, 32, 3, 2, 1, 160),
    ("depthwise", 32, 32, 3, 1, 32, 80),
    ("pointwise", 32, 16, 1, 1, 1, 80),
    ("pointwise", 16, 96, 1, 1, 1, 80),
    ("depthwise", 96, 96, 3, 2, 96, 80),
    ("depthwise", 144, 144, 3, 1, 144, 40),
    ("pointwise", 144, 24, 1, 1, 1, 40),
    ("depthwise", 144, 144, 5, 2, 144, 40),
    ("depthwise", 240, 240, 5, 1, 240, 20),
    ("pointwise", 240, 40, 1, 1, 1, 20),
    ("depthwise", 672, 672, 5, 1, 672, 10),
    ("pointwise", 672, 112, 1, 1, 1, 10),
    ("depthwise", 1152, 1152, 5, 1, 1152, 5),
    ("pointwise", 1152, 192, 1, 1, 1, 5),
)


def milliseconds(call: Callable[[], object]) -> float:
    """The best of three, after one."""
    call()
    times = []
    for _ in range(3):
        began = time.process_time()
        call()
        times.append(time.process_time() - began)
    return 1000 * min(times)


def of_layer(layer: tuple, layout: torch.memory_format) -> tuple[float, float, float]:
    """Milliseconds of (forward, gradient of the input, gradient of the weight)."""
    _, inputs, outputs, kernel, stride, groups, side = layer
    pad = kernel // 2
    x = torch.randn(BATCH, inputs, side, side).contiguous(memory_format=layout)
    w = torch.randn(outputs, inputs // groups, kernel, kernel).contiguous(memory_format=layout)
    forward = lambda: F.conv2d(x, w, None, stride, pad, 1, groups)  # noqa: E731
    grad = torch.randn_like(forward()).contiguous(memory_format=layout)

    def backward(mask: list[bool]) -> Callable[[], object]:
        return lambda: torch.ops.aten.convolution_backward(
            grad, x, w, None, [stride] * 2, [pad] * 2, [1, 1], False, [0, 0], groups, mask
        )

    times = (forward, backward([True, False, False]), backward([False, True, False]))
    return tuple(map(milliseconds, times))


def as_product(layer: tuple) -> tuple[float, float, float]:
    """The same of a pointwise layer as matrix products."""
    _, inputs, outputs, _, _, _, side = layer
    x = torch.randn(BATCH * side * side, inputs)
    w = torch.randn(outputs, inputs)
    grad = torch.randn(BATCH * side * side, outputs)
    calls = (lambda: x @ w.t(), lambda: grad @ w, lambda: grad.t() @ x)
    return tuple(map(milliseconds, calls))


def cell(times: tuple[float, float, float], layer: tuple) -> str:
    """`5.3 / 5.7 / 7.8`, and the share of the peak."""
    _, inputs, outputs, kernel, stride, groups, side = layer
    text = " / ".join(f"{value:.1f}" for value in times)
    peak = float(os.environ.get("PEAK_GFLOPS", 0))
    if not peak:
        return text
    products = BATCH * (side // stride) ** 2 * inputs * outputs // groups * kernel**2
    return f"{text} ({6e-6 * products / sum(times) / peak:.0%})"


def main() -> None:
    torch.set_num_threads(1)
    print("| layer | channels_last: forward / input / weight | contiguous | matrix product |")
    print("|---|---|---|---|")
    for layer in LAYERS:
        kind, inputs, outputs, kernel, stride, _, side = layer
        name = f"{kind} {kernel}×{kernel}/{stride}, {inputs}→{outputs} at {side}"
        last = cell(of_layer(layer, torch.channels_last), layer)
        first = cell(of_layer(layer, torch.contiguous_format), layer)
        product = cell(as_product(layer), layer) if kind == "pointwise" else "–"
        print(f"| {name} | {last} | {first} | {product} |", flush=True)


if __name__ == "__main__":
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    main()
