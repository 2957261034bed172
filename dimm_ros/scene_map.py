"""A map: the head's weights and a header, in one safetensors file. Data, never code."""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Sequence
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from dimm_ros.config import EncoderConfig, HeadConfig, PlainText, Preset, TrainingConfig
from dimm_ros.errors import UNREADABLE, MapError, first_line
from dimm_ros.geometry.poses import is_rigid, make_pose
from dimm_ros.head.global_pose import GlobalPose
from dimm_ros.head.merged import MergedHead
from dimm_ros.head.model import MapHead
from dimm_ros.landmarks.calibrate import LandmarkCalibration
from dimm_ros.landmarks.keypoints import DETECTORS
from dimm_ros.landmarks.store import Landmarks
from dimm_ros.landmarks.warp import MOST_POSES, Warp
from dimm_ros.reach import Reach
from dimm_ros.whole_file import written_whole

log = logging.getLogger(__name__)

FORMAT_VERSION = 7  # 5: landmarks; 6: reach, alignment; 7: warp
_OLDEST_FORMAT = (
    2  # that is still read: it lacks sources' licence, dates and coverage, held-out errors, curves and parts
)
_NOVELTY = 4  # the first whose head.whole_novelty is 1
#: Of older maps, and not used any more: what gained too little.
_DROPPED_HEAD = {"turn_width", "turn_least"}
_DROPPED_TRAINING = {"context_noise", "context_dropout", "context_mix", "loss", "average"}
_DROPPED_TENSORS = re.compile(r"(parts\.\d+\.)?turn\.")
# of older calibrations
_FACTORS = ("position_factor", "rotation_factor", "position_growth", "rotation_growth", "reference_novelty")
_ADDED = ("whole.ridge", "whole.bandwidth")  # since format 2, whose maps have what an empty head has
_KEY = "dimm_map"
_LANDMARKS = "landmarks."
_STORED = {"float32": "F32", "float16": "F16", "uint8": "U8"}  # as safetensors calls them
#: Errors grow with novelty to this power.
GROWTH = 0.9
#: No view is so familiar that its error is nought.
LEAST_NOVELTY = 0.02
_MOST = 10_000_000  # wide enough for every token, and no product of sizes leaves 64 bits
_FLOATS = {"F16", "BF16", "F32", "F64"}
_FULL = (
    # Large numbers, some of which nearly cancel,
    "whole.weights",
    "whole.left",
    "whole.spread",
    "whole.ridge",
    "whole.bandwidth",
    # and those that an aligned map has turned.
    "whole.offset",
    "ray.5.weight",
    "ray.5.bias",
)

#: Of everything in a header: a typo never passes silently, and no number is infinite or NaN.
_DATA = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


_Row = tuple[float, float, float, float]


class SourceCoverage(BaseModel):
    """Where a recording's views are and look, in figures.

    Attributes:
        low, high: corners of the box around the camera centres, metres, map frame.
        path: length of the way from view to view, metres.
        spacing: median distance to the next views that look the same way, metres.
        up: the map axis that points up, such as "+z", as the images' uprights say.
        headings: views by the eighth of the circle they look into, counter-clockwise about up from the first other
            axis.
    """

    model_config = _DATA

    low: tuple[float, float, float]
    high: tuple[float, float, float]
    path: float
    spacing: float
    up: PlainText
    headings: tuple[int, ...] = Field(min_length=8, max_length=8)

    def transformed(self, target_from_source: np.ndarray) -> SourceCoverage:
        """In another frame, (4, 4): a box around the turned box, and each heading's views in the eighth that its
        middle turns into."""
        rotation, shift = target_from_source[:3, :3], target_from_source[:3, 3]
        corners = np.array(list(product(*zip(self.low, self.high, strict=True)))) @ rotation.T + shift
        up, first, second = self._compass()
        turned = rotation @ up
        axis = int(np.abs(turned).argmax())
        transformed = self.model_copy(
            update={
                "low": tuple(corners.min(axis=0).tolist()),
                "high": tuple(corners.max(axis=0).tolist()),
                "up": f"{'+' if turned[axis] > 0 else '-'}{'xyz'[axis]}",
            }
        )
        angles = 2 * np.pi * np.arange(len(self.headings)) / len(self.headings)
        looks = (np.cos(angles)[:, None] * first + np.sin(angles)[:, None] * second) @ rotation.T
        _, first, second = transformed._compass()
        sectors = np.rint(np.arctan2(looks @ second, looks @ first) / angles[1]).astype(int) % len(self.headings)
        counts = np.bincount(sectors, self.headings, len(self.headings))
        return transformed.model_copy(update={"headings": tuple(counts.astype(int).tolist())})

    def _compass(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Unit vectors up, along the first other axis, and a quarter turn counter-clockwise about up from that."""
        axis = "xyz".index(self.up[-1])
        up = np.eye(3)[axis] * (-1 if self.up[0] == "-" else 1)
        first = np.eye(3)[min({0, 1, 2} - {axis})]
        return up, first, np.cross(up, first)


class SourceRecording(BaseModel):
    """A recording that a map was trained from: a name and figures, never an image.

    Attributes:
        name: what it was, without its folder.
        frames: images.
        licence: as its user gave it; None when nothing was said.
        recorded: dates (UTC) of the first and the last image, where the recording has times.
        mapped: date (UTC) it came into the map.
        coverage: None in maps of an earlier dimm_ros.
    """

    model_config = _DATA

    name: PlainText
    frames: int = Field(ge=1)
    licence: PlainText | None = None
    recorded: tuple[PlainText, PlainText] | None = None
    mapped: PlainText | None = None
    coverage: SourceCoverage | None = None

    def transformed(self, target_from_source: np.ndarray) -> SourceRecording:
        """In another frame, (4, 4)."""
        transformed = None if self.coverage is None else self.coverage.transformed(target_from_source)
        return self.model_copy(update={"coverage": transformed})


class Curve(BaseModel):
    """How one training went: (step, mean loss since the point before)."""

    model_config = _DATA

    name: PlainText
    points: tuple[tuple[Annotated[int, Field(ge=0, le=10**12)], float], ...]


class Calibration(BaseModel):
    """The map's own errors, as measured on held-out frames of the recording.

    The errors of an image's rays are nearly the same for all of them, because they come from the image as a whole:
    their size follows from how new the view is, not from how well the rays agree. Measured, they grow nearly in
    proportion to novelty (docs/benchmarks.md).

    Attributes:
        position_rate, rotation_rate_deg: standard deviation per axis of the error that all rays share at novelty 1,
            metres and degrees; it grows with novelty^0.9. The defaults are what other maps had.
        max_novelty: images beyond it are not of this map; None when nothing is known about that.
        focal_factor: by which the map finds focal lengths of uncalibrated cameras too long, from mapped frames; see
            ``uncalibrated``.
        frames: held-out frames the others rest on; 0 when the recording was too short to hold any out.
        position_error, rotation_error_deg: median errors of the held-out frames before they joined the training, metres
            and degrees.
        reach: those frames by their distance from the nearest view that was not held out; None in maps of format 5
            and before.
    """

    model_config = _DATA

    position_rate: float = Field(0.5, ge=0)
    rotation_rate_deg: float = Field(15.0, ge=0)
    max_novelty: float | None = Field(None, gt=0)
    focal_factor: float = Field(1.0, gt=0)
    frames: int = Field(0, ge=0)
    position_error: float | None = None
    rotation_error_deg: float | None = None
    reach: Reach | None = None

    @model_validator(mode="before")
    @classmethod
    def _without_factors(cls, fields: object) -> object:
        """Maps made before rates were known: what they held instead is left out."""
        return (
            {name: value for name, value in fields.items() if name not in _FACTORS}
            if isinstance(fields, dict)
            else fields
        )

    def rescaled(self, unit: float) -> Calibration:
        """The same for novelties that are ``unit`` times as large."""
        limit = None if self.max_novelty is None else self.max_novelty * unit
        grown = unit**GROWTH
        rates = {"position_rate": self.position_rate / grown, "rotation_rate_deg": self.rotation_rate_deg / grown}
        return self.model_copy(update=rates | {"max_novelty": limit})

    def joined(self, other: Calibration) -> Calibration:
        """Of a map whose images are partly the one's and partly the other's: means by held-out frames, the larger limit
        of novelty.
        """
        limits = [one.max_novelty for one in (self, other) if one.max_novelty is not None]
        reach = other.reach if self.reach is None else self.reach.joined(other.reach)
        limit = {"max_novelty": max(limits, default=None), "reach": reach}
        if not other.frames or not self.frames:
            return (self if self.frames or not other.frames else other).model_copy(update=limit)
        share = other.frames / (self.frames + other.frames)

        def mean(field: str, power: float = 1.0) -> float:
            one, more = getattr(self, field), getattr(other, field)
            return ((1 - share) * one**power + share * more**power) ** (1 / power)

        fields = [
            field
            for field in ("position_error", "rotation_error_deg")
            if None not in (getattr(self, field), getattr(other, field))
        ]
        return Calibration(
            position_rate=mean("position_rate", 2),
            rotation_rate_deg=mean("rotation_rate_deg", 2),
            frames=self.frames + other.frames,
            **{field: mean(field) for field in ("focal_factor", *fields)},
            **limit,
        )

    def sigmas(self, novelty: float | None) -> tuple[float, float]:
        """Standard deviation of position (metres) and of rotation (radians) that an image of this novelty has beside
        its rays' own.
        """
        grown = 1.0 if novelty is None else max(novelty, LEAST_NOVELTY) ** GROWTH
        return self.position_rate * grown, math.radians(self.rotation_rate_deg) * grown


class LandmarkHeader(BaseModel):
    """Header of a map's landmarks; they themselves are the tensors ``landmarks.*``, see ``landmarks.store``.

    Attributes:
        kind: points, or lines that hide them.
        detector, longest, keypoints: how keypoints are found in images, see ``config.LandmarkConfig``.
        dim: entries of a descriptor.
        count: landmarks.
        images: that they were made of.
        calibration: their errors.
        warp, warp_reach: recorded poses whose errors are known, and metres over which these are alike, see
            ``landmarks.warp``; 0 poses in maps of format 6 and before.
    """

    model_config = _DATA

    kind: Literal["points", "lines"]
    detector: PlainText
    longest: int = Field(ge=160, le=8192)
    keypoints: int = Field(ge=50, le=50_000)
    dim: int = Field(ge=8, le=1024)
    count: int = Field(ge=1, le=10_000_000)
    images: int = Field(ge=1)
    calibration: LandmarkCalibration = LandmarkCalibration()
    warp: int = Field(0, ge=0, le=MOST_POSES)
    warp_reach: float = Field(1.0, gt=0)

    def describing(self, landmarks: Landmarks) -> LandmarkHeader:
        """The same of other landmarks."""
        warp = landmarks.warp
        known = {"warp": 0} if warp is None else {"warp": len(warp), "warp_reach": warp.reach}
        return self.model_copy(update={"kind": landmarks.kind, "count": len(landmarks)} | known)


class Alignment(BaseModel):
    """A frame that a map was brought into from another, see ``SceneMap.aligned``; the map's own numbers are in the
    target.

    Attributes:
        target, source: the frames' names.
        target_from_source: (4, 4) rigid, metres.
        reference: what it was aligned with, such as the occupancy grid's file.
        method: how, such as "4 pairs".
        residual: root mean square of what remains, metres.
        aligned: date (UTC).
    """

    model_config = _DATA

    target: PlainText
    source: PlainText
    target_from_source: tuple[_Row, _Row, _Row, _Row]
    reference: PlainText
    method: PlainText
    residual: float = Field(ge=0)
    aligned: PlainText

    @model_validator(mode="after")
    def _rigid(self) -> Alignment:
        if not is_rigid(np.array(self.target_from_source)):
            raise ValueError("target_from_source is not a rigid transform")
        return self


class Part(BaseModel):
    """A map that a merged map was made of; ``alignments`` are its own, from before it was merged."""

    model_config = _DATA

    name: PlainText
    head: HeadConfig
    origin: tuple[float, float, float]
    radius: float = Field(gt=0)
    calibration: Calibration = Calibration()
    alignments: tuple[Alignment, ...] = ()


class MapHeader(BaseModel):
    """Everything about a map but its weights."""

    model_config = _DATA

    format_version: int = FORMAT_VERSION
    name: PlainText
    frame_id: PlainText
    created: PlainText
    dimm_version: PlainText
    encoder: EncoderConfig
    encoder_sha256: PlainText
    encoder_origin: PlainText
    patch_dim: int = Field(ge=1, le=_MOST)
    context_dim: int = Field(ge=1, le=_MOST)
    head: HeadConfig
    training: TrainingConfig
    origin: tuple[float, float, float] = Field(description="mean camera centre, metres, map frame")
    radius: float = Field(gt=0, description="unit of the normalised frame, metres")
    sources: tuple[SourceRecording, ...]
    calibration: Calibration = Calibration()
    figures: dict[PlainText, float] = {}
    curves: tuple[Curve, ...] = ()
    landmarks: LandmarkHeader | None = Field(None, description="what the landmarks are; None for a map of rays alone")
    alignments: tuple[Alignment, ...] = Field((), description="frames that the whole map was brought into, in order")
    parts: tuple[Part, ...] = Field((), description="of a merged map, see head.merged; empty for all others")

    @property
    def all_alignments(self) -> tuple[Alignment, ...]:
        """Those of the parts and of the whole map, each once."""
        return tuple(dict.fromkeys((*(one for part in self.parts for one in part.alignments), *self.alignments)))

    def mark(self) -> dict[str, str]:
        """Metadata that tie the files beside a map to it, and to the frame it is in."""
        mark = {
            "name": self.name,
            "created": self.created,
            "encoder_sha256": self.encoder_sha256,
            "encoder": self.encoder.model_dump_json(),
        }
        if self.alignments:  # so that files beside maps of format 5 stay theirs
            mark["alignments"] = json.dumps([one.model_dump(mode="json") for one in self.alignments])
        return mark

    @property
    def steps_done(self) -> int | None:
        """Steps of the last training that are in the weights; None of merged maps, which were not trained."""
        return None if self.parts else int(self.figures.get("steps", 0))

    @property
    def complete(self) -> bool:
        """Whether the training was not stopped before its end."""
        return self.steps_done is None or self.steps_done >= self.training.steps

    def made_as(self, preset: Preset) -> bool:
        """Whether the map is complete, and its encoder, head and training are the preset's."""
        own, asked = ((each.encoder, each.head, each.training) for each in (self, preset))
        return self.complete and own == asked


class SceneMap:
    """A trained head with its header.

    Attributes:
        header: what the map is.
        head: the network, in evaluation mode.
        landmarks: about the map's origin, metres; None where the header has none.
    """

    def __init__(self, header: MapHeader, head: MapHead | MergedHead, landmarks: Landmarks | None = None) -> None:
        self.header, self.head, self.landmarks = header, head, landmarks

    def rays_alone(self) -> SceneMap:
        """The same map without its landmarks: the paper's form."""
        return SceneMap(self.header.model_copy(update={"landmarks": None}), self.head)

    def parts(self) -> list[tuple[Part, MapHead]]:
        """A map as parts of a merged one: itself, or those that it was merged from, with what each was aligned by."""
        header, head = self.header, self.head
        if isinstance(head, MergedHead):
            moved = [
                part.model_copy(update={"alignments": (*part.alignments, *header.alignments)}) for part in header.parts
            ]
            return list(zip(moved, head.parts, strict=True))
        part = Part(
            name=header.name,
            head=header.head,
            origin=header.origin,
            radius=header.radius,
            calibration=header.calibration,
            alignments=header.alignments,
        )
        return [(part, head)]

    def mapped_poses(self) -> np.ndarray | None:
        """(N, 4, 4) world_from_camera of the mapped images, as the global pose part remembers them; None where there
        is none. Worked out once, read-only."""
        return self._mapped_poses

    @cached_property
    def _mapped_poses(self) -> np.ndarray | None:
        known = []
        for part, head in self.parts():
            if head.whole is None:
                return None
            _, rotations, centres, recorded = (value.cpu().numpy() for value in head.whole.mapped())
            centres = centres * part.radius + part.origin
            pairs = zip(rotations[recorded], centres[recorded], strict=True)
            known += [make_pose(rotation, centre) for rotation, centre in pairs]
        poses = np.array(known).reshape(-1, 4, 4)
        poses.flags.writeable = False
        return poses

    def aligned(self, alignment: Alignment) -> SceneMap:
        """The map in another frame: weights, landmarks and header are moved, so that whatever uses it needs to know
        nothing of it."""
        move = np.array(alignment.target_from_source)
        rotation = torch.from_numpy(move[:3, :3])

        def transformed(origin: tuple[float, float, float]) -> tuple[float, ...]:
            return tuple((move[:3, :3] @ origin + move[:3, 3]).tolist())

        old = self.header
        header = old.model_copy(
            update={
                "format_version": FORMAT_VERSION,
                "frame_id": alignment.target,
                "origin": transformed(old.origin),
                "sources": tuple(source.transformed(move) for source in old.sources),
                "alignments": (*old.alignments, alignment),
                "parts": tuple(part.model_copy(update={"origin": transformed(part.origin)}) for part in old.parts),
            }
        )
        heads = [head.rotated(rotation) for _, head in self.parts()]
        head = merged_head(header, heads) if header.parts else heads[0]
        return SceneMap(header, head, None if self.landmarks is None else self.landmarks.rotated(move[:3, :3]))

    @classmethod
    def load(cls, path: str | Path, device: torch.device | str = "cpu") -> SceneMap:
        """Read a map file.

        Raises:
            MapError: missing, truncated, not a map, or written by a newer version.
        """
        path = Path(path)
        if path.is_dir():
            raise MapError(f"The map {path} is a folder; give the file in it that 'dimm map' wrote.")
        if not path.is_file():
            raise MapError(f"The map {path} does not exist; make one with 'dimm map BAG_OR_FOLDER -o {path.name}'.")
        try:
            path.open("rb").close()  # safetensors says of a file that may not be read that it does not exist
        except OSError as error:
            raise MapError(f"The map {path} cannot be read ({error.strerror}); check who may read it.") from None
        try:
            with safe_open(str(path), "pt") as file:
                header = _parse((file.metadata() or {}).get(_KEY), path)
                head, landmarks = _read_head(header, file, path), _read_landmarks(header.landmarks, file, path)
        except (SafetensorError, OSError) as error:
            raise MapError(
                f"The map {path} is damaged or not a map ({error}); copy it again or rebuild it with 'dimm map'."
            ) from error
        return cls(header, head.to(device).eval().requires_grad_(False), landmarks)

    def save(self, path: str | Path) -> None:
        """Write the map whole or not at all; weights in half precision, as the paper's maps.

        Raises:
            MapError: it cannot be written.
            ValueError: the header speaks of other landmarks than there are.
        """
        said, there = self.header.landmarks, self.landmarks
        if (said is None) != (there is None) or (there is not None and said != said.describing(there)):
            raise ValueError("the map's header speaks of other landmarks than there are")
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self.head.state_dict().items()}
        tensors = {name: tensor if name.endswith(_FULL) else tensor.half() for name, tensor in tensors.items()}
        if self.landmarks is not None:
            tensors |= landmark_tensors(self.landmarks)
        write_safetensors(tensors, Path(path), {_KEY: self.header.model_dump_json()})


def landmark_tensors(landmarks: Landmarks) -> dict[str, torch.Tensor]:
    """As a file holds them."""
    arrays, warp = landmarks.arrays(), landmarks.warp
    if warp is not None:
        arrays |= {"warp_poses": warp.poses, "warp_errors": warp.errors}
    return {f"{_LANDMARKS}{name}": torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}


def read_landmarks(file: safe_open, header: LandmarkHeader) -> Landmarks | None:
    """Landmarks of an open file; None when it does not hold what was said, of which nothing is read then."""
    wanted = Landmarks.shapes(header.kind, header.count, header.dim)
    if header.warp:
        wanted |= dict.fromkeys(("warp_poses", "warp_errors"), ((header.warp, 6), "float32"))
    if {name for name in file.keys() if name.startswith(_LANDMARKS)} != {f"{_LANDMARKS}{name}" for name in wanted}:
        return None
    for name, (shape, dtype) in wanted.items():
        part = file.get_slice(f"{_LANDMARKS}{name}")
        if tuple(part.get_shape()) != shape or part.get_dtype() != _STORED[dtype]:
            return None
    arrays = {name: file.get_tensor(f"{_LANDMARKS}{name}").numpy() for name in wanted}
    if not all(np.isfinite(array).all() for array in arrays.values()):
        return None
    poses, errors = (arrays.pop(f"warp_{name}", None) for name in ("poses", "errors"))
    return Landmarks(header.kind, **arrays, warp=None if poses is None else Warp(poses, errors, header.warp_reach))


def _read_landmarks(header: LandmarkHeader | None, file: safe_open, path: Path) -> Landmarks | None:
    if header is None:
        if any(name.startswith(_LANDMARKS) for name in file.keys()):
            raise MapError(
                f"The map {path} holds landmarks that its header does not describe; rebuild it with 'dimm map'."
            )
        return None
    detector = DETECTORS.get(header.detector)
    if detector is None:
        raise MapError(
            f"The landmarks of map {path} are keypoints of '{header.detector}', this dimm_ros knows "
            f"{', '.join(DETECTORS)}; "
            "update dimm_ros or rebuild the map."
        )
    if header.dim != detector.dim:
        raise MapError(
            f"The landmarks of map {path} have descriptors of {header.dim} entries, those of '{header.detector}' have "
            f"{detector.dim}; "
            "rebuild it with 'dimm map'."
        )
    landmarks = read_landmarks(file, header)
    if landmarks is None:
        raise MapError(
            f"The map {path} does not hold the {header.count} landmarks ({header.kind}) that its header describes; "
            "copy it again or rebuild it with 'dimm map'."
        )
    return landmarks


def write_safetensors(tensors: dict[str, torch.Tensor], path: Path, metadata: dict[str, str]) -> None:
    """Write a safetensors file whole or not at all.

    Raises:
        MapError: it cannot be written.
    """
    try:
        with written_whole(path) as partial:
            partial.touch()
            # as any new file's: safetensors makes files that only their owner may read
            mode = partial.stat().st_mode & 0o777
            save_file(tensors, partial, metadata)
            partial.chmod(mode)
    except (OSError, SafetensorError) as error:
        cause = getattr(error, "strerror", None) or error
        raise MapError(f"{path} cannot be written ({cause}); free space or choose another place with -o.") from error


def merged_head(header: MapHeader, heads: Sequence[MapHead]) -> MergedHead:
    """The head of a merged map from those of its parts."""
    origins, radii = ([getattr(part, field) for part in header.parts] for field in ("origin", "radius"))
    limits = [part.calibration.max_novelty or 1.0 for part in header.parts]
    exact = {"dtype": torch.float64}
    return MergedHead(
        heads,
        torch.tensor(origins, **exact),
        torch.tensor(radii, **exact),
        torch.tensor(header.origin, **exact),
        header.radius,
        torch.tensor(limits, **exact),
        max(limits),
    )


def _read_head(header: MapHeader, file: safe_open, path: Path) -> MapHead | MergedHead:
    """The head that the header describes with the file's tensors, none of which is read before all have the right
    shapes.
    """
    names = [name for name in file.keys() if not name.startswith(_LANDMARKS)]
    slices = {name: file.get_slice(name) for name in names if not _DROPPED_TENSORS.match(name)}
    if len(slices) < len(names):
        log.warning(
            "Map %s is of an earlier dimm_ros: its network for the whole image's rotation is left out, without which "
            "rotations may be a little less exact; rebuild it with 'dimm map'.",
            path,
        )
    shapes = {name: tuple(part.get_shape()) for name, part in slices.items()}
    head = _empty_head(header, shapes)
    needed = {name: tuple(tensor.shape) for name, tensor in head.state_dict().items()}
    missing = {name for name in _ADDED if name in needed and name not in shapes}
    if (
        shapes != {name: shape for name, shape in needed.items() if name not in missing}
        or not {part.get_dtype() for part in slices.values()} <= _FLOATS
    ):
        raise MapError(f"The map {path} does not hold the head that its header describes; rebuild it with 'dimm map'.")
    tensors = {name: file.get_tensor(name).float() for name in shapes}
    if not all(tensor.isfinite().all() for tensor in tensors.values()):
        raise MapError(f"The weights of map {path} are not all finite; copy it again or rebuild it with 'dimm map'.")
    if missing:
        new = GlobalPose(1, needed["whole.views"][0], 1).state_dict()
        tensors |= {name: new[name.removeprefix("whole.")] for name in missing}
    head.load_state_dict(tensors, assign=True)
    return head


def _empty_head(header: MapHeader, shapes: dict[str, tuple[int, ...]]) -> MapHead | MergedHead:
    """A head of the header's shape, without memory for its weights; with a global pose part if a file of these shapes
    holds one.
    """

    def one(config: HeadConfig, prefix: str) -> MapHead:
        views, basis = shapes.get(f"{prefix}whole.views", ()), shapes.get(f"{prefix}whole.basis", ())
        with torch.device("meta"):
            known = len(views) == len(basis) == 2 and 0 < views[0] <= _MOST and 0 < basis[1] <= _MOST
            whole = GlobalPose(header.context_dim, views[0], basis[1]) if known else None
            return MapHead(header.patch_dim, header.context_dim, config, whole)

    if not header.parts:
        return one(header.head, "")
    prefixes = [f"parts.{number}." for number in range(len(header.parts))]
    if any(f"{prefix}whole.views" not in shapes for prefix in prefixes):
        raise MapError(
            f"The merged map '{header.name}' lacks a whole-image part of one of its {len(prefixes)} maps; merge them "
            "again."
        )
    return merged_head(header, [one(part.head, prefix) for part, prefix in zip(header.parts, prefixes, strict=True)])


def _parse(text: str | None, path: Path) -> MapHeader:
    if text is None:
        raise MapError(
            f"{path} is a safetensors file but not a dimm map (it has no map header); give the file that 'dimm map' "
            "wrote."
        )
    try:
        fields = json.loads(text)
        version = int(fields["format_version"])
        if version < _OLDEST_FORMAT:
            raise MapError(
                f"The map {path} has format {version}, of an early dimm_ros, and is not read any more; rebuild it with "
                "'dimm map'."
            )
        if version > FORMAT_VERSION:
            raise MapError(
                f"The map {path} has format {version}, this dimm_ros reads up to {FORMAT_VERSION}; update dimm_ros."
            )
        for part in (fields, *fields.get("parts", ())):
            usual = {"whole_novelty": 2.0} if version < _NOVELTY else {}
            part["head"] = usual | {name: value for name, value in part["head"].items() if name not in _DROPPED_HEAD}
        fields["training"] = {
            name: value for name, value in fields["training"].items() if name not in _DROPPED_TRAINING
        }
        return MapHeader.model_validate(fields)
    except UNREADABLE as error:
        raise MapError(
            f"The header of map {path} cannot be read ({first_line(error)}); rebuild it with 'dimm map'."
        ) from error
