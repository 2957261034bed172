"""Which views a recording is trained on: the recorded images, and others that nobody recorded."""

from __future__ import annotations

import logging

import numpy as np

from dimm_ros.config import TrainingConfig
from dimm_ros.data.recording import Recording
from dimm_ros.encoder.patches import patch_grid
from dimm_ros.errors import DataError
from dimm_ros.mapping.augment import View, random_view, recorded_view
from dimm_ros.mapping.stereo import StereoDepth
from dimm_ros.mapping.synthesise import random_moved_view

log = logging.getLogger(__name__)


class ViewMaker:
    """Makes the views of a recording, each from its pass and frame numbers alone.

    Pass 0 is the recorded images. In later passes the camera is turned, and moved where there is depth: the recording's own
    or estimated by stereo, as ``config.depth`` says.

    Args:
        recording: posed frames.
        input_size: the encoder's.
        config: how far views are turned and moved, and the seed.
    """

    def __init__(self, recording: Recording, input_size: int, config: TrainingConfig) -> None:
        self._recording, self._input_size, self._config = recording, input_size, config
        if config.passes > 1 and config.depth == "recorded" and not any(frame.load_depth for frame in recording.frames):
            log.warning("'%s' has no depth images; the virtual views are turned, but not moved.", recording.name)
        self._stereo = self._open_stereo() if config.passes > 1 and config.depth == "stereo" and config.max_offset > 0 else None

    def _open_stereo(self) -> StereoDepth | None:
        try:
            return StereoDepth(self._recording)
        except DataError as error:
            log.warning("%s The virtual views are turned, but not moved.", error)
            return None

    def make(self, number: int, index: int) -> View:
        """The view of pass ``number`` of frame ``index``."""
        frame = self._recording.frames[index]
        image, grid = frame.load(), patch_grid(frame.camera, self._input_size)
        if number == 0:
            return recorded_view(image, frame.camera, grid)
        rng = np.random.default_rng([self._config.seed, number, index])
        if self._stereo is not None:
            depth, depth_camera = self._stereo.depth(index), self._stereo.camera(index)
        elif self._config.depth == "recorded" and frame.load_depth is not None:
            depth, depth_camera = frame.load_depth(), frame.depth_camera
        else:
            return random_view(image, frame.camera, grid, self._config, rng)
        return random_moved_view(image, depth, frame.camera, depth_camera, grid, self._config, rng)
