"""How far each predicted ray is from the solved pose, as a colour field over the image: what the network saw, at a
glance.
"""

from __future__ import annotations

import cv2
import numpy as np

from dimm_ros.encoder.patches import PATCH
from dimm_ros.estimate import Estimate
from dimm_ros.geometry.covariance import position_sigma

#: Residual that gets the last colour, degrees: twice the solver's default inlier angle.
LIMIT_DEG = 6.0


def residual_colours(residual: np.ndarray, limit: float) -> np.ndarray:
    """(..., 3) uint8 RGB: blue at 0 over green to red at the limit and beyond; grey where the residual is NaN."""
    known = np.isfinite(residual)
    level = np.rint(np.clip(np.where(known, residual, 0.0) / limit, 0.0, 1.0) * 255).astype(np.uint8)
    # Turbo's darkest ends look alike over a picture, so they are left out.
    ramp = cv2.applyColorMap(np.linspace(28, 232, 256).astype(np.uint8)[:, None], cv2.COLORMAP_TURBO)[:, 0, ::-1]
    return np.where(known[..., None], ramp[level], np.uint8(128))


def ray_residual_picture(
    image: np.ndarray, estimate: Estimate, *, limit_deg: float = LIMIT_DEG, opacity: float = 0.5
) -> np.ndarray:
    """The image with the angle between each patch's predicted ray and the solved pose drawn over it, and a legend.

    Patches without a ray (outside the lens model, or not sampled: ``solver.rays``) and the image's edges that the
    encoder does not see keep their own colours.

    Args:
        image: (H, W, 3) uint8 RGB, the localized image.
        estimate: its estimate.
        limit_deg: residual of the last colour, degrees.
        opacity: of the colours, 0 to 1.

    Returns:
        (H, W, 3) uint8 RGB, a new array.
    """
    picture = image.copy()
    residual = estimate.angle_residual_deg
    if residual is not None:
        rows, columns = residual.shape
        x0, y0, x1, y1 = _seen(image.shape[1], image.shape[0], rows, columns)
        row, column = (
            np.minimum(((np.arange(low, high) + 0.5 - start) * count / (end - start)).astype(int), count - 1)
            for low, high, start, end, count in (
                (round(y0), round(y1), y0, y1, rows),
                (round(x0), round(x1), x0, x1, columns),
            )
        )
        field = residual_colours(residual, limit_deg)[row[:, None], column]
        known = np.isfinite(residual)[row[:, None], column]
        area = picture[round(y0) : round(y1), round(x0) : round(x1)]
        area[known] = cv2.addWeighted(area, 1 - opacity, np.ascontiguousarray(field), opacity, 0)[known]
    _legend(picture, estimate, limit_deg)
    return picture


def ray_lines(estimate: Estimate, length: float) -> tuple[np.ndarray, np.ndarray]:
    """The predicted rays as lines, each from its point nearest to the solved centre.

    Args:
        estimate: of an image.
        length: of the lines, metres.

    Returns:
        (N, 2, 3) ends in the map's frame, metres, and (rows * columns,) bool: which patches have a ray.
    """
    if estimate.world_rays is None:
        return np.zeros((0, 2, 3)), np.zeros(0, bool)
    centre = estimate.world_from_camera[:3, 3]
    direction, moment = np.split(estimate.world_rays.reshape(-1, 6), 2, axis=1)
    known = np.isfinite(direction).all(axis=1) & np.isfinite(moment).all(axis=1)
    if estimate.angle_residual_deg is not None:
        known &= np.isfinite(estimate.angle_residual_deg.ravel())
    direction, moment = direction[known], moment[known]
    nearest = centre + np.cross(direction, moment - np.cross(centre, direction))
    return np.stack([nearest, nearest + length * direction], axis=1), known


def patch_centres(width: int, height: int, rows: int, columns: int) -> np.ndarray:
    """(rows * columns, 2) centres of the patches in the image's pixels."""
    x0, y0, x1, y1 = _seen(width, height, rows, columns)
    x = x0 + (np.arange(columns) + 0.5) * (x1 - x0) / columns - 0.5
    y = y0 + (np.arange(rows) + 0.5) * (y1 - y0) / rows - 0.5
    return np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)


def _seen(width: int, height: int, rows: int, columns: int) -> tuple[float, float, float, float]:
    """Left, top, right, bottom of what the encoder sees, in the image's pixels: the inverse of
    ``encoder.patches.patch_grid``.
    """
    scale = PATCH * max(rows, columns) / max(width, height)
    x0 = (round(width * scale) - columns * PATCH) // 2 / scale
    y0 = (round(height * scale) - rows * PATCH) // 2 / scale
    return x0, y0, min(x0 + columns * PATCH / scale, width), min(y0 + rows * PATCH / scale, height)


def _uncertainty(estimate: Estimate) -> str:
    """Standard deviations of the estimated pose: rays that agree may err together."""
    if not np.isfinite(estimate.covariance).all():
        return ""
    return f", +- {100 * position_sigma(estimate.covariance):.0f} cm"


def _legend(picture: np.ndarray, estimate: Estimate, limit_deg: float) -> None:
    """A colour bar with its ends, and whether the pose was accepted, along the bottom."""
    height, width = picture.shape[:2]
    size = max(0.3, height / 1000)
    line = max(8, round(30 * size))
    if height < 3 * line or width < 8 * line:
        return
    strip = picture[-line:]
    strip //= 3
    bar = residual_colours(np.linspace(0, limit_deg, 3 * line)[None], limit_deg)
    strip[line // 4 : -(line // 4), 2 * line : 5 * line] = bar
    verdict = f"{estimate.inlier_ratio:.0%} inliers" + (_uncertainty(estimate) if estimate.accepted else ", rejected")
    baseline = height - line // 4
    for text, x in (("0", line), (f"{limit_deg:g} deg   {verdict}", 5 * line + line // 3)):
        cv2.putText(picture, text, (x, baseline), cv2.FONT_HERSHEY_SIMPLEX, size, (255, 255, 255), 1, cv2.LINE_AA)
