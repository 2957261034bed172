"""The demo's judgement of the node, and what it says at its end."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from typer.testing import CliRunner

from dimm_ros.cli import demo
from dimm_ros.cli.console import Bars
from dimm_ros.cli.main import app
from dimm_ros.config import PRESETS
from dimm_ros.data.open import open_recording
from dimm_ros.data.recording import Frame, Recording
from dimm_ros.errors import DimmError
from dimm_ros.evaluation.metrics import normalised_squares
from dimm_ros.geometry.camera import Camera
from dimm_ros.geometry.poses import exp_so3, make_pose
from dimm_ros.mapping.build import BuildResult
from dimm_ros.mapping.retrieval import reference_path
from dimm_ros.replay import demo_work
from dimm_ros.replay.collector import PublishedPose
from dimm_ros.replay.demo_bags import DemoBags
from dimm_ros.replay.judge import judge
from dimm_ros.replay.session import Replay
from dimm_ros.scene_map import SceneMap


def test_the_nodes_covariance_is_judged_at_the_camera() -> None:
    """The robot's heading is uncertain by 0.1 rad and its camera a metre ahead: by 10 cm sideways, with the turn."""
    base_from_camera = make_pose(np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]]), np.array([1.0, 0.0, 0.3]))
    true_base, turn = make_pose(np.eye(3), np.array([2.0, 3.0, 0.0])), 0.005
    covariance = np.diag([1e-4, 1e-4, 1e-4, 1e-4, 1e-4, 1e-2])
    answered = make_pose(exp_so3(np.array([0, 0, turn])), true_base[:3, 3])
    camera = Camera(4, 3, 4.0, 4.0, 1.5, 1.0)
    frames = [
        Frame(name, stamp, camera, true_base @ base_from_camera, lambda: None)
        for name, stamp in (("one", 5), ("two", 6))
    ]
    played = SimpleNamespace(images={5: 1.0})
    replay = Replay((PublishedPose(5, 1.5, "map", answered, covariance),), (), (), played)
    one, two = judge(replay, Recording("walk", "walk", frames), base_from_camera)
    assert two.covariance is None and two.estimated is None and one.latency_ms == pytest.approx(500)
    assert one.covariance[1, 1] == pytest.approx(1e-4 + 1e-2, rel=0.01) and one.covariance[1, 5] == pytest.approx(
        1e-2, rel=0.01
    )
    # of the heading, and no more for its arm
    assert normalised_squares([one, two]) == pytest.approx([turn**2 / 1e-2], rel=0.02)


def test_the_end_names_commands_that_can_be_typed(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    stage = DemoBags(tmp_path / "mapping_bag", tmp_path / "query_bag", np.eye(4), {})
    demo._say_what_next(tmp_path, stage, [])
    said = capsys.readouterr().out
    assert f"dimm eval {tmp_path / 'map.dimm'} {stage.query} --mcap" in said
    assert f"dimm convert {stage.query} {tmp_path / 'query_raw_bag'} --images raw" in said
    assert re.search(
        r"ros2 launch dimm_ros replay.launch.py bagfile:=\S+query_raw_bag map:=\S+map.dimm image:=/camera/image_raw ",
        said,
    )
    assert "dimm doctor YOUR_BAG" in said and "dimm map YOUR_BAG -o place.dimm" in said
    demo._say_what_next(tmp_path, stage, [tmp_path / "foxglove" / "foxglove.mcap"])
    assert f"open {tmp_path / 'foxglove' / 'foxglove.mcap'}" in capsys.readouterr().out


def test_the_data_is_opened_once_and_every_stage_is_in_the_plan(
    walk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As far as the two bags; then the map cannot be made."""
    opened, plans = [], []

    def open_split(path: Path, **how) -> Recording:
        opened.append(Path(path).name)
        halves = {"half": {"train": list(range(0, 24, 2)), "val": list(range(1, 24, 2))}}
        return replace(open_recording(path, **how), splits=halves)

    def no_map(*_) -> BuildResult:
        raise DimmError("that is enough")

    monkeypatch.setattr("dimm_ros.data.open.open_recording", open_split)
    monkeypatch.setattr("dimm_ros.encoder.dinov2.Encoder.open", lambda _: None)
    monkeypatch.setattr(demo_work, "demo_map", no_map)
    monkeypatch.setattr(Bars, "plan", lambda _, usual_seconds: plans.append(usual_seconds))
    words = ["demo", "--data", str(walk), "--mcap", "--results", str(tmp_path)]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 1 and "that is enough" in done.stderr, done.output
    assert opened == [walk.name, "mapping_bag"]
    (plan,) = plans
    bags = [line.split(":")[0] for line in done.stderr.splitlines() if "100 % (12 of 12)" in line]
    assert [*bags, "keypoints", "matching", "poses", "features", "calibration", "training"] == list(plan)[:8]
    assert list(plan)[8:] == ["replaying", "judging", "drawing"]


def test_a_second_run_goes_on_from_the_first_ones_bags_and_map(
    walk: Path, small_map: Path, encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded, built = [], []

    def bags_of_gallery(folder: Path, progress) -> DemoBags:
        recorded.append(folder)
        shutil.copytree(walk, folder / "mapping_bag")
        shutil.copytree(walk, folder / "query_bag")
        return DemoBags.of(folder, gallery=True)

    def build_map(recording, path: Path, *_, **__) -> BuildResult:
        built.append(path)
        shutil.copy(small_map, path)
        shutil.copy(reference_path(small_map), reference_path(path))
        return BuildResult(path, True, {"training": 1.0})

    monkeypatch.setattr(demo_work, "bags_of_gallery", bags_of_gallery)
    monkeypatch.setattr(demo_work, "build_map", build_map)
    header = SceneMap.load(small_map).header
    preset = PRESETS["demo"].model_copy(update={"head": header.head, "training": header.training})
    work = tmp_path / "demo.work"
    for number in range(2):
        stage = demo_work.demo_bags(work, None, None, lambda *_: False)
        result = demo_work.demo_map(work, open_recording(stage.mapping), encoder, preset, lambda *_: False)
        folder = tmp_path / f"results{number}"
        folder.mkdir()
        there = demo_work.linked(work, stage, folder)
        assert result.complete and len(open_recording(there.query).frames) == len(open_recording(walk).frames)
        assert SceneMap.load(folder / "map.dimm").header.name == header.name
    assert len(recorded) == len(built) == 1
    shutil.rmtree(work)  # results stay whole
    assert len(open_recording(tmp_path / "results0" / "mapping_bag").frames) > 0
    demo_work.demo_bags(work, None, None, lambda *_: False)
    another = preset.model_copy(update={"training": header.training.changed(steps=7)})
    recording = open_recording(DemoBags.of(work, gallery=True).mapping)
    for wanted in (preset, another):
        demo_work.demo_map(work, recording, encoder, wanted, lambda *_: False)
    assert len(recorded) == 2 and len(built) == 3  # what was asked for is another map
    monkeypatch.setattr(demo_work, "__version__", "99.0.0")
    demo_work.demo_bags(work, None, None, lambda *_: False)
    assert len(recorded) == 3 and not (work / "map.dimm").exists()  # of another version nothing is kept
