"""Depth without a depth sensor: plane-sweep stereo over the posed images of a recording.

A few neighbours at a good baseline are swept through planes of constant inverse depth (Collins, CVPR 1996) at a low
resolution, compared by zero-mean normalised cross-correlation (deaf to exposure), the better half of the neighbours
counting at every pixel (an occluder hides it from some), and regularised along scan lines (semi-global matching,
Hirschmüller, PAMI 2008). That is enough for ``dimm_ros.mapping.synthesise``, where an error of depth bends the picture
a little and leaves the labels exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import cv2
import numpy as np

from dimm_ros.data.recording import Frame, Recording
from dimm_ros.errors import DataError
from dimm_ros.geometry.camera import Camera
from dimm_ros.geometry.poses import invert, rotation_angle_deg

_MAX_TURN_DEG = 25.0  # between a frame and its neighbours
_BASELINE = 0.06  # best distance of a neighbour, as a share of the typical depth
_BASELINES = (0.015, 0.3)  # least and largest
_WIDEST = 1.4  # tangent of half the widest field of view that is rectified, about 109 degrees
_WINDOW = (7, 7)
_NOISE = 1.5  # grey levels: windows with less contrast say little
_STEP, _JUMP = 0.06, 1.0  # cost of a step to the next plane, and of any further one, between neighbouring pixels
_CONFIDENT_SCORE, _CONFIDENT_PEAK = 0.6, 0.1  # least correlation, and least extra cost of any other depth
_SEED_FRAMES, _SEED_RANKS = 10, (3, 8, 20, 45)  # frames and neighbours that the depth range is estimated from
_MIN_POINTS = 60


class StereoDepth:
    """Depth of the frames of a recording, estimated one by one on demand.

    Attributes:
        near, far: depth range that is searched, metres (or the recording's own unit).
        typical: median depth of the scene's features.
    """

    def __init__(self, recording: Recording, *, size: int = 160, planes: int = 48, neighbours: int = 6) -> None:
        """Estimate the depth range from triangulated features.

        Args:
            recording: posed frames; their images are read when needed and kept small (``size`` pixels on the longer
                side).
            planes: depths that are tried, evenly spread in inverse depth.
            neighbours: images that each frame is compared with.

        Raises:
            DataError: an image cannot be read, or too few features could be triangulated.
        """
        self._frames, self._poses, self._size, self._count = recording.frames, recording.poses(), size, neighbours
        self._images: dict[int, np.ndarray] = {}
        self._depths: dict[int, np.ndarray] = {}
        depths = self._triangulated_depths()
        if len(depths) < _MIN_POINTS:
            raise DataError(
                f"No depth can be estimated for '{recording.name}': only {len(depths)} points could be triangulated "
                "from its "
                "images; move the camera sideways while recording, or record depth."
            )
        self.typical = float(np.median(depths))
        low, high = np.percentile(depths, (2, 98))
        self.near, self.far = float(low) / 1.4, float(high) * 1.4
        self._inverse = np.linspace(1 / self.far, 1 / self.near, planes).astype(np.float32)

    def camera(self, index: int) -> Camera:
        """The pinhole camera of a frame's depth image: that of the frame, rectified and scaled down."""
        return rectified(self._frames[index].camera, self._size)

    def neighbours(self, index: int) -> list[int]:
        """Frames that a frame is compared with, best first: near the best baseline, looking the same way, not all in
        one place.
        """
        pose = self._poses[index]
        offset = self._poses[:, :3, 3] - pose[:3, 3]
        distance = np.linalg.norm(offset, axis=1) / self.typical
        turn = rotation_angle_deg(pose[:3, :3], self._poses[:, :3, :3])
        # Moving along the optical axis shifts the middle of the image least.
        sideways = np.sqrt(np.maximum(distance**2 - 0.5 * (offset @ pose[:3, 2] / self.typical) ** 2, 1e-12))
        badness = np.abs(np.log(sideways / _BASELINE)) + (turn / _MAX_TURN_DEG) ** 2
        badness[(distance < _BASELINES[0]) | (distance > _BASELINES[1]) | (turn > _MAX_TURN_DEG)] = np.inf
        chosen: list[int] = []
        for candidate in np.argsort(badness, kind="stable"):
            if len(chosen) == self._count or np.isinf(badness[candidate]):
                break
            apart = np.linalg.norm(self._poses[chosen, :3, 3] - self._poses[candidate, :3, 3], axis=1) / self.typical
            if not chosen or apart.min() > _BASELINES[0]:
                chosen.append(int(candidate))
        return chosen

    def depth(self, index: int) -> np.ndarray:
        """(h, w) float32 metres along z of ``camera(index)``; 0 where no neighbour looks, everywhere if there is none.

        It is estimated once, and kept in half precision.
        """
        if index not in self._depths:
            self._depths[index] = (self.depth_and_confidence(index)[0] / self.typical).astype(np.float16)
        return self._depths[index].astype(np.float32) * np.float32(self.typical)

    def depth_and_confidence(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Depth as in ``depth``, and (h, w) bool: whether the images themselves say so, rather than the pixels
        around.
        """
        camera, chosen = self.camera(index), self.neighbours(index)
        shape = (camera.height, camera.width)
        if not chosen:
            return np.zeros(shape, np.float32), np.zeros(shape, bool)
        image = self._image(index)
        scores, looks = zip(*(self._sweep(image, camera, index, other) for other in chosen), strict=True)
        score = _mean_of_best(scores, (len(chosen) + 1) // 2)
        cost = _semi_global(1 - score, image)
        place, inverse, peak = _minimum(cost, self._inverse)
        best = np.take_along_axis(score, place[..., None], axis=2)[..., 0]
        seen = np.any(looks, axis=0)
        inverse = cv2.medianBlur(inverse, 5)
        confident = (
            seen & (best > _CONFIDENT_SCORE) & (peak > _CONFIDENT_PEAK) & (place > 0) & (place < len(self._inverse) - 1)
        )
        return np.where(seen, 1 / inverse, 0).astype(np.float32), confident

    def _image(self, index: int) -> np.ndarray:
        """(h, w) uint8 rectified grey image."""
        if index not in self._images:
            frame = self._frames[index]
            self._images[index] = _rectify(frame.load(), frame.camera, self._size)
        return self._images[index]

    def _sweep(self, image: np.ndarray, camera: Camera, index: int, other: int) -> tuple[np.ndarray, np.ndarray]:
        """(h, w, planes) correlation of an image with a neighbour's at every plane, 0 outside it; (h, w) whether it
        looks there.
        """
        other_camera = self.camera(other)
        relative = invert(self._poses[other]) @ self._poses[index]
        x, y = np.meshgrid(np.arange(camera.width), np.arange(camera.height))
        pixels = np.stack([x, y, np.ones_like(x)], axis=-1).astype(np.float64)
        turned = (pixels @ (other_camera.matrix @ relative[:3, :3] @ np.linalg.inv(camera.matrix)).T).astype(np.float32)
        shift = (other_camera.matrix @ relative[:3, 3]).astype(np.float32)
        u, v, z = (turned[..., axis, None] + self._inverse * shift[axis] for axis in range(3))
        with np.errstate(divide="ignore", invalid="ignore"):
            u, v = u / z, v / z
        inside = (z > 0) & (u >= 0) & (v >= 0) & (u <= other_camera.width - 1) & (v <= other_camera.height - 1)
        flat = (camera.height, camera.width * len(self._inverse))
        warped = cv2.remap(
            self._image(other).astype(np.float32),
            u.reshape(flat),
            v.reshape(flat),
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        ).reshape(u.shape)
        return np.where(inside, _correlation(image.astype(np.float32), warped), 0), inside.any(axis=2)

    def _triangulated_depths(self) -> np.ndarray:
        """(N,) depths of features seen in pairs of frames spread over the recording."""
        found: list[np.ndarray] = []
        for index in np.unique(np.linspace(0, len(self._frames) - 1, _SEED_FRAMES).astype(int)):
            distance = np.linalg.norm(self._poses[:, :3, 3] - self._poses[index, :3, 3], axis=1)
            turn = rotation_angle_deg(self._poses[index, :3, :3], self._poses[:, :3, :3])
            order = [
                other for other in np.argsort(distance, kind="stable") if other != index and turn[other] < _MAX_TURN_DEG
            ]
            for other in [order[rank] for rank in _SEED_RANKS if rank < len(order)]:
                found.append(self._triangulate(index, other))
        return np.concatenate(found) if found else np.empty(0)

    def _triangulate(self, index: int, other: int) -> np.ndarray:
        """(N,) depths in the first of two frames of the features that both see and whose rays meet."""
        features = [_features(self._frames[number], 2 * self._size) for number in (index, other)]
        if min(len(descriptors) for _, descriptors in features) < 2:
            return np.empty(0)
        pairs = cv2.BFMatcher(cv2.NORM_L2).knnMatch(features[0][1], features[1][1], k=2)
        matches = [first for first, second in pairs if first.distance < 0.75 * second.distance]
        if not matches:
            return np.empty(0)
        relative = invert(self._poses[index]) @ self._poses[other]
        rays = [
            features[0][0][[m.queryIdx for m in matches]],
            features[1][0][[m.trainIdx for m in matches]] @ relative[:3, :3].T,
        ]
        # Midpoint of two rays: a + s d0 and b + t d1; sin2 is the squared sine of their angle.
        base, cosine = relative[:3, 3], (rays[0] * rays[1]).sum(axis=1)
        sin2 = 1 - cosine**2
        wide = sin2 > np.sin(np.radians(1.5)) ** 2
        along = [ray @ base for ray in rays]
        with np.errstate(divide="ignore", invalid="ignore"):
            reach = (along[0] - cosine * along[1]) / sin2
            reach_other = (cosine * along[0] - along[1]) / sin2
        gap = np.linalg.norm(reach[:, None] * rays[0] - (base + reach_other[:, None] * rays[1]), axis=1)
        good = wide & (reach > 0) & (reach_other > 0) & (gap < 0.01 * reach)
        return (reach * rays[0][:, 2])[good & (rays[0][:, 2] > 0.1)]


@lru_cache(maxsize=32)
def rectified(camera: Camera, size: int) -> Camera:
    """A pinhole camera that sees what a camera sees (up to 109 degrees), with ``size`` pixels on the longer side."""
    scale = size / max(camera.width, camera.height)
    width, height = max(1, round(camera.width * scale)), max(1, round(camera.height * scale))
    if camera.is_pinhole:
        return camera.scaled(width, height)
    right, bottom = camera.width - 0.5, camera.height - 0.5
    rays, _ = camera.bearings(np.array([[-0.5, camera.cy], [right, camera.cy], [camera.cx, -0.5], [camera.cx, bottom]]))
    with np.errstate(divide="ignore"):
        tangents = rays[[0, 1, 2, 3], [0, 0, 1, 1]] / np.maximum(rays[:, 2], 1e-6)
    left, right, top, bottom = np.clip(tangents, -_WIDEST, _WIDEST)
    fx, fy = width / (right - left), height / (bottom - top)
    return Camera(width, height, fx, fy, -left * fx - 0.5, -top * fy - 0.5)


@lru_cache(maxsize=8)
def _rectification(camera: Camera, size: int) -> np.ndarray:
    """(h, w, 2) float32 pixels of the camera scaled to the rectified one's size."""
    pinhole = rectified(camera, size)
    x, y = np.meshgrid(np.arange(pinhole.width), np.arange(pinhole.height))
    rays, _ = pinhole.bearings(np.stack([x, y], axis=-1).reshape(-1, 2))
    pixels, _ = camera.scaled(pinhole.width, pinhole.height).project(rays)
    return pixels.astype(np.float32).reshape(pinhole.height, pinhole.width, 2)


def _rectify(image: np.ndarray, camera: Camera, size: int) -> np.ndarray:
    """(h, w) uint8 grey image of the rectified camera from (H, W, 3) RGB."""
    pinhole = rectified(camera, size)
    small = cv2.resize(
        cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (pinhole.width, pinhole.height), interpolation=cv2.INTER_AREA
    )
    if camera.is_pinhole:
        return small
    return cv2.remap(small, _rectification(camera, size), None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def _features(frame: Frame, size: int) -> tuple[np.ndarray, np.ndarray]:
    """(N, 3) unit rays and (N, 128) SIFT descriptors of a frame's image, shrunk to ``size`` pixels on the longer
    side.
    """
    camera = frame.camera
    scale = min(1.0, size / max(camera.width, camera.height))
    camera = camera.scaled(round(camera.width * scale), round(camera.height * scale))
    grey = cv2.resize(
        cv2.cvtColor(frame.load(), cv2.COLOR_RGB2GRAY), (camera.width, camera.height), interpolation=cv2.INTER_AREA
    )
    points, descriptors = cv2.SIFT_create(nfeatures=500).detectAndCompute(grey, None)
    if not points:
        return np.empty((0, 3)), np.empty((0, 128), np.float32)
    rays, valid = camera.bearings(np.array([point.pt for point in points]))
    return rays[valid], descriptors[valid]


def _correlation(image: np.ndarray, warped: np.ndarray) -> np.ndarray:
    """(h, w, D) zero-mean normalised cross-correlation of windows of an (h, w) image and of D warped ones."""

    def mean(values: np.ndarray) -> np.ndarray:
        return cv2.boxFilter(values, -1, _WINDOW, borderType=cv2.BORDER_REFLECT_101).reshape(values.shape)

    mean_image, mean_warped, square = mean(image), mean(warped), mean(warped * warped)
    variance = np.maximum(mean(image * image) - mean_image**2, 0) + _NOISE**2
    # In place: these are the largest arrays of map-making without depth images.
    square -= mean_warped * mean_warped
    np.maximum(square, 0, out=square)
    square += _NOISE**2
    square *= variance[..., None]
    np.sqrt(square, out=square)
    joint = mean(image[..., None] * warped)
    mean_warped *= mean_image[..., None]
    joint -= mean_warped
    joint /= square
    return joint


def _mean_of_best(scores: Sequence[np.ndarray], count: int) -> np.ndarray:
    """Mean of the so many largest of several arrays, element by element; for a few of them sooner than sorting."""
    best: list[np.ndarray] = []  # the largest first
    for score in scores:
        for place, kept in enumerate(best):
            best[place], score = np.maximum(kept, score), np.minimum(kept, score)
        if len(best) < count:
            best.append(score)
    return sum(best[1:], best[0]) / count


def _semi_global(cost: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Mean over four scan directions of the cheapest path to each (row, column, plane); jumps are cheaper at image
    edges.
    """
    grey = image.astype(np.float32)
    total = np.zeros_like(cost)
    for axis in (0, 1):
        # Scan lines become the first axis; both directions run at once.
        along, lines = np.moveaxis(cost, axis, 0), np.moveaxis(grey, axis, 0)
        jump = _JUMP / (1 + np.abs(np.diff(lines, axis=0)) / 8)
        count, planes = len(along), cost.shape[2]
        padded = np.full((2, along.shape[1], planes + 2), np.inf, np.float32)
        path = padded[..., 1:-1]
        path[0], path[1] = along[0], along[-1]
        sums = np.moveaxis(total, axis, 0)
        sums[0] += path[0]
        sums[-1] += path[1]
        for step in range(1, count):
            least = path.min(axis=2, keepdims=True)
            best = np.minimum(padded[..., :-2], padded[..., 2:])
            best += _STEP
            np.minimum(best, path, out=best)
            np.minimum(best, least + np.stack([jump[step - 1], jump[count - 1 - step]])[..., None], out=best)
            best -= least
            best[0] += along[step]
            best[1] += along[count - 1 - step]
            path[:] = best
            sums[step] += best[0]
            sums[count - 1 - step] += best[1]
    return total / 4


def _minimum(cost: np.ndarray, inverse: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(h, w) index of the cheapest plane, its inverse depth by a parabola through its neighbours, and what any other
    depth costs more.
    """
    place = cost.argmin(axis=2)
    inner = np.clip(place, 1, len(inverse) - 2)

    def at(shift: int) -> np.ndarray:
        return np.take_along_axis(cost, (inner + shift)[..., None], axis=2)[..., 0]

    before, here, after = at(-1), at(0), at(1)
    bend = before - 2 * here + after
    shift = np.where(bend > 1e-6, 0.5 * (before - after) / np.maximum(bend, 1e-6), 0)
    position = inner + np.clip(shift, -1, 1)
    apart = np.abs(np.arange(len(inverse)) - place[..., None]) > 3
    peak = np.where(apart, cost, np.inf).min(axis=2) - cost.min(axis=2)
    return place, (inverse[0] + position * (inverse[1] - inverse[0])).astype(np.float32), peak
