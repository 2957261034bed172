"""Training of the head on the feature buffer: shuffled patches, one-cycle AdamW, resumable."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from dimm_ros.config import TrainingConfig
from dimm_ros.head.loss import ray_loss
from dimm_ros.head.model import MapHead, Rays
from dimm_ros.mapping.distributed import ALONE, Workers
from dimm_ros.mapping.training_views import TrainingViews

#: Patches of one image in a batch: few enough to keep the batch mixed, while the image's context is multiplied only
#: once.
PATCHES_PER_VIEW = 8


@dataclass(frozen=True)
class Normalisation:
    """The map's normalised frame: p_normalised = (p_world - origin) / radius."""

    origin: Tensor
    radius: float

    @classmethod
    def of(cls, centres: Tensor) -> Normalisation:
        """Origin at the mean camera centre (V, 3); radius = root mean square distance from it, at least 0.1 m."""
        centres = centres.double()
        origin = centres.mean(dim=0)
        radius = float((centres - origin).square().sum(dim=1).mean().sqrt())
        return cls(origin, max(radius, 0.1))


def learning_rate(step: int, config: TrainingConfig) -> float:
    """One-cycle: a warm-up over the first tenth, then a cosine to zero."""
    warm = max(1, config.steps // 10)
    if step < warm:
        return config.learning_rate * (step + 1) / warm
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, config.steps - warm)))


class Trainer:
    """Owns the head and the optimiser; ``step()`` runs one batch.

    Args:
        head: the network to train, on its device.
        views: to learn from.
        normalisation: of the same centres.
        config: see TrainingConfig.
        chosen: (K,) numbers of the views to train on; None for all.
        patches_per_view: drawn together; their images are drawn at random.
        standardise: by the views' own context; False goes on with the head's statistics, which its weights rest on.
        workers: processes that train together, each on its share of the views and of every batch.
    """

    def __init__(
        self,
        head: MapHead,
        views: TrainingViews,
        normalisation: Normalisation,
        config: TrainingConfig,
        chosen: Tensor | None = None,
        patches_per_view: int = PATCHES_PER_VIEW,
        standardise: bool = True,
        workers: Workers = ALONE,
    ) -> None:
        self._workers = workers
        self.head, self.config, self._together = head, config, patches_per_view
        self.device = next(head.parameters()).device
        self.views = views
        self.centres = ((views.centres - normalisation.origin) / normalisation.radius).float()
        if standardise:
            context = views.context.float()
            head.context_mean.copy_(context.mean(dim=0))
            head.context_std.copy_(context.std(dim=0).clamp_min(1e-3))
        self.optimiser = torch.optim.AdamW(head.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
        enough = workers.share(torch.nonzero(views.sizes >= patches_per_view)[:, 0])
        self._drawn = enough if chosen is None else enough[torch.isin(enough, chosen)]
        self._real = self._drawn[views.recorded[self._drawn]]
        self._network = head if workers.size == 1 else workers.synchronised(head, unused=head.config.fusion == "mean")
        self.done = 0

    def step(self) -> float:
        """One optimiser step on a batch drawn from all images, a few patches of each; returns the loss."""
        config = self.config
        # Seeded by the step, so that a resumed training draws what an uninterrupted one would have drawn.
        generator = torch.Generator().manual_seed(
            (config.seed * 1_000_003 + self.done) * self._workers.size + self._workers.rank
        )
        count = max(1, config.batch // self._together // self._workers.size)
        views = self._drawn[torch.randint(len(self._drawn), (count,), generator=generator)]
        if config.recorded_share and len(self._real):
            real = self._real[torch.randint(len(self._real), (count,), generator=generator)]
            views = torch.where(torch.rand(count, generator=generator) < config.recorded_share, real, views)
        place = torch.rand((len(views), self._together), generator=generator)
        rows = (self.views.first[views, None] + (place * self.views.sizes[views, None]).long()).reshape(-1)
        patches = self.views.patches[rows].to(self.device).float()
        context = self.views.context[views].to(self.device).float()
        directions = self.views.directions[rows].to(self.device)
        moments = torch.linalg.cross(
            self.centres[views].to(self.device).repeat_interleave(self._together, dim=0), directions
        )
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(self.done, config)
        self.head.train()
        camera_rays = self.views.camera_rays[rows].to(self.device)
        loss = self._loss(self._network(patches, context, camera_rays), camera_rays, directions, moments, views)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.head.parameters(), 1.0)
        self.optimiser.step()
        self.done += 1
        return self._workers.mean(float(loss.detach()))

    def _loss(self, predicted: Rays, camera_rays: Tensor, directions: Tensor, moments: Tensor, views: Tensor) -> Tensor:
        """Of a batch's patches, consecutive ones of each of (V,) views; heads that predict something else (benchmarks)
        override it.
        """
        return ray_loss(predicted, directions, moments)

    def trained_head(self) -> MapHead:
        """A copy of the head as it is by now."""
        return copy.deepcopy(self.head).eval().requires_grad_(False)

    def state(self) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Tensors and text that ``restore`` needs, for a safetensors file."""
        tensors = {f"head.{name}": value for name, value in self.head.state_dict().items()}
        for index, state in self.optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{index}.{key}": value for key, value in state.items()}
        return {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}, {
            "done": str(self.done)
        }

    def restore(self, tensors: dict[str, Tensor], text: dict[str, str]) -> None:
        """Go on from ``state``."""

        def part(prefix: str) -> dict[str, Tensor]:
            return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}

        self.head.load_state_dict(part("head."))
        states: dict[int, dict[str, Tensor]] = {}
        for name, value in part("optimiser.").items():
            index, key = name.split(".", 1)
            states.setdefault(int(index), {})[key] = value
        groups = self.optimiser.state_dict()["param_groups"]
        self.optimiser.load_state_dict({"state": states, "param_groups": groups})
        self.done = int(text["done"])
