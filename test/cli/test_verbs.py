"""The dimm command as a person uses it: verbs, files, exit codes, one sentence for what went wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from dimm_ros.cli.main import app
from dimm_ros.data.open import open_recording
from dimm_ros.scene_map import SceneMap


def dimm(*words: str | Path, **options) -> subprocess.CompletedProcess:
    """Run the command in a process of its own, as a shell would."""
    return subprocess.run(
        [sys.executable, "-m", "dimm_ros.cli.main", *map(str, words)],
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ
        | {"COLUMNS": "200", "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
        | options.pop("env", {}),
        **options,
    )


def in_process(*words: str | Path) -> Result:
    """Where the process itself is not what is tested: starting one, with torch in it, takes seconds."""
    return CliRunner().invoke(app, list(map(str, words)), env={"COLUMNS": "200"})


@pytest.mark.parametrize(
    ("module", "package", "old", "needed"),
    [
        ("dimm_ros.cli.main", "typer", "0.9.0", "0.9.4"),
        ("dimm_ros.cli.main", "typer", "0.7.0", "0.9.4"),
        ("dimm_ros.cli.main", "pydantic", "1.10.14", "2"),
        ("dimm_ros.replay.player", "pydantic", "1.10.14", "2"),
    ],
)
def test_a_package_that_is_too_old_is_named(tmp_path: Path, module: str, package: str, old: str, needed: str) -> None:
    """As on Ubuntu 24.04, whose own come before pip's; what is found there would fail at import."""
    (tmp_path / package).mkdir()
    (tmp_path / package / "__init__.py").write_text("raise ImportError('imported all the same')")
    (tmp_path / f"{package}-{old}.dist-info").mkdir()
    (tmp_path / f"{package}-{old}.dist-info" / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {package}\nVersion: {old}\n"
    )
    root = Path(__file__).resolve().parents[2]
    ended = subprocess.run(
        [sys.executable, "-m", module, "--help"],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": f"{tmp_path}:{root}"},
    )
    assert ended.returncode == 1 and ended.stdout == ""
    assert (
        ended.stderr
        == f"error: {package} {old} is too old for dimm_ros, which needs {needed}: pip install '{package}>={needed}'\n"
    )


@pytest.mark.long
def test_map_then_eval(tmp_path: Path, walk: Path, other_walk: Path) -> None:
    made = dimm("map", walk, "-o", tmp_path / "room.dimm", "--preset", "demo", "--steps", "3", "--passes", "1")
    assert made.returncode == 0, made.stderr
    assert (tmp_path / "room.dimm").is_file() and (tmp_path / "room.dimm.retrieval.safetensors").is_file()
    assert not (tmp_path / "room.dimm.work").exists()
    judged = dimm("eval", tmp_path / "room.dimm", other_walk, "--results", tmp_path / "results", "--json")
    assert judged.returncode == 0, judged.stderr
    figures = json.loads(judged.stdout)
    assert figures == json.loads((tmp_path / "results" / "latest" / "metrics.json").read_text())
    assert figures["frames"] == len(open_recording(other_walk).frames) and figures["retrieval_median_translation_m"] > 0


def test_eval_prints_a_table(small_map: Path, other_walk: Path, tmp_path: Path) -> None:
    judged = in_process("eval", small_map, other_walk, "--results", tmp_path)
    assert judged.exit_code == 0, judged.stderr
    for words in ("median error", "90th percentile", "within 5 cm / 5 deg", "latency"):
        assert words in judged.stdout


@pytest.mark.long
def test_eval_says_that_a_map_is_not_in_metres(landmark_map: Path, other_walk: Path, tmp_path: Path) -> None:
    small = SceneMap.load(landmark_map)
    far = small.landmarks.seen_from * np.float16([1, 1, 1, 1, 1000, 1000])
    SceneMap(small.header, small.head, replace(small.landmarks, seen_from=far)).save(tmp_path / "room.dimm")
    judged = dimm("eval", tmp_path / "room.dimm", other_walk, "--results", tmp_path)
    assert judged.returncode == 0 and "m away (median), were its poses in metres" in judged.stderr
    assert "in metres" not in dimm("eval", landmark_map, other_walk, "--results", tmp_path).stderr


def test_localize_prints_a_pose(small_map: Path, walk: Path, tmp_path: Path) -> None:
    frame = open_recording(walk).frames[8]
    cv2.imwrite(str(tmp_path / "frame.png"), cv2.cvtColor(frame.load(), cv2.COLOR_RGB2BGR))
    result = in_process("localize", small_map, tmp_path / "frame.png", "--focal", "150", "--json")
    assert result.exit_code == 0, result.stderr
    pose = json.loads(result.stdout)
    assert pose["frame_id"] == "map"
    assert max(abs(a - b) for a, b in zip(pose["translation"], frame.world_from_camera[:3, 3], strict=True)) < 0.3


def test_localize_turns_a_photograph_as_its_exif_says(small_map: Path, walk: Path, tmp_path: Path) -> None:
    image = open_recording(walk).frames[8].load()
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by 90 degrees clockwise, so stored turned the other way
    Image.fromarray(np.rot90(image)).save(tmp_path / "phone.png", exif=exif)
    Image.fromarray(image).save(tmp_path / "upright.png")
    answers = []
    for name in ("upright.png", "phone.png"):
        result = CliRunner().invoke(app, ["localize", str(small_map), str(tmp_path / name), "--focal", "150", "--json"])
        answers.append({key: value for key, value in json.loads(result.stdout).items() if key != "image"})
    assert answers[0]["accepted"] and answers[0] == answers[1]


def test_map_says_what_the_doctor_finds_before_it_trains(tmp_path: Path, walk: Path) -> None:
    converted = CliRunner().invoke(
        app, ["convert", str(walk), str(tmp_path / "mm"), "--scale", "1000", "--images", "png"]
    )
    assert converted.exit_code == 0, converted.stderr
    words = ["--input-size", "112", "--passes", "1", "--steps", "2"]
    result = CliRunner().invoke(app, ["map", str(tmp_path / "mm"), "-o", str(tmp_path / "mm.dimm"), *words])
    assert result.exit_code == 0, result.stderr
    said = " ".join(result.stderr.split())
    assert "warning: scale: what is seen is " in said and "dimm convert --scale" in said


@pytest.mark.long
def test_ctrl_c_keeps_what_was_done_and_the_same_command_goes_on(tmp_path: Path, walk: Path) -> None:
    command = ["map", str(walk), "-o", str(tmp_path / "room.dimm"), "--preset", "demo", "--passes", "1"]
    words = [sys.executable, "-m", "dimm_ros.cli.main", *command, "--steps", "400"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    progress = tmp_path / "room.dimm.work" / "features" / "progress.json"
    while process.poll() is None and not progress.is_file():
        try:  # the wait is for the file; the process's end would end it too
            process.wait(0.1)
        except subprocess.TimeoutExpired:
            pass
    process.send_signal(signal.SIGINT)
    output, complaints = process.communicate(timeout=120)
    assert process.returncode == 130, complaints
    assert "Traceback" not in complaints and "same command" in output + complaints
    assert json.loads(progress.read_text())["done"] > 0
    again = in_process(*command, "--steps", "2")
    assert again.exit_code == 0, again.stderr
    assert (tmp_path / "room.dimm").is_file()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["map", "WALK", "-o", "a.dimm", "--image-topic", "/nowhere"], "/camera/image_raw/compressed"),
        (["map", "WALK", "-o", "a.dimm", "--map-frame", "moon"], "moon"),
        (["eval", "MAP", "WALK", "--split", "near:val"], "near:val"),
        (["weights", "resnet"], "'resnet' is not known"),
        (["gallery", "WALK"], "exists already"),
        (["map", "WALK", "-o", "/proc/nowhere/a.dimm", "--preset", "demo"], "/proc/nowhere"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_1(
    words: list[str], expected: str, tmp_path: Path, walk: Path, small_map: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside what test_bad_input_matrix.py tries."""
    monkeypatch.chdir(tmp_path)
    places = {"WALK": str(walk), "MAP": str(small_map)}
    result = CliRunner().invoke(app, [places.get(word, word) for word in words])
    complaints = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert result.exit_code == 1 and len(complaints) == 1 and expected in complaints[0], result.stderr
    assert not (tmp_path / "a.dimm").exists()


def test_version_help_and_completion() -> None:
    import dimm_ros

    runner = CliRunner()
    assert runner.invoke(app, ["--version"]).stdout == f"dimm_ros {dimm_ros.__version__}\n"
    text = " ".join(runner.invoke(app, ["--help"]).stdout.split())
    assert "Exit code: 0 done, 1" in text and "130 stopped" in text and "--install-completion" in text
    script = dimm("--show-completion", "bash", env={"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"})
    assert script.returncode == 0 and "_DIMM_COMPLETE=complete_bash" in script.stdout
    offered = dimm(env={"_DIMM_COMPLETE": "complete_bash", "COMP_WORDS": "dimm map bag --preset ", "COMP_CWORD": "4"})
    assert {"auto", "cpu", "gpu", "demo"} <= set(offered.stdout.split())


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["fly"],
        ["-v"],
        ["weights", "--fly"],
        ["gallery", "bag", "--seed", "one"],
        ["convert", "a", "b", "--storage", "tape"],
        ["map", "bag", "-o", "a.dimm", "--preset", "huge"],
        ["map", "bag", "-o", "a.dimm", "--input-size", "100"],
    ],
)
def test_wrong_usage_is_exit_code_2(words: list[str]) -> None:
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 2 and "Usage: dimm" in result.output


@pytest.mark.long
def test_json_is_all_there_is_on_stdout(tmp_path: Path, walk: Path, small_map: Path) -> None:
    frame = open_recording(walk).frames[0]
    cv2.imwrite(str(tmp_path / "frame.png"), frame.load())
    for words, key, value in (
        (["convert", walk, tmp_path / "bag", "--json"], "images", 24),
        (["gallery", tmp_path / "tour", "--seconds", "1", "--rate", "2", "--json"], "images", 3),
        (["localize", small_map, tmp_path / "frame.png", "--focal", "150", "--json"], "frame_id", "map"),
        (["weights", "--json"], "encoder", "dinov2-small"),
        (["doctor", walk, "--json", "--results", tmp_path / "results"], "frames", 24),
        (
            ["map", walk, "-o", tmp_path / "a.dimm", "--passes", "1", "--steps", "2", "--input-size", "112", "--json"],
            "complete",
            True,
        ),
    ):
        result = CliRunner().invoke(app, list(map(str, words)))
        assert result.exit_code == 0, result.stderr
        assert json.loads(result.stdout)[key] == value
