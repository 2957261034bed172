"""The main job over DDS: the node, a bag player and an independent DDS peer, each a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dimm_ros.geometry import poses
from dimm_ros.replay.player import PlayOptions
from dimm_ros.replay.session import LocalizerProcess, free_domain_id, local_environment, replay_bag

REMAP = {"image": "/camera/image_raw", "camera_info": "/camera/camera_info"}
RECORDED = ("map", "odom")


def child_environment(domain: int) -> dict[str, str]:
    import os

    return {**os.environ, **local_environment(domain), "ROS_PYTHON_CHECK_FIELDS": "1"}


@pytest.mark.long
def test_peer_receives_poses_and_tf(ros_walk, tmp_path) -> None:
    domain = free_domain_id()
    environment = child_environment(domain)
    peer = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("dds_peer.py")), str(domain), "10"],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    log = tmp_path / "localizer.log"
    try:
        assert json.loads(peer.stdout.readline())["kind"] == "listening"
        # Loose acceptance: this is about what arrives, and the map is small.
        parameters = {
            "map": str(ros_walk.map),
            "device": "cpu",
            "use_sim_time": True,
            "acceptance.min_inlier_ratio": 0.0,
            "acceptance.max_position_sigma": 100.0,
            "acceptance.max_rotation_sigma_deg": 180.0,
            "gate.enabled": False,
        }
        with LocalizerProcess(environment, parameters, REMAP, log) as localizer:
            played = subprocess.run(
                [
                    sys.executable,
                    "-m",
                    "dimm_ros.replay.player",
                    str(ros_walk.bag),
                    "--clock",
                    "--wait-ready",
                    "--wait-answers",
                    "--drop-transforms",
                    ":".join(RECORDED),
                ],
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=240,
            )
            assert played.returncode == 0, played.stderr + log.read_text()
            heard = [json.loads(line) for line in peer.communicate(timeout=60)[0].splitlines()]
            assert localizer.stop() == 0
    finally:
        peer.kill()
    answers = [one for one in heard if one["kind"] == "pose"]
    assert len(answers) >= 10, log.read_text()
    assert len({one["stamp_ns"] for one in answers}) == len(answers)
    errors = []
    for answer in answers:
        assert answer["frame"] == "map"
        truth = ros_walk.world_from_base[answer["stamp_ns"]]  # KeyError: not the stamp of an image
        covariance = np.array(answer["covariance"]).reshape(6, 6)
        assert np.isfinite(covariance).all()
        assert np.linalg.eigvalsh(covariance).min() > 0
        estimate = poses.from_quaternion(np.array(answer["position"]), np.array(answer["orientation"]))
        errors.append([float(error) for error in poses.pose_errors(estimate, truth)])
    translation, rotation = np.median(errors, axis=0)
    assert translation < 0.5 and rotation < 15.0, (translation, rotation)

    ours = [one for one in heard if one["kind"] == "tf" and one["frame"] == "map"]
    assert ours and {one["child"] for one in ours} == {"odom"}
    assert {one["child"] for one in heard if one["kind"] == "tf" and one["frame"] == "odom"} == {"base_link"}


@pytest.mark.long
def test_replay_answers_every_frame(ros_walk, tmp_path) -> None:
    """As the demo does it: the chain map -> odom -> base_link that TF users see ends at the published pose."""
    options = PlayOptions(rate=0.0, clock=True, wait_ready=True, wait_answers=True, drop_transforms=(RECORDED,))
    parameters = {
        "map": str(ros_walk.map),
        "device": "cpu",
        "acceptance.min_inlier_ratio": 0.0,
        "acceptance.max_position_sigma": 100.0,
        "acceptance.max_rotation_sigma_deg": 180.0,
        "gate.enabled": False,
    }
    log = tmp_path / "localizer.log"
    replay = replay_bag(ros_walk.bag, parameters=parameters, remap=REMAP, options=options, log=log)
    assert replay.played.images and not replay.played.unanswered, log.read_text()
    assert [answer.stamp_ns for answer in replay.answers] == list(replay.played.images), log.read_text()
    assert all(0 < latency < 60_000 for latency in replay.latencies_ms()) and len(replay.latencies_ms()) == len(
        replay.answers
    )
    assert max(answer.received_s for answer in replay.answers) > min(replay.played.images.values())
