"""Which views a recording is trained on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dimm_ros.config import TrainingConfig
from dimm_ros.data.open import open_recording
from dimm_ros.data.recording import Recording
from dimm_ros.mapping.views import ViewMaker

CONFIG = TrainingConfig(passes=3)


@pytest.fixture(scope="module")
def recording(walk: Path) -> Recording:
    return open_recording(walk)


def test_the_first_pass_is_the_images_themselves(recording: Recording) -> None:
    view = ViewMaker(recording, 224, CONFIG).make(0, 3)
    np.testing.assert_array_equal(
        view.image, recording.frames[3].load()[:, :, :][: view.image.shape[0], : view.image.shape[1]]
    )
    assert np.all(view.offset == 0)


def test_later_passes_move_the_camera_by_stereo_depth(recording: Recording) -> None:
    maker = ViewMaker(recording, 224, CONFIG)
    views = [maker.make(1, index) for index in range(0, 20, 4)]
    lengths = [np.linalg.norm(view.offset) for view in views]
    # nothing in the room is further than 4 m at the median
    assert max(lengths) <= CONFIG.max_offset * 4.0 and np.median(lengths) > 0.01
    assert np.mean([view.valid.mean() for view in views]) > 0.4


def test_without_depth_they_only_turn_it(recording: Recording) -> None:
    view = ViewMaker(recording, 224, CONFIG.model_copy(update={"depth": "none"})).make(1, 3)
    assert np.all(view.offset == 0) and np.abs(view.rays - view.camera_rays).max() > 0.01


def test_a_camera_that_never_moved_says_so_and_is_only_turned(
    recording: Recording, caplog: pytest.LogCaptureFixture
) -> None:
    here = recording.frames[0].world_from_camera
    frames = [replace(frame, world_from_camera=here) for frame in recording.frames]
    view = ViewMaker(replace(recording, frames=frames), 224, CONFIG).make(1, 2)
    assert "turned, but not moved" in caplog.text and np.all(view.offset == 0)


def test_recorded_depth_is_used_where_there_is_any(recording: Recording) -> None:
    assert CONFIG.depth == "auto"

    def depth() -> np.ndarray:
        return np.full((84, 112), 2.0, dtype=np.float32)

    frames = [replace(frame, load_depth=depth, depth_camera=frame.camera.scaled(112, 84)) for frame in recording.frames]
    view = ViewMaker(replace(recording, frames=frames), 224, CONFIG).make(1, 3)
    # ranges are longer than depths off the axis
    assert 0 < np.linalg.norm(view.offset) <= CONFIG.max_offset * 2.0 * 1.2


def test_a_view_depends_on_pass_frame_and_seed_alone(recording: Recording) -> None:
    one, again = ViewMaker(recording, 224, CONFIG).make(2, 5), ViewMaker(recording, 224, CONFIG).make(2, 5)
    np.testing.assert_array_equal(one.image, again.image)
    assert not np.array_equal(one.offset, ViewMaker(recording, 224, CONFIG).make(1, 5).offset)
    assert not np.array_equal(
        one.offset, ViewMaker(recording, 224, CONFIG.model_copy(update={"seed": 1})).make(2, 5).offset
    )


@pytest.mark.long
def test_a_view_is_completed_from_other_images(recording: Recording) -> None:
    """Alone, the moved image leaves more patches unseen than with the rest of the recording to look them up in."""
    config = CONFIG.model_copy(update={"max_rotation_deg": 20.0})
    together = ViewMaker(recording, 224, config)
    alone = ViewMaker(recording, 224, config)
    alone._helpers = lambda index, pose: []
    shares = [[maker.make(1, index).valid.mean() for index in range(0, 24, 3)] for maker in (together, alone)]
    assert np.mean(shares[0]) > np.mean(shares[1]) + 0.03
