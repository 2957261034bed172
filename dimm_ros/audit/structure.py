"""Attacks on the head for the scene's structure: rays of one token under the contexts of many mapped views, and where
they meet.

The contexts and poses of the mapped views come from the map itself (``attacker``). A token is looked for in two ways:

    same place    the token stays where it was in its image; its rays are what the head answers for each view's context
    best fit      in each view the token is tried at every place of the image; the ray goes through the place where the
                  head's answer agrees best (by its own likelihood) with the view's pose, which the attacker knows

Neither needs an image of the scene. Tokens come from foreign images, from photographs of the place (then the attacker
holds images), or are rebuilt from the head's weights (``rebuild``).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dimm_ros.audit.attacker import RecoveredViews
from dimm_ros.audit.photos import EncodedImage
from dimm_ros.audit.triangulate import Meetings, meet
from dimm_ros.head.loss import ray_losses
from dimm_ros.head.model import DimmHead, Rays
from dimm_ros.progress import StepCallback
from dimm_ros.scene_map import SceneMap

_AT_ONCE = 2048  # patches in one call of the head
_TURN_M_PER_RAD = 1.0  # a view turned by a radian counts as a metre away
_SPACING = 3  # every third of the nearest views, so that their centres differ


@dataclass(frozen=True)
class Probe:
    """The head as the attacker asks it: alone, in the normalised frame.

    Attributes:
        head: without the global pose part.
        path: (N, 4, 4) world_from_camera of the recorded views, metres.
        contexts: (N, C) of these views.
        origin, radius: of the normalised frame, metres.
    """

    head: DimmHead
    path: np.ndarray
    contexts: Tensor
    origin: np.ndarray
    radius: float

    @classmethod
    def of(cls, scene_map: SceneMap, views: RecoveredViews) -> Probe:
        """A probe of a map whose poses and contexts were read out."""
        header = scene_map.header
        contexts = views.contexts[torch.from_numpy(views.recorded)]
        return cls(scene_map.head.alone(), views.path, contexts, np.array(header.origin), header.radius)

    def pose(self, view: int) -> tuple[Tensor, Tensor]:
        """Rotation (3, 3) and normalised centre (3,) of a view, as the head's numbers."""
        pose = self.path[view]
        device = self.contexts.device
        centre = (pose[:3, 3] - self.origin) / self.radius
        return torch.from_numpy(pose[:3, :3]).float().to(device), torch.from_numpy(centre).float().to(device)

    def true_rays(self, view: int, camera_rays: Tensor) -> tuple[Tensor, Tensor]:
        """Directions and moments of (B, 3) camera rays of a view."""
        rotation, centre = self.pose(view)
        directions = camera_rays @ rotation.T
        return directions, torch.linalg.cross(centre.expand_as(directions), directions)

    def stations(self, count: int, around: int) -> list[np.ndarray]:
        """Groups of (around,) neighbouring views, spread over the path."""
        places, axes = self.path[:, :3, 3], self.path[:, :3, 2]
        groups = []
        for first in np.linspace(0, len(places) - 1, count + 2).round().astype(int)[1:-1]:
            turn = np.arccos(np.clip(axes @ axes[first], -1, 1))
            away = np.linalg.norm(places - places[first], axis=1) + _TURN_M_PER_RAD * turn
            groups.append(np.argsort(away)[: _SPACING * around : _SPACING])
        return groups


@torch.inference_mode()
def same_place(probe: Probe, tokens: Tensor, camera_rays: Tensor, views: np.ndarray) -> Meetings:
    """Meeting points of (T, D) tokens' rays, each at its own (T, 3) camera ray, under the contexts of some views."""
    directions, feet = [], []
    for view in views:
        rays = probe.head(tokens, probe.contexts[view, None], camera_rays)
        direction = rays.directions.double().cpu().numpy()
        moment = rays.moments.double().cpu().numpy() * probe.radius
        centre = probe.path[view, :3, 3] - probe.origin
        # the ray's point nearest to the known centre
        nearest = centre + np.cross(direction, moment - np.cross(centre, direction))
        directions.append(direction)
        feet.append(nearest + probe.origin)
    return meet(np.stack(feet, axis=1), np.stack(directions, axis=1))


@torch.inference_mode()
def best_fit(
    probe: Probe, tokens: Tensor, places: Tensor, views: np.ndarray, progress: StepCallback = lambda done, total: None
) -> Meetings:
    """Meeting points of (T, D) tokens' rays, in each view through that of (G, 3) camera rays where the token fits
    best.
    """
    directions = np.empty((len(tokens), len(views), 3))
    together = max(1, _AT_ONCE // len(places))
    for number, view in enumerate(views):
        world, moments = probe.true_rays(view, places)
        for first in range(0, len(tokens), together):
            some = tokens[first : first + together]
            count = len(some)
            rays = probe.head(
                some.repeat_interleave(len(places), dim=0), probe.contexts[view, None], places.repeat(count, 1)
            )
            misfit = ray_losses(rays, world.repeat(count, 1), moments.repeat(count, 1)).reshape(count, -1)
            directions[first : first + count, number] = world[misfit.argmin(dim=1)].double().cpu().numpy()
        progress(number + 1, len(views))
    return meet(probe.path[views, :3, 3], directions)


def confidence(head: DimmHead, photo: EncodedImage) -> float:
    """How sure the head alone is of an image: minus the mean logarithm of its predicted scales; 0 where it predicts
    none.
    """
    rays = answer(head, photo)
    if rays.direction_scale is None:
        return 0.0
    return -float((rays.direction_scale.log() + rays.moment_scale.log()).mean())


@torch.inference_mode()
def answer(head: DimmHead, photo: EncodedImage) -> Rays:
    """The head's rays of an image."""
    device = head.context_mean.device
    return head(photo.patches.float().to(device), photo.context[None].to(device), photo.camera_rays.to(device))
