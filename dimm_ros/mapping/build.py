"""``build_map``: recording -> features -> training -> calibration -> map file; stoppable and resumable at any moment."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from dimm_ros import __version__
from dimm_ros.config import HeadConfig, TrainingConfig
from dimm_ros.data.recording import Recording
from dimm_ros.encoder.dinov2 import Encoder
from dimm_ros.encoder.patches import patch_grid
from dimm_ros.errors import DataError, MapError
from dimm_ros.head.model import DimmHead
from dimm_ros.head.whole_image import WholeImage
from dimm_ros.mapping.calibrate import calibrate, held_out_frames, novelty_limit
from dimm_ros.mapping.features import FeatureBuffer, fill_buffer, has_views
from dimm_ros.mapping.retrieval import ReferenceViews, reference_path
from dimm_ros.mapping.trainer import Normalisation, Trainer
from dimm_ros.scene_map import Calibration, MapHeader, SceneMap, Source, write_safetensors
from dimm_ros.uncalibrated import focal_bias

log = logging.getLogger(__name__)

_CHECKPOINT_SECONDS = 60.0
_FOCAL_FRAMES = 24  # mapped frames that say how far off focal lengths are
_ALL_FRAMES_FROM = 0.8  # share of the steps after which the held-out frames are trained on too
MIN_FRAMES = 10
_WHOLE_MIN_SHARE = 0.3  # of a full view's patches

#: What the views depend on; a change of anything else goes on with the features there are.
_VIEW_FIELDS = {"passes", "max_rotation_deg", "max_roll_deg", "max_zoom", "jitter", "depth", "max_offset", "seed"}

#: Called with (stage, done, in all, note); returning True asks to stop at the next safe moment.
Watcher = Callable[[str, int, int, str], bool]


@dataclass(frozen=True)
class BuildResult:
    """What came of a build.

    Attributes:
        path: the map file, or None when it was stopped before there was anything to save.
        complete: False when stopped early; the same call goes on from there.
        seconds: time of each stage, in all calls together.
    """

    path: Path | None
    complete: bool
    seconds: dict[str, float]


def build_map(
    recording: Recording, output: str | Path, encoder: Encoder, *, head: HeadConfig | None = None,
    training: TrainingConfig | None = None, name: str | None = None, watch: Watcher | None = None,
) -> BuildResult:
    """Train a map of a recording.

    The work folder ``<output>.work`` holds features and checkpoints until the map is complete; the same call goes on from
    there. Stopping during the training saves a usable map.

    Args:
        recording: posed frames of one place.
        output: the map file to write.
        encoder: frozen encoder; the map names it and its digest.

    Raises:
        DataError: too few frames, or an image that cannot be read.
        MapError: the map cannot be written.
    """
    head, training = head or HeadConfig(), training or TrainingConfig()
    watch = watch or (lambda *_: False)
    output = Path(output)
    if output.is_dir():
        raise MapError(f"{output} is a folder; give a file name with -o, such as {output / 'scene.dimm'}.")
    if len(recording.frames) < MIN_FRAMES:
        raise DataError(f"'{recording.name}' has {len(recording.frames)} posed images; a map needs at least {MIN_FRAMES}.")
    work = output.with_name(output.name + ".work")
    try:
        return _build(recording, output, work, encoder, head, training, name, watch)
    except BaseException:
        if not has_views(work / "features"):
            shutil.rmtree(work, ignore_errors=True)
        raise


def _build(
    recording: Recording, output: Path, work: Path, encoder: Encoder, head: HeadConfig, training: TrainingConfig, name: str | None, watch: Watcher,
) -> BuildResult:
    seconds: dict[str, float] = {}

    buffer = open_buffer(work / "features", recording, encoder, training)
    finished = fill_buffer(buffer, recording, encoder, training, lambda done, total: watch("features", done, total, ""))
    seconds["features"] = buffer.seconds
    if not finished:
        return BuildResult(None, False, seconds)

    data = buffer.tensors(training.memory_mb)
    held_out = held_out_frames(len(recording.frames))
    views = torch.from_numpy(np.flatnonzero(~np.isin(data["frame_of"].numpy(), held_out)))
    torch.manual_seed(training.seed)
    normalisation = Normalisation.of(data["centres"][: len(recording.frames)])
    model = DimmHead(encoder.dim, encoder.context_dim, head).to(encoder.device)
    trainer = Trainer(model, data, normalisation, training)
    session = _Session(work / "training.safetensors", _fingerprint(buffer.fingerprint, head, training))
    calibration = session.resume(trainer) or Calibration()
    start = time.perf_counter() - session.seconds
    header = MapHeader(
        name=name or output.stem, frame_id=recording.frame_id, created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        dimm_version=__version__, encoder=encoder.config, encoder_sha256=encoder.weights.sha256, encoder_origin=encoder.weights.origin,
        patch_dim=encoder.dim, context_dim=encoder.context_dim, head=head, training=training,
        origin=tuple(normalisation.origin.tolist()), radius=normalisation.radius,
        sources=(Source(name=recording.source, frames=len(recording.frames)),),
    )

    def current(figures: dict[str, float], views: Tensor | None = None) -> SceneMap:
        made = trainer.averaged_head()
        made.whole = whole_image(data, views, normalisation, head, encoder.device)
        return SceneMap(header.model_copy(update={"calibration": calibration, "figures": figures}), made)

    join = int(_ALL_FRAMES_FROM * training.steps)
    losses: list[float] = []
    stopped = False
    while trainer.done < training.steps and not stopped:
        if trainer.done == join and len(held_out):
            calibration = calibrate(current({}, views), data, held_out)
        trainer.train_on(views if trainer.done < join else None)
        losses = [*losses[-99:], trainer.step()]
        if not np.isfinite(losses[-1]):
            raise DataError(f"The training of '{recording.name}' diverged at step {trainer.done}; try a lower learning rate or another seed.")
        stopped = watch("training", trainer.done, training.steps, f"loss {np.mean(losses):.2f}")
        session.seconds = time.perf_counter() - start
        session.checkpoint(trainer, calibration, force=stopped)
    seconds["training"] = session.seconds
    figures = {"steps": trainer.done, "views": buffer.views, "patches": buffer.rows, "loss": float(np.mean(losses or [np.nan]))}
    figures |= {f"{stage}_seconds": round(value, 1) for stage, value in seconds.items()}
    complete = trainer.done == training.steps
    if not complete and _is_finished(output):
        return BuildResult(None, False, seconds)  # a finished map is worth more than a beginning
    made = current({key: value for key, value in figures.items() if np.isfinite(value)})
    if calibration.max_novelty is None and made.head.whole is not None:
        limit = novelty_limit(*_whole_arguments(data, None, normalisation), data["frame_of"][whole_views(data)])
        calibration = calibration.model_copy(update={"max_novelty": limit})
        made.header = made.header.model_copy(update={"calibration": calibration})
    if complete:
        mapped = np.linspace(0, len(recording.frames) - 1, min(_FOCAL_FRAMES, len(recording.frames))).round().astype(int)
        calibration = calibration.model_copy(update={"focal_factor": focal_bias(made.head, data, mapped)})
        made.header = made.header.model_copy(update={"calibration": calibration})
    made.save(output)
    ReferenceViews.of(data, recording, encoder.cls_dim).save(reference_path(output), encoder.weights.sha256)
    if complete:
        shutil.rmtree(work, ignore_errors=True)
    return BuildResult(output, complete, seconds)


def whole_views(data: dict[str, Tensor], views: Tensor | None = None) -> Tensor:
    """(V,) bool: the views (of these, or of all) of which enough is left for the regression on the whole image."""
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


def _whole_arguments(data: dict[str, Tensor], views: Tensor | None, normalisation: Normalisation) -> tuple[Tensor, Tensor, Tensor]:
    """Contexts, rotations and normalised centres of the views that are good enough."""
    enough = whole_views(data, views)
    return data["context"][enough], data["rotations"][enough], (data["centres"][enough] - normalisation.origin) / normalisation.radius


def _is_finished(path: Path) -> bool:
    """Whether a map is there whose training was not stopped early."""
    try:
        header = SceneMap.load(path).header
    except MapError:
        return False
    return header.figures.get("steps", 0) >= header.training.steps


def open_buffer(folder: Path, recording: Recording, encoder: Encoder, training: TrainingConfig) -> FeatureBuffer:
    """The feature buffer of a recording in a folder, with what is there of the same recording, encoder and views."""
    grids = [patch_grid(frame.camera, encoder.config.input_size) for frame in recording.frames]
    capacity = training.passes * sum(grid.rows * grid.columns for grid in grids)
    frames = [(frame.name, frame.camera, frame.world_from_camera.round(6).tolist()) for frame in recording.frames]
    augmentation = training.model_dump(include=_VIEW_FIELDS)
    fingerprint = _fingerprint(str(frames), encoder.config, encoder.weights.sha256, augmentation)
    return FeatureBuffer(folder, training.passes * len(recording.frames), capacity, encoder.dim, encoder.context_dim, fingerprint)


def _fingerprint(*parts: object) -> str:
    return hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()


class _Session:
    """The training's checkpoint file: saved now and then, gone on from when it is of the same build."""

    def __init__(self, path: Path, fingerprint: str) -> None:
        self._path, self._fingerprint, self._saved = path, fingerprint, time.monotonic()
        self.seconds = 0.0  # spent on the training, in all calls together

    def resume(self, trainer: Trainer) -> Calibration | None:
        try:
            with safe_open(str(self._path), "pt") as file:
                text = file.metadata() or {}
                if text.get("fingerprint") != self._fingerprint:
                    return None
                trainer.restore({name: file.get_tensor(name) for name in file.keys()}, text)
        except (OSError, SafetensorError):
            return None
        self.seconds = float(text.get("seconds", 0.0))
        log.info("training goes on from step %d", trainer.done)
        return Calibration.model_validate(json.loads(text["calibration"]))

    def checkpoint(self, trainer: Trainer, calibration: Calibration, *, force: bool) -> None:
        if not force and time.monotonic() - self._saved < _CHECKPOINT_SECONDS:
            return
        tensors, text = trainer.state()
        text |= {"fingerprint": self._fingerprint, "seconds": str(self.seconds), "calibration": calibration.model_dump_json()}
        write_safetensors(tensors, self._path, text)
        self._saved = time.monotonic()
