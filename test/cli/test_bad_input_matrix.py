"""Every verb against every fault: one clear sentence on stderr, the right exit code, no traceback, and nothing
half-written.

The verbs run in this process, through the handler of errors that the command has, except where Ctrl-C must hit a real
one.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from faults import full_disk, interrupted, permissions_count, tree
from typer.main import get_command
from typer.testing import CliRunner, Result

from dimm_ros.cli.main import app
from dimm_ros.data.record import record_frames
from dimm_ros.data.seven_scenes import read_seven_scenes

IMAGES, BROKEN = 12, 4  # of the small recording, and which of it is damaged
FAULTS = ("missing", "empty", "unreadable", "forbidden", "full disk", "Ctrl-C")


def _verbs(command, name: str = "") -> Iterator[str]:
    """Names of a command and those below it, such as "audit privacy"."""
    for word, below in getattr(command, "commands", {}).items():
        yield from _verbs(below, f"{name} {word}".strip()) if hasattr(below, "commands") else [f"{name} {word}".strip()]


VERBS = set(_verbs(get_command(app)))

#: Verb and fault that cannot meet, and why.
IMPOSSIBLE = {
    ("sample", "missing"): "it reads nothing",
    ("sample", "empty"): "it reads nothing",
    ("sample", "unreadable"): "it reads nothing",
    ("sample", "full disk"): "bag and map are made as by gallery and map, which meet it",
    ("sample", "Ctrl-C"): "test_sample.py stops every stage",
    ("gallery", "empty"): "it reads nothing, and an empty folder of the bag's name is a bag that exists",
    ("gallery", "unreadable"): "it reads nothing",
    ("map info", "unreadable"): "it reads no image",
    ("map info", "Ctrl-C"): "it reads a header of a few kilobytes",
    ("map merge", "unreadable"): "it reads no image",
    ("export", "unreadable"): "it reads no image",
    ("weights", "missing"): "weights that are missing are fetched: test_weights.py",
    ("weights", "empty"): "it reads no folder",
    ("weights", "unreadable"): "weights that are damaged are fetched again: test_weights.py",
    ("weights", "forbidden"): "a cache that cannot be used is done without: test_weights.py",
}

#: Of ``map align``: points that fit.
PAIRS = ["--up", "+z", *(word for pair in ("0,0,0=0,0", "1,0,0=1,0", "0,1,0=0,1") for word in ("--pair", pair))]

MISSING = [
    (["map", "align", "absent", "grid.yaml", "-o", "out.dimm", *PAIRS], "The map absent does not exist"),
    (["map", "align", "room.dimm", "absent.yaml", "-o", "out.dimm", *PAIRS], "absent.yaml"),
    (["map", "absent", "-o", "out.dimm"], "'absent' does not exist; give a ROS bag or a folder"),
    (["map", "scene", "-o", "out.dimm", "--weights", "absent"], "absent does not exist; check --weights"),
    (["eval", "absent", "scene"], "The map absent does not exist; make one with 'dimm map"),
    (["eval", "room.dimm", "absent"], "'absent' does not exist; give"),
    (["localize", "absent", "good.jpg", "--focal", "150"], "The map absent does not exist"),
    (["localize", "room.dimm", "absent", "--focal", "150"], "Image 'absent' cannot be read: No such file"),
    (["convert", "absent", "out_bag"], "'absent' does not exist; give"),
    (["doctor", "absent"], "'absent' does not exist; give"),
    (["demo", "--data", "absent"], "'absent' does not exist; give"),
    (["map", "info", "absent"], "The map absent does not exist"),
    (["map", "report", "absent"], "The map absent does not exist"),
    (["map", "report", "room.dimm", "absent"], "'absent' does not exist; give"),
    (["map", "update", "absent", "scene"], "The map absent does not exist"),
    (["map", "update", "room.dimm", "absent"], "'absent' does not exist; give"),
    (["map", "merge", "room.dimm", "absent", "-o", "out.dimm"], "The map absent does not exist"),
    (["export", "absent"], "The map absent does not exist"),
    (["audit", "privacy", "absent"], "The map absent does not exist"),
    (["audit", "privacy", "room.dimm", "absent"], "'absent' does not exist; give"),
    (["eval", "--compare", "absent", "scene"], "'absent' is no results folder"),
    (["localize", "room.dimm", "good.jpg", "--camera", "absent"], "The camera file absent cannot be read"),
    (["gallery", "good.jpg/out_bag"], "Bag 'good.jpg/out_bag' cannot be written: 'good.jpg' is no folder"),
]
EMPTY = [
    (["map", "align", "empty", "grid.yaml", "-o", "out.dimm", *PAIRS], "The map empty is a folder"),
    (["map", "empty", "-o", "out.dimm"], "'empty' is empty; give a ROS bag or a folder"),
    (["eval", "room.dimm", "empty"], "'empty' is empty; give"),
    (["eval", "empty", "scene"], "The map empty is a folder"),
    (["localize", "empty", "good.jpg", "--focal", "150"], "The map empty is a folder"),
    (["localize", "room.dimm", "empty", "--focal", "150"], "The folder 'empty' holds no image"),
    (["convert", "empty", "out_bag"], "'empty' is empty; give"),
    (["doctor", "empty"], "'empty' is empty; give"),
    (["demo", "--data", "empty"], "'empty' is empty; give"),
    (["map", "info", "empty"], "The map empty is a folder"),
    (["map", "report", "empty"], "The map empty is a folder"),
    (["map", "report", "room.dimm", "empty"], "'empty' is empty; give"),
    (["map", "update", "empty", "scene"], "The map empty is a folder"),
    (["map", "update", "room.dimm", "empty"], "'empty' is empty; give"),
    (["map", "merge", "room.dimm", "empty", "-o", "out.dimm"], "The map empty is a folder"),
    (["export", "empty"], "The map empty is a folder"),
    (["audit", "privacy", "empty"], "The map empty is a folder"),
    (["eval", "--compare", "empty", "scene"], "'empty' is no results folder"),
    (["localize", "room.dimm", "good.jpg", "--camera", "empty"], "The camera file empty cannot be read"),
    (["audit", "privacy", "room.dimm", "empty"], "'empty' is empty; give"),
]
UNREADABLE = [
    (["map", "align", "room.dimm", "cut.yaml", "-o", "out.dimm", *PAIRS], "cut"),
    (["map", "broken", "-o", "out.dimm", "--input-size", "112", "--passes", "1"], "frame-000004.color.jpg"),
    (
        ["map", "broken", "-o", "out.dimm", "--input-size", "112", "--passes", "1", "--landmarks", "none"],
        "frame-000004.color.jpg",
    ),
    (["map", "broken_first", "-o", "out.dimm", "--input-size", "112", "--passes", "1"], "frame-000000.color.jpg"),
    (["map", "report", "room.dimm", "broken", "-o", "out.html"], "frame-000004.color.jpg"),
    (["map", "update", "room.dimm", "broken_first", "-o", "out.dimm", "--passes", "1"], "frame-000000.color.jpg"),
    (["eval", "room.dimm", "broken"], "frame-000004.color.jpg"),
    (["localize", "room.dimm", "broken/frame-000004.color.jpg", "--focal", "150"], "frame-000004.color.jpg"),
    (["convert", "broken", "out_bag"], "frame-000004.color.jpg"),
    (["convert", "broken_bag", "out_bag"], "cannot be decoded; it is truncated"),
    (["demo", "--data", "broken", "--split", "half"], "frame-000004.color.jpg"),
    (["audit", "privacy", "room.dimm", "broken", "--foreign", "scene", "--images", "4"], "frame-000004.color.jpg"),
]
FORBIDDEN = [
    (["map", "align", "secret.dimm", "grid.yaml", "-o", "out.dimm", *PAIRS], "secret.dimm"),
    (["map", "align", "room.dimm", "grid.yaml", "-o", "readonly/out.dimm", *PAIRS], "readonly"),
    (["sample", "readonly/out"], "readonly"),
    (["map", "secret", "-o", "out.dimm"], "secret"),
    (
        ["map", "scene", "-o", "readonly/out.dimm"],
        "readonly/out.dimm.work/features cannot be opened (Permission denied)",
    ),
    (["map", "scene", "-o", "out.dimm", "--weights", "secret.dimm"], "secret.dimm"),
    (["eval", "secret.dimm", "scene"], "The map secret.dimm cannot be read (Permission denied)"),
    (["eval", "room.dimm", "secret"], "secret"),
    (["eval", "room.dimm", "scene", "--results", "readonly/results"], "readonly"),
    (["localize", "secret.dimm", "good.jpg", "--focal", "150"], "secret.dimm"),
    (["localize", "room.dimm", "secret.jpg", "--focal", "150"], "Image 'secret.jpg' cannot be read: Permission denied"),
    (["convert", "secret", "out_bag"], "secret"),
    (["convert", "scene", "readonly/out_bag"], "Bag 'readonly/out_bag' cannot be written: Permission denied"),
    (["doctor", "secret"], "secret"),
    (["doctor", "scene", "--results", "readonly"], "readonly"),
    (["demo", "--data", "secret"], "secret"),
    (["demo", "--results", "readonly/results"], "readonly"),
    (["map", "info", "secret.dimm"], "secret.dimm"),
    (["map", "report", "secret.dimm"], "secret.dimm"),
    (["map", "report", "room.dimm", "-o", "readonly/out.html"], "readonly"),
    (["map", "update", "secret.dimm", "scene"], "secret.dimm"),
    (["map", "update", "room.dimm", "secret"], "secret"),
    (["map", "update", "room.dimm", "scene", "-o", "readonly/out.dimm", "--passes", "1"], "readonly"),
    (["map", "merge", "room.dimm", "secret.dimm", "-o", "out.dimm"], "secret.dimm"),
    (["map", "merge", "room.dimm", "room.dimm", "-o", "readonly/out.dimm"], "readonly"),
    (["export", "secret.dimm", "-o", "out.onnx"], "secret.dimm"),
    (["export", "room.dimm", "-o", "readonly/out.onnx"], "readonly"),
    (["audit", "privacy", "secret.dimm"], "secret.dimm"),
    (["audit", "privacy", "room.dimm", "secret"], "secret"),
    (["audit", "privacy", "room.dimm", "--foreign", "scene", "--results", "readonly/results"], "readonly"),
    (["gallery", "readonly/out_bag"], "Bag 'readonly/out_bag' cannot be written: Permission denied"),
]
FULL = [
    (["map", "align", "room.dimm", "grid.yaml", "-o", "full/room.dimm", "--overwrite", *PAIRS], "full/room.dimm"),
    (
        ["map", "scene", "-o", "full/room.dimm", "--input-size", "112", "--passes", "1", "--overwrite"],
        "full/room.dimm.work",
    ),
    (["eval", "room.dimm", "scene", "--results", "full/results"], ""),
    (["convert", "scene", "full/old_bag", "--overwrite", "--images", "raw"], "Bag 'full/old_bag' cannot be written"),
    (["doctor", "scene", "--results", "full/results"], ""),
    (["demo", "--data", "scene", "--split", "half", "--results", "full/results"], ""),
    (["map", "report", "room.dimm", "-o", "full/room.html"], "full/room.html"),
    (["map", "update", "room.dimm", "scene", "-o", "full/room.dimm", "--passes", "1", "--overwrite"], "full/room.dimm"),
    (["map", "merge", "room.dimm", "room.dimm", "-o", "full/room.dimm", "--overwrite"], "full/room.dimm"),
    (["export", "room.dimm", "-o", "full/room.onnx"], "full/room.onnx"),
    (["audit", "privacy", "room.dimm", "--foreign", "scene", "--images", "4", "--results", "full/results"], ""),
    (["gallery", "full/out_bag", "--seconds", "2", "--raw"], "Bag 'full/out_bag' cannot be written"),
]
PIPED = [
    ["map", "info", "room.dimm"],
    ["localize", "room.dimm", "good.jpg", "--focal", "150", "--json"],
    ["weights"],
    ["weights", "--json"],
    ["--version"],
]
INTERRUPTED = [
    (["map", "scene", "-o", "out.dimm", "--input-size", "112", "--passes", "1"], r"training *\S+ *[1-9]"),
    (["map", "report", "room.dimm", "scene", "-o", "out.html"], r"\w+ *\S+ *[1-9]"),
    (["map", "update", "room.dimm", "scene", "-o", "out.dimm", "--passes", "1"], r"features *\S+ *[1-9]"),
    (["eval", "room.dimm", "scene"], r"localizing *\S+ *[1-9]"),
    (["convert", "scene", "out_bag", "--images", "png"], r"converting *\S+ *[1-9]"),
    (["doctor", "scene"], r"(geometry|images) *\S+ *[1-9]"),
    (["demo"], r"mapping bag *\S+ *[1-9]"),
    (["audit", "privacy", "room.dimm", "--foreign", "scene", "--images", "4"], r"foreign *\S+ *[1-9]"),
    (["gallery", "out_bag"], r"rendering *\S+ *[1-9]"),
]
BLIND = [
    (["map", "align", "room.dimm", "grid.yaml", "-o", "out.dimm", *PAIRS], "dimm_ros.mapping.align.align_map"),
    (["map", "merge", "room.dimm", "room.dimm", "-o", "out.dimm"], "dimm_ros.mapping.merge.merge_maps"),
    (["export", "room.dimm", "-o", "out.onnx"], "dimm_ros.runtime.export.export_map"),
    (["localize", "room.dimm", "good.jpg", "--focal", "150"], "dimm_ros.localizer.Localizer.localize"),
    (["weights"], "dimm_ros.encoder.weights.find_weights"),
]


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory, small_map: Path) -> Path:
    """What the commands are given, good and bad; tests link it into a folder of their own."""
    place = tmp_path_factory.mktemp("shelf")
    _film(place / "scene")
    for name, number in (("broken", BROKEN), ("broken_first", 0)):
        image = shutil.copytree(place / "scene", place / name) / f"frame-{number:06d}.color.jpg"
        image.write_bytes(image.read_bytes()[:1500])
    record_frames(place / "broken_bag", read_seven_scenes(place / "scene").frames)
    _damage(place / "broken_bag")
    shutil.copy(place / "scene" / "frame-000000.color.jpg", place / "good.jpg")
    shutil.copy(place / "good.jpg", place / "secret.jpg")
    shutil.copy(small_map, place / "room.dimm")
    shutil.copy(small_map, place / "secret.dimm")
    shutil.copytree(place / "scene", place / "secret")
    (place / "empty").mkdir()
    for name in ("grid", "cut"):
        cv2.imwrite(str(place / f"{name}.png"), np.full((60, 80), 254, np.uint8))
        about = "resolution: 0.1\norigin: [-4.0, -3.0, 0.0]\nnegate: 0\noccupied_thresh: 0.65\nfree_thresh: 0.25\n"
        (place / f"{name}.yaml").write_text(f"image: {name}.png\n{about}")
    (place / "cut.png").write_bytes((place / "cut.png").read_bytes()[:40])
    return place


def _film(folder: Path) -> None:
    """A 7-Scenes folder of noise, seen by a camera on its way."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(IMAGES):
        noise = cv2.resize(rng.integers(0, 255, (21, 28, 3), dtype=np.uint8), (224, 168))
        cv2.imwrite(str(folder / f"frame-{number:06d}.color.jpg"), noise)
        pose = np.eye(4)
        pose[:3, 3] = 0.1 * number, 0.02 * number**2, 0
        np.savetxt(folder / f"frame-{number:06d}.pose.txt", pose)
    np.savetxt(folder / "camera-intrinsics.txt", [[150, 0, 111.5], [0, 150, 83.5], [0, 0, 1]])
    (folder / "split.json").write_text('{"half": {"train": [0, 1, 2, 3, 4, 5, 6, 7, 8, 9], "val": [10, 11]}}')


def _damage(bag: Path) -> None:
    """Zeros over the second half of one stored image."""
    file = next(bag.glob("*.mcap"))
    content = bytearray(file.read_bytes())
    start = content.find(b"\xff\xd8\xff", len(content) // 2)
    content[start + 2 : start + 2000] = bytes(1998)
    file.write_bytes(content)


@pytest.fixture
def place(shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that the commands run in."""
    for thing in shelf.iterdir():
        (tmp_path / thing.name).symlink_to(thing)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def verb_of(words: list[str]) -> str:
    return next(name for name in (" ".join(words[:2]), words[0], f"{words[0]} new", "") if name in VERBS or not name)


def dimm(words: list[str]) -> Result:
    if words[0] == "demo" and importlib.util.find_spec("rclpy") is None:
        pytest.skip("ROS 2 is not installed")
    return CliRunner().invoke(app, words)


def check(result, expected: str) -> None:
    """One sentence with these words, exit code 1, and nothing on stdout that a script could take for a result."""
    said = f"{result.stderr}\n{result.stdout}"
    exception = getattr(result, "exception", None)
    assert exception is None or isinstance(exception, SystemExit), repr(exception)
    assert "Traceback" not in said
    complaints = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(complaints) == 1 and complaints[0].endswith("."), result.stderr
    assert expected in complaints[0]
    assert result.exit_code == 1


def test_every_verb_meets_every_fault() -> None:
    met = {
        (verb_of(words), fault)
        for fault, rows in zip(FAULTS, (MISSING, EMPTY, UNREADABLE, FORBIDDEN, FULL, INTERRUPTED))
        for words, _ in rows
    }
    met |= (
        {(verb_of(words), "full disk") for words in PIPED}
        | {(verb_of(words), "Ctrl-C") for words, _ in BLIND}
        | {("doctor", "unreadable")}
    )
    assert {(verb, fault) for verb in VERBS for fault in FAULTS} - met == set(IMPOSSIBLE)


@pytest.mark.parametrize(
    ("words", "expected"), MISSING + EMPTY, ids=lambda value: " ".join(value) if isinstance(value, list) else ""
)
def test_missing_and_empty(words: list[str], expected: str, place: Path) -> None:
    before = tree(place)
    check(dimm(words), expected)
    assert tree(place) == before


@pytest.mark.parametrize(
    ("words", "expected"), UNREADABLE, ids=lambda value: " ".join(value) if isinstance(value, list) else ""
)
def test_unreadable_image(words: list[str], expected: str, place: Path) -> None:
    before = tree(place)
    result = dimm(words)
    check(result, expected)
    # Landmarks come first, and see it before there is anything to keep; without them half an hour's work may be in
    # there.
    if words[:2] == ["map", "broken"] and "none" in words:
        assert "the work so far is kept in out.dimm.work" in result.stderr
        shutil.rmtree("out.dimm.work")
    assert tree(place) == before


def test_the_doctor_finds_an_unreadable_image(place: Path) -> None:
    result = dimm(["doctor", "broken"])
    assert result.exit_code == 3 and "frame-000004" in result.stdout and "Traceback" not in result.output


@pytest.mark.parametrize(
    ("words", "expected"), FORBIDDEN, ids=lambda value: " ".join(value) if isinstance(value, list) else ""
)
def test_forbidden(words: list[str], expected: str, place: Path, shelf: Path) -> None:
    (place / "readonly").mkdir(mode=0o555)
    before = tree(place)
    secrets = [shelf / name for name in ("secret", "secret.dimm", "secret.jpg")]
    for secret in secrets:
        secret.chmod(0)
    try:
        with permissions_count():
            assert not os.access(secrets[1], os.R_OK, effective_ids=True) and not os.access(
                "readonly", os.W_OK, effective_ids=True
            )
            check(dimm(words), expected)
    finally:
        for secret in secrets:
            secret.chmod(0o755)
    assert tree(place) == before


@pytest.mark.parametrize(
    ("words", "expected"), FULL, ids=lambda value: " ".join(value) if isinstance(value, list) else ""
)
def test_full_disk(words: list[str], expected: str, place: Path) -> None:
    def fill(folder: Path) -> None:
        (folder / "room.dimm").write_bytes(b"an old map")
        record_frames(folder / "old_bag", read_seven_scenes(place / "scene").frames[:2])

    with full_disk(place / "full", fill):
        before = tree(place)
        check(dimm(words), expected)
        assert tree(place) == before


@pytest.mark.parametrize("words", PIPED, ids=" ".join)
def test_full_disk_behind_stdout(words: list[str], place: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    with open("/dev/full", "w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        with pytest.raises(SystemExit) as end:
            app(words)
        monkeypatch.undo()
    complaints = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
    assert end.value.code == 1 and complaints == [
        "error: No space left on device; free some space or write to another disk."
    ]


@pytest.mark.long
@pytest.mark.parametrize(
    ("words", "at"), INTERRUPTED, ids=lambda value: verb_of(value) if isinstance(value, list) else ""
)
def test_ctrl_c(words: list[str], at: str, place: Path) -> None:
    if words[0] == "demo" and importlib.util.find_spec("rclpy") is None:
        pytest.skip("ROS 2 is not installed")
    before = tree(place)
    ended = interrupted(words, at, place)
    assert ended.code == 130 and "Traceback" not in ended.stderr + ended.stdout, ended.stderr
    if "out.dimm" in words:  # what is needed to go on, and of the training a usable map
        assert "un the same command to go on" in ended.stderr
        shutil.rmtree("out.dimm.work")
        if "Unfinished but usable map" in ended.stdout:
            for name in ("out.dimm", "out.dimm.retrieval.safetensors"):
                Path(name).unlink()
    else:
        assert ended.stderr.rstrip().splitlines()[-1].strip() == "stopped"
    assert tree(place) == before


@pytest.mark.parametrize(
    ("words", "during"), BLIND, ids=lambda value: verb_of(value) if isinstance(value, list) else ""
)
def test_ctrl_c_of_verbs_without_progress(
    words: list[str], during: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def press(*_, **__) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    before = tree(place)
    monkeypatch.setattr(during, press)
    result = dimm(words)
    assert result.exit_code == 130 and result.stdout == "" and result.stderr.splitlines()[-1] == "stopped"
    assert tree(place) == before
