"""Features that all rows share: encoded once, with more layers and passes than any row needs; every call goes on where
it was.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dimm_ros.cli.console import Bars
from dimm_ros.config import EncoderConfig, TrainingConfig
from dimm_ros.data.open import open_recording
from dimm_ros.data.recording import Recording
from dimm_ros.encoder.dinov2 import Encoder
from dimm_ros.encoder.patches import fit, normalise, patch_grid
from dimm_ros.mapping.build import open_buffer
from dimm_ros.mapping.features import fill_buffer
from dimm_ros.mapping.training_views import TrainingViews

LAYERS = (6, 9, 12)
ENCODER = EncoderConfig(layers=LAYERS, context_layers=LAYERS, context_grid=2)

#: Sets of training views: what is encoded beside the recorded images.
VIEWS = {
    "default": TrainingConfig(passes=4),
    "turned": TrainingConfig(passes=2, depth="none"),
    "stereo": TrainingConfig(passes=3, depth="stereo"),
    "small": TrainingConfig(passes=3),
    "recorded": TrainingConfig(passes=1),
}


@dataclass(frozen=True)
class Features:
    """Tokens of a recording's views.

    Attributes:
        data: ``FeatureBuffer.training_views()``, patches stacked over the encoder's layers.
        recording: its frames.
        width: of one layer's token.
        layers, context_layers: of the encoder.
    """

    data: TrainingViews
    recording: Recording
    width: int
    layers: tuple[int, ...]

    def chosen(self, layers: tuple[int, ...], context: str, passes: int) -> TrainingViews:
        """The first passes of the views, with these layers' patch tokens and this context: "cls", "mean" or "parts"."""
        views = passes * len(self.recording.frames)
        rows = int((self.data.view_of < views).sum())
        patches = self.data.patches[:rows]
        if layers != self.layers:
            patches = torch.cat([patches[:, self._of(layer)] for layer in layers], dim=1)
        result = {name: getattr(self.data, name)[:rows] for name in ("camera_rays", "directions", "view_of")}
        result |= {name: getattr(self.data, name)[:views] for name in ("centres", "rotations", "frame_of")}
        return TrainingViews(**result, patches=patches, context=self.context(context)[:views])

    def context(self, kind: str) -> Tensor:
        """(V, C) contexts of all views."""
        context, width = self.data.context, self.width
        if kind == "cls":
            return context[:, :width]
        if kind == "parts":
            return context
        per_layer = context[:, width:].unflatten(1, (-1, 5, width))
        return torch.cat([context[:, :width], per_layer[:, :, 0].flatten(1)], dim=1)

    def _of(self, layer: int) -> slice:
        place = self.layers.index(layer)
        return slice(place * self.width, (place + 1) * self.width)


def encode(
    data: Path,
    split: str,
    views: str,
    folder: Path,
    progress: Bars,
    input_size: int = ENCODER.input_size,
    passes: int | None = None,
) -> Features:
    """Features of a part of a recording, such as split ``mid:train``; in ``folder`` there is one for each set of views.

    ``passes`` of them are enough (all).
    """
    encoder = Encoder.open(ENCODER.changed(input_size=input_size))
    recording = open_recording(data, split=split)
    place = folder / f"{data.name}_{split.replace(':', '_')}_{views}_{input_size}"
    training = VIEWS[views]
    buffer = open_buffer(place, recording, encoder, training)
    needed = min(passes or training.passes, training.passes) * len(recording.frames)
    if buffer.done < needed:
        fill_buffer(
            buffer,
            recording,
            encoder,
            training,
            lambda done, _: progress(f"features {split} {views}", done, needed) or done >= needed,
        )
    return Features(buffer.training_views(training.memory_mb), recording, encoder.cls_dim, LAYERS)


def contexts_of(data: Path, every: int, folder: Path, progress: Bars) -> Tensor:
    """(N, C) contexts of every n-th image of a recording of another place."""
    file = folder / f"{data.name}_contexts_{every}.npy"
    if file.is_file():
        return torch.from_numpy(np.load(file))
    encoder = Encoder.open(ENCODER)
    contexts = []
    frames = open_recording(data).frames[::every]
    for done, frame in enumerate(frames, start=1):
        image = normalise(fit(frame.load(), frame.camera, patch_grid(frame.camera, ENCODER.input_size)))
        contexts.append(encoder.encode(torch.from_numpy(image)[None]).context[0].float().cpu().numpy())
        progress(f"other place {data.name}", done, len(frames))
    folder.mkdir(parents=True, exist_ok=True)
    np.save(file, np.stack(contexts))
    return torch.from_numpy(np.stack(contexts))
