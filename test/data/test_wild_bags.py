"""Bags as they are found, with what their writers left out, mixed up or named otherwise: the right values."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from bag_messages import START, STORE, BagContent, T, camera_info, compressed, header, image, tf, transform
from layouts import write
from mcap_bytes import write_mcap

from dimm_ros.data.bag import read_bag
from dimm_ros.data.bag_file import Bag
from dimm_ros.data.open import open_recording
from dimm_ros.data.record import record_frames
from dimm_ros.doctor.bag import check_bag
from dimm_ros.errors import DataError

WHOLE = 100.2 + np.array([0, 0.1, 0.19, 0.3, 0.4])  # x of the camera in the drive


def ns(seconds: float) -> int:
    return START + round(seconds * 1e9)


def camera_x(recording) -> np.ndarray:
    return recording.poses()[:, 0, 3]


def assert_whole(path: Path, notes: tuple[str, ...] = ()) -> None:
    """The drive, all of it: poses, cameras and pixels."""
    recording = open_recording(path)
    np.testing.assert_allclose(camera_x(recording), WHOLE, atol=1e-9)
    assert [int(frame.load().mean()) for frame in recording.frames] == [0, 10, 20, 30, 40]
    assert {frame.camera.fx for frame in recording.frames} == {30}
    assert recording.notes == notes


def picture(value: int = 0) -> np.ndarray:
    return np.full((24, 32, 3), value, np.uint8)


def renamed(bag: BagContent, old: str, new: str) -> BagContent:
    return BagContent([(stamp, new if topic == old else topic, message) for stamp, topic, message in bag.messages])


# The lens of rectified images


def with_projection(drive: BagContent, topic: str, **changes) -> BagContent:
    """The drive's images on another topic, and a camera_info whose P differs from K."""
    bag = renamed(drive.without("/camera/camera_info"), "/camera/image_raw", topic)
    p = np.array([27.0, 0, 15, 0, 0, 28, 11, 0, 0, 0, 1, 0])
    bag.add(ns(0), "/camera/camera_info", camera_info(ns(0), **{"d": (-0.3, 0.1, 0, 0, 0), "p": p, **changes}))
    return bag


@pytest.mark.parametrize("topic", ["/camera/image_rect", "/camera/image_rect_color", "/camera/undistorted"])
@pytest.mark.parametrize("ros1", [False, True])
def test_rectified_images_have_the_lens_of_p(drive, tmp_path, topic, ros1):
    bag = with_projection(drive, topic)
    recording = read_bag(bag.write_ros1(tmp_path / "b.bag") if ros1 else bag.write(tmp_path / "b"))
    camera = recording.frames[0].camera
    assert (camera.fx, camera.fy, camera.cx, camera.cy, camera.distortion) == (27, 28, 15, 11, ())
    assert recording.notes == (
        "The lens is P of /camera/camera_info without distortion, since the images are rectified, by their topic's "
        "name.",
    )
    written = open_recording(record_frames(tmp_path / "written", recording.frames, lossless=True))
    assert written.frames[0].camera == camera and written.notes == ()


def test_raw_images_keep_the_raw_lens(drive, tmp_path):
    recording = read_bag(with_projection(drive, "/camera/image_raw").write(tmp_path / "b"))
    assert recording.frames[0].camera.fx == 30 and recording.frames[0].camera.distortion[0] == -0.3
    assert recording.notes == ()


def test_p_serves_where_k_is_empty(drive, tmp_path):
    recording = read_bag(with_projection(drive, "/camera/image_raw", k=np.zeros(9)).write(tmp_path / "b"))
    assert (recording.frames[0].camera.fx, recording.frames[0].camera.distortion) == (27, ())
    assert recording.notes == ("The lens is P of /camera/camera_info without distortion, since K is empty.",)


def test_rectified_images_without_p_are_named(drive, tmp_path):
    recording = read_bag(with_projection(drive, "/camera/image_rect", p=np.zeros(12)).write(tmp_path / "b"))
    assert recording.frames[0].camera.fx == 30
    assert "P of /camera/camera_info is empty: K and D are taken" in recording.notes[0]


# One of several candidates


def two_robots(drive: BagContent, image_topic: str) -> BagContent:
    """The drive as robot1's; robot2, of the same frame names, is 3.5 m farther on."""
    bag = BagContent()
    for stamp, topic, message in drive.messages:
        if topic in ("/tf", "/tf_static"):
            moved = [
                transform(
                    stamp,
                    one.header.frame_id,
                    one.child_frame_id,
                    (one.transform.translation.x + 3.5 * (one.child_frame_id == "odom"), 0, 0),
                )
                for one in message.transforms
            ]
            bag.add(stamp, f"/robot2{topic}", tf(*moved))
            bag.add(stamp, f"/robot1{topic}", message)
        else:
            bag.add(stamp, topic.replace("/camera", image_topic), message)
    return bag


@pytest.mark.parametrize(("robot", "ahead"), [("/robot1", 0.0), ("/robot2", 3.5)])
def test_the_namespace_of_the_images_decides_between_robots(drive, tmp_path, robot, ahead):
    recording = read_bag(two_robots(drive, f"{robot}/camera").write(tmp_path / "b"))
    np.testing.assert_allclose(camera_x(recording), WHOLE + ahead, atol=1e-9)
    assert recording.notes == ()


def test_robots_that_nothing_tells_apart(drive, tmp_path):
    with pytest.raises(
        DataError,
        match="Frame 'optical' comes on /robot1/tf_static and /robot2/tf_static, and the images are in neither's",
    ):
        read_bag(two_robots(drive, "/camera").write(tmp_path / "b"))


def test_transforms_of_several_namespaces_join_where_their_frames_differ(drive, tmp_path):
    assert_whole(renamed(drive, "/tf_static", "/camera_driver/tf_static").write(tmp_path / "b"))


def test_a_static_transform_of_two_values_is_named(drive, tmp_path):
    drive.add(
        ns(0.2),
        "/tf_static",
        tf(
            transform(ns(0.2), "base_link", "optical", (0.9, 0, 0)), transform(ns(0.2), "base_link", "wheel", (1, 0, 0))
        ),
    )
    drive.add(
        ns(0.3),
        "/tf_static",
        tf(
            transform(ns(0.3), "base_link", "optical", (0.9, 0, 0)), transform(ns(0.2), "base_link", "wheel", (2, 0, 0))
        ),
    )
    recording = read_bag(drive.write(tmp_path / "b"))
    np.testing.assert_allclose(camera_x(recording), WHOLE + 0.7, atol=1e-9)
    (note,) = recording.notes  # the wheel's does not matter
    assert note.startswith(
        "The static transform of 'optical' was recorded with 2 values ('base_link' at (0.2, 0, 0) m, 'base_link' at "
        "(0.9, 0, 0) m); the last"
    )


@pytest.mark.parametrize(("raw", "packed"), [(2, 5), (5, 5), (5, 2)])
def test_the_fuller_of_a_raw_topic_and_its_compressed_twin(drive, tmp_path, raw, packed):
    expected = "/camera/image_raw/compressed" if packed > raw else "/camera/image_raw"
    bag = drive.without("/camera/image_raw")
    for k in range(raw):
        bag.add(ns(0.1 * k), "/camera/image_raw", image(ns(0.1 * k), picture()))
    for k in range(packed):
        bag.add(ns(0.1 * k), "/camera/image_raw/compressed", compressed(ns(0.1 * k), picture()))
    recording = read_bag(bag.write(tmp_path / "b"))
    assert len(recording.frames) == 5 and recording.source.endswith(f"topic {expected}")


# Stamps


@pytest.mark.parametrize(("stamp_of", "left"), [(lambda k: k // 10, 3), (lambda k: 0.2 * (k // 2), 15)])
def test_stamps_that_repeat_are_counted_and_named(drive, tmp_path, stamp_of, left):
    bag = BagContent()
    bag.add(ns(0), "/tf_static", tf(transform(ns(0), "map", "optical", (1, 2, 3))))
    bag.add(ns(0), "/camera/camera_info", camera_info(ns(0)))
    for k in range(30):
        bag.add(ns(0.1 * k), "/camera/image_raw", image(ns(stamp_of(k)), picture(k)))
    path = bag.write(tmp_path / "b")
    recording = read_bag(path)
    assert len(recording.frames) == left
    assert recording.notes == (
        f"{30 - left} of 30 images of /camera/image_raw have the stamp of another one and were left out, the first at "
        "1700000000.000000000 s; "
        "let the driver stamp each image with its own time, and record no looped replay.",
    )
    (finding,) = (finding for finding in check_bag(path) if finding.check == "stamps of the images")
    assert finding.figures == {"repeated": 30 - left}


def two_runs(drive: BagContent, again: float, first: int = 5, second: int = 4) -> BagContent:
    """The drive's first images, and a second run elsewhere, whose stamps begin anew; recorded one after the other."""
    bag = BagContent([entry for entry in drive.messages if entry[1] == "/tf_static"])
    for run, (count, x) in enumerate(((first, 100), (second, -50))):
        begin = 100 * run
        for step in range(2 * count + 1):
            stamp = ns(again * run + step * 0.05)
            links = (
                transform(stamp, "map", "odom", (x, 0, 0)),
                transform(stamp, "odom", "base_link", (step * 0.05, 0, 0)),
            )
            bag.add(ns(begin + step * 0.05), "/tf", tf(*links))
        for k in range(count):
            stamp = ns(again * run + 0.1 * k)
            bag.add(ns(begin + 0.1 * k + 0.01), "/camera/image_raw", image(stamp, picture(10 * k + 100 * run)))
            bag.add(ns(begin + 0.1 * k), "/camera/camera_info", camera_info(stamp, focal=30.0 + run))
    return bag


@pytest.mark.parametrize("again", [-20.0, -0.65, 0.0])
@pytest.mark.parametrize(("first", "second", "x", "value"), [(12, 4, 100.2, 0), (12, 13, -49.8, 100)])
def test_runs_of_one_bag_are_not_mixed(drive, tmp_path, again, first, second, x, value):
    """Only the longer run, with its own poses, pixels and lens; stamps overlap, or lie before the first run's."""
    recording = read_bag(two_runs(drive, again, first, second).write(tmp_path / "b"))
    count = max(first, second)
    np.testing.assert_allclose(camera_x(recording), x + 0.1 * np.arange(count), atol=1e-9)
    assert [int(frame.load().mean()) for frame in recording.frames] == [value + 10 * k for k in range(count)]
    assert {frame.camera.fx for frame in recording.frames} == {30 + value // 100}
    (note,) = recording.notes
    assert note.startswith("The stamps of /camera/image_raw go back 1 time, first by ")
    assert f"only the longest stretch, {count} of {first + second} images, was read" in note


@pytest.mark.parametrize("wrong", [-START / 1e9, 60.0])
def test_one_wrong_stamp_is_no_new_run(drive, tmp_path, wrong):
    """A stamp of zero, or one a minute ahead, costs its own image only."""
    drive.add(ns(0.25), "/camera/image_raw", image(ns(wrong), picture(99)))
    recording = read_bag(drive.write(tmp_path / "b"))
    np.testing.assert_allclose(camera_x(recording), WHOLE, atol=1e-9)
    assert len(recording.notes) == 1 and recording.notes[0].startswith("1 of 6 images have no pose at their stamp")


# Files


@pytest.mark.parametrize("name", ["a#b", "a?b", "a%25b", "a b&c=d"])
@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_any_character_in_a_path(drive, tmp_path, name, storage):
    folder = drive.write(tmp_path / "plain", storage)
    file = next(path for path in folder.iterdir() if path.suffix != ".yaml")
    file.rename(folder / f"{name}{file.suffix}")
    folder.rename(tmp_path / name)
    assert_whole(tmp_path / name)


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
@pytest.mark.parametrize("name", ["a#b", "a?b", "a%25b"])
def test_any_character_in_the_path_of_a_bag_that_is_written(drive, tmp_path, name, storage):
    """What rosbags cannot write under such a name is refused, not written elsewhere."""
    frames = read_bag(drive.write(tmp_path / "b")).frames
    (tmp_path / "out").mkdir()
    if storage == "mcap":
        assert len(open_recording(record_frames(tmp_path / "out" / name, frames)).frames) == 5
    else:
        with pytest.raises(
            DataError, match="cannot be written as sqlite3 under a path with #, . or %; store it as mcap"
        ):
            record_frames(tmp_path / "out" / name, frames, storage=storage)
        assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("mode", ["WAL", "DELETE"])
def test_an_sqlite_file_that_its_recorder_did_not_close(drive, tmp_path, mode):
    """What is in the log belongs to the bag (WAL), or is to be undone (a rollback journal); the user's files stay."""
    folder = drive.write(tmp_path / "b", "sqlite3")
    base = folder / "b.db3"
    writer = sqlite3.connect(base, isolation_level=None)
    writer.execute(f"PRAGMA journal_mode={mode}")
    writer.execute("PRAGMA wal_autocheckpoint=0")
    rows = writer.execute("SELECT topic_id, timestamp, data FROM messages").fetchall()
    if mode == "WAL":
        writer.execute("DELETE FROM messages WHERE timestamp > ?", (ns(0.15),))
        writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        writer.executemany(
            "INSERT INTO messages (topic_id, timestamp, data) VALUES (?, ?, ?)",
            [row for row in rows if row[1] > ns(0.15)],
        )
    else:
        writer.execute("PRAGMA cache_size=1")  # so that changes reach the file before the commit
        writer.execute("BEGIN")
        writer.execute("DELETE FROM messages")
        writer.executemany(
            "INSERT INTO messages (topic_id, timestamp, data) VALUES (?, ?, ?)",
            [(*row[:2], bytes(9999)) for row in rows],
        )
    left = tmp_path / "left"
    shutil.copytree(folder, left)  # as a recorder that was killed leaves it
    writer.close()
    before = {path.name: path.read_bytes() for path in left.iterdir()}
    assert any(name.endswith(("-wal", "-journal")) and data for name, data in before.items())
    assert_whole(left)
    assert {path.name: path.read_bytes() for path in left.iterdir()} == before


def damage_metadata(folder: Path, how: str) -> None:
    path = folder / "metadata.yaml"
    text = path.read_text()
    about = yaml.safe_load(text)
    top = about["rosbag2_bagfile_information"]
    if how == "empty":
        text = ""
    elif how == "cut":
        text = text[: len(text) // 2] + "\n  - [unfinished"
    elif how == "no storage":
        top["storage_identifier"] = ""
    elif how == "other QoS":
        for topic in top["topics_with_message_count"]:
            topic["topic_metadata"]["offered_qos_profiles"] = [
                {
                    "history": "keep_all",
                    "depth": 7,
                    "reliability": "reliable",
                    "durability": "volatile",
                    "deadline": {"sec": 1, "nsec": 2},
                    "lifespan": {"sec": 1, "nsec": 2},
                    "liveliness": "automatic",
                    "liveliness_lease_duration": {"sec": 1, "nsec": 2},
                    "avoid_ros_namespace_conventions": False,
                }
            ]
    elif how == "renamed":
        top["relative_file_paths"] = ["before.mcap"]
    elif how == "no counts":
        top["topics_with_message_count"], top["message_count"] = [], 0
    if how in ("empty", "cut"):
        path.write_text(text)
    else:
        path.write_text(yaml.safe_dump(about))


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
@pytest.mark.parametrize("how", ["empty", "cut", "no storage", "other QoS", "renamed", "no counts"])
def test_files_tell_what_is_in_them_whatever_metadata_says(drive, tmp_path, storage, how):
    folder = drive.write(tmp_path / "b", storage)
    damage_metadata(folder, how)
    assert_whole(folder)


def test_the_kind_of_a_file_is_told_by_its_content(drive, tmp_path):
    old = drive.write_ros1(tmp_path / "old.bag")
    new, base = drive.write(tmp_path / "new") / "new.mcap", drive.write(tmp_path / "s", "sqlite3") / "s.db3"
    for source, name in ((old, "ros1.mcap"), (old, "ros1.db3"), (new, "mcap.bag"), (base, "sqlite.mcap")):
        assert_whole(Path(shutil.copy(source, tmp_path / name)))
    with pytest.raises(DataError, match="Bag 'ros1.mcap' is of ROS 1; make a ROS 2 bag of it"):
        Bag(tmp_path / "ros1.mcap")


def packed(path: Path) -> Path:
    from dimm_ros.data.bag_open import zstd

    target = path.with_name(path.name + ".zstd")
    target.write_bytes(zstd.compress(path.read_bytes()))
    path.unlink()
    return target


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_packed_files(drive, tmp_path, storage):
    folder = drive.write(tmp_path / "b", storage)
    file = packed(next(path for path in folder.iterdir() if path.suffix != ".yaml"))
    assert_whole(folder)  # metadata.yaml lists the file by another name
    assert_whole(file)
    (folder / "metadata.yaml").unlink()
    assert_whole(folder)
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(DataError, match="its compressed file is damaged or cut off, copy it again"):
        open_recording(file)


def test_messages_packed_one_by_one(drive, tmp_path):
    from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer

    writer = Writer(tmp_path / "b", version=9, storage_plugin=StoragePlugin.SQLITE3)
    writer.set_compression(CompressionMode.MESSAGE, CompressionFormat.ZSTD)
    with writer:
        connections = {}
        for stamp, topic, message in sorted(drive.messages, key=lambda entry: entry[0]):
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, message.__msgtype__, typestore=STORE)
            writer.write(connections[topic], stamp, STORE.serialize_cdr(message, message.__msgtype__))
    assert_whole(tmp_path / "b")


@pytest.mark.parametrize(
    "form",
    [
        {},
        {"message_index": False},
        {"summary": False},
        {"chunked": False},
        {"chunked": False, "summary": False},
        {"profile": ""},
    ],
)
def test_mcap_files_that_lack_parts(drive, tmp_path, form):
    assert_whole(write_mcap(tmp_path / "b.mcap", drive, **form))


def test_messages_out_of_order_in_an_mcap_file_without_chunks(drive, tmp_path):
    """Topic by topic, images last and backwards."""
    drive.messages.sort(key=lambda entry: (entry[1] == "/camera/image_raw", -entry[0]))
    assert_whole(write_mcap(tmp_path / "b.mcap", drive, chunked=False, summary=False, by_time=False))


@pytest.mark.parametrize("form", [{"chunked": False}, {}])
def test_images_of_an_mcap_file_are_read_once(drive, tmp_path, monkeypatch, form):
    """Bytes read grow with the file, not with its square, also where it has no chunks and so no index."""
    read = os.pread
    taken = []

    def counted(handle: int, size: int, offset: int) -> bytes:
        taken.append(size)
        return read(handle, size, offset)

    monkeypatch.setattr(os, "pread", counted)
    bag = BagContent([entry for entry in drive.messages if entry[1] == "/tf_static"])
    bag.add(ns(0), "/tf_static", tf(transform(ns(0), "map", "base_link", (0, 0, 0))))
    for k in range(60):
        bag.add(ns(0.1 * k), "/camera/image_raw", image(ns(0.1 * k), picture(k)))
        bag.add(ns(0.1 * k), "/camera/camera_info", camera_info(ns(0.1 * k)))
    path = write_mcap(tmp_path / "b.mcap", bag, **form)
    frames = read_bag(path).frames
    assert sum(taken) < 6 * path.stat().st_size  # once for each of four kinds of topic, and the scan
    taken.clear()
    assert [int(frame.load()[0, 0, 0]) for frame in frames] == list(range(60))
    assert sum(taken) < 1.1 * path.stat().st_size


def test_a_size_that_the_file_lacks_is_not_believed(drive, tmp_path, monkeypatch):
    """An index that promises a chunk of a terabyte: nothing of that size is made."""
    path = write_mcap(tmp_path / "b.mcap", drive)
    data = bytearray(path.read_bytes())
    place = data.rindex(struct.pack("<Q", 8 + 9 + 16))  # where the first chunk begins, after the magic and the header
    data[place + 8 : place + 16] = struct.pack("<Q", 2**40)
    path.write_bytes(bytes(data))
    read = os.pread
    monkeypatch.setattr(
        os, "pread", lambda *where: read(*where) if where[1] <= len(data) else pytest.fail("it was believed")
    )
    with pytest.raises(
        DataError, match="a record of 1099511627767 bytes at byte 42 reaches beyond the end.*'mcap recover'"
    ):
        read_bag(path)


@pytest.mark.parametrize("begin", range(2))
def test_parts_of_a_recording_without_metadata(drive, tmp_path, begin):
    """Numbered parts are one recording, in ROS 2 and in ROS 1, whose names also hold when each part began."""
    drive.messages.sort(key=lambda entry: entry[0])
    middle = len(drive.messages) // 2
    halves = [BagContent(drive.messages[:middle]), BagContent(drive.messages[middle:])]
    place = tmp_path / "parts"
    place.mkdir()
    for number, half in enumerate(halves):
        if begin:
            half.write_ros1(place / f"drive_2024-01-15-10-3{number}-00_{number}.bag")
        else:
            shutil.copy(half.write(tmp_path / f"half{number}") / f"half{number}.mcap", place / f"drive_{number}.mcap")
    assert_whole(place)
    if begin:
        shutil.copy(place / "drive_2024-01-15-10-30-00_0.bag", place / "drive_2024-02-20-08-00-00_0.bag")
        with pytest.raises(DataError, match="holds several bags .*; give one of them"):
            open_recording(place)


def test_a_missing_part_is_named(drive, tmp_path):
    folder = drive.write(tmp_path / "b")
    about = yaml.safe_load((folder / "metadata.yaml").read_text())
    about["rosbag2_bagfile_information"]["relative_file_paths"].append("b_1.mcap")
    (folder / "metadata.yaml").write_text(yaml.safe_dump(about))
    with pytest.raises(
        DataError,
        match="Bag 'b' cannot be read: metadata.yaml lists b_1.mcap, but the folder lacks it; copy the whole folder",
    ):
        read_bag(folder)


def without_index(path: Path) -> Path:
    """A ROS 1 bag as rosbag leaves it when it is killed: the header's index_pos is 0."""
    data = path.read_bytes()
    place = data.index(b"index_pos=") + len(b"index_pos=")
    path.write_bytes(data[:place] + bytes(8) + data[place + 8 :])
    return path


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda drive, path: without_index(drive.write_ros1(path / "b.bag")),
            "not indexed.*; repair it with 'rosbag reindex' of ROS 1",
        ),
        (
            lambda drive, path: without_index(drive.write_ros1(path / "b.bag")).rename(path / "b.bag.active"),
            "repair it with 'rosbag reindex' of ROS 1",
        ),
        (
            lambda drive, path: without_index(drive.write_ros1(path / "b.bag")).rename(path / "b.mcap"),
            "repair it with 'rosbag reindex' of ROS 1",
        ),
        (lambda drive, path: cut(drive.write(path / "b") / "b.mcap", 0.6), "its end is missing.*'mcap recover'"),
        (
            lambda drive, path: cut(drive.write(path / "b", "sqlite3") / "b.db3", 0.6),
            "copy it again from where it was recorded, or rescue .*'.recover'",
        ),
        (lambda drive, path: cut(drive.write(path / "b") / "b.mcap", 0.0), "its file is empty.*record it again"),
        (
            lambda drive, path: cut(drive.write(path / "b", "sqlite3") / "b.db3", 0.0),
            "its file is empty.*record it again",
        ),
        (
            lambda drive, path: filled(path / "b.mcap", b"version https://git-lfs.github.com/spec/v1\n"),
            "its first bytes are of no MCAP",
        ),
        (lambda drive, path: other_base(path / "b.db3"), "an sqlite3 file without the tables of a bag"),
    ],
)
def test_each_damage_has_its_own_cure(drive, tmp_path, make, words):
    path = make(drive, tmp_path)
    with pytest.raises(DataError, match=words) as caught:
        open_recording(path)
    assert path.name in str(caught.value) and "\n" not in str(caught.value) and str(caught.value).endswith(".")


def cut(path: Path, share: float) -> Path:
    return filled(path, path.read_bytes()[: int(path.stat().st_size * share)])


def filled(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def other_base(path: Path) -> Path:
    with sqlite3.connect(path) as base:
        base.execute("CREATE TABLE photographs (id INTEGER)")
    base.close()
    return path


def test_damaged_mcap_files_get_one_sentence(drive, tmp_path):
    """Bytes changed at random: the right recording, or a sentence; sizes that the file lacks are never believed."""
    rng = np.random.default_rng(5)
    for form in ({}, {"chunked": False, "summary": False}, {"message_index": False}):
        path = write_mcap(tmp_path / "b.mcap", drive, **form)
        whole = path.read_bytes()
        for _ in range(60):
            data = bytearray(whole)
            for place in rng.integers(0, len(data), 3):
                data[place] = rng.integers(256)
            path.write_bytes(bytes(data))
            try:
                for frame in read_bag(path).frames:
                    frame.load()
            except DataError as error:
                assert "\n" not in str(error)


# Topics and messages that nobody needs


SERVICE = ("/get_map/_service_event", "nav_msgs/srv/GetMap_Event", "ros2msg", b"this is no definition @@ {", "cdr")
UNKNOWN = ("/secret", "secret_msgs/msg/Thing", "unknown", b"", "cdr")
PROTOBUF = ("/scene", "foxglove.SceneUpdate", "protobuf", b"\xff\xfe\x00\x80", "protobuf")
JSON = ("/note", "note", "jsonschema", b"{}", "json")
BARE = ("/bare", "", "", b"", "cdr")


@pytest.mark.parametrize(
    "others", [(SERVICE,), (UNKNOWN,), (PROTOBUF,), (JSON,), (BARE,), (SERVICE, UNKNOWN, PROTOBUF, JSON, BARE)]
)
@pytest.mark.parametrize("summary", [True, False])
def test_channels_that_nobody_needs_do_no_harm(drive, tmp_path, others, summary):
    path = write_mcap(tmp_path / "b.mcap", drive, others=others, summary=summary)
    assert_whole(path)
    for kind in Bag(path).topics.values():
        assert kind.count("/") == 2  # package, folder and name, as the player splits it


def test_definitions_that_are_unknown_or_useless(drive, tmp_path):
    assert_whole(write_mcap(tmp_path / "unknown.mcap", drive, definitions="unknown"))
    assert_whole(write_mcap(tmp_path / "short.mcap", drive, kind=lambda name: name.replace("/msg/", "/")))
    folder = drive.write(tmp_path / "b", "sqlite3")
    for change in (
        "encoding = 'unknown', encoded_message_definition = ''",
        "encoded_message_definition = 'no definition @@ {'",
    ):
        base = sqlite3.connect(folder / "b.db3")
        base.execute(f"UPDATE message_definitions SET {change}")
        base.commit()
        base.close()
        assert_whole(folder)


def test_a_bag_without_messages_of_ros(drive, tmp_path):
    path = write_mcap(tmp_path / "b.mcap", BagContent(drive.messages[:1]), others=(PROTOBUF,))
    data = path.read_bytes().replace(b"cdr", b"xml")
    path.write_bytes(data)
    with pytest.raises(
        DataError, match="Bag 'b.mcap' holds no message of ROS, only protobuf, xml; record with 'ros2 bag record'"
    ):
        read_bag(path)

    folder = drive.write(tmp_path / "s", "sqlite3")
    base = sqlite3.connect(folder / "s.db3")
    base.execute("UPDATE topics SET serialization_format = 'protobuf'")
    base.commit()
    base.close()
    with pytest.raises(DataError, match="Bag 's' holds no message of ROS, only protobuf; record"):
        read_bag(folder)


@pytest.mark.parametrize(
    "bad",
    [
        transform(START, "base_link", "wheel", (np.nan, 0, 0)),
        transform(START, "base_link", "wheel", (0, 0, 0), (0, 0, 0, 0)),
        transform(START, "base_link", "", (0, 0, 0)),
        transform(START, "wheel", "wheel", (0, 0, 0)),
        transform(START, "odom", "base_link", (0, 0, 0), (np.nan, 0, 0, 1)),
    ],
)
@pytest.mark.parametrize("topic", ["/tf", "/tf_static"])
def test_transforms_that_cannot_be_used_are_left_out_and_counted(drive, tmp_path, bad, topic):
    for stamp in (ns(0.11), ns(0.12)):
        drive.add(stamp, topic, tf(bad))
    path = drive.write(tmp_path / "b")
    np.testing.assert_allclose(camera_x(read_bag(path)), WHOLE, atol=1e-9)
    (note,) = read_bag(path).notes
    assert re.match(f"2 transforms of {topic} cannot be used and were left out, the first: .*check its publisher", note)


def test_what_was_left_out_explains_what_is_missing(drive, tmp_path):
    bag = drive.without("/tf_static")
    bag.add(ns(0), "/tf_static", tf(transform(ns(0), "base_link", "optical", (np.nan, 0, 0))))
    with pytest.raises(DataError, match="Frame 'optical' does not exist .*1 transforms of /tf_static cannot be used"):
        read_bag(bag.write(tmp_path / "b"))


@pytest.mark.parametrize(
    "changes", [{"focal": 0.0}, {"focal": np.nan}, {"width": 0, "height": 0}, {"model": "swirl", "d": (0.1,)}]
)
def test_camera_infos_without_a_camera_are_left_out_and_counted(drive, tmp_path, changes):
    for seconds in (-0.2, -0.1):
        drive.add(ns(seconds), "/camera/camera_info", camera_info(ns(seconds), **changes))
    recording = read_bag(drive.write(tmp_path / "b"))
    assert len(recording.frames) == 5 and {frame.camera.fx for frame in recording.frames} == {30}
    assert recording.notes[0].startswith(
        "2 messages of /camera/camera_info describe no camera and were left out, the first: "
    )


def test_poses_that_cannot_be_used_are_left_out_and_counted(drive, tmp_path):
    bag = drive.without("/tf")
    for seconds in (0, 0.2, 0.4):
        bag.add(ns(seconds), "/truth", transform(ns(seconds), "map", "base_link", (10 * seconds, 0, 0)))
    bag.add(ns(0.3), "/truth", transform(ns(0.3), "map", "base_link", (np.nan, 0, 0)))
    recording = read_bag(bag.write(tmp_path / "b"), pose_topic="/truth")
    np.testing.assert_allclose(camera_x(recording), 0.2 + 10 * np.array([0, 0.1, 0.19, 0.3, 0.4]), atol=1e-9)
    assert recording.notes == ("1 poses of /truth are NaN or without rotation and were left out.",)


def test_messages_that_cannot_be_decoded_are_left_out_and_counted(drive, tmp_path):
    folder = drive.write(tmp_path / "b", "sqlite3")
    base = sqlite3.connect(folder / "b.db3")
    topics = dict(base.execute("SELECT name, id FROM topics"))
    for topic in ("/tf", "/camera/camera_info", "/camera/image_raw"):
        base.execute(
            "INSERT INTO messages (topic_id, timestamp, data) VALUES (?, ?, ?)",
            (topics[topic], ns(0.21), b"\x00\x01\x00"),
        )
    base.commit()
    base.close()
    recording = read_bag(folder)
    np.testing.assert_allclose(camera_x(recording), WHOLE, atol=1e-9)
    assert sorted(recording.notes) == [
        f"1 messages of {topic} cannot be decoded and were left out."
        for topic in ("/camera/camera_info", "/camera/image_raw", "/tf")
    ]
    assert check_bag(folder)


# Images


def packed_image(stamp: int, data: bytes, format: str = "jpeg"):
    return T["sensor_msgs/msg/CompressedImage"](
        header=header(stamp, "optical"), format=format, data=np.frombuffer(data, np.uint8)
    )


def test_an_image_of_another_size_is_not_decoded(drive, tmp_path, monkeypatch):
    bag = drive.without("/camera/image_raw")
    large = cv2.imencode(".png", np.zeros((2000, 3000), np.uint8))[1].tobytes()
    bag.add(ns(0.1), "/camera/image/compressed", packed_image(ns(0.1), large, "png"))
    (frame,) = read_bag(bag.write(tmp_path / "b")).frames
    monkeypatch.setattr(cv2, "imdecode", lambda data, flags: pytest.fail("its pixels were decoded"))
    with pytest.raises(
        DataError,
        match="Image 1700000000.100 s of /camera/image/compressed in bag 'b' is 3000x2000, but camera_info says 32x24",
    ):
        frame.load()


def test_a_truncated_jpeg_is_named(drive, tmp_path):
    bag = drive.without("/camera/image_raw")
    noise = np.random.default_rng(0).integers(0, 255, (24, 32, 3), dtype=np.uint8)
    data = cv2.imencode(".jpg", noise)[1].tobytes()
    for k, part in enumerate((data, data[: len(data) // 2])):
        bag.add(ns(0.1 * k), "/camera/image/compressed", packed_image(ns(0.1 * k), part))
    whole, half = read_bag(bag.write(tmp_path / "b")).frames
    assert whole.load().shape == (24, 32, 3)
    with pytest.raises(DataError, match="Image 1700000000.100 s .* cannot be used: .*it is truncated"):
        half.load()


# Neighbours


@pytest.mark.parametrize("name", ["euroc", "tum_rgbd"])
def test_the_folder_of_a_data_set_beside_its_own_bag(drive, tmp_path, name):
    folder, truth = write(name, tmp_path / "data")
    drive.write_ros1(folder / "original.bag")
    recording = open_recording(folder)
    assert len(recording.frames) == len(truth.stamps_ns) and "original.bag" not in recording.source
    assert recording.notes[-1].endswith("; original.bag beside its files was not.")
    assert_whole(folder / "original.bag")
