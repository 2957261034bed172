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
from dimm_ros.head.model import DimmHead
from dimm_ros.head.whole_image import WholeImage
from dimm_ros.mapping.calibrate import calibrate, calibrate_short, held_out_frames
from dimm_ros.mapping.features import recorded_views
from dimm_ros.mapping.rehearse import join
from dimm_ros.mapping.trainer import Normalisation, Trainer
from dimm_ros.scene_map import Calibration, Curve, MapHeader, SceneMap, write_safetensors
from dimm_ros.uncalibrated import focal_bias

log = logging.getLogger(__name__)

_CHECKPOINT_SECONDS = 60.0
_FOCAL_FRAMES = 24  # mapped frames that say how far off focal lengths are
_ALL_FRAMES_FROM = 0.8  # share of the steps after which the held-out frames are trained on too
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
    start: SceneMap | None = None, rehearsal: dict[str, Tensor] | None = None,
) -> Fitted:
    """Train a map on features.

    Args:
        header: of the map to be; its calibration, figures and curves are filled in.
        data: ``FeatureBuffer.tensors()`` of the recording.
        checkpoint: file that a stopped training goes on from.
        fingerprint: of all that the training depends on.
        start: map whose head goes on learning.
        rehearsal: its views, see ``rehearse``.

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
    torch.manual_seed(training.seed)
    model = DimmHead(header.patch_dim, header.context_dim, head) if start is None else _learning(start.head)
    trainer = Trainer(model.to(device), everything, normalisation, training, standardise=start is None)
    session = _Session(checkpoint, fingerprint)
    calibration = session.resume(trainer) or Calibration()
    begun = time.perf_counter() - session.seconds

    def current(figures: dict[str, float], chosen: Tensor | None, known: Calibration) -> SceneMap:
        made = trainer.averaged_head()
        made.whole = whole_image(everything, chosen, normalisation, head, device)
        curve = Curve(name=header.sources[-1].name if header.sources else header.name, points=tuple(session.curve))
        changes = {"calibration": known, "figures": header.figures | figures, "curves": (*header.curves, curve)[-_CURVES:]}
        return SceneMap(header.model_copy(update=changes), made)

    join_at, every = int(_ALL_FRAMES_FROM * training.steps), max(1, training.steps // _CURVE_POINTS)
    losses: list[float] = []
    stopped = False
    while trainer.done < training.steps and not stopped:
        if trainer.done == join_at and len(held_out):
            calibration = calibrate(current({}, views, Calibration()), data, held_out)
        trainer.train_on(views if trainer.done < join_at else None)
        losses = [*losses[-99:], trainer.step()]
        if not np.isfinite(losses[-1]):
            raise DataError(f"The training of '{header.name}' diverged at step {trainer.done}; try a lower learning rate or another seed.")
        if trainer.done % every == 0 or trainer.done == training.steps:
            session.curve.append((trainer.done, round(float(np.mean(losses[-every:])), 4)))
        stopped = watch("training", trainer.done, training.steps, f"loss {np.mean(losses):.2f}")
        session.seconds = time.perf_counter() - begun
        session.checkpoint(trainer, calibration, force=stopped)
    figures = {"steps": trainer.done, "views": len(data["frame_of"]), "patches": len(data["view_of"]), "training_seconds": round(session.seconds, 1)}
    if losses:
        figures["loss"] = float(np.mean(losses))
    complete = trainer.done == training.steps
    made = current(figures, None, calibration)
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


def _learning(head: DimmHead) -> DimmHead:
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
    """The training's checkpoint file: saved now and then, gone on from when it is of the same build."""

    def __init__(self, path: Path, fingerprint: str) -> None:
        self._path, self._fingerprint, self._saved = path, fingerprint, time.monotonic()
        self.seconds = 0.0  # spent on the training, in all calls together
        self.curve: list[tuple[int, float]] = []

    def resume(self, trainer: Trainer) -> Calibration | None:
        try:
            with safe_open(str(self._path), "pt") as file:
                text = file.metadata() or {}
                if text.get("fingerprint") != self._fingerprint:
                    return None
                trainer.restore({name: file.get_tensor(name) for name in file.keys()}, text)
        except (OSError, SafetensorError):
            return None
        self.seconds, self.curve = float(text.get("seconds", 0.0)), [tuple(point) for point in json.loads(text.get("curve", "[]"))]
        log.info("training goes on from step %d", trainer.done)
        return Calibration.model_validate(json.loads(text["calibration"]))

    def checkpoint(self, trainer: Trainer, calibration: Calibration, *, force: bool) -> None:
        if not force and time.monotonic() - self._saved < _CHECKPOINT_SECONDS:
            return
        tensors, text = trainer.state()
        text |= {
            "fingerprint": self._fingerprint, "seconds": str(self.seconds), "calibration": calibration.model_dump_json(),
            "curve": json.dumps(self.curve),
        }
        write_safetensors(tensors, self._path, text)
        self._saved = time.monotonic()
