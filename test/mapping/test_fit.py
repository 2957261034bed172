"""From features to a map, on features that nobody made: where the world's origin is, what is held out, and what is gone
on from.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny_maps import MadeUpWalk, fitted

import dimm_ros.mapping.fit as fit
from dimm_ros.mapping.calibrate import held_out_frames
from dimm_ros.mapping.fit import MapFit
from dimm_ros.scene_map import SceneMap

UTM = np.array([632_500.25, 5_412_800.5, 430.125])
LONG = 112  # the fewest of which some frames are held out
CPU = torch.device("cpu")


def weights(scene_map: SceneMap) -> torch.Tensor:
    return torch.cat([value.flatten().float() for value in scene_map.head.state_dict().values()])


@pytest.mark.parametrize(("shift", "scale"), [(UTM, 1.0), (0.0, 1000.0), (UTM, 1000.0)])
def test_a_short_recording_is_the_same_wherever_the_origin_and_whatever_the_unit(
    tmp_path: Path, shift: np.ndarray | float, scale: float
) -> None:
    """UTM coordinates, millimetres, both."""
    walk = MadeUpWalk(40)
    one = fitted(walk.views(), tmp_path / "one", 4)
    other = fitted(walk.views(shift=shift, scale=scale), tmp_path / "other", 4)
    np.testing.assert_allclose(other.header.origin, scale * np.array(one.header.origin) + shift, rtol=1e-9)
    assert other.header.radius == pytest.approx(scale * one.header.radius, rel=1e-6)
    known, found = one.header.calibration, other.header.calibration
    assert found.position_rate == pytest.approx(scale * known.position_rate, rel=0.01) and known.position_rate > 0.1
    assert found.rotation_rate_deg == pytest.approx(known.rotation_rate_deg, rel=0.01)
    assert found.max_novelty == pytest.approx(known.max_novelty, rel=0.01)
    torch.testing.assert_close(weights(other), weights(one), atol=1e-3, rtol=1e-3)


def test_a_long_recording_is_the_same_wherever_the_origin_is(tmp_path: Path) -> None:
    walk = MadeUpWalk(LONG)
    one, other = (fitted(walk.views(shift=shift), tmp_path / name, 4) for name, shift in (("one", 0.0), ("other", UTM)))
    known, found = one.header.calibration, other.header.calibration
    assert known.frames == found.frames == len(held_out_frames(LONG)) > 0
    for name in ("position_rate", "rotation_rate_deg", "max_novelty", "position_error", "rotation_error_deg"):
        assert getattr(found, name) == pytest.approx(getattr(known, name), rel=0.01)


def test_the_calibrated_head_knows_nothing_of_the_frames_held_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other poses of those frames: the head that is calibrated is the same, and the finished one is not."""
    judged: list[SceneMap] = []
    calibrate = fit.calibrate
    monkeypatch.setattr(
        fit,
        "calibrate",
        lambda scene_map, *others, **more: judged.append(scene_map) or calibrate(scene_map, *others, **more),
    )
    walk, made = MadeUpWalk(LONG), []
    header = walk.header(walk.views(), 4)
    for name in ("true", "false"):
        views = walk.views()
        if name == "false":
            held_out = torch.isin(views.frame_of.long(), torch.from_numpy(held_out_frames(LONG)))
            views.rotations[held_out] = views.rotations[held_out].transpose(1, 2)
            views.centres[held_out] += 1.0
            views.directions[held_out[views.view_of.long()]] *= -1
        made.append(MapFit(header, views, tmp_path / f"{name}.safetensors", "", CPU, lambda *_: False).run().scene_map)
    assert len(judged) == 2
    torch.testing.assert_close(weights(judged[0]), weights(judged[1]), atol=0, rtol=0)
    assert (weights(made[0]) - weights(made[1])).abs().max() > 1e-2


def test_a_damaged_checkpoint_is_begun_anew(tmp_path: Path) -> None:
    """Each text in it in turn is not what was written."""
    walk = MadeUpWalk(20)
    header = fitted(walk.views(), tmp_path / "whole", 3).header
    checkpoint, seen = tmp_path / "training.safetensors", []

    def stop(stage: str, done: int, total: int, note: str) -> bool:
        seen.append(done)
        return done == 2

    for name, text in (
        ("curve", "["),
        ("curve", "3"),
        ("seconds", "x"),
        ("calibration", "[]"),
        ("calibration", None),
        ("curve", "[" * 100_000),
    ):
        checkpoint.unlink(missing_ok=True)
        seen.clear()
        assert not MapFit(header, walk.views(), checkpoint, "mark", CPU, stop).run().complete
        with safe_open(str(checkpoint), "pt") as file:
            told = file.metadata() | ({} if text is None else {name: text})
        if text is None:
            del told[name]
        save_file(load_file(checkpoint), checkpoint, told)
        assert not MapFit(header, walk.views(), checkpoint, "mark", CPU, stop).run().complete
        assert seen == [1, 2, 1, 2], (name, text)
    # a whole one is gone on from
    assert MapFit(header, walk.views(), checkpoint, "mark", CPU, stop).run().complete and seen[-1] == 3
