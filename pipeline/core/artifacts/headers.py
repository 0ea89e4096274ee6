"""The header of a weights file, read without torch: what made it, as JSON."""
import json
from pathlib import Path

from pipeline.core.runtime.command import UserError

LARGEST = 100 << 20  # bytes; safetensors' own limit for a header


def read_header(path: Path) -> dict:
    """What `network.save_weights` put into a file, or a UserError when it is not one of ours.

    A safetensors file begins with the header's length (8 bytes, little-endian) and the header, a JSON object whose
    "__metadata__" maps strings to strings; ours is JSON under "pipeline".
    """
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > LARGEST:
                raise ValueError(f"a header of {length} bytes")
            return json.loads(json.loads(file.read(length))["__metadata__"]["pipeline"])
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: no weights file of this pipeline ({error}); delete it and train again") from None
