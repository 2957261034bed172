"""What every peer is: ``build(mapped, progress)`` makes a map, whose ``localize(image, camera)`` answers with a pose
and its stages' times.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from dimm_ros.config import PRESETS
from dimm_ros.data.recording import Frame, Recording
from dimm_ros.encoder.dinov2 import Encoder, Tokens
from dimm_ros.encoder.patches import PatchGrid, fit, normalise, patch_grid
from dimm_ros.geometry.camera import Camera
from dimm_ros.mapping.build import open_buffer
from dimm_ros.mapping.training_views import TrainingViews
from dimm_ros.whole_file import written_whole

#: Name of the feature buffer's folder.
FEATURES = "features"


@dataclass(frozen=True)
class PeerResult:
    """An answer for one image.

    Attributes:
        pose: (4, 4) world_from_camera, metres; None where the peer gives up.
        stage_ms: time of each stage, milliseconds; ``encode`` is the encoder's forward pass.
    """

    pose: np.ndarray | None
    stage_ms: dict[str, float]


class PeerMap(Protocol):
    """What a peer knows of a place; ``bytes`` is what a robot has to store of it."""

    bytes: int

    def localize(self, image: np.ndarray, camera: Camera) -> PeerResult:
        """Pose of one (H, W, 3) uint8 RGB image."""


@dataclass
class Mapped:
    """Posed images that a peer makes its map of.

    Attributes:
        recording: the images.
        whole: the recording whose features are stored, which is ``recording`` unless the peer can only map some of it.
        encoder: the product's, frozen; its tokens are shared by the peers that use it.
        folder: where what is worked out is kept; ``features`` in it is a complete ``FeatureBuffer`` of the whole
            recording where the peer takes one (its FEATURES).
        shared: where features of single images are kept, for all scenes of the same images.
        steps: of a head's training.
        ablation_split: of red kitchen, by which ``benchmarks.landmarks`` calls its maps; empty elsewhere, where that is
            the folder's name.
        seconds: time of each stage of the mapping; stages that were done earlier count, too.
    """

    recording: Recording
    whole: Recording
    encoder: Encoder
    folder: Path
    shared: Path
    steps: int
    ablation_split: str = ""
    seconds: dict[str, float] = field(default_factory=dict)

    def features(self) -> TrainingViews:
        """The feature buffer's (recorded and virtual views of the whole recording); their encoding counts as
        mapping.
        """
        buffer = open_buffer(self.folder / FEATURES, self.whole, self.encoder, PRESETS["cpu"].training)
        self.seconds["features"] = buffer.seconds
        return buffer.training_views(PRESETS["cpu"].training.memory_mb)

    def cls(self) -> np.ndarray:
        """(V, W) float32 CLS tokens of the recorded images, kept in files from run to run; their encoding counts as
        mapping.
        """
        folder = self.shared / f"cls_{self.encoder.config.input_size}_{self.encoder.weights.sha256[:8]}"
        parts = [
            kept(folder, frame, lambda image, camera: {"cls": cls_token(self.encoder, image, camera)})
            for frame in self.recording.frames
        ]
        self.seconds["features"] = sum(float(part["seconds"]) for part in parts)
        return np.stack([part["cls"] for part in parts])

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Count what is done under it as a stage of the mapping."""
        start = time.perf_counter()
        yield
        self.seconds[stage] = time.perf_counter() - start

    @property
    def focal(self) -> float:
        """Focal length of the encoder's input, pixels."""
        return patch_grid(self.recording.frames[0].camera, self.encoder.config.input_size).camera.fx


class Stages:
    """Times named stages in milliseconds."""

    def __init__(self) -> None:
        self.ms: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.ms[stage] = self.ms.get(stage, 0.0) + 1e3 * (time.perf_counter() - start)


def kept(
    folder: Path, frame: Frame, work: Callable[[np.ndarray, Camera], dict[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """What is worked out of an image, and the ``seconds`` that it took: from a file of the folder, or into one."""
    file = folder / (Path(frame.name).name + ".npz")
    if not file.is_file():
        image = frame.load()
        start = time.perf_counter()
        found = work(image, frame.camera)
        seconds = time.perf_counter() - start
        with written_whole(file) as partial, partial.open("wb") as stream:
            np.savez(stream, seconds=seconds, **found)
    with np.load(file, allow_pickle=False) as stored:
        return dict(stored)


def encoded(encoder: Encoder, image: np.ndarray, camera: Camera, stages: Stages) -> tuple[Tokens, PatchGrid]:
    """Tokens of one image, with the stages "prepare" and "encode"."""
    grid = patch_grid(camera, encoder.config.input_size)
    with stages("prepare"):
        pixels = torch.from_numpy(normalise(fit(image, camera, grid)))[None]
    with stages("encode"):
        return encoder.encode(pixels), grid


def cls_token(encoder: Encoder, image: np.ndarray, camera: Camera) -> np.ndarray:
    """(W,) float32 of one image."""
    return encoded(encoder, image, camera, Stages())[0].cls[0].float().numpy()
