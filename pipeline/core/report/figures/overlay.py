"""A heat map over an image, and the bar that says what its colours mean."""

import cv2
import numpy as np

from pipeline.core.report.html import escaped

# Blue, green, red at evenly spaced heats: from red over orange to a light yellow, which stays apart
# from gray tissue also for red-green colour-blind eyes.
COLOURS = np.array([(40, 20, 150), (30, 60, 220), (30, 140, 255), (130, 240, 255)], np.float32)
STRONGEST = 0.75  # part of the colour where the heat is 1; there is none where it is 0
RING = 0.06  # radius around the highest place, as a part of the side


def overlay(image: np.ndarray, heat: np.ndarray, place: tuple[float, float]) -> np.ndarray:
    """The image in gray under the colours of the heat, with a ring around a place.

    image  uint8 (H, W) or (H, W, 3), BGR
    heat   (h, w) in [0, 1]
    place  (x, y) as parts of width and height
    Returns uint8 (H, W, 3), BGR.
    """
    gray = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    height, width = gray.shape
    smooth = cv2.resize(heat.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    smooth = np.clip(smooth, 0, 1)[:, :, None]

    # The stronger the heat, the more of its colour: without any, the image alone.
    stops = np.linspace(0, 1, len(COLOURS))
    colour = np.dstack([np.interp(smooth[:, :, 0], stops, channel) for channel in COLOURS.T])
    share = STRONGEST * np.sqrt(smooth)
    mixed = (1 - share) * gray[:, :, None] + share * colour
    drawn = np.ascontiguousarray(np.round(mixed).astype(np.uint8))

    # White on black, to be seen on either.
    middle = round(place[0] * width), round(place[1] * height)
    for tone, thickness in ((0, 3), (255, 1)):
        radius = max(3, round(RING * width))
        cv2.circle(drawn, middle, radius, (tone,) * 3, thickness, cv2.LINE_AA)
    return drawn


def heat_legend(low: str, high: str) -> str:
    """The colours from no heat to the strongest, between what the two ends mean."""
    stops = ["transparent"]
    for blue, green, red in COLOURS:
        stops.append(f"rgb({red:.0f} {green:.0f} {blue:.0f})")
    bar = f'<i class="ramp" style="background-image:linear-gradient(to right,{",".join(stops)})">'
    return f'<p class="heat"><span>{escaped(low)}</span>{bar}</i><span>{escaped(high)}</span></p>'
