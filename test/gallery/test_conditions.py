"""Query conditions of the gallery do what their names say, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from dimm_ros.gallery.conditions import CONDITIONS, film
from dimm_ros.gallery.scene import Scene
from dimm_ros.gallery.trajectory import MOUNTS, trajectory
from dimm_ros.geometry.camera import Camera

CAMERA = Camera(160, 120, 110.0, 110.0, 79.5, 59.5)


@pytest.fixture(scope="module")
def walk() -> tuple[np.ndarray, np.ndarray]:
    stamps, world_from_base = trajectory(4, 2.0, 20.0)
    return stamps, world_from_base @ MOUNTS["handheld"]


@pytest.fixture(scope="module")
def images(room: Scene, walk: tuple[np.ndarray, np.ndarray]) -> dict[str, list[np.ndarray]]:
    return {
        condition: [frame.load() for frame in film(room, CAMERA, *walk, condition, every=20).frames]
        for condition in CONDITIONS
    }


def _sharpness(image: np.ndarray) -> float:
    return float(np.abs(np.diff(image.astype(float).mean(axis=2), axis=1)).mean())


def _difference(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.abs(one.astype(float) - other).mean(axis=2)


def test_low_light_is_darker_and_noisier(images: dict[str, list[np.ndarray]]) -> None:
    for clean, dark in zip(images["clean"], images["low_light"], strict=True):
        assert 0.2 < dark.mean() / clean.mean() < 0.6
        even = dark.astype(float) * clean.mean() / dark.mean()
        assert _sharpness(even) > 1.2 * _sharpness(clean)


def test_motion_blurs_and_moves_nothing_far(images: dict[str, list[np.ndarray]]) -> None:
    sharp, blurred = (
        np.mean([_sharpness(image) for image in images[condition]]) for condition in ("clean", "motion_blur")
    )
    assert blurred < 0.88 * sharp
    for clean, image in zip(images["clean"], images["motion_blur"], strict=True):
        assert _difference(clean, image).mean() < 25


def test_people_hide_a_part_of_the_image_alone(images: dict[str, list[np.ndarray]]) -> None:
    hidden = [
        np.mean(_difference(clean, image) > 15) for clean, image in zip(images["clean"], images["people"], strict=True)
    ]
    assert 0.05 < np.mean(hidden) < 0.8 and min(hidden) < 0.6


def test_fisheye_sees_further_to_the_side(room: Scene, walk: tuple[np.ndarray, np.ndarray]) -> None:
    frame = film(room, CAMERA, *walk, "fisheye", every=20).frames[0]
    edges, valid = frame.camera.bearings(np.array([[0.0, 59.5], [159.0, 59.5]]))
    assert valid.all() and np.degrees(np.arccos(edges[0] @ edges[1])) == pytest.approx(150, abs=5)
    assert frame.load().shape == (120, 160, 3)


def test_the_same_seed_films_the_same(room: Scene, walk: tuple[np.ndarray, np.ndarray]) -> None:
    for condition in ("low_light", "motion_blur", "people"):
        one, same, other = (
            film(room, CAMERA, *walk, condition, every=20, seed=seed).frames[1].load() for seed in (1, 1, 2)
        )
        assert np.array_equal(one, same) and not np.array_equal(one, other)


def test_poses_and_stamps_are_those_of_the_walk(room: Scene, walk: tuple[np.ndarray, np.ndarray]) -> None:
    recording = film(room, CAMERA, *walk, "motion_blur", every=7)
    assert [frame.stamp_ns for frame in recording.frames] == walk[0][::7].tolist()
    assert np.array_equal(recording.poses(), walk[1][::7])


def test_an_unknown_condition_is_refused(room: Scene, walk: tuple[np.ndarray, np.ndarray]) -> None:
    with pytest.raises(ValueError, match="low_light"):
        film(room, CAMERA, *walk, "fog")
