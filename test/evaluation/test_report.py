"""What a run leaves behind."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from evo.core import metrics, sync
from evo.tools import file_interface
from rich.console import Console

from dimm_ros.evaluation.metrics import FrameResult, summarise
from dimm_ros.evaluation.report import new_results, point_latest, results_folder, table, write_report
from dimm_ros.geometry.poses import exp_so3, make_pose

REQUIRED = (
    "median_translation_m",
    "p90_translation_m",
    "median_rotation_deg",
    "p90_rotation_deg",
    "recall_5cm_5deg",
    "recall_10cm_5deg",
    "recall_25cm_2deg",
    "frames",
    "answered",
    "latency_ms_median",
    "encoder_ms_median",
    "retrieval_median_translation_m",
    "retrieval_median_rotation_deg",
)


def a_run(count: int = 30) -> list[FrameResult]:
    rng = np.random.default_rng(0)
    answers = []
    for index in range(count):
        angle = 2 * np.pi * index / count
        true = make_pose(exp_so3(np.array([0, 0, angle])), np.array([np.cos(angle), 2 * np.sin(angle), 1.0]))
        estimated = make_pose(
            exp_so3(rng.normal(size=3) * 0.01) @ true[:3, :3], true[:3, 3] + rng.normal(size=3) * 0.02
        )
        stamp = 1_760_000_000_123_456_789 + index * 100_000_000
        answers.append(
            FrameResult(
                f"{index}",
                stamp,
                true,
                None if index == 7 else estimated,
                np.eye(6) * 4e-4,
                latency_ms=50.0,
                encoder_ms=40.0,
            )
        )
    return answers


def test_the_report_has_all_its_parts(tmp_path: Path) -> None:
    answers = a_run()
    figures = summarise(answers)
    with new_results("room", tmp_path / "results") as folder:
        paths = write_report(folder, "a run", answers, figures)
    assert {path.name for path in paths} == {
        "metrics.json",
        "true.tum",
        "estimated.tum",
        "trajectory.png",
        "errors.png",
    }
    stored = json.loads((folder / "metrics.json").read_text())
    assert set(REQUIRED) <= set(stored) and stored["answered"] == 29
    for picture in ("trajectory.png", "errors.png"):
        image = cv2.imread(str(folder / picture))
        assert image is not None and image.std() > 10
    assert (tmp_path / "results" / "latest").resolve() == folder.resolve()


def test_latest_moves_to_the_newest_run(tmp_path: Path) -> None:
    first, second = results_folder("one", tmp_path), results_folder("two", tmp_path)
    point_latest(first)
    assert (tmp_path / "latest").resolve() == first.resolve()
    point_latest(second)
    assert first != second and (tmp_path / "latest").resolve() == second.resolve()


def test_a_picture_that_fails_after_the_report_leaves_the_latest_run_as_it_was(tmp_path: Path) -> None:
    with new_results("good", tmp_path) as kept:
        write_report(kept, "a run", [], summarise([]))
    with pytest.raises(OSError, match="a picture"), new_results("bad", tmp_path) as folder:
        write_report(folder, "a run", [], summarise([]))
        raise OSError("a picture failed")
    assert not folder.exists() and (tmp_path / "latest").resolve() == kept.resolve()


def test_an_interrupted_run_leaves_no_folder(tmp_path: Path) -> None:
    with new_results("good", tmp_path / "new" / "results") as kept:
        pass
    for root, left in (
        (tmp_path / "new" / "results", {kept.name, "latest"}),
        (tmp_path / "elsewhere" / "results", None),
    ):
        with pytest.raises(KeyboardInterrupt), new_results("bad", root) as folder:
            (folder / "half.png").write_bytes(b"half")
            raise KeyboardInterrupt
        assert (None if left is None else {path.name for path in root.iterdir()}) == left
    assert kept.is_dir() and (tmp_path / "new" / "results" / "latest").resolve() == kept.resolve()
    assert not (tmp_path / "elsewhere").exists()


def test_two_runs_of_one_second_have_two_folders(tmp_path: Path) -> None:
    assert len({results_folder("room", tmp_path) for _ in range(5)}) == 5


def test_evo_reads_the_trajectories_and_agrees(tmp_path: Path) -> None:
    answers = a_run()
    write_report(tmp_path, "a run", answers, summarise(answers))
    true, estimated = (
        file_interface.read_tum_trajectory_file(tmp_path / f"{name}.tum") for name in ("true", "estimated")
    )
    assert (true.num_poses, estimated.num_poses) == (30, 29)
    error = metrics.APE(metrics.PoseRelation.translation_part)
    error.process_data(sync.associate_trajectories(true, estimated, max_diff=0.01))
    assert np.isclose(
        error.get_statistic(metrics.StatisticsType.median),
        np.median(
            [np.linalg.norm(one.estimated[:3, 3] - one.true[:3, 3]) for one in answers if one.estimated is not None]
        ),
        atol=1e-6,
    )


def test_the_table_says_what_was_measured() -> None:
    console = Console(record=True, width=120)
    console.print(table("a run", summarise(a_run())))
    text = console.export_text()
    for words in ("29 / 1 of 30", "median error", "within 5 cm / 5 deg", "50 ms", "40 ms", "NEES"):
        assert words in text


def test_a_run_without_an_answer_is_drawn_too(tmp_path: Path) -> None:
    lost = [FrameResult(f"{index}", index, np.eye(4), None, reason="dark") for index in range(4)]
    write_report(tmp_path, "a bad run", lost, summarise(lost))
    assert (
        cv2.imread(str(tmp_path / "trajectory.png")) is not None
        and (tmp_path / "estimated.tum").read_text().strip() == ""
    )
