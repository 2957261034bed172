"""The feature buffer of a scene's mapped images: encoded once for all peers, or taken over from the ablation's."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.ablation.features import LAYERS
from benchmarks.peers.peer import FEATURES
from benchmarks.peers.scenes import BenchmarkScene
from dimm_ros.config import PRESETS
from dimm_ros.encoder.dinov2 import Encoder
from dimm_ros.mapping.build import open_buffer
from dimm_ros.mapping.features import FeatureBuffer, fill_buffer
from dimm_ros.progress import ProgressCallback

ABLATION = Path("results") / "ablation"


def prepare(scene: BenchmarkScene, encoder: Encoder, folder: Path, progress: ProgressCallback) -> None:
    """Complete the buffer in ``folder``; goes on where it was."""
    training = PRESETS["cpu"].training
    buffer = open_buffer(folder / FEATURES, scene.mapped, encoder, training)
    stored = ABLATION / FEATURES / f"redkitchen_{scene.ablation_split}_train_default_{encoder.config.input_size}"
    if not buffer.complete and scene.ablation_split and (stored / "progress.json").is_file():
        _take_over(buffer, stored, encoder)
    fill_buffer(
        buffer, scene.mapped, encoder, training, lambda done, total: bool(progress("features", done, total)) and False
    )


def _take_over(buffer: FeatureBuffer, stored: Path, encoder: Encoder) -> None:
    """Views that the ablation encoded with more layers and more passes of the same kind: the last layer of the first
    passes.
    """
    import json

    progress = json.loads((stored / "progress.json").read_text())
    if progress["done"] < buffer.views:
        return
    view_of = np.load(stored / "view_of.npy", mmap_mode="r")[: progress["rows"]]
    rows, views = int(np.searchsorted(view_of, buffer.views)), buffer.views
    last = slice(LAYERS.index(12) * encoder.cls_dim, (LAYERS.index(12) + 1) * encoder.cls_dim)
    for name in ("camera_rays", "directions", "view_of"):
        getattr(buffer, name)[:rows] = np.load(stored / f"{name}.npy", mmap_mode="r")[:rows]
    buffer.patches[:rows] = np.load(stored / "patches.npy", mmap_mode="r")[:rows, last]
    for name in ("context", "centres", "rotations", "frame_of"):
        getattr(buffer, name)[:] = np.load(stored / f"{name}.npy", mmap_mode="r")[:views]
    buffer.done, buffer.rows, buffer.seconds = views, rows, progress["seconds"] * views / progress["done"]
    buffer.save()
