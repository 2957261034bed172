"""Localized images for the rerun viewer: a .rrd file, or the viewer itself. Needs the package rerun-sdk."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np

from dimm_ros.errors import InputError
from dimm_ros.pictures.shown import ACCEPTED, FRUSTUM_M, REJECTED, TRUE, ShownFrame, ShownRun

_QUALITY = 90


@contextmanager
def rerun_sink(run: ShownRun, path: Path | None = None, *, spawn: bool = False) -> Iterator[RerunSink]:
    """A rerun recording.

    Args:
        run: what is shown.
        path: the .rrd file; it appears under its name only when the block ends without an error.
        spawn: show it in the viewer while it is made, instead.

    Raises:
        InputError: rerun-sdk is not installed.
    """
    try:
        import rerun
        import rerun.blueprint as layout
    except ImportError as error:
        raise InputError("Rerun pictures need the package rerun-sdk; run: pip install rerun-sdk") from error
    recording = rerun.RecordingStream("dimm_ros")
    views = layout.Blueprint(
        layout.Horizontal(
            layout.Spatial3DView(origin="world", name="map"),
            layout.Vertical(
                layout.Spatial2DView(origin="world/camera", name="image"),
                layout.TimeSeriesView(origin="figures", name="figures"),
            ),
            column_shares=[3, 2],
        ),
        collapse_panels=True,
    )
    partial = None
    if spawn:
        recording.spawn(default_blueprint=views)
    else:
        partial = path.with_name(f".{path.name}.part{os.getpid()}")
        recording.save(partial, default_blueprint=views)
    try:
        sink = RerunSink(rerun, recording, run)
        yield sink
        sink.finish()
        recording.flush()
        recording.disconnect()
        if partial is not None:
            os.replace(partial, path)
    finally:
        recording.disconnect()
        if partial is not None:
            partial.unlink(missing_ok=True)


class RerunSink:
    """Entities below ``world``, and ``figures`` over time; see ``rerun_sink``."""

    def __init__(self, rerun, recording, run: ShownRun) -> None:
        self._rerun, self._recording, self._run = rerun, recording, run
        self._path: list[np.ndarray] = []
        self._count = 0
        recording.send_recording_name(run.name)
        if run.up is not None:
            axis = int(np.argmax(np.abs(run.up)))
            name = f"RIGHT_HAND_{'XYZ'[axis]}_{'UP' if run.up[axis] > 0 else 'DOWN'}"
            recording.log("world", getattr(rerun.ViewCoordinates, name), static=True)
        if run.true_path is not None:
            recording.log("world/true_path", rerun.LineStrips3D([run.true_path], colors=[TRUE]), static=True)

    def add(self, frame: ShownFrame) -> None:
        """Write an image with its cameras, rays and figures."""
        rr, log = self._rerun, self._recording.log
        self._recording.set_time("stamp", timestamp=np.datetime64(frame.stamp_ns, "ns"))
        self._recording.set_time("image", sequence=self._count)
        self._count += 1
        estimate, pose = frame.estimate, frame.estimate.world_from_camera
        self._place("world/camera", frame, pose, ACCEPTED if estimate.accepted else REJECTED)
        done, data = cv2.imencode(".jpg", frame.image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
        if done:
            log("world/camera/image", rr.EncodedImage(contents=data.tobytes(), media_type="image/jpeg"))
        log(
            "world/camera/patches",
            rr.Points2D(frame.pixels, colors=frame.colours, radii=np.where(frame.inliers, 3.0, 1.5)),
        )
        for name, chosen in (("inliers", frame.inliers), ("outliers", ~frame.inliers)):
            log(f"world/rays/{name}", rr.LineStrips3D(frame.lines[chosen], colors=frame.colours[chosen], radii=0.001))
        log("figures/inliers_percent", rr.Scalars(100 * estimate.inlier_ratio))
        if estimate.accepted:
            self._path.append(pose[:3, 3])
        else:
            log("log", rr.TextLog(f"{frame.name}: {estimate.reason}", level="WARN"))
        if frame.true is not None:
            distance, angle = frame.errors
            self._place("world/true_camera", frame, frame.true, TRUE)
            log("world/error", rr.LineStrips3D([[frame.true[:3, 3], pose[:3, 3]]], colors=[REJECTED], radii=0.003))
            log("figures/error_cm", rr.Scalars(100 * distance))
            log("figures/error_deg", rr.Scalars(angle))

    def finish(self) -> None:
        """What is known only at the end."""
        if self._path:
            self._recording.log(
                "world/estimated_path", self._rerun.LineStrips3D([np.stack(self._path)], colors=[ACCEPTED]), static=True
            )

    def _place(self, entity: str, frame: ShownFrame, pose: np.ndarray, colour: tuple[int, int, int]) -> None:
        """A camera and its pyramid; a distorted lens is drawn as the pinhole camera of its matrix."""
        rr, camera = self._rerun, frame.camera
        self._recording.log(
            entity,
            rr.Transform3D(translation=pose[:3, 3], mat3x3=pose[:3, :3]),
            rr.Pinhole(
                image_from_camera=camera.matrix,
                resolution=[camera.width, camera.height],
                image_plane_distance=FRUSTUM_M,
                color=colour,
            ),
        )
