"""Keypoints of an image: where they are, as bearings of whatever lens, and what they look like."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Protocol

import cv2
import numpy as np

from dimm_ros.errors import InputError
from dimm_ros.geometry.camera import Camera

#: A unit descriptor's entries are kept as integers of this many to one.
SCALE = 512.0
#: Least longer side of the coarse level's image, pixels.
_LEAST_LONGEST = 320


@dataclass(frozen=True)
class Keypoints:
    """Keypoints of one image, those whose bearing the lens model knows.

    Attributes:
        bearings: (N, 3) unit rays, optical frame.
        pixels: (N, 2) in the image as it was given, (0, 0) the centre of the top-left pixel.
        sigma: angle of one pixel of the image that was searched, radians: the unit of thresholds.
        descriptors: (N, D) uint8, unit vectors times ``SCALE``.
    """

    bearings: np.ndarray
    pixels: np.ndarray
    sigma: float
    descriptors: np.ndarray

    def __len__(self) -> int:
        return len(self.bearings)

    def strongest(self, most: int | None) -> Keypoints:
        """So many of these at most; None for all."""
        if most is None or len(self) <= most:
            return self
        arrays = {name: getattr(self, name)[:most] for name in ("bearings", "pixels", "descriptors")}
        return Keypoints(**arrays, sigma=self.sigma)

    def unit_descriptors(self) -> np.ndarray:
        """(N, D) float32 of length one."""
        return unit(self.descriptors)


class KeypointLevels:
    """Keypoints of one image on two levels; the fine one takes three times as long and is found when asked for, on one
    thread.

    Attributes:
        coarse: of the image at half the size, what a good guess of the pose mostly can do with.
        single: whether that is the fine level, too.
    """

    def __init__(self, coarse: Keypoints, find_fine: Callable[[], Keypoints] | None = None) -> None:
        self.coarse, self.single, self._find_fine = coarse, find_fine is None, find_fine

    @cached_property
    def fine(self) -> Keypoints:
        """Of the image at its size; the image is let go of then."""
        if self._find_fine is None:
            return self.coarse
        found, self._find_fine = self._find_fine(), None
        return found


def unit(descriptors: np.ndarray) -> np.ndarray:
    """(N, D) float32 rows of length one."""
    values = descriptors.astype(np.float32)
    return values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-6)


def quantised(descriptors: np.ndarray) -> np.ndarray:
    """(N, D) uint8 of rows of length one, see ``SCALE``."""
    return np.rint(descriptors * SCALE).clip(0, 255).astype(np.uint8)


class Detector(Protocol):
    """Finds and describes keypoints in grey images.

    Attributes:
        name: as the map's header has it; landmarks of one detector are matched with keypoints of the same.
        dim: entries of a descriptor.
    """

    name: str
    dim: int

    def detect(self, grey: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
        """Keypoints of an (H, W) uint8 image, ``most`` at most, the strongest first.

        Returns:
            (N, 2) pixels, (0, 0) the centre of the top-left one; (N, D) descriptors of length one and not negative, as
            they are stored: of a signed one its positive part, and beside it its negative part.
        """


class Sift:
    """OpenCV's SIFT with descriptors as RootSIFT (Arandjelovic and Zisserman, CVPR 2012)."""

    name, dim = "sift", 128
    _CONTRAST = 0.02  # half of OpenCV's own: indoor walls are plain

    _UPSCALE_SHIFT = 0.25  # pixels by which older OpenCV's doubled images lie beside the image

    def __init__(self) -> None:
        self._finders: dict[int, cv2.SIFT] = {}
        try:
            self._options, self._shift = {"enable_precise_upscale": True}, 0.0
            cv2.SIFT_create(**self._options)
        except (TypeError, cv2.error):  # OpenCV before 4.8, as Ubuntu's
            self._options, self._shift = {}, self._UPSCALE_SHIFT

    def detect(self, grey: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
        """See ``Detector``."""
        finder = self._finders.get(most)
        if finder is None:
            finder = self._finders[most] = cv2.SIFT_create(
                nfeatures=most, contrastThreshold=self._CONTRAST, **self._options
            )
        found, descriptors = finder.detectAndCompute(grey, None)
        if not found:
            return np.empty((0, 2)), np.empty((0, self.dim), np.float32)
        strength = np.fromiter((point.response for point in found), np.float32, len(found))
        order = np.argsort(-strength, kind="stable")  # OpenCV's is that of the scales
        descriptors = descriptors[order]
        pixels = cv2.KeyPoint.convert(found)[order].astype(np.float64) - self._shift
        descriptors = np.sqrt(descriptors / np.maximum(descriptors.sum(axis=1, keepdims=True), 1e-6))
        return pixels, descriptors


DETECTORS: dict[str, type[Detector]] = {Sift.name: Sift}


def detector_of(name: str) -> Detector:
    """The detector of a name.

    Raises:
        InputError: no such detector.
    """
    if name not in DETECTORS:
        raise InputError(f"Keypoint detector '{name}' is not known; choose {', '.join(DETECTORS)}.")
    return DETECTORS[name]()


def find_keypoints(image: np.ndarray, camera: Camera, detector: Detector, longest: int, most: int) -> Keypoints:
    """Keypoints of an (H, W, 3) uint8 RGB image; one whose longer side exceeds ``longest`` pixels is reduced first."""
    return keypoints_of(reduced_grey(image, longest), camera, detector, most)


def keypoint_levels(image: np.ndarray, camera: Camera, detector: Detector, longest: int, most: int) -> KeypointLevels:
    """Keypoints of an image on two levels, the fine one as ``find_keypoints`` finds them; arguments as there."""
    size = min(longest, max(image.shape[:2]))
    half = max(size // 2, _LEAST_LONGEST)
    if half >= size:
        return KeypointLevels(find_keypoints(image, camera, detector, longest, most))
    # A reduced grey copy waits for the fine level: the image is the caller's, and several times as large.
    fine = partial(keypoints_of, reduced_grey(image, longest), camera, detector, most)
    return KeypointLevels(find_keypoints(image, camera, detector, half, most), fine)


def reduced_grey(image: np.ndarray, longest: int) -> np.ndarray:
    """An image of its own, grey, with a longer side of ``longest`` pixels at most."""
    scale = max(1.0, max(image.shape[:2]) / longest)
    if scale > 1.0:
        # Reduced before it is made grey: a third of the work for the larger part.
        size = (round(image.shape[1] / scale), round(image.shape[0] / scale))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)


def keypoints_of(grey: np.ndarray, camera: Camera, detector: Detector, most: int) -> Keypoints:
    """Keypoints of a camera's grey image of any size."""
    pixels, descriptors = detector.detect(grey, most)
    return keypoints_at(pixels, quantised(descriptors), grey, camera)[0]


def keypoints_at(
    pixels: np.ndarray, descriptors: np.ndarray, grey: np.ndarray, camera: Camera
) -> tuple[Keypoints, np.ndarray]:
    """Keypoints at (N, 2) pixels of a camera's grey image of any size, with (N, D) uint8 descriptors; and (N,) bool:
    those whose bearing the lens model knows, which alone are kept.
    """
    factor = camera_pixels(grey, camera)
    pixels = (pixels + 0.5) * factor - 0.5
    bearings, valid = camera.bearings(pixels)
    keypoints = Keypoints(
        bearings=bearings[valid],
        pixels=pixels[valid].astype(np.float32),
        sigma=float(np.sqrt(factor.prod() / (camera.fx * camera.fy))),
        descriptors=descriptors[valid],
    )
    return keypoints, valid


def camera_pixels(grey: np.ndarray, camera: Camera) -> np.ndarray:
    """(2,) pixels of a camera's image to one of the same image at another size."""
    return np.array([camera.width / grey.shape[1], camera.height / grey.shape[0]])
