"""Attacks on landmarks that lines hide: what they get back is known, because the points are."""

from __future__ import annotations

import numpy as np
import pytest

from dimm_ros.audit.lines import audit_landmarks, guessed, judged, meeting_points, nearest_lines
from dimm_ros.audit.report import tables
from dimm_ros.landmarks.store import Landmarks, hide_in_lines


@pytest.fixture(scope="module")
def points() -> Landmarks:
    """Landmarks on the walls of a room of 6 x 4 x 3 m, as real ones lie: dense, and on surfaces."""
    rng = np.random.default_rng(0)
    places = rng.uniform([-3, -2, 0], [3, 2, 3], (1500, 3))
    wall = rng.integers(0, 3, len(places))
    places[wall == 0, 0] = np.sign(rng.normal(size=(wall == 0).sum())) * 3.0
    places[wall == 1, 1] = np.sign(rng.normal(size=(wall == 1).sum())) * 2.0
    places[wall == 2, 2] = 0.0
    return Landmarks(
        kind="points",
        places=places.astype(np.float32),
        descriptors=rng.integers(0, 255, (len(places), 128)).astype(np.uint8),
        views=np.full(len(places), 3, np.uint8),
        seen_from=np.ones((len(places), 6), np.float16),
    )


def test_dense_lines_give_away_more_than_a_guess(points: Landmarks) -> None:
    lines, true = hide_in_lines(points, seed=3), points.exact_places
    found = nearest_lines(lines)
    # Whatever is said of a landmark is a place on its own line.
    direction, moment = lines.exact_places[:, :3], lines.exact_places[:, 3:]
    np.testing.assert_allclose(np.cross(found, direction), moment, atol=1e-4)
    attack, guess = judged(found, true), judged(guessed(lines, true), true)
    assert attack["median_error_m"] < 0.6 * guess["median_error_m"]
    assert attack["within_25cm"] > 1.5 * guess["within_25cm"]


def test_two_maps_give_everything_away(points: Landmarks) -> None:
    rows, places = meeting_points(hide_in_lines(points, seed=3), hide_in_lines(points, seed=4))
    assert len(rows) == len(points)
    # Lines that are nearly parallel meet vaguely in single precision.
    assert np.quantile(np.linalg.norm(places - points.exact_places[rows], axis=1), 0.95) < 1e-3


def test_the_audit_says_what_is_in_the_file_and_what_comes_out(points: Landmarks) -> None:
    assert audit_landmarks(None, None, None) is None
    assert audit_landmarks(points, None, None) == {"kind": "points", "landmarks": 1500, "read": 1500}
    lines = hide_in_lines(points, seed=3)
    assert audit_landmarks(lines, None, None) == {"kind": "lines", "landmarks": 1500}
    found = audit_landmarks(lines, points.chosen(np.arange(1000)), points)
    assert found["nearest_lines"]["landmarks"] == 1000 and found["two_maps"]["within_5cm"] > 0.95
    figures = {
        "landmarks": found,
        "path": None,
        "contexts": None,
        "membership": {},
        "foreign_poses": {},
        "structure": [],
    }
    assert "places where lines of two maps meet" in [str(cell) for cell in tables("a map", figures)[0].columns[0].cells]
