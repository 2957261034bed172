"""Central camera models: from pixels to unit rays and back.

Pixel convention: (0, 0) is the centre of the top-left pixel, as in OpenCV and ROS. Camera axes are optical (REP-103:
x right, y down, z forward). Distortion models are those of ``sensor_msgs/CameraInfo``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from dimm_ros.errors import InputError

#: Distortion model -> accepted numbers of coefficients (OpenCV's order).
DISTORTION_MODELS = {"plumb_bob": (0, 4, 5), "rational_polynomial": (0, 8, 12), "equidistant": (0, 4)}

#: A pixel whose ray does not project back this near (pixels) lies outside the model's invertible region.
_ROUND_TRIP_PX = 0.05

#: Newton steps in which the rational model's inversion approaches its pixels.
_APPROACH_STEPS = 10


@dataclass(frozen=True)
class Camera:
    """A central camera: image size, focal lengths and principal point in pixels, and lens distortion.

    Raises:
        InputError: on a size, focal length, principal point or distortion that no camera can have.
    """

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float
    distortion_model: str = "plumb_bob"
    distortion: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        values = np.array([self.fx, self.fy, self.cx, self.cy, *self.distortion], dtype=float)
        if not np.isfinite(values).all():
            raise InputError(
                "The camera's intrinsics hold NaN or infinite values; check the camera_info publisher or calibration "
                "file."
            )
        if self.width <= 0 or self.height <= 0:
            raise InputError(
                f"The camera's image size is {self.width}x{self.height}; camera_info must give the real width and "
                "height."
            )
        if self.fx <= 0 or self.fy <= 0:
            raise InputError(
                f"The camera's focal length is ({self.fx:g}, {self.fy:g}) pixels, so it is not calibrated; "
                "run camera_calibration and publish its camera_info."
            )
        counts = DISTORTION_MODELS.get(self.distortion_model)
        if counts is None:
            raise InputError(
                f"Distortion model '{self.distortion_model}' is not known; use one of {', '.join(DISTORTION_MODELS)}."
            )
        if len(self.distortion) not in counts:
            allowed = " or ".join(map(str, counts))
            raise InputError(
                f"Distortion model '{self.distortion_model}' takes {allowed} coefficients, camera_info gives "
                f"{len(self.distortion)}."
            )

    @property
    def matrix(self) -> np.ndarray:
        """(3, 3) intrinsic matrix K."""
        return np.array([[self.fx, 0.0, self.cx], [0.0, self.fy, self.cy], [0.0, 0.0, 1.0]])

    def scaled(self, width: int, height: int) -> Camera:
        """The same lens with its image resized to width x height (pixel areas, so centres shift by half a pixel)."""
        sx, sy = width / self.width, height / self.height
        return replace(
            self,
            width=width,
            height=height,
            fx=self.fx * sx,
            fy=self.fy * sy,
            cx=(self.cx + 0.5) * sx - 0.5,
            cy=(self.cy + 0.5) * sy - 0.5,
        )

    def cropped(self, x: int, y: int, width: int, height: int) -> Camera:
        """The same lens with its image cut to width x height pixels from (x, y)."""
        return replace(self, width=width, height=height, cx=self.cx - x, cy=self.cy - y)

    def undistorted(self) -> Camera:
        """The pinhole camera of the same size and intrinsic matrix."""
        return replace(self, distortion_model="plumb_bob", distortion=())

    @property
    def is_pinhole(self) -> bool:
        """True when no lens model applies; an equidistant lens bends rays even with zero coefficients."""
        return self.distortion_model != "equidistant" and not np.any(self.distortion)

    def bearings(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Unit camera rays of pixels.

        Args:
            pixels: (N, 2) image coordinates.

        Returns:
            (N, 3) unit rays in the optical frame, and (N,) bool: whether the lens model can be inverted there.
        """
        pixels = np.asarray(pixels, dtype=np.float64).reshape(-1, 2)
        plane = (pixels - [self.cx, self.cy]) / [self.fx, self.fy]
        valid = np.ones(len(pixels), dtype=bool)
        if self.distortion_model == "equidistant":
            radius = np.linalg.norm(plane, axis=1)
            theta, valid = _invert_equidistant(radius, self._coefficients(4))
            direction = plane / np.maximum(radius, 1e-12)[:, None]
            rays = np.column_stack([direction * np.sin(theta)[:, None], np.cos(theta)])
        else:
            if not self.is_pinhole:
                plane, valid = _invert_rational(plane, self._coefficients(12), _ROUND_TRIP_PX / max(self.fx, self.fy))
            rays = np.column_stack([plane, np.ones(len(plane))])
        return rays / np.linalg.norm(rays, axis=1, keepdims=True), valid

    def project(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pixels of points in the optical frame.

        Args:
            points: (N, 3), any unit.

        Returns:
            (N, 2) pixels, and (N,) bool: in front of the camera (equidistant: also to the side and behind) and within
            the angle from which the lens model folds back.
        """
        points = np.asarray(points, dtype=np.float64).reshape(-1, 3)
        if self.distortion_model == "equidistant":
            radial = np.linalg.norm(points[:, :2], axis=1)
            theta = np.arctan2(radial, points[:, 2])
            bent = _equidistant(theta, self._coefficients(4))
            plane = points[:, :2] * (bent / np.maximum(radial, 1e-12))[:, None]
            front = (np.linalg.norm(points, axis=1) > 1e-12) & (
                theta <= _equidistant_limit(tuple(self._coefficients(4)))
            )
        else:
            front = points[:, 2] > 1e-9
            depth = np.where(front, points[:, 2], 1.0)
            plane = points[:, :2] / depth[:, None]
            if not self.is_pinhole:
                front = front & (np.linalg.norm(plane, axis=1) <= _rational_limit(tuple(self._coefficients(12))))
                plane = _rational(plane, self._coefficients(12))
        return plane * [self.fx, self.fy] + [self.cx, self.cy], front

    def contains(self, pixels: np.ndarray) -> np.ndarray:
        """(N,) bool: which (N, 2) pixels lie on the image (its area, from -0.5 to size - 0.5)."""
        return np.all((pixels >= -0.5) & (pixels <= [self.width - 0.5, self.height - 0.5]), axis=1)

    def _coefficients(self, count: int) -> np.ndarray:
        padded = np.zeros(count)
        padded[: len(self.distortion)] = self.distortion
        return padded


def _equidistant(theta: np.ndarray, k: np.ndarray) -> np.ndarray:
    """Kannala-Brandt radius of the angle from the optical axis: theta (1 + k1 theta^2 + ... + k4 theta^8)."""
    t2 = theta * theta
    return theta * (1 + t2 * (k[0] + t2 * (k[1] + t2 * (k[2] + t2 * k[3]))))


@lru_cache(maxsize=64)
def _equidistant_limit(k: tuple[float, ...]) -> float:
    """Angle from which the radius shrinks again, at most pi."""
    roots = np.roots([1.0, 3 * k[0], 5 * k[1], 7 * k[2], 9 * k[3]])  # of the slope, in theta^-2
    turns = roots.real[(np.abs(roots.imag) < 1e-9) & (roots.real > np.pi**-2)]
    return float(turns.max(initial=np.pi**-2) ** -0.5)


@lru_cache(maxsize=64)
def _rational_limit(k: tuple[float, ...]) -> float:
    """Undistorted radius from which the radial part of the model folds back; infinite where it does not within 79
    degrees.
    """
    radius = np.linspace(0.0, 5.0, 5001)
    bent = _rational(
        np.column_stack([radius, np.zeros_like(radius)]), np.array([*k[:2], 0.0, 0.0, *k[4:8], 0.0, 0.0, 0.0, 0.0])
    )[:, 0]
    falls = np.flatnonzero(np.diff(bent) <= 0)
    return float(radius[falls[0]]) if len(falls) else np.inf


def _invert_equidistant(radius: np.ndarray, k: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Angle of a radius, and whether there is one below pi and below the angle from which the radius shrinks again."""
    low, high = np.zeros_like(radius), np.full_like(radius, _equidistant_limit(tuple(k)))
    for _ in range(52):  # bisection: every double between 0 and pi, and none beyond the turn
        middle = (low + high) / 2
        below = _equidistant(middle, k) < radius
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    theta = (low + high) / 2
    return theta, np.abs(_equidistant(theta, k) - radius) < 1e-9


def _rational(plane: np.ndarray, k: np.ndarray) -> np.ndarray:
    """OpenCV's lens model with k1 k2 p1 p2 k3 k4 k5 k6 s1 s2 s3 s4 (tilt excluded: no CameraInfo uses it)."""
    x, y = plane[:, 0], plane[:, 1]
    r2 = x * x + y * y
    radial = (1 + r2 * (k[0] + r2 * (k[1] + r2 * k[4]))) / (1 + r2 * (k[5] + r2 * (k[6] + r2 * k[7])))
    xd = x * radial + 2 * k[2] * x * y + k[3] * (r2 + 2 * x * x) + r2 * (k[8] + r2 * k[9])
    yd = y * radial + k[2] * (r2 + 2 * y * y) + 2 * k[3] * x * y + r2 * (k[10] + r2 * k[11])
    return np.column_stack([xd, yd])


def _invert_rational(bent: np.ndarray, k: np.ndarray, tolerance: float) -> tuple[np.ndarray, np.ndarray]:
    """Points of the undistorted plane by Newton's method, and whether they were found on the lens model's own branch.

    The target moves out from the principal point: started at the pixel itself, the method may find a point beyond the
    fold. OpenCV's own inversion is not used: its iteration limit has another name and signature in every major version.
    """
    plane = np.zeros_like(bent)
    for step_number in range(1, _APPROACH_STEPS + 25):
        target = bent * min(step_number / _APPROACH_STEPS, 1.0)
        jacobian = _rational_jacobian(plane, k)
        determinant = _determinant(jacobian)
        determinant = np.where(np.abs(determinant) < 1e-6, 1e-6, determinant)
        error = _rational(plane, k) - target
        step = (
            np.column_stack(
                [
                    jacobian[:, 1, 1] * error[:, 0] - jacobian[:, 0, 1] * error[:, 1],
                    jacobian[:, 0, 0] * error[:, 1] - jacobian[:, 1, 0] * error[:, 0],
                ]
            )
            / determinant[:, None]
        )
        length = np.linalg.norm(step, axis=1, keepdims=True)
        plane -= step * np.minimum(1.0, 0.5 / np.maximum(length, 1e-12))  # a longer step may jump over the fold
        if step_number >= _APPROACH_STEPS and length.max(initial=0.0) < 1e-14:
            break
    # Beyond the radius where the model folds back, a point may still project to the pixel; on the way to it, the
    # Jacobian is not positive.
    unfolded = np.ones(len(plane), dtype=bool)
    for share in np.linspace(0.05, 1.0, 20):
        jacobian = _rational_jacobian(share * plane, k)
        unfolded &= (_determinant(jacobian) > 0) & (jacobian[:, 0, 0] + jacobian[:, 1, 1] > 0)
    return plane, unfolded & (np.linalg.norm(_rational(plane, k) - bent, axis=1) < tolerance)


def _determinant(matrices: np.ndarray) -> np.ndarray:
    """(N,) determinants of (N, 2, 2) matrices; numpy's own is ten times slower on such small ones."""
    return matrices[:, 0, 0] * matrices[:, 1, 1] - matrices[:, 0, 1] * matrices[:, 1, 0]


def _rational_jacobian(plane: np.ndarray, k: np.ndarray) -> np.ndarray:
    """(N, 2, 2) derivative of ``_rational``."""
    x, y = plane[:, 0], plane[:, 1]
    r2 = x * x + y * y
    numerator = 1 + r2 * (k[0] + r2 * (k[1] + r2 * k[4]))
    denominator = 1 + r2 * (k[5] + r2 * (k[6] + r2 * k[7]))
    radial = numerator / denominator
    slope = (k[0] + r2 * (2 * k[1] + 3 * r2 * k[4]) - radial * (k[5] + r2 * (2 * k[6] + 3 * r2 * k[7]))) / denominator
    cross = 2 * (x * y * slope + k[2] * x + k[3] * y)
    prism_x, prism_y = 2 * (k[8] + 2 * k[9] * r2), 2 * (k[10] + 2 * k[11] * r2)
    jacobian = np.empty((len(plane), 2, 2))
    jacobian[:, 0, 0] = radial + 2 * x * x * slope + 2 * k[2] * y + 6 * k[3] * x + x * prism_x
    jacobian[:, 0, 1] = cross + y * prism_x
    jacobian[:, 1, 0] = cross + x * prism_y
    jacobian[:, 1, 1] = radial + 2 * y * y * slope + 6 * k[2] * y + 2 * k[3] * x + y * prism_y
    return jacobian
