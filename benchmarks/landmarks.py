"""What landmarks bring, on real and rendered places: ``python -m benchmarks.landmarks data``.

One map a place, by the default preset; every row asks it the same images: rays alone, landmarks alone (matched against
all, no encoder), rays and points, rays and lines (the same landmarks hidden), tracking (landmarks found about the true
pose plus noise), and following (landmarks followed from image to image as the node does, where images are neighbours in
time). Long and resumable: a place that is there is not measured again.
Writes ``results/landmarks/figures.json`` and prints the tables of docs/benchmarks_landmarks.md.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch loads, as in the command line

import numpy as np  # noqa: E402

from benchmarks.peers.scenes import OTHER_PLACES, SCENES  # noqa: E402
from dimm_ros.cli.console import bars, console  # noqa: E402
from dimm_ros.config import PRESETS, GateConfig, LandmarkConfig  # noqa: E402
from dimm_ros.data.open import open_recording  # noqa: E402
from dimm_ros.data.recording import Frame, Recording  # noqa: E402
from dimm_ros.encoder.dinov2 import Encoder  # noqa: E402
from dimm_ros.estimate import Estimate  # noqa: E402
from dimm_ros.gallery.conditions import film  # noqa: E402
from dimm_ros.gallery.recorder import GALLERY_CAMERA  # noqa: E402
from dimm_ros.gallery.scene import build_room  # noqa: E402
from dimm_ros.gallery.trajectory import MOUNTS, trajectory  # noqa: E402
from dimm_ros.geometry.poses import exp_so3, pose_difference, pose_errors  # noqa: E402
from dimm_ros.landmarks.build import BuiltLandmarks, build_landmarks  # noqa: E402
from dimm_ros.landmarks.keypoints import Detector, detector_of, find_keypoints  # noqa: E402
from dimm_ros.landmarks.locate import locate  # noqa: E402
from dimm_ros.landmarks.store import hide_in_lines  # noqa: E402
from dimm_ros.localizer import Localizer  # noqa: E402
from dimm_ros.mapping.build import build_map  # noqa: E402
from dimm_ros.progress import StepCallback  # noqa: E402
from dimm_ros.scene_map import SceneMap  # noqa: E402
from dimm_ros.tracking.tracker import Tracker  # noqa: E402
from dimm_ros.whole_file import write_whole  # noqa: E402

ROOT = Path("results") / "landmarks"
SPLITS = ("near", "mid", "far")
_STRAY_QUERIES = 20
#: Images whose times are taken.
_TIMED = 35
#: Of the tracked image's prediction, one standard deviation: metres, degrees.
_PREDICTION = (0.02, 0.5)
ROWS = ("rays alone", "landmarks alone", "rays and points", "rays and lines", "tracking", "following")
#: Rows of other seeds than the first.
TRAINED = ("rays alone", "rays and points", "rays and lines")


def scene_of(data: Path, name: str) -> tuple[Recording, dict[str, Recording]]:
    """What is mapped, and what is asked by condition; all of red kitchen's val, the peers' queries elsewhere."""
    if name in SPLITS:
        parts = (open_recording(data / "redkitchen", split=f"{name}:{part}") for part in ("train", "val"))
        return next(parts), {"": next(parts)}
    if name == "stray":  # the tutorial's walk that strays up to 30 cm and 22 degrees from the mapped route
        stamps, world_from_base = trajectory(3, 14.0, 48.0, spread=1.0)
        every = len(stamps) // _STRAY_QUERIES
        query = film(
            build_room(), GALLERY_CAMERA, stamps, world_from_base @ MOUNTS["handheld"], "clean", every=every, seed=3
        )
        return SCENES["gallery"](data, ROOT).mapped, {"": query}
    scene = SCENES[name](data, ROOT)
    return scene.mapped, scene.queries


def map_of(name: str, seed: int) -> Path:
    """Of a place; the stray walk is asked of the gallery's."""
    return ROOT / f"{'gallery' if name == 'stray' else name}_{seed}.dimm"


def opened(name: str, seed: int) -> SceneMap:
    """The map of a place; of another seed than 0 with the first one's landmarks, in which nothing is trained."""
    scene_map = SceneMap.load(map_of(name, seed))
    if seed == 0:
        return scene_map
    first = SceneMap.load(map_of(name, 0))
    header = scene_map.header.model_copy(update={"landmarks": first.header.landmarks})
    return SceneMap(header, scene_map.head, first.landmarks)


def measure_strangers(data: Path, name: str, seed: int) -> dict[str, dict]:
    """How many images of other places a map of red kitchen accepts, by rays and landmarks, and by rays alone."""
    scene_map = opened(name, seed)
    encoder = Encoder.open(scene_map.header.encoder)
    joint, alone = Localizer(scene_map, encoder), Localizer(scene_map.rays_alone(), encoder)
    found = {}
    with bars() as progress:
        for place, every in OTHER_PLACES.items():
            frames = open_recording(data / place).frames[::every]
            accepted = {"rays and points": 0, "rays alone": 0}
            for done, frame in enumerate(frames, start=1):
                observation = joint.observe(frame.load(), frame.camera)
                accepted["rays and points"] += joint.estimate([observation], np.eye(4)[None]).accepted
                accepted["rays alone"] += alone.estimate(
                    [replace(observation, keypoints=None)], np.eye(4)[None]
                ).accepted
                progress(place, done, len(frames))
            found[place] = {"images": len(frames), "accepted": accepted}
    return found


def measure(data: Path, name: str, seed: int, rows: Sequence[str] = ROWS) -> dict[str, dict]:
    """Rows of one place, by condition and row; of another seed than 0, which is first, those of what is trained."""
    preset = PRESETS["cpu"]
    mapped, queries = scene_of(data, name)
    path, encoder = map_of(name, seed), Encoder.open(preset.encoder)
    with bars(stoppable=True) as progress:
        if not path.is_file() or SceneMap.load(path).header.figures.get("steps", 0) < preset.training.steps:
            result = build_map(
                mapped,
                path,
                encoder,
                head=preset.head,
                training=preset.training.changed(seed=seed),
                landmarks=preset.landmarks if seed == 0 else preset.landmarks.changed(kind="none"),
                progress=progress,
            )
            if not result.complete:
                raise KeyboardInterrupt
        scene_map = opened(name, seed)
        found: dict[str, dict] = {}
        for condition, recording in queries.items():
            answered = _asked(
                scene_map,
                encoder,
                recording,
                [row for row in rows if seed == 0 or row in TRAINED],
                lambda done, total, what=condition or name: progress(what, done, total),
            )
            found |= {f"{condition}/{row}": figures for row, figures in answered.items()}
    if seed:
        return found
    figures, header = scene_map.header.figures, scene_map.header.landmarks
    found["map"] = {
        "bytes": path.stat().st_size,
        "images": len(mapped.frames),
        "load": os.getloadavg()[0],
        "date": time.strftime("%Y-%m-%d"),
        **{key: figures.get(f"{key}_seconds") for key in ("landmarks", "features", "training")},
        "landmarks_kept": 0 if header is None else header.count,
    }
    return found


def measure_times(data: Path, name: str, seed: int) -> dict[str, dict]:
    """Medians of a query's stages and of a tracked image's, asked one by one of a map that is there."""
    scene_map = opened(name, seed)
    localizer = Localizer(scene_map, Encoder.open(scene_map.header.encoder, device="cpu"))
    queries = next(iter(scene_of(data, name)[1].values())).frames
    rng, found = np.random.default_rng(0), {"query": [], "tracking": [], "following": []}
    with bars() as progress:
        for done, frame in enumerate(chosen := queries[:: max(1, len(queries) // _TIMED)], start=1):
            image = frame.load()
            full, tracked = localizer.localize(image, frame.camera), _tracked(localizer, frame, image, rng)
            if done > 1:  # the first of each is slow for reasons of its own
                found["query"].append(full.stage_ms)
                found["tracking"].append(tracked.stage_ms)
            progress(name, done, len(chosen))
        run = queries[: 2 * _TIMED]
        walked = followed(localizer, run, [localizer.localize(frame.load(), frame.camera) for frame in run])
        found["following"] = [estimate.stage_ms for estimate, _ in walked if estimate.basis == "landmarks"][1:]
        mean = float(np.mean([each["total"] for each in found["following"]])) if found["following"] else None
    medians = {
        what: {stage: float(np.median([each[stage] for each in stages])) for stage in stages[0]}
        for what, stages in found.items()
        if stages
    }
    ratio = float(np.median([each["total"] / each["encode"] for each in found["query"]]))
    return medians | {
        "query / encoder": {"total": ratio},
        "following, mean": {"total": mean},
        "load": {"begun": os.getloadavg()[0]},
    }


def measure_alone(data: Path, name: str, seed: int) -> dict[str, dict]:
    """Landmarks of one place and nothing else: no encoder, no head, no map file; each image matched against all of
    them.
    """
    config = PRESETS["cpu"].landmarks.changed(seed=seed)
    mapped, queries = scene_of(data, name)
    origin = mapped.poses()[:, :3, 3].mean(axis=0)
    with bars() as progress:
        built = build_landmarks(mapped.frames, origin, config, lambda *told: bool(progress(*told)))
        detector, found = detector_of(config.detector), {}
        for condition, recording in queries.items():
            answers = []
            for done, frame in enumerate(recording.frames, start=1):
                answers.append((_alone(built, detector, config, frame, origin), frame.world_from_camera))
                progress(condition or name, done, len(recording.frames))
            found[f"{condition}/landmarks, no encoder"] = figures_of(answers)
    return found | {
        "map": {
            "images": built.images,
            "landmarks": built.seconds,
            "landmarks_kept": len(built.landmarks),
            "load": os.getloadavg()[0],
            "date": time.strftime("%Y-%m-%d"),
            "calibration": built.calibration.model_dump(),
        }
    }


def _alone(
    built: BuiltLandmarks, detector: Detector, config: LandmarkConfig, frame: Frame, origin: np.ndarray
) -> Estimate:
    begun = time.perf_counter()
    keypoints = find_keypoints(frame.load(), frame.camera, detector, config.longest, config.keypoints)
    found = locate([keypoints], np.eye(4)[None], built.landmarks, None)
    spent = {"total": (time.perf_counter() - begun) * 1e3}
    pose, covariance, inliers, proven = np.eye(4), np.eye(6), 0, found is not None and found.proven
    if proven:
        pose = found.world_from_rig.copy()
        pose[:3, 3] += origin
        covariance = built.calibration.covariance(found.pose, found.unknown, found.apart)
        inliers = int(found.pose.inliers.sum())
    return Estimate(
        world_from_camera=pose,
        covariance=covariance,
        accepted=proven,
        reason="" if proven else "not proven",
        inliers=0,
        rays=0,
        stage_ms=spent,
        basis="landmarks",
        landmarks=inliers,
    )


def _asked(
    scene_map: SceneMap, encoder: Encoder, recording: Recording, rows: Sequence[str], progress: StepCallback
) -> dict[str, dict]:
    points = scene_map.landmarks
    lines = SceneMap(
        scene_map.header.model_copy(
            update={"landmarks": scene_map.header.landmarks.model_copy(update={"kind": "lines"})}
        ),
        scene_map.head,
        hide_in_lines(points, seed=1),
    )
    with_points = Localizer(scene_map, encoder)
    asked = {
        "rays alone": Localizer(scene_map.rays_alone(), encoder),
        # Novelty that nothing passes: the rays' pose is never believed, so the landmarks answer alone.
        "landmarks alone": replace_rules(with_points),
        "rays and points": with_points,
        "rays and lines": Localizer(lines, encoder),
    }
    answers: dict[str, list[tuple[Estimate, np.ndarray]]] = {row: [] for row in rows}
    rng = np.random.default_rng(0)
    for done, frame in enumerate(recording.frames, start=1):
        image, truth = frame.load(), frame.world_from_camera
        observation = with_points.observe(image, frame.camera)
        for row, localizer in asked.items():
            if row in rows:
                seen = replace(observation, keypoints=None) if row == "rays alone" else observation
                answers[row].append((localizer.estimate([seen], np.eye(4)[None]), truth))
        if "tracking" in rows:
            answers["tracking"].append((_tracked(with_points, frame, image, rng), truth))
        progress(done, len(recording.frames))
    if "following" in rows:
        full = [estimate for estimate, _ in answers["rays and points"]]
        answers["following"] = followed(with_points, recording.frames, full)
    return {row: figures_of(each) for row, each in answers.items() if each}


def followed(
    localizer: Localizer, frames: Sequence[Frame], full: Sequence[Estimate]
) -> list[tuple[Estimate, np.ndarray]]:
    """Answers to the frames that can be tracked as the node does without odometry, from poses at constant velocity,
    and true poses; ``full`` answers the others, and joins where tracking rejects.
    """
    tracker, before, answers = Tracker(), None, []
    for frame, localized in zip(frames, full, strict=True):
        predicted = tracker.predict(frame.stamp_ns, None, GateConfig())
        answer = None
        if predicted is not None:
            answer = localizer.track(frame.load(), frame.camera, predicted.map_from_body, predicted.covariance, before)
            answers.append((answer if answer.accepted else localized, frame.world_from_camera))
        before = answer
        if answer is None or not answer.accepted:
            answer = localized
        if answer.accepted:
            tracker.believe(frame.stamp_ns, answer.world_from_camera, answer.covariance, None, full=answer is localized)
    return answers


def replace_rules(localizer: Localizer) -> Localizer:
    """A localizer that believes no rays."""
    return Localizer(
        localizer.map, localizer.encoder, localizer.solver, localizer.acceptance.changed(novelty_scale=1e-6)
    )


def _tracked(localizer: Localizer, frame: Frame, image: np.ndarray, rng: np.random.Generator) -> Estimate:
    metres, radians = _PREDICTION[0], np.radians(_PREDICTION[1])
    predicted = frame.world_from_camera.copy()
    predicted[:3, 3] += metres * rng.normal(size=3)
    predicted[:3, :3] = exp_so3(radians * rng.normal(size=3)) @ predicted[:3, :3]
    return localizer.track(image, frame.camera, predicted, np.diag([metres**2] * 3 + [radians**2] * 3))


def figures_of(answers: list[tuple[Estimate, np.ndarray]]) -> dict[str, float]:
    """Medians (a query that is not answered is infinitely far), shares, NEES, and times."""
    errors, nees = [], []
    for estimate, truth in answers:
        if not estimate.accepted:
            errors.append((np.inf, np.inf))
            continue
        errors.append(pose_errors(estimate.world_from_camera, truth))
        away = pose_difference(estimate.world_from_camera, truth)
        nees.append(away @ np.linalg.solve(estimate.covariance, away))
    metres, degrees = np.array(errors, float).T
    common = set.intersection(*(set(each.stage_ms) for each, _ in answers))
    stages = {name: float(np.median([each.stage_ms[name] for each, _ in answers])) for name in sorted(common)}
    return {
        "queries": len(answers),
        "answered": float(np.isfinite(metres).mean()),
        "median_m": float(np.median(metres)),
        "median_deg": float(np.median(degrees)),
        "p90_m": float(np.quantile(metres, 0.9, method="higher")),
        "5cm_5deg": float(np.mean((metres < 0.05) & (degrees < 5))),
        "10cm_5deg": float(np.mean((metres < 0.10) & (degrees < 5))),
        "25cm_2deg": float(np.mean((metres < 0.25) & (degrees < 2))),
        "nees_6": float(np.mean(nees) / 6) if nees else None,
        "nees_6_median": float(np.median(nees) / 6) if nees else None,
        "within_95": float(np.mean(np.array(nees) < 12.592)) if nees else None,
        "landmarks": float(np.median([each.landmarks for each, _ in answers])),
        "stage_ms": stages,
    }


def table(known: dict[str, dict]) -> list[str]:
    """Markdown rows of all places."""
    rows = [
        "| place | row | median | 5 cm / 5 deg | 10 cm / 5 deg | answered | NEES / 6 (median) | in 95 % ellipsoid | "
        "landmarks |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for place, found in known.items():
        if place.endswith(("strangers", "times")):
            continue
        for key, each in found.items():
            if key == "map":
                continue
            condition, row = key.split("/", 1)
            nees = "" if each["nees_6"] is None else f"{each['nees_6']:.2f} ({each['nees_6_median']:.2f})"
            cover = "" if each["within_95"] is None else f"{100 * each['within_95']:.0f} %"
            median = (
                "-"
                if not np.isfinite(each["median_m"])
                else f"{100 * each['median_m']:.2f} cm / {each['median_deg']:.2f} deg"
            )
            rows.append(
                f"| {place} {condition} | {row} | {median} | {100 * each['5cm_5deg']:.0f} % | "
                f"{100 * each['10cm_5deg']:.0f} % "
                f"| {100 * each['answered']:.0f} % | {nees} | {cover} | {each['landmarks']:.0f} |"
            )
    return rows


def main() -> None:
    """Measure what is missing and print all rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument(
        "--places", nargs="+", default=[*SPLITS, "gallery", "stray", "herzjesu", "office_hololens", "bonsai"]
    )
    parser.add_argument("--alone", action="store_true", help="landmarks and nothing else: minutes for all places")
    parser.add_argument("--strangers", action="store_true", help="images of other places, asked of maps that are there")
    parser.add_argument("--times", action="store_true", help="times of queries and tracking, of maps that are there")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument(
        "--again", nargs="+", choices=ROWS[:-1], help="measure these rows again, of maps that are there"
    )
    given = parser.parse_args()
    if given.again and (given.alone or given.strangers or given.times):
        parser.error("--again is for the rows of maps, without --alone, --strangers and --times")
    if any(given.seeds) and 0 not in given.seeds and not all(map_of(name, 0).is_file() for name in given.places):
        parser.error("seed 0 comes first: its landmarks are those of all seeds")
    ROOT.mkdir(parents=True, exist_ok=True)
    store = ROOT / "figures.json"
    known: dict[str, dict] = json.loads(store.read_text()) if store.is_file() else {}
    for seed in given.seeds:
        for name in given.places:
            what, work = "", measure
            for chosen, suffix, other in (
                (given.alone, " alone", measure_alone),
                (given.strangers, " strangers", measure_strangers),
                (given.times, " times", measure_times),
            ):
                if chosen:
                    what, work = suffix, other
            key = f"{name} {seed}{what}"
            if key not in known or given.again:
                rows = work(given.data, name, seed, given.again) if given.again else work(given.data, name, seed)
                known[key] = {**known.get(key, {}), **rows}
                write_whole(store, json.dumps(known, indent=2) + "\n")
    others = [f"{place}: {found}" for place, found in known.items() if place.endswith(("strangers", "times"))]
    for line in [*table(known), *others]:
        console.print(line, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()
