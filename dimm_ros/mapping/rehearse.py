"""Rehearsal: old views that a map is trained on beside a new recording, so that it forgets nothing. Their features were
kept, or are what the map remembers.

* ``MAP.features.safetensors``, which ``dimm map --keep-features`` writes beside a map: tokens of some patches of every
  old view. They show what was seen (a stranger can make pictures of tokens), so nobody gets this file who did not
  ask for it.
* Without it, the map's own global pose part: it knows the context of every mapped view up to what its axes leave, and
  gives that view's pose. Such a view has no patches; it borrows some from the new images. For a borrowed patch too the
  true ray is the one that the old view's camera has there, so the head learns to place the old contexts as before,
  whatever the patch shows.
"""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from dimm_ros.errors import UNREADABLE, MapError, first_line
from dimm_ros.mapping.training_views import ROWS, VIEWS, TrainingViews
from dimm_ros.scene_map import MapHeader, SceneMap, write_safetensors

log = logging.getLogger(__name__)

_KEY = "dimm_features"
_KEPT = 128  # patches of a view: about 100 kB
_BORROWED = 256


def features_path(map_path: Path) -> Path:
    """The file beside a map: scene.dimm -> scene.dimm.features.safetensors."""
    return map_path.with_name(map_path.name + ".features.safetensors")


def keep_features(path: Path, header: MapHeader, views: TrainingViews, rehearsal: TrainingViews | None = None) -> None:
    """Write some patches of every view, of those kept before as well.

    Args:
        path: the file.
        header: of the map that they belong to.
        views: of the new recording.
        rehearsal: ``load_features`` of the map before.

    Raises:
        MapError: the file cannot be written.
    """
    kept = views.subsampled(_KEPT, torch.Generator().manual_seed(header.training.seed))
    parts = [kept]
    if rehearsal is not None:
        shifted = {"view_of": rehearsal.view_of + len(kept), "frame_of": rehearsal.frame_of + kept.frames}
        parts.append(replace(rehearsal, **shifted))
    write_features(path, header, *parts)


def write_features(path: Path, header: MapHeader, *parts: TrainingViews) -> None:
    """Write features of views, one part after another, as of a map with this header.

    Raises:
        MapError: the file cannot be written.
    """
    tensors = {name: torch.cat([getattr(part, name) for part in parts]) for name in (*ROWS, *VIEWS)}
    write_safetensors(tensors, path, {_KEY: json.dumps(header.mark())})


def load_features(path: Path, header: MapHeader) -> TrainingViews | None:
    """Features that were kept of a map's recordings; None when there is no such file, or (with a warning) when it is of
    another map.
    """
    if not path.is_file():
        return None
    try:
        with safe_open(str(path), "pt") as file:
            text = json.loads((file.metadata() or {}).get(_KEY, "null"))
            kept = TrainingViews(**{name: file.get_tensor(name) for name in (*ROWS, *VIEWS)})
    except (OSError, SafetensorError, *UNREADABLE) as error:
        raise MapError(
            f"The features {path} cannot be read ({first_line(error)}); delete that file to go on without it."
        ) from error
    if text != header.mark():
        log.warning("%s is of another map or another state of it, and is not used.", path.name)
        return None
    return kept


def check_memory(scene_map: SceneMap) -> None:
    """Whether a map remembers its views.

    Raises:
        MapError: it has no global pose part.
    """
    if scene_map.head.whole is None:
        raise MapError(
            f"Map '{scene_map.header.name}' remembers no view (whole_share is 0) and no features were kept of its "
            "recording, so an update would "
            "forget it: build it again from all recordings, or with 'dimm map --keep-features'."
        )


def remembered_views(scene_map: SceneMap, views: TrainingViews, seed: int) -> TrainingViews:
    """The mapped views as a map remembers them, with patches borrowed from new images.

    Args:
        scene_map: the map before.
        views: of the new recording.

    Raises:
        MapError: the map has no global pose part.
    """
    check_memory(scene_map)
    header, whole = scene_map.header, scene_map.head.whole
    with torch.inference_mode():
        context, rotations, centres, recorded = (part.cpu() for part in whole.mapped())
    generator = torch.Generator().manual_seed(seed)
    count = len(context)
    rows = torch.randint(len(views.view_of), (count * _BORROWED,), generator=generator)
    camera_rays = views.camera_rays[rows]
    directions = torch.einsum("vij,vbj->vbi", rotations.float(), camera_rays.unflatten(0, (count, _BORROWED))).flatten(
        0, 1
    )
    view_of = torch.arange(count, dtype=torch.int32).repeat_interleave(_BORROWED)
    return TrainingViews(
        patches=views.patches[rows],
        camera_rays=camera_rays,
        directions=directions,
        view_of=view_of,
        context=context.half(),
        rotations=rotations,
        centres=centres * header.radius + torch.tensor(header.origin, dtype=torch.float64),
        frame_of=torch.arange(count, dtype=torch.int32),
        known_recorded=recorded,
    )
