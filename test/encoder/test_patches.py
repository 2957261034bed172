"""The encoder's view of a camera."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dimm_ros.encoder.patches import PATCH, fit, normalise, patch_grid, subsampled
from dimm_ros.errors import InputError
from dimm_ros.geometry.camera import Camera


@settings(max_examples=60, deadline=None)
@given(
    width=st.integers(200, 2000),
    height=st.integers(200, 2000),
    focal=st.floats(150, 2000),
    size=st.sampled_from([224, 336, 448, 504]),
)
def test_patch_centres_are_the_rays_of_their_pixels(width: int, height: int, focal: float, size: int) -> None:
    camera = Camera(width, height, focal, focal * 1.02, width * 0.49, height * 0.52)
    grid = patch_grid(camera, size)
    assert grid.camera.width % PATCH == 0 and grid.camera.height % PATCH == 0
    assert 0 <= grid.resized.width - grid.camera.width < PATCH and 0 <= grid.resized.height - grid.camera.height < PATCH
    # Independent of the camera class: where the ray meets the original image, scaled to the encoder's input by hand.
    u, v = (
        grid.rays[:, 0] / grid.rays[:, 2] * camera.fx + camera.cx,
        grid.rays[:, 1] / grid.rays[:, 2] * camera.fy + camera.cy,
    )
    x = (u + 0.5) * grid.resized.width / width - 0.5 - (grid.resized.width - grid.camera.width) // 2
    y = (v + 0.5) * grid.resized.height / height - 0.5 - (grid.resized.height - grid.camera.height) // 2
    columns, rows = np.meshgrid(np.arange(grid.columns), np.arange(grid.rows))
    np.testing.assert_allclose(x, columns.ravel() * PATCH + 6.5, atol=1e-6)
    np.testing.assert_allclose(y, rows.ravel() * PATCH + 6.5, atol=1e-6)


def test_the_cut_keeps_the_middle() -> None:
    camera = Camera(800, 533, 817, 817, 399.5, 266)
    grid = patch_grid(camera, 448)
    assert (grid.rows, grid.columns) == (21, 32)  # 448 x 298 -> 448 x 294
    image = np.zeros((533, 800, 3), dtype=np.uint8)
    image[:, :, 0] = np.linspace(0, 255, 533)[:, None]
    fitted = fit(image, camera, grid)
    assert fitted.shape == (294, 448, 3)
    assert abs(int(fitted[0, 0, 0]) - (255 - int(fitted[-1, 0, 0]))) <= 1  # as much was cut above as below


def test_normalise_gives_imagenet_statistics() -> None:
    grey = np.full((14, 28, 3), 255, dtype=np.uint8)
    result = normalise(grey)
    assert result.shape == (3, 14, 28) and result.dtype == np.float32
    np.testing.assert_allclose(
        result[:, 0, 0], (1 - np.array([0.485, 0.456, 0.406])) / [0.229, 0.224, 0.225], rtol=1e-5
    )


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (np.zeros((480, 320, 3), np.uint8), "320x480 but camera_info says 640x480"),
        (np.zeros((480, 640), np.uint8), "shape"),
        (np.zeros((480, 640, 3), np.float32), "float32"),
    ],
)
def test_another_image_than_the_cameras_is_refused(image: np.ndarray, words: str) -> None:
    camera = Camera(640, 480, 525, 525, 320, 240)
    with pytest.raises(InputError, match=words):
        fit(image, camera, patch_grid(camera, 448))


def test_a_sliver_of_an_image_is_refused() -> None:
    with pytest.raises(InputError, match="too narrow"):
        patch_grid(Camera(2000, 20, 500, 500, 1000, 10), 448)


@pytest.mark.parametrize(
    ("most", "left"), [(1000, 768), (768, 768), (767, 384), (384, 384), (300, 256), (200, 192), (100, 96)]
)
def test_thinned_grids_keep_patches_evenly(most: int, left: int) -> None:
    grid = patch_grid(Camera(640, 480, 525, 525, 320, 240), 448)
    fewer = subsampled(grid, most)
    assert fewer.valid.sum() == left and fewer is subsampled(grid, most)
    kept = fewer.valid.reshape(grid.rows, grid.columns)
    assert np.ptp([part.mean() for part in (kept[:12, :16], kept[:12, 16:], kept[12:, :16], kept[12:, 16:])]) < 0.05
    if most == 767:
        assert (kept[:, :-1] != kept[:, 1:]).all() and (kept[:-1] != kept[1:]).all()  # a chessboard


def test_thinning_counts_valid_patches_alone() -> None:
    grid = patch_grid(Camera(640, 480, 525, 525, 320, 240), 448)
    masked = replace(grid, valid=np.arange(768) < 300)
    assert (
        subsampled(masked, 300) is masked
        and not subsampled(masked, 150).valid[300:].any()
        and 140 <= subsampled(masked, 150).valid.sum() <= 160
    )
