"""Which room of the package may import which: the table in docs/method.md says so, and each row may import rows above
it only.
"""

from __future__ import annotations

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MODULES = {path.relative_to(ROOT).with_suffix("").parts: path for path in ROOT.glob("dimm_ros/**/*.py")}
MODULES = {".".join(parts).removesuffix(".__init__"): path for parts, path in MODULES.items()}


def imported(path: Path) -> set[str]:
    """Full names of what a file imports, inside functions and for type checkers too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {each.name for each in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: write 'from dimm_ros...', rooms are seen better so"
            names |= {f"{node.module}.{each.name}" for each in node.names} | {str(node.module)}
    return names


IMPORTS = {name: imported(path) for name, path in MODULES.items()}
#: Modules of the package that each imports. Not dimm_ros itself, which Python imports before them all: it has the
#: version.
GRAPH = {name: {each for each in names if each in MODULES} - {name, "dimm_ros"} for name, names in IMPORTS.items()}


def room_of(module: str) -> str:
    """The folder of a module, or the module itself where it lies in none: "solver", "localizer.py"."""
    first = module.split(".")[1]
    return first if (ROOT / "dimm_ros" / first).is_dir() else f"{first}.py"


@pytest.fixture(scope="module")
def rules() -> list[tuple[list[str], set[str]]]:
    """Rows of the table: rooms, and the rooms that they import; those of the first row are for all."""
    table = (ROOT / "docs" / "method.md").read_text(encoding="utf-8").split("\n## Rooms\n")[1].split("\n## ")[0]
    rows = [line.split("|") for line in table.splitlines() if line.startswith("| `dimm_ros/")]
    return [(re.findall(r"`dimm_ros/([\w.]+)`", row[1]), set(re.findall(r"`([\w.]+)`", row[3]))) for row in rows]


def test_no_module_imports_itself_in_a_circle() -> None:
    TopologicalSorter(GRAPH).prepare()  # its error names the circle


def test_the_table_has_every_room_once(rules) -> None:
    rooms = {room_of(name) for name in MODULES if name != "dimm_ros"}
    assert sorted(room for row, _ in rules for room in row) == sorted(rooms)


def test_rooms_import_what_the_table_says_and_nothing_else(rules) -> None:
    base = set(rules[0][0])
    for rooms, allowed in rules[1:]:
        found = {
            room_of(each) for name in GRAPH if name != "dimm_ros" and room_of(name) in rooms for each in GRAPH[name]
        }
        assert found - set(rooms) - base == allowed, rooms


def test_no_room_imports_one_that_stands_below_it(rules) -> None:
    above: set[str] = set()
    for rooms, allowed in rules:
        assert not allowed - above, rooms
        above |= set(rooms)


def test_only_the_rooms_of_ros_import_rclpy() -> None:
    rooms = {room_of(name) for name, names in IMPORTS.items() if any(each.split(".")[0] == "rclpy" for each in names)}
    assert rooms == {"ros", "replay", "doctor"}
    assert [name for name in IMPORTS if name.startswith("dimm_ros.doctor") and "rclpy" in IMPORTS[name]] == [
        "dimm_ros.doctor.live_ros"
    ]
