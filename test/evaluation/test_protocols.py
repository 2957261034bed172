"""Published protocols: which frames, which figures, and rows that say what is published."""

from __future__ import annotations

import json
from io import StringIO

import numpy as np
import pytest
from rich.console import Console
from scipy.spatial.transform import Rotation
from typer.testing import CliRunner

from dimm_ros.cli.main import app
from dimm_ros.data.recording import Frame, Recording
from dimm_ros.errors import InputError
from dimm_ros.evaluation.metrics import FrameResult
from dimm_ros.evaluation.protocols import PROTOCOLS, judge, judged_part, protocol_of, protocol_table
from dimm_ros.geometry.camera import Camera
from dimm_ros.geometry.poses import make_pose


def answers(*wrong: tuple[float, float] | None) -> list[FrameResult]:
    """Answers that are off by metres and degrees; None was never answered."""
    true = make_pose(Rotation.from_rotvec([0.3, -0.2, 0.1]).as_matrix(), np.array([1.0, 2.0, 3.0]))

    def off(metres: float, degrees: float) -> np.ndarray:
        turn = Rotation.from_rotvec([0, np.radians(degrees), 0]).as_matrix()
        return make_pose(turn @ true[:3, :3], true[:3, 3] + [0, 0, metres])

    return [
        FrameResult(str(index), index, true, None if error is None else off(*error))
        for index, error in enumerate(wrong)
    ]


def printed(name: str, scene: str, figures: dict) -> list[str]:
    text = StringIO()
    Console(file=text, width=160).print(protocol_table(PROTOCOLS[name], scene, figures))
    return text.getvalue().splitlines()


def test_figures_of_each_protocol():
    run = answers((0.04, 1), (0.04, 6), (0.08, 1), (0.3, 50), None)
    assert judge(PROTOCOLS["7scenes"], run) == {
        "median_cm": pytest.approx(8),
        "median_deg": pytest.approx(6),
        "5 cm / 5 deg": pytest.approx(20),
    }
    wayspots = judge(PROTOCOLS["wayspots"], run)
    assert (wayspots["10 cm / 5 deg"], wayspots["0.5 m"]) == (pytest.approx(40), pytest.approx(80))
    assert set(judge(PROTOCOLS["cambridge"], run)) == {"median_cm", "median_deg"}
    assert judge(PROTOCOLS["indoor6"], answers(None, None, (0.01, 0.1)))["median_cm"] is None


def test_published_rows_stand_beside_ours_and_say_so():
    figures = judge(PROTOCOLS["7scenes"], answers((0.02, 0.5)))
    lines = printed("7scenes", "pgt_7scenes_redkitchen-official-val", figures)
    ours, dimm, ace = (next(line for line in lines if name in line) for name in ("dimm_ros", "DIMM", "ACE ("))
    assert "2 cm, 0.5 deg" in ours and "100.0 %" in ours and "published" not in ours
    assert "DIMM (published)" in dimm and "3.2 cm, 0.8 deg" in dimm and "3.5 cm, 1 deg" in dimm
    assert "(published)" in ace and "1.1 cm, 0.34 deg" in ace and "3.2 cm" not in ace
    assert any(
        "6.2 cm" in line and "deg" not in line.split("6.2 cm")[1].split("│")[0]
        for line in printed("7scenes", "stairs", figures)
    )
    assert any(
        "42.9 %" in line for line in printed("wayspots", "bears", judge(PROTOCOLS["wayspots"], answers((0.02, 0.5))))
    )
    for name in ("12scenes", "indoor6", "cambridge"):
        lines = printed(name, "x", judge(PROTOCOLS[name], answers((0.02, 0.5))))
        assert not any("(published)" in line for line in lines) and any(
            "No published figures" in line for line in lines
        )


def test_the_judged_part_is_the_published_one():
    frames = [
        Frame(str(index), index, Camera(4, 4, 1, 1, 2, 2), np.eye(4), lambda: np.zeros((4, 4, 3), np.uint8))
        for index in range(3)
    ]
    recording = Recording("chess", "x", frames, splits={"official": {"train": [0], "val": [1, 2]}, "own": {"val": [0]}})
    assert [frame.name for frame in judged_part(recording).frames] == ["1", "2"]
    assert judged_part(Recording("chess", "x", frames)).frames is frames


def test_unknown_protocol_is_one_sentence():
    with pytest.raises(
        InputError, match="Protocol '8scenes' is not known; choose 7scenes, 12scenes, indoor6, cambridge, wayspots"
    ):
        protocol_of("8scenes")


def test_eval_prints_the_protocol(small_map, other_walk, tmp_path):
    words = ["eval", str(small_map), str(other_walk), "--protocol", "wayspots", "--results", str(tmp_path)]
    result = CliRunner().invoke(app, words, env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    assert "DIMM (published)" in result.output and "42.9 %" in result.output
    figures = json.loads((tmp_path / "latest" / "metrics.json").read_text())
    assert figures["protocol"]["name"] == "wayspots" and figures["protocol"]["10 cm / 5 deg"] == pytest.approx(
        100 * figures["recall_10cm_5deg"]
    )
