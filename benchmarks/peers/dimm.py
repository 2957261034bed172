"""This package with its default preset."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.peers.peer import Mapped, PeerResult
from dimm_ros.config import PRESETS, Preset
from dimm_ros.geometry.camera import Camera
from dimm_ros.localizer import Localizer
from dimm_ros.mapping.build import build_map
from dimm_ros.progress import ProgressCallback
from dimm_ros.scene_map import SceneMap

NAME = "dimm"
TITLE = "**dimm_ros** (this package, default preset)"
NEEDS = ()
FEATURES = False  # its own are of key frames alone
LANDMARK_MAPS = Path("results") / "landmarks"


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


def build(mapped: Mapped, progress: ProgressCallback) -> DimmMap:
    """``build_map`` by the default preset, or the map that ``benchmarks.landmarks`` made so of the same images."""
    preset = PRESETS["cpu"]
    training = preset.training.changed(steps=mapped.steps)
    path = LANDMARK_MAPS / f"{mapped.ablation_split or mapped.folder.name}_0.dimm"
    if mapped.steps != preset.training.steps or not made_alike(path, preset):
        path = mapped.folder / "map.dimm"
        build_map(
            mapped.recording,
            path,
            mapped.encoder,
            head=preset.head,
            training=training,
            landmarks=preset.landmarks,
            progress=lambda stage, done, total, _: bool(progress(stage, done, total)) and False,
        )
    opened = DimmMap.open(path)
    figures = opened.localizer.map.header.figures
    mapped.seconds |= {stage: figures[f"{stage}_seconds"] for stage in ("landmarks", "features", "training")}
    return opened


def made_alike(path: Path, preset: Preset) -> bool:
    """Whether a map is complete and made as the preset says, by a version that knew all of it."""
    if not path.is_file():
        return False
    header = SceneMap.load(path).header
    if header.landmarks is None or header.landmarks.kind != preset.landmarks.kind:
        return False
    parts = (header.training, header.head, header.landmarks.calibration)
    return all(set(type(part).model_fields) <= part.model_fields_set for part in parts) and header.made_as(preset)
