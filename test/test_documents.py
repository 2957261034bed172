"""The documents: complete, without dead links, and the tutorial shows what this version prints."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

import pytest

from benchmarks import tutorial

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted((ROOT / "docs").glob("*.md"))
AGAIN = "run 'make tutorial', and mend what the page says about the figures"


def anchors(page: Path) -> set[str]:
    """Of a page's headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_index_lists_every_document() -> None:
    text = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    assert [page.name for page in PAGES if page.name != "index.md" and f"]({page.name})" not in text] == []


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target, _, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)(#([^)\s]+))?\)", page.read_text(encoding="utf-8")):
        there = (page.parent / target).resolve() if target else page
        assert there.exists(), target
        assert not anchor or anchor in anchors(there), f"{target}#{anchor}"


@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *PAGES], ids=lambda page: page.name)
def test_nothing_is_said_that_only_its_writers_understand(page: Path) -> None:
    """Folders that users lack, and the history of a figure, which belongs into the changelog."""
    private = r"\.\./shared|/work/|versions? ago|of the day|this session|was lent|at a load of|an hour before"
    assert not re.search(private, page.read_text(encoding="utf-8"))


def test_the_reference_is_made_from_docstrings(tmp_path: Path) -> None:
    pytest.importorskip("pdoc", reason="pdoc (the extra 'docs') is not installed")
    spec = importlib.util.spec_from_file_location("api", ROOT / "docs" / "api.py")
    api = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(api)
    names = api.modules()
    assert {"dimm_ros", "dimm_ros.localizer", "dimm_ros.solver"} <= set(names)
    assert not any(name.startswith(("dimm_ros.cli", "dimm_ros.msg")) for name in names)
    assert api.main(tmp_path, ["dimm_ros", "dimm_ros.estimate"]) == 0
    text = (tmp_path / "dimm_ros.html").read_text(encoding="utf-8")
    assert (
        'id="Localizer.localize"' in text and "Pose of one (H, W, 3) uint8 RGB image." in text and 'id="Camera"' in text
    )
    assert (tmp_path / "dimm_ros" / "estimate.html").is_file() and (tmp_path / "index.html").is_file()


# The tutorial's commands are parsed by test/cli/test_documented_commands.py.


@pytest.fixture(scope="module")
def last_run() -> dict:
    return json.loads(tutorial.RUN.read_text(encoding="utf-8"))


def test_the_tutorials_run_is_of_its_commands_and_of_this_version(last_run: dict) -> None:
    """Commands, package version, map format, default preset, and the rows of the table of 'dimm eval'."""
    page = tutorial.PAGE.read_text(encoding="utf-8")
    assert last_run["parts"] == tutorial.parts(), AGAIN
    assert [step.name for step in tutorial.steps(page)] == list(last_run["runs"])
    for step in tutorial.steps(page):
        assert tuple(cost["command"] for cost in last_run["runs"][step.name]["costs"]) == step.commands, AGAIN
        assert tutorial.current(step, last_run["runs"]), f"{step.name}: {AGAIN}"


def test_the_tutorial_shows_what_its_run_printed(last_run: dict) -> None:
    page = tutorial.PAGE.read_text(encoding="utf-8")
    assert len(list(tutorial.printed(page))) >= 5
    for name, text in tutorial.printed(page):
        assert text == last_run["runs"][name]["printed"], f"{name}: {AGAIN}"
    assert tutorial.filled(page, last_run["runs"]) == page
    shown = set(re.findall(r"images/(tutorial_\w+\.png)", page))
    assert shown == {f"tutorial_{name}.png" for name in last_run["pictures"]}
    for name, digest in last_run["pictures"].items():
        assert tutorial.digest_of(tutorial.IMAGES / f"tutorial_{name}.png") == digest, f"{name}: {AGAIN}"


def test_a_run_of_other_commands_or_another_table_is_out_of_date(last_run: dict) -> None:
    page, runs = tutorial.PAGE.read_text(encoding="utf-8"), last_run["runs"]
    changed = {
        step.name: step for step in tutorial.steps(page.replace("dimm map tour_bag", "dimm map tour_bag --seed 1"))
    }
    assert [name for name, step in changed.items() if tutorial.current(step, runs)] == ["bags", "doctor"]
    step = next(one for one in tutorial.steps(page) if one.name == "eval")
    other = {**runs["eval"], "printed": runs["eval"]["printed"].replace("median error", "median mistake")}
    assert not tutorial.current(step, {"eval": other}) and not tutorial.current(step, {})
