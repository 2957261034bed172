"""Tiny maps of nothing, for tests of what surrounds a map."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from dimm_ros.config import EncoderConfig, HeadConfig, TrainingConfig
from dimm_ros.encoder.patches import patch_grid
from dimm_ros.estimate import Observation
from dimm_ros.geometry.camera import Camera
from dimm_ros.head.global_pose import GlobalPose
from dimm_ros.head.model import MapHead
from dimm_ros.localizer import Localizer
from dimm_ros.mapping.fit import MapFit
from dimm_ros.mapping.trainer import Normalisation
from dimm_ros.mapping.training_views import TrainingViews
from dimm_ros.scene_map import MapHeader, SceneMap, SourceRecording

PATCH, CONTEXT, VIEWS = 12, 24, 5


def tiny_header(**changes: object) -> MapHeader:
    """The header of a map that knows five views."""
    fields = {
        "name": "tiny",
        "frame_id": "map",
        "created": "2026-01-01T00:00:00+00:00",
        "dimm_version": "1.0.0",
        "encoder": EncoderConfig(),
        "encoder_sha256": "ab" * 32,
        "encoder_origin": "made up",
        "patch_dim": PATCH,
        "context_dim": CONTEXT,
        "head": HeadConfig(mappers=1, width=16, depth=1),
        "training": TrainingConfig(),
        "origin": (1.0, 2.0, 3.0),
        "radius": 2.0,
        "sources": (SourceRecording(name="nothing", frames=VIEWS),),
    }
    return MapHeader(**fields | changes)


def tiny_map(**changes: object) -> SceneMap:
    """A map with random weights and that header."""
    torch.manual_seed(0)
    header = tiny_header(**changes)
    whole = GlobalPose.fit(torch.randn(VIEWS, CONTEXT), torch.eye(3).expand(VIEWS, 3, 3), torch.randn(VIEWS, 3))
    return SceneMap(header, MapHead(PATCH, CONTEXT, header.head, whole).eval().requires_grad_(False))


class MadeUpWalk:
    """Features of a walk that nobody made: tokens and contexts are smooth functions of what is seen and from where,
    with noise.

    Attributes:
        grid: of all views.
        poses: (N, 4, 4) world_from_camera, metres.
        patches: (N, P, PATCH) tokens.
        context: (N, CONTEXT).
    """

    CAMERA = Camera(112, 84, 90.0, 90.0, 55.5, 41.5)
    ENCODER = EncoderConfig(input_size=112)

    def __init__(self, frames: int, seed: int = 0, noise: float = 0.1) -> None:
        self.grid = patch_grid(self.CAMERA, self.ENCODER.input_size)
        rng, world = np.random.default_rng(seed), np.random.default_rng(99)  # one world, seen on many walks
        time = np.arange(frames) / 40 + 50 * seed
        places = np.stack([2 * np.sin(0.7 * time), 1.5 * np.cos(1.1 * time), 0.2 * np.sin(1.7 * time)], axis=1)
        turns = np.stack([0.5 * np.sin(0.9 * time), 0.2 * np.cos(1.3 * time), 0.1 * np.sin(0.4 * time)], axis=1)
        self.poses = np.tile(np.eye(4), (frames, 1, 1))
        self.poses[:, :3, :3], self.poses[:, :3, 3] = Rotation.from_rotvec(turns).as_matrix(), places
        rays = self.grid.rays @ self.poses[:, :3, :3].transpose(0, 2, 1)
        shown = np.concatenate([rays, np.cross(places[:, None], rays)], axis=2)
        self.patches = np.sin(shown @ world.normal(size=(6, PATCH))) + noise * rng.normal(
            size=(frames, len(self.grid.rays), PATCH)
        )
        self.context = np.sin(
            np.concatenate([places, turns], axis=1) @ world.normal(size=(6, CONTEXT)) + world.normal(size=CONTEXT)
        )
        self.context += noise * rng.normal(size=self.context.shape)

    def views(
        self, frames: np.ndarray | None = None, shift: np.ndarray | float = 0.0, scale: float = 1.0
    ) -> TrainingViews:
        """Of some frames (all), with positions p as scale p + shift."""
        frames = np.arange(len(self.poses)) if frames is None else frames
        count, size = len(frames), len(self.grid.rays)
        rotations = torch.from_numpy(self.poses[frames, :3, :3])
        camera_rays = torch.from_numpy(np.tile(self.grid.rays, (count, 1))).float()
        view_of = torch.arange(count, dtype=torch.int32).repeat_interleave(size)
        return TrainingViews(
            patches=torch.from_numpy(self.patches[frames].reshape(-1, PATCH)).half(),
            camera_rays=camera_rays,
            view_of=view_of,
            directions=torch.einsum("bij,bj->bi", rotations[view_of.long()].float(), camera_rays),
            rotations=rotations,
            centres=torch.from_numpy(scale * self.poses[frames, :3, 3] + shift),
            context=torch.from_numpy(self.context[frames]).half(),
            frame_of=torch.arange(count, dtype=torch.int32),
        )

    @classmethod
    def header(cls, views: TrainingViews, steps: int) -> MapHeader:
        """Of a map to be fitted."""
        normalisation = Normalisation.of(views.centres)
        return tiny_header(
            encoder=cls.ENCODER,
            head=HeadConfig(mappers=1, width=48, depth=1),
            origin=tuple(normalisation.origin.tolist()),
            radius=normalisation.radius,
            training=TrainingConfig(steps=steps, batch=256, learning_rate=5e-3),
        )

    def observation(self, scene_map: SceneMap, frame: int) -> Observation:
        """What a map makes of a frame."""
        context = torch.from_numpy(self.context[frame, None]).half().float()
        with torch.inference_mode():
            rays = scene_map.head(
                torch.from_numpy(self.patches[frame]).half().float(),
                context,
                torch.from_numpy(np.array(self.grid.rays)).float(),
            )
        return Observation(grid=self.grid, rays=rays, context=context[0], cls=context[0], stage_ms={"encode": 0.0})


def localizer_of(scene_map: SceneMap) -> Localizer:
    """A localizer that has no encoder: it solves for observations."""
    weights = SimpleNamespace(sha256=scene_map.header.encoder_sha256)
    return Localizer(
        scene_map, SimpleNamespace(config=scene_map.header.encoder, weights=weights, device=torch.device("cpu"))
    )


def fitted(views: TrainingViews, folder: Path, steps: int) -> SceneMap:
    """A map of a made-up walk's features."""
    return (
        MapFit(
            MadeUpWalk.header(views, steps),
            views,
            folder / "training.safetensors",
            "",
            torch.device("cpu"),
            lambda *_: False,
        )
        .run()
        .scene_map
    )
