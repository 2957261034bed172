"""How well given poses and a given lens explain matched features: the symmetric epipolar error in pixels.

For a match (p, q) with rays u, v and the motion b_from_a = (R, t), the residual v . (t x R u) over the length of its
derivative by p (or q) is the distance of p (or q) from its epipolar curve to first order, for every central camera.
The error of a match is the mean of both.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np
from scipy.spatial.transform import Rotation

from dimm_ros.data.recording import Recording
from dimm_ros.doctor.matching import Matches
from dimm_ros.geometry.camera import Camera
from dimm_ros.geometry.poses import invert

_SOFTEN_PX = 0.3  # errors far below the features' own noise count alike
_MIN_ANGLE = np.sin(np.radians(0.4))  # rays nearer to parallel do not tell before from behind
_GAP = 3.0  # poses farther apart than this many usual intervals are not interpolated between


class EpipolarTest:
    """The matches of a recording, to be scored under many hypotheses.

    Attributes:
        matches: the matches.
        period_s: median time between frames, seconds.
        image_size: longer side of the images, pixels.
    """

    def __init__(self, recording: Recording, matches: Matches) -> None:
        self._recording, self.matches = recording, matches
        stamps = np.array([frame.stamp_ns for frame in recording.frames], dtype=np.int64)
        self._seconds = (stamps - stamps[0]) * 1e-9
        self.period_s = float(np.median(np.diff(self._seconds))) if len(stamps) > 1 else 0.0
        self.world_from_camera = recording.poses()
        counts = np.bincount(matches.pair, minlength=len(matches))
        # One row per pair, padded; medians need the rows, not the flat list.
        self._column = np.arange(len(matches.pair)) - np.repeat(np.cumsum(counts) - counts, counts)
        self._counts = counts
        self._plane_slopes: dict[float | None, np.ndarray] = {}
        self.image_size = max((max(camera.width, camera.height) for camera in matches.cameras.values()), default=0)

    def subsampled(self, most: int) -> EpipolarTest:
        """The test with at most so many matches of each pair: less exact, and quicker."""
        keep = self._column * most // np.maximum(self._counts, most)[self.matches.pair]
        keep = np.diff(keep, prepend=-1) != 0
        return EpipolarTest(
            self._recording, replace(self.matches, pair=self.matches.pair[keep], pixels=self.matches.pixels[:, keep])
        )

    @lru_cache(maxsize=64)  # noqa: B019  one object a run
    def rays(self, focal_factor: float, k1: float | None = None) -> tuple[np.ndarray, np.ndarray]:
        """(2, N, 3) unit rays of the matches, and (2, N, 3, 2) their derivative by the pixel.

        Args:
            focal_factor: on the given focal lengths.
            k1: radial distortion in place of the given one; None leaves that. Pixels that no ray reaches get NaN.
        """
        pixels, pair = self.matches.pixels, self.matches.pair
        slopes_known = k1 in self._plane_slopes
        if not slopes_known:
            self._plane_slopes[k1] = np.zeros((2, len(pair), 2, 2))
        rays = np.zeros((*pixels.shape[:2], 3))
        groups: dict[Camera, list[int]] = {}
        for index, camera in self.matches.cameras.items():
            groups.setdefault(camera, []).append(index)
        for camera, members in groups.items():
            if k1 is not None:
                camera = replace(camera, distortion_model="plumb_bob", distortion=(k1, 0.0, 0.0, 0.0) if k1 else ())
            scaled = replace(camera, fx=camera.fx * focal_factor, fy=camera.fy * focal_factor)
            for side in (0, 1):
                mine = np.isin(self.matches.frames[pair, side], members)
                found, valid = scaled.bearings(pixels[side, mine])
                rays[side, mine] = np.where(valid[:, None], found, np.nan)
                if not slopes_known:
                    given = found if focal_factor == 1.0 else camera.bearings(pixels[side, mine])[0]
                    self._plane_slopes[k1][side, mine] = _plane_slopes(camera, pixels[side, mine], given)
        # Of a ray by its point on the plane z = 1: (I - u u^T) u_z. How the lens bends the plane is taken from the
        # given focal length for all others, which spares two of three inversions of the lens.
        onto = (np.eye(3)[:, :2] - rays[..., None] * rays[..., None, :2]) * rays[..., 2, None, None]
        slopes = onto @ self._plane_slopes[k1] / focal_factor
        return rays, slopes

    def poses(self, shift_s: float = 0.0, shift_frames: int = 0) -> np.ndarray:
        """(F, 4, 4) poses at the frames' stamps plus a time, or of the frame so many places on; NaN where there are
        none.
        """
        result = self.world_from_camera
        if shift_frames:
            result = np.full_like(self.world_from_camera, np.nan)
            keep = slice(0, len(result) - shift_frames) if shift_frames > 0 else slice(-shift_frames, None)
            result[keep] = np.roll(self.world_from_camera, -shift_frames, axis=0)[keep]
        if shift_s:
            result = _interpolate(self._seconds, result, self._seconds + shift_s, _GAP * self.period_s)
        return result

    def motions(self, world_from_camera: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(P, 3, 3) and (P, 3): b_from_a of the pairs."""
        a, b = (world_from_camera[self.matches.frames[:, side]] for side in (0, 1))
        motion = invert(b) @ a
        return motion[:, :3, :3], motion[:, :3, 3]

    def errors(
        self, motions: tuple[np.ndarray, np.ndarray], focal_factor: float = 1.0, k1: float | None = None
    ) -> np.ndarray:
        """(P,) median symmetric epipolar error of each pair, pixels; NaN where the motion is NaN."""
        rotation, translation = (part[self.matches.pair] for part in motions)
        (u, v), (slope_u, slope_v) = self.rays(focal_factor, k1)
        turned = np.einsum("nij,nj->ni", rotation, u)
        normal = np.cross(translation, turned)
        back = np.einsum("nji,nj->ni", rotation, np.cross(v, translation))
        residual = np.abs((v * normal).sum(axis=1))
        by_v = np.linalg.norm(np.einsum("nij,ni->nj", slope_v, normal), axis=1)
        by_u = np.linalg.norm(np.einsum("nij,ni->nj", slope_u, back), axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            distance = 0.5 * (residual / by_v + residual / by_u)
        known = np.isfinite(translation[:, 0])
        distance = np.minimum(np.nan_to_num(distance, nan=np.inf), self.image_size)  # no motion given: no curve at all
        rows = np.full((len(self.matches), int(self._counts.max(initial=1))), np.inf)
        rows[self.matches.pair, self._column] = np.where(known, distance, np.inf)
        rows.sort(axis=1)
        median = rows[np.arange(len(rows)), np.maximum(self._counts // 2, 0)]
        return np.where(np.isfinite(motions[1][:, 0]), median, np.nan)

    def in_front(
        self, motions: tuple[np.ndarray, np.ndarray], focal_factor: float = 1.0, k1: float | None = None
    ) -> float:
        """Share of the matches with parallax whose point lies before both cameras; NaN where there are none."""
        distances = self.distances(motions, focal_factor, k1)
        use = np.isfinite(distances[0])
        return float((distances > 0).all(axis=0)[use].mean()) if use.any() else np.nan

    def distances(
        self, motions: tuple[np.ndarray, np.ndarray], focal_factor: float = 1.0, k1: float | None = None
    ) -> np.ndarray:
        """(2, N) distance of each match's point from the first and the second camera along its ray, in the poses' unit.

        Negative behind a camera; NaN where the rays are too nearly parallel to tell.
        """
        rotation, translation = (part[self.matches.pair] for part in motions)
        (u, v), _ = self.rays(focal_factor, k1)
        turned = np.einsum("nij,nj->ni", rotation, u)
        across = np.cross(turned, v)  # turned * s + t = v * r, crossed with v, and with turned
        sine = np.linalg.norm(across, axis=1)
        along = np.stack([-(np.cross(translation, other) * across).sum(axis=1) for other in (v, turned)])
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(np.isfinite(along) & (sine > _MIN_ANGLE), along / sine**2, np.nan)

    def score(self, errors: np.ndarray) -> np.ndarray:
        """(P,) logarithms of the errors, which a hypothesis's gain is the mean difference of."""
        return np.log(errors + _SOFTEN_PX)

    def typical(self, errors: np.ndarray) -> float:
        """One figure for the table: the median pair's error, pixels; NaN without a pair."""
        return float(np.nanmedian(errors)) if np.isfinite(errors).any() else np.nan

    def gain(self, before: np.ndarray, after: np.ndarray) -> tuple[float, float]:
        """By how much the mean logarithm of the error falls from one hypothesis to another, and its standard error.

        Only pairs that both can judge count. Pairs of one clip err together, so the clips are the sample.
        """
        difference = self.score(before) - self.score(after)
        known = np.isfinite(difference)
        difference, clip = difference[known], self.matches.clip[known]
        counts = np.bincount(clip)
        present = counts > 0
        if present.sum() < 3:
            return 0.0, np.inf
        means = np.bincount(clip, difference)[present] / counts[present]
        return float(difference.mean()), float(means.std(ddof=1) / np.sqrt(len(means)))


def _plane_slopes(camera: Camera, pixels: np.ndarray, rays: np.ndarray) -> np.ndarray:
    """(N, 2, 2) derivative of a ray's point on the plane z = 1 by its pixel."""
    step = 0.5
    points = rays[:, :2] / rays[:, 2:]
    ahead = [camera.bearings(pixels + offset)[0] for offset in ([step, 0.0], [0.0, step])]
    return np.stack([(other[:, :2] / other[:, 2:] - points) / step for other in ahead], axis=-1)


def _interpolate(times: np.ndarray, poses: np.ndarray, at: np.ndarray, longest: float) -> np.ndarray:
    """(M, 4, 4) poses at times between samples; NaN outside them, in longer gaps, and beside NaN."""
    result = np.full((len(at), 4, 4), np.nan)
    right = np.clip(np.searchsorted(times, at), 1, len(times) - 1)
    left = right - 1
    gap = times[right] - times[left]
    known = np.isfinite(poses[:, 0, 0])
    use = (at >= times[0]) & (at <= times[-1]) & (gap <= longest) & (gap > 0) & known[left] & known[right]
    left, right, fraction = left[use], right[use], ((at - times[left]) / np.maximum(gap, 1e-12))[use]
    if not use.any():
        return result
    first = Rotation.from_matrix(poses[left, :3, :3])
    turn = (first.inv() * Rotation.from_matrix(poses[right, :3, :3])).as_rotvec()
    mixed = np.tile(np.eye(4), (len(left), 1, 1))
    mixed[:, :3, :3] = (first * Rotation.from_rotvec(fraction[:, None] * turn)).as_matrix()
    mixed[:, :3, 3] = (1 - fraction[:, None]) * poses[left, :3, 3] + fraction[:, None] * poses[right, :3, 3]
    result[use] = mixed
    return result
