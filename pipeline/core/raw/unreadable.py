"""UnreadableImage, the one error of a file that gives no image, and the size limits.

The reason is a few words that begin with a kind: missing, unreadable, not an image, empty,
truncated, damaged, no pixels, too large, refused, encrypted, changed.
"""

MAX_BYTES = 1 << 30  # of an encoded file
# 134 million: 403 MB in colour; the largest cameras in use give 60 to 100 million
MAX_PIXELS = 1 << 27
# the sums of images/area.py are exact up to here: 255 * 2 * MAX_SIDE fits 32 bits, and the square
# of 2 * MAX_SIDE times 255 fits 53
MAX_SIDE = 1 << 20


class UnreadableImage(Exception):
    """This file gives no image; the message is the reason, in a few words."""


def check_sides(width: int, height: int, frames: int = 1) -> None:
    """Raise UnreadableImage when an image of these sides is empty or too large for memory."""
    if width < 1 or height < 1 or frames < 1:
        raise UnreadableImage(f"no pixels: {width} x {height}")
    if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
        raise UnreadableImage(f"too large: {width} x {height} pixels")
