"""The launch files by ros2 launch itself, with the package as colcon installed it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def _missing() -> str:
    """Why these tests cannot run here, "" where they can."""
    if find_spec("launch_ros") is None or find_spec("ros2launch") is None:
        return "ros2launch is not installed"
    from ament_index_python.packages import PackageNotFoundError, get_package_prefix

    try:
        get_package_prefix("dimm_ros")
    except PackageNotFoundError:
        return "dimm_ros is not installed (colcon build; source install/setup.bash)"
    return ""


pytestmark = pytest.mark.skipif(bool(_missing()), reason=_missing())


class Launched:
    """A running ros2 launch and what it has said so far."""

    def __init__(self, process: subprocess.Popen) -> None:
        self.process, self.lines, self._more = process, [], threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self.process.stdout:
            with self._more:
                self.lines.append(line)
                self._more.notify_all()
        with self._more:
            self._more.notify_all()

    def wait_for(self, pattern: str, count: int = 1) -> list[str]:
        """Wait until that many lines match, and return the pattern's first group of each."""
        with self._more:
            found = lambda: [match.group(1) for line in self.lines if (match := re.search(pattern, line))]  # noqa: E731
            assert self._more.wait_for(lambda: len(found()) >= count, 120.0), "".join(self.lines)
            return found()

    def end(self) -> int:
        """Wait until it has ended by itself."""
        status = self.process.wait(120.0)
        self._reader.join(10.0)
        return status


@contextmanager
def launched(name: str, *arguments: str, **variables: str) -> Iterator[Launched]:
    from dimm_ros.replay.session import free_domain_id, local_environment

    environment = {**os.environ, **local_environment(free_domain_id()), "PYTHONUNBUFFERED": "1", **variables}
    process = subprocess.Popen(
        ["ros2", "launch", str(ROOT / "launch" / name), *arguments],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        yield Launched(process)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(60.0)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.parametrize("namespace", ["", "robot1"])
def test_a_killed_node_is_started_and_configured_again(small_map: Path, namespace: str) -> None:
    """After a crash nobody but the node itself need drive its lifecycle."""
    arguments = [f"map:={small_map}", "use_respawn:=true", f"namespace:={namespace}"]
    with launched("localization.launch.py", *arguments) as running:
        (pid,) = running.wait_for(r"process started with pid \[(\d+)\]")
        running.wait_for(r"(Waiting for images) on")
        os.kill(int(pid), signal.SIGKILL)
        assert running.wait_for(r"process started with pid \[(\d+)\]", 2)[1] != pid
        running.wait_for(r"(Waiting for images) on", 2)


def test_a_parameter_file_counts_in_a_namespace(small_map: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(f"localizer:\n  ros__parameters: {{map: '{small_map}'}}\n", encoding="utf-8")
    with launched("localization.launch.py", f"params_file:={tmp_path / 'mine.yaml'}", "namespace:=robot1") as running:
        running.wait_for(r"(Waiting for images) on '/robot1/image'")


def test_a_bad_parameter_ends_the_launch(tmp_path: Path) -> None:
    """The node ends with one sentence, and nothing keeps launch waiting for it."""
    (tmp_path / "mine.yaml").write_text("localizer:\n  ros__parameters: {tf_rate: fast}\n", encoding="utf-8")
    with launched("localization.launch.py", f"params_file:={tmp_path / 'mine.yaml'}", "map:=none") as running:
        running.end()
        said = [line for line in running.lines if "localizer: " in line]
        assert len(said) == 1 and "tf_rate" in said[0]


def test_replay_starts_nothing_without_rviz(small_map: Path, other_walk: Path) -> None:
    from ament_index_python.packages import PackageNotFoundError, get_package_prefix

    try:
        get_package_prefix("rviz2")
    except PackageNotFoundError:
        pass
    else:
        pytest.skip("rviz2 is installed")
    arguments = [
        f"map:={small_map}",
        f"bagfile:={other_walk}",
        "image:=/camera/image_raw",
        "camera_info:=/camera/camera_info",
    ]
    with launched("replay.launch.py", *arguments) as running:
        assert running.end() == 1
        said = "".join(running.lines)
        assert "rviz2 is not installed" in said and "process started" not in said


@pytest.mark.parametrize("namespace", ["", "robot1"])
def test_replay_ends_together(small_map: Path, tmp_path: Path, namespace: str) -> None:
    """The player cannot read its bag: the localizer ends, too."""
    arguments = [f"map:={small_map}", f"bagfile:={tmp_path / 'none'}", "image:=/image", "camera_info:=/info"]
    with launched("replay.launch.py", *arguments, "visualize:=false", f"namespace:={namespace}") as running:
        running.end()
        said = "".join(running.lines)
        assert (
            said.count("process started") == 2
            and "does not exist" in said
            and "one of the replay's processes has ended" in said
        )


@pytest.mark.parametrize("namespace", ["", "robot1"])
def test_a_bag_is_replayed_to_its_end(small_map: Path, other_walk: Path, tmp_path: Path, namespace: str) -> None:
    (tmp_path / "mine.yaml").write_text(
        "localizer:\n  ros__parameters: {image_transport: compressed}\n", encoding="utf-8"
    )
    arguments = [
        f"map:={small_map}",
        f"bagfile:={other_walk}",
        f"params_file:={tmp_path / 'mine.yaml'}",
        "rate:=0.5",
        "image:=/camera/image_raw/compressed",
        "camera_info:=/camera/camera_info",
    ]
    with launched("replay.launch.py", *arguments, "visualize:=false", f"namespace:={namespace}") as running:
        assert running.wait_for(r"Played (\d+) images")[0] != "0"
        running.end()


@pytest.mark.parametrize("exported", ["", "/etc/robot/dds.xml"])
def test_an_exported_profile_stays(exported: str) -> None:
    """What the node's process has in its environment."""
    names = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")
    with launched("localization.launch.py", "map:=none", **dict.fromkeys(names, exported)) as running:
        (pid,) = running.wait_for(r"process started with pid \[(\d+)\]")
        running.wait_for(r"(Loading map)")
        environment = dict(
            entry.split("=", 1)
            for entry in Path(f"/proc/{pid}/environ").read_text(encoding="utf-8").split("\0")
            if "=" in entry
        )
        found = [environment.get(name, "") for name in names]
        assert found == [exported] * 2 if exported else all(one.endswith("config/fastdds.xml") for one in found)
