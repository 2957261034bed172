"""The sample's recipe, small: a map that answers on the bag beside it, a README whose commands fit what is there."""

from __future__ import annotations

import re
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from rosbags.highlevel import AnyReader

import dimm_ros.replay.sample as module
from dimm_ros.config import PRESETS, HeadConfig, LandmarkConfig, TrainingConfig
from dimm_ros.data.open import open_recording
from dimm_ros.encoder.dinov2 import Encoder
from dimm_ros.errors import DataError
from dimm_ros.geometry.camera import Camera
from dimm_ros.replay.sample import BAG, MAP, PARAMETERS, README, TRUTH_TOPIC, SampleSize, write_sample
from dimm_ros.scene_map import SceneMap

ROOT = Path(__file__).resolve().parents[2]
TINY = SampleSize(
    PRESETS["demo"].model_copy(
        update={
            "head": HeadConfig(mappers=2, width=96, depth=1),
            "training": TrainingConfig(steps=150, batch=512, passes=1),
            "landmarks": LandmarkConfig(images=40),
        }
    ),
    mapping_seconds=4.0,
    seconds=2.0,
    rate=6.0,
    camera=Camera(224, 168, 150.0, 150.0, 111.5, 83.5),
)


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory, encoder: Encoder) -> Iterator[Path]:
    """Stopped during the training once, and gone on with; of one walk, whose beginning is the bag: so few seconds of
    two walks are of different places."""
    folder = tmp_path_factory.mktemp("release") / "sample"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_WALK_SEED", module._MAPPING_SEED)
        assert write_sample(folder, encoder, lambda stage, done, *_: stage == "training" and done == 20, TINY) is None
        assert not folder.exists()
        films = []
        archive = write_sample(folder, encoder, lambda stage, *_: films.append(stage.endswith("bag")) or False, TINY)
    assert archive == folder.parent / "sample.tar.gz" and not any(films)  # the bags were there
    yield folder


@pytest.mark.parametrize("asked_in", ["mapping bag", "walk bag"])
def test_a_stage_that_is_asked_to_stop_is_the_last(
    asked_in: str, tmp_path: Path, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages = []

    def record(path: Path, *args: object, **how: object) -> None:
        path.mkdir(parents=True)
        args[3](path.name.replace("_", " "), 1, 1, "")

    monkeypatch.setattr(module, "record_walk", record)
    progress = lambda stage, *_: stages.append(stage) or stage == asked_in  # noqa: E731
    assert write_sample(tmp_path / "sample", encoder, progress, TINY) is None
    assert stages[-1] == asked_in and not (tmp_path / "sample").exists()


def test_a_sample_is_not_given_away_when_its_check_is_asked_to_stop(
    sample: Path, encoder: Encoder, tmp_path: Path
) -> None:
    work = tmp_path / "sample.work"
    (work / "mapping_bag").mkdir(parents=True)
    shutil.copytree(sample / BAG, work / BAG)
    shutil.copy(sample / MAP, work)
    assert write_sample(tmp_path / "sample", encoder, lambda stage, *_: stage == "checking", TINY) is None
    assert {path.name for path in tmp_path.iterdir()} == {"sample.work"}


def test_everything_is_there_and_in_the_archive(sample: Path) -> None:
    assert {path.name for path in sample.iterdir()} == {MAP, BAG, PARAMETERS, README}
    assert {path.name for path in sample.parent.iterdir()} == {"sample", "sample.tar.gz"}  # nothing is left of the work
    with tarfile.open(sample.parent / "sample.tar.gz") as archive:
        packed = {name.removeprefix("sample/") for name in archive.getnames() if name != "sample"}
    assert packed == {str(path.relative_to(sample)) for path in sample.rglob("*")}
    header = SceneMap.load(sample / MAP).header
    assert header.name == "gallery" and header.complete and header.sources[0].licence == "CC0-1.0"


def test_the_bag_leaves_map_to_odom_to_the_localizer(sample: Path) -> None:
    """And has the truth on a topic of its own, for 'dimm eval'."""
    links = set()
    with AnyReader([sample / BAG]) as bag:
        for connection, _, raw in bag.messages([one for one in bag.connections if one.topic in ("/tf", "/tf_static")]):
            for transform in bag.deserialize(raw, connection.msgtype).transforms:
                links.add((transform.header.frame_id, transform.child_frame_id))
    assert links == {("odom", "base_link"), ("base_link", "camera_optical_frame")}
    recording = open_recording(sample / BAG, pose_topic=TRUTH_TOPIC)
    assert recording.frame_id == SceneMap.load(sample / MAP).header.frame_id and len(recording.frames) == 13


def test_the_readmes_commands_fit_what_is_there(sample: Path) -> None:
    text = (sample / README).read_text().replace("\\\n", " ")
    (launch,) = re.findall(r"^ros2 launch dimm_ros (\S+) (.*)$", text, re.MULTILINE)
    given = dict(word.split(":=") for word in launch[1].split())
    source = (ROOT / "launch" / launch[0]).read_text()
    assert all(f'"{name}"' in source for name in given)
    for name in ("map", "params_file"):
        assert (sample / given[name].removeprefix("$PWD/")).is_file()
    with AnyReader([sample / BAG]) as bag:
        assert {given["image"], given["camera_info"]} <= {one.topic for one in bag.connections}
    parameters = yaml.safe_load((sample / PARAMETERS).read_text())["/**"]["ros__parameters"]
    assert parameters["image_transport"] == "compressed" and f"ros2 bag play {BAG} --clock" in text
    assert re.search(r"answered (\d+) of \d+ images", text)


def test_other_folders_are_left_alone(tmp_path: Path, encoder: Encoder) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match="exists and is no sample"):
        write_sample(tmp_path, encoder, lambda *_: False, TINY)


def test_a_map_that_answers_nothing_is_not_given_away(
    sample: Path, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "summarise", lambda _: {"answered": 1, "frames": 10})
    with pytest.raises(DataError, match="answers only 1 of 10 images of its walk"):
        module._check(sample / MAP, sample / BAG, encoder, lambda *_: False)
