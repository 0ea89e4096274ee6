"""Where the two checkpoints of a phase of training lie, and their removal."""

from pathlib import Path

from pipeline.core.artifacts.files import remove_abandoned


def generations(folder: Path, phase: str) -> tuple[Path, Path]:
    """The newest and the previous checkpoint of a phase ("pretrained" or "finetuned")."""
    return (
        folder / f"{phase}.checkpoint.safetensors",
        folder / f"{phase}.checkpoint.previous.safetensors",
    )


def remove_checkpoints(folder: Path, phase: str) -> None:
    """Delete both generations, once the weights that they led to are written."""
    newest, previous = generations(folder, phase)
    for path in (newest, previous):
        path.unlink(missing_ok=True)
    # A kill in the last one's writing leaves a folder, and nothing writes there any more.
    remove_abandoned(newest)
