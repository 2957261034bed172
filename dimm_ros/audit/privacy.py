"""The audit of a map's privacy: every attack on it, judged against the truth where it is known."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from dimm_ros.audit import scene_coordinates
from dimm_ros.audit.attacker import RecoveredViews, read_out
from dimm_ros.audit.lines import audit_landmarks
from dimm_ros.audit.membership import auc, scores
from dimm_ros.audit.photos import EncodedImage
from dimm_ros.audit.rebuild import TokenPrior, likeness, rebuild
from dimm_ros.audit.structure import Probe, answer, best_fit, same_place
from dimm_ros.audit.surface import Surface
from dimm_ros.geometry.poses import pose_errors
from dimm_ros.landmarks.store import Landmarks
from dimm_ros.progress import ProgressCallback
from dimm_ros.scene_map import SceneMap
from dimm_ros.solver import solve_pose

_LEAST_RAYS = 4  # that meet in a recovered point
_RANGE_M = (0.7, 4.0)  # of the guess: points at a random range along the rays of the path
_MOST_POINTS = 2000  # of each attack, so that what they cover can be compared


@dataclass(frozen=True)
class AttackPlan:
    """How much is tried: more takes longer.

    Attributes:
        stations, around: places of the path that are attacked, and mapped views around each.
        queried, fitted: tokens that are looked for at each, at their own place in the image and at every place.
        rebuilt, steps: mapped views whose tokens are rebuilt, and gradient steps for each.
        point_steps: training steps of the scene-coordinate map.
    """

    stations: int = 6
    around: int = 16
    queried: int = 256
    fitted: int = 40
    rebuilt: int = 6
    steps: int = 100
    point_steps: int = 600


@dataclass(frozen=True)
class Evidence:
    """Images and truths that the attacks use, and by which they are judged.

    Attributes:
        foreign: images of other places.
        mapped: images that the map was made from; may be none, then nothing is judged.
        unseen: images of the place that it was not made from; may be none.
        true_path: (N, 4, 4) world_from_camera of all mapped images; None when not known.
        true_landmarks: points made of the mapped images again, about the map's origin; None when not known.
        second_landmarks: points made of the unseen images, about the map's origin; None when there are none.
    """

    foreign: list[EncodedImage]
    mapped: list[EncodedImage] = field(default_factory=list)
    unseen: list[EncodedImage] = field(default_factory=list)
    true_path: np.ndarray | None = None
    true_landmarks: Landmarks | None = None
    second_landmarks: Landmarks | None = None

    @property
    def of_the_place(self) -> list[EncodedImage]:
        """Images of the place that an attacker might have taken."""
        return self.unseen or self.mapped


@dataclass(frozen=True)
class Rebuilt:
    """A mapped image beside its rebuilt tokens: (P, D) tokens of a (rows, columns) grid."""

    image: np.ndarray | None
    true: Tensor
    tokens: Tensor
    shape: tuple[int, int]


@dataclass
class Audit:
    """Results of the attacks on a map.

    Attributes:
        figures: for people and scripts, plain numbers.
        path: (N, 4, 4) recovered camera path; None when the map holds none.
        clouds: recovered points (N, 3) of each attack.
        surface: the true one, where depth is known.
        rebuilt: mapped images beside what was rebuilt of them.
    """

    figures: dict = field(default_factory=dict)
    path: np.ndarray | None = None
    clouds: dict[str, np.ndarray] = field(default_factory=dict)
    surface: Surface | None = None
    rebuilt: list[Rebuilt] = field(default_factory=list)


def attack(
    scene_map: SceneMap,
    evidence: Evidence,
    plan: AttackPlan | None = None,
    progress: ProgressCallback = lambda stage, done, total: None,
) -> Audit:
    """Try every attack on a map."""
    plan = plan or AttackPlan()
    audit = Audit(surface=Surface.of(evidence.mapped))
    views = read_out(scene_map)
    audit.figures["path"] = _path(scene_map, views, evidence)
    audit.figures["contexts"] = None if views is None else _contexts(views, evidence)
    audit.figures["landmarks"] = audit_landmarks(
        scene_map.landmarks, evidence.true_landmarks, evidence.second_landmarks
    )
    audit.figures["membership"] = _membership(scene_map, evidence)
    audit.figures["foreign_poses"] = _foreign_poses(scene_map, evidence)
    if views is not None:
        audit.path = views.path
        probe = Probe.of(scene_map, views)
        audit.rebuilt, audit.figures["rebuilt_tokens"] = _rebuild(probe, evidence, plan, progress)
        audit.clouds |= _structure(probe, evidence, audit.rebuilt, plan, progress)
    if audit.surface is not None:
        head = scene_coordinates.train(
            evidence.mapped,
            plan.point_steps,
            scene_map.head.context_mean.device,
            lambda done, total: progress("yardstick", done, total),
        )
        audit.figures["scene_coordinate_error_m"] = _point_error(head, evidence)
        for name, photos in (("foreign images", evidence.foreign), ("photographs of the place", evidence.of_the_place)):
            tokens, _ = _tokens(photos, _MOST_POINTS)
            audit.clouds[f"scene-coordinate map, {name}"] = scene_coordinates.ask(head, tokens)
    judged = [{"attack": name, "points": len(points)} for name, points in audit.clouds.items()]
    for row in judged if audit.surface is not None else []:
        row.update(audit.surface.judge(audit.clouds[row["attack"]]))
    audit.figures["structure"] = judged
    audit.figures["structure_unjudged"] = (
        None
        if audit.surface is not None
        else (
            "the recording has no depth images" if evidence.mapped else "no recording was given to judge them by (DATA)"
        )
    )
    return audit


def _path(scene_map: SceneMap, views: RecoveredViews | None, evidence: Evidence) -> dict | None:
    """How many poses came out, and how near the true ones they are."""
    if views is None:
        return None
    result = {
        "images": len(views.path),
        "views": len(views.poses),
        "extent_m": float(np.ptp(views.path[:, :3, 3], axis=0).max()),
    }
    if evidence.true_path is None:
        return result
    nearest = _nearest(views.path, evidence.true_path)
    distance, angle = pose_errors(views.path[nearest], evidence.true_path)
    return result | {
        "median_error_m": float(np.median(distance)),
        "median_error_deg": float(np.median(angle)),
        "largest_error_m": float(distance.max()),
        "in_order": float(np.mean(np.diff(nearest) >= 0)) if len(nearest) > 1 else 1.0,
    }


def _nearest(path: np.ndarray, poses: np.ndarray) -> np.ndarray:
    """For each of (N, 4, 4) poses the number of the most similar one of a path, a radian counting as a metre."""
    away = np.linalg.norm(path[:, :3, 3] - poses[:, None, :3, 3], axis=2) + np.linalg.norm(
        path[:, :3, 2] - poses[:, None, :3, 2], axis=2
    )
    return away.argmin(axis=1)


def _contexts(views: RecoveredViews, evidence: Evidence) -> dict | None:
    """How like the true contexts of mapped images those are that the map stores."""
    photos = [photo for photo in evidence.mapped if photo.pose is not None]
    if len(photos) < 2:
        return None
    stored = views.contexts.cpu()[views.recorded][_nearest(views.path, np.stack([photo.pose for photo in photos]))]
    true = torch.stack([photo.context for photo in photos])
    mean, spread = true.mean(dim=0), true.std(dim=0).clamp_min(1e-6)
    stored, true = (stored - mean) / spread, (true - mean) / spread
    likeness = torch.nn.functional.cosine_similarity(stored[:, None], true[None], dim=2)
    return {
        "cosine": float(likeness.diagonal().median()),
        "cosine_of_others": float(likeness[~torch.eye(len(true), dtype=bool)].median()),
        "variance_kept": float(1 - (stored - true).square().mean() / true.square().mean()),
        "matched_to_its_image": float((likeness.argmax(dim=1) == torch.arange(len(true))).float().mean()),
        "among_images": len(true),
    }


def _membership(scene_map: SceneMap, evidence: Evidence) -> dict:
    """AUC of telling mapped images from other images of the place, and images of the place from others."""
    groups = {
        name: scores(scene_map, photos)
        for name in ("foreign", "mapped", "unseen")
        if (photos := getattr(evidence, name))
    }
    result: dict[str, dict[str, float]] = {}
    for name, members, others in (
        ("this image was mapped", "mapped", "unseen"),
        ("this place was mapped", "place", "foreign"),
    ):
        members = ("unseen" if "unseen" in groups else "mapped") if members == "place" else members
        if members in groups and others in groups:
            result[name] = {how: auc(values, groups[others][how]) for how, values in groups[members].items()}
    return result


def _foreign_poses(scene_map: SceneMap, evidence: Evidence) -> dict:
    """Where the head alone, without what the map stores of single views, places images of other places."""
    header, head = scene_map.header, scene_map.head.alone()
    centres = []
    for photo in evidence.foreign:
        rays = answer(head, photo)
        solution = solve_pose(photo.camera_rays.double().to(rays.directions.device), **rays.in_metres(header.radius))
        if solution.ok:
            centres.append(solution.world_from_camera[:3, 3].cpu().numpy() + header.origin)
    result: dict = {"images": len(evidence.foreign), "answered": len(centres)}
    if evidence.true_path is not None and centres:
        away = np.linalg.norm(np.stack(centres)[:, None] - evidence.true_path[:, :3, 3], axis=2).min(axis=1)
        result["median_from_path_m"] = float(np.median(away))
    return result


def _rebuild(
    probe: Probe, evidence: Evidence, plan: AttackPlan, progress: ProgressCallback
) -> tuple[list[Rebuilt], dict]:
    """Rebuilt tokens of some mapped views, and how like the true ones they are."""
    device = probe.contexts.device
    prior = TokenPrior.of(evidence.foreign, device)
    known = [photo for photo in evidence.mapped if photo.pose is not None]
    if not known:
        return [], {}
    numbers = np.linspace(0, len(known) - 1, min(plan.rebuilt, len(known))).round().astype(int)
    views = _nearest(probe.path, np.stack([known[number].pose for number in numbers]))
    results, own, other = [], [], []
    for done, (number, view) in enumerate(zip(numbers, views, strict=True), start=1):
        photo = known[number]
        tokens = rebuild(probe, prior, int(view), photo.camera_rays.to(device), plan.steps).cpu()
        results.append(Rebuilt(photo.image, photo.patches.float(), tokens, photo.shape))
        progress("rebuilding", done, len(numbers))
        same = [one.patches.float() for one in known if one.shape == photo.shape]
        usual = torch.stack(same).mean(dim=0)
        own.append(likeness(tokens, photo.patches.float(), usual).median())
        other.append(torch.stack([likeness(tokens, one, usual).median() for one in same]).median())
    return results, {
        "cosine": float(torch.stack(own).median()),
        "cosine_of_others": float(torch.stack(other).median()),
        "views": len(results),
    }


def _structure(
    probe: Probe, evidence: Evidence, rebuilt: list[Rebuilt], plan: AttackPlan, progress: ProgressCallback
) -> dict[str, np.ndarray]:
    """Points where the rays of tokens meet, for tokens of several origins and both ways to ask, and a guess beside."""
    device = probe.contexts.device
    places = evidence.foreign[0].camera_rays if not evidence.mapped else evidence.mapped[0].camera_rays
    sources = {"foreign images": _tokens(evidence.foreign, plan.queried)}
    if rebuilt:
        sources["rebuilt tokens"] = _drawn(
            torch.cat([one.tokens for one in rebuilt]),
            torch.cat([photo.camera_rays for photo in evidence.mapped[:1] for _ in rebuilt]),
            plan.queried,
        )
    if evidence.of_the_place:
        sources["photographs of the place"] = _tokens(evidence.of_the_place, plan.queried)
    stations = probe.stations(plan.stations, plan.around)
    clouds: dict[str, np.ndarray] = {}
    jobs, done = 2 * len(sources) * len(stations), 0
    coarse = places[torch.linspace(0, len(places) - 1, max(1, len(places) // 4)).long()].to(device)
    for name, (tokens, rays) in sources.items():
        tokens, rays = tokens.float().to(device), rays.to(device)
        found: dict[str, list[np.ndarray]] = {"same place": [], "best fit": []}
        for views in stations:
            found["same place"].append(same_place(probe, tokens, rays, views).supported(_LEAST_RAYS))
            found["best fit"].append(best_fit(probe, tokens[: plan.fitted], coarse, views).supported(_LEAST_RAYS))
            done += 2
            progress("asking", done, jobs)
        clouds |= {f"{name}, {how}": np.concatenate(points) for how, points in found.items()}
    return clouds | {"guess: random range along the path's rays": _guess(probe, places.double().numpy())}


def _guess(probe: Probe, rays: np.ndarray) -> np.ndarray:
    """Points that need the path alone."""
    rng = np.random.default_rng(0)
    views, places = rng.integers(0, len(probe.path), _MOST_POINTS), rng.integers(0, len(rays), _MOST_POINTS)
    far = np.exp(rng.uniform(*np.log(_RANGE_M), _MOST_POINTS))
    poses = probe.path[views]
    return poses[:, :3, 3] + far[:, None] * np.einsum("nij,nj->ni", poses[:, :3, :3], rays[places])


def _tokens(photos: list[EncodedImage], count: int) -> tuple[Tensor, Tensor]:
    """(T, D) tokens and (T, 3) camera rays, drawn from all images."""
    return _drawn(
        torch.cat([photo.patches for photo in photos]), torch.cat([photo.camera_rays for photo in photos]), count
    )


def _drawn(tokens: Tensor, rays: Tensor, count: int) -> tuple[Tensor, Tensor]:
    chosen = torch.randperm(len(tokens), generator=torch.Generator().manual_seed(0))[:count]
    return tokens[chosen], rays[chosen]


def _point_error(head: scene_coordinates.PointHead, evidence: Evidence) -> float | None:
    """Median error of the yardstick's points on images it was not trained on (on its own, where there are no
    others).
    """
    photos = [photo for photo in evidence.of_the_place if photo.points is not None]
    if not photos:
        return None
    error = np.linalg.norm(
        scene_coordinates.ask(head, torch.cat([photo.patches for photo in photos]))
        - np.concatenate([photo.points for photo in photos]),
        axis=1,
    )
    return float(np.nanmedian(error))
