"""Pictures from above: not mirrored, whichever way up is, and coloured by what an answer says of itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.collections import PathCollection

from dimm_ros.audit import report as audit_report
from dimm_ros.audit.privacy import Audit
from dimm_ros.data.coverage import view_coverage
from dimm_ros.evaluation import map_figures, report
from dimm_ros.evaluation.metrics import FrameResult
from dimm_ros.geometry.poses import make_pose
from dimm_ros.pictures.ray_picture import ray_residual_picture

#: world_from_first of worlds whose up is +z, -z, +y, -y, +x and -x.
WORLDS = {
    "+z": np.eye(3),
    "-z": np.diag([1.0, -1.0, -1.0]),
    "+y": np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]]),
    "-y": np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]]),
    "+x": np.array([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]]),
    "-x": np.array([[0.0, 0, -1], [1, 0, 0], [0, -1, 0]]),
}


def a_left_turn(world: np.ndarray) -> np.ndarray:
    """(N, 4, 4) upright cameras on a way that bends to the left, seen from above."""
    poses = []
    for number in range(30):
        heading = np.radians(3 * number)
        forward, left = (
            np.array([np.cos(heading), np.sin(heading), 0]),
            np.array([-np.sin(heading), np.cos(heading), 0]),
        )
        rotation = np.stack([-left, [0, 0, -1], forward], axis=1)  # right, down, ahead
        poses.append(make_pose(world @ rotation, world @ (2 * np.array([np.sin(heading), 1 - np.cos(heading), 0.2]))))
    return np.stack(poses)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list:
    """Figures instead of files."""
    figures: list = []
    for module in (report, map_figures, audit_report):
        monkeypatch.setattr(module, "save_figure", lambda figure, path: figures.append(figure) or path)
    yield figures
    for figure in figures:
        report.pyplot().close(figure)


def turns_left(axis, poses: np.ndarray) -> bool:
    """Whether the way bends to the left on the screen."""
    labels = [axis.get_xlabel()[0], axis.get_ylabel()[0]]
    on_screen = axis.transData.transform(poses[:, ["xyz".index(label) for label in labels], 3])
    steps = np.diff(on_screen, axis=0)
    return bool(np.sum(steps[:-1, 0] * steps[1:, 1] - steps[:-1, 1] * steps[1:, 0]) > 0)


@pytest.mark.parametrize("up", WORLDS)
def test_a_left_turn_is_a_left_turn(up: str, drawn: list) -> None:
    poses = a_left_turn(WORLDS[up])
    answers = [FrameResult(str(number), number, pose, pose, np.eye(6) * 1e-4) for number, pose in enumerate(poses)]
    report._draw_trajectory(Path("a"), "run", answers, poses)
    map_figures.draw_coverage(Path("b"), poses)
    map_figures.draw_places(Path("c"), answers, view_coverage(poses))
    audit_report._draw_path(Path("d"), "map", Audit(path=poses), poses)
    audit_report._draw_clouds(Path("e"), "map", Audit(path=poses, clouds={"guess": poses[:, :3, 3]}))
    for figure in drawn[:4]:
        assert turns_left(figure.axes[0], poses), figure.axes[0].get_title()
    axis = drawn[4].axes[0]
    first, second, _ = view_coverage(poses).axes
    axis.set(xlabel="xyz"[first], ylabel="xyz"[second])
    assert turns_left(axis, poses)


@pytest.mark.parametrize("up", WORLDS)
def test_the_rose_is_turned_as_the_map_beside_it(up: str, drawn: list) -> None:
    poses = np.repeat(a_left_turn(WORLDS[up])[:1], 25, axis=0)  # all look one way
    poses[:, :3, 3] = a_left_turn(WORLDS[up])[:25, :3, 3]
    map_figures.draw_coverage(Path("a"), poses)
    above, rose = drawn[0].axes[0], next(axis for axis in drawn[0].axes if axis.name == "polar")
    heights = [bar.get_height() for bar in rose.patches]
    assert sorted(heights) == [0] * 7 + [25] and {text.get_text() for text in rose.texts} == {"0", "25"}
    seen = view_coverage(poses)
    assert heights.index(25) == seen.sectors(poses[:, :3, 2])[0]
    labels = [label.get_text() for label in rose.get_xticklabels()]
    for axis, (right, top) in {
        "xyz"[seen.axes[0]]: (labels[0], labels[2]),
        "xyz"[seen.axes[1]]: (labels[1], labels[3]),
    }.items():
        assert {right, top} == {f"+{axis}", f"-{axis}"}
    upwards = above.transData.transform([[0, 1], [0, 0]])
    assert (labels[1][0] == "+") == (upwards[0, 1] > upwards[1, 1])


def test_answers_are_coloured_by_their_own_uncertainty(drawn: list) -> None:
    poses = a_left_turn(np.eye(3))
    covariances = [np.diag([1e-4, (0.01 * number) ** 2 + 1e-4, 1e-4, 1e-4, 1e-4, 1e-4]) for number in range(len(poses))]
    answers = [
        FrameResult(str(number), number, pose, pose, covariance)
        for number, (pose, covariance) in enumerate(zip(poses, covariances, strict=True))
    ]
    answers[3] = replace(answers[3], estimated=None)
    report._draw_trajectory(Path("a"), "run", answers, poses[:7])
    top, bottom = drawn[0].axes[:2]
    dots = next(one for one in top.collections if isinstance(one, PathCollection))
    expected = [100 * np.sqrt((0.01 * number) ** 2 + 1e-4) for number in range(len(poses)) if number != 3]
    np.testing.assert_allclose(dots.get_array(), expected)
    assert "mapped views" in [text.get_text() for text in top.get_legend().get_texts()]
    assert len(next(line for line in top.lines if line.get_label() == "mapped views").get_xdata()) == 7
    assert "stated standard deviation" in [text.get_text() for text in bottom.get_legend().get_texts()]


def test_the_ray_pictures_verdict_has_the_uncertainty(monkeypatch: pytest.MonkeyPatch) -> None:
    from dimm_ros.estimate import Estimate

    written: list[str] = []
    monkeypatch.setattr("cv2.putText", lambda image, text, *more: written.append(text))
    covariance = np.diag([0.3**2, 0.01, 0.01, 1, 1, 1])
    estimate = Estimate(
        world_from_camera=np.eye(4), covariance=covariance, accepted=True, reason="", inliers=90, rays=100
    )
    for one in (estimate, replace(estimate, covariance=np.full((6, 6), np.nan)), replace(estimate, accepted=False)):
        ray_residual_picture(np.zeros((300, 400, 3), np.uint8), one)
    verdicts = [text.split("   ")[1] for text in written if "inliers" in text]
    assert verdicts == ["90% inliers, +- 30 cm", "90% inliers", "90% inliers, rejected"]
