"""dimm doctor as scripts use it: exit codes, JSON, sentences."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from dimm_ros.cli.main import app


def doctor(*words: str | Path) -> Result:
    return CliRunner().invoke(app, ["doctor", *map(str, words)], env={"COLUMNS": "120"})


def test_good_bag(walk: Path, tmp_path: Path) -> None:
    result = doctor(walk, "--results", tmp_path / "results")
    assert result.exit_code == 0, result.stderr
    assert "as given" in result.stdout and "PROBLEM" not in result.stdout
    assert (tmp_path / "results" / "latest" / "doctor.png").is_file()


def test_problems_give_exit_code_3_and_json(walk: Path, tmp_path: Path) -> None:
    result = doctor(walk, "--map-frame", "moon", "--json", "--results", tmp_path)
    assert result.exit_code == 3, result.stderr
    content = json.loads(result.stdout)
    assert content == json.loads((tmp_path / "latest" / "findings.json").read_text())
    assert content["verdict"] == "problem" and any("moon" in finding["what"] for finding in content["findings"])


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["absent_bag"], "absent_bag"),
        (["EMPTY"], "EMPTY"),
        (["WALK", "--image-topic", "/nowhere"], "/camera/image_raw/compressed"),
        (["WALK", "--results", "/proc/nowhere"], "/proc/nowhere"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_1(
    words: list[str], expected: str, tmp_path: Path, walk: Path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    empty = tmp_path / "EMPTY"
    empty.mkdir()
    result = doctor(*({"WALK": walk, "EMPTY": empty}.get(word, word) for word in words))
    assert result.exit_code == 1, result.stderr
    assert isinstance(result.exception, SystemExit) and expected in result.stderr.replace("\n", " ")
    assert not (tmp_path / "results").exists()


def test_neither_or_both_of_recording_and_robot_is_wrong_usage(tmp_path: Path) -> None:
    for words in ([], ["bag", "--live"]):
        result = CliRunner().invoke(app, ["doctor", *words])
        assert result.exit_code == 2 and "Give either a recording" in result.stderr


def test_live_without_ros_says_so(tmp_path: Path) -> None:
    shadow = tmp_path / "rclpy.py"
    shadow.write_text("raise ImportError(\"No module named 'rclpy'\", name='rclpy')\n")
    root = Path(__file__).resolve().parents[2]
    result = subprocess.run(
        [sys.executable, "-m", "dimm_ros.cli.main", "doctor", "--live"],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=tmp_path,
        env=os.environ | {"COLUMNS": "120", "PYTHONPATH": f"{tmp_path}{os.pathsep}{root}"},
    )
    assert result.returncode == 1 and "Traceback" not in result.stderr
    assert "--live needs ROS 2's Python packages (rclpy is missing)" in result.stderr.replace("\n", " ")


def test_damaged_images_are_a_finding(tmp_path: Path, shared_data: Path) -> None:
    if not (shared_data / "herzjesu").is_dir():
        pytest.skip("no herzjesu in ../shared/data")
    folder = shutil.copytree(shared_data / "herzjesu", tmp_path / "church")
    (folder / "frame-000007.color.jpg").write_bytes((folder / "frame-000007.color.jpg").read_bytes()[:2000])
    result = doctor(folder, "--json", "--results", tmp_path / "results")
    content = json.loads(result.stdout)
    damaged = next(finding for finding in content["findings"] if finding["check"] == "image files")
    assert result.exit_code == 3 and damaged["severity"] == "problem" and "frame-000007" in damaged["what"]
