"""Which views a recording is trained on: the recorded images, and others that nobody recorded."""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import lru_cache

import numpy as np

from dimm_ros.config import TrainingConfig
from dimm_ros.data.recording import Recording
from dimm_ros.encoder.patches import PatchGrid, patch_grid
from dimm_ros.errors import DataError
from dimm_ros.geometry.poses import invert
from dimm_ros.mapping.augment import View, change_light, random_view, recorded_view
from dimm_ros.mapping.stereo import StereoDepth
from dimm_ros.mapping.synthesise import ImageWithDepth, moved_view, random_motion

log = logging.getLogger(__name__)

_KEPT = 512  # images kept ready, with their ranges: about 1 MB each
_HELPERS = 2  # other images that fill in what the moved one did not see
_SAMPLES = 12  # pixels across that the coverage is judged on
_FAR = 0.3  # distance of a helper that counts half, as a share of the scene's distance
_WORTH = 0.03  # least share of the view that a helper must add


class ViewMaker:
    """Makes the views of a recording, each from its pass and frame numbers alone.

    Pass 0 is the recorded images. In later passes the camera is turned, and moved where there is depth: the recording's
    own or estimated by stereo, as ``config.depth`` says ("auto": the recording's own if it has any).

    Args:
        recording: posed frames.
        input_size: the encoder's.
        config: how far views are turned and moved, and the seed.
    """

    def __init__(self, recording: Recording, input_size: int, config: TrainingConfig) -> None:
        self._recording, self._input_size, self._config = recording, input_size, config
        self._poses = recording.poses()
        self._stereo, self._recorded = None, False
        if config.passes > 1 and config.max_offset > 0:
            there = any(frame.load_depth for frame in recording.frames)
            if config.depth == "recorded" and not there:
                log.warning("'%s' has no depth images; the virtual views are turned, but not moved.", recording.name)
            self._recorded = there and config.depth in ("auto", "recorded")
            if config.depth == "stereo" or (config.depth == "auto" and not there):
                self._stereo = self._open_stereo()
        self._source = lru_cache(maxsize=_KEPT)(self._load_source)

    def make(self, number: int, index: int) -> View:
        """The view of pass ``number`` of frame ``index``."""
        frame = self._recording.frames[index]
        grid = self._grid(index)
        if number == 0:
            return recorded_view(frame.load(), frame.camera, grid)
        rng = np.random.default_rng([self._config.seed, number, index])
        if not self._has_depth(index):
            return random_view(frame.load(), frame.camera, grid, self._config, rng)
        source = self._source(index)
        camera_from_virtual, zoom = random_motion(source, self._config, rng)
        world_from_virtual = self._poses[index] @ camera_from_virtual
        used = [index, *self._helpers(index, world_from_virtual)]
        view = moved_view(
            [self._source(one) for one in used],
            grid,
            [camera_from_virtual, *(invert(self._poses[one]) @ world_from_virtual for one in used[1:])],
            zoom,
        )
        return replace(view, image=change_light(view.image, self._config, rng))

    def _helpers(self, index: int, world_from_virtual: np.ndarray) -> list[int]:
        """Frames that see what a frame moved to another place lacks: judged by points at the scene's distance, nearest
        views first.
        """
        grid = self._grid(index)
        ranges = self._source(index).ranges
        distance = float(np.median(ranges[ranges > 0])) if np.any(ranges > 0) else 0.0
        if not distance:
            return []
        x, y = (np.linspace(0, size - 1, _SAMPLES) for size in (grid.camera.width, grid.camera.height))
        rays, _ = grid.camera.bearings(np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2))
        points = distance * rays @ world_from_virtual[:3, :3].T + world_from_virtual[:3, 3]
        seen = self._sees(points)
        away = np.linalg.norm(self._poses[:, :3, 3] - world_from_virtual[:3, 3], axis=1) / (_FAR * distance)
        worth = 1 / (1 + away**2)
        lacking, chosen = ~seen[index], []
        while len(chosen) < _HELPERS:
            gain = (seen & lacking).mean(axis=1)
            best = int(np.argmax(gain * worth))
            if gain[best] < _WORTH or not self._has_depth(best):
                break
            chosen.append(best)
            lacking = lacking & ~seen[best]
        return chosen

    def _sees(self, points: np.ndarray) -> np.ndarray:
        """(frames, N) bool: whether (N, 3) world points lie in each frame's image, whatever is in front of them."""
        local = (points - self._poses[:, None, :3, 3]) @ self._poses[:, :3, :3]
        seen = np.empty(local.shape[:2], bool)
        cameras = [frame.camera for frame in self._recording.frames]
        for camera in set(cameras):
            frames = [number for number, one in enumerate(cameras) if one == camera]
            pixels, front = camera.project(local[frames].reshape(-1, 3))
            seen[frames] = (front & camera.contains(pixels)).reshape(len(frames), -1)
        return seen

    def _grid(self, index: int) -> PatchGrid:
        return patch_grid(self._recording.frames[index].camera, self._input_size)

    def _has_depth(self, index: int) -> bool:
        return self._stereo is not None or (self._recorded and self._recording.frames[index].load_depth is not None)

    def _load_source(self, index: int) -> ImageWithDepth:
        frame = self._recording.frames[index]
        if self._stereo is not None:
            depth, depth_camera = self._stereo.depth(index), self._stereo.camera(index)
        else:
            depth, depth_camera = frame.load_depth(), frame.depth_camera
        return ImageWithDepth.of(frame.load(), depth, depth_camera, self._grid(index))

    def _open_stereo(self) -> StereoDepth | None:
        try:
            return StereoDepth(self._recording)
        except DataError as error:
            log.warning("%s The virtual views are turned, but not moved.", error)
            return None
