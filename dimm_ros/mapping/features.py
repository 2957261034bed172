"""The feature buffer: tokens and true rays of every patch of every view, in half precision, on disk and resumable."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.lib.format import open_memmap
from pydantic import BaseModel, Field

from dimm_ros.config import TrainingConfig
from dimm_ros.data.recording import Recording
from dimm_ros.encoder.dinov2 import Encoder
from dimm_ros.encoder.patches import normalise
from dimm_ros.errors import DataError
from dimm_ros.geometry.poses import make_pose
from dimm_ros.mapping.augment import View
from dimm_ros.mapping.training_views import ROWS, VIEWS, TrainingViews
from dimm_ros.mapping.views import ViewMaker
from dimm_ros.prefetch import prefetched
from dimm_ros.progress import StepCallback
from dimm_ros.whole_file import written_whole

_PROGRESS = "progress.json"
_SAVE_EVERY = 25  # views between two saves of the progress


class _Progress(BaseModel):
    """How far a buffer is filled, beside its arrays."""

    fingerprint: str
    done: int = Field(ge=0)
    rows: int = Field(ge=0)
    seconds: float = Field(ge=0, allow_inf_nan=False)


class FeatureBuffer:
    """Patches of all views, one row each.

    Attributes:
        patches: (M, D) float16 tokens.
        camera_rays: (M, 3) float32 unit rays in the view's camera.
        directions: (M, 3) float32 unit rays in the world.
        view_of: (M,) int32 view of each patch.
        context: (V, C) float16 global context of each view, see ``encoder.dinov2.Tokens``.
        centres: (V, 3) float64 camera centres in the world, metres.
        rotations: (V, 3, 3) float64 world_from_camera.
        frame_of: (V,) int32 frame of each view.
        done, rows: views and patches so far.
        seconds: time spent on them, in all calls together.
        part: (r, n): it holds views r, r + n, ... of all; the arrays' numbers are its own.
    """

    def __init__(
        self,
        folder: Path,
        views: int,
        capacity: int,
        patch_dim: int,
        context_dim: int,
        fingerprint: str,
        part: tuple[int, int] = (0, 1),
    ) -> None:
        self.folder, self.views, self.part = folder, views, part
        self._progress = folder / _PROGRESS
        shapes = {
            "patches": ((capacity, patch_dim), np.float16),
            "camera_rays": ((capacity, 3), np.float32),
            "directions": ((capacity, 3), np.float32),
            "view_of": ((capacity,), np.int32),
            "context": ((views, context_dim), np.float16),
            "centres": ((views, 3), np.float64),
            "rotations": ((views, 3, 3), np.float64),
            "frame_of": ((views,), np.int32),
        }
        state = self._read_progress(fingerprint, shapes)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if state is None:
                self._progress.unlink(missing_ok=True)  # before the arrays that it describes
            for name, (shape, dtype) in shapes.items():
                file = folder / f"{name}.npy"
                array = open_memmap(file, "r+") if state else open_memmap(file, "w+", dtype, shape)
                if state is None:
                    _reserve(file)
                setattr(self, name, array)
        except (OSError, ValueError) as error:
            raise DataError(
                f"The feature buffer in {folder} cannot be opened ({getattr(error, 'strerror', None) or error}); free "
                "disk space, write the map "
                "where you may write, or delete that folder if it is an old one."
            ) from error
        self.done, self.rows, self.seconds = (state.done, state.rows, state.seconds) if state else (0, 0, 0.0)
        self.fingerprint = fingerprint

    def _read_progress(self, fingerprint: str, shapes: dict[str, tuple[tuple[int, ...], type]]) -> _Progress | None:
        """How far the arrays are filled, if they are of these views; what is damaged is begun anew."""
        try:
            state = _Progress.model_validate_json(self._progress.read_bytes())
            arrays = {name: open_memmap(self.folder / f"{name}.npy", "r") for name in shapes}
        except (OSError, ValueError):
            return None
        same = state.fingerprint == fingerprint and all(
            (arrays[name].shape, arrays[name].dtype) == (shape, np.dtype(dtype))
            for name, (shape, dtype) in shapes.items()
        )
        return state if same and state.done <= self.views and state.rows <= shapes["patches"][0][0] else None

    def append(
        self, frame: int, world_from_camera: np.ndarray, tokens: np.ndarray, context: np.ndarray, rays: np.ndarray
    ) -> None:
        """Add one view: its (4, 4) pose, (C,) context, and of its valid patches (P, D) tokens and (P, 3) camera
        rays.
        """
        rotation, directions = world_from_camera[:3, :3], rays @ world_from_camera[:3, :3].T
        rows = slice(self.rows, self.rows + len(tokens))
        self.patches[rows], self.camera_rays[rows], self.directions[rows], self.view_of[rows] = (
            tokens,
            rays,
            directions,
            self.done,
        )
        self.context[self.done], self.frame_of[self.done] = context, frame
        self.centres[self.done], self.rotations[self.done] = world_from_camera[:3, 3], rotation
        self.rows, self.done = rows.stop, self.done + 1
        if self.done % _SAVE_EVERY == 0 or self.done == self.views:
            self.save()

    def save(self) -> None:
        """Make what was appended survive a crash."""
        for name in (*ROWS, *VIEWS):
            getattr(self, name).flush()
        state = _Progress(fingerprint=self.fingerprint, done=self.done, rows=self.rows, seconds=self.seconds)
        with written_whole(self._progress) as partial:
            partial.write_text(state.model_dump_json())

    @property
    def complete(self) -> bool:
        """Whether every view is there."""
        return self.done == self.views

    def training_views(self, memory_mb: int) -> TrainingViews:
        """The filled part of every array as a CPU tensor: in memory when it fits, else mapped from disk."""
        rows = {name: getattr(self, name)[: self.rows] for name in ROWS}
        in_memory = sum(array.nbytes for array in rows.values()) <= memory_mb * 1_000_000
        tensors = {name: torch.from_numpy(np.array(array) if in_memory else array) for name, array in rows.items()}
        tensors |= {name: torch.from_numpy(np.array(getattr(self, name)[: self.done])) for name in VIEWS}
        return TrainingViews(**tensors)


def has_views(folder: Path) -> bool:
    """Whether a folder holds a feature buffer with views to go on from."""
    return (folder / _PROGRESS).exists()


def _reserve(file: Path) -> None:
    """Claim a sparse file's disk space now: writing to a mapped page that the disk has no room for would end the
    process.
    """
    with file.open("r+b") as stream:
        os.posix_fallocate(stream.fileno(), 0, file.stat().st_size)


def fill_buffer(
    buffer: FeatureBuffer,
    recording: Recording,
    encoder: Encoder,
    config: TrainingConfig,
    progress: StepCallback | None = None,
) -> bool:
    """Encode every view that the buffer lacks; pass 0 is the recorded images, later passes are virtual views.

    Returns:
        False when ``progress`` asked to stop before the buffer was complete; the same call goes on from there.
    """
    if buffer.complete:
        return True
    begun, encoder = time.perf_counter() - buffer.seconds, encoder.for_many()
    batch = 16 if encoder.device.type == "cuda" else 1  # on a CPU one image at a time is the fastest
    first, step = buffer.part
    jobs = (divmod(first + number * step, len(recording.frames)) for number in range(buffer.done, buffer.views))
    maker = ViewMaker(recording, encoder.config.input_size, config)

    def encoder_input(job: tuple[int, int]) -> tuple[int, View]:
        number, index = job
        return index, maker.make(number, index)

    try:
        with ThreadPoolExecutor(max_workers=1 if batch == 1 else 8) as pool:
            for group in _groups(prefetched(pool, encoder_input, jobs, 2 * batch), batch):
                images = torch.from_numpy(np.stack([normalise(view.image) for _, view in group]))
                tokens = encoder.encode(images)
                patches, contexts = tokens.patches.half().cpu().numpy(), tokens.context.half().cpu().numpy()
                for (index, view), view_patches, context in zip(group, patches, contexts, strict=True):
                    pose = recording.frames[index].world_from_camera @ make_pose(view.turn, view.offset)
                    buffer.seconds = time.perf_counter() - begun
                    buffer.append(index, pose, view_patches[view.valid], context, view.camera_rays[view.valid])
                    if progress is not None and progress(buffer.done, buffer.views):
                        return buffer.complete
    finally:
        if buffer.done:  # else there is nothing to go on from
            buffer.save()
    return True


def _groups(views: Iterator[tuple[int, View]], size: int) -> Iterator[list[tuple[int, View]]]:
    """Consecutive views of one image size, at most ``size`` together."""
    group: list[tuple[int, View]] = []
    for item in views:
        if group and (len(group) == size or item[1].image.shape != group[0][1].image.shape):
            yield group
            group = []
        group.append(item)
    if group:
        yield group
