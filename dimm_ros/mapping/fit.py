"""From features to a map: training, calibration on held-out frames, the whole-image part; stoppable and resumable at any step."""

from __future__ import annotations

import copy
import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from dimm_ros.config import HeadConfig
from dimm_ros.errors import DataError
from dimm_ros.head.model import MapHead
from dimm_ros.head.whole_image import WholeImage
from dimm_ros.mapping.calibrate import calibrate, calibrate_short, held_out_frames
from dimm_ros.mapping.distributed import ALONE, Workers
from dimm_ros.mapping.features import recorded_views
from dimm_ros.mapping.rehearse import join
from dimm_ros.mapping.trainer import Normalisation, Trainer
from dimm_ros.scene_map import Calibration, Curve, MapHeader, SceneMap, write_safetensors
from dimm_ros.uncalibrated import focal_bias

log = logging.getLogger(__name__)

_CHECKPOINT_SECONDS = 60.0
_FOCAL_FRAMES = 24  # mapped frames that say how far off focal lengths are
CALIBRATING = 0.5  # share of the steps that the head is trained for that is calibrated
_WHOLE_MIN_SHARE = 0.3  # of a full view's patches
_CURVE_POINTS, _CURVES = 100, 8  # of a training, and trainings of a map

#: Called with (stage, done, in all, note); returning True asks to stop at the next safe moment.
Watcher = Callable[[str, int, int, str], bool]


@dataclass(frozen=True)
class Fitted:
    """What came of a training.

    Attributes:
        scene_map: usable, if unfinished.
        complete: False when stopped early; the same call goes on from there.
        seconds: in all calls together.
    """

    scene_map: SceneMap
    complete: bool
    seconds: float


def fit_map(
    header: MapHeader, data: dict[str, Tensor], checkpoint: Path, fingerprint: str, device: torch.device, watch: Watcher, *,
    start: SceneMap | None = None, rehearsal: dict[str, Tensor] | None = None, workers: Workers = ALONE,
) -> Fitted:
    """Train a map on features.

    Args:
        header: of the map to be; its calibration, figures and curves are filled in.
        data: ``FeatureBuffer.tensors()`` of the recording.
        checkpoint: file that a stopped training goes on from.
        fingerprint: of all that the training depends on.
        start: map whose head goes on learning.
        rehearsal: its views, see ``rehearse``.
        workers: processes that train together; only the first one's map is calibrated, and its data need be complete.

    Raises:
        DataError: the training diverged.
        MapError: the checkpoint cannot be written.
    """
    head, training = header.head, header.training
    held_out = held_out_frames(int(data["frame_of"].max()) + 1)
    views = torch.from_numpy(np.flatnonzero(~np.isin(data["frame_of"].numpy(), held_out)))
    everything = data
    if rehearsal is not None:
        everything = join(data, whole_views(data), rehearsal)
        views = torch.cat([views, torch.arange(len(data["frame_of"]), len(everything["frame_of"]))])
    normalisation = Normalisation(torch.tensor(header.origin, dtype=torch.float64), header.radius)
    session = _Session(checkpoint, fingerprint)
    session.open()
    workers.wait()  # before the first one writes the checkpoint anew
    begun = time.perf_counter() - session.seconds

    def learner(steps: int, chosen: Tensor | None) -> Trainer:
        """A new head, or the old map's, about to learn from these views (all), or where it was stopped."""
        torch.manual_seed(training.seed)
        model = MapHead(header.patch_dim, header.context_dim, head) if start is None else _learning(start.head)
        config = training.changed(steps=steps)
        trainer = Trainer(model.to(device), everything, normalisation, config, chosen, standardise=start is None, workers=workers)
        session.resume(trainer)
        return trainer

    def current(trainer: Trainer, figures: dict[str, float], chosen: Tensor | None, known: Calibration) -> SceneMap:
        made = trainer.averaged_head()
        made.whole = whole_image(everything, chosen, normalisation, head, device)
        curve = Curve(name=header.sources[-1].name if header.sources else header.name, points=tuple(session.curve))
        changes = {"calibration": known, "figures": header.figures | figures, "curves": (*header.curves, curve)[-_CURVES:]}
        return SceneMap(header.model_copy(update=changes), made)

    losses: list[float] = []

    def learn(trainer: Trainer, stage: str) -> bool:
        """Train to the end; False when stopped."""
        steps, stopped = trainer.config.steps, False
        every = max(1, steps // _CURVE_POINTS)
        losses.clear()
        while trainer.done < steps and not stopped:
            losses[:] = [*losses[-99:], trainer.step()]
            if not np.isfinite(losses[-1]):
                raise DataError(f"The training of '{header.name}' diverged at step {trainer.done}; try a lower learning rate or another seed.")
            if session.calibrated and (trainer.done % every == 0 or trainer.done == steps):
                session.curve.append((trainer.done, round(float(np.mean(losses[-every:])), 4)))
            stopped = workers.any(watch(stage, trainer.done, steps, f"loss {np.mean(losses):.2f}"))
            session.seconds = time.perf_counter() - begun
            if workers.first:
                session.checkpoint(trainer, force=stopped)
        return trainer.done == steps

    # A head that has not seen the held-out frames is calibrated; the map's own head starts over and sees them all.
    session.calibrated |= not len(held_out)
    if not session.calibrated:
        trainer = learner(max(1, int(CALIBRATING * training.steps)), views)
        if not learn(trainer, "calibration"):
            if not workers.first:
                return Fitted(SceneMap(header, trainer.averaged_head()), False, session.seconds)
            return Fitted(current(trainer, {}, None, session.calibration), False, session.seconds)
        if workers.first:
            session.calibration = calibrate(current(trainer, {}, views, Calibration()), data, held_out)
        session.calibrated = True
    trainer = learner(training.steps, None)
    complete, calibration = learn(trainer, "training"), session.calibration
    figures = {"steps": trainer.done, "views": len(data["frame_of"]), "patches": len(data["view_of"]), "training_seconds": round(session.seconds, 1)}
    if losses:
        figures["loss"] = float(np.mean(losses))
    if not workers.first:
        return Fitted(SceneMap(header, trainer.averaged_head()), complete, session.seconds)
    made = current(trainer, figures, None, calibration)
    changes: dict[str, float] = {}
    if calibration.max_novelty is None and made.head.whole is not None:
        enough = whole_views(data)
        short = [data[name][enough] for name in ("context", "rotations", "centres", "frame_of")]
        changes |= calibrate_short(*short, recorded_views(data)[enough])
    if complete:
        frames = int(data["frame_of"].max()) + 1
        mapped = np.linspace(0, frames - 1, min(_FOCAL_FRAMES, frames)).round().astype(int)
        changes["focal_factor"] = focal_bias(made.head, data, mapped)
    calibration = calibration.model_copy(update=changes)
    if start is not None:
        calibration = start.header.calibration.rescaled(_unit(made, rehearsal)).joined(calibration)
    made.header = made.header.model_copy(update={"calibration": calibration})
    return Fitted(made, complete, session.seconds)


def _unit(made: SceneMap, rehearsal: dict[str, Tensor] | None) -> float:
    """Novelty of an image in a map per its novelty in the map before: new recordings move the unit, the views' median distance."""
    if made.head.whole is None or rehearsal is None:
        return 1.0
    return float(made.head.whole.median_distance(rehearsal["context"].to(made.head.whole.mean.device)) / made.head.whole.spread)


def _learning(head: MapHead) -> MapHead:
    """A copy of a map's head that can be trained."""
    model = copy.deepcopy(head)
    model.whole = None
    return model.requires_grad_(True)


def whole_views(data: dict[str, Tensor], views: Tensor | None = None) -> Tensor:
    """(V,) bool: the views (of these, or of all) of which enough is left for the regression on the whole image."""
    enough = data.get("good")
    if enough is None:
        sizes = torch.bincount(data["view_of"].long(), minlength=len(data["frame_of"]))
        enough = sizes >= _WHOLE_MIN_SHARE * sizes.max()
    return enough if views is None else enough & torch.isin(torch.arange(len(enough)), views)


def whole_image(
    data: dict[str, Tensor], views: Tensor | None, normalisation: Normalisation, head: HeadConfig, device: torch.device,
) -> WholeImage | None:
    """The regression on the whole image from these views (all), without virtual ones of which little is left."""
    if not head.whole_share:
        return None
    return WholeImage.fit(*_whole_arguments(data, views, normalisation)).to(device)


def _whole_arguments(data: dict[str, Tensor], views: Tensor | None, normalisation: Normalisation) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Contexts, rotations and normalised centres of the views that are good enough, and which were recorded."""
    enough = whole_views(data, views)
    centres = (data["centres"][enough] - normalisation.origin) / normalisation.radius
    return data["context"][enough], data["rotations"][enough], centres, recorded_views(data)[enough]


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
                self._trained = {name: file.get_tensor(name) for name in file.keys()}, text
        except (OSError, SafetensorError):
            return
        self.seconds, self.curve = float(text.get("seconds", 0.0)), [tuple(point) for point in json.loads(text.get("curve", "[]"))]
        self.calibration, self.calibrated = Calibration.model_validate(json.loads(text["calibration"])), text["calibrated"] == "yes"

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
            "fingerprint": self._fingerprint, "seconds": str(self.seconds), "calibration": self.calibration.model_dump_json(),
            "calibrated": "yes" if self.calibrated else "no", "curve": json.dumps(self.curve),
        }
        write_safetensors(tensors, self._path, text)
        self._saved = time.monotonic()
