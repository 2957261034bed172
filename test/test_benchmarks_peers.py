"""The peers of the benchmark work, its document says what was measured, and its regression check judges rightly."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from benchmarks.check import regressions
from benchmarks.peers import document, scene_coordinates
from benchmarks.peers.measure import PEERS, missing, row
from benchmarks.peers.published import ROWS
from benchmarks.peers.retrieval import mean_of_nearest
from benchmarks.peers.scenes import BenchmarkScene, spread
from dimm_ros.config import TrainingConfig
from dimm_ros.data.open import open_recording
from dimm_ros.geometry.poses import make_pose, pose_errors
from dimm_ros.mapping.retrieval import ReferenceViews
from dimm_ros.mapping.trainer import Normalisation
from dimm_ros.mapping.training_views import TrainingViews

ROOT = Path(__file__).resolve().parents[1]


def _needs(peer: str) -> None:
    if missing(peer):
        pytest.skip(f"{', '.join(missing(peer))} not installed: make bench-peers installs it")


@pytest.fixture(scope="module")
def scene(walk: Path) -> BenchmarkScene:
    """Twelve images of a walk mapped, three between them asked."""
    recording = open_recording(walk)
    mapped, asked = (type(recording)(recording.name, recording.source, recording.frames[first::2]) for first in (0, 1))
    return BenchmarkScene("walk", "a walk", spread(mapped, 12), {"": spread(asked, 3)})


@pytest.fixture(scope="module")
def rows(scene: BenchmarkScene, encoder, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict]:
    """Rows of all peers that are installed, with trainings of a few steps."""
    folder = tmp_path_factory.mktemp("peers")
    # lightglue takes seconds for an image
    peers = [peer for peer in PEERS if peer != "lightglue" and not missing(peer)]
    return {f"walk/{peer}": row(scene, peer, encoder, folder, lambda *_: False, steps=10) for peer in peers}


@pytest.mark.long
def test_every_row_holds_the_figures_of_the_table(rows: dict[str, dict]) -> None:
    for key, figures in rows.items():
        (asked,) = figures["conditions"].values()
        assert asked["frames"] == 3 and len(asked["errors_m"]) == 3
        assert (
            figures["map_bytes"] > 0
            and figures["mapping_peak_mb"] > 50
            and sum(figures["mapping_seconds"].values()) > 0
        )
        assert (
            asked["latency_ms"] > asked["stage_ms"]["encode"] > 0
            and asked["ratio"] > 1 == asked["stage_ratio"]["encode"]
        )
        assert set(asked["stage_ms"]) == set(asked["stage_ratio"]) and asked["ratio"] >= max(
            asked["stage_ratio"].values()
        ), key
        json.dumps(figures)


@pytest.mark.long
def test_retrieval_answers_with_a_mapped_pose(rows: dict[str, dict]) -> None:
    figures = rows["walk/retrieval"]["conditions"][""]
    assert figures["failure_rate"] == 0 and figures["median_translation_m"] < 0.5
    assert rows["walk/retrieval_mean"]["conditions"][""]["errors_m"] != figures["errors_m"]


@pytest.mark.long
def test_sift_finds_the_pose(rows: dict[str, dict]) -> None:
    _needs("sift")
    figures = rows["walk/sift"]["conditions"][""]
    assert figures["answered"] >= 2 and figures["median_translation_m"] < 0.05 and figures["median_rotation_deg"] < 1
    assert {"extract", "match", "triangulate", "features"} == set(rows["walk/sift"]["mapping_seconds"])


@pytest.mark.long
def test_the_document_tells_what_was_measured(
    rows: dict[str, dict], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(document, "SCENES", ["walk", "elsewhere"])
    monkeypatch.setattr(document.pictures, "SCENES", ["walk", "elsewhere"])
    text = document.write(rows, tmp_path / "peers.md").read_text()
    here, there = text.split("## walk")[1].split("## elsewhere")
    retrieved = rows["walk/retrieval"]["conditions"][""]
    assert f"{100 * retrieved['median_translation_m']:.1f} cm / {retrieved['median_rotation_deg']:.2f} deg" in here
    assert there.split("## ")[0].split() == ["All", "peers:", "not", "measured."]
    (unmeasured,) = (line for line in here.splitlines() if line.startswith("Not measured: "))
    assert "LightGlue" in unmeasured and "most similar CLS" not in unmeasured
    assert all(each.method in text for each in ROWS) and "not this machine" in text
    assert {path.name for path in (tmp_path / "images").iterdir()} == {"peers_accuracy.png", "peers_errors.png"}


def test_mean_of_nearest_weighs_by_similarity() -> None:
    cls = np.array([[1.0, 0.0], [0.8, 0.6], [0.6, 0.8], [-1.0, 0.0]])
    poses = np.stack(
        [
            make_pose(Rotation.from_euler("z", angle, degrees=True).as_matrix(), [angle, 0, 0])
            for angle in (0.0, 10.0, 20.0, 90.0)
        ]
    )
    pose = mean_of_nearest(ReferenceViews(cls, poses), np.array([2.0, 0.0]), 3)
    assert pose[0, 3] == pytest.approx((0.8 * 10 + 0.6 * 20) / 2.4)
    assert 7 < pose_errors(pose, poses[0])[1] < 10


def test_pnp_finds_the_pose_among_outliers() -> None:
    _needs("scene_coordinates")
    from benchmarks.peers.pnp import pose_from_points

    rng = np.random.default_rng(0)
    pose = make_pose(Rotation.from_euler("xyz", [0.2, -0.4, 0.1]).as_matrix(), [0.5, -1.0, 2.0])
    local = rng.uniform([-1, -1, 2], [1, 1, 5], (300, 3))
    points = local @ pose[:3, :3].T + pose[:3, 3]
    points[:90] = rng.uniform(-3, 3, (90, 3))
    rays = local / np.linalg.norm(local, axis=1, keepdims=True)
    found = pose_from_points(rays, points, 400.0, 5.0)
    distance, angle = pose_errors(found, pose)
    assert distance < 1e-3 and angle < 0.05
    assert pose_from_points(rays[:90], points[:90], 400.0, 1.0) is None


def test_scene_coordinates_learn_points_from_reprojection_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    views, patches = 40, 60
    points = torch.rand((views, patches, 3), generator=generator) * torch.tensor([4.0, 3.0, 1.0]) + torch.tensor(
        [-2.0, -1.5, 3.0]
    )
    # what a patch shows is known by its token
    tokens = (points - points.mean(dim=(0, 1))) @ torch.randn((3, 32), generator=generator)
    centres = torch.rand((views, 3), generator=generator, dtype=torch.float64) * 3 - 1.5
    local = points - centres[:, None].float()
    rays = torch.nn.functional.normalize(local, dim=2).reshape(-1, 3)
    data = TrainingViews(
        patches=tokens.reshape(-1, 32).half(),
        camera_rays=rays,
        directions=rays,
        context=torch.zeros((views, 4)).half(),
        view_of=torch.arange(views, dtype=torch.int32).repeat_interleave(patches),
        centres=centres,
        rotations=torch.eye(3, dtype=torch.float64).repeat(views, 1, 1),
        frame_of=torch.arange(views, dtype=torch.int32),
    )
    normalisation = Normalisation.of(centres)
    training = TrainingConfig(steps=100, batch=256, learning_rate=5e-3)
    head = scene_coordinates.train(data, normalisation, 350.0, training, lambda *_: None, width=64)
    with torch.inference_mode():
        found = (
            head(data.patches.float(), data.context.float(), rays) * normalisation.radius + normalisation.origin.float()
        )
    assert (found - points.reshape(-1, 3)).norm(dim=1).median() < 0.3  # they are 3 to 4 m away, 5 m across


def test_the_check_names_what_became_worse() -> None:
    committed = {"localize/encoder": 1.1, "head/encoder": 0.05, "error/retrieval": 0.6}
    assert regressions(committed, committed) == []
    assert regressions({name: 1.19 * value for name, value in committed.items()}, committed) == []
    (sentence,) = regressions(committed | {"head/encoder": 0.07}, committed)
    assert (
        sentence.startswith("head/encoder") and "0.070" in sentence and "0.050" in sentence and "40 % worse" in sentence
    )
    assert regressions(committed | {"error/retrieval": 0.1}, committed) == []  # better is no regression
    assert len(regressions(committed | {"error/retrieval": float("nan")}, committed)) == 1


def test_the_check_notices_ratios_that_came_or_went() -> None:
    (gone,) = regressions({}, {"head/encoder": 0.05})
    (new,) = regressions({"head/encoder": 0.05}, {})
    assert "was not measured" in gone and "is not committed" in new


def test_the_committed_ratios_are_those_that_are_measured() -> None:
    from benchmarks.check import COMMITTED, MEANING

    committed = json.loads(COMMITTED.read_text())
    assert set(committed["ratios"]) == set(MEANING) and all(value > 0 for value in committed["ratios"].values())
    assert committed["machine"]["processor"]


@pytest.mark.long
def test_a_quick_run_stores_its_row_and_is_not_repeated(shared_data: Path, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "benchmarks.peers",
        str(shared_data),
        "--quick",
        "--no-cost",
        "--scenes",
        "herzjesu",
        "--peers",
        "retrieval",
    ]
    command += ["--results", str(tmp_path)]
    first = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert first.returncode == 0 and "herzjesu/retrieval:" in first.stdout, first.stderr
    stored = (tmp_path / "quick.json").read_text()
    assert json.loads(stored)["herzjesu/retrieval"]["conditions"][""]["frames"] == 3
    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert again.returncode == 0 and "herzjesu/retrieval:" not in again.stdout
    assert (tmp_path / "quick.json").read_text() == stored
