"""Why there was no answer: every sentence that the localizer gives has a kind and a cure, and the table counts them."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from dimm_ros.cli.main import app
from dimm_ros.config import AcceptanceConfig, GateConfig, SolverConfig
from dimm_ros.data.image_checks import why_blind
from dimm_ros.data.open import open_recording
from dimm_ros.data.record import record_frames
from dimm_ros.data.recording import Frame
from dimm_ros.estimate import Estimate
from dimm_ros.evaluation.map_figures import mapped_poses
from dimm_ros.evaluation.metrics import FrameResult, is_mapped, summarise
from dimm_ros.evaluation.rejections import KINDS, count_rejections, kind_of
from dimm_ros.evaluation.report import table
from dimm_ros.localizer import Localizer
from dimm_ros.scene_map import SceneMap
from dimm_ros.solver.pose import MIN_RAYS, _reason
from dimm_ros.tracking.gate import PoseGate


def test_every_reason_of_localizer_and_solver_is_known(small_map: Path, encoder) -> None:
    localizer = Localizer(SceneMap.load(small_map), encoder, acceptance=AcceptanceConfig())
    good, bad = np.eye(6) * 1e-4, np.full((6, 6), np.nan)
    position, rotation = np.diag([9.0, 1e-4, 1e-4, 1e-4, 1e-4, 1e-4]), np.diag([1e-4, 1e-4, 1e-4, 1e-4, 1e-4, 1.0])
    said = []
    for inliers, covariance, novelty in (
        (90, good, 99.0),
        (90, bad, 0.0),
        (10, good, 0.0),
        (90, position, 0.0),
        (90, rotation, 0.0),
    ):
        estimate = Estimate(
            world_from_camera=np.eye(4),
            covariance=covariance,
            accepted=True,
            reason="",
            inliers=inliers,
            rays=100,
            novelty=novelty,
        )
        said.append(localizer.accept(estimate).reason)
    enough = MIN_RAYS + 1
    for checks in (
        [0, 0, 0, 0, 0, 0],
        [enough, 0, 0, 0, 0, 0],
        [enough, 1, 0, 1, 0, 0],
        [enough, 1, enough, 1, 0, 0],
        [enough, 1, enough, 1, enough, 0],
    ):
        said.append(_reason(enough, checks, SolverConfig()))
    assert all(said) and len(set(said)) == 10
    for reason in said:
        assert kind_of(reason) in KINDS and kind_of(reason).cure, reason


def test_every_reason_of_the_node_is_known() -> None:
    """The gate's, and what it says of images that show nothing or come at the wrong time."""
    gate = PoseGate(GateConfig())
    near = SimpleNamespace(distance=0.3, angle_deg=4.0)
    said = [gate._why(None, 1, 3, False), gate._why(near, 1, 3, False), gate._why(near, 1, 3, True)]
    said.append(gate._why(SimpleNamespace(distance=np.inf), 1, 3, True))
    gate._believed = near
    said += [gate._why(near, 1, 3, False), gate._why(near, 1, 3, True)]
    said += [why_blind(np.full((48, 64, 3), level, np.uint8)) for level in (0, 120, 255)]
    said += [
        "The image is 1.20 s old, more than max_image_age (1 s).",
        "The image is dated 3.00 s in the future; synchronise the clocks of the camera's computer and this one.",
        "The image is not newer than the one before, so it proves nothing.",
        "use_sim_time is set, but nothing is published on /clock.",
        "The node said nothing about this frame.",
    ]
    assert all(said) and len(set(said)) == 14
    for reason in said:
        assert kind_of(reason) in KINDS, reason


def test_kinds_are_counted_and_the_most_frequent_comes_first() -> None:
    novel = "The image is unlike every mapped view (novelty {:.2f}, at most 0.30): it is probably not of this map."
    counted = count_rejections(
        [novel.format(0.4), "A lens cap of 3 mm.", novel.format(0.5), "A lens cap of 4.5 mm."[:-1], novel.format(0.6)]
    )
    assert [(row["reason"], row["frames"]) for row in counted] == [
        ("unlike every mapped view", 3),
        ("A lens cap of .. mm", 2),
    ]
    assert "dimm map update" in counted[0]["cure"] and counted[0]["example"] == novel.format(0.4)
    assert count_rejections([]) == []


def test_the_table_explains_rejections() -> None:
    lost = [
        FrameResult(f"{number}", number, np.eye(4), None, reason="Only 12% of the rays agree (at least 30% must).")
        for number in range(3)
    ]
    console = Console(record=True, width=200)
    console.print(table("a run", summarise(lost)))
    lines = console.export_text().splitlines()
    assert any("too few rays agree with the pose" in line and "│ 3 " in line for line in lines)
    assert any("what to do" in line and "dimm doctor" in line for line in lines)
    assert "what to do" not in str(
        list(table("", summarise([FrameResult("1", 1, np.eye(4), np.eye(4))])).columns[0].cells)
    )


@pytest.fixture(scope="module")
def noise(other_walk: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of nothing, at poses of the mapped room."""
    rng, frames = np.random.default_rng(0), open_recording(other_walk).frames[:3]
    pictures = [rng.integers(0, 255, (168, 224, 3), dtype=np.uint8) for _ in frames]
    blind = [
        Frame(one.name, one.stamp_ns, one.camera, one.world_from_camera, lambda picture=picture: picture)
        for one, picture in zip(frames, pictures, strict=True)
    ]
    return record_frames(tmp_path_factory.mktemp("noise") / "noise", blind)


def test_eval_counts_the_reasons_and_ends_with_3_when_nothing_was_answered(
    small_map: Path, noise: Path, tmp_path: Path
) -> None:
    judged = CliRunner().invoke(
        app, ["eval", str(small_map), str(noise), "--results", str(tmp_path)], env={"COLUMNS": "200"}
    )
    assert judged.exit_code == 3, judged.output
    figures = json.loads((tmp_path / "latest" / "metrics.json").read_text())
    assert figures["answered"] == 0 and sum(row["frames"] for row in figures["rejections"]) == 3
    assert figures["rejections"][0]["reason"] in judged.stdout and "what to do about most of them" in judged.stdout


def test_eval_of_mapped_images_says_so(small_map: Path, walk: Path, other_walk: Path, tmp_path: Path) -> None:
    mapped = mapped_poses(SceneMap.load(small_map), None)  # as the map remembers them by itself
    assert all(is_mapped(frame.world_from_camera, mapped) for frame in open_recording(walk).frames)
    assert not any(is_mapped(frame.world_from_camera, mapped) for frame in open_recording(other_walk).frames)
    bag = record_frames(tmp_path / "part", open_recording(walk).frames[::8])
    judged = CliRunner().invoke(
        app, ["eval", str(small_map), str(bag), "--results", str(tmp_path)], env={"COLUMNS": "200"}
    )
    assert json.loads((tmp_path / "latest" / "metrics.json").read_text())["frames_mapped"] == 3
    assert "NOT A TEST" in judged.stdout and "3 of 3 images were mapped" in judged.stdout


def test_the_row_about_memory_is_for_runs_that_are_mostly_memory() -> None:
    def cells(mapped: int) -> str:
        answers = [
            FrameResult(str(number), number, np.eye(4), np.eye(4), mapped=number < mapped) for number in range(4)
        ]
        return str(list(table("", summarise(answers)).columns[0].cells))

    assert "NOT A TEST" in cells(2) and "NOT A TEST" not in cells(1)
