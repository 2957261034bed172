"""What the terminal shows, and what a log file shows instead."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from dimm_ros.cli.console import Bars, bars
from dimm_ros.cli.main import app
from dimm_ros.cli.plan import StagePlan

ROOT = Path(__file__).resolve().parents[2]
_TALK = """
from rich.table import Table
from dimm_ros.cli.console import bars, note, say, show
with bars() as progress:
    progress("training", 1, 4)
    say("3/4  starting the node")
    progress("training", 2, 4)
    note("a warning")
    table = Table(title="figures")
    table.add_row("median error", "3.2 cm")
    show(table)
    progress("training", 4, 4)
say("done")
"""


def at_terminal(code: str) -> list[str]:
    """Lines that a terminal of 100 columns shows in the end."""
    main, end = pty.openpty()
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "COLUMNS": "100",
        "LINES": "50",
        "TERM": "xterm",
        "NO_COLOR": "1",
    }
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.DEVNULL, stdout=end, stderr=end, env=environment
    )
    os.close(end)
    said = b""
    try:
        while part := os.read(main, 65536):
            said += part
    except OSError:  # the process has closed its end
        pass
    os.close(main)
    assert process.wait(300) == 0, said.decode()
    return screen(said.decode())


def screen(text: str) -> list[str]:
    """A small terminal: carriage return, new line, cursor up, erase line."""
    lines, row, column = [""], 0, 0
    for sign in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|.", text, re.DOTALL):
        if sign == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif sign == "\r":
            column = 0
        elif re.fullmatch(r"\x1b\[\d*A", sign):
            row = max(0, row - int(sign[2:-1] or 1))
        elif sign == "\x1b[2K":
            lines[row] = ""
        elif not sign.startswith("\x1b"):
            lines[row] = lines[row].ljust(column)[:column] + sign + lines[row][column + 1 :]
            column += 1
    return [line.rstrip() for line in lines]


def test_what_is_said_beside_live_bars_stays_and_no_bar_is_left_behind() -> None:
    lines = at_terminal(_TALK)
    for words in ("3/4  starting the node", "a warning", "median error", "done"):
        assert sum(words in line for line in lines) == 1, lines
    assert [line.split()[0:3:2] for line in lines if "training" in line] == [["training", "4/4"]], lines


def test_errors_before_any_progress_follow_no_blank_line() -> None:
    assert at_terminal("from dimm_ros.cli.console import bars, note\nwith bars():\n    note('error: no map')") == [
        "error: no map",
        "",
    ]


def test_without_a_terminal_a_line_is_written_each_ten_per_cent(capsys: pytest.CaptureFixture) -> None:
    with bars() as progress:
        for done in range(38):
            progress("training", done, 37, "loss 0.50")
        progress("saving", 1, 1)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(" (")[0] for line in lines] == [f"training: {10 * tenth} %" for tenth in range(1, 11)] + [
        "saving: 100 %"
    ]
    assert re.fullmatch(r"training: 50 % \(19 of 37\), \d+ s left, loss 0.50", lines[4])
    with bars():
        pass
    with bars(visible=False) as progress:
        progress("training", 1, 1)
    assert capsys.readouterr().err == ""


def _names(command, name: tuple[str, ...] = ()):
    yield name
    for word, below in getattr(command, "commands", {}).items():
        yield from _names(below, (*name, word))


@pytest.mark.parametrize("words", list(_names(get_command(app))), ids=" ".join)
def test_help_shows_switches_as_switches(words: tuple[str, ...]) -> None:
    shown = CliRunner().invoke(app, [*words, "--help"], env={"COLUMNS": "160"})
    assert shown.exit_code == 0 and "--help" in shown.stdout and not re.search("bool", shown.stdout, re.IGNORECASE)


def test_verbs_are_listed_in_the_order_of_use() -> None:
    text = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "160"}).stdout
    listed = [line.split()[1] for line in text[text.index("Commands") :].splitlines() if re.match(r"│ \w", line)]
    assert listed == "demo gallery convert doctor map eval localize audit export weights".split()


@pytest.mark.parametrize("words", [[], ["map"], ["audit"]])
def test_what_a_verb_does_is_not_broken_where_its_docstring_is(words: list[str]) -> None:
    text = CliRunner().invoke(app, [*words, "--help"], env={"COLUMNS": "300"}).stdout
    listed = [line for line in text[text.index("─ Commands") :].splitlines() if line.startswith("│")]
    assert listed and all(re.match(r"│ \w", line) for line in listed), text


def test_a_misspelt_verb_of_map_is_corrected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    wrong = CliRunner().invoke(app, ["map", "ino", "x"], env={"COLUMNS": "160"})
    assert wrong.exit_code == 2 and "did you mean 'info'" in wrong.stderr
    Path("ino").mkdir()  # now it is a recording, if a bad one
    given = CliRunner().invoke(app, ["map", "ino", "-o", "a.dimm"])
    assert given.exit_code == 1 and "'ino' is empty" in given.stderr


def test_a_plan_tells_the_time_left_of_all_stages() -> None:
    """This machine takes three times as long as the one that the weights are of; one stage had its result already."""
    plan, clock = StagePlan({"keypoints": 10.0, "depth": 7.0, "features": 20.0, "training": 30.0}), 100.0
    assert plan.seconds_left("keypoints", 0, 10, clock) is None  # nothing is known yet
    for done in range(1, 11):
        clock += 3.0
        left = plan.seconds_left("keypoints", done, 10, clock)
    assert left == pytest.approx(3 * 57)
    plan.seconds_left("features", 0, 40, clock)
    assert plan.seconds_left("features", 20, 40, clock + 30.0) == pytest.approx(3 * (10 + 30))
    assert plan.seconds_left("features", 40, 40, clock + 60.0) == pytest.approx(90)
    assert plan.seconds_left("another", 1, 2, clock) is None


def test_a_plan_knows_what_an_earlier_run_has_done() -> None:
    plan = StagePlan({"features": 20.0, "training": 30.0})
    plan.seconds_left("features", 30, 40, 0.0)  # gone on with
    assert plan.seconds_left("features", 35, 40, 5.0) == pytest.approx(5 + 30 * 2)
    plan.seconds_left("training", 0, 10, 10.0)
    assert plan.seconds_left("training", 10, 10, 50.0) == 0


def test_a_planned_stage_says_how_long_all_take(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    now = [0.0]
    monkeypatch.setattr("dimm_ros.cli.console.time.monotonic", lambda: now[0])
    shown = Bars(visible=True)
    shown.plan({"features": 100.0, "training": 400.0})
    for done in range(0, 11):
        shown("features", done, 10)
        now[0] += 20.0
    lines = capsys.readouterr().err.splitlines()
    assert lines[4] == "features: 50 % (5 of 10), 100 s left, of all 15 min left"
    assert lines[-1] == "features: 100 % (10 of 10), of all 13 min left"
