"""The sample: a small ready map of the gallery and a bag of another walk through it, to try the node with.

A release's asset, so that the node can be tried without making a map: ``make sample``.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

from dimm_ros import __version__
from dimm_ros.config import PRESETS, Preset
from dimm_ros.data.bag_writer import CAMERA_INFO_TOPIC, IMAGE_TOPIC
from dimm_ros.data.open import open_recording
from dimm_ros.encoder.dinov2 import Encoder
from dimm_ros.errors import DataError
from dimm_ros.evaluation.evaluate import evaluate
from dimm_ros.evaluation.metrics import summarise
from dimm_ros.gallery.recorder import GALLERY_CAMERA
from dimm_ros.geometry.camera import Camera
from dimm_ros.localizer import Localizer
from dimm_ros.mapping.build import build_map
from dimm_ros.progress import ProgressCallback
from dimm_ros.replay.demo_bags import record_walk
from dimm_ros.scene_map import SceneMap
from dimm_ros.whole_file import write_whole

MAP, BAG, PARAMETERS, README = "gallery.dimm", "walk_bag", "localizer.yaml", "README.md"
TRUTH_TOPIC = "/ground_truth"

_MAPPING_SEED, _WALK_SEED = 11, 12
_CHECKED = 10  # images of the walk that the map must answer before the sample is given away
_LEAST_ANSWERED = 0.8


@dataclass(frozen=True)
class SampleSize:
    """How large a sample is.

    Attributes:
        preset: of the map.
        mapping_seconds: of the walk that is mapped.
        seconds: of the bag.
        rate: images a second in both.
        camera: of both.
    """

    preset: Preset = PRESETS["demo"]
    mapping_seconds: float = 56.0
    seconds: float = 10.0
    rate: float = 8.0
    camera: Camera = GALLERY_CAMERA


def write_sample(
    folder: Path, encoder: Encoder, progress: ProgressCallback, size: SampleSize | None = None
) -> Path | None:
    """Write the sample: a map, a bag, the node's parameters for it, a README with the commands; and FOLDER.tar.gz.

    What takes long is kept in ``<folder>.work`` until all is there; the same call goes on from there.

    Args:
        folder: to write; it must not be there, or be an earlier sample.
        encoder: of the map.
        size: None takes the usual one.

    Returns:
        The archive; None when ``progress`` asked to stop.

    Raises:
        DataError: the folder is something else, or the map does not answer on the walk.
        MapError: a file cannot be written.
    """
    size, asked = size or SampleSize(), _Asked(progress)
    if folder.exists() and not (folder / MAP).is_file():
        raise DataError(f"'{folder}' exists and is no sample; choose another folder.")
    work = folder.with_name(folder.name + ".work")
    mapping, walk, scene = work / "mapping_bag", work / BAG, work / MAP
    if not mapping.exists():
        record_walk(mapping, _MAPPING_SEED, size.mapping_seconds, size.rate, asked, camera=size.camera)
    if not asked.to_stop and not walk.exists():
        record_walk(
            walk,
            _WALK_SEED,
            size.seconds,
            size.rate,
            asked,
            camera=size.camera,
            map_to_odom=False,
            ground_truth_topic=TRUTH_TOPIC,
            storage="sqlite3",  # every ROS 2 distribution plays it
        )
    if asked.to_stop:
        return None
    if not (scene.is_file() and SceneMap.load(scene).header.complete):
        preset = size.preset
        result = build_map(
            open_recording(mapping),
            scene,
            encoder,
            head=preset.head,
            training=preset.training,
            landmarks=preset.landmarks,
            name="gallery",
            licence="CC0-1.0",
            progress=asked,
        )
        if asked.to_stop or not result.complete:
            return None
    figures = _check(scene, walk, encoder, asked)
    if asked.to_stop:
        return None
    staged = work / "sample"
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir()
    shutil.copy(scene, staged)
    shutil.copytree(walk, staged / BAG)
    parameters = {"/**": {"ros__parameters": {"image_transport": "compressed", "use_sim_time": True}}}
    write_whole(staged / PARAMETERS, yaml.safe_dump(parameters))
    write_whole(staged / README, _readme(SceneMap.load(scene), figures, size))
    packed = Path(shutil.make_archive(str(work / "packed"), "gztar", work, staged.name))
    archive = packed.replace(folder.with_name(f"{folder.name}.tar.gz"))
    shutil.rmtree(folder, ignore_errors=True)
    staged.rename(folder)
    shutil.rmtree(work)
    return archive


class _Asked:
    """A watcher that remembers whether it was asked to stop: rendering and checking only end where a stage does.

    Attributes:
        to_stop: whether.
    """

    def __init__(self, progress: ProgressCallback) -> None:
        self._progress, self.to_stop = progress, False

    def __call__(self, stage: str, done: int, total: int, note: str) -> bool:
        self.to_stop = bool(self._progress(stage, done, total, note)) or self.to_stop
        return self.to_stop


def _check(scene: Path, walk: Path, encoder: Encoder, progress: ProgressCallback) -> dict:
    """Figures of the map on some images of the walk."""
    recording = open_recording(walk, pose_topic=TRUTH_TOPIC)
    frames = recording.frames[:: max(1, len(recording.frames) // _CHECKED)]
    recording = replace(recording, frames=frames)
    localizer = Localizer(SceneMap.load(scene, encoder.device), encoder)
    figures = summarise(evaluate(localizer, recording, None, lambda done, total: progress("checking", done, total, "")))
    if figures["answered"] < _LEAST_ANSWERED * figures["frames"]:
        raise DataError(
            f"The sample's map answers only {figures['answered']} of {figures['frames']} images of its walk, "
            "which helps nobody; give it more "
            "images or steps."
        )
    return figures


def _readme(scene_map: SceneMap, figures: dict, size: SampleSize) -> str:
    header, centimetres = scene_map.header, 100 * figures["median_translation_m"]
    return f"""# A map and a bag to try dimm_ros with

Made by `make sample` of dimm_ros {__version__}; rendered, so anybody may use it (CC0-1.0).

`{MAP}` is a map of a rendered room, `{BAG}` are {size.seconds:g} seconds of another walk through it: images
(compressed), camera_info, odometry on /tf, the camera's place on /tf_static, and the true pose of base_link on
{TRUTH_TOPIC}. In this folder, each command in a terminal of its own:

```
ros2 launch dimm_ros localization.launch.py map:=$PWD/{MAP} params_file:=$PWD/{PARAMETERS} use_sim_time:=true \\
    image:={IMAGE_TOPIC}/compressed camera_info:={CAMERA_INFO_TOPIC}
ros2 bag play {BAG} --clock
```

Start the bag once the log says that the localizer waits for images. Then see `ros2 topic echo /localization_pose`,
`ros2 topic echo /status`, or `rviz2 -d $(ros2 pkg prefix --share dimm_ros)/config/localizer.rviz`, which shows the
map, too. Without ROS:

```
dimm eval {MAP} {BAG} --pose-topic {TRUTH_TOPIC}
```

The map needs the encoder's weights that it was made with, {header.encoder_origin}
(SHA-256 {header.encoder_sha256[:12]}...): `dimm weights` finds
or fetches them. When the sample was made, the map answered {figures["answered"]} of {figures["frames"]} images of the
walk, with a median error of
{centimetres:.1f} cm and {figures["median_rotation_deg"]:.2f} degrees.
"""
