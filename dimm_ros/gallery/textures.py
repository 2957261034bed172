"""Surfaces of the gallery: photographs that scikit-image ships, and procedural pictures, wood, brick and cloth.

All functions draw (H, W, 3) uint8 RGB from a numpy generator, so one seed gives one picture on every machine.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from dimm_ros.errors import DataError

#: Photographs inside the scikit-image wheel (nothing is downloaded), chosen to look unlike each other.
_PHOTOGRAPHS = (
    "astronaut.png",
    "chelsea.png",
    "coffee.png",
    "motorcycle_left.png",
    "rocket.jpg",
    "hubble_deep_field.jpg",
    "retina.jpg",
    "ihc.png",
    "camera.png",
    "coins.png",
    "brick.png",
    "gravel.png",
    "grass.png",
    "page.png",
    "moon.png",
    "color.png",
)
_WORDS = (
    "atlas harbor quartz meadow signal copper violet winter lantern orbit saffron timber cobalt fjord pixel raven"
).split()


@lru_cache(maxsize=1)
def photographs() -> tuple[np.ndarray, ...]:
    """The photographs of scikit-image's wheel, RGB, always in the same order.

    Raises:
        DataError: scikit-image is not installed.
    """
    spec = find_spec("skimage")
    if spec is None or not spec.submodule_search_locations:
        raise DataError(
            "The gallery's photographs come with scikit-image, which is not installed; pip install scikit-image."
        )
    folder = Path(spec.submodule_search_locations[0]) / "data"
    return tuple(np.asarray(Image.open(folder / name).convert("RGB")) for name in _PHOTOGRAPHS)


def noise(rng: np.random.Generator, height: int, width: int, coarsest: int = 2, finest: int = 64) -> np.ndarray:
    """(H, W) float32 noise of many scales, zero mean, about unit spread; scales in cells along the longer side."""
    total = np.zeros((height, width), np.float32)
    cells, weight, power = coarsest, 1.0, 0.0
    while cells <= finest:
        grid = (
            max(2, round(cells * height / max(height, width)) + 1),
            max(2, round(cells * width / max(height, width)) + 1),
        )
        total += weight * cv2.resize(
            rng.standard_normal(grid).astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC
        )
        power += weight * weight
        cells, weight = cells * 2, weight * 0.7
    return total / np.float32(np.sqrt(power))


def colour(
    rng: np.random.Generator, saturation: tuple[int, int] = (90, 220), value: tuple[int, int] = (90, 235)
) -> np.ndarray:
    """A random RGB colour of any hue."""
    hsv = np.array([[[rng.integers(0, 180), rng.integers(*saturation), rng.integers(*value)]]], np.uint8)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0, 0]


def plaster(rng: np.random.Generator, height: int, width: int, base, contrast: float = 9.0) -> np.ndarray:
    """A painted surface with blotches and grain."""
    tone = noise(rng, height, width) * contrast + rng.standard_normal((height, width)).astype(np.float32) * 2.5
    return _to_uint8(np.asarray(base, np.float32) + tone[..., None])


def stripes(rng: np.random.Generator, height: int, width: int, base) -> np.ndarray:
    """Wallpaper of vertical stripes, no two alike."""
    columns = np.zeros((width, 3), np.float32)
    at = 0
    while at < width:
        step = int(rng.integers(15, 70))
        columns[at : at + step] = rng.normal(0, 22, 3)
        at += step
    return _to_uint8(plaster(rng, height, width, base, 6.0).astype(np.float32) + columns[None])


def bricks(rng: np.random.Generator, height: int, width: int, base, brick: tuple[int, int] = (24, 64)) -> np.ndarray:
    """Masonry whose bricks each have a tone of their own."""
    rows, columns = height // brick[0] + 2, width // brick[1] + 3
    tones = rng.normal(0, 20, (rows, columns, 1)) + rng.normal(0, 7, (rows, columns, 3))
    y, x = np.mgrid[0:height, 0:width]
    row = y // brick[0]
    shifted = x + (row % 2) * (brick[1] // 2)
    mortar = (y % brick[0] < 2) | (shifted % brick[1] < 2)
    image = (
        np.asarray(base, np.float32)
        + tones[row, shifted // brick[1]]
        + noise(rng, height, width, 8, 128)[..., None] * 9
    )
    image[mortar] = 188 + 8 * rng.standard_normal((int(mortar.sum()), 1))
    return _to_uint8(image)


def mural(rng: np.random.Generator, height: int, width: int, base) -> np.ndarray:
    """Large overlapping shapes of related colours."""
    image = plaster(rng, height, width, base, 5.0)
    for _ in range(26):
        layer = image.copy()
        tint = np.clip(np.asarray(base) + rng.normal(0, 48, 3), 20, 250)
        centre = rng.uniform([0, 0], [width, height])
        corners = centre + rng.uniform(-0.35, 0.35, (int(rng.integers(3, 6)), 2)) * height
        cv2.fillPoly(layer, [cv2.convexHull(corners.astype(np.int32))], tint.tolist(), cv2.LINE_AA)
        image = cv2.addWeighted(layer, 0.65, image, 0.35, 0)
    return image


def planks(rng: np.random.Generator, height: int, width: int, base, plank: tuple[int, int] = (38, 260)) -> np.ndarray:
    """A wooden floor; every plank has its own tone, grain and joint."""
    image = np.empty((height, width, 3), np.float32)
    for top in range(0, height, plank[0]):
        left = -int(rng.integers(0, plank[1]))
        while left < width:
            right = left + int(plank[1] * rng.uniform(0.6, 1.3))
            x0, x1, y1 = max(left, 0), min(right, width), min(top + plank[0], height)
            if x1 > x0:
                grain = cv2.GaussianBlur(
                    rng.standard_normal((y1 - top, x1 - x0)).astype(np.float32), (0, 0), sigmaX=14, sigmaY=0.9
                )
                image[top:y1, x0:x1] = (
                    np.asarray(base) + rng.normal(0, 16) + rng.normal(0, 4, 3) + 60 * grain[..., None]
                )
                image[top : top + 2, x0:x1] -= 45
                image[top:y1, x0 : x0 + 2] -= 45
            left = right
    return _to_uint8(image)


def cloth(rng: np.random.Generator, height: int, width: int, base) -> np.ndarray:
    """Woven fabric with folds and a few woven bands."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    weave = 7 * np.sin(x * 1.7) * np.sin(y * 1.7)
    image = np.asarray(base, np.float32) + (weave + noise(rng, height, width, 2, 16) * 12)[..., None]
    for _ in range(int(rng.integers(2, 6))):
        at, thick = int(rng.integers(0, width)), int(rng.integers(4, 22))
        image[:, at : at + thick] += rng.normal(0, 45, 3)
    return _to_uint8(image)


def books(rng: np.random.Generator, height: int, width: int, shelves: int = 4) -> np.ndarray:
    """The front of a bookshelf: spines of random size and colour, some with titles."""
    image = plaster(rng, height, width, (92, 66, 44), 6.0)
    step = height // shelves
    for shelf in range(shelves):
        floor, left = (shelf + 1) * step - 8, 10
        while left < width - 24:
            thick, tall = int(rng.integers(8, 26)), int(step * rng.uniform(0.55, 0.86))
            if rng.random() < 0.12:  # a gap between books
                left += int(rng.integers(10, 50))
                continue
            right = min(left + thick, width - 10)
            spine = colour(rng, (40, 230), (50, 230)).tolist()
            cv2.rectangle(image, (left, floor - tall), (right - 2, floor), spine, -1)
            band = int(rng.integers(floor - tall + 6, floor - 10))
            cv2.rectangle(
                image, (left, band), (right - 2, min(band + int(rng.integers(3, 14)), floor)), colour(rng).tolist(), -1
            )
            left = right
        cv2.rectangle(image, (0, floor), (width, floor + 8), (120, 90, 62), -1)
    return image


def collage(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A poster of overlapping shapes, patterns and words: distinctive without any photograph."""
    low, high = colour(rng, value=(60, 200)).astype(np.float32), colour(rng, value=(120, 250)).astype(np.float32)
    blend = 1 / (1 + np.exp(-2 * noise(rng, height, width, 2, 8)))[..., None]
    image = _to_uint8(low * (1 - blend) + high * blend + 8 * noise(rng, height, width, 16, 128)[..., None])
    extent = min(height, width)
    for _ in range(int(rng.integers(14, 26))):
        ink = colour(rng).tolist()
        centre = (int(rng.integers(0, width)), int(rng.integers(0, height)))
        size = int(extent * rng.uniform(0.04, 0.24))
        shape = rng.integers(0, 5)
        thickness = -1 if rng.random() < 0.7 else max(2, size // 8)
        if shape == 0:
            cv2.circle(image, centre, size, ink, thickness, cv2.LINE_AA)
        elif shape == 1:
            cv2.ellipse(
                image,
                centre,
                (size, max(2, size // 2)),
                float(rng.uniform(0, 180)),
                0,
                360,
                ink,
                thickness,
                cv2.LINE_AA,
            )
        elif shape == 2:
            corners = (np.array(centre) + rng.uniform(-1.3, 1.3, (int(rng.integers(3, 7)), 2)) * size).astype(np.int32)
            cv2.fillPoly(image, [corners], ink, cv2.LINE_AA)
        elif shape == 3:
            for line in range(int(rng.integers(3, 8))):
                offset = line * max(4, size // 4)
                cv2.line(
                    image,
                    (centre[0], centre[1] + offset),
                    (centre[0] + 2 * size, centre[1] + offset - size),
                    ink,
                    max(2, size // 12),
                    cv2.LINE_AA,
                )
        else:
            word = str(rng.choice(_WORDS)).upper()
            cv2.putText(
                image,
                word,
                (centre[0] - size, centre[1]),
                int(rng.integers(0, 5)),
                size / 28,
                ink,
                max(1, size // 14),
                cv2.LINE_AA,
            )
    return image


def picture(rng: np.random.Generator, height: int, width: int, photo: np.ndarray | None) -> np.ndarray:
    """A photograph cropped to the given shape, with a tone of its own; a collage where there is no photograph."""
    if photo is None:
        return collage(rng, height, width)
    scale = max(height / photo.shape[0], width / photo.shape[1])
    resized = cv2.resize(
        photo, None, fx=scale * 1.001, fy=scale * 1.001, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    )
    top = int(rng.integers(0, resized.shape[0] - height + 1))
    left = int(rng.integers(0, resized.shape[1] - width + 1))
    crop = resized[top : top + height, left : left + width]
    crop = crop[:, ::-1] if rng.random() < 0.5 else crop
    return _to_uint8(crop.astype(np.float32) * rng.uniform(0.82, 1.1, 3).astype(np.float32))


def hang(rng: np.random.Generator, wall: np.ndarray, image: np.ndarray, left: int, top: int, frame: int) -> None:
    """Paint a framed picture and its soft shadow onto a wall, in place."""
    height, width = image.shape[0] + 2 * frame, image.shape[1] + 2 * frame
    shadow = np.zeros(wall.shape[:2], np.float32)
    shadow[top + 6 : top + height + 10, left + 5 : left + width + 9] = 0.45
    shadow = cv2.GaussianBlur(shadow, (0, 0), 5)[..., None]
    wall[:] = _to_uint8(wall * (1 - shadow))
    wood = colour(rng, (10, 150), (40, 200)).astype(np.float32)
    rim = plaster(rng, height, width, wood, 8.0)
    cv2.rectangle(rim, (0, 0), (width - 1, height - 1), (wood * 0.6).tolist(), 2)
    cv2.rectangle(rim, (frame - 2, frame - 2), (width - frame + 1, height - frame + 1), (wood * 0.5).tolist(), 2)
    rim[frame : height - frame, frame : width - frame] = image
    wall[top : top + height, left : left + width] = rim


def _to_uint8(image: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)
