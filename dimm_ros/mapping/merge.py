"""``merge_maps``: several maps in one frame become one file, without any image (see ``head.merged``)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dimm_ros import __version__
from dimm_ros.errors import MapError
from dimm_ros.landmarks.combine import combine
from dimm_ros.landmarks.store import Landmarks
from dimm_ros.mapping.build import now
from dimm_ros.mapping.landmarks import merged_landmark_header, one_landmark_within
from dimm_ros.mapping.retrieval import ReferenceViews, reference_path
from dimm_ros.mapping.update import disagreement
from dimm_ros.scene_map import MapHeader, Part, SceneMap, merged_head

_CURVES = 16


def merge_maps(paths: Sequence[str | Path], output: str | Path, *, name: str | None = None) -> Path:
    """Write one map that knows what all of these know.

    Args:
        paths: two maps or more, of one encoder and one frame; merged ones, too.
        output: the file to write.

    Raises:
        MapError: fewer than two maps, one that cannot be read, different encoders or frames, or a map without a
        global pose part.
    """
    output = Path(output)
    if len(paths) < 2:
        raise MapError("One map alone cannot be merged; name two maps or more.")
    if output.is_dir():
        raise MapError(f"{output} is a folder; give a file name with -o, such as {output / 'merged.dimm'}.")
    maps = [SceneMap.load(path) for path in paths]
    _check(maps)
    parts = [part for one in maps for part in one.parts()]
    header = _header(maps, [part for part, _ in parts], name or output.stem)
    landmarks = _landmarks(maps, header)
    header = header.model_copy(update={"landmarks": merged_landmark_header([one.header for one in maps], landmarks)})
    references = [ReferenceViews.load(Path(path), one.header) for path, one in zip(paths, maps, strict=True)]
    SceneMap(header, merged_head(header, [head for _, head in parts]), landmarks).save(output)
    if all(views is not None for views in references):
        joined = ReferenceViews(
            np.concatenate([views.cls for views in references]),
            np.concatenate([views.world_from_camera for views in references]),
        )
        joined.save(output, header)
    else:
        reference_path(output).unlink(missing_ok=True)  # of a map that was here before
    return output


def _landmarks(maps: Sequence[SceneMap], header: MapHeader) -> Landmarks | None:
    """Of all maps that have any, about the merged map's origin."""
    known = [one for one in maps if one.landmarks is not None]
    if not known:
        return None
    first = known[0].header.landmarks
    for other in (one.header for one in known[1:]):
        if (other.landmarks.detector, other.landmarks.dim) != (first.detector, first.dim):
            raise MapError(
                f"The landmarks of maps '{known[0].header.name}' and '{other.name}' are of different keypoints "
                f"({first.detector} and "
                f"{other.landmarks.detector}); build one of them again with the other's."
            )
    shifted = [one.landmarks.shifted(np.subtract(one.header.origin, header.origin)) for one in known]
    within = one_landmark_within(
        shifted, [one.header.landmarks.calibration for one in known], min(one.header.radius for one in known)
    )
    return combine(shifted, within, sum(len(each) for each in shifted), seed=len(shifted))


def _check(maps: Sequence[SceneMap]) -> None:
    first = maps[0].header
    for other in (one.header for one in maps[1:]):
        if (other.encoder_sha256, other.encoder) != (first.encoder_sha256, first.encoder):
            raise MapError(
                f"Maps '{first.name}' and '{other.name}' were made with different encoders ({first.encoder.name}, "
                "SHA-256 "
                f"{first.encoder_sha256[:12]}..., and {other.encoder.name}, SHA-256 {other.encoder_sha256[:12]}...); "
                "load both in the node instead."
            )
        if other.frame_id != first.frame_id:
            raise MapError(
                f"Map '{first.name}' is in frame '{first.frame_id}', but '{other.name}' is in frame "
                f"'{other.frame_id}'; load both in the "
                "node instead, which keeps their frames apart."
            )
    parts = [(SceneMap(_as_map(one.header, part), head)) for one in maps for part, head in one.parts()]
    for one in parts:
        if one.head.whole is None:
            raise MapError(
                f"Map '{one.header.name}' has no global pose part (whole_share is 0) to say which images it knows; "
                "build it with one."
            )
        for other in parts:
            apart = None if one is other else _disagreement(one, other)
            if apart is not None:
                raise MapError(
                    f"Maps '{one.header.name}' and '{other.header.name}' are in different frames, though both are "
                    f"called '{first.frame_id}': "
                    f"views that both know are {apart[0]:.2f} m and {apart[1]:.0f} degrees apart (medians); build one "
                    "of them in the other's frame."
                )


def _as_map(header: MapHeader, part: Part) -> MapHeader:
    return header.model_copy(update={name: getattr(part, name) for name in Part.model_fields} | {"parts": ()})


def _disagreement(one: SceneMap, other: SceneMap) -> tuple[float, float] | None:
    if other.head.whole is None:
        return None
    context, rotations, centres, _ = other.head.whole.mapped()
    centres = centres.cpu() * other.header.radius + centres.new_tensor(other.header.origin).cpu()
    return disagreement(one, context.cpu(), centres, rotations.cpu())


def _header(maps: Sequence[SceneMap], parts: Sequence[Part], name: str) -> MapHeader:
    """Of all maps: their sources and curves, origin and unit between theirs, and calibrations joined as for one."""
    first = maps[0].header
    frames = np.array([max(1, sum(source.frames for source in one.header.sources)) for one in maps], float)
    share = frames / frames.sum()
    origins, radii = np.array([one.header.origin for one in maps]), np.array([one.header.radius for one in maps])
    origin = share @ origins
    radius = float(np.sqrt(share @ (radii**2 + ((origins - origin) ** 2).sum(axis=1))))
    limit = max(part.calibration.max_novelty or 1.0 for part in parts)
    calibrations = [part.calibration.rescaled(limit / (part.calibration.max_novelty or 1.0)) for part in parts]
    calibration = calibrations[0]
    for other in calibrations[1:]:
        calibration = calibration.joined(other)
    confident = all(part.head.confidence for part in parts)
    return first.model_copy(
        update={
            "format_version": MapHeader.model_fields["format_version"].default,
            "name": name,
            "created": now(),
            "dimm_version": __version__,
            "head": parts[0].head.changed(confidence=confident),
            "origin": tuple(origin.tolist()),
            "radius": radius,
            "calibration": calibration,
            "sources": tuple(source for one in maps for source in one.header.sources),
            "figures": {},
            "alignments": (),  # each part has its own
            "parts": tuple(parts),
            "curves": tuple(curve for one in maps for curve in one.header.curves)[-_CURVES:],
        }
    )
