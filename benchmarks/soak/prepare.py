"""What the soak needs: a recording of the gallery, a small map of it, and that map under another name."""

from __future__ import annotations

from pathlib import Path

from dimm_ros.config import EncoderConfig, HeadConfig, TrainingConfig
from dimm_ros.data.open import open_recording
from dimm_ros.encoder.dinov2 import Encoder
from dimm_ros.gallery.recorder import record_bag
from dimm_ros.gallery.scene import build_room
from dimm_ros.gallery.trajectory import MOUNTS, trajectory
from dimm_ros.geometry.camera import Camera
from dimm_ros.mapping.build import build_map
from dimm_ros.scene_map import SceneMap


def make_maps(folder: Path, recording: Path | None = None) -> tuple[Path, Path]:
    """A recording (of the gallery when none is given) and a map of it, small enough for ten images a second on two
    cores.
    """
    if recording is None:
        stamps, world_from_base = trajectory(1, 7.0, 30.0)
        camera = Camera(320, 240, 200.0, 200.0, 159.5, 119.5)
        recording = record_bag(
            folder / "walk",
            build_room(),
            camera,
            stamps,
            world_from_base,
            MOUNTS["handheld"],
            image_every=4,
            compressed=False,
        )
    path = folder / "map.safetensors"
    encoder = Encoder.open(EncoderConfig(input_size=224), device="cpu")
    training = TrainingConfig(steps=600, batch=512, passes=1)
    build_map(open_recording(recording), path, encoder, training=training, head=HeadConfig(width=128))
    return recording, path


def second_of(scene_map: Path, folder: Path) -> Path:
    """The same map, named "second"."""
    second = SceneMap.load(scene_map)
    second.header = second.header.model_copy(update={"name": "second"})
    path = folder / "second.safetensors"
    second.save(path)
    return path
