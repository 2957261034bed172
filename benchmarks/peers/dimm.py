"""This package with its default preset."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.peers.peer import FEATURES, Mapped, PeerResult
from dimm_ros.config import PRESETS
from dimm_ros.encoder.dinov2 import Encoder
from dimm_ros.geometry.camera import Camera
from dimm_ros.localizer import Localizer
from dimm_ros.mapping.build import build_map
from dimm_ros.progress import ProgressCallback
from dimm_ros.scene_map import MapHeader, SceneMap

NAME = "dimm"
TITLE = "**dimm_ros** (this package, default preset)"
NEEDS = ()


@dataclass(frozen=True)
class DimmMap:
    """A map file, opened; see ``peer.PeerMap``."""

    localizer: Localizer
    bytes: int

    def localize(self, image: np.ndarray, camera: Camera) -> PeerResult:
        """A rejected estimate is no answer."""
        estimate = self.localizer.localize(image, camera)
        return PeerResult(
            estimate.world_from_camera if estimate.accepted else None,
            {k: v for k, v in estimate.stage_ms.items() if k != "total"},
        )

    @classmethod
    def open(cls, path: Path) -> DimmMap:
        """The map of a file."""
        return cls(Localizer.open(path, device="cpu"), path.stat().st_size)


def build(mapped: Mapped, watch: ProgressCallback) -> DimmMap:
    """``build_map`` on the stored features, or the map that the ablation made of the same images in the same way."""
    path = mapped.folder / "map.dimm"
    training = PRESETS["cpu"].training.changed(steps=mapped.steps)
    if mapped.trained is not None:
        mapped.seconds |= mapped.trained.seconds
        _adopt(mapped.trained.path, path, mapped.encoder)
        return DimmMap.open(path)
    work = path.with_name(path.name + ".work")
    work.mkdir(parents=True, exist_ok=True)
    if not (work / FEATURES).exists():
        # build_map goes on with complete features, and removes the link alone
        (work / FEATURES).symlink_to(Path("..") / FEATURES)
    result = build_map(
        mapped.recording,
        path,
        mapped.encoder,
        head=PRESETS["cpu"].head,
        training=training,
        watch=lambda stage, done, total, _: bool(watch(stage, done, total)) and False,
    )
    mapped.seconds |= result.seconds
    return DimmMap.open(path)


def trained_alike(header: MapHeader) -> bool:
    """Whether a map was made as the preset says, by a version that knew all of it."""
    preset = PRESETS["cpu"]
    known = all(set(type(part).model_fields) <= part.model_fields_set for part in (header.training, header.head))
    return known and header.training == preset.training and header.head == preset.head


def _adopt(trained: Path, path: Path, encoder: Encoder) -> None:
    """Save a map of the ablation with the encoder it was trained with in its header, which the ablation leaves out."""
    scene_map = SceneMap.load(trained)
    scene_map.header = scene_map.header.model_copy(
        update={
            "encoder": encoder.config,
            "encoder_sha256": encoder.weights.sha256,
            "encoder_origin": encoder.weights.origin,
        }
    )
    scene_map.save(path)
