"""Maps on disk: unfinished ones look unfinished, finished ones are not replaced without being asked for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from dimm_ros.cli.main import app
from dimm_ros.cli.options import check_new_map
from dimm_ros.errors import MapError
from dimm_ros.mapping.merge import merge_maps
from dimm_ros.scene_map import SceneMap


def dimm(*words: object) -> Result:
    return CliRunner().invoke(app, ["map", *map(str, words)], env={"COLUMNS": "200"})


@pytest.fixture
def stopped(small_map: Path, tmp_path: Path) -> Path:
    """A map as it is after Ctrl-C at step 38 of 300."""
    scene_map = SceneMap.load(small_map)
    training = scene_map.header.training.changed(steps=300)
    scene_map.header = scene_map.header.model_copy(
        update={"training": training, "figures": scene_map.header.figures | {"steps": 38.0}}
    )
    scene_map.save(tmp_path / "stopped.dimm")
    return tmp_path / "stopped.dimm"


def test_info_tells_a_stopped_map_from_a_finished_one(small_map: Path, stopped: Path, tmp_path: Path) -> None:
    assert "UNFINISHED: stopped at step 38 of 300" in dimm("info", stopped).stdout
    told = json.loads(dimm("info", stopped, "--json").stdout)
    assert (told["complete"], told["steps"], told["steps_wanted"]) == (False, 38, 300)
    done = dimm("info", small_map)
    assert "complete: 400 steps" in done.stdout and "UNFINISHED" not in done.stdout
    merged = merge_maps([small_map, small_map], tmp_path / "both.dimm")
    told = json.loads(dimm("info", merged, "--json").stdout)
    assert (told["complete"], told["steps"], told["steps_wanted"]) == (True, None, None) and "complete:" not in dimm(
        "info", merged
    ).stdout


def test_a_finished_map_is_replaced_only_when_asked(small_map: Path, walk: Path, tmp_path: Path) -> None:
    maps = {name: tmp_path / name for name in ("finished.dimm", "merged.dimm", "notes.txt")}
    maps["finished.dimm"].write_bytes(small_map.read_bytes())
    merge_maps([small_map, small_map], maps["merged.dimm"])
    maps["notes.txt"].write_text("no map")
    for path in maps.values():
        before = path.read_bytes()
        for words in (
            (walk, "-o", path, "--steps", 2, "--passes", 1),
            ("merge", small_map, small_map, "-o", path),
            ("update", small_map, walk, "-o", path),
        ):
            refused = dimm(*words)
            assert (
                refused.exit_code == 1
                and f"{path} exists already" in refused.stderr
                and "--overwrite" in refused.stderr
            ), refused.output
            assert path.read_bytes() == before and not path.with_name(path.name + ".work").exists()
    done = dimm("merge", small_map, small_map, "-o", maps["notes.txt"], "--overwrite")
    assert done.exit_code == 0 and len(SceneMap.load(maps["notes.txt"]).header.parts) == 2, done.output


@pytest.mark.long
def test_a_map_made_anew_with_overwrite(small_map: Path, walk: Path, tmp_path: Path) -> None:
    path = tmp_path / "room.dimm"
    path.write_bytes(small_map.read_bytes())
    done = dimm(walk, "-o", path, "--preset", "demo", "--steps", 2, "--passes", 1, "--input-size", 112, "--overwrite")
    assert done.exit_code == 0 and SceneMap.load(path).header.steps_done == 2, done.output


def test_no_verb_alters_a_map_unasked(small_map: Path, stopped: Path, other_walk: Path, tmp_path: Path) -> None:
    """Neither in place nor as another verb's output; a stopped one neither, unless it is gone on with."""
    path = tmp_path / "room.dimm"
    path.write_bytes(small_map.read_bytes())
    before, unfinished = path.read_bytes(), stopped.read_bytes()
    for words in (("update", path, other_walk), ("update", path, other_walk, "-o", path)):
        refused = dimm(*words)
        assert refused.exit_code == 1, refused.output
        assert f"{path} would be replaced by the updated map; name a new file with -o" in refused.stderr
    for words in (("merge", path, path, "-o", stopped), ("update", path, other_walk, "-o", stopped)):
        refused = dimm(*words)
        assert refused.exit_code == 1 and "is an unfinished map" in refused.stderr, refused.output
    assert path.read_bytes() == before and stopped.read_bytes() == unfinished
    done = dimm("update", path, other_walk, "--overwrite", "--steps", 2, "--passes", 1)
    assert done.exit_code == 0 and len(SceneMap.load(path).header.sources) == 2, done.output


def test_a_stopped_map_is_gone_on_with(stopped: Path, small_map: Path, tmp_path: Path) -> None:
    check_new_map(stopped, overwrite=False, goes_on=True)
    check_new_map(tmp_path / "new.dimm", overwrite=False)
    with pytest.raises(MapError, match="is a finished map"):
        check_new_map(small_map, overwrite=False)
