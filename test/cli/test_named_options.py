"""Cures exist: every option that a sentence of this package names is one that the verbs which can say it understand."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from rosbags.interfaces import QosDurability, QosReliability
from test_documented_commands import leaves
from typer.main import get_command
from typer.testing import CliRunner

from dimm_ros.cli.main import app
from dimm_ros.data.bag_writer import BASE, MAP, ODOM, new_bag
from dimm_ros.data.message_writer import qos
from dimm_ros.data.record import BASE_FROM_OPTICAL
from dimm_ros.geometry.camera import Camera
from dimm_ros.ros.parameters import declarations

PACKAGE = Path(__file__).resolve().parents[2] / "dimm_ros"
_OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]+")

#: Sentences of these files are said by verbs that read recordings, those by the ones that write bags, and so on.
READ, WRITE, JUDGE = "--image-topic", "--storage", "--results"
SAID_BY = {
    "data/bag.py": READ,
    "data/bag_file.py": READ,
    "data/message_writer.py": WRITE,
    "evaluation/report.py": JUDGE,
}
#: Options of other programs.
FOREIGN = {
    "replay/sample.py": {"--clock", "--share"},  # of ros2
    "data/point_pairs.py": {"--csv"},  # of ros2 topic echo
    "data/": {"--loop"},
    "doctor/live": {"--loop", "--clock"},
    "encoder/stand_in.py": {"--quiet", "--no-deps", "--dest"},
}


def options_of(verb) -> set[str]:
    return {name for param in verb.params for name in (*param.opts, *param.secondary_opts)}


VERBS = {verb.name: options_of(verb) for verb in leaves(get_command(app))}


def sentences(file: Path) -> Iterator[str]:
    """Strings of a module that are no docstring, an f-string's parts as one."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    inside = {
        id(part)
        for node in ast.walk(tree)
        if isinstance(node, ast.JoinedStr)
        for part in ast.walk(node)
        if part is not node
    }
    inside |= {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if id(node) in inside:
            continue
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def named() -> list[tuple[str, str, str]]:
    """File, option and sentence."""
    found = []
    for file in sorted(PACKAGE.rglob("*.py")):
        name = file.relative_to(PACKAGE).as_posix()
        foreign = {option for start, options in FOREIGN.items() if name.startswith(start) for option in options}
        for text in sentences(file) if not name.startswith(("ros/", "replay/player.py", "replay/session.py")) else ():
            found += [(name, option, text) for option in _OPTION.findall(text) if option not in foreign]
    return found


def test_every_option_that_is_named_exists() -> None:
    rows = named()
    assert len({option for _, option, _ in rows}) > 10
    for name, option, text in rows:
        command = next((words for words in re.findall(r"'dimm ([^']+)'", text) if option in words), None)
        if command is not None:  # such as 'dimm map --keep-features'
            words = shlex.split(command)
            verb = (
                "new"
                if words[0] == "map" and (len(words) < 2 or words[1] not in VERBS)
                else next(word for word in words if word in VERBS)
            )
            assert option in VERBS[verb], f"{name}: {text}"
            continue
        mark = next((mark for start, mark in SAID_BY.items() if name == start), None)
        saying = [verb for verb, options in VERBS.items() if mark is None or mark in options]
        has = [verb for verb in saying if option in VERBS[verb]]
        if mark is None:
            assert has or option in ("--install-completion", "--verbose", "--version", "--help"), (
                f"{name}: no verb has {option}: {text}"
            )
        else:
            assert has == saying, f"{name}: {set(saying) - set(has)} lack {option}: {text}"


def test_every_parameter_of_the_node_that_is_named_exists() -> None:
    """In what node, live doctor and the table of rejections say, as "set NAME", "use NAME" or "section.name"."""
    known = {declaration.name for declaration in declarations()} | {"use_sim_time"}  # of every node
    files = [*PACKAGE.glob("ros/*.py"), *PACKAGE.glob("doctor/live*.py"), PACKAGE / "evaluation" / "rejections.py"]
    named = re.compile(r"\b((?:acceptance|gate|solver)\.\w+)|\b(?:set|use|than) ([a-z]+(?:_[a-z]+)+)\b")
    found = {
        (file.name, match[1] or match[2])
        for file in files
        for text in sentences(file)
        for match in named.finditer(text)
    }
    assert len({name for _, name in found}) >= 7 and not [one for one in found if one[1] not in known]


def test_no_sentence_asks_for_what_cannot_be_given() -> None:
    for file in sorted((PACKAGE / "data").glob("*.py")):
        for text in sentences(file):
            assert not re.search(r"\b(name the camera frame|choose the (image|camera_info) topic(?! with --))", text), (
                f"{file.name}: {text}"
            )


def test_a_cure_that_is_typed_as_named_cures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two cameras in one bag, a bag that exists: the error's own words, typed."""
    monkeypatch.chdir(tmp_path)
    _two_cameras(Path("two"))
    refused = CliRunner().invoke(app, ["convert", "two", "one"])
    option, topic = re.search(r"choose one with (--\S+) among (\S+), ", refused.stderr).groups()
    assert refused.exit_code == 1 and option == "--image-topic"
    done = CliRunner().invoke(app, ["convert", "two", "one", option, topic])
    assert done.exit_code == 0, done.output
    for words in (["convert", "two", "one", option, topic], ["gallery", "one", "--seconds", "1", "--rate", "1"]):
        again = CliRunner().invoke(app, words)
        cure = re.search(r"replace it with (--\S+)\.", again.stderr)
        assert again.exit_code == 1 and cure, again.output
        done = CliRunner().invoke(app, [*words, cure[1]])
        assert done.exit_code == 0, done.output


def _two_cameras(path: Path) -> None:
    """Three seconds of a bag in which two topics carry images."""
    camera, noise = Camera(32, 24, 20.0, 20.0, 15.5, 11.5), np.random.default_rng(0)
    rear = "/rear/image_raw/compressed"
    with new_bag(path) as bag:
        bag._open(rear, "sensor_msgs/msg/CompressedImage", qos(QosReliability.BEST_EFFORT, QosDurability.VOLATILE, 5))
        bag.start(10**9, BASE_FROM_OPTICAL)
        front = bag._image_topic
        for stamp in range(10**9, 4 * 10**9, 10**9):
            bag.transform(stamp, MAP, ODOM, np.eye(4))
            bag.transform(stamp, ODOM, BASE, np.eye(4))
            for bag._image_topic in (front, rear):
                bag.image(stamp, camera, bag.encode(noise.integers(0, 255, (24, 32, 3), dtype=np.uint8)))
