"""``build_map``: recording -> features -> training -> calibration -> map file; stoppable and resumable at any
moment.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

import torch

from dimm_ros import __version__
from dimm_ros.config import HeadConfig, LandmarkConfig, TrainingConfig
from dimm_ros.data.recording import Recording
from dimm_ros.encoder.dinov2 import Encoder
from dimm_ros.encoder.patches import patch_grid
from dimm_ros.errors import BusyError, DataError, MapError
from dimm_ros.landmarks.keyframes import choose_keyframes
from dimm_ros.mapping.distributed import ALONE, Workers, joined_views
from dimm_ros.mapping.features import FeatureBuffer, fill_buffer, has_views
from dimm_ros.mapping.fit import MapFit, TrainingResult
from dimm_ros.mapping.landmarks import landmark_header, landmarks_of, no_landmarks
from dimm_ros.mapping.rehearse import features_path, keep_features
from dimm_ros.mapping.retrieval import ReferenceViews
from dimm_ros.mapping.sources import source_of
from dimm_ros.mapping.trainer import Normalisation
from dimm_ros.mapping.training_views import TrainingViews
from dimm_ros.progress import ProgressCallback
from dimm_ros.scene_map import MapHeader, SceneMap

MIN_FRAMES = 10

#: What the views depend on; a change of anything else goes on with the features there are.
_VIEW_FIELDS = {"passes", "max_rotation_deg", "max_roll_deg", "max_zoom", "jitter", "depth", "max_offset", "seed"}


@dataclass(frozen=True)
class BuildResult:
    """Result of building or updating a map.

    Attributes:
        path: the map file, or None when it was stopped before there was anything to save.
        complete: False when stopped early; the same call goes on from there.
        seconds: time of each stage, in all calls together.
    """

    path: Path | None
    complete: bool
    seconds: dict[str, float]


def build_map(
    recording: Recording,
    output: str | Path,
    encoder: Encoder,
    *,
    head: HeadConfig | None = None,
    training: TrainingConfig | None = None,
    landmarks: LandmarkConfig | None = None,
    name: str | None = None,
    licence: str | None = None,
    keep: bool = False,
    progress: ProgressCallback | None = None,
    workers: Workers = ALONE,
) -> BuildResult:
    """Make a map of a recording: its landmarks, then the rays of its key frames.

    The work folder ``<output>.work`` holds features and checkpoints until the map is complete; the same call goes on
    from there. Stopping during the training saves a usable map.

    Args:
        recording: posed frames of one place.
        output: the map file to write.
        encoder: frozen encoder; the map names it and its digest.
        landmarks: which, and how many; their kind may be none.
        licence: of the recording, in the user's words, for the map's header.
        keep: write some of the features beside the map, for later updates, see ``rehearse``.
        workers: processes that make the map together, each of which makes this call; the first one writes.

    Raises:
        DataError: too few frames, or an image that cannot be read.
        MapError: the map cannot be written.
        BusyError: another process is making it.
    """
    head, training = head or HeadConfig(), training or TrainingConfig()
    output = Path(output)
    check_target(output, recording)
    work = work_folder(output)
    with locked(work) if workers.first else nullcontext(), kept_for_views(work) if workers.size == 1 else nullcontext():
        return _build(
            recording,
            output,
            work,
            encoder,
            head,
            training,
            landmarks or LandmarkConfig(),
            name,
            licence,
            keep,
            progress or (lambda *_: False),
            workers,
        )


def _build(
    recording: Recording,
    output: Path,
    work: Path,
    encoder: Encoder,
    head: HeadConfig,
    training: TrainingConfig,
    landmarks: LandmarkConfig,
    name: str | None,
    licence: str | None,
    keep: bool,
    progress: ProgressCallback,
    workers: Workers,
) -> BuildResult:
    everything, recording = recording, key_frames(recording, training.images)
    origin = Normalisation.of(torch.from_numpy(recording.poses()[:, :3, 3])).origin.numpy()
    found = landmarks_of(work, everything, origin, landmarks, progress) if workers.first else no_landmarks()
    if workers.any(found is None):
        return BuildResult(None, False, {})
    buffer = open_buffer(work / "features", recording, encoder, training, (workers.rank, workers.size))
    finished = fill_buffer(
        buffer, recording, encoder, training, lambda done, total: progress("features", done, total, "")
    )
    if workers.any(not finished):
        return BuildResult(None, False, {"features": buffer.seconds})
    if workers.size == 1:
        views = buffer.training_views(training.memory_mb)
    else:
        parts = [
            open_buffer(work / "features", recording, encoder, training, (rank, workers.size))
            for rank in range(workers.size)
        ]
        views = joined_views(
            parts, buffer.folder / "joined", training.memory_mb, None if workers.first else workers.rank
        )
    normalisation = Normalisation.of(views.centres[: len(recording.frames)])
    header = MapHeader(
        name=name or output.stem,
        frame_id=recording.frame_id,
        created=now(),
        dimm_version=__version__,
        encoder=encoder.config,
        encoder_sha256=encoder.weights.sha256,
        encoder_origin=encoder.weights.origin,
        patch_dim=encoder.dim,
        context_dim=encoder.context_dim,
        head=head,
        training=training,
        origin=tuple(normalisation.origin.tolist()),
        radius=normalisation.radius,
        sources=(source_of(everything, licence),),
        landmarks=landmark_header(found, landmarks),
        figures={
            "features_seconds": round(buffer.seconds, 1),
            "landmarks_seconds": round(found.seconds, 1),
            "key_frames": len(recording.frames),
        },
    )
    fitted = MapFit(
        header,
        views,
        work / "training.safetensors",
        fingerprint(buffer.fingerprint, head, training),
        encoder.device,
        progress,
        workers=workers,
    ).run()
    fitted.scene_map.landmarks = found.landmarks
    seconds = {"landmarks": found.seconds, "features": buffer.seconds, "training": fitted.seconds}
    # a finished map is worth more than a beginning
    written = workers.first and (fitted.complete or not _is_finished(output))
    if written:
        _write(fitted, output, views, recording, encoder, keep)
        if fitted.complete:
            shutil.rmtree(work, ignore_errors=True)
    workers.wait()  # the map is there
    return BuildResult(output if written else None, fitted.complete, seconds)


def _write(
    fitted: TrainingResult, output: Path, views: TrainingViews, recording: Recording, encoder: Encoder, keep: bool
) -> None:
    """The map and what lies beside it."""
    fitted.scene_map.save(output)
    ReferenceViews.of(views, recording, encoder.cls_dim).save(output, fitted.scene_map.header)
    features_path(output).unlink(missing_ok=True)  # of a map that was here before
    if keep and fitted.complete:
        keep_features(features_path(output), fitted.scene_map.header, views)


def key_frames(recording: Recording, most: int) -> Recording:
    """The recording's key frames, see ``choose_keyframes``."""
    chosen = choose_keyframes(recording.poses(), most)
    return (
        recording
        if len(chosen) == len(recording.frames)
        else replace(recording, frames=[recording.frames[index] for index in chosen], splits={})
    )


def check_target(output: Path, recording: Recording) -> None:
    """Refuse what cannot become a map before any work is done.

    Raises:
        DataError: too few frames.
        MapError: the output is a folder.
    """
    if output.is_dir():
        raise MapError(f"{output} is a folder; give a file name with -o, such as {output / 'scene.dimm'}.")
    if len(recording.frames) < MIN_FRAMES:
        raise DataError(
            f"'{recording.name}' has {len(recording.frames)} posed images; a map needs at least {MIN_FRAMES}."
        )


def work_folder(output: Path) -> Path:
    """Where the features and checkpoints of a map in the making are."""
    return output.with_name(output.name + ".work")


@contextmanager
def locked(work: Path) -> Iterator[None]:
    """The work folder, for one process at a time; the system itself ends the lock of a process that dies.

    Raises:
        BusyError: another process is at work in it.
    """
    handle = _lock(work)
    try:
        yield
    finally:
        if handle is not None:
            os.close(handle)


def _lock(work: Path) -> int | None:
    """An open file that holds the lock; None where there can be none."""
    file = work / "lock"
    while True:
        try:
            work.mkdir(parents=True, exist_ok=True)
            handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError:  # of which the feature buffer will say more
            return None
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            raise BusyError(
                f"Another process is making {work.with_suffix('')} at this moment; wait until it has ended, or give "
                "another file with -o."
            ) from None
        except OSError:  # a file system without locks
            return handle
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(handle), file.stat()):
                return handle
        os.close(handle)  # of a folder that the process before has just removed


@contextmanager
def kept_for_views(work: Path) -> Iterator[None]:
    """A failure leaves a work folder behind only if it holds views to go on from."""
    try:
        yield
    except BaseException:
        if not has_views(work / "features"):
            shutil.rmtree(work, ignore_errors=True)
        raise


def now() -> str:
    """The time as the header has it, UTC."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def _is_finished(path: Path) -> bool:
    """Whether a map is there whose training was not stopped early."""
    try:
        return SceneMap.load(path).header.complete
    except MapError:
        return False


def open_buffer(
    folder: Path, recording: Recording, encoder: Encoder, training: TrainingConfig, part: tuple[int, int] = (0, 1)
) -> FeatureBuffer:
    """The feature buffer of a recording in a folder, with what is there of the same recording, encoder and views.

    ``part`` (r, n) is the one of views r, r + n, ... alone.
    """
    if part != (0, 1):
        folder = folder / f"{part[0]}_of_{part[1]}"
    grids = [patch_grid(frame.camera, encoder.config.input_size) for frame in recording.frames]
    views = range(part[0], training.passes * len(grids), part[1])
    capacity = sum(grids[view % len(grids)].rows * grids[view % len(grids)].columns for view in views)
    augmentation = training.model_dump(include=_VIEW_FIELDS)
    mark = fingerprint(recording.state(), encoder.config, encoder.weights.sha256, augmentation, __version__)
    return FeatureBuffer(folder, len(views), capacity, encoder.dim, encoder.context_dim, mark, part)


def fingerprint(*parts: object) -> str:
    """A digest of what a stored result depends on."""
    return hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()
