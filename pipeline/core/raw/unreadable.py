"""The one way in which a file is no picture, and the limits beyond which none is opened."""

MAX_BYTES = 1 << 30  # of an encoded file
MAX_PIXELS = (
    1 << 27
)  # 134 million: 403 MB in colour; the largest cameras in use give 60 to 100 million
MAX_SIDE = 1 << 20


class UnreadableImage(Exception):
    """This file gives no picture; the message says why, in a few words."""


def check_size(width: int, height: int, frames: int = 1) -> None:
    """Raise when a picture of these sides would be empty, or too large to hold in memory."""
    if width < 1 or height < 1 or frames < 1:
        raise UnreadableImage(f"no pixels: {width} x {height}")
    if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
        raise UnreadableImage(f"too large: {width} x {height} pixels")
