"""Several heads as one: each image is left to the head whose map it is most familiar to.

Heads of maps that were made apart know nothing of each other's images, and neither do these exist any more, so nothing
is trained: the heads stay as they are, and their global pose parts say which of them knows an image. Their rays are
    brought to one normalised frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from dimm_ros.head.model import DimmHead, MapHead, Rays


class MergedHead(nn.Module):
    """Answers as a ``MapHead`` does.

    Args:
        heads: each with a global pose part.
        origins, radii: (K, 3) and (K,) normalised frames of the heads, metres.
        origin, radius: normalised frame of the result.
        limits: largest novelty that is still of each head's map; novelties are made comparable by it.
        limit: what the largest novelty is of the result.
    """

    def __init__(
        self,
        heads: Sequence[MapHead],
        origins: Tensor,
        radii: Tensor,
        origin: Tensor,
        radius: float,
        limits: Tensor,
        limit: float,
    ) -> None:
        super().__init__()
        self.parts = nn.ModuleList(heads)
        self.whole = None  # each part has its own
        self.register_buffer("shift", ((origins - origin) / radius).float(), persistent=False)
        self.register_buffer("scale", (radii / radius).float(), persistent=False)
        self.register_buffer("unit", (limit / limits).float(), persistent=False)

    def forward(self, patches: Tensor, context: Tensor, camera_rays: Tensor) -> Rays:
        """Arguments and result as of ``MapHead.forward``."""
        novelty, chosen = self.novelty(context).min(dim=0)
        answers: list[tuple[Tensor, Rays]] = []
        for number in chosen.unique().tolist():
            images = torch.nonzero(chosen == number)[:, 0]
            rows = torch.arange(len(patches), device=patches.device).unflatten(0, (len(context), -1))[images].flatten()
            answers.append(
                (rows, self._moved(number, self.parts[number](patches[rows], context[images], camera_rays[rows])))
            )
        order = torch.cat([rows for rows, _ in answers]).argsort()

        def gathered(field: str) -> Tensor | None:
            parts = [getattr(rays, field) for _, rays in answers]
            return None if any(part is None for part in parts) else torch.cat(parts)[order]

        fields = ("directions", "moments", "direction_scale", "moment_scale")
        return Rays(**{field: gathered(field) for field in fields}, novelty=novelty)

    def alone(self, context: Tensor) -> DimmHead:
        """See ``MapHead.alone``."""
        return self.parts[int(self.novelty(context)[:, 0].argmin())].alone(context)

    def novelty(self, context: Tensor) -> Tensor:
        """(K, V) novelty of (V, C) contexts to each head, in the result's unit."""
        return torch.stack([part.whole(context)[2] for part in self.parts]) * self.unit[:, None]

    def _moved(self, number: int, rays: Rays) -> Rays:
        """A head's rays in the result's normalised frame."""
        scale = self.scale[number]
        moments = scale * rays.moments + torch.linalg.cross(
            self.shift[number].expand_as(rays.directions), rays.directions
        )
        moment_scale = None if rays.moment_scale is None else scale * rays.moment_scale
        return replace(rays, moments=moments, moment_scale=moment_scale, novelty=None)
