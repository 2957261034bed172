"""Runs beside each other: evo's errors, the table, the picture, and folders that are no runs."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from dimm_ros.cli.console import console
from dimm_ros.cli.main import app
from dimm_ros.errors import DataError
from dimm_ros.evaluation.compare import comparison_table, read_run
from dimm_ros.evaluation.metrics import FrameResult, summarise
from dimm_ros.evaluation.report import write_report
from dimm_ros.geometry.poses import exp_so3, make_pose


def a_run(folder: Path, offset: np.ndarray, turn: float = 0.0, lost: tuple[int, ...] = ()) -> Path:
    """A walk along a line whose answers are off by an offset; its y changes its sign at every frame."""
    answers = []
    for number in range(12):
        true = make_pose(exp_so3(np.array([0, 0, 0.1 * number])), np.array([0.2 * number, 0.0, 1.0]))
        sign = np.array([1.0, (-1.0) ** number, 1.0])
        estimated = make_pose(exp_so3(np.array([0, 0, turn])) @ true[:3, :3], true[:3, 3] + sign * offset)
        stamp = 1_760_000_000_000_000_000 + number * 100_000_000
        answers.append(FrameResult(str(number), stamp, true, None if number in lost else estimated, np.eye(6) * 1e-3))
    folder.mkdir(parents=True)
    write_report(folder, "a run", answers, {"map": "a.dimm", "data": "walk"} | summarise(answers))
    return folder


def test_errors_are_those_that_were_made(tmp_path: Path) -> None:
    shifted = read_run(a_run(tmp_path / "shifted", np.array([0.05, 0.0, 0.0]), turn=np.radians(2.0))).figures
    assert shifted["ate_rmse_m"] == pytest.approx(0.05, abs=1e-6) and shifted["ate_rmse_deg"] == pytest.approx(
        2.0, abs=1e-4
    )
    shaking = read_run(a_run(tmp_path / "shaking", np.array([0.0, 0.03, 0.0]))).figures
    assert shaking["ate_rmse_m"] == pytest.approx(0.03, abs=1e-6) and shaking["rpe_rmse_m"] == pytest.approx(
        0.06, abs=1e-6
    )
    assert shaking["rpe_rmse_deg"] == pytest.approx(0.0, abs=1e-4) and shaking["median_translation_m"] == pytest.approx(
        0.03
    )


def test_runs_of_few_answers_are_compared_too(tmp_path: Path) -> None:
    one = read_run(a_run(tmp_path / "one", np.array([0.05, 0.0, 0.0]), lost=tuple(range(1, 12)))).figures
    assert one["ate_rmse_m"] == pytest.approx(0.05, abs=1e-6) and one["rpe_rmse_m"] is None and one["answered"] == 1
    none = read_run(a_run(tmp_path / "none", np.zeros(3), lost=tuple(range(12)))).figures
    assert none["ate_rmse_m"] is None and none["answered"] == 0
    console = Console(record=True, width=200)
    console.print(comparison_table([read_run(tmp_path / "one"), read_run(tmp_path / "none")]))
    text = console.export_text()
    assert "0 of 12" in text and "1 of 12" in text


def test_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "width", 200)  # whatever terminal the tests run in
    folders = [
        a_run(tmp_path / name, np.array([metres, 0.0, 0.0])) for name, metres in (("a", 0.02), ("b", 0.04), ("c", 0.06))
    ]
    words = ["eval", "--compare", *map(str, folders), "--results", str(tmp_path / "results")]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    for words_shown in ("2.0 cm, 0.00 deg", "4.0 cm, 0.00 deg", "6.0 cm, 0.00 deg", "a.dimm on walk", "ATE", "RPE"):
        assert words_shown in done.stdout
    assert cv2.imread(str(tmp_path / "results" / "latest" / "errors.png")).std() > 5
    told = json.loads(CliRunner().invoke(app, [*words, "--json"]).stdout)
    assert [one["run"] for one in told] == ["a", "b", "c"] and [round(one["ate_rmse_m"], 4) for one in told] == [
        0.02,
        0.04,
        0.06,
    ]
    extra = CliRunner().invoke(app, ["eval", "a.dimm", "walk", "more"])
    assert extra.exit_code == 2 and "--compare" in extra.stderr


@pytest.mark.parametrize(
    ("file", "text", "expected"),
    [
        ("metrics.json", None, "is no results folder of 'dimm eval'"),
        ("metrics.json", "{", "are damaged"),
        ("metrics.json", "[]", "are damaged"),
        ("estimated.tum", "1 2 3\n", "are damaged"),
        ("true.tum", "", "are damaged"),
        ("true.tum", None, "is no results folder"),
    ],
)
def test_folders_that_are_no_runs(file: str, text: str | None, expected: str, tmp_path: Path) -> None:
    folder = a_run(tmp_path / "run", np.zeros(3))
    (folder / file).unlink()
    if text is not None:
        (folder / file).write_text(text)
    with pytest.raises(DataError, match=expected):
        read_run(folder)
