"""Several maps: which file is meant, which map an image shows, and that one forward of the encoder serves them all."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dimm_ros.atlas import Atlas, find_map, open_map
from dimm_ros.config import AcceptanceConfig, SolverConfig
from dimm_ros.data.open import open_recording
from dimm_ros.errors import MapError
from dimm_ros.scene_map import SceneMap

#: Loose: the small map has learnt little.
RULES = AcceptanceConfig(min_inlier_ratio=0.15, max_position_sigma=5.0, max_rotation_sigma_deg=60.0)


@pytest.fixture(scope="module")
def floors(tmp_path_factory, small_map):
    """A folder with the gallery's map and one of another floor, whose head knows nothing of the gallery."""
    folder = tmp_path_factory.mktemp("floors")
    for name in ("ground", "first"):
        scene_map = SceneMap.load(small_map)
        scene_map.header = scene_map.header.model_copy(update={"name": name, "frame_id": f"{name}_floor"})
        if name == "ground":
            with torch.random.fork_rng():
                torch.manual_seed(0)
                for weight in scene_map.head.parameters():
                    weight.copy_(weight[torch.randperm(len(weight))])
            scene_map.head.whole.mean += 5 * scene_map.head.whole.deviation  # and no image is like its views
        scene_map.save(folder / f"{name}.dimm")
    return folder


@pytest.fixture(scope="module")
def frame(walk):
    recording = open_recording(walk)
    shot = recording.frames[4]
    return shot.load(), shot.camera


def count_forwards(atlas: Atlas) -> list[int]:
    """Counts the encoder's forwards from now on."""
    (shared,) = atlas.encoders.values()
    forwards, forward = [], shared._encoder.encode

    class Counting:
        def __getattr__(self, name):
            return getattr(original, name)

        def encode(self, images):
            forwards.append(len(images))
            return forward(images)

    original, shared._encoder = shared._encoder, Counting()
    return forwards


def test_image_is_localized_in_the_map_it_shows(floors, frame) -> None:
    atlas = Atlas.open(["ground", "first"], folder=floors, device="cpu", acceptance=RULES)
    assert atlas.names == ("ground", "first") and atlas.current.name == "ground" and len(atlas.encoders) == 1
    forwards = count_forwards(atlas)
    localizer, estimate = atlas.localize(lambda one: one.localize(*frame))
    assert estimate.accepted and (localizer.name, localizer.frame_id) == ("first", "first_floor")
    assert forwards == [1]
    assert atlas.current.name == "ground"  # that is for the caller to decide
    alone = localizer.localize(*frame)
    np.testing.assert_array_equal(estimate.world_from_camera, alone.world_from_camera)
    assert forwards == [1, 1]  # nothing is remembered beyond one call


def test_current_map_is_asked_alone_while_it_accepts(floors, frame) -> None:
    atlas = Atlas.open(["ground", "first"], start="first", folder=floors, device="cpu", acceptance=RULES)
    asked = []

    def estimate(localizer):
        asked.append(localizer.name)
        return localizer.localize(*frame)

    assert atlas.localize(estimate)[0].name == "first" and asked == ["first"]
    asked.clear()
    assert atlas.localize(estimate, search=True)[0].name == "first" and asked == ["first", "ground"]


def test_image_of_no_map_is_rejected_by_all(floors, frame) -> None:
    atlas = Atlas.open(["ground", "first"], folder=floors, device="cpu", acceptance=RULES)
    image, camera = frame
    localizer, estimate = atlas.localize(lambda one: one.localize(np.zeros_like(image), camera))
    assert not estimate.accepted and localizer is atlas.current
    assert "No other of the 2 maps" in estimate.reason and np.isfinite(estimate.stage_ms["total"])


def test_rules_reach_every_map(floors) -> None:
    atlas = Atlas.open(["ground", "first"], folder=floors, device="cpu")
    solver = SolverConfig(hypotheses=16)
    atlas.set_rules(solver, RULES)
    assert all(one.solver is solver and one.acceptance is RULES for one in atlas.localizers)


def test_start_may_be_one_more_map_or_a_name(floors) -> None:
    assert Atlas.open(["ground"], start=str(floors / "first.dimm"), folder=floors, device="cpu").names == (
        "first",
        "ground",
    )
    by_name = Atlas.open([str(floors / "ground.dimm"), str(floors / "first.dimm")], start="first", device="cpu")
    assert by_name.current.name == "first" and by_name.select("ground") and by_name.current.name == "ground"
    assert not by_name.select("attic") and by_name.current.name == "ground"


def test_encoder_is_kept_from_one_atlas_to_the_next(floors) -> None:
    old = Atlas.open(["ground"], folder=floors, device="cpu")
    new = Atlas.open(["first"], folder=floors, device="cpu", encoders=old.encoders)
    assert new.current.encoder is old.current.encoder
    assert (
        Atlas.open([str(floors / "ground")], opener=lambda entry, **options: open_map(entry, device="cpu")).encoders
        == {}
    )


def test_maps_of_one_name_are_refused(floors) -> None:
    with pytest.raises(MapError, match="Two of the maps are called 'ground'"):
        Atlas.open(["ground", str(floors / "ground.dimm")], folder=floors, device="cpu")
    with pytest.raises(MapError, match="No map is given"):
        Atlas([])


def test_names_and_paths(floors, monkeypatch) -> None:
    expected = (floors / "ground.dimm").resolve()
    monkeypatch.setenv("HOME", str(floors))
    monkeypatch.chdir(floors)
    for entry in (
        "ground",
        "ground.dimm",
        "~/ground.dimm",
        "~/ground",
        str(expected),
        "./ground",
        f"../{floors.name}/ground",
    ):
        assert find_map(entry) == expected
    assert find_map("ground", "~") == find_map("ground", floors) == expected
    assert find_map(str(expected), "/nowhere") == expected  # an absolute path needs no folder


@pytest.mark.parametrize(
    "entry, words",
    [
        ("attic", "does not exist"),
        ("folder", "is a folder"),
        ("x" * 5000, "cannot be looked for"),
        ("~nobody_here/map", "cannot be looked for"),
        ("a\0b", "cannot be looked for|does not exist"),
        ("/", "cannot be looked for|is a folder"),
    ],
)
def test_what_is_no_map_file_is_one_sentence(tmp_path, entry, words) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(MapError, match=words) as caught:
        find_map(entry, tmp_path)
    assert "\n" not in str(caught.value)
