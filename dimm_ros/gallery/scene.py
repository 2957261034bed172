"""A furnished room made of textured rectangles, drawn from a seed.

World frame: origin on the floor in the middle of the room, x along the longer walls, z up, metres.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache

import cv2
import numpy as np

from dimm_ros.gallery import textures

#: Length (x), width (y) and height (z) of the room in metres.
ROOM_SIZE = (6.0, 5.0, 2.8)

_TEXELS_PER_METRE = 260
_LAMPS = np.array([[-1.5, 0.4, 2.72], [1.6, -0.3, 2.72]])


@dataclass(frozen=True)
class Rectangle:
    """A textured rectangle, visible from its front only.

    Attributes:
        origin: (3,) corner where the texture's top-left texel begins, metres.
        right: (3,) edge along the texture's columns, metres.
        down: (3,) edge along its rows, at a right angle to ``right``.
        texture: (H, W, 3) uint8 RGB; texel (row, column) covers [column, column + 1] / W of ``right``.
    """

    origin: np.ndarray
    right: np.ndarray
    down: np.ndarray
    texture: np.ndarray

    @cached_property
    def normal(self) -> np.ndarray:
        """(3,) unit normal, towards the side it is visible from."""
        normal = np.cross(self.down, self.right)
        return normal / np.linalg.norm(normal)

    @property
    def corners(self) -> np.ndarray:
        """(4, 3) top-left, top-right, bottom-right, bottom-left."""
        return self.origin + np.array([0 * self.right, self.right, self.right + self.down, self.down])

    @cached_property
    def pyramid(self) -> list[np.ndarray]:
        """The texture and its halvings, each texel the mean of those it covers (a mip map)."""
        levels = [self.texture]
        while min(levels[-1].shape[:2]) >= 4 and len(levels) < 8:
            height, width = levels[-1].shape[:2]
            levels.append(cv2.resize(levels[-1], ((width + 1) // 2, (height + 1) // 2), interpolation=cv2.INTER_AREA))
        return levels


@dataclass(frozen=True)
class Scene:
    """Textured rectangles that make a scene.

    Attributes:
        rectangles: all surfaces.
        name: short, for bags and logs.
    """

    rectangles: tuple[Rectangle, ...]
    name: str = "gallery"


class _Builder:
    """Collects rectangles and hands out pictures, no photograph twice before all have been used."""

    def __init__(self, seed: int, photographs: bool) -> None:
        self.rng = np.random.default_rng(seed)
        self.rectangles: list[Rectangle] = []
        self._photos = textures.photographs() if photographs else ()
        self._deck: list[int] = []

    def picture(self, height_m: float, width_m: float) -> np.ndarray:
        photo = None
        if self._photos and self.rng.random() < 0.75:
            if not self._deck:
                self._deck = self.rng.permutation(len(self._photos)).tolist()
            photo = self._photos[self._deck.pop()]
        return textures.picture(self.rng, _texels(height_m), _texels(width_m), photo)

    def add(self, origin, right, down, texture: np.ndarray) -> None:
        rectangle = Rectangle(*(np.asarray(vector, dtype=np.float64) for vector in (origin, right, down)), texture)
        self.rectangles.append(_lit(rectangle))

    def box(
        self,
        centre_xy,
        size,
        bottom: float,
        yaw_deg: float,
        paint: Callable[[float, float], np.ndarray],
        front=None,
        top=None,
    ) -> None:
        """A box on its bottom; ``paint(height_m, width_m)`` draws each side, ``front`` that towards its +x, ``top`` its
        top.
        """
        yaw = np.radians(yaw_deg)
        x, y = np.array([np.cos(yaw), np.sin(yaw), 0]), np.array([-np.sin(yaw), np.cos(yaw), 0])
        up = np.array([0, 0, 1.0])
        length, width, height = size
        middle = np.array([*centre_xy, bottom + height / 2])
        for outward, across, half, wide in (
            (x, y, length, width),
            (y, -x, width, length),
            (-x, -y, length, width),
            (-y, x, width, length),
        ):
            # Seen from outside, the texture's right is the direction 90 degrees counter-clockwise from outward.
            corner = middle + outward * half / 2 - across * wide / 2 + up * height / 2
            draw = front if front is not None and outward is x else paint
            self.add(corner, across * wide, -up * height, draw(height, wide))
        draw = top or paint
        self.add(middle + up * height / 2 - x * length / 2 + y * width / 2, x * length, -y * width, draw(width, length))
        if bottom > 0.02:
            self.add(
                middle - up * height / 2 - x * length / 2 - y * width / 2, x * length, y * width, paint(width, length)
            )


@lru_cache(maxsize=4)  # painting takes seconds, and one room is filmed again and again
def build_room(seed: int = 0, photographs: bool = True) -> Scene:
    """The gallery: four unlike walls with framed pictures, a plank floor with a rug, a ceiling, furniture along the
    walls.

    Rooms are kept: what is given is everybody's, and only looked at.

    Args:
        seed: decides every texture, which picture hangs where, and small shifts of the furniture.
        photographs: use those of scikit-image; False paints every picture.

    Raises:
        DataError: photographs are wanted and scikit-image is not installed.
    """
    builder = _Builder(seed, photographs)
    _shell(builder)
    _furniture(builder)
    return Scene(tuple(builder.rectangles))


def with_people(scene: Scene, places: np.ndarray, seed: int = 0) -> Scene:
    """The scene with a person standing at each of (N, 2) places on the floor, metres; the seed decides clothes and
    heading.
    """
    builder = _Builder(seed, photographs=False)
    rng = builder.rng
    for place in places:
        yaw = float(rng.uniform(0, 360))
        shirt, trousers, skin = (textures.colour(rng) for _ in range(3))

        def dressed(base: np.ndarray) -> Callable[[float, float], np.ndarray]:
            return lambda high, wide: textures.cloth(rng, _texels(high), _texels(wide), base)

        builder.box(place, (0.24, 0.34, 0.85), 0.0, yaw, dressed(trousers))
        builder.box(place, (0.26, 0.46, 0.62), 0.85, yaw, dressed(shirt))
        builder.box(place, (0.22, 0.18, 0.26), 1.47, yaw, dressed(skin))
    return Scene((*scene.rectangles, *builder.rectangles), scene.name)


def _shell(b: _Builder) -> None:
    length, width, height = ROOM_SIZE
    rng = b.rng
    # Each wall: start corner at the ceiling (left, seen from inside), direction to the right, its length, its paint.
    walls = (
        ((-length / 2, width / 2), (1, 0), length, textures.stripes, (196, 170, 120)),
        ((length / 2, width / 2), (0, -1), width, textures.bricks, (150, 84, 64)),
        ((length / 2, -width / 2), (-1, 0), length, textures.mural, (120, 168, 176)),
        ((-length / 2, -width / 2), (0, 1), width, textures.plaster, (206, 204, 214)),
    )
    for index, (corner, direction, extent, paint, base) in enumerate(walls):
        wall = paint(rng, _texels(height), _texels(extent), np.asarray(base) + rng.normal(0, 8, 3))
        _decorate(b, wall, extent, index)
        b.add((*corner, height), np.array([*direction, 0]) * extent, (0, 0, -height), wall)
    floor = textures.planks(rng, _texels(width), _texels(length), (150, 108, 70))
    rug = textures.collage(rng, _texels(1.8), _texels(2.6))
    border = _texels(0.08)
    rug[:border], rug[-border:], rug[:, :border], rug[:, -border:] = ((110, 30, 40),) * 4
    top, left = (floor.shape[0] - rug.shape[0]) // 2, (floor.shape[1] - rug.shape[1]) // 2
    floor[top : top + rug.shape[0], left : left + rug.shape[1]] = (
        textures.cloth(rng, *rug.shape[:2], (0, 0, 0)) // 3 + rug // 4 * 3
    )
    b.add((-length / 2, width / 2, 0), (length, 0, 0), (0, -width, 0), floor)
    ceiling = textures.plaster(rng, _texels(width), _texels(length), (214, 212, 204), 5.0)
    for at in (0.12, 0.36, 0.63, 0.88):
        x = int((at + rng.uniform(-0.03, 0.03)) * ceiling.shape[1])
        beam = textures.planks(rng, ceiling.shape[0], _texels(0.18), rng.uniform(70, 150, 3), (400, 60))
        ceiling[:, x : x + beam.shape[1]] = beam[:, : ceiling.shape[1] - x]
    for _ in range(7):
        y, x = rng.integers(20, ceiling.shape[0] - 150), rng.integers(20, ceiling.shape[1] - 150)
        cv2.rectangle(
            ceiling,
            (int(x), int(y)),
            (int(x + rng.integers(40, 130)), int(y + rng.integers(20, 110))),
            textures.colour(rng, (10, 120)).tolist(),
            -1,
        )
    for lamp in _LAMPS:
        spot = (int((lamp[0] + length / 2) * _TEXELS_PER_METRE), int((lamp[1] + width / 2) * _TEXELS_PER_METRE))
        cv2.circle(ceiling, spot, _texels(0.22), (255, 252, 238), -1, cv2.LINE_AA)
    # Seen from below with its right along +x, the ceiling's down points to +y.
    b.add((-length / 2, -width / 2, height), (length, 0, 0), (0, width, 0), ceiling)


def _decorate(b: _Builder, wall: np.ndarray, extent: float, index: int) -> None:
    """Hang pictures in two loose rows over a skirting board; the plain wall also gets a wainscot and a door."""
    rng = b.rng
    skirting = _texels(0.12)
    wall[-skirting:] = textures.plaster(rng, skirting, wall.shape[1], textures.colour(rng, (20, 90), (60, 220)), 6.0)
    taken = 0.25
    if index == 3:
        panel = textures.planks(rng, wall.shape[1], _texels(0.8), (150, 164, 140), (_texels(0.16), 600))
        wall[-panel.shape[1] : -skirting] = panel.transpose(1, 0, 2)[:-skirting]  # upright planks up to the chest rail
        door = textures.planks(rng, _texels(2.1), _texels(0.95), (98, 60, 40), (260, 30)[::-1])
        cv2.circle(door, (_texels(0.86), _texels(1.05)), _texels(0.03), (212, 190, 90), -1, cv2.LINE_AA)
        left = _texels(0.3)
        wall[-door.shape[0] :, left : left + door.shape[1]] = door
        taken = 1.5
    while True:
        wide = rng.uniform(0.7, 1.25)
        if taken + wide > extent - 0.2:
            break
        if rng.random() < 0.45:  # two smaller pictures, one above the other
            heights, tops = rng.uniform(0.55, 0.75, 2), (rng.uniform(0.25, 0.4), rng.uniform(1.2, 1.35))
        else:
            heights, tops = rng.uniform(0.8, 1.3, 1), (rng.uniform(0.4, 0.75),)
        for high, top in zip(heights, tops):
            frame = int(rng.integers(6, 14))
            image = b.picture(high - 2 * frame / _TEXELS_PER_METRE, wide - 2 * frame / _TEXELS_PER_METRE)
            textures.hang(rng, wall, image, _texels(taken), _texels(top), frame)
        taken += wide + rng.uniform(0.12, 0.3)


def _furniture(b: _Builder) -> None:
    """Pieces along the walls and a low table in the middle; the way around the table stays free."""
    rng = b.rng

    def wood(base):
        return lambda high, wide: textures.planks(rng, _texels(high), _texels(wide), base, (40, 400))

    def fabric(base):
        return lambda high, wide: textures.cloth(rng, _texels(high), _texels(wide), base)

    def shift():
        return rng.uniform(-0.12, 0.12)

    # A bookshelf against the far wall, a cabinet beside it.
    b.box(
        (2.78, -1.3 + shift()),
        (0.36, 1.3, 2.0),
        0.0,
        180,
        wood((96, 68, 46)),
        front=lambda h, w: textures.books(rng, _texels(h), _texels(w), 5),
    )
    b.box((2.72, 1.2 + shift()), (0.5, 1.0, 0.85), 0.0, 180, wood((70, 96, 110)), top=b.picture)
    b.box((2.74, 1.3 + shift()), (0.28, 0.36, 0.4), 0.85, 170 + 60 * shift(), b.picture)
    # A sofa under the mural: seat, back, two arms, cushions.
    sofa, x = fabric(textures.colour(rng, (80, 160), (90, 190))), -0.4 + 2 * shift()
    b.box((x, -2.12), (1.9, 0.7, 0.42), 0.0, 0, sofa)
    b.box((x, -2.38), (1.9, 0.2, 0.42), 0.42, 0, sofa)
    for side in (-0.88, 0.88):
        b.box((x + side, -2.12), (0.16, 0.7, 0.2), 0.42, 0, sofa)
    for side in (-0.5, 0.45):
        b.box(
            (x + side, -2.2),
            (0.42, 0.14, 0.36),
            0.42,
            12 * rng.standard_normal(),
            lambda h, w: textures.collage(rng, _texels(h), _texels(w)),
        )
    # Crates stacked in one corner, a plinth with a cube in another, a chest of drawers along the striped wall.
    b.box((-2.55, -1.85 + shift()), (0.6, 0.55, 0.6), 0.0, 14 + 60 * shift(), b.picture)
    b.box((-2.6, -1.9 + shift()), (0.42, 0.4, 0.45), 0.6, -20 + 60 * shift(), b.picture)
    b.box(
        (-2.6, 1.95 + shift()),
        (0.4, 0.4, 1.0),
        0.0,
        40 * shift(),
        lambda h, w: textures.plaster(rng, _texels(h), _texels(w), (226, 222, 214)),
    )
    b.box((-2.6, 1.95), (0.3, 0.3, 0.3), 1.0, 30 + 90 * shift(), b.picture)
    b.box(
        (0.9 + shift(), 2.22),
        (1.4, 0.45, 0.75),
        0.0,
        0,
        wood((140, 96, 60)),
        top=lambda h, w: textures.collage(rng, _texels(h), _texels(w)),
    )
    b.box((1.25 + shift(), 2.24), (0.3, 0.2, 0.4), 0.75, 40 * shift(), b.picture)
    b.box(
        (-1.3 + shift(), 2.15),
        (0.5, 0.5, 0.5),
        0.0,
        100 * shift(),
        lambda h, w: textures.collage(rng, _texels(h), _texels(w)),
    )
    # The low table: a top on four legs, with two boxes on it.
    b.box(
        (0.0, 0.0),
        (0.8, 0.55, 0.04),
        0.38,
        0,
        wood((120, 76, 48)),
        top=lambda h, w: textures.planks(rng, _texels(h), _texels(w), (168, 118, 78)),
    )
    for dx in (-0.36, 0.36):
        for dy in (-0.235, 0.235):
            b.box((dx, dy), (0.05, 0.05, 0.38), 0.0, 0, wood((90, 60, 40)))
    b.box((-0.18 + shift() / 2, 0.05), (0.26, 0.2, 0.16), 0.42, 120 * shift(), b.picture)
    b.box((0.2, -0.06 + shift() / 2), (0.16, 0.22, 0.24), 0.42, 30 + 120 * shift(), b.picture)


def _lit(rectangle: Rectangle) -> Rectangle:
    """The rectangle with the light of the two lamps (Lambert, no shadows) and dim corners baked into its texture."""
    height, width = rectangle.texture.shape[:2]
    grid = (max(2, height // 24), max(2, width // 24))
    rows, columns = (np.arange(n) + 0.5 for n in grid)
    points = (
        rectangle.origin
        + (columns / grid[1])[None, :, None] * rectangle.right
        + (rows / grid[0])[:, None, None] * rectangle.down
    )
    light = np.full(grid, 0.62)
    for lamp in _LAMPS:
        towards = lamp - points
        distance = np.linalg.norm(towards, axis=-1)
        light += 0.75 * np.clip((towards @ rectangle.normal) / distance, 0, 1) / (0.6 + 0.35 * distance**2)
    to_wall = np.stack(
        [np.abs(np.abs(points[..., axis]) - ROOM_SIZE[axis] / 2) for axis in (0, 1)]
        + [points[..., 2], ROOM_SIZE[2] - points[..., 2]]
    )
    second = np.sort(to_wall, axis=0)[1]  # a wall itself is the nearest; the next one makes the corner
    light *= 1 - 0.28 * np.exp(-second / 0.18)
    light = cv2.resize(np.minimum(light, 1.25).astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    texture = np.clip(np.rint(rectangle.texture * light[..., None]), 0, 255).astype(np.uint8)
    return Rectangle(rectangle.origin, rectangle.right, rectangle.down, texture)


def _texels(metres: float) -> int:
    return max(2, round(metres * _TEXELS_PER_METRE))
