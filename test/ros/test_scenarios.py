"""What robots go through, with the node as it runs: carried away, in an unknown place, with odometry that drifts."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from tf2_msgs.msg import TFMessage

from benchmarks.drift import Drive, draw, figures
from dimm_ros.config import HeadConfig, TrainingConfig
from dimm_ros.data.open import open_recording
from dimm_ros.gallery.recorder import record_bag
from dimm_ros.gallery.scene import build_room
from dimm_ros.gallery.trajectory import MOUNTS, trajectory
from dimm_ros.geometry import poses
from dimm_ros.geometry.camera import Camera
from dimm_ros.localizer import Estimate
from dimm_ros.mapping.build import build_map
from dimm_ros.msg import LocalizationStatus
from dimm_ros.ros.messages import to_image, to_transform

from .robot import CAMERA_FRAME, KnownPose, Robot
from .waiting import PATIENCE

MOUNT = MOUNTS["handheld"]
STEPS = 10  # images of each stretch


@dataclass(frozen=True)
class View:
    """An image and where it was taken."""

    image: np.ndarray
    world_from_base: np.ndarray


def calibrate(robot: Robot, camera: Camera) -> None:
    """Tell the node its camera and where it sits."""
    robot.send_static("base_link", CAMERA_FRAME, MOUNT)
    robot.send_info(width=camera.width, height=camera.height, k=camera.matrix.ravel().tolist())


def send(robot: Robot, image: np.ndarray, odom_from_base: np.ndarray) -> LocalizationStatus:
    """Publish an image with the odometry of its stamp; returns what became of it."""
    stamp = robot.now_ns()
    robot._tf.publish(TFMessage(transforms=[to_transform("odom", "base_link", stamp, odom_from_base)]))
    robot._images.publish(to_image(image, CAMERA_FRAME, stamp))
    return robot.report_of(stamp).message


@pytest.fixture(scope="module")
def mapped(ros_walk) -> tuple[list[View], Camera]:
    """The views that the map was made from: at these it is sure, so that the node's decisions are what is tested."""
    frames = open_recording(ros_walk.bag.parent / "mapping").frames
    base_from_world = poses.invert(MOUNT)
    return [View(frame.load(), frame.world_from_camera @ base_from_world) for frame in frames], frames[0].camera


def errors_of(robot: Robot, truth: dict[int, np.ndarray]) -> list[float]:
    """Distances of all published poses from the true ones, metres."""
    return [
        float(np.linalg.norm(one.map_from_body[:3, 3] - truth[one.stamp_ns][:3, 3])) for one in robot.collector.answers
    ]


@pytest.mark.long
def test_kidnapped_robot(make_robot, ros_walk, mapped) -> None:
    """The real network in the gallery: the stream jumps across the room while odometry says that the robot walks on."""
    views, camera = mapped
    robot = make_robot(real=True, map=str(ros_walk.map), device="cpu", gate__enabled=True, max_image_age=60.0)
    robot.wait_ready()
    calibrate(robot, camera)
    before, after = views[:STEPS], views[-STEPS:]
    jump = np.linalg.norm(after[0].world_from_base[:3, 3] - before[-1].world_from_base[:3, 3])
    assert jump > 1.5
    # odometry does not feel that it is carried
    carried = before[-1].world_from_base @ poses.invert(after[0].world_from_base)
    truth, said = {}, []
    for view, odom in [
        *((one, one.world_from_base) for one in before),
        *((one, carried @ one.world_from_base) for one in after),
    ]:
        status = send(robot, view.image, odom)
        said.append(status)
        truth[status.header.stamp.sec * 10**9 + status.header.stamp.nanosec] = view.world_from_base
    states = [status.state for status in said]
    assert states[STEPS - 1] == LocalizationStatus.LOCALIZED, said[STEPS - 1].reason
    first = next(index for index, status in enumerate(said[STEPS:]) if status.accepted)
    assert first < 5 and states[STEPS + first] == LocalizationStatus.LOCALIZED  # the fifth image at the latest
    assert not first or "odometry" in said[STEPS].reason
    assert states[-1] == LocalizationStatus.LOCALIZED
    errors = errors_of(robot, truth)
    assert len(errors) >= STEPS and max(errors) < 0.4, errors


@pytest.fixture(scope="module")
def calibrated_map(tmp_path_factory, encoder) -> Path:
    """A map of enough images that some are held out, by which it knows what is unlike all of them."""
    folder = tmp_path_factory.mktemp("calibrated")
    stamps, world_from_base = trajectory(1, 16.0, 10.0)
    camera = Camera(224, 168, 150.0, 150.0, 111.5, 83.5)
    recording = record_bag(folder / "mapping", build_room(), camera, stamps, world_from_base, MOUNT, compressed=False)
    training = TrainingConfig(steps=400, batch=512, passes=1)
    build_map(open_recording(recording), folder / "map.dimm", encoder, training=training, head=HeadConfig(width=128))
    return folder / "map.dimm"


@pytest.mark.long
def test_out_of_map_stream(make_robot, calibrated_map, shared_data) -> None:
    """The real network with a map of the gallery, in a real kitchen (7-Scenes): 500 images, no pose."""
    frames = open_recording(shared_data / "redkitchen").frames[:500]
    assert len(frames) == 500
    robot = make_robot(real=True, map=str(calibrated_map), device="cpu", gate__enabled=True, max_image_age=60.0)
    robot.wait_ready()
    calibrate(robot, frames[0].camera)
    for index, frame in enumerate(frames):
        status = send(robot, frame.load(), frame.world_from_camera @ poses.invert(MOUNT))
        assert not status.accepted, f"image {index}: {status.inliers} of {status.rays} rays"
        assert status.state == LocalizationStatus.UNINITIALIZED
        assert any(
            words in status.reason
            for words in ("rays agree", "uncertain", "unlike every mapped view", "estimates agree")
        ), status.reason
    assert not robot.collector.answers
    assert not [one for one in robot.collector.broadcasts if one.parent == "map"]


class Guided(KnownPose):
    """Stands in for the network: answers with the true pose, a few centimetres off, or with what a test wants."""

    name, frame_id = "known", "map"

    def __init__(self, world_from_base: Sequence[np.ndarray], sigma: float = 0.03, seed: int = 0) -> None:
        super().__init__()
        self._rng = np.random.default_rng(seed)
        self.covariance = np.diag([sigma**2] * 3 + [np.radians(0.5) ** 2] * 3)
        self.sigma, self.next = sigma, iter(world_from_base)

    def localize(self, image: np.ndarray, camera: Camera) -> Estimate:
        estimate = super().localize(image, camera)
        pose = next(self.next) @ MOUNT
        pose[:3, :3] = poses.exp_so3(np.radians(0.5) * self._rng.standard_normal(3)) @ pose[:3, :3]
        pose[:3, 3] += self.sigma * self._rng.standard_normal(3)
        return Estimate(
            world_from_camera=pose,
            covariance=self.covariance,
            accepted=True,
            reason="",
            inliers=90,
            rays=100,
            stage_ms=estimate.stage_ms,
        )


@pytest.mark.long
def test_map_base_stays_bounded_while_odometry_drifts(make_robot, tmp_path: Path) -> None:
    """A stand-in for the network, three centimetres off, for eight minutes of walking; figures as ``python -m
    benchmarks.drift`` gives.
    """
    drive = Drive.of(*trajectory(1, 480.0, 0.5, style="robot", spread=0.0), seed=3)
    robot = make_robot(localizer=Guided(drive.world_from_base), gate__enabled=True, map="known", max_image_age=60.0)
    robot.wait_ready()
    calibrate(robot, Camera(64, 48, 50.0, 50.0, 31.5, 23.5))
    taken = []
    image = np.full((48, 64, 3), 90, np.uint8)
    for index in range(len(drive.stamps_ns)):
        taken.append(time.monotonic())
        status = send(robot, image, drive.odom_from_base[index])
        if status.accepted:

            def corrected(at=taken[-1]):
                return any(one.parent == "map" and one.received_s > at for one in robot.collector.broadcasts)

            assert robot.collector.wait_for(corrected, PATIENCE)
    by_tf = drive.by_tf(robot.collector.broadcasts, taken)
    said = figures(drive, by_tf)
    assert said["images with map -> base in TF"] > 200
    assert said["odometry alone, worst"] > 1.2  # it has drifted away, as far as the room lets it
    # Between two images the robot walks up to two metres: the error is that of the estimate and of odometry over that
    # way.
    assert said["TF worst"] < 0.4 and said["TF median"] < 0.15
    assert draw(tmp_path / "drift.png", drive, by_tf).stat().st_size > 10_000


def test_a_few_wrong_estimates_are_not_published(make_robot) -> None:
    """A stand-in that is wrong by metres for two images, twice, each time elsewhere: nothing wrong is published,
    nothing right is lost.
    """
    _, world_from_base = trajectory(1, 6.0, 5.0, style="robot", spread=0.0)
    shown = world_from_base.copy()
    for index in (12, 13, 22, 23):
        shown[index, :3, 3] += [2.0, -1.0 - index, 0.0]
    robot = make_robot(localizer=Guided(shown), gate__enabled=True, map="known", max_image_age=60.0)
    robot.wait_ready()
    calibrate(robot, Camera(64, 48, 50.0, 50.0, 31.5, 23.5))
    accepted = [send(robot, np.full((48, 64, 3), 90, np.uint8), pose).accepted for pose in world_from_base]
    assert not any(accepted[index] for index in (12, 13, 22, 23))
    assert all(accepted[index] for index in (*range(5, 12), *range(14, 22), *range(24, len(accepted))))
