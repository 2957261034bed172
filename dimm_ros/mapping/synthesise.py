"""Views from places where nobody stood: an RGB-D image warped to a camera that has moved as well as turned.

The head regresses world rays, so a synthesised view needs no depth label: its rays and its centre are exact whatever
the depth, and an error of depth only bends the picture a little. The depth is carried to the virtual camera
(z-buffered), its cracks are closed, and the virtual pixels look their colours up in the recorded image: sharp, and
without cracks. What the recorded camera did not see is looked up in other images of the recording that did; what none
saw is filled with something smooth or mirrored, since the encoder attends to the whole image, and the patches it covers
are not trained on.

Distances are ranges along unit rays, so every central camera works; images of them hold 0 where there is none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from dimm_ros.config import TrainingConfig
from dimm_ros.encoder.patches import PATCH, PatchGrid, resize
from dimm_ros.geometry.camera import Camera
from dimm_ros.geometry.poses import invert, make_pose
from dimm_ros.mapping.augment import View, nodes, patch_rays, random_turn, upsample, zoomed

_AGREES = 0.05  # relative difference of two ranges of one surface
_SMOOTH = 0.03  # neighbours whose ranges differ by less are interpolated
_MAX_HOLES = 0.18  # share of a patch's pixels that may be made up
_NEAREST = 0.5  # furthest that a camera moves, as a share of the distance of the nearest things
_MIN_OVERLAP = 500  # pixels that two exposures are compared on
_AROUND = np.ones((3, 3), np.uint8)


@dataclass(frozen=True)
class ImageWithDepth:
    """A recorded image whose distances are known.

    Attributes:
        colours: (h, w, 3) uint8 RGB of ``camera``'s size.
        ranges: (h, w) metres along ``camera``'s unit rays, 0 where there is none.
        camera: camera of both.
    """

    colours: np.ndarray
    ranges: np.ndarray
    camera: Camera

    @classmethod
    def of(
        cls,
        image: np.ndarray,
        depth: np.ndarray,
        depth_camera: Camera,
        grid: PatchGrid,
        camera_from_depth: np.ndarray | None = None,
    ) -> ImageWithDepth:
        """An (H, W, 3) uint8 RGB image at the encoder's scale, with a depth image as in ``registered_range``."""
        return cls(
            resize(image, grid), registered_range(depth, depth_camera, grid.resized, camera_from_depth), grid.resized
        )


def random_motion(source: ImageWithDepth, config: TrainingConfig, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """(4, 4) pose camera_from_virtual of a camera moved by up to ``config.max_offset`` of the scene's distance, turned
    as in ``random_view``; and a zoom.

    The direction of the motion is uniform, its length too; it never takes more than half the way to the nearest things.
    """
    turn, zoom = random_turn(config, rng)
    direction = rng.standard_normal(3)
    seen = source.ranges[::4, ::4]
    seen = seen[seen > 0]
    nearest, middle = np.percentile(seen, (5, 50)) if len(seen) else (0.0, 0.0)
    limit = min(config.max_offset * middle, _NEAREST * nearest)
    return make_pose(turn, direction / np.linalg.norm(direction) * rng.uniform(0, limit)), zoom


def moved_view(
    sources: Sequence[ImageWithDepth], grid: PatchGrid, source_from_virtual: Sequence[np.ndarray], zoom: float = 1.0
) -> View:
    """A camera's view from another place, turned, and with its focal length times ``zoom``.

    Args:
        sources: the recorded image whose camera is moved, then others that fill in what it did not see, best first.
        grid: the patch grid of the moved camera.
        source_from_virtual: for each source the (4, 4) pose of the virtual camera in its frame, metres.

    Returns:
        The view, relative to the first source; its valid patches show at most 18 % pixels that no source saw or has a
        range for.
    """
    virtual = zoomed(grid.camera, zoom)
    virtual_ranges = _virtual_range(sources, virtual, source_from_virtual)
    rays, holds = _smooth_rays(virtual)
    for number, (source, pose) in enumerate(zip(sources, source_from_virtual, strict=True)):
        flow, front, reach = _look_up(rays, virtual_ranges, source.camera, pose)
        warped = cv2.remap(source.colours, flow, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
        there = cv2.remap(source.ranges, flow, None, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=0)
        sees = front & holds & (np.abs(there - reach) < _AGREES * reach)
        if number == 0:
            image, seen, hidden = warped, sees, (there > 0) & ~sees
            continue
        new = sees & ~seen
        image[new] = _exposed_as(image, warped, seen & sees)[new]
        seen |= new
    hidden &= ~seen
    if hidden.any():
        image = _fill_colours(image, seen, hidden, virtual_ranges)
    share = 1 - seen.reshape(grid.rows, PATCH, grid.columns, PATCH).mean(axis=(1, 3)).reshape(-1)
    camera_rays, valid = patch_rays(virtual)
    rotation, offset = source_from_virtual[0][:3, :3], source_from_virtual[0][:3, 3]
    return View(
        image=image,
        rays=camera_rays @ rotation.T,
        camera_rays=camera_rays,
        valid=valid & (share <= _MAX_HOLES),
        offset=offset.copy(),
        turn=rotation.copy(),
    )


def _exposed_as(image: np.ndarray, other: np.ndarray, both: np.ndarray) -> np.ndarray:
    """``other`` with its channels scaled so that it is as bright as ``image`` where both show the same; (h, w, 3)
    uint8.
    """
    if both.sum() < _MIN_OVERLAP:
        return other
    gain = image[both].mean(axis=0) / np.maximum(other[both].mean(axis=0), 1.0)
    return cv2.multiply(other, (*np.clip(gain, 0.5, 2.0), 1.0))


def registered_range(
    depth: np.ndarray, depth_camera: Camera, camera: Camera, camera_from_depth: np.ndarray | None = None
) -> np.ndarray:
    """Range seen by one camera from the depth image of another (or its own), at the former's size.

    Args:
        depth: (h, w) float32 metres along z of ``depth_camera``, 0 where there is none.
        camera_from_depth: (4, 4) pose of the depth camera; None where both have one centre and one orientation.

    Returns:
        (height, width) float32 metres along ``camera``'s unit rays, 0 where there is none; pin-holes are closed.
    """
    if depth.shape != (depth_camera.height, depth_camera.width):
        depth_camera = depth_camera.scaled(depth.shape[1], depth.shape[0])
    along_z = _rays(depth_camera)[..., 2]
    ranges = np.divide(
        depth, along_z, out=np.zeros_like(depth), where=(along_z > 1e-3) & np.isfinite(depth) & (depth > 0)
    )
    if camera_from_depth is not None or not _same_view(depth_camera, camera):
        # Points a little denser than the pixels that they fill.
        grow = 1.2 * camera.fx / depth_camera.fx
        depth_camera = depth_camera.scaled(round(depth_camera.width * grow), round(depth_camera.height * grow))
        points = _points(_rays(depth_camera), _resize(ranges, depth_camera.width, depth_camera.height))
        if camera_from_depth is not None:
            points = _moved(points, camera_from_depth)
        ranges = _splat(points, camera)
    else:
        ranges = _resize(ranges, camera.width, camera.height)
    closed = cv2.morphologyEx(_inverse(ranges), cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8))
    return np.where(ranges > 0, ranges, _inverse(closed))


def _same_view(one: Camera, other: Camera) -> bool:
    """Whether two cameras differ by the size of their images alone."""
    one = one.scaled(other.width, other.height)
    same_lens = (one.distortion_model, one.distortion) == (other.distortion_model, other.distortion)
    return same_lens and np.allclose(
        [one.fx, one.fy, one.cx, one.cy], [other.fx, other.fy, other.cx, other.cy], atol=0.02
    )


def _virtual_range(
    sources: Sequence[ImageWithDepth], virtual: Camera, source_from_virtual: Sequence[np.ndarray]
) -> np.ndarray:
    """(height, width) float32 range of every pixel of the virtual camera; where nothing is known, from around, far side
    first.

    Worked out at half size, where points of the recorded images' size leave no cracks up to a magnification of two.
    """
    half = virtual.scaled(virtual.width // 2, virtual.height // 2)
    inverse = np.zeros((half.height, half.width), np.float32)
    for source, pose in zip(sources, source_from_virtual, strict=True):
        splat = _splat(_moved(_points(_rays(source.camera), source.ranges), invert(pose)), half)
        np.maximum(inverse, _inverse(splat), out=inverse)
    inverse = cv2.morphologyEx(inverse, cv2.MORPH_CLOSE, _AROUND)
    if not inverse.any():
        return np.full((virtual.height, virtual.width), 1e3, np.float32)
    known = inverse > 0
    # A cell's point lies anywhere in it: look its exact range up along the cell's own ray.
    rays, _ = _smooth_rays(half)
    exact = np.zeros_like(known)
    for source, pose in zip(sources, source_from_virtual, strict=True):
        flow, _, reach = _look_up(rays, _inverse(inverse), source.camera, pose)
        there = cv2.remap(source.ranges, flow, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=0)
        agree = known & ~exact & (np.abs(there - reach) < _AGREES * reach)
        inverse[agree] *= reach[agree] / there[agree]
        exact |= agree
    # A hole opens behind what is near: the far side goes on through it.
    weight = np.where(known, np.minimum(_inverse(inverse), 50.0) ** 2, 0).astype(np.float32)
    filled = _push_pull(inverse[..., None], weight)[..., 0]
    return _inverse(_resize(np.where(known, cv2.medianBlur(filled, 3), filled), virtual.width, virtual.height))


def _fill_colours(image: np.ndarray, seen: np.ndarray, hidden: np.ndarray, ranges: np.ndarray) -> np.ndarray:
    """Smooth colours, rather of the far side, in place of what the recorded camera could not see."""
    height, width = seen.shape
    size = (width // 2, height // 2)
    weight = cv2.resize(seen * np.minimum(ranges, 50.0) ** 2, size, interpolation=cv2.INTER_NEAREST).astype(np.float32)
    small = cv2.resize(image, size, interpolation=cv2.INTER_NEAREST).astype(np.float32)
    filled = cv2.resize(_push_pull(small, weight), (width, height), interpolation=cv2.INTER_LINEAR)
    result = image.copy()
    result[hidden] = filled[hidden]
    return result


def _push_pull(values: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Values (h, w, C) with those of zero weight (h, w) interpolated from the nearest level of a pyramid that has
    any.
    """
    known = weight > 0
    if known.all() or min(weight.shape) < 2:
        return values
    size = (-(-weight.shape[1] // 2), -(-weight.shape[0] // 2))
    coarse_weight = cv2.resize(weight, size, interpolation=cv2.INTER_AREA)
    coarse = cv2.resize(values * weight[..., None], size, interpolation=cv2.INTER_AREA).reshape(size[1], size[0], -1)
    coarse = _push_pull(coarse / np.maximum(coarse_weight, 1e-12)[..., None], coarse_weight)
    grown = cv2.resize(coarse, weight.shape[::-1], interpolation=cv2.INTER_LINEAR).reshape(values.shape)
    return np.where(known[..., None], values, grown)


def _splat(points: np.ndarray, camera: Camera) -> np.ndarray:
    """(height, width) float32 range of the nearest of (N, 3) points in each pixel, 0 where there is none."""
    pixels, front = camera.project(points)
    u, v = pixels[:, 0] + 0.5, pixels[:, 1] + 0.5
    inside = np.flatnonzero(front & (u >= 0) & (v >= 0) & (u < camera.width) & (v < camera.height))
    places = v[inside].astype(np.int32) * camera.width + u[inside].astype(np.int32)
    nearest = np.full(camera.height * camera.width, np.inf, np.float32)
    np.minimum.at(nearest, places, _norm(points[inside]))
    nearest[np.isinf(nearest)] = 0
    return nearest.reshape(camera.height, camera.width)


def _look_up(
    rays: np.ndarray, ranges: np.ndarray, source: Camera, source_from_virtual: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where points at ranges along a virtual camera's rays lie in the source image.

    Returns:
        (h, w, 2) float32 pixels, (h, w) bool in front, and (h, w) float32 range from the source camera.
    """
    points = _moved((rays * ranges[..., None]).reshape(-1, 3), source_from_virtual)
    pixels, front = source.project(points)
    pixels[~front] = -1e4
    shape = ranges.shape
    return pixels.astype(np.float32).reshape(*shape, 2), front.reshape(shape), _norm(points).reshape(shape)


def _points(rays: np.ndarray, ranges: np.ndarray) -> np.ndarray:
    """(N, 3) float32 points of the pixels that have a range."""
    known = np.flatnonzero(ranges)
    return rays.reshape(-1, 3)[known] * ranges.reshape(-1)[known, None]


def _moved(points: np.ndarray, target_from_source: np.ndarray) -> np.ndarray:
    """(N, 3) float32 points in another frame."""
    if not len(points):
        return points
    # Not a matrix product: numpy hands one of this shape to BLAS threads, which a busy encoder keeps waiting.
    return cv2.transform(points.reshape(-1, 1, 3), target_from_source[:3].astype(np.float32)).reshape(-1, 3)


def _norm(vectors: np.ndarray) -> np.ndarray:
    """Lengths of (..., 3) vectors, column by column: numpy's sums along a short axis are ten times slower."""
    x, y, z = vectors[..., 0], vectors[..., 1], vectors[..., 2]
    return np.sqrt(x * x + y * y + z * z)


@lru_cache(maxsize=8)
def _rays(camera: Camera) -> np.ndarray:
    """(h, w, 3) float32 unit rays of all pixels; zero where the lens model does not hold."""
    x, y = np.arange(camera.width), np.arange(camera.height)
    rays, valid = camera.bearings(np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2))
    rays = (rays * valid[:, None]).astype(np.float32).reshape(camera.height, camera.width, 3)
    rays.flags.writeable = False
    return rays


def _smooth_rays(camera: Camera) -> tuple[np.ndarray, np.ndarray]:
    """(h, w, 3) float32 unit rays, for a bent lens interpolated between every 7th pixel, and (h, w) bool; a zoomed
    camera is used once.
    """
    if camera.is_pinhole:
        x = ((np.arange(camera.width) - camera.cx) / camera.fx).astype(np.float32)
        y = ((np.arange(camera.height) - camera.cy) / camera.fy).astype(np.float32)
        inverse = 1 / np.sqrt(1 + x**2 + (y**2)[:, None])
        return np.stack([x * inverse, y[:, None] * inverse, inverse], axis=-1), np.ones(inverse.shape, bool)
    x, y = nodes(camera.width), nodes(camera.height)
    rays, holds = camera.bearings(np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2))
    coarse = np.column_stack([rays, holds]).astype(np.float32).reshape(len(y), len(x), 4)
    fine = upsample(coarse, x, y, camera.width, camera.height)
    rays, holds = fine[..., :3], fine[..., 3] > 0.999
    return rays / _norm(rays)[..., None], holds


def _resize(values: np.ndarray, width: int, height: int) -> np.ndarray:
    """A range image (or its inverse) at another size: interpolated on surfaces, not across their edges or into
    holes.
    """
    if values.shape == (height, width):
        return values
    nearest = cv2.resize(values, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
    linear = cv2.resize(values, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.where(np.abs(linear - nearest) < _SMOOTH * nearest, linear, nearest)


def _inverse(values: np.ndarray) -> np.ndarray:
    """1/x, with 0 for "none" in both."""
    return np.divide(1, values, out=np.zeros_like(values), where=values > 0)
