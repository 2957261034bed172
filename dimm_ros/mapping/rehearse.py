"""What a map is trained on beside a new recording, so that it forgets nothing: features kept of the old one, or what the map remembers.

* ``MAP.features.safetensors``, which ``dimm map --keep-features`` writes beside a map: tokens of some patches of every old view. They
  show what was seen (a stranger can make pictures of tokens), so nobody gets this file who did not ask for it.
* Without it, the map's own whole-image part: it knows the context of every mapped view up to what its axes leave, and gives that view's
  pose. Such a view has no patches; it borrows some from the new images. For a borrowed patch too the true ray is the one that the old
  view's camera has there, so the head learns to place the old contexts as before, whatever the patch shows.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from dimm_ros.errors import MapError
from dimm_ros.mapping.features import recorded_views
from dimm_ros.scene_map import MapHeader, SceneMap, write_safetensors

log = logging.getLogger(__name__)

_KEY = "dimm_features"
_KEPT = 128  # patches of a view: about 100 kB
_BORROWED = 256
_ROWS, _VIEWS = ("patches", "camera_rays", "directions", "view_of"), ("context", "centres", "rotations", "frame_of")


def features_path(map_path: Path) -> Path:
    """The file beside a map: scene.dimm -> scene.dimm.features.safetensors."""
    return map_path.with_name(map_path.name + ".features.safetensors")


def keep_features(path: Path, header: MapHeader, data: dict[str, Tensor], rehearsal: dict[str, Tensor] | None = None) -> None:
    """Write some patches of every view, of those kept before as well.

    Args:
        path: the file.
        header: of the map that they belong to.
        data: ``FeatureBuffer.tensors()``.
        rehearsal: ``load_features`` of the map before.

    Raises:
        MapError: the file cannot be written.
    """
    kept = _thinned(data, header.training.seed)
    if rehearsal is not None:
        shifted = rehearsal | {
            "view_of": rehearsal["view_of"] + len(kept["frame_of"]), "frame_of": rehearsal["frame_of"] + int(kept["frame_of"].max()) + 1,
        }
        kept = {name: torch.cat([kept[name], shifted[name]]) for name in kept}
    write_safetensors({name: tensor.contiguous() for name, tensor in kept.items()}, path, {_KEY: json.dumps(_mark(header))})


def load_features(path: Path, header: MapHeader) -> dict[str, Tensor] | None:
    """Features that were kept of a map's recordings; None when there is no such file, or (with a warning) when it is of another map."""
    if not path.is_file():
        return None
    try:
        with safe_open(str(path), "pt") as file:
            text = json.loads((file.metadata() or {}).get(_KEY, "null"))
            kept = {name: file.get_tensor(name) for name in (*_ROWS, *_VIEWS)}
    except (OSError, SafetensorError, ValueError) as error:
        raise MapError(f"The features {path} cannot be read ({error}); delete that file to go on without it.") from error
    if text != _mark(header):
        log.warning("%s is of another map or another state of it, and is not used.", path.name)
        return None
    return kept


def _mark(header: MapHeader) -> dict[str, str]:
    """What ties the features to a map."""
    return {"name": header.name, "created": header.created, "encoder_sha256": header.encoder_sha256, "encoder": header.encoder.model_dump_json()}


def _thinned(data: dict[str, Tensor], seed: int) -> dict[str, Tensor]:
    """At most _KEPT patches of each view, drawn at random."""
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.bincount(data["view_of"].long(), minlength=len(data["frame_of"]))
    first, chosen = 0, []
    for size in sizes.tolist():
        chosen.append(first + torch.randperm(size, generator=generator)[:_KEPT].sort().values)
        first += size
    rows = torch.cat(chosen)
    return {name: data[name][rows] for name in _ROWS} | {name: data[name] for name in _VIEWS}


def check_memory(scene_map: SceneMap) -> None:
    """Whether a map remembers its views.

    Raises:
        MapError: it has no whole-image part.
    """
    if scene_map.head.whole is None:
        raise MapError(
            f"Map '{scene_map.header.name}' remembers no view (whole_share is 0) and no features were kept of its recording, so an update would "
            "forget it: build it again from all recordings, or with 'dimm map --keep-features'."
        )


def remembered_views(scene_map: SceneMap, data: dict[str, Tensor], seed: int) -> dict[str, Tensor]:
    """The mapped views as a map remembers them, with patches borrowed from new images.

    Args:
        scene_map: the map before.
        data: ``FeatureBuffer.tensors()`` of the new recording.

    Returns:
        Tensors named as ``data``'s.

    Raises:
        MapError: the map has no whole-image part.
    """
    check_memory(scene_map)
    header, whole = scene_map.header, scene_map.head.whole
    with torch.inference_mode():
        context, rotations, centres, recorded = (part.cpu() for part in whole.mapped())
    generator = torch.Generator().manual_seed(seed)
    count = len(context)
    rows = torch.randint(len(data["view_of"]), (count * _BORROWED,), generator=generator)
    camera_rays = data["camera_rays"][rows]
    directions = torch.einsum("vij,vbj->vbi", rotations.float(), camera_rays.unflatten(0, (count, _BORROWED))).flatten(0, 1)
    view_of = torch.arange(count, dtype=torch.int32).repeat_interleave(_BORROWED)
    return {
        "patches": data["patches"][rows], "camera_rays": camera_rays, "directions": directions, "view_of": view_of, "context": context.half(),
        "centres": centres * header.radius + torch.tensor(header.origin, dtype=torch.float64), "rotations": rotations,
        "frame_of": torch.arange(count, dtype=torch.int32), "recorded": recorded,
    }


class Stacked:
    """Tensors of many rows, indexed as if they were one: a large one stays where it is, on disk for instance."""

    def __init__(self, *parts: Tensor) -> None:
        self._parts = parts
        self._ends = torch.tensor([len(part) for part in parts]).cumsum(0)
        self.shape = (int(self._ends[-1]), *parts[0].shape[1:])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Tensor) -> Tensor:
        result = torch.empty((len(rows), *self.shape[1:]), dtype=self._parts[0].dtype)
        number = torch.searchsorted(self._ends, rows, right=True)
        for index, part in enumerate(self._parts):
            here = number == index
            result[here] = part[rows[here] - (int(self._ends[index]) - len(part))]
        return result


def join(data: dict[str, Tensor], good: Tensor, rehearsal: dict[str, Tensor]) -> dict[str, Tensor | Stacked]:
    """New views, then old ones, as the trainer takes them.

    Args:
        data: ``FeatureBuffer.tensors()``.
        good: (V,) bool, which of the new views are good enough for the regression on the whole image; all old ones are.
        rehearsal: ``load_features`` or ``remembered_views``.
    """
    joined: dict = {name: torch.cat([data[name], rehearsal[name]]) for name in ("context", "centres", "rotations")}
    joined |= {name: Stacked(data[name], rehearsal[name]) for name in ("patches", "camera_rays", "directions")}
    joined["view_of"] = torch.cat([data["view_of"], rehearsal["view_of"] + len(data["frame_of"])])
    joined["frame_of"] = torch.cat([data["frame_of"], rehearsal["frame_of"] + int(data["frame_of"].max()) + 1])
    recorded = torch.cat([recorded_views(part) for part in (data, rehearsal)])
    return joined | {"good": torch.cat([good, torch.ones(len(rehearsal["frame_of"]), dtype=torch.bool)]), "recorded": recorded}
