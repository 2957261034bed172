"""From features to a judged map: one row, one split, one seed."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.ablation.features import ENCODER, Features
from benchmarks.ablation.rows import DEFAULT, Row
from benchmarks.peers import pose_regression
from dimm_ros.config import SolverConfig
from dimm_ros.evaluation.metrics import FrameResult, summarise
from dimm_ros.geometry.poses import make_pose
from dimm_ros.head.global_pose import GlobalPose
from dimm_ros.head.model import MapHead, fourier
from dimm_ros.mapping.calibrate import calibrate, held_out_frames
from dimm_ros.mapping.fit import CALIBRATING, fitted_global_pose
from dimm_ros.mapping.retrieval import ReferenceViews
from dimm_ros.mapping.trainer import PATCHES_PER_VIEW, Normalisation, Trainer
from dimm_ros.mapping.training_views import TrainingViews
from dimm_ros.progress import ProgressCallback
from dimm_ros.scene_map import Calibration, MapHeader, SceneMap
from dimm_ros.solver import solve_pose
from dimm_ros.solver.window import calibrated_covariance

_CHECKS = 8  # of the early stop


class SelfAttentionHead(MapHead):
    """The head with self-attention over the patches of an image before the mappers: no longer one patch at a time."""

    def __init__(self, patch_dim: int, *rest: object, width: int = 128) -> None:
        super().__init__(patch_dim, *rest)
        self.enter, self.place = nn.Linear(patch_dim, width), nn.Linear(2 + 4 * self.config.frequencies, width)
        layer = nn.TransformerEncoderLayer(
            width, 4, 2 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.attention, self.leave = (
            nn.TransformerEncoder(layer, 2, enable_nested_tensor=False),
            nn.Linear(width, patch_dim),
        )

    def forward(self, patches: Tensor, context: Tensor, camera_rays: Tensor):
        tokens = self.enter(patches) + self.place(fourier(camera_rays, self.config.frequencies))
        mixed = self.attention(tokens.unflatten(0, (len(context), -1))).flatten(0, 1)
        return super().forward(patches + self.leave(mixed), context, camera_rays)


@dataclass(frozen=True)
class RowResult:
    """A map of a row with its figures, and (of the default) the map that calibrated it, made without the held-out
    frames.
    """

    figures: dict
    scene_map: SceneMap | None
    held_out_map: SceneMap | None = None


def judge(row: Row, seed: int, train: Features, val: Features, progress: ProgressCallback) -> RowResult:
    """Make the map of a row and localize the val frames with it."""
    data = train.chosen(row.layers, row.context, row.passes)
    start = time.perf_counter()
    if row.kind == "retrieval":
        return RowResult(_figures(_retrieved(train, val), start), None)
    normalisation = Normalisation.of(data.centres[: len(train.recording.frames)])
    if row.kind in ("regression", "kernel"):
        head, training, _ = row.configs(seed)
        network = (
            pose_regression.train(data, normalisation, training, progress)
            if row.kind == "regression"
            else fitted_global_pose(data, None, normalisation, head, torch.device("cpu"))
        )
        return RowResult(_figures(_regressed(network, val, row.context, normalisation), start), None)
    scene_map, held_out_map = _train(row, seed, train, data, normalisation, progress)
    seconds = time.perf_counter() - start
    return RowResult(
        _figures(localized(scene_map, val, row, seed), start) | {"training_seconds": round(seconds, 1)},
        scene_map,
        held_out_map,
    )


def judge_solver(row: Row, seed: int, scene_map: SceneMap, val: Features) -> RowResult:
    """Localize the val frames with a map that is there, with the row's solver."""
    return RowResult(_figures(localized(scene_map, val, row, seed), time.perf_counter()), scene_map)


def _figures(answers: list[FrameResult], start: float) -> dict:
    return summarise(answers) | {"seconds": round(time.perf_counter() - start, 1)}


def _train(
    row: Row, seed: int, train: Features, data: TrainingViews, normalisation: Normalisation, progress: ProgressCallback
) -> tuple[SceneMap, SceneMap | None]:
    """As ``build_map``: a head that has not seen the held-out frames is calibrated, the map's own sees them all."""
    head, training, _ = row.configs(seed)
    held_out = held_out_frames(len(train.recording.frames))
    views = torch.from_numpy(np.flatnonzero(~np.isin(data.frame_of.numpy(), held_out)))
    header = MapHeader(
        name=row.name,
        frame_id="map",
        created="",
        dimm_version="",
        encoder=ENCODER,
        encoder_sha256="",
        encoder_origin="",
        patch_dim=data.patches.shape[1],
        context_dim=data.context.shape[1],
        head=head,
        training=training,
        origin=tuple(normalisation.origin.tolist()),
        radius=normalisation.radius,
        sources=(),
    )

    def learner(steps: int, chosen: Tensor | None) -> Trainer:
        torch.manual_seed(seed)
        attention = row.kind == "self-attention"
        model = (SelfAttentionHead if attention else MapHead)(header.patch_dim, header.context_dim, head)
        return Trainer(
            model, data, normalisation, training.changed(steps=steps), chosen, 256 if attention else PATCHES_PER_VIEW
        )

    def current(trainer: Trainer, chosen: Tensor | None, calibration: Calibration) -> SceneMap:
        head_with_pose = trainer.trained_head()
        head_with_pose.whole = fitted_global_pose(data, chosen, normalisation, head, torch.device("cpu"))
        return SceneMap(header.model_copy(update={"calibration": calibration}), head_with_pose)

    calibration, held_out_map = Calibration(), None
    if row is DEFAULT:  # the others' tables have no covariance
        trainer = learner(int(CALIBRATING * training.steps), views)
        while trainer.done < trainer.config.steps:
            trainer.step()
            progress(f"{row.name[:40]}, calibration", trainer.done, trainer.config.steps)
        held_out_map = current(trainer, views, Calibration())
        calibration = calibrate(held_out_map, data, held_out)
    trainer, best = learner(training.steps, views if row.early_stop else None), (np.inf, None)
    while trainer.done < training.steps:
        trainer.step()
        progress(f"{row.name[:40]}, seed {seed}", trainer.done, training.steps)
        if row.early_stop and trainer.done % (training.steps // _CHECKS) == 0:
            scene_map = current(trainer, views, calibration)
            figures = summarise(
                localized(scene_map, Features(data, train.recording, train.width, row.layers), row, seed, held_out)
            )
            if figures["median_translation_m"] < best[0]:
                best = (figures["median_translation_m"], scene_map)
    return (best[1] if row.early_stop else current(trainer, None, calibration)), held_out_map


def localized(
    scene_map: SceneMap, features: Features, row: Row, seed: int, frames: np.ndarray | None = None
) -> list[FrameResult]:
    """Answers for the recorded images of features (or for these frames of theirs)."""
    solver: SolverConfig = row.configs(seed)[2]
    header, head = scene_map.header, scene_map.head
    own = features.layers == row.layers  # already cut to the row
    data = features.data if own else features.chosen(row.layers, row.context, 1)
    answers = []
    for index in range(len(features.recording.frames)) if frames is None else frames:
        rows = data.rows(index)
        camera_rays = data.camera_rays[rows]
        with torch.inference_mode():
            rays = head(data.patches[rows].float(), data.context[index, None].float(), camera_rays)
            solution = solve_pose(camera_rays.double(), **rays.in_metres(header.radius), config=solver)
        pose = solution.world_from_camera.numpy().copy()
        pose[:3, 3] += header.origin
        sigmas = header.calibration.sigmas(None if rays.novelty is None else float(rays.novelty[0]))
        covariance = calibrated_covariance(solution.covariance.numpy(), np.zeros(3), *sigmas)
        answers.append(_answer(features, index, pose if solution.ok else None, covariance))
    return answers


def _answer(
    features: Features, index: int, pose: np.ndarray | None, covariance: np.ndarray | None = None
) -> FrameResult:
    frame = features.recording.frames[index]
    return FrameResult(
        name=frame.name,
        stamp_ns=frame.stamp_ns,
        true=frame.world_from_camera,
        estimated=pose,
        covariance=covariance,
        reason="" if pose is not None else "no pose",
        latency_ms=0.0,
        encoder_ms=0.0,
    )


def _retrieved(train: Features, val: Features) -> list[FrameResult]:
    reference = ReferenceViews.of(train.data, train.recording, train.width)
    return [_answer(val, index, reference.nearest(cls.float().numpy())) for index, cls in enumerate(val.context("cls"))]


def _regressed(
    network: Callable[[Tensor], tuple[Tensor, ...]], val: Features, context: str, normalisation: Normalisation
) -> list[FrameResult]:
    with torch.inference_mode():
        rotations, centres, *_ = network(val.context(context).float())
    centres = centres.double() * normalisation.radius + normalisation.origin
    return [
        _answer(val, index, make_pose(rotations[index].double().numpy(), centres[index].numpy()))
        for index in range(len(centres))
    ]


def novelty_of(whole: GlobalPose, contexts: Tensor) -> np.ndarray:
    """(N,) novelty of contexts."""
    with torch.inference_mode():
        return whole(contexts.float())[2].numpy()
