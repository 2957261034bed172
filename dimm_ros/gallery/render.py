"""Exact pictures of a scene: one ray per pixel through ``Camera.bearings``, so any central lens works.

Rays are tested against rectangles block by block of the image, textures are read from mip maps, and pixels on the edges
of surfaces are sampled four times. Depth is exact; nothing is random.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from dimm_ros.gallery.scene import Rectangle, Scene
from dimm_ros.geometry.camera import Camera

_BLOCK = 32  # pixels along the side of a block that is tested against a rectangle's bounding sphere at once
_NOTHING = np.int16(-1)
_NEAR = 1e-3


@dataclass(frozen=True)
class _Rays:
    """A camera's rays, computed once.

    Attributes:
        rays: (H, W, 3) float32 unit rays.
        right, down: (H, W, 3) float32 change of the ray from one pixel to the next.
        spread: (H, W) float32 angle of a pixel, radians.
        valid: (H, W) bool.
        blocks: (B, P, 3) float32 rays in blocks of the zero-padded image.
        axes: (B, 3) mean direction of each block.
        angles: (B,) half angle of each block's cone, radians.
    """

    rays: np.ndarray
    right: np.ndarray
    down: np.ndarray
    spread: np.ndarray
    valid: np.ndarray
    blocks: np.ndarray
    axes: np.ndarray
    angles: np.ndarray


@lru_cache(maxsize=4)
def _rays_of(camera: Camera) -> _Rays:
    height, width = camera.height, camera.width
    y, x = np.mgrid[0:height, 0:width]
    rays, valid = camera.bearings(np.column_stack([x.ravel(), y.ravel()]))
    rays, valid = rays.reshape(height, width, 3), valid.reshape(height, width)
    down, right = (np.gradient(rays, axis=axis) if rays.shape[axis] > 1 else np.zeros_like(rays) for axis in (0, 1))
    spread = np.sqrt(np.linalg.norm(np.cross(right, down), axis=-1))
    padded = np.pad(rays, ((0, -height % _BLOCK), (0, -width % _BLOCK), (0, 0)), mode="edge")
    rows, columns = padded.shape[0] // _BLOCK, padded.shape[1] // _BLOCK
    blocks = padded.reshape(rows, _BLOCK, columns, _BLOCK, 3).transpose(0, 2, 1, 3, 4).reshape(rows * columns, -1, 3)
    axes = blocks.mean(axis=1)
    axes /= np.maximum(np.linalg.norm(axes, axis=1, keepdims=True), 1e-9)
    angles = np.arccos(np.clip(np.einsum("bpi,bi->bp", blocks, axes).min(axis=1), -1, 1)) + 1e-3
    as_float = [np.ascontiguousarray(array, dtype=np.float32) for array in (rays, right, down, spread)]
    return _Rays(*as_float, valid, np.ascontiguousarray(blocks, dtype=np.float32), axes, angles)


def render(scene: Scene, camera: Camera, world_from_camera: np.ndarray, *, with_depth: bool = False):
    """The picture a camera takes of a scene.

    Args:
        scene: what there is to see.
        camera: any central camera.
        world_from_camera: (4, 4), optical axes.
        with_depth: also return the depth image.

    Returns:
        (H, W, 3) uint8 RGB, black where the lens sees nothing; with ``with_depth`` a pair of it and the (H, W) float32
        depth along z in metres of the pixels' centres, 0 where there is nothing.
    """
    rays = _rays_of(camera)
    local = [_Local(rectangle, world_from_camera) for rectangle in scene.rectangles]
    seen = _visible(local, rays, camera)
    image = np.zeros((camera.height, camera.width, 3), np.uint8)
    order = np.argsort(seen.ravel(), kind="stable")
    numbers, starts = np.unique(seen.ravel()[order], return_index=True)
    flat_rays, flat_spread, flat_image = rays.rays.reshape(-1, 3), rays.spread.ravel(), image.reshape(-1, 3)
    depth = np.zeros(seen.size, np.float32) if with_depth else None
    for number, pixels in zip(numbers, np.split(order, starts[1:])):
        if number == _NOTHING:
            continue
        hit = local[number].intersect(flat_rays[pixels])
        flat_image[pixels] = local[number].sample(hit, flat_spread[pixels])
        if depth is not None:
            depth[pixels] = hit[2] * flat_rays[pixels, 2]
    _smooth_edges(image, local, seen, rays, [int(number) for number in numbers if number != _NOTHING])
    return (image, depth.reshape(seen.shape)) if with_depth else image


class _Local:
    """A rectangle in the camera's frame."""

    def __init__(self, rectangle: Rectangle, world_from_camera: np.ndarray) -> None:
        rotation, centre = world_from_camera[:3, :3], world_from_camera[:3, 3]
        self.rectangle = rectangle
        across2, down2 = rectangle.right @ rectangle.right, rectangle.down @ rectangle.down
        from_camera = rectangle.origin - centre
        normal = rectangle.normal
        #: Along the normal; negative in front of the rectangle.
        self.distance = float(from_camera @ normal)
        #: Texture coordinates (0 to 1) of the camera's own foot, and how they change along a ray.
        self.offset = np.array(
            [-(from_camera @ rectangle.right) / across2, -(from_camera @ rectangle.down) / down2], dtype=np.float32
        )
        rows = np.stack([rectangle.right / across2, rectangle.down / down2, normal])
        self.from_ray = np.ascontiguousarray((rows @ rotation).T, dtype=np.float32)
        middle = rotation.T @ (from_camera + (rectangle.right + rectangle.down) / 2)
        away = np.linalg.norm(middle)
        radius = np.sqrt(across2 + down2) / 2
        self.axis = middle / max(away, 1e-9)
        self.half_angle = np.pi if away <= radius else float(np.arcsin(radius / away))
        self.normal = rotation.T @ normal

    def blocks(self, rays: _Rays) -> np.ndarray:
        """Indices of the blocks that may see it: within its bounding cone, and facing its front."""
        if self.distance >= -_NEAR:
            return np.empty(0, dtype=np.intp)
        apart = np.arccos(np.clip(rays.axes @ self.axis, -1, 1))
        facing = np.arccos(np.clip(rays.axes @ -self.normal, -1, 1)) < np.pi / 2 + rays.angles
        return np.flatnonzero((apart < rays.angles + self.half_angle) & facing)

    def intersect(self, rays: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Where (..., 3) rays meet its plane: texture coordinates u, v (0 to 1 inside), range, cosine to the normal."""
        along = rays @ self.from_ray
        cosine = along[..., 2]
        with np.errstate(divide="ignore", invalid="ignore"):
            reach = np.float32(self.distance) / cosine
        reach[cosine >= -1e-6] = np.inf
        with np.errstate(invalid="ignore"):
            u, v = self.offset[0] + reach * along[..., 0], self.offset[1] + reach * along[..., 1]
        return u, v, reach, -cosine

    def sample(self, hit: tuple[np.ndarray, ...], spread: np.ndarray) -> np.ndarray:
        """(N, 3) colours at intersections, from the two mip levels whose texels bracket the pixel's footprint."""
        u, v, reach, cosine = hit
        pyramid = self.rectangle.pyramid
        texel = np.linalg.norm(self.rectangle.right) / pyramid[0].shape[1]
        # Between the footprint's narrow (1) and long (1/cosine) side: neither blurs nor flickers much.
        footprint = spread * reach / (texel * np.maximum(cosine, 0.02) ** 0.7)
        level = np.clip(np.log2(np.maximum(footprint, 1.0)), 0, len(pyramid) - 1)
        lower = level.astype(np.int8)
        colours = np.empty((len(u), 3), np.uint8)
        for number in np.unique(lower):
            chosen = np.flatnonzero(lower == number)
            value = _lookup(pyramid[number], u[chosen], v[chosen])
            if number + 1 < len(pyramid) and (number or level[chosen].any()):
                weight = (level[chosen] - number)[:, None]
                value = value + (_lookup(pyramid[number + 1], u[chosen], v[chosen]) - value) * weight
            colours[chosen] = value + 0.5
        return colours


def _lookup(texture: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """(N, 3) float32 bilinear colours; OpenCV wants the coordinates as an image of limited width."""
    count = len(u)
    rows = -(-count // 4096)
    maps = np.zeros((2, rows * 4096), np.float32)
    maps[0, :count] = u * texture.shape[1] - 0.5
    maps[1, :count] = v * texture.shape[0] - 0.5
    maps = maps.reshape(2, rows, 4096) if rows > 1 else maps[:, None, :count]
    out = np.concatenate(
        [
            cv2.remap(
                texture,
                maps[0, first : first + 16384],
                maps[1, first : first + 16384],
                cv2.INTER_LINEAR,
                borderMode=cv2.BORDER_REPLICATE,
            )
            for first in range(0, rows, 16384)
        ]
    )
    return out.reshape(-1, 3)[:count].astype(np.float32)


def _visible(local: list[_Local], rays: _Rays, camera: Camera) -> np.ndarray:
    """(H, W) int16 number of the rectangle each pixel's ray meets first, or ``_NOTHING``."""
    nearest = np.full(rays.blocks.shape[:2], np.inf, np.float32)
    number_of = np.full(rays.blocks.shape[:2], _NOTHING, np.int16)
    for number, rectangle in enumerate(local):
        blocks = rectangle.blocks(rays)
        if not len(blocks):
            continue
        u, v, reach, _ = rectangle.intersect(rays.blocks[blocks])
        before = nearest[blocks]
        closer = (reach < before) & (u >= 0) & (u <= 1) & (v >= 0) & (v <= 1)
        nearest[blocks] = np.where(closer, reach, before)
        number_of[blocks] = np.where(closer, np.int16(number), number_of[blocks])
    rows, columns = -(-camera.height // _BLOCK), -(-camera.width // _BLOCK)
    image = (
        number_of.reshape(rows, columns, _BLOCK, _BLOCK).transpose(0, 2, 1, 3).reshape(rows * _BLOCK, columns * _BLOCK)
    )
    image = image[: camera.height, : camera.width].copy()
    image[~rays.valid] = _NOTHING
    return image


def _smooth_edges(image: np.ndarray, local: list[_Local], seen: np.ndarray, rays: _Rays, numbers: list[int]) -> None:
    """Replace pixels at the border of two surfaces by the mean of four rays, in place."""
    edge = np.zeros(seen.shape, np.uint8)
    across, along = seen[:, 1:] != seen[:, :-1], seen[1:] != seen[:-1]
    edge[:, 1:] |= across
    edge[:, :-1] |= across
    edge[1:] |= along
    edge[:-1] |= along
    edge &= rays.valid
    pixels = np.flatnonzero(edge)
    if not len(pixels):
        return
    place = np.full(seen.size, -1, np.int32)
    place[pixels] = np.arange(len(pixels), dtype=np.int32)
    offsets = np.array([[-0.25, -0.25], [0.25, -0.25], [-0.25, 0.25], [0.25, 0.25]], np.float32)
    centre, right, down = (array.reshape(-1, 3)[pixels] for array in (rays.rays, rays.right, rays.down))
    sub = centre[None] + offsets[:, 0, None, None] * right + offsets[:, 1, None, None] * down  # (4, n, 3)
    sub /= np.linalg.norm(sub, axis=-1, keepdims=True)
    spread = rays.spread.ravel()[pixels] / 2
    nearest = np.full(sub.shape[:2], np.inf, np.float32)
    number_of = np.full(sub.shape[:2], _NOTHING, np.int16)
    around = np.ones((3, 3), np.uint8)
    candidates = {}
    for number in numbers:  # only what a neighbouring pixel sees can show at an edge
        near = cv2.dilate((seen == number).view(np.uint8), around) & edge
        candidates[number] = chosen = place[np.flatnonzero(near)]
        u, v, reach, _ = local[number].intersect(sub[:, chosen])
        before = nearest[:, chosen]
        closer = (reach < before) & (u >= 0) & (u <= 1) & (v >= 0) & (v <= 1)
        nearest[:, chosen] = np.where(closer, reach, before)
        number_of[:, chosen] = np.where(closer, np.int16(number), number_of[:, chosen])
    colours = np.zeros((*sub.shape[:2], 3), np.float32)
    for number, chosen in candidates.items():
        which, column = np.nonzero(number_of[:, chosen] == number)
        if len(which):
            at = chosen[column]
            hit = local[number].intersect(sub[which, at])
            colours[which, at] = local[number].sample(hit, spread[at])
    image.reshape(-1, 3)[pixels] = np.rint(colours.mean(axis=0)).astype(np.uint8)
