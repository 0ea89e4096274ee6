"""Synthetic images: a lesion on skin and a chest X-ray, drawn from a few latent numbers.

What a patient's images share (skin, light, build) is a `style` drawn once per patient, so that a
split by image instead of by patient leaks. What shows the label is a severity: continuous, noisy,
and spread over several features of which none suffices. An image of 160 x 240 takes about five
milliseconds of one core.
"""

import cv2
import numpy as np

# RGB, 0 to 255: five skins from light to dark.
SKINS = np.array(
    [[236, 205, 185], [222, 184, 158], [205, 160, 130], [176, 128, 98], [231, 190, 175]], np.float32
)
# Black, red, blue-white: the colours beside brown that melanomas have.
PATCHES = np.array([[35, 28, 30], [150, 60, 55], [120, 130, 150]], np.float32)
# The browns of harmless moles.
LESIONS = np.array([[122, 78, 52], [150, 100, 70], [98, 62, 45], [165, 105, 85]], np.float32)


def smooth_noise(rng: np.random.Generator, height: int, width: int, cells: int) -> np.ndarray:
    """A smooth random field (H, W) float32, about standard normal, with features of 1/cells of the
    side."""
    coarse = rng.standard_normal((cells + 1, cells + 1)).astype(np.float32)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def coordinates(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates (y, x), broadcastable to (H, W), -1 to 1 along the short side, 0 in the
    centre."""
    # Column and row apart: what depends on one alone is computed once a row, not once a pixel.
    short = min(height, width)
    rows = (np.arange(height, dtype=np.float32) - (height - 1) / 2) * (2 / short)
    columns = (np.arange(width, dtype=np.float32) - (width - 1) / 2) * (2 / short)
    return rows[:, None], columns[None, :]


def soft(distance: np.ndarray, width: float) -> np.ndarray:
    """1 where distance is well below 0, 0 well above, with an edge of that width."""
    return 0.5 * (1 - np.tanh(distance * np.float32(1 / width)))


def ellipse(
    y: np.ndarray,
    x: np.ndarray,
    centre: tuple[float, float],
    radii: tuple[float, float],
    edge: float = 0.06,
) -> np.ndarray:
    """A soft ellipse, values 0 to 1; centre and radii as (y, x)."""
    # In radii from the border, so that the edge too is divided by a radius.
    distance = np.hypot((y - centre[0]) / radii[0], (x - centre[1]) / radii[1]) - 1
    return soft(distance, edge / min(radii))


def skin_style(rng: np.random.Generator) -> dict:
    """What the images of one patient share: skin, colour of moles, light, and how hairy the skin
    is."""
    return {
        "skin": SKINS[rng.integers(len(SKINS))] + rng.normal(0, 9, 3),
        "lesion": LESIONS[rng.integers(len(LESIONS))] + rng.normal(0, 8, 3),
        "light": rng.normal(0, 0.12, 2).tolist(),
        "tint": rng.normal(1, 0.04, 3),
        "hairs": int(rng.integers(0, 9)),
    }


def lesion(
    rng: np.random.Generator, style: dict, severity: float, height: int, width: int
) -> np.ndarray:
    """A dermoscopic image, uint8 (H, W, 3) RGB. Severity about 0 is a harmless mole, about 1 a
    melanoma.

    Severity makes the border ragged and sharp, the shape lopsided, the colours several (black, red,
    blue-white) and the spot larger and darker, each with a noise of its own.
    """
    y, x = coordinates(height, width)

    # Five signs of one severity, each with a noise of a third of it: none alone is enough.
    features = np.clip(severity + rng.normal(0, 0.35, 5), -0.3, 1.8).tolist()
    size, ragged, lopsided, dark, colours = features
    skin = np.float32(style["skin"]) + 5 * smooth_noise(rng, height, width, 10)[:, :, None]

    # The spot: inside of a border that is known by direction, with a soft edge.
    y0, x0 = rng.normal(0, 0.1, 2).astype(np.float32)
    border = outline(rng, 0.40 + 0.13 * size, ragged, lopsided)
    turn = np.arctan2(y - y0, x - x0) * np.float32(len(border) / (2 * np.pi))
    radius = border[turn.astype(np.int32) % len(border)]
    distance = np.hypot(y - y0, x - x0) - radius
    mask = soft(distance, 0.13 - 0.04 * ragged)[:, :, None]

    # Its colour is drawn coarse and enlarged: a fraction of the time, and nothing finer is in it.
    spot = cv2.resize(pigment(rng, style, dark, colours), (width, height))
    image = skin + mask * (spot - skin)

    # What the camera adds: uneven light, darker corners, a tint, hairs, noise.
    light = 1 + style["light"][0] * y + style["light"][1] * x - 0.12 * (y * y + x * x)
    image *= light[:, :, None] * np.float32(style["tint"])
    hair(rng, image, style["hairs"])
    return finish(rng, image, 4.0)


def outline(rng: np.random.Generator, size: float, ragged: float, lopsided: float) -> np.ndarray:
    """The border's distance from the centre in 256 directions, float32."""
    angle = np.arange(256) * (2 * np.pi / 256)
    radius = np.full(256, size + rng.normal(0, 0.05))

    # Waves of 2 to 8 a turn, the short ones lower; every mole has some, a melanoma up to 4 times as
    # high.
    for wave in range(2, 9):
        height = (0.03 + 0.05 * max(ragged, 0)) * rng.standard_normal() / np.sqrt(wave / 2)
        radius *= 1 + height * np.cos(wave * angle + rng.uniform(0, 2 * np.pi))

    # One wave a turn makes it lopsided.
    radius *= 1 + (0.05 + 0.18 * max(lopsided, 0)) * np.cos(angle + rng.uniform(0, 2 * np.pi))
    return radius.astype(np.float32)


def pigment(rng: np.random.Generator, style: dict, dark: float, colours: float) -> np.ndarray:
    """The lesion's colour as a coarse field (48, 72, 3) float32: the patient's brown with patches
    of other colours."""
    shape = (48, 72)
    brown = np.float32(style["lesion"] * (1.0 - 0.22 * dark))
    colour = brown + 12 * smooth_noise(rng, *shape, 8)[:, :, None]
    for other in PATCHES:
        level = 1.35 - 0.75 * max(colours, 0)  # how rare a patch of this colour is
        patch = soft(level - smooth_noise(rng, *shape, 4), 0.35)[:, :, None]
        colour += 0.8 * patch * (other - colour)
    return colour


def hair(rng: np.random.Generator, image: np.ndarray, count: int) -> None:
    """Draw thin dark curves across the image, in place."""
    height, width = image.shape[:2]
    along = np.linspace(0, 1, 9)
    for _ in range(count):
        start = rng.uniform(0, 1, 2) * (width, height)
        end = rng.uniform(0, 1, 2) * (width, height)
        # Half a sine aside, so that no hair is straight.
        bow = rng.normal(0, 0.1) * np.sin(np.pi * along)[:, None] * (end - start)[::-1]
        points = start + along[:, None] * (end - start) + bow
        cv2.polylines(image, [points.astype(np.int32)], False, (48, 36, 30), 1, cv2.LINE_AA)


def finish(rng: np.random.Generator, image: np.ndarray, noise: float) -> np.ndarray:
    """Sensor noise of that standard deviation, then uint8."""
    # The same grain in all three channels: a third of the random numbers.
    grain = noise * rng.standard_normal(image.shape[:2], np.float32)
    if image.ndim == 3:
        grain = grain[:, :, None]
    return np.clip(image + grain, 0, 255).astype(np.uint8)


def chest_style(rng: np.random.Generator) -> dict:
    """What the X-rays of one patient share: build, heart, exposure, and how the ribs lie."""
    return {
        "build": rng.normal(1, 0.05, 2).tolist(),
        "heart": rng.normal(0, 0.03),
        "exposure": rng.normal(1, 0.07),
        "ribs": rng.uniform(0, 2 * np.pi),
        "tissue": rng.normal(0, 10),
    }


def chest(
    rng: np.random.Generator, style: dict, severity: np.ndarray, view: str, height: int, width: int
) -> np.ndarray:
    """An X-ray, uint8 (H, W). `severity`: cardiomegaly, edema, consolidation, atelectasis, pleural
    effusion, each about 0 where absent and 1 where present; `view`: "AP" (a larger heart, poorer
    contrast), "PA" or "Lateral".
    """
    # A tall or a broad patient is the same drawing, stretched.
    y, x = coordinates(height, width)
    y = y / style["build"][0]
    x = x / style["build"][1]

    # What it shows; each finding with a noise of its own.
    findings = np.clip(severity + rng.normal(0, 0.15, 5), 0, 1.6).tolist()
    if view == "Lateral":
        lungs, opacity = side_view(rng, style, findings, y, x)
    else:
        lungs, opacity = front_view(rng, style, findings, view == "AP", y, x)

    # Gray values: air is dark, the body bright, ribs and findings brighter.
    body = ellipse(y, x, (0.15, 0.0), (1.35, 1.0), 0.1)
    ribs = np.maximum(np.cos(9.5 * (y + 0.22 * np.abs(x)) + style["ribs"]), 0) ** 3
    image = 18 + body * (165 + style["tissue"] - 118 * lungs + 26 * ribs * lungs)
    image += opacity * (196 - image)
    image += body * 5 * smooth_noise(rng, height, width, 12)

    # The exposure, about the middle gray.
    contrast = style["exposure"] * rng.normal(1, 0.04) * (0.9 if view == "AP" else 1.0)
    return finish(rng, (image - 110) * contrast + 110, 4.0)


def front_view(
    rng: np.random.Generator,
    style: dict,
    findings: list[float],
    portable: bool,
    y: np.ndarray,
    x: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Lungs and what whitens them, each (H, W) from 0 to 1, seen from the front."""
    cardiomegaly, edema, consolidation, atelectasis, effusion = findings
    # The side, -1 or 1, that each one-sided finding takes.
    consolidated, collapsed, wet = rng.choice((-1, 1), 3).tolist()

    # Lungs: two ellipses over a diaphragm that a collapse lifts, the heart cut out.
    lungs = 0.0
    for side in (-1, 1):
        base = 0.62 - 0.22 * atelectasis * (side == collapsed) + rng.normal(0, 0.02)
        above = soft(y - base + 0.15 * (x * side - 0.42) ** 2, 0.05)
        lungs = lungs + ellipse(y, x, (-0.12, 0.42 * side), (0.72, 0.33)) * above
    size = 0.30 + style["heart"] + 0.05 * portable + 0.15 * cardiomegaly
    heart = ellipse(y, x, (0.34, 0.12), (0.34, size)) + ellipse(y, x, (-0.3, 0.0), (0.8, 0.14))
    lungs = np.clip(lungs * (1 - heart), 0, 1)

    # Edema: a haze around both hila.
    hila = sum(ellipse(y, x, (0.0, 0.28 * side), (0.5, 0.3), 0.3) for side in (-1, 1))
    cloud = smooth_noise(rng, *np.broadcast_shapes(y.shape, x.shape), 14)
    haze = 0.45 * edema * hila * (1 + 0.25 * cloud)

    # Consolidation: a patch in one lung.
    spot = (rng.uniform(-0.5, 0.3), consolidated * rng.uniform(0.35, 0.55))
    patch = 0.75 * consolidation * ellipse(y, x, spot, (0.24, 0.2), 0.1)

    # Atelectasis: a line across one lung.
    band = y - rng.uniform(0.1, 0.35) - 0.25 * x * collapsed
    line = 0.6 * atelectasis * np.exp(-((band / 0.05) ** 2)) * soft(-x * collapsed + 0.1, 0.05)

    # Effusion: fluid from the bottom up, higher along the chest wall.
    level = 0.75 - 0.6 * effusion - 0.5 * effusion * np.maximum(x * wet - 0.45, 0)
    fluid = 0.95 * min(1, 3 * effusion) * soft(level - y, 0.06) * soft(0.08 - x * wet, 0.03)
    fluid = fluid * ellipse(y, x, (-0.12, 0.42 * wet), (0.95, 0.36))

    # They let light through one after the other, and whiten lungs only; fluid a little beyond.
    opacity = 1 - (1 - np.clip(haze, 0, 1)) * (1 - patch) * (1 - line) * (1 - fluid)
    return lungs, np.clip(opacity, 0, 1) * np.clip(lungs + 0.3 * fluid, 0, 1)


def side_view(
    rng: np.random.Generator,
    style: dict,
    findings: list[float],
    y: np.ndarray,
    x: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """The same seen from the side: findings overlap and are harder to see."""
    cardiomegaly, edema, consolidation, atelectasis, effusion = findings

    # Both lungs lie behind one another, the heart and the spine over them.
    lungs = ellipse(y, x, (-0.1, 0.05), (0.8, 0.62)) * soft(y - 0.55 - 0.35 * x, 0.06)
    spine = ellipse(y, x, (0.1, 0.62), (1.2, 0.12))
    heart = ellipse(y, x, (0.25, -0.25), (0.32, 0.24 + style["heart"] + 0.1 * cardiomegaly))
    lungs = np.clip(lungs * (1 - 0.8 * heart) * (1 - 0.7 * spine), 0, 1)

    # The findings as from the front, each fainter.
    haze = 0.35 * edema * ellipse(y, x, (0.0, 0.1), (0.6, 0.5), 0.3)
    patch = 0.6 * consolidation * ellipse(y, x, tuple(rng.uniform(-0.3, 0.3, 2)), (0.24, 0.2), 0.1)
    line = 0.5 * atelectasis * np.exp(-(((y - 0.3 + 0.3 * x) / 0.05) ** 2))
    fluid = 0.9 * min(1, 3 * effusion) * soft(0.7 - 0.5 * effusion - y - 0.2 * x, 0.06)
    opacity = 1 - (1 - haze) * (1 - patch) * (1 - line) * (1 - fluid)
    return lungs, np.clip(opacity, 0, 1) * lungs
