"""This package with its default preset."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.peers.peer import FEATURES, Located, Mapped, Watch
from dimm_ros.config import PRESETS
from dimm_ros.geometry.camera import Camera
from dimm_ros.head.model import DimmHead
from dimm_ros.localizer import Localizer
from dimm_ros.mapping.build import build_map
from dimm_ros.mapping.calibrate import calibrate_short
from dimm_ros.mapping.features import recorded_views
from dimm_ros.mapping.fit import whole_image, whole_views
from dimm_ros.mapping.trainer import Normalisation
from dimm_ros.scene_map import Calibration, MapHeader, SceneMap

NAME = "dimm"
TITLE = "**dimm_ros** (this package, default preset)"
NEEDS = ()


@dataclass(frozen=True)
class DimmMap:
    """A map file, opened; see ``peer.PeerMap``."""

    localizer: Localizer
    bytes: int

    def localize(self, image: np.ndarray, camera: Camera) -> Located:
        """A rejected estimate is no answer."""
        estimate = self.localizer.localize(image, camera)
        return Located(estimate.world_from_camera if estimate.accepted else None, {k: v for k, v in estimate.stage_ms.items() if k != "total"})

    @classmethod
    def open(cls, path: Path) -> DimmMap:
        """The map of a file."""
        return cls(Localizer.open(path, device="cpu"), path.stat().st_size)


def build(mapped: Mapped, watch: Watch) -> DimmMap:
    """``build_map`` on the stored features, or the head that the ablation trained of the same images in the same way."""
    path = mapped.folder / "map.dimm"
    training = PRESETS["cpu"].training.changed(steps=mapped.steps)
    if mapped.trained is not None:
        mapped.seconds |= mapped.trained.seconds
        with mapped.timed("whole image"):
            _adopt(mapped.trained.path, path, mapped)
        return DimmMap.open(path)
    work = path.with_name(path.name + ".work")
    work.mkdir(parents=True, exist_ok=True)
    if not (work / FEATURES).exists():
        (work / FEATURES).symlink_to(Path("..") / FEATURES)  # build_map goes on with complete features, and removes the link alone
    result = build_map(
        mapped.recording, path, mapped.encoder, head=PRESETS["cpu"].head, training=training,
        watch=lambda stage, done, total, _: bool(watch(stage, done, total)) and False,
    )
    mapped.seconds |= result.seconds
    return DimmMap.open(path)


def trained_alike(header: MapHeader) -> bool:
    """Whether a map's head was trained as the preset says; its whole-image part, which takes seconds, is solved for again."""
    preset, whole = PRESETS["cpu"], {"whole_share", "whole_least", "whole_novelty"}
    if not set(type(preset.training).model_fields) <= header.training.model_fields_set:
        return False  # of a version that lacked something that now has a default
    return header.training == preset.training and header.head.model_dump(exclude=whole) == preset.head.model_dump(exclude=whole)


def _adopt(trained: Path, path: Path, mapped: Mapped) -> None:
    """Save a map with the head of the ablation's, and the rest as ``fit_map`` makes it of the same features."""
    old, encoder, preset = SceneMap.load(trained), mapped.encoder, PRESETS["cpu"]
    data = mapped.features()
    normalisation = Normalisation(torch.tensor(old.header.origin, dtype=torch.float64), old.header.radius)
    head = DimmHead(old.header.patch_dim, old.header.context_dim, preset.head)
    head.load_state_dict({name: value for name, value in old.head.state_dict().items() if not name.startswith("whole.")})
    head.whole = whole_image(data, None, normalisation, preset.head, torch.device("cpu"))
    enough = whole_views(data)
    short = [data[name][enough] for name in ("context", "rotations", "centres", "frame_of")]
    SceneMap(old.header.model_copy(update={
        "head": preset.head, "encoder": encoder.config, "encoder_sha256": encoder.weights.sha256, "encoder_origin": encoder.weights.origin,
        "calibration": Calibration().model_copy(update=calibrate_short(*short, recorded_views(data)[enough])),
    }), head).save(path)
