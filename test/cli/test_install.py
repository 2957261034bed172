"""What the documents promise of `pip install .`: that it is enough for the tutorial's first command."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from rosbags.rosbag2 import Reader

ROOT = Path(__file__).resolve().parents[2]


def needed(found: Distribution, extra: str = "") -> set[str]:
    """Names of the distributions that one requires here, one way down."""
    wanted = (Requirement(line) for line in found.requires or ())
    return {one.name for one in wanted if one.marker is None or one.marker.evaluate({"extra": extra})}


def all_needed(names: set[str]) -> dict[str, Distribution]:
    """These distributions and all that they need, without any extra, as this environment has them."""
    result: dict[str, Distribution] = {}
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name in result:
            continue
        try:
            result[name] = distribution(name)
        except PackageNotFoundError:  # such as CUDA libraries that a CPU build of torch lacks
            continue
        waiting += needed(result[name])
    return result


def link(found: Distribution, site: Path) -> None:
    """Put a distribution into another environment, by links to its parts."""
    for part in {file.parts[0] for file in found.files or () if file.parts[0] not in ("..", "__pycache__")}:
        source, target = Path(found.locate_file(part)), site / part
        if source.exists() and not target.exists():
            target.symlink_to(source)


@pytest.mark.long
def test_the_first_command_of_the_tutorial_needs_no_more_than_is_installed(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "dimm_ros", tmp_path / "source" / "dimm_ros", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path / "source" / name)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    pip, quiet = [sys.executable, "-m", "pip"], ["--no-deps", "--no-index", "--quiet"]
    subprocess.run([*pip, "wheel", *quiet, "--no-build-isolation", "-w", tmp_path, tmp_path / "source"], check=True)
    subprocess.run([*pip, "--python", python, "install", *quiet, next(tmp_path.glob("*.whl"))], check=True)
    site = next((tmp_path / "venv" / "lib").glob("python*")) / "site-packages"
    installed = Distribution.at(next(site.glob("dimm_ros-*.dist-info")))
    for found in all_needed(needed(installed)).values():
        link(found, site)
    dimm = tmp_path / "venv" / "bin" / "dimm"
    command = [
        dimm,
        "gallery",
        tmp_path / "tour_bag",
        "--seconds",
        "1",
        "--rate",
        "2",
        "--seed",
        "1",
        "--spread",
        "0.25",
    ]
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    made = subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=tmp_path, env=environment)
    assert made.returncode == 0, made.stderr
    with Reader(tmp_path / "tour_bag") as bag:
        counts = {topic: one.msgcount for topic, one in bag.topics.items()}
    assert counts["/camera/image_raw/compressed"] == 3
