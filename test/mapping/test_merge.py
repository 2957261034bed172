"""Two maps become one file, which answers as the one that knows the image."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from dimm_ros.data.open import open_recording
from dimm_ros.encoder.dinov2 import Encoder
from dimm_ros.errors import MapError
from dimm_ros.geometry.poses import pose_errors
from dimm_ros.head.merged import MergedHead
from dimm_ros.localizer import Localizer
from dimm_ros.mapping.merge import merge_maps
from dimm_ros.mapping.retrieval import ReferenceViews, reference_path
from dimm_ros.mapping.update import update_map
from dimm_ros.scene_map import SceneMap


@pytest.fixture(scope="module")
def merged(tmp_path_factory, small_map: Path, other_map: Path) -> Path:
    return merge_maps([small_map, other_map], tmp_path_factory.mktemp("merged") / "floor.dimm")


def test_each_image_is_answered_by_the_map_that_knows_it(
    merged: Path, small_map: Path, other_map: Path, walk: Path, other_walk: Path
) -> None:
    both = Localizer.open(merged, device="cpu")
    for path, bag in ((small_map, walk), (other_map, other_walk)):
        alone = Localizer.open(path, device="cpu")
        for frame in open_recording(bag).frames[::5]:
            one, other = (localizer.localize(frame.load(), frame.camera) for localizer in (both, alone))
            np.testing.assert_allclose(one.world_rays, other.world_rays, atol=2e-3)
            # another origin, other draws of the RANSAC
            metres, degrees = pose_errors(one.world_from_camera, other.world_from_camera)
            assert metres < 0.05 and degrees < 4.0
            assert one.novelty < 0.05


def test_images_of_both_in_one_batch_keep_their_order(merged: Path, walk: Path, other_walk: Path) -> None:
    localizer = Localizer.open(merged, device="cpu")
    frames = [open_recording(bag).frames[place] for place in (1, 6) for bag in (walk, other_walk)]
    observed = localizer.observe_all([frame.load() for frame in frames], [frame.camera for frame in frames])
    head = localizer.map.head
    context = torch.stack([each.context for each in observed])
    camera_rays = torch.from_numpy(np.concatenate([each.grid.rays for each in observed])).float()
    patches = torch.randn(len(camera_rays), localizer.map.header.patch_dim, generator=torch.Generator().manual_seed(0))
    together = head(patches, context, camera_rays)
    assert set(head.novelty(context).argmin(dim=0).tolist()) == {0, 1}
    count = len(camera_rays) // len(frames)
    for number in range(len(frames)):
        rows = slice(number * count, (number + 1) * count)
        alone = head(patches[rows], context[number, None], camera_rays[rows])
        for field in ("directions", "moments", "direction_scale", "moment_scale"):
            torch.testing.assert_close(getattr(together, field)[rows], getattr(alone, field), atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(together.novelty[number], alone.novelty[0], atol=1e-5, rtol=1e-4)


def test_rays_of_a_part_stay_the_same_lines_in_the_world(merged: Path, other_map: Path) -> None:
    whole, part = SceneMap.load(merged), SceneMap.load(other_map)
    context = part.head.whole.mapped()[0][:1].float()
    generator = torch.Generator().manual_seed(0)
    patches, camera_rays = (
        torch.randn(7, 384, generator=generator),
        torch.nn.functional.normalize(torch.rand(7, 3, generator=generator), dim=1),
    )
    lines = []
    for scene_map in (whole, part):
        rays = scene_map.head(patches, context, camera_rays)
        origin = torch.tensor(scene_map.header.origin).float().expand(7, 3)
        scales = rays.moment_scale * scene_map.header.radius
        lines.append(
            (
                rays.directions,
                rays.moments * scene_map.header.radius + torch.linalg.cross(origin, rays.directions),
                scales,
            )
        )
    for one, other in zip(*lines, strict=True):
        torch.testing.assert_close(one, other, atol=2e-4, rtol=1e-3)


def test_the_header_tells_of_both(merged: Path, small_map: Path, other_map: Path) -> None:
    header, parts = SceneMap.load(merged).header, [SceneMap.load(path).header for path in (small_map, other_map)]
    assert header.name == "floor" and [part.name for part in header.parts] == ["gallery", "second"]
    assert [source.frames for source in header.sources] == [24, 10] and header.sources[1].licence == "CC0-1.0"
    assert header.calibration.max_novelty == max(part.calibration.max_novelty for part in parts)
    assert len(ReferenceViews.load(merged, header).cls) == 34


def test_merged_maps_merge_on_and_keep_each_part(merged: Path, small_map: Path, tmp_path: Path) -> None:
    path = merge_maps([merged, small_map], tmp_path / "three.dimm")
    scene_map = SceneMap.load(path)
    assert isinstance(scene_map.head, MergedHead) and [part.name for part in scene_map.header.parts] == [
        "gallery",
        "second",
        "gallery",
    ]
    assert not reference_path(path).exists() or len(ReferenceViews.load(path, scene_map.header).cls) == 58


def changed(path: Path, target: Path, **changes: object) -> Path:
    scene_map = SceneMap.load(path)
    SceneMap(scene_map.header.model_copy(update=changes), scene_map.head, scene_map.landmarks).save(target)
    return target


def test_what_cannot_be_one_map_is_refused(
    merged: Path, small_map: Path, other_map: Path, other_walk: Path, encoder: Encoder, tmp_path: Path
) -> None:
    output = tmp_path / "out" / "merged.dimm"
    foreign = changed(other_map, tmp_path / "foreign.dimm", encoder_sha256="ab" * 32)
    attic = changed(other_map, tmp_path / "attic.dimm", frame_id="attic")
    origin = SceneMap.load(small_map).header.origin
    moved = changed(small_map, tmp_path / "moved.dimm", name="moved", origin=(origin[0] + 4.0, *origin[1:]))
    garbage = tmp_path / "garbage.dimm"
    garbage.write_bytes(b"garbage" * 100)
    for second, words in (
        (foreign, "different encoders .*abababababab"),
        (attic, "is in frame 'map', but 'second' is in frame 'attic'"),
        (moved, "'gallery' and 'moved' are in different frames, though both are called 'map': .* 4.00 m"),
        (garbage, "damaged or not a map"),
        (tmp_path / "absent.dimm", "does not exist"),
    ):
        with pytest.raises(MapError, match=words):
            merge_maps([small_map, second], output)
    with pytest.raises(MapError, match="One map alone"):
        merge_maps([small_map], output)
    with pytest.raises(MapError, match="is a folder"):
        merge_maps([small_map, other_map], tmp_path)
    with pytest.raises(MapError, match="cannot be written"):
        merge_maps([small_map, other_map], "/proc/nowhere/merged.dimm")
    with pytest.raises(MapError, match="was merged from 2; update one of those"):
        update_map(shutil.copy(merged, tmp_path / "copy.dimm"), [open_recording(other_walk)], encoder)
    assert not output.parent.exists()
