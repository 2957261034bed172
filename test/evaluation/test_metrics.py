"""Figures of a run, against hand-made cases."""

from __future__ import annotations

import numpy as np
import pytest

from dimm_ros.evaluation.metrics import FrameResult, errors, normalised_squares, summarise
from dimm_ros.geometry.poses import exp_so3, make_pose
from dimm_ros.mapping.retrieval import ReferenceViews


def answer(metres: float, degrees: float = 0.0, **fields) -> FrameResult:
    """A frame that is off by a distance along x and an angle about z."""
    true = make_pose(exp_so3(np.array([0.3, -0.2, 0.1])), np.array([1.0, 2.0, 3.0]))
    estimated = true.copy()
    estimated[:3, :3] = exp_so3(np.array([0, 0, np.radians(degrees)])) @ true[:3, :3]
    estimated[0, 3] += metres
    return FrameResult("frame", 0, true, estimated, **fields)


LOST = FrameResult("lost", 0, np.eye(4), None, reason="too dark")


def test_errors_are_distance_and_angle() -> None:
    translation, rotation = errors([answer(0.04, 3.0), LOST])
    np.testing.assert_allclose(translation, [0.04, np.inf])
    np.testing.assert_allclose(rotation, [3.0, np.inf])


def test_recalls_count_unanswered_frames_as_failures() -> None:
    figures = summarise([answer(0.04, 4.0), answer(0.08, 1.0), answer(0.2, 1.5), LOST])
    assert (figures["frames"], figures["answered"], figures["rejected"]) == (4, 3, 1)
    assert (
        figures["recall_5cm_5deg"] == 0.25 and figures["recall_10cm_5deg"] == 0.5 and figures["recall_25cm_2deg"] == 0.5
    )


def test_medians_count_unanswered_frames_as_infinitely_far() -> None:
    assert summarise([answer(0.01), answer(0.02), answer(0.03)])["median_translation_m"] == pytest.approx(0.02)
    assert summarise([answer(0.01), answer(0.02), LOST])["median_translation_m"] == pytest.approx(0.02)
    assert summarise([answer(0.01), LOST, LOST])["median_translation_m"] is None
    assert summarise([answer(0.01 * index) for index in range(1, 12)])["p90_translation_m"] == pytest.approx(0.10)
    # the upper one
    assert summarise([answer(0.01), answer(0.02), answer(0.03), answer(0.10)])["median_translation_m"] == pytest.approx(
        0.03
    )


def test_a_run_without_frames_has_no_figures() -> None:
    figures = summarise([])
    assert figures["frames"] == 0 and figures["median_translation_m"] is None and figures["recall_5cm_5deg"] is None


def test_retrieval_is_judged_like_an_answer() -> None:
    far = answer(0.5, 10.0)
    others = [
        answer(0.01, retrieved=answer(metres, degrees).estimated) for metres, degrees in ((0.3, 20.0), (0.4, 15.0))
    ]
    figures = summarise([answer(0.01, retrieved=far.estimated), *others])
    assert figures["retrieval_median_translation_m"] == pytest.approx(0.4) and figures[
        "retrieval_median_rotation_deg"
    ] == pytest.approx(15.0)


def test_nees_is_six_when_the_covariance_is_right() -> None:
    rng = np.random.default_rng(0)
    factor = rng.normal(size=(6, 6)) * 0.02 + np.diag([0.05, 0.03, 0.04, 0.01, 0.02, 0.03])
    covariance = factor @ factor.T
    answers = []
    for _ in range(3000):
        error = factor @ rng.normal(size=6)
        true = make_pose(exp_so3(rng.normal(size=3)), rng.normal(size=3))
        estimated = make_pose(exp_so3(error[3:]) @ true[:3, :3], true[:3, 3] + error[:3])
        answers.append(FrameResult("", 0, true, estimated, covariance))
    assert normalised_squares(answers).mean() == pytest.approx(6.0, rel=0.06)
    figures = summarise(answers)
    assert figures["nees_within_95"] == pytest.approx(0.95, abs=0.015)


def test_the_nearest_mapped_image_is_found_by_its_place() -> None:
    views = np.stack(
        [
            make_pose(exp_so3(np.array([0, 0, angle])), np.array([x, 0.0, 0.0]))
            for x, angle in ((0.0, 0.0), (1.0, 0.2), (2.0, 0.0))
        ]
    )
    distance, angle = ReferenceViews(np.eye(3), views).distance(make_pose(np.eye(3), np.array([1.1, 0.0, 0.0])))
    assert distance == pytest.approx(0.1) and angle == pytest.approx(np.degrees(0.2))
    figures = summarise([answer(0.01, from_mapped=(metres, 10 * metres)) for metres in (0.1, 0.2, 0.4)])
    assert figures["nearest_mapped_median_m"] == pytest.approx(0.2) and figures[
        "nearest_mapped_median_deg"
    ] == pytest.approx(2.0)
