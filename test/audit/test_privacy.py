"""The audit finds what is in a map file, and does not find what is not there."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner

from dimm_ros.audit import scene_coordinates
from dimm_ros.audit.attacker import check_place, read_out
from dimm_ros.audit.membership import auc
from dimm_ros.audit.photos import EncodedImage, foreign_frames, true_points
from dimm_ros.audit.privacy import AttackPlan, Evidence, attack
from dimm_ros.audit.rebuild import TokenPrior, rebuild
from dimm_ros.audit.report import tables
from dimm_ros.audit.structure import Probe, best_fit
from dimm_ros.audit.surface import Surface
from dimm_ros.audit.triangulate import meet
from dimm_ros.cli.main import app
from dimm_ros.data.open import open_recording
from dimm_ros.data.record import record_frames
from dimm_ros.data.recording import Frame
from dimm_ros.errors import InputError
from dimm_ros.geometry.camera import Camera
from dimm_ros.geometry.poses import exp_so3, make_pose, pose_errors
from dimm_ros.head.loss import ray_losses
from dimm_ros.scene_map import SceneMap

SMALL = AttackPlan(stations=2, around=6, queried=32, fitted=4, rebuilt=2, steps=3, point_steps=20)


def test_map_file_gives_the_camera_path_away(small_map: Path, walk: Path) -> None:
    true = open_recording(walk).poses()
    distance, angle = pose_errors(read_out(SceneMap.load(small_map)).path, true)
    assert distance.max() < 1e-3 and angle.max() < 0.1


def test_map_without_global_pose_part_holds_no_path(small_map: Path) -> None:
    scene_map = SceneMap.load(small_map)
    scene_map.head.whole = None
    assert read_out(scene_map) is None
    photos = [_photo(scene_map, number) for number in range(4)]
    audit = attack(scene_map, Evidence(photos[:2], mapped=photos[2:]), SMALL)
    assert audit.path is None and audit.figures["path"] is None and audit.clouds == {}
    assert set(audit.figures["membership"]["this place was mapped"]) == {"confidence", "mean context"}


def test_rays_meet_where_most_of_them_do() -> None:
    rng = np.random.default_rng(0)
    points, centres = rng.uniform(-1, 1, (5, 3)) + [0, 0, 3], rng.uniform(-0.5, 0.5, (12, 3))
    directions = points[:, None] - centres
    directions[:, 8:] = rng.normal(size=(5, 4, 3))  # a third is wrong
    directions /= np.linalg.norm(directions, axis=2, keepdims=True)
    meetings = meet(centres, directions)
    assert (meetings.support >= 8).all()
    np.testing.assert_allclose(meetings.points, points, atol=0.05)
    apart = np.tile([[0.0, 0.0, 1.0]], (1, 12, 1))
    assert meet(centres, apart).support.max() == 0 and len(meet(centres, apart).supported(2)) == 0
    assert meet(centres, -directions).support.max() < 8  # what is behind the cameras is not met


def test_surface_figures() -> None:
    plane = np.stack(np.meshgrid(np.arange(0, 1, 0.05), np.arange(0, 1, 0.05), [0.0]), axis=-1).reshape(-1, 3)
    surface = Surface(plane)
    assert surface.judge(plane) == {"points": 400, "within_10cm": 1.0, "median_m": 0.0, "covered": 1.0}
    half = surface.judge(np.concatenate([plane[plane[:, 0] < 0.4] + [0, 0, 0.05], plane[:80] + [0, 0, 3.0]]))
    assert half["within_10cm"] == pytest.approx(160 / 240) and half["covered"] == pytest.approx(0.45, abs=0.051)
    assert surface.judge(np.full((3, 3), np.nan))["points"] == 0


def test_depth_gives_the_true_points_of_patches() -> None:
    camera, pose = (
        Camera(8, 6, 8.0, 8.0, 3.5, 2.5),
        make_pose(exp_so3(np.array([0.1, 0.4, -0.2])), np.array([1.0, 2.0, 3.0])),
    )
    depth = np.full((6, 8), 2.0, np.float32)
    depth[0] = 0
    frame = Frame("one", 0, camera, pose, lambda: np.zeros((6, 8, 3), np.uint8), lambda: depth, camera)
    rays, _ = camera.bearings(np.array([[3.5, 2.5], [0.0, 5.0], [0.0, 0.0]]))
    points, surface = true_points(frame, rays)
    np.testing.assert_allclose((points[:2] - pose[:3, 3]) @ pose[:3, 2], 2.0, atol=1e-6)
    pixels, _ = camera.project((points[:2] - pose[:3, 3]) @ pose[:3, :3])
    np.testing.assert_allclose(pixels, [[3.5, 2.5], [0.0, 5.0]], atol=1e-6)
    # the top row, which the coarse grid takes, has no depth
    assert np.isnan(points[2]).all() and surface.shape == (0, 3)


def test_auc() -> None:
    assert auc(np.array([2.0, 3.0]), np.array([0.0, 1.0])) == 1.0
    assert auc(np.array([1.0, 1.0]), np.array([1.0, 1.0])) == 0.5
    assert auc(np.array([0.0, 4.0]), np.array([1.0, 2.0])) == 0.5


def _photo(scene_map: SceneMap, seed: int, pose: np.ndarray | None = None) -> EncodedImage:
    """Random tokens in a 4 x 5 grid."""
    generator = torch.Generator().manual_seed(seed)
    rays, _ = Camera(50, 40, 40.0, 40.0, 24.5, 19.5).bearings(
        np.stack(np.meshgrid(np.arange(5, 50, 10), np.arange(5, 40, 10)), -1).reshape(-1, 2)
    )
    header = scene_map.header
    patches = torch.randn(20, header.patch_dim, generator=generator)
    context = torch.randn(header.context_dim, generator=generator)
    return EncodedImage(patches.half(), context, torch.from_numpy(rays).float(), (4, 5), pose=pose)


class _Knowing(torch.nn.Module):
    """A head that does hold the scene: it answers the ray to a token's point, whatever is asked for, and is sure of it
    where it is right.
    """

    def __init__(self, probe: Probe, points: torch.Tensor) -> None:
        super().__init__()
        self.probe, self.points = probe, points

    def forward(self, patches: torch.Tensor, context: torch.Tensor, camera_rays: torch.Tensor):
        from dimm_ros.head.model import Rays

        view = int((self.probe.contexts - context).square().sum(dim=1).argmin())
        centre = torch.from_numpy(self.probe.path[view, :3, 3]).float()
        directions = torch.nn.functional.normalize(self.points[patches[:, 0].long()] - centre, dim=1)
        moments = torch.linalg.cross(
            (centre - torch.from_numpy(self.probe.origin).float()).expand_as(directions) / self.probe.radius, directions
        )
        return Rays(directions, moments, None, None)


def test_a_head_that_holds_the_scene_is_found_out() -> None:
    """The attack itself works: points come back from a head that answers by them."""
    rng = np.random.default_rng(0)
    path = np.stack([make_pose(exp_so3(rng.normal(0, 0.05, 3)), rng.uniform(-0.6, 0.6, 3)) for _ in range(12)])
    points = torch.from_numpy(rng.uniform(-0.5, 0.5, (6, 3)) + [0, 0, 3]).float()
    probe = Probe(None, path, torch.randn(12, 7, generator=torch.Generator().manual_seed(0)), np.zeros(3), 1.0)
    probe = Probe(_Knowing(probe, points), path, probe.contexts, np.zeros(3), 1.0)
    tokens = torch.arange(6.0)[:, None]
    x, y = np.meshgrid(np.linspace(-0.6, 0.6, 41), np.linspace(-0.6, 0.6, 41))
    places = torch.from_numpy(np.stack([x, y, np.ones_like(x)], axis=-1).reshape(-1, 3)).float()
    meetings = best_fit(probe, tokens, torch.nn.functional.normalize(places, dim=1), np.arange(12))
    # a step of the grid, 1.7 degrees, at 3 m
    assert np.median(np.linalg.norm(meetings.points - points.numpy(), axis=1)) < 0.12
    assert meetings.support.min() >= 6


def test_rebuilding_finds_tokens_that_the_head_likes_better(small_map: Path) -> None:
    scene_map = SceneMap.load(small_map)
    probe = Probe.of(scene_map, read_out(scene_map))
    photo = _photo(scene_map, 0)
    prior = TokenPrior.of([photo, _photo(scene_map, 1)], torch.device("cpu"))
    truth = probe.true_rays(3, photo.camera_rays)

    def misfit(tokens: torch.Tensor) -> float:
        with torch.inference_mode():
            return float(ray_losses(probe.head(tokens, probe.contexts[3, None], photo.camera_rays), *truth).mean())

    rebuilt = rebuild(probe, prior, 3, photo.camera_rays, steps=30)
    assert rebuilt.shape == photo.patches.shape and misfit(rebuilt) < misfit(prior.mean.expand_as(rebuilt)) - 1


def test_the_yardstick_learns_points(small_map: Path) -> None:
    scene_map = SceneMap.load(small_map)
    photos = []
    for seed in range(4):
        photo = _photo(scene_map, seed)
        points = photo.patches[:, :3].double().numpy() + [1.0, 2.0, 3.0]
        points[0] = np.nan
        photos.append(EncodedImage(photo.patches, photo.context, photo.camera_rays, photo.shape, points=points))
    head = scene_coordinates.train(photos, 60, torch.device("cpu"))
    error = np.linalg.norm(scene_coordinates.ask(head, photos[0].patches) - photos[0].points, axis=1)
    assert np.nanmedian(error) < 0.5 * np.nanmedian(np.linalg.norm(photos[0].points - [1.0, 2.0, 3.0], axis=1))


def test_foreign_frames_are_pictures_of_a_room() -> None:
    frames = foreign_frames(5)
    images = [frame.load() for frame in (frames[0], frames[-1])]
    assert len(frames) == 5 and all(image.shape == (336, 448, 3) and image.std() > 10 for image in images)
    assert np.abs(images[0].astype(int) - images[1]).mean() > 5


def test_verb(small_map: Path, walk: Path, other_walk: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("dimm_ros.audit.privacy.AttackPlan", lambda: SMALL)
    words = [
        "audit",
        "privacy",
        str(small_map),
        str(walk),
        "--foreign",
        str(other_walk),
        "--images",
        "4",
        "--results",
        str(tmp_path),
    ]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    figures = json.loads((tmp_path / "latest" / "audit.json").read_text())
    assert (
        figures["path"]["images"] == 24
        and figures["path"]["median_error_m"] < 1e-3
        and figures["path"]["in_order"] == 1
    )
    assert figures["contexts"]["matched_to_its_image"] == 1 and figures["contexts"]["cosine"] > 0.95
    # the foreign images are of the same room, but are not mapped
    assert figures["membership"]["this place was mapped"]["novelty"] == 1
    assert {row["attack"] for row in figures["structure"]} >= {"foreign images, same place", "rebuilt tokens, best fit"}
    for name in ("path.png", "structure.png", "tokens.png"):
        assert cv2.imread(str(tmp_path / "latest" / name)).std() > 5
    assert "24 images recovered" in result.output

    result = CliRunner().invoke(
        app, ["audit", "privacy", str(small_map), "--unseen", "near:val", "--results", str(tmp_path / "no")]
    )
    assert result.exit_code == 1 and "give DATA" in result.output and not (tmp_path / "no").exists()


def test_recordings_that_the_map_was_not_made_from_are_refused(small_map: Path) -> None:
    scene_map = SceneMap.load(small_map)
    views = read_out(scene_map)
    mapped = [
        replace(_photo(scene_map, number), context=context, pose=pose)
        for number, (context, pose) in enumerate(zip(views.contexts[views.recorded], views.path, strict=True))
    ]
    check_place(scene_map, mapped, "walk", mapped=True)
    check_place(scene_map, [], "walk", mapped=True)
    shifted = [replace(photo, pose=make_pose(np.eye(3), [0, 0, 5.0]) @ photo.pose) for photo in mapped]
    check_place(scene_map, shifted, "walk", mapped=False)
    with pytest.raises(InputError, match="'second' is not what map 'gallery' was made from: .* poses of 0 of 24"):
        check_place(scene_map, shifted, "second", mapped=True)
    strangers = [replace(photo, context=photo.context + 30 * torch.randn(len(photo.context))) for photo in mapped]
    for kind in (True, False):
        with pytest.raises(InputError, match="'elsewhere' is of another place than map 'gallery'"):
            check_place(scene_map, strangers, "elsewhere", mapped=kind)
    scene_map.head.whole = None  # such a map cannot tell
    check_place(scene_map, strangers, "elsewhere", mapped=True)


def test_verb_refuses_another_places_recording(small_map: Path, tmp_path: Path) -> None:
    rng, camera = np.random.default_rng(0), Camera(224, 168, 150.0, 150.0, 111.5, 83.5)
    pictures = [rng.integers(0, 255, (168, 224, 3), dtype=np.uint8) for _ in range(4)]
    poses = [make_pose(np.eye(3), [0.1 * number, 0, 0]) for number in range(4)]
    frames = [
        Frame(str(number), number * 10**8, camera, pose, lambda picture=picture: picture)
        for number, (pose, picture) in enumerate(zip(poses, pictures, strict=True))
    ]
    bag = record_frames(tmp_path / "noise_bag", frames)
    words = ["audit", "privacy", str(small_map), str(bag), "--images", "4", "--results", str(tmp_path / "results")]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 1 and "noise_bag' is of another place than map 'gallery'" in " ".join(
        result.stderr.split()
    )
    assert not (tmp_path / "results").exists()


def test_tables_say_why_nothing_is_judged() -> None:
    rows = [{"attack": "foreign images, best fit", "points": 12}, {"attack": "guess", "points": 9}]
    figures = {"path": None, "contexts": None, "membership": {}, "foreign_poses": {}, "structure": rows}

    def text(**more) -> str:
        console = Console(record=True, width=200)
        for table in tables("a map", figures | more):
            console.print(table)
        return " ".join(console.export_text().split())

    unjudged = text(structure_unjudged="the recording has no depth images")
    assert "is not known: the recording has no depth images" in unjudged
    assert "within 10 cm" not in unjudged and " - " not in unjudged
    judged = [
        rows[0] | {"within_10cm": 0.5, "median_m": 0.2, "covered": 0.1},
        {"attack": "none", "points": 0, "covered": 0.0},
    ]
    shown = text(structure=judged, structure_unjudged=None)
    assert "50.0%" in shown and "no point came back" in shown


@pytest.mark.parametrize(("photos", "why"), [([], "no recording was given"), ([0], "no depth images")])
def test_the_reason_is_what_the_evidence_lacks(photos: list[int], why: str, small_map: Path) -> None:
    scene_map = SceneMap.load(small_map)
    scene_map.head.whole = None
    evidence = Evidence([_photo(scene_map, 5)], mapped=[_photo(scene_map, number) for number in photos])
    assert why in attack(scene_map, evidence, SMALL).figures["structure_unjudged"]
