"""What a map keeps of landmarks, and what it hides."""

from __future__ import annotations

import numpy as np
import pytest

from dimm_ros.landmarks.combine import combine, distances
from dimm_ros.landmarks.store import Landmarks, hide_in_lines

from .scenes import cloud, landmarks_of, looks


@pytest.fixture
def points() -> Landmarks:
    rng = np.random.default_rng(0)
    return landmarks_of(cloud(rng, 300), looks(rng, 300))


def off_line(points: np.ndarray, lines: np.ndarray) -> np.ndarray:
    """Distance of points from lines, by the nearest point of each line."""
    foot = np.cross(lines[:, :3], lines[:, 3:])
    along = ((points - foot) * lines[:, :3]).sum(axis=1, keepdims=True)
    return np.linalg.norm(points - foot - along * lines[:, :3], axis=1)


def test_a_hidden_line_passes_through_its_point(points: Landmarks) -> None:
    lines = hide_in_lines(points, seed=3)
    assert lines.kind == "lines" and len(lines) == 300 and lines.places.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(lines.exact_places[:, :3], axis=1), 1.0, atol=1e-6)
    assert off_line(points.exact_places, lines.exact_places).max() < 1e-5
    assert off_line(points.exact_places + [0.1, 0, 0], lines.exact_places).max() > 0.09


def test_directions_are_random_all_round(points: Landmarks) -> None:
    directions = hide_in_lines(points, seed=3).exact_places[:, :3]
    scatter = directions.T @ directions / len(directions)
    np.testing.assert_allclose(scatter, np.eye(3) / 3, atol=0.08)
    assert not np.allclose(directions, hide_in_lines(points, seed=4).exact_places[:, :3])


def test_nothing_else_that_tells_a_place_remains(points: Landmarks) -> None:
    """Another point of the same line gives the very same bytes."""
    lines = hide_in_lines(points, seed=3)
    assert lines.seen_from.shape == (300, 0)
    elsewhere = landmarks_of(points.exact_places + 1.7 * lines.exact_places[:, :3], points.descriptors)
    twin = hide_in_lines(elsewhere, seed=3)
    np.testing.assert_allclose(twin.places, lines.places, atol=2e-6)
    for name, array in twin.arrays().items():
        assert name == "places" or array.tobytes() == lines.arrays()[name].tobytes()


@pytest.mark.parametrize("kind", ["points", "lines"])
def test_they_move_with_the_origin(points: Landmarks, kind: str) -> None:
    landmarks, offset = points if kind == "points" else hide_in_lines(points, 1), np.array([3.0, -5.0, 1.0])
    moved = landmarks.shifted(offset)
    if kind == "points":
        np.testing.assert_allclose(moved.places, points.places + offset, atol=1e-5)
    else:
        assert off_line(points.exact_places + offset, moved.exact_places).max() < 1e-5
    assert moved.kind == kind and moved.places.dtype == np.float32
    np.testing.assert_array_equal(moved.seen_from, landmarks.seen_from)


def test_shapes_are_those_of_the_arrays(points: Landmarks) -> None:
    for landmarks in (points, hide_in_lines(points, 1)):
        shapes = Landmarks.shapes(landmarks.kind, 300, 128)
        assert {name: (array.shape, str(array.dtype)) for name, array in landmarks.arrays().items()} == shapes
    both = Landmarks.joined([points.chosen(np.arange(100)), points.chosen(np.arange(300) >= 100)])
    for name, array in both.arrays().items():
        np.testing.assert_array_equal(array, points.arrays()[name])


def test_strangeness_grows_with_angle_and_distance() -> None:
    """A landmark that was seen from straight before it, 1 to 4 m away, within 30 degrees."""
    seen_from = np.array([[0.0, 0.0, -1.0, np.cos(np.radians(30)), 1.0, 4.0]], np.float16)
    landmark = Landmarks(
        "points", np.zeros((1, 3), np.float32), np.zeros((1, 8), np.uint8), np.ones(1, np.uint8), seen_from
    )

    def strange(degrees: float, distance: float, slack: float = 0.0) -> float:
        angle = np.radians(degrees)
        return float(
            landmark.strangeness(distance * np.array([np.sin(angle), 0.0, -np.cos(angle)]), slack, np.array([0]))[0]
        )

    assert strange(0, 2.0) == pytest.approx(0.0, abs=1e-3)  # two metres is their geometric middle
    assert strange(20, 2.0) == pytest.approx(np.radians(20), abs=1e-3)
    assert strange(0, 3.0) == pytest.approx(np.log(1.5), abs=1e-3) == pytest.approx(strange(0, 4 / 3), abs=1e-3)
    assert np.isfinite(strange(60, 2.0)) and np.isinf(strange(70, 2.0)) and np.isinf(strange(180, 2.0))
    assert np.isfinite(strange(0, 7.0)) and np.isinf(strange(0, 7.4)) and np.isinf(strange(0, 0.5))
    # Whoever knows his place by a metre may be somewhere else.
    assert (
        np.isfinite(strange(70, 2.0, slack=1.0))
        and np.isfinite(strange(0, 8.0, slack=1.0))
        and np.isfinite(strange(0, 0.5, slack=0.1))
    )
    lines = hide_in_lines(landmark, 0)
    assert lines.strangeness(np.array([9.0, 9.0, 9.0]), 0.0, np.array([0])).tolist() == [0.0]


def test_distances_of_points_and_lines() -> None:
    rng = np.random.default_rng(5)
    one, other = cloud(rng, 40), cloud(rng, 40)
    a, b = (
        hide_in_lines(landmarks_of(each, looks(rng, 40)), seed).exact_places for seed, each in enumerate((one, other))
    )
    np.testing.assert_allclose(distances(one, other), np.linalg.norm(one - other, axis=1))
    np.testing.assert_allclose(distances(one, b), off_line(one, b), atol=1e-5)
    np.testing.assert_allclose(distances(b, one), off_line(one, b), atol=1e-5)
    # Two lines: the nearest of their points, which is a problem of two unknowns.
    for number in range(40):
        feet = [np.cross(each[number, :3], each[number, 3:]) for each in (a, b)]
        along = np.column_stack([a[number, :3], -b[number, :3]])
        rest = np.linalg.lstsq(along, feet[1] - feet[0], rcond=None)
        nearest = np.linalg.norm(along @ rest[0] - (feet[1] - feet[0]))
        assert distances(a[number, None], b[number, None])[0] == pytest.approx(nearest, abs=2e-5)
    parallel = np.hstack([a[:, :3], np.cross(one + np.cross(a[:, :3], [0.0, 0.0, 1.0]), a[:, :3])])
    apart = np.linalg.norm(np.cross(a[:, :3], [0.0, 0.0, 1.0]), axis=1)
    np.testing.assert_allclose(distances(a, parallel), apart, atol=1e-4)


@pytest.mark.parametrize(
    ("first", "second"), [("points", "points"), ("lines", "lines"), ("points", "lines"), ("lines", "points")]
)
def test_a_landmark_of_two_maps_is_kept_once(first: str, second: str) -> None:
    rng = np.random.default_rng(6)
    places, seen = cloud(rng, 120), looks(rng, 120)
    one = landmarks_of(places[:80], seen[:80])
    other = landmarks_of(places[40:] + rng.normal(0, 0.005, (80, 3)), seen[40:])  # forty are in both, a little off
    maps = [
        each if kind == "points" else hide_in_lines(each, seed)
        for seed, (kind, each) in enumerate(((first, one), (second, other)))
    ]
    joined = combine(maps, 0.05, 1000, seed=9)
    assert joined.kind == ("points" if first == second == "points" else "lines") and len(joined) == 120
    # One landmark of each look: that of the first map where both have it.
    assert len(np.unique(joined.descriptors, axis=0)) == 120
    if first == joined.kind:
        np.testing.assert_array_equal(joined.places[:80], maps[0].places)
    expected = np.vstack([places[:80], other.exact_places[40:]])
    error = (
        np.linalg.norm(joined.exact_places - expected, axis=1)
        if joined.kind == "points"
        else off_line(expected, joined.exact_places)
    )
    assert error.max() < 1e-5


def test_what_looks_alike_elsewhere_is_another_landmark() -> None:
    rng = np.random.default_rng(7)
    places, seen = cloud(rng, 30), looks(rng, 30)
    one, twins = landmarks_of(places, seen), landmarks_of(places + [0.5, 0.5, 0.5], seen)
    assert len(combine([one, twins], 0.05, 1000, 0)) == 60 and len(combine([one, twins], 1.0, 1000, 0)) == 30
    # and what looks otherwise is another, too
    assert len(combine([one, landmarks_of(places, looks(rng, 30))], 0.05, 1000, 0)) == 60


def test_of_too_many_those_that_more_images_show_are_kept() -> None:
    rng = np.random.default_rng(8)
    one = landmarks_of(cloud(rng, 40), looks(rng, 40))
    views = np.arange(40, dtype=np.uint8)
    one = Landmarks("points", one.places, one.descriptors, views, one.seen_from)
    kept = combine([one, landmarks_of(cloud(rng, 10), looks(rng, 10))], 0.05, 20, 0)
    assert len(kept) == 20 and sorted(kept.views) == list(range(20, 40))
