"""``python -m benchmarks.drift``: what TF's users see while odometry drifts, with ``tf_mode: map_odom`` and without a
localizer.

A robot drives six rounds of a mapped route in the gallery with poor odometry (5 % in distances, several degrees a
minute). The localizer, a process of its own, corrects map -> odom; the position of base_link in the map is read from TF
as each image is taken, before that image's own answer. Beside it: odometry alone, right at the start.
"""

from __future__ import annotations

import json
import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch loads

import tempfile  # noqa: E402
import time  # noqa: E402
from collections.abc import Sequence  # noqa: E402
from dataclasses import dataclass  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Annotated  # noqa: E402

import numpy as np  # noqa: E402
import typer  # noqa: E402

from benchmarks.report import run  # noqa: E402
from dimm_ros.cli.console import console  # noqa: E402
from dimm_ros.errors import DimmError  # noqa: E402
from dimm_ros.gallery.odometry import drifting_odometry  # noqa: E402
from dimm_ros.geometry import poses  # noqa: E402
from dimm_ros.replay.collector import Broadcast  # noqa: E402

_RATE_HZ, _SECONDS = 2.0, 84.0


@dataclass(frozen=True)
class Drive:
    """A drive past known places.

    Attributes:
        stamps_ns: (N,) of the images, of the recording's clock.
        world_from_base: (N, 4, 4) true poses.
        odom_from_base: (N, 4, 4) what odometry says.
    """

    stamps_ns: np.ndarray
    world_from_base: np.ndarray
    odom_from_base: np.ndarray

    @classmethod
    def of(cls, stamps_ns: np.ndarray, world_from_base: np.ndarray, seed: int) -> Drive:
        """With poor odometry."""
        odometry = drifting_odometry(
            stamps_ns, world_from_base, seed, scale_error=0.05, yaw_walk_deg=2.0, yaw_bias_deg=0.3
        )
        return cls(stamps_ns, world_from_base, odometry)

    def by_odometry(self) -> np.ndarray:
        """(N, 4, 4) map_from_base of odometry alone, right at the start."""
        return self.world_from_base[0] @ poses.invert(self.odom_from_base[0]) @ self.odom_from_base

    def by_tf(
        self,
        broadcasts: Sequence[Broadcast],
        taken_s: Sequence[float],
        map_frame: str = "map",
        odom_frame: str = "odom",
    ) -> np.ndarray:
        """(N, 4, 4) map_from_base of the newest map -> odom that TF had when each image was taken; NaN before the
        first.

        Args:
            broadcasts: transforms of /tf in the order of their arrival.
            taken_s: when each image was published, ``time.monotonic()``.
            map_frame, odom_frame: of the wanted transform.
        """
        ours = [one for one in broadcasts if (one.parent, one.child) == (map_frame, odom_frame)]
        arrived = np.array([one.received_s for one in ours])
        result = np.full((len(self.stamps_ns), 4, 4), np.nan)
        for index, at in enumerate(taken_s):
            newest = int(np.searchsorted(arrived, at)) - 1
            if newest >= 0:
                result[index] = ours[newest].parent_from_child @ self.odom_from_base[index]
        return result

    def errors_m(self, map_from_base: np.ndarray) -> np.ndarray:
        """(N,) distances from the true positions, metres."""
        return np.linalg.norm(map_from_base[:, :3, 3] - self.world_from_base[:, :3, 3], axis=1)


def figures(drive: Drive, by_tf: np.ndarray) -> dict[str, float]:
    """Errors of both, metres: TF's since its first transform, odometry's at the end and at its worst."""
    ours, alone = drive.errors_m(by_tf), drive.errors_m(drive.by_odometry())
    known = ours[np.isfinite(ours)]
    return {
        "images": len(ours),
        "images with map -> base in TF": len(known),
        "TF median": float(np.median(known)),
        "TF worst": float(known.max()),
        "odometry alone, end": float(alone[-1]),
        "odometry alone, worst": float(alone.max()),
    }


def draw(path: Path, drive: Drive, by_tf: np.ndarray) -> Path:
    """The three paths from above, and the errors over time."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, (top, bottom) = plt.subplots(2, 1, figsize=(8, 9), height_ratios=[3, 1], layout="constrained")
    seconds = (drive.stamps_ns - drive.stamps_ns[0]) * 1e-9
    true, alone = drive.world_from_base, drive.by_odometry()
    top.plot(true[:, 0, 3], true[:, 1, 3], color="0.35", linewidth=2, label="true")
    for name, path_of, colour in (
        ("odometry alone", alone, "tab:red"),
        ("map -> base in TF (tf_mode map_odom)", by_tf, "tab:blue"),
    ):
        top.plot(path_of[:, 0, 3], path_of[:, 1, 3], "-", color=colour, linewidth=1, label=name)
        bottom.plot(seconds, drive.errors_m(path_of), color=colour)
    top.set(xlabel="x [m]", ylabel="y [m]", aspect="equal", title="Drifting odometry, corrected by the localizer")
    bottom.set(xlabel="time [s]", ylabel="position error [m]", ylim=(0, None))
    for axis in (top, bottom):
        axis.grid(alpha=0.3)
    top.legend()
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path


def driven(folder: Path, log: Path) -> tuple[Drive, np.ndarray]:
    """Map the route, drive it with the localizer in a process of its own; returns the drive and what TF said."""
    from sensor_msgs.msg import CameraInfo, Image
    from tf2_msgs.msg import TFMessage

    from dimm_ros.config import EncoderConfig, HeadConfig, TrainingConfig
    from dimm_ros.data.open import open_recording
    from dimm_ros.encoder.dinov2 import Encoder
    from dimm_ros.gallery.recorder import record_bag
    from dimm_ros.gallery.render import render
    from dimm_ros.gallery.scene import build_room
    from dimm_ros.gallery.trajectory import LAP_SECONDS, MOUNTS, trajectory
    from dimm_ros.geometry.camera import Camera
    from dimm_ros.mapping.build import build_map
    from dimm_ros.replay.collector import Collector
    from dimm_ros.replay.session import LocalizerProcess, LocalSession
    from dimm_ros.ros.messages import to_image, to_stamp, to_transform
    from dimm_ros.ros.tf import DYNAMIC_QOS, STATIC_QOS

    scene, camera, mount, frame = (
        build_room(),
        Camera(320, 240, 200.0, 200.0, 159.5, 119.5),
        MOUNTS["robot"],
        "camera_optical_frame",
    )
    stamps, mapped = trajectory(1, LAP_SECONDS + 3.0, 10.0, style="robot", spread=0.0)
    recording = record_bag(folder / "mapping", scene, camera, stamps, mapped, mount, compressed=False)
    training = TrainingConfig(steps=1000, batch=1024, passes=1)
    scene_map = folder / "map.safetensors"
    encoder = Encoder.open(EncoderConfig(input_size=224), device="cpu")
    build_map(open_recording(recording), scene_map, encoder, training=training, head=HeadConfig(width=128))

    drive = Drive.of(*trajectory(1, _SECONDS, _RATE_HZ, style="robot", spread=0.0), seed=3)
    taken_s: list[float] = []
    with LocalSession("drive") as session:
        node, collector = session.node, Collector(session.node)
        images, infos = node.create_publisher(Image, "image", 1), node.create_publisher(CameraInfo, "camera_info", 1)
        tf, static = (
            node.create_publisher(TFMessage, "/tf", DYNAMIC_QOS),
            node.create_publisher(TFMessage, "/tf_static", STATIC_QOS),
        )
        static.publish(TFMessage(transforms=[to_transform("base_link", frame, 0, mount)]))
        info = CameraInfo(
            width=camera.width,
            height=camera.height,
            distortion_model="plumb_bob",
            d=[0.0] * 5,
            k=camera.matrix.ravel().tolist(),
        )
        parameters = {"map": str(scene_map), "device": "cpu", "max_image_age": 30.0}
        with LocalizerProcess(session.environment, parameters, {}, log):
            while not (
                images.get_subscription_count() and infos.get_subscription_count() and tf.get_subscription_count()
            ):
                time.sleep(0.05)
            for pose, odometry in zip(drive.world_from_base, drive.odom_from_base, strict=True):
                picture = render(scene, camera, pose @ mount)
                stamp = node.get_clock().now().nanoseconds
                taken_s.append(time.monotonic())
                info.header.stamp, info.header.frame_id = to_stamp(stamp), frame
                infos.publish(info)
                tf.publish(TFMessage(transforms=[to_transform("odom", "base_link", stamp, odometry)]))
                images.publish(to_image(picture, frame, stamp))
                if not collector.wait_for(lambda stamp=stamp: collector.report_of(stamp), 30.0):
                    raise DimmError(f"The localizer said nothing of an image for 30 s; see {log}.")
                collector.wait_for(
                    lambda at=time.monotonic(): any(
                        one.parent == "map" and one.received_s > at for one in collector.broadcasts
                    ),
                    0.3,
                )
        return drive, drive.by_tf(collector.broadcasts, taken_s)


def main(
    results: Annotated[Path, typer.Option(help="where the picture and the figures go")] = Path("results/drift"),
) -> None:
    """Drive with drifting odometry, print the errors and draw the picture."""
    results.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="dimm_drift_") as folder:
        drive, by_tf = driven(Path(folder), results / "localizer.log")
    said = figures(drive, by_tf)
    for name, value in said.items():
        console.print(f"{name:32} {value if isinstance(value, int) else f'{value:.3f} m'}", highlight=False)
    (results / "drift.json").write_text(json.dumps(said, indent=2) + "\n")
    console.print(f"picture: {draw(results / 'drift.png', drive, by_tf)}", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    run(main)
