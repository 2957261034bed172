"""Keypoints: in the coordinates of the image as it was given, with the rays of its lens."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from dimm_ros.errors import InputError
from dimm_ros.geometry.camera import Camera
from dimm_ros.landmarks.keypoints import SCALE, Sift, detector_of, find_keypoints, keypoint_levels, unit

CAMERA = Camera(320, 240, 250.0, 250.0, 159.5, 119.5)


def blobs(scale: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """An image of bright and dark spots, (320 x 240) times ``scale``, and their (N, 2) centres."""
    centres = np.array([[60, 60], [150, 45], [250, 70], [70, 160], [170, 140], [265, 175]], float)
    centres = (centres + 0.5) * scale - 0.5
    rows, columns = np.mgrid[: 240 * scale, : 320 * scale]
    grey = np.full(rows.shape, 120.0)
    for number, (x, y) in enumerate(centres):
        height = (80, -60, 40, -80, 60, -40)[number]
        grey += height * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * (5.0 * scale) ** 2))
    return np.repeat(np.rint(grey).astype(np.uint8)[:, :, None], 3, axis=2), centres


def nearest(pixels: np.ndarray, centres: np.ndarray) -> np.ndarray:
    return np.linalg.norm(pixels[None] - centres[:, None], axis=2).min(axis=1)


def test_spots_are_found_where_they_are() -> None:
    image, centres = blobs()
    found = find_keypoints(image, CAMERA, Sift(), 1024, 500)
    assert nearest(found.pixels, centres).max() < 0.6  # OpenCV's own bias is a quarter of a pixel
    assert found.sigma == pytest.approx(1 / 250)
    np.testing.assert_allclose(found.bearings, CAMERA.bearings(found.pixels)[0], atol=1e-5)
    assert found.descriptors.shape == (len(found), 128) and found.descriptors.dtype == np.uint8
    np.testing.assert_allclose(np.linalg.norm(found.descriptors / SCALE, axis=1), 1.0, atol=0.02)
    np.testing.assert_allclose(np.linalg.norm(found.unit_descriptors(), axis=1), 1.0, atol=1e-5)


def test_a_large_image_is_reduced_and_answered_in_its_own_coordinates() -> None:
    small, large = (
        find_keypoints(blobs(scale)[0], CAMERA.scaled(320 * scale, 240 * scale), Sift(), 320, 500) for scale in (1, 4)
    )
    centres = blobs(4)[1]
    assert nearest(large.pixels, centres).max() < 4 * 0.6
    # Off by as much as in the small image, if at all: the half pixel between corner and centre is not lost.
    biases = [
        np.mean([spots[np.linalg.norm(spots - centre, axis=1).argmin()] - centre for centre in at], axis=0) / scale
        for spots, at, scale in ((small.pixels, blobs()[1], 1), (large.pixels, centres, 4))
    ]
    np.testing.assert_allclose(biases[0], biases[1], atol=0.15)
    # of the image that was searched
    assert large.sigma == pytest.approx(small.sigma, rel=1e-6) == pytest.approx(1 / 250)
    # The same rays, whatever the resolution.
    angle = np.arccos(np.clip(small.bearings @ large.bearings.T, -1, 1)).min(axis=1)
    assert np.median(angle) < 0.5 / 250


def test_bearings_are_of_the_lens_and_pixels_beyond_it_are_left_out() -> None:
    image, _ = blobs()
    fisheye = Camera(320, 240, 120.0, 120.0, 159.5, 119.5, "equidistant", (-0.02, 0.01, 0.0, 0.0))
    found = find_keypoints(image, fisheye, Sift(), 1024, 500)
    offset = found.pixels.astype(float) - [159.5, 119.5]
    plane = cv2.fisheye.undistortPoints(
        found.pixels.astype(float)[:, None], fisheye.matrix, np.array([-0.02, 0.01, 0.0, 0.0])
    )[:, 0]
    expected = np.column_stack([plane, np.ones(len(plane))])
    np.testing.assert_allclose(found.bearings, expected / np.linalg.norm(expected, axis=1, keepdims=True), atol=1e-4)
    assert len(found) >= 6 and np.linalg.norm(offset, axis=1).max() > 100
    folding = Camera(320, 240, 250.0, 250.0, 159.5, 119.5, "plumb_bob", (0.0, 0.0, 0.0, 0.0, -8.0))
    inner = find_keypoints(image, folding, Sift(), 1024, 500)
    assert 0 < len(inner) < len(found) and len(inner.descriptors) == len(inner.pixels) == len(inner)
    assert np.linalg.norm(inner.pixels - [159.5, 119.5], axis=1).max() < 150


def test_a_white_wall_has_none() -> None:
    found = find_keypoints(np.full((240, 320, 3), 255, np.uint8), CAMERA, Sift(), 1024, 500)
    assert len(found) == 0 and found.bearings.shape == (0, 3) and found.descriptors.shape == (0, 128)
    assert found.unit_descriptors().shape == (0, 128)


def test_the_strongest_come_first() -> None:
    """Of the six spots the two of the highest contrast are what a limit of few keypoints keeps."""
    image, centres = blobs()
    detector = Sift()
    grey = image[:, :, 0]
    pixels, _ = detector.detect(grey, 500)
    first = [int(np.linalg.norm(centres - pixel, axis=1).argmin()) for pixel in pixels]
    order = [first.index(spot) for spot in range(6)]
    assert max(order[0], order[3]) < min(order[1], order[4]) and max(order[1], order[4]) < min(order[2], order[5])
    few, _ = detector.detect(grey, 2)
    assert nearest(few, centres[[0, 3]]).min() < 1.0 and nearest(few, centres[[2, 5]]).min() > 5.0


def test_an_unknown_detector_is_named() -> None:
    assert detector_of("sift").dim == 128
    with pytest.raises(InputError, match="Keypoint detector 'orb' is not known; choose sift"):
        detector_of("orb")
    np.testing.assert_array_equal(unit(np.zeros((1, 4), np.uint8)), np.zeros((1, 4)))


def _blob_errors() -> np.ndarray:
    """(N, 2) how far keypoints lie from the centres of smooth blobs, pixels."""
    rng, errors = np.random.default_rng(0), []
    y, x = np.mgrid[:160, :160]
    for _ in range(40):
        centre, width = rng.uniform(60, 100, 2), rng.uniform(3, 8)
        blob = 60 + 150 * np.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / (2 * width**2))
        found = Sift().detect(blob.astype(np.uint8), 50)[0] - centre
        if len(found):
            errors.append(found[np.linalg.norm(found, axis=1).argmin()])
    return np.array(errors)


def test_keypoints_lie_where_the_image_has_them() -> None:
    """OpenCV's own default puts them a quarter of a pixel beside, which is 0.03 degrees at f = 525."""
    errors = _blob_errors()
    assert len(errors) > 30 and np.abs(np.median(errors, axis=0)).max() < 0.05


def test_older_opencv_puts_them_there_too(monkeypatch: pytest.MonkeyPatch) -> None:
    create = cv2.SIFT_create

    def older(**options: object) -> cv2.SIFT:
        if "enable_precise_upscale" in options:
            raise TypeError("an option that OpenCV 4.6 does not know")
        return create(**options)

    monkeypatch.setattr(cv2, "SIFT_create", older)
    assert np.abs(np.median(_blob_errors(), axis=0)).max() < 0.05


@pytest.mark.parametrize(
    ("size", "longest", "coarse"), [(800, 1024, 400), (800, 600, 320), (400, 1024, 320), (200, 1024, 200)]
)
def test_the_coarse_level_is_half_the_image_and_the_fine_one_is_found_once(
    size: int, longest: int, coarse: int
) -> None:
    class Counting(Sift):
        def __init__(self) -> None:
            super().__init__()
            self.widths: list[int] = []

        def detect(self, grey: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
            self.widths.append(grey.shape[1])
            return super().detect(grey, most)

    detector, camera = Counting(), Camera(size, size // 2, size, size, size / 2, size / 4)
    image = np.random.default_rng(0).integers(0, 256, (size // 2, size, 3), dtype=np.uint8)
    levels = keypoint_levels(image, camera, detector, longest, 500)
    assert detector.widths == [coarse]
    assert levels.coarse.sigma == pytest.approx(1 / coarse, rel=1e-3)
    image[:] = 0  # the caller's buffer, which the next image is written into
    assert levels.fine is levels.fine and levels.single == (levels.fine is levels.coarse)
    assert detector.widths == ([coarse] if levels.single else [coarse, min(size, longest)])
    assert levels.single == (size == 200) and len(levels.fine) > 20 and levels.fine.sigma <= levels.coarse.sigma
