"""Pose from matched landmarks, with the rays' pose as the prior: residuals, robust Gauss-Newton, three-point poses.

With p = R bearing, q = R offset (zero for one camera) and o = c + q the keypoint's own camera centre, world frame:

    point X:            r = (X - o) / |X - o| - p                       three numbers, the keypoint's angular error
    line (l, n = X x l): r = p . N / |N|,  N = n - o x l                 one number, the angle from the plane of
                                                                        centre and line

Both are ``m = X x d`` written as an angle: c x d = X x d says that X - c is parallel to d, and l.m + n.d = 0 is p . N =
0. Perturbation as in ``refine``: c <- c + dc, R <- exp([a]x) R; parameters (dc, a). The prior adds (x - x0)^T S^-1 (x -
x0).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dimm_ros.geometry.poses import rotation_vector

_EYE = np.eye(3)
#: A step that moves what is seen by less than this, root mean square, is the last one.
_SETTLED_PX = 0.001


@dataclass(frozen=True)
class LandmarkMatches:
    """N keypoints and the landmarks that they show; leading dimensions before N are hypotheses' own subsets.

    Attributes:
        bearings: (..., N, 3) unit, rig frame.
        offsets: (..., N, 3) centre of the keypoint's camera in the rig frame, metres.
        places: (..., N, 3) points or (..., N, 6) lines, world frame, metres.
        sigma: (..., N) angle of a pixel, radians: residuals are divided by it.
    """

    bearings: np.ndarray
    offsets: np.ndarray
    places: np.ndarray
    sigma: np.ndarray

    def __len__(self) -> int:
        return self.sigma.shape[-1]

    @property
    def equations(self) -> int:
        """That one match gives: two for a point, one for a line."""
        return 2 if self.places.shape[-1] == 3 else 1

    def at(self, rows: np.ndarray) -> LandmarkMatches:
        """Chosen rows; an (H, m) index makes H subsets."""
        return LandmarkMatches(self.bearings[rows], self.offsets[rows], self.places[rows], self.sigma[rows])


def residuals(rotation: np.ndarray, centre: np.ndarray, matches: LandmarkMatches) -> np.ndarray:
    """(H, N, 3 or 1) residuals in pixels of (H, 3, 3) and (H, 3) poses."""
    return _linearised(rotation, centre, matches, False)[0]


def _linearised(
    rotation: np.ndarray, centre: np.ndarray, matches: LandmarkMatches, derivatives: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Residuals (H, N, k) and their derivatives (H, N, k, 6) by (dc, a), both in pixels; (H, N, k, 0) where not asked
    for.
    """
    turned = matches.bearings @ rotation.swapaxes(-1, -2)
    arm = matches.offsets @ rotation.swapaxes(-1, -2)
    origin = centre[..., None, :] + arm
    scale = 1.0 / matches.sigma[..., None]
    if matches.places.shape[-1] == 3:
        seen = matches.places - origin
        distance = _length(seen)
        seen = seen / distance
        error = (seen - turned) * scale
        if not derivatives:
            return error, np.empty((*error.shape, 0))
        across = (seen[..., :, None] * seen[..., None, :] - _EYE) / distance[..., None]
        by_angle = _skew(turned)
        if arm.any():  # a camera that is the rig itself spares the products of all these small matrices
            by_angle = by_angle - across @ _skew(arm)
        return error, np.concatenate([across, by_angle], axis=-1) * scale[..., None]
    line, moment = matches.places[..., :3], matches.places[..., 3:]
    normal = moment - np.cross(origin, line)
    length = _length(normal)
    normal = normal / length
    sine = (turned * normal).sum(axis=-1, keepdims=True)
    error = sine * scale
    if not derivatives:
        return error, np.empty((*error.shape, 0))
    across = (turned - sine * normal) / length  # derivative of the sine by N
    by_centre = np.cross(across, line)
    by_angle = np.cross(turned, normal) + np.cross(arm, by_centre)
    return error, (np.concatenate([by_centre, by_angle], axis=-1) * scale)[..., None, :]


def _length(vectors: np.ndarray) -> np.ndarray:
    """(..., 1) lengths, never zero; a sum of products takes half as long as NumPy's norm."""
    return np.maximum(np.sqrt(np.einsum("...i,...i->...", vectors, vectors)), 1e-9)[..., None]


@dataclass(frozen=True)
class PosePrior:
    """Prior of the pose, from rays or odometry.

    Attributes:
        rotation, centre: (3, 3), (3,) world_from_rig.
        information: (6, 6) inverse covariance, order x, y, z, rx, ry, rz.
    """

    rotation: np.ndarray
    centre: np.ndarray
    information: np.ndarray

    @classmethod
    def of(cls, world_from_rig: np.ndarray, covariance: np.ndarray) -> PosePrior:
        """From a pose and its covariance."""
        return cls(world_from_rig[:3, :3], world_from_rig[:3, 3], np.linalg.inv(covariance))

    def sigmas(self) -> tuple[float, float]:
        """Largest standard deviations of position, metres, and of rotation, radians, in any direction."""
        covariance = np.linalg.inv(self.information)
        position, rotation = (
            float(np.sqrt(np.linalg.eigvalsh(block)[-1])) for block in (covariance[:3, :3], covariance[3:, 3:])
        )
        return position, rotation

    def difference(self, rotation: np.ndarray, centre: np.ndarray) -> np.ndarray:
        """(..., 6) x - x0 of (..., 3, 3) and (..., 3) poses, one or several."""
        return np.concatenate([centre - self.centre, rotation_vector(rotation @ self.rotation.T)], axis=-1)


def refine(
    rotation: np.ndarray,
    centre: np.ndarray,
    matches: LandmarkMatches,
    widths: list[float],
    prior: PosePrior | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Gauss-Newton with Geman-McClure's kernel, one step at most for each width in pixels; all hypotheses at once.

    Args:
        rotation, centre: (H, 3, 3) and (H, 3) to start from.
        matches: shared by all, or with leading dimension H.
        widths: of the kernel, from wide to narrow: graduated non-convexity.
        prior: added once to each; None for none.

    Returns:
        The last finite poses.
    """
    for index, width in enumerate(widths):
        error, jacobian = _linearised(rotation, centre, matches)
        weights = (1.0 + np.einsum("...i,...i->...", error, error) / width**2) ** -2
        flat = jacobian.reshape(*jacobian.shape[:-3], -1, 6)
        weighted = flat * np.repeat(weights, error.shape[-1], axis=-1)[..., None]
        normal = weighted.swapaxes(-1, -2) @ flat
        slope = (weighted * error.reshape(*error.shape[:-2], -1)[..., None]).sum(axis=-2)
        if prior is not None:
            normal = normal + prior.information
            slope = slope + prior.difference(rotation, centre) @ prior.information
        damping = 1e-9 * np.trace(normal, axis1=-2, axis2=-1)[..., None, None] * np.eye(6) + 1e-12 * np.eye(6)
        step = -np.linalg.solve(normal + damping, slope[..., None])[..., 0]
        fine = np.isfinite(step).all(axis=-1)
        step[~fine] = 0.0
        step[..., 3:] *= np.minimum(1.0, 0.5 / np.maximum(np.linalg.norm(step[..., 3:], axis=-1), 1e-12))[..., None]
        rotation, centre = _exp(step[..., 3:]) @ rotation, centre + step[..., :3]
        if width == widths[-1] and index + 1 < len(widths):
            moved = np.einsum("...i,...ij,...j->...", step, normal, step) / np.maximum(weights.sum(axis=-1), 1e-9)
            if (moved < _SETTLED_PX**2).all():
                break
    return rotation, centre


def information(rotation: np.ndarray, centre: np.ndarray, matches: LandmarkMatches, variance: float) -> np.ndarray:
    """(6, 6) J^T J / variance of inliers, of a pose (3, 3), (3,); ``variance`` of a residual's component, square
    pixels.
    """
    jacobian = _linearised(rotation[None], centre[None], matches)[1][0].reshape(-1, 6)
    return jacobian.T @ jacobian / variance


def squared_errors(rotation: np.ndarray, centre: np.ndarray, matches: LandmarkMatches) -> np.ndarray:
    """(H, N) squared residuals in pixels of (H, 3, 3) and (H, 3) poses."""
    error = residuals(rotation, centre, matches)
    return np.einsum("...i,...i->...", error, error)


def three_point_poses(bearings: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All poses that see three points in three directions: Grunert's quartic in the form of Haralick et al. (IJCV
    1994).

    Args:
        bearings: (H, 3, 3) unit rays, camera frame, one a row.
        points: (H, 3, 3) world.

    Returns:
        (K, 3, 3) world_from_camera rotations, (K, 3) centres and (K,) which sample each is of: at most four of one.
    """
    a2, b2, c2 = (((points[:, i] - points[:, j]) ** 2).sum(axis=1) for i, j in ((1, 2), (0, 2), (0, 1)))
    ca, cb, cg = ((bearings[:, i] * bearings[:, j]).sum(axis=1) for i, j in ((1, 2), (0, 2), (0, 1)))
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        p, s, a, c = (a2 - c2) / b2, (a2 + c2) / b2, a2 / b2, c2 / b2
        quartic = np.stack(
            [
                (p - 1) ** 2 - 4 * c * ca**2,
                4 * (p * (1 - p) * cb - (1 - s) * ca * cg + 2 * c * ca**2 * cb),
                2 * (p**2 - 1 + 2 * p**2 * cb**2 + 2 * (1 - c) * ca**2 - 4 * s * ca * cb * cg + 2 * (1 - a) * cg**2),
                4 * (-p * (1 + p) * cb + 2 * a * cg**2 * cb - (1 - s) * ca * cg),
                (1 + p) ** 2 - 4 * a * cg**2,
            ],
            axis=1,
        )
        monic = quartic[:, 1:] / quartic[:, :1]
    companion = np.zeros((len(points), 4, 4))
    companion[:, 1:, :3] = np.eye(3)
    usable = np.isfinite(monic).all(axis=1)
    companion[usable, 0] = -monic[usable]
    roots = np.linalg.eigvals(companion.swapaxes(1, 2))
    sample, which = np.nonzero((np.abs(roots.imag) < 1e-6 * np.maximum(1.0, np.abs(roots.real))) & usable[:, None])
    v = roots.real[sample, which]
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        u = ((p[sample] - 1) * v**2 - 2 * p[sample] * cb[sample] * v + 1 + p[sample]) / (
            2 * (cg[sample] - v * ca[sample])
        )
        first = np.sqrt(b2[sample] / (1 + v**2 - 2 * v * cb[sample]))
        depths = np.stack([first, u * first, v * first], axis=1)
    fine = np.isfinite(depths).all(axis=1) & (depths > 0).all(axis=1)
    sample, depths = sample[fine], depths[fine]
    camera = bearings[sample] * depths[:, :, None]
    rotation = _frames(points[sample]) @ _frames(camera).swapaxes(1, 2)
    centre = points[sample, 0] - (rotation @ camera[:, 0, :, None])[:, :, 0]
    fine = np.isfinite(rotation).all(axis=(1, 2)) & np.isfinite(centre).all(axis=1)
    return rotation[fine], centre[fine], sample[fine]


def _frames(triangles: np.ndarray) -> np.ndarray:
    """(H, 3, 3) orthonormal frames, in columns, of (H, 3, 3) triangles with a corner a row."""
    with np.errstate(divide="ignore", invalid="ignore"):
        one, other = triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0]
        x = one / np.linalg.norm(one, axis=1, keepdims=True)
        z = np.cross(x, other)
        z = z / np.linalg.norm(z, axis=1, keepdims=True)
    return np.stack([x, np.cross(z, x), z], axis=2)


def _skew(vectors: np.ndarray) -> np.ndarray:
    """(..., 3, 3) matrices [v]x."""
    matrices = np.zeros((*vectors.shape, 3))
    matrices[..., [2, 0, 1], [1, 2, 0]] = vectors
    matrices[..., [1, 2, 0], [2, 0, 1]] = -vectors
    return matrices


def _exp(vectors: np.ndarray) -> np.ndarray:
    """(..., 3, 3) rotations of (..., 3) rotation vectors (Rodrigues)."""
    angle = np.linalg.norm(vectors, axis=-1)[..., None, None]
    cross = _skew(vectors)
    small = angle < 1e-8
    safe = np.where(small, 1.0, angle)
    return (
        _EYE
        + np.where(small, 1.0, np.sin(safe) / safe) * cross
        + np.where(small, 0.5, (1 - np.cos(safe)) / safe**2) * (cross @ cross)
    )
