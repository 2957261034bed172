"""The recordings a map was made from, as its header describes them."""

from __future__ import annotations

from datetime import datetime, timezone

import numpy as np

from dimm_ros.data.coverage import view_coverage
from dimm_ros.data.recording import Recording
from dimm_ros.scene_map import SourceCoverage, SourceRecording

_TRUE_TIMES_FROM_NS = 946_684_800 * 1_000_000_000  # the year 2000: earlier stamps are counted from a start, not dates


def source_of(recording: Recording, licence: str | None = None) -> SourceRecording:
    """A recording's entry in the header."""
    stamps = [frame.stamp_ns for frame in recording.frames]
    dates = tuple(
        datetime.fromtimestamp(stamp / 1e9, timezone.utc).date().isoformat() for stamp in (min(stamps), max(stamps))
    )
    return SourceRecording(
        name=recording.source,
        frames=len(recording.frames),
        licence=licence,
        recorded=dates if min(stamps) >= _TRUE_TIMES_FROM_NS else None,
        mapped=datetime.now(timezone.utc).date().isoformat(),
        coverage=coverage_of(recording),
    )


def coverage_of(recording: Recording) -> SourceCoverage:
    """Where a recording's views are and look."""
    poses = recording.poses()
    seen = view_coverage(poses)
    centres, up = poses[:, :3, 3], seen.axes[2]
    return SourceCoverage(
        low=tuple(centres.min(axis=0).tolist()),
        high=tuple(centres.max(axis=0).tolist()),
        spacing=float(np.median(seen.spacing)),
        path=float(np.linalg.norm(np.diff(centres, axis=0), axis=1).sum()),
        up=f"{'+' if seen.up_sign > 0 else '-'}{'xyz'[up]}",
        headings=tuple(seen.headings(poses[:, :3, 2]).tolist()),
    )
