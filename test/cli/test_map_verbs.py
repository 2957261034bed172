"""dimm map and its sub-verbs as scripts use them; the first word that is no verb is the recording."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dimm_ros.cli.main import app
from dimm_ros.mapping.rehearse import features_path
from dimm_ros.scene_map import SceneMap


def dimm(*words: object):
    return CliRunner().invoke(app, ["map", *map(str, words)], env={"COLUMNS": "200"})


@pytest.mark.long
def test_a_recording_is_mapped_with_and_without_the_verb(
    walk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("info").symlink_to(walk)
    short = ("--preset", "demo", "--steps", "2", "--passes", "1", "--input-size", "112")
    made = dimm(walk, "-o", "a.dimm", *short, "--licence", "CC-BY-4.0", "--name", "room", "--keep-features")
    assert made.exit_code == 0, made.stderr
    header = SceneMap.load("a.dimm").header
    assert (
        header.name == "room" and header.sources[0].licence == "CC-BY-4.0" and features_path(Path("a.dimm")).is_file()
    )
    made = dimm("-o", "b.dimm", *short, "./info")  # options first, and a folder called as a verb
    assert made.exit_code == 0 and SceneMap.load("b.dimm").header.sources[0].frames == 24, made.stderr
    assert not features_path(Path("b.dimm")).exists()
    for words in (("info", "-o", "c.dimm"), ("-o", "c.dimm"), (walk,), ("new", walk)):
        assert dimm(*words).exit_code == 2


def test_help_tells_of_both(walk: Path) -> None:
    text = " ".join(dimm("--help").stdout.split())
    for words in (
        "Train a map from a recording",
        "--keep-features",
        "dimm map tour_bag -o office.dimm",
        "info",
        "report",
        "update",
        "merge",
    ):
        assert words in text
    assert "--as-json" not in text and "dimm map new [OPTIONS]" not in text


def test_info_report_update_and_merge(small_map: Path, other_walk: Path, tmp_path: Path) -> None:
    path = shutil.copy(small_map, tmp_path / "room.dimm")
    told = dimm("info", path)
    assert told.exit_code == 0 and "24 images" in told.stdout and "licence: not said" in told.stdout
    assert json.loads(dimm("info", path, "--json").stdout)["images"] == 24
    drawn = dimm("report", path, "--json")
    assert (
        drawn.exit_code == 0
        and json.loads(drawn.stdout)["report"] == str(tmp_path / "room.dimm.html")
        and (tmp_path / "room.dimm.html").is_file()
    )
    old = path.read_bytes()
    made = dimm("update", path, other_walk, "-o", tmp_path / "new.dimm", "--steps", "3", "--licence", "mine", "--json")
    assert made.exit_code == 0, made.stderr
    assert json.loads(made.stdout)["images"] == 10 and path.read_bytes() == old
    assert [source.licence for source in SceneMap.load(tmp_path / "new.dimm").header.sources] == [None, "mine"]
    merged = dimm("merge", path, tmp_path / "new.dimm", "-o", tmp_path / "both.dimm", "--name", "house")
    assert merged.exit_code == 0 and "merged from 2" in merged.stdout
    assert SceneMap.load(tmp_path / "both.dimm").header.name == "house"
    assert "merged from" in dimm("info", tmp_path / "both.dimm").stdout
