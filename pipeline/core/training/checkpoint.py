"""Checkpoints: a nested state as one safetensors file, two generations, nothing unpickled.

The newest is `<phase>.checkpoint.safetensors`, the one before it
`<phase>.checkpoint.previous.safetensors`. Each is written under a temporary name, synced and
renamed, and carries a digest of its content, by which reading it finds any damage.
"""

import hashlib
import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from pipeline.core.artifacts.checkpoints import generations
from pipeline.core.artifacts.files import atomic, require_plain
from pipeline.core.runtime.errors import UserError


def flatten(value: object, path: str, tensors: dict[str, torch.Tensor]) -> object:
    """The value as JSON, its tensors moved to `tensors` under their path. Dictionary keys keep
    their type."""
    # A copy, since safetensors refuses tensors that share memory.
    if isinstance(value, torch.Tensor):
        tensors[path] = value.detach().cpu().contiguous().clone()
        return {"tensor": path}
    if isinstance(value, dict):
        # Pairs and not a JSON object, whose keys would all become strings.
        items = [[key, flatten(item, f"{path}/{key}", tensors)] for key, item in value.items()]
        return {"items": items}
    # JSON knows lists only; what was a tuple comes back as one.
    if isinstance(value, (list, tuple)):
        parts = [flatten(item, f"{path}/{number}", tensors) for number, item in enumerate(value)]
        return {"list": parts} if isinstance(value, list) else {"tuple": parts}
    if value is None or isinstance(value, (bool, int, float, str)):
        return {"value": value}
    # Anything else would need pickle, which runs code of whoever wrote the file.
    raise TypeError(f"{path}: a {type(value).__name__} cannot be kept in a checkpoint")


def unflatten(form: dict, tensors: dict[str, torch.Tensor]) -> object:
    """The inverse of `flatten`."""
    ((kind, content),) = form.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "items":
        return {key: unflatten(item, tensors) for key, item in content}
    if kind in ("list", "tuple"):
        parts = [unflatten(item, tensors) for item in content]
        return parts if kind == "list" else tuple(parts)
    return content


def tensors_digest(form: str, tensors: dict[str, torch.Tensor]) -> str:
    """A sha256 over the JSON form and all tensors (name, dtype, shape, bytes), in the order of
    their names."""
    digested = hashlib.sha256(form.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digested.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        # Bytes, since numpy has no bfloat16; an empty tensor has none and no such view.
        if tensor.numel():
            digested.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return digested.hexdigest()


def save_checkpoint(folder: Path, phase: str, state: dict) -> None:
    """Write `state` as the newest generation; the newest so far becomes the previous one. UserError
    on a full disk."""
    tensors: dict[str, torch.Tensor] = {}
    form = json.dumps(flatten(state, "", tensors))
    about = {"state": form, "digest": tensors_digest(form, tensors)}
    newest, previous = generations(folder, phase)
    try:
        # Killed between the two renames, there is no newest file but a previous one: it is read.
        with atomic(newest) as temporary:
            save_file(tensors, temporary, about)
            if newest.exists():
                newest.replace(previous)
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"{newest}: the checkpoint could not be written ({error}); the one before it is kept, "
            "make room and run the same command again"
        ) from None


def read_checkpoint(path: Path) -> dict:
    """The state in a checkpoint file. ValueError when it is damaged."""
    try:
        require_plain(path)
        with safe_open(path, "pt") as file:
            about = file.metadata() or {}
            # Not a mapping: it has keys() but cannot be iterated over.
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ValueError(str(error)) from None
    # safetensors checks lengths only: with a flipped bit in a weight training would just go on.
    if "state" not in about or tensors_digest(about["state"], tensors) != about.get("digest"):
        raise ValueError("its content does not match its digest")
    return unflatten(json.loads(about["state"]), tensors)


def load_checkpoint(folder: Path, phase: str) -> dict | None:
    """The newest state that can be read, or None; where the newest is damaged, prints so and takes
    the other."""
    newest, previous = generations(folder, phase)
    for path in (newest, previous):
        if not path.exists():
            continue
        try:
            return read_checkpoint(path)
        except ValueError as error:
            older = path == newest and previous.exists()
            instead = "the generation before it" if older else "the beginning"
            print(f"{path}: damaged ({error}); falling back to {instead}", flush=True)
    return None
