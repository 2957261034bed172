"""Camera models: pixels to rays and back, against OpenCV, and where a lens cannot be inverted."""

from __future__ import annotations

import math
from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dimm_ros.errors import InputError
from dimm_ros.geometry.camera import Camera

WIDTH, HEIGHT = 640, 480
PROPERTY = settings(max_examples=25, deadline=None)


def number(low: float, high: float) -> st.SearchStrategy[float]:
    return st.floats(low, high, allow_nan=False)


def tuples(*bounds: float) -> st.SearchStrategy[tuple[float, ...]]:
    return st.tuples(*(number(-bound, bound) for bound in bounds))


#: Lenses as calibrations find them, none of which folds within the images of ``camera_of``.
LENSES = {
    "none": st.just(("plumb_bob", ())),
    "plumb_bob 4": st.tuples(st.just("plumb_bob"), tuples(0.12, 0.03, 0.003, 0.003)),
    "plumb_bob 5": st.tuples(st.just("plumb_bob"), tuples(0.12, 0.03, 0.003, 0.003, 0.01)),
    "rational 8": st.tuples(st.just("rational_polynomial"), tuples(0.08, 0.03, 0.003, 0.003, 0.01, 0.08, 0.03, 0.01)),
    "rational 12": st.tuples(
        st.just("rational_polynomial"),
        tuples(0.08, 0.03, 0.003, 0.003, 0.01, 0.08, 0.03, 0.01, 0.003, 0.003, 0.003, 0.003),
    ),
    "equidistant": st.tuples(st.just("equidistant"), tuples(0.1, 0.02, 0.005, 0.001)),
    "equidistant 0": st.just(("equidistant", ())),
}
lenses = pytest.mark.parametrize("lens", LENSES)


def camera_of(data: st.DataObject, lens: str) -> Camera:
    fx = data.draw(number(600, 1500))
    model, distortion = data.draw(LENSES[lens])
    cx, cy = data.draw(number(280, 360)), data.draw(number(200, 280))
    return Camera(WIDTH, HEIGHT, fx, fx * data.draw(number(0.95, 1.05)), cx, cy, model, distortion)


def some_pixels(seed: int, camera: Camera, count: int = 60) -> np.ndarray:
    """Random pixels of the image's area, its corners and its principal point."""
    random = np.random.default_rng(seed).uniform(-0.5, [camera.width - 0.5, camera.height - 0.5], (count, 2))
    right, bottom = camera.width - 0.5, camera.height - 0.5
    return np.vstack([random, [[-0.5, -0.5], [right, -0.5], [-0.5, bottom], [right, bottom], [camera.cx, camera.cy]]])


def rays_at(angles: np.ndarray, azimuth: float = 0.7) -> np.ndarray:
    """(N, 3) unit rays at (N,) angles from the optical axis."""
    return np.column_stack([np.sin(angles) * np.cos(azimuth), np.sin(angles) * np.sin(azimuth), np.cos(angles)])


@lenses
@PROPERTY
@given(data=st.data(), seed=st.integers(0, 10**6))
def test_pixel_to_ray_to_pixel(lens: str, data: st.DataObject, seed: int) -> None:
    camera = camera_of(data, lens)
    pixels = some_pixels(seed, camera)
    rays, valid = camera.bearings(pixels)
    assert rays.shape == (len(pixels), 3) and valid.all()
    np.testing.assert_allclose(np.linalg.norm(rays, axis=1), 1.0, atol=1e-12)
    # at any distance
    projected, front = camera.project(rays * np.random.default_rng(seed).uniform(0.1, 50, (len(rays), 1)))
    assert front.all()
    np.testing.assert_allclose(projected, pixels, atol=1e-5)
    np.testing.assert_allclose(rays[-1], [0, 0, 1], atol=1e-9)  # the principal point looks along the axis


@pytest.mark.parametrize("lens", [lens for lens in LENSES if not lens.startswith("equidistant")])
@PROPERTY
@given(data=st.data(), seed=st.integers(0, 10**6))
def test_projection_is_opencvs(lens: str, data: st.DataObject, seed: int) -> None:
    camera = camera_of(data, lens)
    points = np.random.default_rng(seed).uniform([-2, -2, 2.5], [2, 2, 8], (40, 3))
    expected, _ = cv2.projectPoints(points, np.zeros(3), np.zeros(3), camera.matrix, np.array(camera.distortion))
    pixels, front = camera.project(points)
    assert front.all()
    np.testing.assert_allclose(pixels, expected[:, 0], atol=1e-8)


@pytest.mark.parametrize("lens", ["equidistant", "equidistant 0"])
@PROPERTY
@given(data=st.data(), seed=st.integers(0, 10**6))
def test_fisheye_projection_is_opencvs(lens: str, data: st.DataObject, seed: int) -> None:
    camera = camera_of(data, lens)
    points = np.random.default_rng(seed).uniform([-5, -5, 0.1], [5, 5, 4], (40, 3))
    coefficients = np.array(camera.distortion or (0.0,) * 4)
    expected, _ = cv2.fisheye.projectPoints(points[:, None], np.zeros(3), np.zeros(3), camera.matrix, coefficients)
    pixels, front = camera.project(points)
    theta = np.arctan2(np.linalg.norm(points[:, :2], axis=1), points[:, 2])
    powers = np.linspace(0, theta, 200)[..., None] ** [0, 2, 4, 6, 8]
    # the image turns back where this is negative
    rising = (powers @ (np.array([1, 3, 5, 7, 9]) * [1, *coefficients])).min(axis=0)
    assert front[rising > 0.01].all() and not front[rising < -0.01].any()
    np.testing.assert_allclose(pixels[front], expected[front, 0], atol=1e-8)


@PROPERTY
@given(distortion=tuples(0.3, 0.1, 0.03, 0.01), focal=number(50, 400))
def test_a_fisheye_finds_every_ray_up_to_where_its_image_turns_back(
    distortion: tuple[float, ...], focal: float
) -> None:
    camera = Camera(WIDTH, HEIGHT, focal, focal, 320.0, 240.0, "equidistant", distortion)
    fine = np.linspace(0.0, math.pi, 20001)
    powers = fine[:, None] ** np.array([3, 5, 7, 9])
    radius = fine + powers @ np.array(distortion)
    shrinks = np.flatnonzero(np.diff(radius) <= 0)
    turn = int(shrinks[0]) if len(shrinks) else len(fine) - 1
    angles = np.linspace(0.01, 0.97 * fine[turn], 40)
    rays = rays_at(angles)
    found, valid = camera.bearings(camera.project(rays)[0])
    assert valid.all()
    np.testing.assert_allclose(found, rays, atol=1e-6)
    beyond = radius[turn] * np.linspace(1.01, 3.0, 40)  # no ray below the turn comes here, whatever lies behind it
    assert not camera.bearings(np.column_stack([320.0 + focal * beyond, np.full(40, 240.0)]))[1].any()


@pytest.mark.parametrize("k1", [-0.05, -0.1, -0.3])
def test_a_fisheye_sees_nothing_beyond_the_angle_where_its_image_turns_back(k1: float) -> None:
    """theta (1 + k1 theta^2) grows until theta = 1 / sqrt(-3 k1); points beyond would be drawn among those before
    it.
    """
    camera = Camera(WIDTH, HEIGHT, 150.0, 150.0, 320.0, 240.0, "equidistant", (k1, 0.0, 0.0, 0.0))
    turn = 1.0 / math.sqrt(-3.0 * k1)
    angles = np.linspace(0.02, math.pi, 200)
    pixels, seen = camera.project(rays_at(angles))
    np.testing.assert_array_equal(seen, angles <= turn)
    rays, valid = camera.bearings(pixels[seen])
    assert valid.all()
    np.testing.assert_allclose(rays, rays_at(angles[seen]), atol=1e-6)
    beyond = (angles > turn) & (angles * (1 + k1 * angles**2) > 0)
    assert k1 == -0.05 or beyond.any()
    angle = np.arccos(camera.bearings(pixels[beyond])[0][:, 2])  # such a pixel belongs to a ray before the turn
    assert (angle < turn).all()


@PROPERTY
@given(k1=number(-0.6, -0.05), focal=number(200, 900))
def test_barrel_distortion_is_inverted_up_to_its_fold_and_not_beyond(k1: float, focal: float) -> None:
    """r (1 + k1 r^2) grows until r = 1 / sqrt(-3 k1), where it is two thirds of that."""
    camera = Camera(WIDTH, HEIGHT, focal, focal, 320.0, 240.0, "plumb_bob", (k1, 0.0, 0.0, 0.0))
    fold = 1.0 / math.sqrt(-3.0 * k1)
    radius = np.linspace(0.01, 0.97, 40) * fold
    rays = rays_at(np.arctan(radius))
    found, valid = camera.bearings(camera.project(rays)[0])
    assert valid.all()
    np.testing.assert_allclose(found, rays, atol=1e-6)
    outside = fold * 2.0 / 3.0 * np.linspace(1.01, 4.0, 40)
    assert not camera.bearings(np.column_stack([320.0 + focal * outside, np.full(40, 240.0)]))[1].any()


def test_a_lens_that_unfolds_again_has_no_ray_behind_its_fold() -> None:
    """r (1 - 0.7 r^2 + 0.17 r^4) rises to 0.50, falls, and rises again beyond r = 1.35; that image is not the
    lens's.
    """
    camera = Camera(WIDTH, HEIGHT, 300.0, 300.0, 320.0, 240.0, "plumb_bob", (-0.7, 0.17, 0.0, 0.0))
    outside = np.linspace(0.52, 1.8, 60)
    rays, valid = camera.bearings(np.column_stack([320.0 + 300.0 * outside, np.full(60, 240.0)]))
    assert not valid.any()
    assert np.isfinite(rays).all()
    # although points there would project to it
    assert camera.project(rays_at(np.arctan([1.9]), azimuth=0.0))[0][0, 0] > 320 + 300 * 0.52


@lenses
@PROPERTY
@given(data=st.data(), seed=st.integers(0, 10**6), width=st.integers(100, 1500), height=st.integers(100, 1500))
def test_a_resized_image_has_the_same_rays(lens: str, data: st.DataObject, seed: int, width: int, height: int) -> None:
    camera = camera_of(data, lens)
    scaled = camera.scaled(width, height)
    assert (scaled.width, scaled.height) == (width, height)
    pixels = some_pixels(seed, camera)
    moved = (pixels + 0.5) * [width / WIDTH, height / HEIGHT] - 0.5  # areas scale, so corners stay corners
    np.testing.assert_allclose(scaled.bearings(moved)[0], camera.bearings(pixels)[0], atol=1e-8)
    back = scaled.scaled(WIDTH, HEIGHT)
    np.testing.assert_allclose(back.matrix, camera.matrix, rtol=1e-9, atol=1e-9)


@lenses
@PROPERTY
@given(data=st.data(), seed=st.integers(0, 10**6), x=st.integers(0, 300), y=st.integers(0, 200))
def test_a_cut_image_has_the_same_rays(lens: str, data: st.DataObject, seed: int, x: int, y: int) -> None:
    camera = camera_of(data, lens)
    cut = camera.cropped(x, y, WIDTH - 300, HEIGHT - 200)
    pixels = some_pixels(seed, cut)
    np.testing.assert_allclose(cut.bearings(pixels)[0], camera.bearings(pixels + [x, y])[0], atol=1e-8)
    # the last is the principal point, which may be cut away
    np.testing.assert_array_equal(cut.contains(pixels)[:-1], True)
    assert camera.contains(pixels + [x, y]).all()


def test_resizing_averages_the_pixels_that_the_camera_says() -> None:
    """A white block of 2 x 2 pixels becomes the one pixel whose ray passes through the block's middle."""
    camera = Camera(8, 6, 9.0, 9.0, 3.5, 2.5)
    image = np.zeros((6, 8), np.uint8)
    image[2:4, 4:6] = 255
    small = cv2.resize(image, (4, 3), interpolation=cv2.INTER_AREA)
    (row,), (column,) = np.nonzero(small)
    ray = camera.scaled(4, 3).bearings([[column, row]])[0]
    np.testing.assert_allclose(camera.project(ray)[0], [[4.5, 2.5]], atol=1e-12)


def test_what_lies_behind() -> None:
    pinhole = Camera(WIDTH, HEIGHT, 500, 500, 320, 240)
    fisheye = Camera(WIDTH, HEIGHT, 150, 150, 320, 240, "equidistant")
    points = np.array([[0.0, 0, 1], [1, 0, 0], [0.2, 0.1, -1], [0, 0, 0]])
    np.testing.assert_array_equal(pinhole.project(points)[1], [True, False, False, False])
    pixels, seen = fisheye.project(points)
    np.testing.assert_array_equal(seen, [True, True, True, False])
    np.testing.assert_allclose(pixels[1], [320 + 150 * math.pi / 2, 240])  # 90 degrees to the side
    assert np.isfinite(pinhole.project(points)[0]).all()


def test_pinholes() -> None:
    plain = Camera(WIDTH, HEIGHT, 500, 510, 320, 240)
    assert plain.is_pinhole and replace(plain, distortion=(0.0,) * 5).is_pinhole
    assert not replace(plain, distortion_model="equidistant").is_pinhole  # it bends rays even with zero coefficients
    bent = replace(plain, distortion=(0.1, 0.0, 0.0, 0.0))
    assert not bent.is_pinhole and bent.undistorted() == plain


def test_a_pixel_belongs_to_the_image_up_to_its_edge() -> None:
    camera = Camera(WIDTH, HEIGHT, 500, 500, 320, 240)
    pixels = np.array([[-0.5, -0.5], [639.5, 479.5], [-0.51, 0], [0, 479.51], [320, 240]])
    np.testing.assert_array_equal(camera.contains(pixels), [True, True, False, False, True])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"fx": math.nan}, "intrinsics hold NaN or infinite values; check the camera_info"),
        ({"cy": math.inf}, "intrinsics hold NaN or infinite values"),
        ({"distortion": (0.1, math.nan, 0.0, 0.0)}, "intrinsics hold NaN or infinite values"),
        ({"width": 0}, "image size is 0x480; camera_info must give"),
        ({"height": -3}, "image size is 640x-3"),
        ({"fx": 0.0}, r"focal length is \(0, 500\) pixels, so it is not calibrated; run camera_calibration"),
        ({"fy": -500.0}, r"focal length is \(500, -500\)"),
        ({"distortion_model": "swirl"}, "'swirl' is not known; use one of plumb_bob, rational_polynomial, equidistant"),
        ({"distortion": (0.1,)}, "'plumb_bob' takes 0 or 4 or 5 coefficients, camera_info gives 1"),
        (
            {"distortion_model": "rational_polynomial", "distortion": (0.1,) * 5},
            "takes 0 or 8 or 12 coefficients, camera_info gives 5",
        ),
        (
            {"distortion_model": "equidistant", "distortion": (0.1,) * 5},
            "takes 0 or 4 coefficients, camera_info gives 5",
        ),
    ],
)
def test_a_camera_that_cannot_be_is_refused(change: dict, words: str) -> None:
    good = Camera(WIDTH, HEIGHT, 500.0, 500.0, 320.0, 240.0)
    with pytest.raises(InputError, match=words):
        replace(good, **change)
