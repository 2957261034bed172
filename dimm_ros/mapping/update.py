"""``update_map``: a new recording joins a map, without the old images and without forgetting them (see
``rehearse``).
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dimm_ros import __version__
from dimm_ros.config import TrainingConfig
from dimm_ros.data.recording import Recording
from dimm_ros.encoder.dinov2 import Encoder
from dimm_ros.errors import DataError, MapError, WeightsError
from dimm_ros.geometry.poses import rotation_angle_deg
from dimm_ros.mapping.build import (
    BuildResult,
    check_target,
    fingerprint,
    kept_for_views,
    key_frames,
    locked,
    now,
    open_buffer,
    work_folder,
)
from dimm_ros.mapping.features import fill_buffer
from dimm_ros.mapping.fit import MapFit
from dimm_ros.mapping.landmarks import update_landmarks
from dimm_ros.mapping.rehearse import check_memory, features_path, keep_features, load_features, remembered_views
from dimm_ros.mapping.retrieval import ReferenceViews
from dimm_ros.mapping.sources import source_of
from dimm_ros.mapping.training_views import TrainingViews
from dimm_ros.progress import ProgressCallback
from dimm_ros.scene_map import MapHeader, SceneMap, SourceRecording

log = logging.getLogger(__name__)

_FAMILIAR = 0.5  # share of the largest novelty up to which a view counts as known
_MIN_FAMILIAR = 10
_APART_RADII, _APART_DEG = 0.75, 45.0  # medians: a map errs by far less where it knows the view
_BEFORE = 0.5  # poses that lie by so much nearer where an aligned map had them before are in its frame before


def update_map(
    map_path: str | Path,
    recordings: Sequence[Recording],
    encoder: Encoder,
    output: str | Path | None = None,
    *,
    training: TrainingConfig | None = None,
    licence: str | None = None,
    keep: bool | None = None,
    progress: ProgressCallback | None = None,
) -> BuildResult:
    """Train a map further on new recordings of its place.

    The work folder ``<output>.work`` holds features and checkpoints; the same call goes on from there. The map is
    written only when the training is complete: until then the old one is the better one.

    Args:
        map_path: the map; its features are looked for beside it.
        recordings: posed frames in the map's frame.
        encoder: the map's.
        output: where the new map goes; None replaces the old one.
        training: None takes the map's own.
        licence: of the recordings, in the user's words.
        keep: write features beside the map, for the next update; None does if there were some.

    Raises:
        DataError: too few frames, an image that cannot be read, or poses in another frame.
        MapError: not a map, a merged one, or it cannot be written.
        WeightsError: the encoder is not the map's.
        BusyError: another process is making the output.
    """
    map_path = Path(map_path)
    output = map_path if output is None else Path(output)
    old = SceneMap.load(map_path, encoder.device)
    recording = one_recording(recordings)
    check_update(old, recording, encoder)
    check_target(output, recording)
    kept = load_features(features_path(map_path), old.header)
    if kept is None:
        check_memory(old)
    training = training or old.header.training
    work, progress = work_folder(output), progress or (lambda *_: False)
    with locked(work), kept_for_views(work):
        landmarks = update_landmarks(work, old, recording, progress)
        if landmarks is None:
            return BuildResult(None, False, {})
        recording = key_frames(recording, training.images)
        buffer = open_buffer(work / "features", recording, encoder, training)
        if not fill_buffer(
            buffer, recording, encoder, training, lambda done, total: progress("features", done, total, "")
        ):
            return BuildResult(None, False, {"features": buffer.seconds})
        views = buffer.training_views(training.memory_mb)
        try:
            check_frame(old, views, recording)
        except DataError:
            shutil.rmtree(work, ignore_errors=True)  # views with other poses are other views
            raise
        rehearsal = remembered_views(old, views, training.seed) if kept is None else kept
        log.info(
            "rehearsing %d old views %s",
            len(rehearsal),
            "as the map remembers them" if kept is None else "from their features",
        )
        sources = tuple(source_of(one, licence) for one in recordings)
        header = updated_header(old.header, sources, training, {"features_seconds": round(buffer.seconds, 1)})
        header = header.model_copy(update={"landmarks": landmarks[1]})
        mark = fingerprint(buffer.fingerprint, training, old.header.model_dump_json(), kept is None)
        fitted = MapFit(
            header, views, work / "training.safetensors", mark, encoder.device, progress, start=old, rehearsal=rehearsal
        ).run()
        seconds = {"features": buffer.seconds, "training": fitted.seconds}
        if not fitted.complete:
            return BuildResult(None, False, seconds)
        # Read before anything is written: the output may be the map itself.
        reference = ReferenceViews.load(map_path, old.header)
        fitted.scene_map.landmarks = landmarks[0]
        fitted.scene_map.save(output)
        _add_reference(reference, ReferenceViews.of(views, recording, encoder.cls_dim), output, fitted.scene_map.header)
        features_path(output).unlink(missing_ok=True)
        if keep or (keep is None and kept is not None):
            keep_features(features_path(output), header, views, kept)
        shutil.rmtree(work, ignore_errors=True)
        return BuildResult(output, True, seconds)


def updated_header(
    old: MapHeader, sources: tuple[SourceRecording, ...], training: TrainingConfig, figures: dict[str, float]
) -> MapHeader:
    """The header of a map that goes on from another: the same frame, origin and unit, more sources."""
    changes = {
        "created": now(),
        "dimm_version": __version__,
        "training": training,
        "sources": (*old.sources, *sources),
        "figures": figures,
    }
    return old.model_copy(update=changes | {"format_version": MapHeader.model_fields["format_version"].default})


def one_recording(recordings: Sequence[Recording]) -> Recording:
    """Several recordings as one, one after another.

    Raises:
        DataError: there is none, or they are in different frames.
    """
    if not recordings:
        raise DataError("No recording was given; name a bag or a folder of posed images.")
    first = recordings[0]
    for other in recordings[1:]:
        if other.frame_id != first.frame_id:
            raise DataError(
                f"'{first.name}' is in frame '{first.frame_id}', but '{other.name}' is in frame '{other.frame_id}'."
            )
    if len(recordings) == 1:
        return first
    frames = [
        replace(frame, name=f"{number}/{frame.name}") for number, one in enumerate(recordings) for frame in one.frames
    ]
    return replace(first, name="+".join(one.name for one in recordings), frames=frames, splits={})


def check_update(old: SceneMap, recording: Recording, encoder: Encoder) -> None:
    """Whether a recording can join a map at all.

    Raises:
        DataError: it is in another frame.
        MapError: the map was merged.
        WeightsError: the encoder is another.
    """
    header = old.header
    if header.parts:
        raise MapError(
            f"Map '{header.name}' was merged from {len(header.parts)}; update one of those, and merge again."
        )
    if recording.frame_id != header.frame_id:
        raise DataError(
            f"'{recording.name}' has poses in frame '{recording.frame_id}', map '{header.name}' is in "
            f"'{header.frame_id}'; give poses in the "
            "map's frame (for bags: --map-frame)."
        )
    if encoder.weights.sha256 != header.encoder_sha256 or encoder.config != header.encoder:
        raise WeightsError(
            f"Map '{header.name}' was made with another encoder ({header.encoder.name}, SHA-256 "
            f"{header.encoder_sha256[:12]}...)."
        )


def check_frame(old: SceneMap, views: TrainingViews, recording: Recording) -> None:
    """Whether the views that the map knows are where it knows them to be: frames of one name are not always one frame.

    Raises:
        DataError: they are elsewhere.
    """
    if old.head.whole is None:
        return
    frames = len(recording.frames)
    apart = disagreement(old, views.context[:frames], views.centres[:frames], views.rotations[:frames])
    if apart is not None:
        raise DataError(
            f"'{recording.name}' is not in the frame of map '{old.header.name}': views that the map knows are "
            f"{apart[0]:.2f} m and {apart[1]:.0f} "
            "degrees (medians) from where it knows them to be; bring its poses into the map's frame."
        )


def disagreement(
    scene_map: SceneMap, context: Tensor, centres: Tensor, rotations: Tensor
) -> tuple[float, float] | None:
    """How far views that a map knows are from where it takes them to be, if that is more than it can err by, or if
    they are where an aligned map had them before: its frames may all be called "map".

    Args:
        scene_map: with a global pose part.
        context, centres, rotations: (V, C), (V, 3) metres, (V, 3, 3) of the views.

    Returns:
        Medians of metres and degrees; None when they agree, or when fewer than ten views are known.
    """
    header, whole = scene_map.header, scene_map.head.whole
    with torch.inference_mode():
        turned, places, novelty = (part.double().cpu() for part in whole(context.to(whole.mean.device).float()))
    known = novelty <= _FAMILIAR * (header.calibration.max_novelty or 1.0)
    if known.sum() < _MIN_FAMILIAR:
        return None
    places = (places * header.radius + torch.tensor(header.origin, dtype=torch.float64))[known]
    turned, centres, rotations = turned[known].numpy(), centres[known].double(), rotations[known].double()

    def medians(move: Tensor) -> tuple[float, float]:
        """With the views moved by (4, 4)."""
        metres = (places - centres @ move[:3, :3].T - move[:3, 3]).norm(dim=1).numpy()
        degrees = rotation_angle_deg(turned, (move[:3, :3] @ rotations).numpy())
        return float(np.median(metres)), float(np.median(degrees))

    limits = (_APART_RADII * header.radius, _APART_DEG)

    def size(apart: tuple[float, float]) -> float:
        return apart[0] / limits[0] + apart[1] / limits[1]

    move = torch.eye(4, dtype=torch.float64)
    apart = medians(move)
    if apart[0] > limits[0] or apart[1] > limits[1]:
        return apart
    for alignment in reversed(header.alignments):
        move = move @ torch.tensor(alignment.target_from_source, dtype=torch.float64)
        if size(medians(move)) < _BEFORE * size(apart):
            return apart
    return None


def _add_reference(old: ReferenceViews | None, new: ReferenceViews, output: Path, header: MapHeader) -> None:
    """The retrieval baseline's file, with the views there were."""
    if old is not None:
        poses = np.concatenate([old.world_from_camera, new.world_from_camera])
        new = ReferenceViews(np.concatenate([old.cls, new.cls]), poses)
    new.save(output, header)
