"""Intrinsics that can be seen to be wrong without an image."""

from __future__ import annotations

import numpy as np

from dimm_ros.data.recording import Recording
from dimm_ros.doctor.findings import Finding, ok, warning
from dimm_ros.geometry.camera import Camera

_WIDE_DEG = 80.0  # a lens of this field of view without distortion is rare
_NARROW_DEG, _WIDEST_DEG = 20.0, 150.0
_ASPECT = 0.03
_OFF_CENTRE = 0.12  # of the image's size


def check_cameras(recording: Recording) -> list[Finding]:
    """Field of view, principal point, aspect and distortion of the recording's cameras."""
    cameras = list(dict.fromkeys(frame.camera for frame in recording.frames))
    result = [finding for camera in cameras[:5] for finding in check_camera(camera)]
    if not result:
        result = [
            ok(
                "intrinsics",
                describe(cameras[0]) + (f", and {len(cameras) - 1} more cameras" if len(cameras) > 1 else ""),
            )
        ]
    return result


def field_of_view_deg(camera: Camera) -> float:
    """Angle between the rays of the image's left and right edge, degrees."""
    rays, _ = camera.bearings(np.array([[-0.5, camera.cy], [camera.width - 0.5, camera.cy]]))
    angles = np.arctan2(rays[:, 0], rays[:, 2])
    return float(np.degrees(angles[1] - angles[0]))


def describe(camera: Camera) -> str:
    """One line about a camera."""
    lens = "no distortion" if camera.is_pinhole else camera.distortion_model
    return (
        f"{camera.width}x{camera.height}, f = {camera.fx:.1f}, {camera.fy:.1f} px, "
        f"{field_of_view_deg(camera):.0f} deg wide, {lens}"
    )


def check_camera(camera: Camera) -> list[Finding]:
    """What is doubtful about one camera; nothing where all is well."""
    view = field_of_view_deg(camera)
    result = []
    if camera.is_pinhole and view > _WIDE_DEG:
        result.append(
            warning(
                "distortion",
                f"no distortion on a lens of {view:.0f} deg",
                "camera_info with zero coefficients: never calibrated, or images already rectified",
                "calibrate the lens with its model (equidistant beyond 110 deg), or make sure that the images are the "
                "rectified ones",
                view_deg=view,
            )
        )
    if camera.distortion_model == "equidistant" and not any(camera.distortion):
        result.append(
            warning(
                "distortion",
                "an ideal equidistant fisheye, all coefficients zero",
                "a model that was named but not calibrated",
                "calibrate the lens; without distortion name the model plumb_bob",
                view_deg=view,
            )
        )
    if not _NARROW_DEG < view < _WIDEST_DEG and camera.distortion_model != "equidistant":
        result.append(
            warning(
                "field of view",
                f"{view:.0f} deg wide",
                "a focal length of another resolution, or in millimetres",
                "give fx and fy in pixels of the stored images",
                view_deg=view,
            )
        )
    off = [(camera.cx + 0.5) / camera.width - 0.5, (camera.cy + 0.5) / camera.height - 0.5]
    if max(map(abs, off)) > _OFF_CENTRE:
        factor = 2 * (camera.cx + 0.5) / camera.width
        hint = f"; they fit an image of {factor:.2f} times the size" if abs(off[0] - off[1]) < 0.05 else ""
        result.append(
            warning(
                "principal point",
                f"({camera.cx:.0f}, {camera.cy:.0f}) is far from the middle of {camera.width}x{camera.height}{hint}",
                "intrinsics of another resolution, or of a cropped image",
                "scale or crop camera_info with the images (fx, fy, cx, cy, width, height)",
            )
        )
    if abs(camera.fx / camera.fy - 1) > _ASPECT:
        result.append(
            warning(
                "pixel aspect",
                f"fx / fy = {camera.fx / camera.fy:.3f}",
                "images stretched in one direction, or a calibration that did not converge",
                "calibrate again with the stored images",
            )
        )
    return result
