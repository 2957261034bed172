"""The views that a head learns from: tokens and true rays of every patch, and what is known of each view as a whole."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

#: Fields with one row for each patch, and with one for each view, as files hold them.
ROWS = ("patches", "camera_rays", "directions", "view_of")
VIEWS = ("context", "centres", "rotations", "frame_of")

_WHOLE_MIN_SHARE = 0.3  # of a full view's patches


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


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingViews:
    """M patches of V views, on the CPU; the patches of a view follow one another, and the views' order is that of their
    patches.

    Attributes:
        patches: (M, D) float16 tokens.
        camera_rays: (M, 3) float32 unit rays in the view's camera.
        directions: (M, 3) float32 unit rays in the world.
        view_of: (M,) int32 view of each patch.
        context: (V, C) float16 global context of each view.
        centres: (V, 3) float64 camera centres in the world, metres.
        rotations: (V, 3, 3) float64 world_from_camera.
        frame_of: (V,) int32 frame of each view.
        known_recorded: (V,) bool, the views that are images of a recording; None: the first of each frame is.
        known_whole: (V,) bool, the views of which enough is left for the regression of the global pose; None: their
            patches say.
    """

    patches: Tensor | Stacked
    camera_rays: Tensor | Stacked
    directions: Tensor | Stacked
    view_of: Tensor
    context: Tensor
    centres: Tensor
    rotations: Tensor
    frame_of: Tensor
    known_recorded: Tensor | None = None
    known_whole: Tensor | None = None

    def __len__(self) -> int:
        return len(self.frame_of)

    @property
    def frames(self) -> int:
        """Frames that the views are of."""
        return int(self.frame_of.max()) + 1

    @cached_property
    def sizes(self) -> Tensor:
        """(V,) patches of each view; zero for views whose patches another process has."""
        return torch.bincount(self.view_of.long(), minlength=len(self))

    @cached_property
    def first(self) -> Tensor:
        """(V,) row of each view's first patch."""
        return self.sizes.cumsum(0) - self.sizes

    def rows(self, view: int) -> slice:
        """The rows of one view's patches."""
        first = int(self.first[view])
        return slice(first, first + int(self.sizes[view]))

    @cached_property
    def recorded(self) -> Tensor:
        """(V,) bool: the views that are images of a recording."""
        if self.known_recorded is not None:
            return self.known_recorded
        recorded = torch.zeros(len(self), dtype=torch.bool)
        recorded[np.unique(self.frame_of.numpy(), return_index=True)[1]] = True
        return recorded

    @cached_property
    def whole(self) -> Tensor:
        """(V,) bool: the views of which enough is left for the regression of the global pose."""
        if self.known_whole is not None:
            return self.known_whole
        return self.sizes >= _WHOLE_MIN_SHARE * self.sizes.max()

    def subsampled(self, most: int, generator: torch.Generator) -> TrainingViews:
        """These with at most so many patches of each view, drawn at random."""
        pairs = zip(self.first.tolist(), self.sizes.tolist(), strict=True)
        rows = torch.cat(
            [first + torch.randperm(size, generator=generator)[:most].sort().values for first, size in pairs]
        )
        return replace(self, **{name: getattr(self, name)[rows] for name in ROWS})

    def transformed(self, target_from_source: np.ndarray) -> TrainingViews:
        """These in another frame, (4, 4)."""
        move = torch.from_numpy(target_from_source)
        rotation, shift = move[:3, :3], move[:3, 3]
        return replace(
            self,
            directions=(self.directions.double() @ rotation.T).to(self.directions.dtype),
            rotations=rotation @ self.rotations.double(),
            centres=self.centres.double() @ rotation.T + shift,
        )

    def followed_by(self, old: TrainingViews) -> TrainingViews:
        """These and those of a map before, all of which count as whole; patches stay where they are, on disk for
        instance.
        """
        joined = {
            name: torch.cat([getattr(self, name), getattr(old, name)]) for name in ("context", "centres", "rotations")
        }
        joined |= {
            name: Stacked(getattr(self, name), getattr(old, name)) for name in ("patches", "camera_rays", "directions")
        }
        return TrainingViews(
            **joined,
            view_of=torch.cat([self.view_of, old.view_of + len(self)]),
            frame_of=torch.cat([self.frame_of, old.frame_of + self.frames]),
            known_recorded=torch.cat([self.recorded, old.recorded]),
            known_whole=torch.cat([self.whole, torch.ones(len(old), dtype=torch.bool)]),
        )
