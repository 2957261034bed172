"""config/sros2_policy.xml allows the localizer's names, all of them and no others; no file that it reads can run
anything.
"""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml

from .waiting import PATIENCE

ROOT = Path(__file__).resolve().parents[2]
SINCE_IRON = {"/localizer/get_type_description"}


def allowed(kind: str, permission: str) -> set[str]:
    """Resolved names of a kind ("topic", "service") in the policy."""
    profile = ElementTree.parse(ROOT / "config" / "sros2_policy.xml").find("./enclaves/enclave/profiles/profile")
    assert profile.attrib == {"ns": "/", "node": "localizer"}
    names = [
        one.text
        for group in profile.findall(f"{kind}s")
        if group.get(permission) == "ALLOW"
        for one in group.findall(kind)
    ]
    assert len(names) == len(set(names))
    return {
        name if name.startswith("/") else f"/localizer{name[1:]}" if name.startswith("~/") else f"/{name}"
        for name in names
    }


def test_policy_names_what_the_running_node_uses(make_robot, session) -> None:
    robot = make_robot(use_sim_time=True)
    node, who = session.node, ("localizer", "/")

    def names(query) -> set[str]:
        return {name for name, _ in query(*who)}

    robot.wait(lambda: "/reinitialize_global_localization" in names(node.get_service_names_and_types_by_node))
    robot.wait(lambda: names(node.get_publisher_names_and_types_by_node) == allowed("topic", "publish"))
    robot.wait(lambda: names(node.get_subscriber_names_and_types_by_node) == allowed("topic", "subscribe"))
    assert (
        allowed("service", "reply") - SINCE_IRON
        <= names(node.get_service_names_and_types_by_node)
        <= allowed("service", "reply")
    )
    assert not names(node.get_client_names_and_types_by_node) and not allowed("service", "request")


def test_a_pickle_is_no_map(make_robot, tmp_path) -> None:
    """A file that would run a command if it were unpickled is refused as any other file."""
    proof = tmp_path / "executed"

    class Evil:
        def __reduce__(self):
            return (open, (str(proof), "w"))

    path = tmp_path / "evil.safetensors"
    path.write_bytes(pickle.dumps(Evil()))
    pickle.loads(path.read_bytes()).close()
    assert proof.exists()  # it would have worked
    proof.unlink()
    robot = make_robot(real=True, ready=False, map=str(path), device="cpu")
    assert robot.collector.wait_for(
        lambda: any("damaged or not a map" in one.message.reason for one in robot.collector.reports), PATIENCE
    )
    assert not proof.exists()


def test_the_package_unpickles_nothing() -> None:
    code = re.compile(
        r"^\s*(?:import pickle|from pickle)|torch\.load\(|allow_pickle=True|yaml\.load\(|(?<![.\w])(?:eval|exec)\(",
        re.MULTILINE,
    )
    found = {
        str(path.relative_to(ROOT)): code.findall(path.read_text(encoding="utf-8"))
        for path in (ROOT / "dimm_ros").rglob("*.py")
    }
    assert {path: hits for path, hits in found.items() if hits} == {}


class TestConfigurations:
    """Files for other packages' nodes: they parse, and what they say of ours is true."""

    def test_nav2_file_sets_parameters_that_exist(self) -> None:
        from dimm_ros.ros.parameters import config_from, declarations

        tree = yaml.safe_load((ROOT / "config" / "nav2_localization.yaml").read_text(encoding="utf-8"))
        ours = tree["/**/localizer"]["ros__parameters"]
        assert set(ours) <= {declaration.name for declaration in declarations()}
        assert config_from(ours).tf_mode == "map_odom" and ours["autostart"] is False
        manager = tree["/**/lifecycle_manager_localization"]["ros__parameters"]
        assert "localizer" in manager["node_names"] and manager["bond_timeout"] == 0.0

    def test_ekf_file_takes_the_pose_as_it_is_published(self, make_robot) -> None:
        tree = yaml.safe_load((ROOT / "config" / "ekf_visual.yaml").read_text(encoding="utf-8"))
        assert set(tree) == {"/**/ekf_filter_node_odom", "/**/ekf_filter_node_map"}
        ekf = tree["/**/ekf_filter_node_map"]["ros__parameters"]
        assert make_robot().session.node.resolve_topic_name(ekf["pose0"]) == "/localization_pose"
        assert (
            ekf["world_frame"] == ekf["map_frame"] == "map"
            and ekf["pose0_differential"] is False
            and ekf["smooth_lagged_data"] is True
        )
        assert (
            ekf["pose0_rejection_threshold"] > 0
            and len(ekf["pose0_config"]) == 15
            and ekf["pose0_config"][:6] == [True] * 6
        )
        assert "pose0" not in tree["/**/ekf_filter_node_odom"]["ros__parameters"]  # odom -> base_link must not jump

    def test_rviz_shows_what_is_published(self, make_robot) -> None:
        tree = yaml.safe_load((ROOT / "config" / "localizer.rviz").read_text(encoding="utf-8"))
        displays = {one["Name"]: one for one in tree["Visualization Manager"]["Displays"] if "Topic" in one}
        assert set(displays) == {"Localization pose", "Ray residuals", "Rays", "Mapped views", "Landmarks"}
        latched = {name for name, one in displays.items() if one["Topic"]["Durability Policy"] == "Transient Local"}
        assert latched == {"Mapped views", "Landmarks"}
        shown = {name: one["Topic"]["Value"] for name, one in displays.items()}
        tools = [one["Topic"]["Value"] for one in tree["Visualization Manager"]["Tools"] if "Topic" in one]
        assert tools == ["clicked_point", "initialpose"]
        assert not any(topic.startswith("/") for topic in shown.values())  # RViz in a namespace shows that robot's
        robot = make_robot()
        robot.wait(
            lambda: (
                {f"/{topic}" for topic in shown.values()}
                <= {name for name, _ in robot.session.node.get_topic_names_and_types()}
            )
        )


@pytest.mark.parametrize("path", ["maps/../../hall.safetensors", "hall\n.safetensors", "~/hall.safetensors"])
def test_odd_map_paths_are_answered_in_one_sentence(make_robot, path) -> None:
    robot = make_robot(real=True, ready=False, map=path, device="cpu")

    def said():
        return [one.message.reason for one in robot.collector.reports if "still being loaded" not in one.message.reason]

    assert robot.collector.wait_for(said, PATIENCE)
    assert "does not exist" in said()[-1] and "\n" not in said()[-1].replace("\n.safetensors", "")
