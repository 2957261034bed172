"""From features to a map: training, calibration on held-out frames, the global pose part; stoppable and resumable at
any step.
"""

from __future__ import annotations

import copy
import json
import logging
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from dimm_ros.config import HeadConfig
from dimm_ros.errors import UNREADABLE, DataError
from dimm_ros.head.global_pose import GlobalPose
from dimm_ros.head.model import MapHead
from dimm_ros.mapping.calibrate import calibrate, calibrate_short, focal_bias, held_out_frames
from dimm_ros.mapping.distributed import ALONE, Workers
from dimm_ros.mapping.trainer import Normalisation, Trainer
from dimm_ros.mapping.training_views import TrainingViews
from dimm_ros.progress import ProgressCallback
from dimm_ros.scene_map import Calibration, Curve, MapHeader, SceneMap, write_safetensors

log = logging.getLogger(__name__)

_CHECKPOINT_SECONDS = 60.0
_FOCAL_FRAMES = 24  # mapped frames that say how far off focal lengths are
CALIBRATING = 0.5  # share of the steps that the head is trained for that is calibrated
_CURVE_POINTS, _CURVES = 100, 8  # of a training, and trainings of a map
_LOSSES = 100  # of the last steps, whose mean is reported


@dataclass(frozen=True)
class TrainingResult:
    """Result of training a map.

    Attributes:
        scene_map: usable, if unfinished.
        complete: False when stopped early; the same call goes on from there.
        seconds: in all calls together.
    """

    scene_map: SceneMap
    complete: bool
    seconds: float


class MapFit:
    """Training of a map: calibrate, train, finish.

    Args:
        header: of the map to be; its calibration, figures and curves are filled in.
        views: of the recording.
        checkpoint: file that a stopped training goes on from.
        fingerprint: of all that the training depends on.
        device: where the head is trained.
        progress: called after each step.
        start: map whose head goes on learning.
        rehearsal: its views, see ``rehearse``.
        workers: processes that train together; the first one's map alone is calibrated, and its views have all patches.
    """

    def __init__(
        self,
        header: MapHeader,
        views: TrainingViews,
        checkpoint: Path,
        fingerprint: str,
        device: torch.device,
        progress: ProgressCallback,
        *,
        start: SceneMap | None = None,
        rehearsal: TrainingViews | None = None,
        workers: Workers = ALONE,
    ) -> None:
        self._header, self._views, self._device, self._progress = header, views, device, progress
        self._start, self._rehearsal, self._workers = start, rehearsal, workers
        self._all = views if rehearsal is None else views.followed_by(rehearsal)
        self._normalisation = Normalisation(torch.tensor(header.origin, dtype=torch.float64), header.radius)
        self._session = _Session(checkpoint, fingerprint)
        self._begun = 0.0

    def run(self) -> TrainingResult:
        """Train the map, or train it further from where it was stopped.

        Raises:
            DataError: the training diverged.
            MapError: the checkpoint cannot be written.
        """
        self._session.open()
        self._workers.wait()  # before the first one writes the checkpoint anew
        self._begun = time.perf_counter() - self._session.seconds
        stopped = self.calibrate()
        if stopped is not None:
            return self._fitted(self._map_of(stopped), complete=False)
        return self.finish(*self.train())

    def calibrate(self) -> Trainer | None:
        """Measure the errors of a head that has not seen the held-out frames, and drop it; its trainer when stopped."""
        session, held_out = self._session, held_out_frames(self._views.frames)
        if session.calibrated or not len(held_out):
            session.calibrated = True
            return None
        seen = torch.from_numpy(np.flatnonzero(~np.isin(self._views.frame_of.numpy(), held_out)))
        seen = torch.cat([seen, torch.arange(len(self._views), len(self._all))])
        trainer = self._trainer(max(1, int(CALIBRATING * self._header.training.steps)), seen)
        self._learn(trainer, "calibration")
        if trainer.done < trainer.config.steps:
            return trainer
        if self._workers.first:
            judged = self._map_of(trainer, seen)
            session.calibration = calibrate(judged, self._views, held_out, rehearsal=self._rehearsal)
        session.calibrated = True
        return None

    def train(self) -> tuple[Trainer, float | None]:
        """Train the map's own head, which sees every frame, until done or stopped; its trainer and last mean loss."""
        trainer = self._trainer(self._header.training.steps, None)
        return trainer, self._learn(trainer, "training")

    def finish(self, trainer: Trainer, loss: float | None) -> TrainingResult:
        """The map of the trained head, with the global pose part and what is known of its errors."""
        complete, views = trainer.done == trainer.config.steps, self._views
        figures = {
            "steps": trainer.done,
            "views": len(views),
            "patches": len(views.view_of),
            "training_seconds": round(self._session.seconds, 1),
        }
        if loss is not None:
            figures["loss"] = loss
        scene_map = self._map_of(trainer)
        changes: dict[str, object] = {"figures": scene_map.header.figures | figures}
        if self._workers.first:
            changes["calibration"] = self._calibration(scene_map, complete)
        scene_map.header = scene_map.header.model_copy(update=changes)
        return self._fitted(scene_map, complete)

    def _trainer(self, steps: int, chosen: Tensor | None) -> Trainer:
        """Of a new head, or of the old map's, about to learn from these views (all), or where it was stopped."""
        header, start = self._header, self._start
        torch.manual_seed(header.training.seed)
        model = MapHead(header.patch_dim, header.context_dim, header.head) if start is None else _learning(start.head)
        trainer = Trainer(
            model.to(self._device),
            self._all,
            self._normalisation,
            header.training.changed(steps=steps),
            chosen,
            standardise=start is None,
            workers=self._workers,
        )
        self._session.resume(trainer)
        return trainer

    def _learn(self, trainer: Trainer, stage: str) -> float | None:
        """Train to the end, or until stopped; the mean loss of the last steps, None if there was nothing left to do."""
        session, steps, stopped = self._session, trainer.config.steps, False
        every = max(1, steps // _CURVE_POINTS)
        losses: deque[float] = deque(maxlen=_LOSSES)
        while trainer.done < steps and not stopped:
            losses.append(trainer.step())
            if not np.isfinite(losses[-1]):
                raise DataError(
                    f"The training of '{self._header.name}' diverged at step {trainer.done}; "
                    "try a lower learning rate or another seed."
                )
            if session.calibrated and (trainer.done % every == 0 or trainer.done == steps):
                session.curve.append((trainer.done, round(float(np.mean([*losses][-every:])), 4)))
            stopped = self._workers.any(self._progress(stage, trainer.done, steps, f"loss {np.mean(losses):.2f}"))
            session.seconds = time.perf_counter() - self._begun
            if self._workers.first:
                session.checkpoint(trainer, force=stopped)
        return float(np.mean(losses)) if losses else None

    def _map_of(self, trainer: Trainer, chosen: Tensor | None = None) -> SceneMap:
        """The map by now, with the global pose part from these views (all); the head alone where nothing is written."""
        header, session, head = self._header, self._session, trainer.trained_head()
        if not self._workers.first:
            return SceneMap(header, head)
        head.whole = fitted_global_pose(self._all, chosen, self._normalisation, header.head, self._device)
        curve = Curve(name=header.sources[-1].name if header.sources else header.name, points=tuple(session.curve))
        changes = {"calibration": session.calibration, "curves": (*header.curves, curve)[-_CURVES:]}
        return SceneMap(header.model_copy(update=changes), head)

    def _fitted(self, scene_map: SceneMap, complete: bool) -> TrainingResult:
        return TrainingResult(scene_map, complete, self._session.seconds)

    def _calibration(self, scene_map: SceneMap, complete: bool) -> Calibration:
        """What is known of the map's errors (of a short recording by the global pose part) and of its focal lengths."""
        views, calibration, start = self._views, self._session.calibration, self._start
        changes: dict[str, float] = {}
        if calibration.max_novelty is None and scene_map.head.whole is not None:
            known = calibrate_short(
                *_global_pose_arguments(views, views.whole, self._normalisation), views.frame_of[views.whole]
            )
            changes |= known | {"position_rate": known["position_rate"] * self._normalisation.radius}
        if complete:
            mapped = np.linspace(0, views.frames - 1, min(_FOCAL_FRAMES, views.frames)).round().astype(int)
            changes["focal_factor"] = focal_bias(scene_map.head, views, mapped)
        calibration = calibration.model_copy(update=changes)
        if start is None:
            return calibration
        return start.header.calibration.rescaled(_unit(scene_map, self._rehearsal)).joined(calibration)


def _unit(scene_map: SceneMap, rehearsal: TrainingViews | None) -> float:
    """Novelty of an image in a map per its novelty in the map before: new recordings move the unit, the views' median
    distance.
    """
    whole = scene_map.head.whole
    if whole is None or rehearsal is None:
        return 1.0
    return float(whole.median_distance(rehearsal.context.to(whole.mean.device)) / whole.spread)


def _learning(head: MapHead) -> MapHead:
    """A copy of a map's head that can be trained."""
    model = copy.deepcopy(head)
    model.whole = None
    return model.requires_grad_(True)


def fitted_global_pose(
    views: TrainingViews, chosen: Tensor | None, normalisation: Normalisation, head: HeadConfig, device: torch.device
) -> GlobalPose | None:
    """The regression of the global pose from these views (all), without virtual ones of which little is left."""
    if not head.whole_share:
        return None
    enough = views.whole if chosen is None else views.whole & torch.isin(torch.arange(len(views)), chosen)
    return GlobalPose.fit(*_global_pose_arguments(views, enough, normalisation)).to(device)


def _global_pose_arguments(
    views: TrainingViews, chosen: Tensor, normalisation: Normalisation
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Arguments of ``GlobalPose.fit`` from (V,) chosen views: centres about the map's origin, in its unit."""
    centres = (views.centres[chosen] - normalisation.origin) / normalisation.radius
    return views.context[chosen], views.rotations[chosen], centres, views.recorded[chosen]


class _Session:
    """The training's checkpoint file: saved now and then, gone on from when it is of the same build.

    Attributes:
        seconds: spent on the training, in all calls together.
        curve: of the loss, steps and means.
        calibration, calibrated: what is known of the errors, and whether that part of the work is done.
    """

    def __init__(self, path: Path, fingerprint: str) -> None:
        self._path, self._fingerprint, self._saved = path, fingerprint, time.monotonic()
        self.seconds, self.curve = 0.0, []
        self.calibration, self.calibrated = Calibration(), False
        self._trained: tuple[dict[str, Tensor], dict[str, str]] | None = None

    def open(self) -> None:
        """Read the file, if it is of this build."""
        try:
            with safe_open(str(self._path), "pt") as file:
                text = file.metadata() or {}
                if text.get("fingerprint") != self._fingerprint:
                    return
                tensors = {name: file.get_tensor(name) for name in file.keys()}
            curve = [tuple(point) for point in json.loads(text["curve"])]
            seconds, calibrated = float(text["seconds"]), text["calibrated"] == "yes"
            calibration = Calibration.model_validate_json(text["calibration"])
        except (OSError, SafetensorError, *UNREADABLE):
            return  # begun anew
        self._trained, self.curve, self.seconds, self.calibration, self.calibrated = (
            (tensors, text),
            curve,
            seconds,
            calibration,
            calibrated,
        )

    def resume(self, trainer: Trainer) -> None:
        """Bring the first trainer that asks to where the file was written."""
        if self._trained is not None:
            trainer.restore(*self._trained)
            self._trained = None
            log.info("training goes on from step %d", trainer.done)

    def checkpoint(self, trainer: Trainer, *, force: bool) -> None:
        """Write the file, if it is time."""
        if not force and time.monotonic() - self._saved < _CHECKPOINT_SECONDS:
            return
        tensors, text = trainer.state()
        text |= {
            "fingerprint": self._fingerprint,
            "seconds": str(self.seconds),
            "calibration": self.calibration.model_dump_json(),
            "calibrated": "yes" if self.calibrated else "no",
            "curve": json.dumps(self.curve),
        }
        write_safetensors(tensors, self._path, text)
        self._saved = time.monotonic()
