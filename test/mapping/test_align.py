"""A map in another frame answers as before, and the frame is found from pairs of points or from two trajectories."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from landmarks.scenes import cloud, keypoints_of, landmarks_of, looks
from scipy.spatial.transform import Rotation
from tiny_maps import MadeUpWalk, fitted, localizer_of, tiny_map
from typer.testing import CliRunner

from dimm_ros.cli.main import app
from dimm_ros.data.occupancy_grid import FREE, OCCUPIED, OUTSIDE, UNKNOWN, read_grid
from dimm_ros.data.point_pairs import PointPairs, parse_pairs, read_clicks, read_pairs
from dimm_ros.errors import DataError, InputError, MapError
from dimm_ros.evaluation.map_info import map_info, rows
from dimm_ros.evaluation.report import write_tum
from dimm_ros.geometry.poses import make_pose, pose_errors
from dimm_ros.landmarks.locate import locate
from dimm_ros.landmarks.store import hide_in_lines
from dimm_ros.mapping.align import UPS, align_map, check_in_map, fit_pairs, fit_trajectories, lowered, up_of
from dimm_ros.mapping.merge import merge_maps
from dimm_ros.mapping.rehearse import features_path, keep_features, load_features
from dimm_ros.mapping.retrieval import ReferenceViews
from dimm_ros.mapping.update import check_frame
from dimm_ros.scene_map import Alignment, LandmarkHeader, SceneMap, SourceCoverage, SourceRecording

MOVE = make_pose(Rotation.from_rotvec([0.4, -1.1, 2.0]).as_matrix(), np.array([7.0, -40.0, 1.5]))
WALK = MadeUpWalk(40)


def alignment(move: np.ndarray, source: str = "slam") -> Alignment:
    return Alignment(
        target="map",
        source=source,
        target_from_source=tuple(map(tuple, move.tolist())),
        reference="map.yaml",
        method="4 pairs",
        residual=0.02,
        aligned="2026-01-01",
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> SceneMap:
    return fitted(WALK.views(), tmp_path_factory.mktemp("fit"), 60)


def saved(scene_map: SceneMap, path: Path) -> SceneMap:
    """As the file gives it back."""
    scene_map.save(path)
    return SceneMap.load(path)


@pytest.mark.parametrize("merged", [False, True])
def test_an_aligned_map_answers_as_before_in_the_other_frame(trained: SceneMap, merged: bool, tmp_path: Path) -> None:
    """Poses, covariances and novelty, of the map that was merged as well; through the file, whose weights are mostly
    rounded."""
    old = saved(trained, tmp_path / "old.dimm")
    if merged:
        old = SceneMap.load(merge_maps([tmp_path / "old.dimm", tmp_path / "old.dimm"], tmp_path / "merged.dimm"))
    new = saved(old.aligned(alignment(MOVE)), tmp_path / "new.dimm")
    assert (
        new.header.frame_id == "map"
        and new.header.alignments[0].source == "slam"
        and new.header.radius == old.header.radius
    )
    turn = np.kron(np.eye(2), MOVE[:3, :3])
    for frame in range(0, 40, 5):
        before, after = (
            localizer_of(one).estimate([WALK.observation(one, frame)], np.eye(4)[None]) for one in (old, new)
        )
        np.testing.assert_allclose(after.world_from_camera, MOVE @ before.world_from_camera, atol=2e-5)
        np.testing.assert_allclose(after.covariance, turn @ before.covariance @ turn.T, rtol=1e-2, atol=1e-7)
        assert after.novelty == pytest.approx(before.novelty) and after.inliers == before.inliers
    np.testing.assert_allclose(new.mapped_poses(), MOVE @ old.mapped_poses(), atol=1e-5)


@pytest.mark.parametrize("kind", ["points", "lines"])
def test_landmarks_move_with_the_map(kind: str) -> None:
    rng = np.random.default_rng(0)
    points, descriptors = cloud(rng, 200), looks(rng, 200)
    landmarks = (
        landmarks_of(points, descriptors) if kind == "points" else hide_in_lines(landmarks_of(points, descriptors), 0)
    )
    header = LandmarkHeader(kind=kind, detector="sift", longest=1024, keypoints=500, dim=128, count=200, images=9)
    old = tiny_map(landmarks=header)
    old.landmarks = landmarks
    new = old.aligned(alignment(MOVE))
    # about the map's origin
    pose = make_pose(Rotation.from_rotvec([0.05, 0.1, 0.0]).as_matrix(), np.array([0.1, 0.2, 0.0]))
    world = make_pose(pose[:3, :3], pose[:3, 3] + old.header.origin)
    if kind == "points":
        found = locate([keypoints_of(pose, points, descriptors)], np.eye(4)[None], new.landmarks, None)
        known = make_pose(found.pose.rotation, found.pose.centre + new.header.origin)
        assert found.proven and pose_errors(known, MOVE @ world)[0] < 1e-3
        here, there = (
            one.strangeness(centre, 0.0, np.arange(200))
            for one, centre in ((landmarks, pose[:3, 3]), (new.landmarks, MOVE[:3, :3] @ pose[:3, 3]))
        )
        np.testing.assert_allclose(there, here, atol=0.01)  # directions are stored in half precision
    else:
        directions, moments = np.split(new.landmarks.exact_places, 2, axis=1)
        turned = points @ MOVE[:3, :3].T
        np.testing.assert_allclose(np.cross(turned, directions), moments, atol=1e-5)


def test_coverage_moves_with_the_map() -> None:
    coverage = SourceCoverage(
        low=(0, 0, 0), high=(4, 2, 1), path=9.0, spacing=0.1, up="+z", headings=(9, 1, 2, 3, 4, 5, 6, 7)
    )
    quarter = coverage.transformed(
        make_pose(Rotation.from_euler("z", 90, degrees=True).as_matrix(), np.array([10.0, 0, 0]))
    )
    np.testing.assert_allclose([quarter.low, quarter.high], [[8, 0, 0], [10, 4, 1]], atol=1e-12)
    assert quarter.headings == (6, 7, 9, 1, 2, 3, 4, 5) and quarter.up == "+z" and quarter.path == 9.0
    lying = coverage.transformed(make_pose(Rotation.from_euler("x", -90, degrees=True).as_matrix(), np.zeros(3)))
    assert lying.up == "+y" and lying.headings == coverage.headings
    np.testing.assert_allclose([lying.low, lying.high], [[0, 0, -2], [4, 1, 0]], atol=1e-12)


def grid_pairs(
    up: str, count: int = 5, noise: float = 0.0, scale: float = 1.0, seed: int = 0
) -> tuple[PointPairs, float, np.ndarray]:
    """Points of a map in which an axis is up, on a grid that is turned by so many radians and shifted."""
    rng = np.random.default_rng(seed)
    upright = np.column_stack([rng.uniform(-5, 5, (count, 2)), rng.uniform(0, 2, count)])  # x, y, up of a level frame
    third = "xyz".index(up[1])
    axes = np.roll(np.eye(3), third + 1, axis=1)  # rows: first, second, the up axis
    if up[0] == "-":
        axes[1:] *= -1
    angle, shift = 1.2, np.array([3.0, -8.0])
    turned = upright[:, :2] @ Rotation.from_euler("z", angle).as_matrix()[:2, :2].T * scale + shift
    return PointPairs(upright @ axes, turned + noise * rng.normal(size=turned.shape)), angle, shift


@pytest.mark.parametrize("up", UPS)
def test_pairs_give_the_turn_and_the_shift_whatever_is_up(up: str) -> None:
    pairs, _, _ = grid_pairs(up, noise=0.01)
    found = fit_pairs(pairs, up)
    moved = pairs.source @ found.target_from_source[:3, :3].T + found.target_from_source[:3, 3]
    assert (
        np.linalg.norm(moved[:, :2] - pairs.target, axis=1).max() < 0.04
        and found.rms < 0.03
        and found.scale == pytest.approx(1, abs=0.01)
    )
    assert np.linalg.det(found.target_from_source[:3, :3]) == pytest.approx(1) and not found.mirrored
    np.testing.assert_allclose(found.residuals, np.linalg.norm(moved[:, :2] - pairs.target, axis=1), atol=1e-9)
    axis = np.eye(3)["xyz".index(up[1])] * (1 if up[0] == "+" else -1)
    np.testing.assert_allclose(found.target_from_source[:3, :3] @ axis, [0, 0, 1], atol=1e-9)
    np.testing.assert_allclose(moved[:, 2], pairs.source @ axis, atol=1e-9)
    np.testing.assert_allclose((lowered(found, 0.3).target_from_source - found.target_from_source)[2, 3], -0.3)


def test_pairs_that_cannot_tell_are_refused() -> None:
    pairs, _, _ = grid_pairs("+z")
    one, two = (PointPairs(pairs.source[:count], pairs.target[:count]) for count in (1, 2))
    with pytest.raises(InputError, match="1 pair of points cannot turn a map"):
        fit_pairs(one, "+z")
    with pytest.raises(InputError, match="on one line in the map, which does not tell above from below"):
        fit_pairs(two, "+z")
    assert fit_pairs(two, "+z", sure_of_up=True).rms < 1e-6
    line = np.outer(np.arange(4), [1.0, 2.0, 0.1])
    with pytest.raises(InputError, match="on one line"):
        fit_pairs(PointPairs(line, line[:, :2]), "+z")
    near = PointPairs(pairs.source[:1] + 0.05 * pairs.source, pairs.target[:1] + 0.05 * pairs.target)
    with pytest.raises(InputError, match="lie within 0.2. m of one place in the map"):
        fit_pairs(near, "+z")
    pillar = PointPairs(np.column_stack([np.zeros((3, 2)), np.arange(3)]), pairs.target[:3])  # one above the other
    with pytest.raises(InputError, match="of one place in the map"):
        fit_pairs(pillar, "+z")


def test_pairs_that_contradict_each_other_are_refused_with_the_likeliest_cause() -> None:
    pairs, _, _ = grid_pairs("+z")
    mixed = PointPairs(pairs.source, pairs.target[[1, 0, 2, 3, 4]])
    with pytest.raises(InputError, match=r"pairs contradict each other: pair \d is off by \d.* m, and at most 0.5 m"):
        fit_pairs(mixed, "+z")
    with pytest.raises(InputError, match="fit better mirrored"):
        fit_pairs(pairs, "-z")
    stretched, _, _ = grid_pairs("+z", scale=1.8)
    with pytest.raises(InputError, match="1.80 times as long on the grid"):
        fit_pairs(stretched, "+z")


def drive(
    arm: np.ndarray, count: int = 200
) -> tuple[list[tuple[int, np.ndarray]], list[tuple[int, np.ndarray]], np.ndarray]:
    """A robot on a grid, and its camera (``arm`` from it, optical axes) in a map's frame whose y points down."""
    time = np.linspace(0, 6, count)
    places, headings = np.stack([2 * np.sin(time), 3 * np.cos(0.7 * time)], axis=1), 1.3 * time
    grid_from_map = make_pose(
        Rotation.from_euler("z", -0.7).as_matrix() @ Rotation.from_euler("x", -90, degrees=True).as_matrix(),
        [4.0, 1.0, 0.0],
    )
    optical = np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])
    base_from_camera = make_pose(optical, -optical @ arm)
    in_map, on_grid = [], []
    for index, (place, heading) in enumerate(zip(places, headings, strict=True)):
        base = make_pose(Rotation.from_euler("z", heading).as_matrix(), [*place, 0.0])
        on_grid.append((index * 10**8, base))
        in_map.append((index * 10**8 + 3 * 10**7, np.linalg.inv(grid_from_map) @ base @ base_from_camera))
    return in_map, on_grid, grid_from_map


def test_trajectories_give_the_frame_and_the_place_of_the_camera() -> None:
    """The camera is 40 cm from the base: fitted without that, the map would be off."""
    arm = np.array([0.1, 0.5, -0.4])  # of the base, from the camera
    in_map, on_grid, truth = drive(arm)
    exact = [(stamp - 3 * 10**7, pose) for stamp, pose in in_map]
    found = fit_trajectories(exact, on_grid, "-y")
    assert found.rms < 0.01 and found.method == "200 poses"
    np.testing.assert_allclose(found.target_from_source[:3, :3], truth[:3, :3], atol=5e-3)
    np.testing.assert_allclose(found.target_from_source[:2, 3], truth[:2, 3], atol=0.02)
    late = fit_trajectories(in_map, on_grid, "-y")  # a stamp between two poses: interpolated
    assert late.method == "199 poses" and late.rms < 0.1


def test_trajectories_that_cannot_tell_are_refused() -> None:
    in_map, on_grid, _ = drive(np.array([0.1, 0.5, -0.4]))
    with pytest.raises(InputError, match="0 times in common"):
        fit_trajectories([(stamp + 10**12, pose) for stamp, pose in in_map], on_grid, "-y")
    standing = [(stamp, on_grid[0][1]) for stamp, _ in on_grid]
    with pytest.raises(InputError, match="of one place on the grid"):
        fit_trajectories(in_map, standing, "-y")
    other = [(stamp, on_grid[-1 - index][1]) for index, (stamp, _) in enumerate(on_grid)]
    with pytest.raises(InputError, match="trajectories contradict each other: their distance"):
        fit_trajectories(in_map, other, "-y")


def test_up_is_known_from_the_views(trained: SceneMap) -> None:
    assert up_of(trained) == "-y"  # the walk's cameras look along z, y down
    blind = tiny_map()
    blind.head.whole = None
    with pytest.raises(MapError, match="which way is up in it is not known; say it with --up"):
        up_of(blind)


def write_grid(folder: Path, **changes: object) -> Path:
    """A grid of 3 x 4 cells of half a metre: occupied, free and unknown columns."""
    folder.mkdir(exist_ok=True)
    cells = np.tile(np.array([0, 254, 205, 254], np.uint8), (3, 1))
    cells[0, 1] = 0  # at the largest y
    cv2.imwrite(str(folder / "map.pgm"), cells)
    fields = {
        "image": "map.pgm",
        "resolution": 0.5,
        "origin": [-1.0, 2.0, 0.0],
        "negate": 0,
        "occupied_thresh": 0.65,
        "free_thresh": 0.196,
    }
    fields |= changes
    (folder / "map.yaml").write_text(
        "\n".join(f"{name}: {value}" for name, value in fields.items() if value is not None)
    )
    return folder / "map.yaml"


def test_a_grid_is_read_as_nav2_does(tmp_path: Path) -> None:
    grid = read_grid(write_grid(tmp_path))
    places = np.array([[-0.8, 2.1], [-0.3, 2.1], [-0.3, 3.4], [0.2, 2.1], [-1.1, 2.1], [1.1, 2.1], [-0.8, 3.6]])
    assert grid.states_at(places).tolist() == [OCCUPIED, FREE, OCCUPIED, UNKNOWN, OUTSIDE, OUTSIDE, OUTSIDE]
    turned = read_grid(write_grid(tmp_path, origin=[1.0, 2.0, np.pi / 2]))
    assert turned.states_at(np.array([[0.9, 2.7], [0.9, 2.2], [1.1, 2.7]])).tolist() == [FREE, OCCUPIED, OUTSIDE]
    negated = read_grid(write_grid(tmp_path, negate=1))
    assert negated.states_at(places[:2]).tolist() == [FREE, OCCUPIED]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"resolution": None}, "is not the YAML file of an occupancy grid"),
        ({"resolution": 0}, "needed are metres above 0"),
        ({"origin": "[1, 2]"}, "needed are metres above 0"),
        ({"image": "absent.pgm"}, "cannot be read: No such file"),
        ({"resolution": "[wide]"}, "not a readable occupancy grid file"),
    ],
)
def test_a_bad_grid_is_one_sentence(tmp_path: Path, changes: dict, words: str) -> None:
    with pytest.raises(DataError, match=words):
        read_grid(write_grid(tmp_path, **changes))


def test_pairs_are_read_as_they_are_given(tmp_path: Path) -> None:
    pairs = parse_pairs(["1,2,3=-4.5,5", " 6, 7,8 = 9,1e1"])
    np.testing.assert_allclose(pairs.source, [[1, 2, 3], [6, 7, 8]])
    np.testing.assert_allclose(pairs.target, [[-4.5, 5], [9, 10]])
    path = tmp_path / "pairs.txt"
    path.write_text("# corner of the shelf\n1,2,3=-4.5,5\n\n6,7,8=9,10  # door\n")
    np.testing.assert_allclose(read_pairs(path).target, pairs.target)
    clicks = tmp_path / "clicks.csv"
    clicks.write_text("17,5,map,1,2,3\n18,0,map,-4.5,5,0.0\n19,5,map,6,7,8\n20,0,map,9,10,0.0\n")
    read = read_clicks(clicks)
    np.testing.assert_allclose(read.source, pairs.source)
    np.testing.assert_allclose(read.target, pairs.target)


@pytest.mark.parametrize("text", ["1,2=3,4", "1,2,3", "1,2,3=4,5,6", "1,2,x=4,5", "1,2,nan=4,5"])
def test_a_bad_pair_is_one_sentence(text: str) -> None:
    with pytest.raises(InputError, match="is not of the form x,y,z=X,Y"):
        parse_pairs([text])


def test_bad_files_of_pairs_are_one_sentence(tmp_path: Path) -> None:
    odd = tmp_path / "odd.csv"
    odd.write_text("17,5,map,1,2,3\n")
    with pytest.raises(InputError, match="has 1 clicked points; they come in pairs"):
        read_clicks(odd)
    with pytest.raises(InputError, match="cannot be read"):
        read_pairs(tmp_path / "absent.txt")


def test_what_lies_beside_the_map_moves_with_it(trained: SceneMap, tmp_path: Path) -> None:
    path, views = tmp_path / "old.dimm", WALK.views()
    trained.save(path)
    ReferenceViews(np.ones((40, 5), np.float32), WALK.poses).save(path, trained.header)
    keep_features(features_path(path), trained.header, views)
    before, kept = path.read_bytes(), load_features(features_path(path), trained.header)
    found = fit_pairs(grid_pairs("-y")[0], "-y")
    made = align_map(path, tmp_path / "new.dimm", found, "map", "map.yaml")
    assert path.read_bytes() == before
    move = found.target_from_source
    np.testing.assert_allclose(
        ReferenceViews.load(tmp_path / "new.dimm", made.header).world_from_camera, move @ WALK.poses, atol=1e-9
    )
    moved = load_features(features_path(tmp_path / "new.dimm"), made.header)
    np.testing.assert_allclose(moved.centres.numpy(), kept.centres.numpy() @ move[:3, :3].T + move[:3, 3], atol=1e-9)
    np.testing.assert_allclose(moved.directions.numpy(), kept.directions.numpy() @ move[:3, :3].T, atol=1e-5)
    again = align_map(tmp_path / "new.dimm", tmp_path / "twice.dimm", found, "hall", "hall.yaml")
    assert [one.target for one in again.header.alignments] == ["map", "hall"] and again.header.frame_id == "hall"
    told = [text for label, text in rows(map_info(tmp_path / "twice.dimm")) if label == "aligned"]
    assert len(told) == 2 and told[0].startswith("'map' of map.yaml from 'map', by 5 pairs, 0.0 cm")


def test_what_lay_beside_the_map_in_its_old_frame_is_not_the_aligned_ones(trained: SceneMap, tmp_path: Path) -> None:
    path = tmp_path / "map.dimm"
    ReferenceViews(np.ones((40, 5), np.float32), WALK.poses).save(path, trained.header)
    keep_features(features_path(path), trained.header, WALK.views())
    once = trained.aligned(alignment(MOVE)).header
    twice = trained.aligned(alignment(MOVE)).aligned(alignment(MOVE, "map")).header
    for header in (once, twice):
        assert ReferenceViews.load(path, header) is None and load_features(features_path(path), header) is None
    assert once.mark() != twice.mark() and ReferenceViews.load(path, trained.header) is not None


def test_poses_in_the_frame_before_are_noticed_though_it_has_the_same_name(trained: SceneMap, tmp_path: Path) -> None:
    """A small move, within what the map may err by: a drive like the mapped one joins it in the new frame alone."""
    move = make_pose(Rotation.from_euler("y", 15, degrees=True).as_matrix(), np.array([0.25, 0.0, 0.1]))
    again, recording = MadeUpWalk(40, noise=0.15), SimpleNamespace(name="again", frames=range(40))
    once = trained.aligned(alignment(move, "map"))
    twice = once.aligned(alignment(move, "map"))
    for scene_map, right in ((trained, np.eye(4)), (once, move), (twice, move @ move)):
        check_frame(scene_map, again.views().transformed(right), recording)
    for scene_map, wrong in ((once, np.eye(4)), (twice, np.eye(4)), (twice, move)):
        with pytest.raises(
            DataError, match="'again' is not in the frame of map 'tiny': .* m and (14|15|29|30) degrees"
        ):
            check_frame(scene_map, again.views().transformed(wrong), recording)
    paths = [tmp_path / name for name in ("before.dimm", "once.dimm", "copy.dimm")]
    for scene_map, path in zip((trained, once, once), paths, strict=True):
        scene_map.save(path)
    with pytest.raises(MapError, match="are in different frames, though both are called 'map'"):
        merge_maps(paths[:2], tmp_path / "merged.dimm")
    assert merge_maps(paths[1:], tmp_path / "merged.dimm").exists()


@pytest.mark.parametrize("order", [("native", "moved"), ("moved", "native")])
def test_a_merged_map_keeps_what_each_of_its_parts_was_aligned_by(
    trained: SceneMap, tmp_path: Path, order: tuple[str, str]
) -> None:
    """Whichever comes first; so a third one in the frame before is still noticed, though it has the same name."""
    move = make_pose(Rotation.from_euler("y", 15, degrees=True).as_matrix(), np.array([0.25, 0.0, 0.1]))
    moved = trained.aligned(alignment(move, "map"))
    native = SceneMap(moved.header.model_copy(update={"alignments": ()}), moved.head)  # made in that frame
    for name, scene_map in (("before", trained), ("moved", moved), ("native", native)):
        scene_map.save(tmp_path / f"{name}.dimm")
    path = merge_maps([tmp_path / f"{name}.dimm" for name in order], tmp_path / "merged.dimm")
    header = SceneMap.load(path).header
    assert [len(part.alignments) for part in header.parts] == [name == "moved" for name in order]
    assert header.alignments == () and header.all_alignments == moved.header.alignments
    assert [label for label, _ in rows(map_info(path))].count("aligned") == 1
    with pytest.raises(MapError, match="are in different frames, though both are called 'map'"):
        merge_maps([path, tmp_path / "before.dimm"], tmp_path / "more.dimm")
    twice = saved(SceneMap.load(path).aligned(alignment(MOVE, "map")), tmp_path / "twice.dimm")
    again = SceneMap.load(merge_maps([tmp_path / "twice.dimm", tmp_path / "twice.dimm"], tmp_path / "again.dimm"))
    assert [len(part.alignments) for part in again.header.parts] == 2 * [1 + (name == "moved") for name in order]
    assert set(again.header.all_alignments) == set(twice.header.all_alignments) > set(header.all_alignments)


def test_an_alignment_that_is_no_rigid_transform_is_refused() -> None:
    with pytest.raises(ValueError, match="not a rigid transform"):
        alignment(np.diag([2.0, 2.0, 2.0, 1.0]))


def dimm(*words: object):
    return CliRunner().invoke(app, ["map", "align", *map(str, words)], env={"COLUMNS": "200"})


@pytest.fixture
def place(trained: SceneMap, tmp_path: Path) -> Path:
    """A folder with a map and a grid on which its walk is free."""
    header = trained.header.model_copy(update={"sources": (SourceRecording(name="walk", frames=40),)})
    SceneMap(header, trained.head).save(tmp_path / "old.dimm")
    cv2.imwrite(str(tmp_path / "map.pgm"), np.full((400, 400), 254, np.uint8))
    (tmp_path / "map.yaml").write_text("image: map.pgm\nresolution: 0.05\norigin: [-6.0, -18.0, 0.0]\n")
    return tmp_path


def test_the_command_writes_a_map_and_a_picture(place: Path) -> None:
    pairs, _, _ = grid_pairs("-y")
    words = [
        word
        for source, target in zip(pairs.source, pairs.target, strict=True)
        for word in ("--pair", ",".join(map(str, source)) + "=" + ",".join(map(str, target)))
    ]
    before = (place / "old.dimm").read_bytes()
    made = dimm(
        place / "old.dimm", place / "map.yaml", "-o", place / "new.dimm", *words, "--floor", "-0.5", "--frame", "hall"
    )
    assert made.exit_code == 0, made.stderr
    assert (
        "pair 5: 0.0 cm off" in made.stdout and "100 % of the mapped views are in free cells of map.yaml" in made.stdout
    )
    header = SceneMap.load(place / "new.dimm").header
    assert (
        header.frame_id == "hall"
        and header.alignments[0].reference == "map.yaml"
        and (place / "old.dimm").read_bytes() == before
    )
    assert np.array(header.alignments[0].target_from_source)[2, 3] == pytest.approx(0.5)
    picture = cv2.imread(str(place / "new.dimm.grid.png"))
    assert picture is not None and picture.std() > 10
    again = dimm(place / "old.dimm", place / "map.yaml", "-o", place / "new.dimm", *words)
    assert again.exit_code == 1 and "exists already" in again.stderr


@pytest.mark.parametrize(("up", "heading"), [("+y", True), ("-x", False)])
def test_an_upright_x_axis_has_no_heading(place: Path, up: str, heading: bool) -> None:
    pairs, _, _ = grid_pairs(up)
    rows = zip(pairs.source.tolist(), pairs.target.tolist(), strict=True)
    words = [word for pair in rows for word in ("--pair", "=".join(",".join(map(str, point)) for point in pair))]
    made = dimm(place / "old.dimm", place / "map.yaml", "-o", place / "new.dimm", "--up", up, *words)
    assert made.exit_code == 0 and "grid_from_map by 5 pairs: shift" in made.stdout
    assert ("the map's x axis points" in made.stdout) == heading


def aligned_by_poses(place: Path, name: str, output: str):
    """With the walk in the map's frame, and on the grid."""
    walk = [(index * 10**8, pose) for index, pose in enumerate(WALK.poses)]
    grid_from_map = drive(np.zeros(3))[2]
    write_tum(place / "slam.tum", walk)
    write_tum(place / "amcl.tum", [(stamp, grid_from_map @ pose) for stamp, pose in walk])
    options = ("--up", "-y", "--tolerance", 0.3, "--json")  # it is a short walk, nearly straight
    poses = ("--poses", place / "slam.tum", place / "amcl.tum")
    return dimm(place / name, place / "map.yaml", "-o", place / output, *poses, *options)


def test_the_command_takes_two_trajectories(place: Path) -> None:
    made = aligned_by_poses(place, "old.dimm", "new.dimm")
    assert made.exit_code == 0, made.stderr
    told = json.loads(made.stdout)
    assert (
        told["rms_m"] < 0.1
        and told["up"] == "-y"
        and len(told["residuals_m"]) == 40
        and 0 <= told["views_in_free_cells"] <= 1
    )


def test_a_trajectory_in_the_frame_before_does_not_move_an_aligned_map_again(place: Path) -> None:
    assert aligned_by_poses(place, "old.dimm", "new.dimm").exit_code == 0
    again = aligned_by_poses(place, "new.dimm", "twice.dimm")
    assert again.exit_code == 1 and not (place / "twice.dimm").exists()
    assert "IN_MAP is not in the frame of map 'tiny'" in again.stderr and "or align the map from before" in again.stderr


def test_a_trajectory_is_in_the_maps_frame_where_its_views_are(trained: SceneMap) -> None:
    walk = [(index, pose) for index, pose in enumerate(WALK.poses)]
    check_in_map(trained, walk)
    turned = make_pose(Rotation.from_euler("y", 40, degrees=True).as_matrix(), np.zeros(3))
    for elsewhere in ([(stamp, turned @ pose) for stamp, pose in walk], drive(np.zeros(3))[0]):
        with pytest.raises(InputError, match="degrees .medians. from the nearest mapped views; give the trajectory"):
            check_in_map(trained, elsewhere)


def test_wrong_usage_of_the_command(place: Path) -> None:
    start = (place / "old.dimm", place / "map.yaml", "-o", place / "new.dimm")
    for words in ((), ("--up", "z", "--pair", "1,2,3=4,5"), ("--pair", "1,2,3=4,5", "--pairs", place / "map.yaml")):
        assert dimm(*start, *words).exit_code == 2
    refused = dimm(*start, "--pair", "1,2,3=4,5")
    assert refused.exit_code == 1 and "1 pair of points cannot turn a map" in refused.stderr
    assert not (place / "new.dimm").exists()
