"""docs/ros.md: what it promises has a test, and the files, topics and parameters that it names are there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "ros.md").read_text(encoding="utf-8")


def existing_tests() -> dict[str, set[str]]:
    """Name of each test function -> folders that have it, relative to the repository."""
    found: dict[str, set[str]] = {}
    for path in (ROOT / "test").rglob("test_*.py"):
        for name in re.findall(r"^\s*def (test_\w+)\(", path.read_text(encoding="utf-8"), re.MULTILINE):
            found.setdefault(name, set()).add(str(path.parent.relative_to(ROOT)))
    return found


def rows(heading: str) -> list[list[str]]:
    """Cells of the first table under a heading, without its head."""
    section = TEXT.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_every_pain_has_an_answer_and_a_test_that_exists() -> None:
    table, existing = rows("What users of such nodes complain about"), existing_tests()
    assert len(table) == 15
    for pain, answer, proofs in table:
        named = re.findall(r"`(test_\w+)`(?: \((test[\w/]*)\))?", proofs)
        assert pain and answer and named, pain
        for name, folder in named:
            assert (folder or "test/ros") in existing.get(name, ()), (
                f"{name}, which is to prove '{pain}', is not in {folder or 'test/ros'}"
            )


def test_every_test_that_is_named_exists() -> None:
    named = set(re.findall(r"`(test_\w+)`", TEXT))
    assert len(named) > 30 and named <= set(existing_tests())


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)", TEXT):
        assert (ROOT / "docs" / target).resolve().exists(), target


def test_parameters_that_are_named_exist() -> None:
    """`name: value` in backquotes is a parameter of the node, or of the two configurations for other packages."""
    from dimm_ros.ros.parameters import declarations

    known = {declaration.name for declaration in declarations()}
    others = "".join(
        (ROOT / "config" / name).read_text(encoding="utf-8") for name in ("ekf_visual.yaml", "nav2_localization.yaml")
    )
    for name in set(re.findall(r"`([a-z_0-9]+(?:\.[a-z_0-9]+)?): [^`]+`", TEXT)):
        assert name in known | {"success"} or f"{name}:" in others, name  # success: of a service's answer


def test_who_plays_raw_images_is_told_of_the_dds_profile() -> None:
    """Without it a raw replay loses images; the launch file sets it for the player too, since it is set first."""
    section = TEXT.split("## Playing bags without rosbag2\n", 1)[1].split("\n## ", 1)[0]
    assert "#images-need-a-dds-profile" in section and "DDS profile" in section
    launch = (ROOT / "launch" / "replay.launch.py").read_text(encoding="utf-8")
    assert re.search(r"localization, player, rviz\]", launch)


def test_the_table_of_distributions_has_those_that_ci_is_prepared_for() -> None:
    section = TEXT.split("## ROS distributions\n", 1)[1].split("\n## ", 1)[0]
    head = re.search(r"^\| \|(.+)\|$", section, re.MULTILINE)[1]
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
    matrix = re.search(r"distro: \[(.+)\]", workflow)[1].split(", ")
    assert [name.strip().lower() for name in head.split("|")] == matrix
    cells = [row[1:] for row in rows("ROS distributions") if len(row) == 5]
    assert len(cells) >= 6 and all(all(row) for row in cells)  # each says what was done
