"""The package as contributors and package managers see it: one version, lazy names, one definition of what is
checked.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml

import dimm_ros

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PINS = dict(
    re.findall(r"^([\w.-]+)==([^;\s]+)", (ROOT / ".ci" / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)
)


def name(requirement: str) -> str:
    """The package that a requirement such as "typer>=0.9.4" names."""
    return re.match(r"[\w.-]+", requirement).group().lower().replace(".", "-")


def test_names_of_the_package_are_loaded_when_they_are_asked_for() -> None:
    code = (
        "import sys, dimm_ros; before = 'torch' in sys.modules; from dimm_ros import Camera, Localizer;"
        "import dimm_ros.geometry.camera, dimm_ros.localizer;"
        "print(before, Camera is dimm_ros.geometry.camera.Camera, Localizer is dimm_ros.localizer.Localizer)"
    )
    said = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert said == "False True True\n"
    with pytest.raises(AttributeError, match="module 'dimm_ros' has no attribute 'Localiser'"):
        dimm_ros.Localiser  # noqa: B018


def test_there_is_one_version() -> None:
    package = ElementTree.parse(ROOT / "package.xml").getroot().find("version").text
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    changelog = re.findall(r"^(\d+\.\d+\.\d+) \(", (ROOT / "CHANGELOG.rst").read_text(encoding="utf-8"), re.MULTILINE)
    assert package == citation["version"] == changelog[0] == dimm_ros.__version__
    assert PROJECT["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "dimm_ros.__version__"}


def test_what_set_up_installs_is_pinned_and_stamped() -> None:
    """Of every requirement of 'make setup' an exact version; a change of the metadata is installed by the next one."""
    extras = PROJECT["project"]["optional-dependencies"]
    setup = (ROOT / ".ci" / "setup.py").read_text(encoding="utf-8")
    assert '"-e", f"{REPOSITORY}[test,docs]"' in setup
    asked = [*PROJECT["project"]["dependencies"], *extras["test"], *extras["docs"]]
    assert {name(requirement) for requirement in asked} <= set(PINS)
    assert re.search(r'METADATA = \(REPOSITORY / "pyproject.toml", REPOSITORY / "setup.py"\)', setup)
    assert re.search(r'step\("packages", \[[^]]*\*METADATA\]', setup)


def test_oldest_versions_are_those_that_are_checked_at_import() -> None:
    asked = {name(requirement): requirement.partition(">=")[2] for requirement in PROJECT["project"]["dependencies"]}
    text = (ROOT / "dimm_ros" / "cli" / "__init__.py").read_text(encoding="utf-8")
    checked = dict(re.findall(r'^need\("(\w+)", "([\d.]+)"\)', text, re.MULTILINE))
    assert set(checked) == {"typer", "pydantic"} and checked.items() <= asked.items()


def test_peers_are_those_that_the_benchmark_installs() -> None:
    text = (ROOT / "benchmarks" / "peers" / "requirements.txt").read_text(encoding="utf-8")
    installed = {name(line) for line in text.splitlines() if not line.startswith("#")}
    extra = {name(requirement) for requirement in PROJECT["project"]["optional-dependencies"]["peers"]}
    assert extra == installed - {"kornia-rs"}  # a part of kornia


def test_lint_is_the_same_everywhere() -> None:
    """make lint, the workflow and pre-commit: no rules but pyproject.toml's, no second version of ruff."""
    recipe = re.search(
        r"^lint: setup\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE
    ).group(1)
    assert recipe.split("\n\t") == ["\t$(BIN)/ruff check", "$(BIN)/ruff format --check", "$(BIN)/mypy\n"]
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))
    steps = {job: [step["run"] for step in spec["steps"] if "run" in step] for job, spec in workflow["jobs"].items()}
    assert (
        steps["lint"] == ["make lint", "make docs"]
        and steps["test"] == ["make test-all"]
        and any("colcon test" in step for step in steps["ros"])
    )
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    ruff = next(entry for entry in hooks["repos"] if entry["repo"].endswith("ruff-pre-commit"))
    assert ruff["rev"] == f"v{PINS['ruff']}" and [hook["id"] for hook in ruff["hooks"]] == ["ruff-check", "ruff-format"]
    assert not (ROOT / "ruff.toml").exists()  # it would hide pyproject.toml's section


def test_ci_runs_every_test_once() -> None:
    """The quick ones as README.md's make test does, then those that it leaves out."""
    made = dict(
        re.findall(
            r"^(test[\w-]*): setup\n\t\$\(PYTEST\)(.*)\n", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE
        )
    )
    assert made == {"test": ' -m "not long"', "test-long": " -m long", "test-all": ""}
    assert (ROOT / ".ci" / "run").read_text(encoding="utf-8").endswith("\nmake lint test\nmake test-long\n")


def test_pages_for_contributors_lead_somewhere() -> None:
    for page in ("README.md", "CONTRIBUTING.md", "QUALITY_DECLARATION.md"):
        for target in re.findall(r"\]\((?!http|#)([^)#]+)", (ROOT / page).read_text(encoding="utf-8")):
            assert (ROOT / target).exists(), f"{page}: {target}"
    for path in re.findall(
        r"`((?:dimm_ros|benchmarks|test|docs)/[\w/.]+)`", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    ):
        assert (ROOT / path).exists(), path


def test_the_paper_is_cited_the_same_everywhere() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["preferred-citation"]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"title     = {{{citation['title']}}}" in readme and citation["url"] in readme
    assert (
        f"pages     = {{{citation['start']}--{citation['end']}}}" in readme
        and f"year      = {{{citation['year']}}}" in readme
    )
