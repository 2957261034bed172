"""What colcon builds and tests, configured with the CMake and ament that are here; and what package.xml declares."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).resolve().parents[2]

#: Python module -> key of package.xml, where they differ; of ROS's own the key is the module.
KEYS = {
    "PIL": "python3-pil",
    "cv2": "python3-opencv",
    "matplotlib": "python3-matplotlib",
    "numpy": "python3-numpy",
    "rich": "python3-rich",
    "rosbags": "python3-rosbags-pip",
    "scipy": "python3-scipy",
    "skimage": "python3-skimage",
    "torch": "python3-pytorch-pip",
    "transformers": "python3-transformers-pip",
    "transforms3d": "python3-transforms3d",
    "yaml": "python3-yaml",
}

#: From pip by hand: README.md names each; the last two come with others.
BY_HAND = {"evo", "onnx", "pydantic", "safetensors", "typer"}
WITH_OTHERS = {
    "huggingface_hub": "transformers",
    "google": "onnx",
    "typing_extensions": "torch",
    "backports": "rosbags",
}
OPTIONAL = {"compression", "onnxruntime", "poselib", "rerun", "tensorrt"}  # compression: Python's own from 3.14 on


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """A copy as a workspace has it, without what lies in a working checkout: CMake refuses a source folder that holds
    the virtual environment, too."""
    left_out = shutil.ignore_patterns(".*", "__pycache__", "venv", "results", "build", "install", "log")
    return Path(shutil.copytree(ROOT, tmp_path_factory.mktemp("workspace") / "dimm_ros", ignore=left_out))


@pytest.fixture(scope="module")
def built(source: Path, tmp_path_factory) -> Path:
    """A configured build folder."""
    binaries = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    cmake, prefix = shutil.which("cmake", path=binaries), os.environ.get("AMENT_PREFIX_PATH") or sys.prefix
    if cmake is None or not any((Path(one) / "share" / "ament_cmake").is_dir() for one in prefix.split(os.pathsep)):
        pytest.skip("CMake or ament_cmake is not installed")
    folder = tmp_path_factory.mktemp("build")
    environment = {
        **os.environ,
        "PATH": binaries,
        "AMENT_PREFIX_PATH": prefix,
        "CMAKE_PREFIX_PATH": prefix.replace(os.pathsep, ";"),
    }
    configured = subprocess.run(
        [cmake, "-S", str(source), "-B", str(folder), f"-DPython3_EXECUTABLE={sys.executable}"],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert configured.returncode == 0, configured.stdout + configured.stderr
    return folder


@pytest.mark.long
def test_what_is_generated_can_be_run(built: Path) -> None:
    """With --symlink-install ros2 run starts these files themselves."""
    executables = sorted((built / "executables").iterdir())
    assert [path.name for path in executables] == ["dimm", "localizer", "player"]
    for path in executables:
        assert os.access(path, os.X_OK), f"{path.name} has mode {path.stat().st_mode:o}"
    run = subprocess.run(
        [built / "executables" / "player", "--help"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert run.returncode == 0 and "Play a ROS 2 bag" in run.stdout, run.stderr


@pytest.mark.long
def test_ctest_runs_every_test_file(built: Path, source: Path) -> None:
    """colcon test runs ctest: each folder of test/ and each file beside them is one of its tests."""
    text = (built / "CTestTestfile.cmake").read_text(encoding="utf-8")
    given = set(re.findall(rf'"{re.escape(str(source))}/test/([^/"]+)"', text))
    there = {path.relative_to(ROOT / "test").parts[0] for path in (ROOT / "test").rglob("test_*.py")}
    assert given == there and "ros" in given


def test_the_package_declares_what_it_imports() -> None:
    root = ElementTree.parse(ROOT / "package.xml").getroot()
    declared = {entry.text for kind in ("depend", "exec_depend") for entry in root.findall(kind)}
    assert {"ros2launch", "rviz2"} <= declared  # what the documented commands and replay.launch.py start
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    by_hand = set(
        re.search(r"`pip install ([^`]*)`, `colcon build`", " ".join(readme.split())).group(1).replace("'", "").split()
    )
    assert {word.partition(">")[0] for word in by_hand} == BY_HAND and "typer>=0.9.4" in by_hand
    imported = set()
    for path in [*(ROOT / "dimm_ros").rglob("*.py"), *(ROOT / "launch").glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                imported.add(node.module.partition(".")[0])
            elif isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
    imported = (
        {WITH_OTHERS.get(name, name) for name in imported}
        - set(sys.stdlib_module_names)
        - OPTIONAL
        - BY_HAND
        - {"dimm_ros"}
    )
    assert {KEYS.get(name, name) for name in imported} <= declared
