"""Blur, exposure, duplicates, damage: one pass over the images."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from dimm_ros.data.recording import Recording
from dimm_ros.doctor.findings import Finding, ok, problem, unknown, warning
from dimm_ros.errors import DataError
from dimm_ros.progress import StepCallback

_SIZE = 320  # longer side of the picture that is judged
_MOST = 1500  # images that are read; of longer recordings, pairs of neighbours spread evenly
_BLURRED = 0.3  # sharpness relative to the frames around
_WINDOW = 31  # frames around: a plain wall has little detail, too
_CLIPPED = 0.25  # share of pixels that are black or white in a badly exposed image
_DARK = 40.0  # mean grey level
_SAME = 0.6  # mean absolute difference in grey levels of the same picture, encoded twice


@dataclass(frozen=True)
class ImageFigures:
    """Per image that was read, in time order.

    Attributes:
        frame: (M,) its index in the recording.
        sharpness: (M,) variance of the Laplacian.
        blurred: (M,) bool.
        clipped: (M,) share of black and white pixels.
        brightness: (M,) mean grey level.
        same_as_previous: (M,) bool: the frame before was read too and is the same picture.
    """

    frame: np.ndarray
    sharpness: np.ndarray
    blurred: np.ndarray
    clipped: np.ndarray
    brightness: np.ndarray
    same_as_previous: np.ndarray


def check_images(recording: Recording, progress: StepCallback | None = None) -> tuple[list[Finding], ImageFigures]:
    """Read the images and judge them one by one.

    Args:
        progress: called with images read and in all.
    """
    total = len(recording.frames)
    chosen = np.arange(total)
    if total > _MOST:
        starts = np.linspace(0, total - 2, _MOST // 2).astype(int)
        chosen = np.unique(np.concatenate([starts, starts + 1]))
    rows: list[tuple[int, float, float, float, bool]] = []
    unreadable: list[tuple[int, str]] = []
    previous: tuple[int, np.ndarray] | None = None
    for count, index in enumerate(chosen):
        try:
            grey = _small(recording.frames[index].load())
        except DataError as error:
            unreadable.append((int(index), str(error)))
        else:
            near = previous is not None and previous[0] == index - 1 and previous[1].shape == grey.shape
            same = near and float(np.abs(grey.astype(np.int16) - previous[1]).mean()) < _SAME
            clipped = float(((grey <= 2) | (grey >= 253)).mean())
            rows.append(
                (int(index), float(cv2.Laplacian(grey, cv2.CV_32F).var()), clipped, float(grey.mean()), bool(same))
            )
            previous = (int(index), grey)
        if progress is not None:
            progress(count + 1, len(chosen))
    frame, sharpness, clipped, brightness, same = (
        (np.array(column) for column in zip(*rows)) if rows else (np.empty(0),) * 5
    )
    figures = ImageFigures(
        frame=frame.astype(int),
        sharpness=sharpness,
        blurred=_blurred(sharpness),
        clipped=clipped,
        brightness=brightness,
        same_as_previous=same.astype(bool),
    )
    findings = _damage(unreadable, len(chosen))
    if rows:
        findings += [_blur(figures, recording), _exposure(figures, recording), _duplicates(figures, recording)]
    return findings, figures


def _small(image: np.ndarray) -> np.ndarray:
    scale = min(1.0, _SIZE / max(image.shape[:2]))
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    return cv2.resize(
        grey, (max(1, round(grey.shape[1] * scale)), max(1, round(grey.shape[0] * scale))), interpolation=cv2.INTER_AREA
    )


def _blurred(sharpness: np.ndarray) -> np.ndarray:
    """Much less detail than the frames around."""
    if not len(sharpness):
        return np.empty(0, dtype=bool)
    half = _WINDOW // 2
    padded = (
        np.pad(sharpness, half, mode="reflect")
        if len(sharpness) > half
        else np.pad(sharpness, half, constant_values=np.median(sharpness))
    )
    around = np.median(np.lib.stride_tricks.sliding_window_view(padded, _WINDOW), axis=1)
    return sharpness < _BLURRED * around


def _damage(unreadable: list[tuple[int, str]], read: int) -> list[Finding]:
    if not unreadable:
        return [ok("image files", f"all {read} images that were read can be decoded and have their camera's size")]
    return [
        problem(
            "image files",
            f"{len(unreadable)} of {read} images cannot be used; the first: {unreadable[0][1]}",
            "truncated files, or images of another size than their camera (scaled after calibration)",
            "export them again; give the intrinsics of the stored size",
            frames=[index for index, _ in unreadable],
        )
    ]


def _names(recording: Recording, indices: np.ndarray, most: int = 3) -> str:
    names = [recording.frames[index].name for index in indices[:most]]
    return ", ".join(names) + (" ..." if len(indices) > most else "")


def _blur(figures: ImageFigures, recording: Recording) -> Finding:
    bad = figures.frame[figures.blurred]
    share = len(bad) / len(figures.frame)
    numbers = {"blurred": len(bad), "median_sharpness": float(np.median(figures.sharpness)), "frames": bad.tolist()}
    if np.median(figures.sharpness) < 5:
        return unknown(
            "blur",
            "cannot tell: the images hold next to no detail",
            "a lens out of focus or covered, fog, or bare walls",
            "look at them",
            **numbers,
        )
    if share <= 0.02:
        return ok(
            "blur", f"{len(bad)} of {len(figures.frame)} images are much less sharp than those around them", **numbers
        )
    return warning(
        "blur",
        f"{len(bad)} of {len(figures.frame)} images ({100 * share:.0f} %) are much less sharp than those around them: "
        f"{_names(recording, bad)}",
        "motion blur: quick turns in dim light",
        "record slower, with more light or a shorter exposure",
        **numbers,
    )


def _exposure(figures: ImageFigures, recording: Recording) -> Finding:
    bad = figures.frame[(figures.clipped > _CLIPPED) | (figures.brightness < _DARK)]
    share = len(bad) / len(figures.frame)
    numbers = {
        "badly_exposed": len(bad),
        "median_clipped": float(np.median(figures.clipped)),
        "median_brightness": float(np.median(figures.brightness)),
    }
    if share <= 0.05:
        return ok(
            "exposure", f"{len(bad)} of {len(figures.frame)} images are dark or largely black and white", **numbers
        )
    return warning(
        "exposure",
        f"{len(bad)} of {len(figures.frame)} images ({100 * share:.0f} %) are dark, or black or white over "
        f"{100 * _CLIPPED:.0f} % "
        f"of their area: {_names(recording, bad)}",
        "fixed exposure, windows in view, or no light",
        "switch automatic exposure on, or light the place",
        **numbers,
    )


def _duplicates(figures: ImageFigures, recording: Recording) -> Finding:
    stamps = np.array([frame.stamp_ns for frame in recording.frames], dtype=np.int64)
    repeated = int((np.diff(stamps) == 0).sum())
    same = figures.frame[figures.same_as_previous]
    poses = [recording.frames[index].world_from_camera for index in range(len(recording.frames))]
    # A camera at rest sends the same picture with reason.
    moving = np.array([index for index in same if _moved(poses[index - 1], poses[index])], dtype=int)
    numbers = {"same_stamps": repeated, "same_pictures": len(same), "same_pictures_while_moving": len(moving)}
    if repeated or len(moving) > 0.01 * len(figures.frame):
        what = f"{repeated} stamps occur twice, {len(moving)} images repeat the picture before while the pose moves on"
        return warning(
            "duplicate frames",
            what + (f": {_names(recording, moving)}" if len(moving) else ""),
            "a driver that repeats its last picture, a bag recorded from a looped replay, or video decoded at a higher "
            "rate",
            "drop the repeated frames; record at the camera's own rate",
            **numbers,
        )
    rest = f"; {len(same)} images of a camera at rest" if len(same) else ""
    return ok("duplicate frames", f"no picture occurs twice{rest}", **numbers)


def _moved(one: np.ndarray | None, other: np.ndarray | None) -> bool:
    return one is None or other is None or bool(np.abs(one - other).max() > 2e-3)
