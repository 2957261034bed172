"""All checks of one recording."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from dimm_ros.data.coverage import ViewCoverage
from dimm_ros.data.open import is_bag, open_recording
from dimm_ros.data.recording import Recording
from dimm_ros.doctor.camera import check_cameras
from dimm_ros.doctor.coverage import check_coverage
from dimm_ros.doctor.diagnosis import Diagnosis
from dimm_ros.doctor.findings import Finding, Severity, problem
from dimm_ros.doctor.geometry import check_geometry
from dimm_ros.doctor.images import ImageFigures, check_images
from dimm_ros.doctor.timing import check_gaps, check_jumps
from dimm_ros.errors import DataError
from dimm_ros.progress import ProgressCallback


@dataclass(frozen=True)
class Examination:
    """Findings, and the data of the picture.

    Attributes:
        recording: what was examined, frames with poses only (all frames where none has one).
        findings: in the order of the checks.
        images: per-image figures.
        coverage, diagnosis: None where there are no poses, or the images allowed no verdict.
    """

    recording: Recording
    findings: list[Finding]
    images: ImageFigures
    coverage: ViewCoverage | None
    diagnosis: Diagnosis | None

    @property
    def worst(self) -> Severity:
        return max((finding.severity for finding in self.findings), default=Severity.OK)

    def as_dict(self) -> dict:
        """For JSON."""
        return {
            "data": self.recording.name,
            "frames": len(self.recording.frames),
            "verdict": self.worst.name.lower(),
            "findings": [finding.as_dict() for finding in self.findings],
        }


def examine(
    source: str | Path, *, split: str | None = None, progress: ProgressCallback | None = None, **bag_options
) -> Examination:
    """Open a recording and run every check that applies to it.

    Args:
        source, split, bag_options: as for ``open_recording``.
        progress: see ``ProgressCallback``.

    Raises:
        DataError: nothing there can be read at all.
    """
    findings: list[Finding] = []
    try:
        recording = open_recording(source, split=split, **bag_options)
    except DataError as error:
        recording = _without_poses(source, bag_options)
        if recording is None:
            raise
        findings.append(
            problem(
                "poses", str(error), "see the sentence", "give the images poses; the other checks go on without them"
            )
        )
    if is_bag(Path(source)):
        from dimm_ros.doctor.bag import check_bag  # rosbags is not needed for folders of images

        findings += check_bag(source, bag_options.get("image_topic"), bag_options.get("camera_info_topic"))
    return _examine(recording, findings, progress or (lambda stage, done, total: None))


def main_findings(recording: Recording, progress: ProgressCallback | None = None) -> list[Finding]:
    """Problems and warnings about the poses and cameras of a recording whose frames all have poses, worst first.

    What ``dimm map`` says before it trains: the images are matched, but not looked at one by one.
    """
    found = [*_poses(recording, progress or (lambda stage, done, total: None))[0], *check_cameras(recording)]
    worth = [finding for finding in found if finding.severity >= Severity.WARNING]
    return sorted(worth, key=lambda finding: -finding.severity)


def _poses(recording: Recording, progress: ProgressCallback) -> tuple[list[Finding], ViewCoverage, Diagnosis | None]:
    geometry = check_geometry(recording, lambda done, total: progress("geometry", done, total))
    found, coverage = check_coverage(recording, geometry.seen)
    return [*geometry.findings, *found, check_jumps(recording)], coverage, geometry.diagnosis


def _without_poses(source: str | Path, bag_options: dict) -> Recording | None:
    """A bag whose images can be read although their poses cannot."""
    if not Path(source).exists() or not is_bag(Path(source)):
        return None
    try:
        return open_recording(source, **(bag_options | {"pose_topic": None}), require_poses=False)
    except DataError:
        return None


def _examine(recording: Recording, findings: list[Finding], progress: ProgressCallback) -> Examination:
    findings = findings + [
        replace(problem("reader", note, "", ""), severity=Severity.WARNING) for note in recording.notes
    ]
    posed = [frame for frame in recording.frames if frame.world_from_camera is not None]
    coverage = diagnosis = None
    if posed:
        recording = replace(recording, frames=posed, splits={})
        found, coverage, diagnosis = _poses(recording, progress)
        findings = found + findings
    findings += [*check_cameras(recording), check_gaps(recording)]
    found, images = check_images(recording, lambda done, total: progress("images", done, total))
    return Examination(
        recording=recording, findings=findings + found, images=images, coverage=coverage, diagnosis=diagnosis
    )
