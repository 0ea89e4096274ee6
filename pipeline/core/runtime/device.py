"""What the machine offers: device, process group, loader processes, precision."""

import atexit
import contextlib
import ctypes
import platform
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

from pipeline.core.runtime import environment
from pipeline.core.runtime.errors import UserError
from pipeline.core.runtime.workers import usable_cores

# mallopt's parameters, from glibc's malloc.h.
M_TRIM_THRESHOLD = -1
M_TOP_PAD = -2
M_MMAP_MAX = -4


# Whether this process counts as the only one, see `alone`.
ALONE = [False]


def world() -> tuple[int, int]:
    """(rank, number of processes), (0, 1) outside torchrun and in `alone`."""
    if ALONE[0] or not dist.is_initialized():
        return 0, 1
    return dist.get_rank(), dist.get_world_size()


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Inside, this process is the only one: it takes whole batches, validates and writes by itself.
    Only `agree` still asks the others, since one that stopped alone would leave them waiting."""
    before = ALONE[0]
    ALONE[0] = True
    try:
        yield
    finally:
        ALONE[0] = before


def start_processes() -> None:
    """Join the process group when torchrun started this process: nccl on GPUs, gloo on CPUs."""
    rank = environment.local_rank()
    if rank is None or dist.is_initialized():
        return
    backend = "gloo"
    if torch.cuda.is_available():
        backend = "nccl"
        torch.cuda.set_device(rank)
    # torchrun ends the others when one dies; this bounds how long they wait on one that hangs.
    dist.init_process_group(backend, timeout=timedelta(minutes=10))
    # gloo's threads must end before the interpreter does: on a loaded machine it aborted otherwise
    # ("terminate called without an active exception", status -6, after all work was done).
    atexit.register(dist.destroy_process_group)


def is_main() -> bool:
    """True in the one process that writes files and prints."""
    return world()[0] == 0


def agree(flag: bool) -> bool:
    """True in every process when it is true in any, also in `alone`."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return flag
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    votes = torch.tensor(int(flag), device=device)
    dist.all_reduce(votes)
    return bool(votes.item())


def in_step(flag: bool) -> bool:
    """`agree` in `alone`, where each process has a checkpoint of its own, all of the same step;
    elsewhere the flag."""
    return agree(flag) if ALONE[0] else flag


def from_main(value: object) -> object:
    """The main process's value, in every process."""
    if world()[1] == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box)
    return box[0]


def device() -> torch.device:
    """The GPU of this process when there is one, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")


def hardware() -> str:
    """What this run computes on, for people: `2 x NVIDIA A100`, `Intel Xeon ..., 2 cores`."""
    if torch.cuda.is_available():
        name = torch.cuda.get_device_name()
        processes = world()[1]
        return f"{processes} x {name}" if processes > 1 else name
    return f"{cpu_name()}, {len(usable_cores())} cores"


def cpu_name() -> str:
    """The processor's own name where the system tells it, else its architecture."""
    information = Path("/proc/cpuinfo")
    if information.is_file():
        for line in information.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return " ".join(line.partition(":")[2].split())
    return platform.processor() or platform.machine()


def reuse_memory() -> None:
    """On a CPU: let malloc keep what is freed and hand it out again (glibc; elsewhere nothing).

    Every step asks for the same blocks, and malloc maps those above 32 MB anew each time; the
    kernel then clears them page by page, which is a quarter of lite0's training step at 160 px
    (tests/bench/RESULTS.md). The price: the process keeps its largest size until it ends, 5 to 12 %
    more.
    """
    if device().type != "cpu" or platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(M_MMAP_MAX, 0)
    libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
    libc.mallopt(M_TOP_PAD, 64 << 20)


def loader_processes() -> int:
    """Loader processes: the cores beside this one, shared by the processes of this machine; WORKERS
    overrides."""
    asked = environment.workers()
    if asked is not None:
        return asked
    return max(0, min(8, len(usable_cores()) // environment.processes_here() - 1))


def has_bf16() -> bool:
    """True where bfloat16 is computed in hardware: Ampere and later, or a CPU with AVX-512 bf16 or
    AMX."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_capability()[0] >= 8
    probe = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(probe and probe())


def precision(asked: str) -> torch.dtype:
    """The autocast dtype for a run's `precision`; "auto" is bf16 where the hardware computes in it,
    else fp32."""
    if asked == "fp16" and not torch.cuda.is_available():
        raise UserError("precision='fp16' needs a CUDA device; write 'auto', 'bf16' or 'fp32'")
    if asked == "auto":
        asked = "bf16" if has_bf16() else "fp32"
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[asked]


def autocast(dtype: torch.dtype) -> contextlib.AbstractContextManager:
    """Autocast to `dtype` on this process's device; nothing for float32."""
    return torch.autocast(device().type, dtype, enabled=dtype != torch.float32)


@contextlib.contextmanager
def out_of_memory_advice(network: nn.Module, batch_size: int) -> Iterator[None]:
    """Turn an out-of-memory error into a UserError that says which settings to change."""
    try:
        yield
    except torch.cuda.OutOfMemoryError as error:
        millions = sum(parameter.numel() for parameter in network.parameters()) / 1e6
        reason = " ".join(str(error).split())[:120]
        raise UserError(
            f"out of memory with a network of {millions:.0f} M parameters and "
            f"batch_size={batch_size}: set accumulate=2 (or more), checkpointing=True or "
            f"precision='bf16' in the run ({reason})"
        ) from None
