"""The pictures and the table of a map's report."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from scipy.stats import chi2

from dimm_ros.data.coverage import SECTORS, ViewCoverage, view_coverage
from dimm_ros.data.occupancy_grid import OccupancyGrid
from dimm_ros.data.recording import Frame
from dimm_ros.evaluation.metrics import FrameResult, errors, normalised_squares
from dimm_ros.evaluation.report import table
from dimm_ros.localizer import Localizer
from dimm_ros.mapping.retrieval import ReferenceViews
from dimm_ros.pictures.plots import literal, pyplot, save_figure
from dimm_ros.pictures.ray_field import draw_ray_field
from dimm_ros.reach import Reach
from dimm_ros.scene_map import Curve, SceneMap

_ARROWS = 80


def mapped_poses(scene_map: SceneMap, reference: ReferenceViews | None) -> np.ndarray | None:
    """(N, 4, 4) world_from_camera of the mapped images: from the retrieval file, else as the map remembers them; None
    if neither knows.
    """
    return scene_map.mapped_poses() if reference is None else reference.world_from_camera


def draw_coverage(path: Path, poses: np.ndarray) -> Path:
    """Views from above with headings, thin ones circled, and how many look into each direction."""
    plt = pyplot()
    seen = view_coverage(poses)
    first, second, _ = seen.axes
    centres, forward = poses[:, :3, 3], poses[:, :3, 2]
    figure = plt.figure(figsize=(11, 6), layout="constrained")
    above = figure.add_subplot(1, 3, (1, 2))
    chosen = np.unique(np.linspace(0, len(poses) - 1, _ARROWS).astype(int))
    reach = 0.07 * max(np.ptp(centres[:, first]), np.ptp(centres[:, second]), 1e-6)
    above.quiver(
        centres[chosen, first],
        centres[chosen, second],
        forward[chosen, first],
        forward[chosen, second],
        angles="xy",
        scale_units="xy",
        scale=1 / reach,
        color="0.6",
        width=0.003,
    )
    colours = above.scatter(centres[:, first], centres[:, second], c=100 * seen.spacing, s=10, cmap="viridis", zorder=3)
    figure.colorbar(colours, ax=above, label="distance to the next views that way [cm]", shrink=0.8)
    if seen.thin.any():
        thin = centres[seen.thin]
        above.plot(
            thin[:, first],
            thin[:, second],
            "o",
            color="tab:red",
            fillstyle="none",
            markersize=10,
            label="thin",
            zorder=4,
        )
        above.legend()
    above.set(
        xlabel=f"{'xyz'[first]} [m]", ylabel=f"{'xyz'[second]} [m]", aspect="equal", title=f"{len(poses)} mapped views"
    )
    above.grid(alpha=0.3)
    _draw_rose(figure.add_subplot(1, 3, 3, projection="polar"), seen.headings(forward), seen)
    if seen.second_down:
        above.invert_yaxis()
    return save_figure(figure, path)


def _draw_rose(rose, counts: np.ndarray, seen: ViewCoverage) -> None:
    """Views by the direction they look into, turned as the map beside it: from above, the first axis to the right."""
    angles = 2 * np.pi * np.arange(SECTORS) / SECTORS
    rose.bar(angles, counts, width=1.8 * np.pi / SECTORS, color="tab:blue", alpha=0.6)
    for angle, count in zip(angles, counts, strict=True):
        rose.text(angle, max(count, 0.12 * counts.max()), str(count), ha="center", va="center", fontsize=11)
    first, second = ("xyz"[axis] for axis in seen.axes[:2])
    sign = "-" if seen.second_down else "+"
    labels = (f"+{first}", f"{sign}{second}", f"-{first}", f"{'+-'[sign == '+']}{second}")
    rose.set_xticks(np.pi / 2 * np.arange(4), labels, fontsize=11)
    rose.set_yticks([])
    rose.set(ylim=(0, 1.15 * max(counts.max(), 1)))
    rose.set_title("views looking into each direction", fontsize=11)


def draw_curves(path: Path, curves: Sequence[Curve]) -> Path:
    """Loss against step, one line a training."""
    plt = pyplot()
    figure, axis = plt.subplots(figsize=(9, 3.5), layout="constrained")
    for curve in curves:
        axis.plot(*np.array(curve.points).reshape(-1, 2).T, label=literal(curve.name))
    axis.set(xlabel="step", ylabel="loss")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    return save_figure(figure, path)


def draw_reach(path: Path, reaches: Mapping[str, Reach]) -> Path:
    """Errors of held-out frames against their distance from the nearest mapped view, one picture for each way to
    localize."""
    plt = pyplot()
    figure, axes = plt.subplots(1, len(reaches), figsize=(5.5 * len(reaches), 4.2), layout="constrained", squeeze=False)
    for axis, (name, reach) in zip(axes[0], reaches.items(), strict=True):
        frames = reach.arrays()
        lost = np.isnan(frames["error"])
        shown = axis.scatter(
            100 * frames["distance"][~lost],
            np.maximum(100 * frames["error"][~lost], 1e-2),
            c=frames["turn"][~lost],
            s=16,
            cmap="viridis",
            vmin=0,
            vmax=max(frames["turn"].max(), 1.0),
        )
        axis.set_yscale("log")
        for distance in 100 * frames["distance"][lost]:
            axis.axvline(distance, color="tab:red", linewidth=0.8, alpha=0.6)
        answered = f"{(~lost).sum()} of {len(lost)} frames answered"
        axis.set(
            xlabel="distance from the nearest mapped view [cm]",
            ylabel="position error [cm]",
            title=f"by {name}: {answered}",
        )
        axis.set_xlim(left=0)
        axis.grid(alpha=0.3, which="both")
        figure.colorbar(shown, ax=axis, label="turn from that view [deg]")
    return save_figure(figure, path)


def draw_on_grid(
    path: Path, grid: OccupancyGrid, scene_map: SceneMap, poses: np.ndarray | None, pairs: np.ndarray | None = None
) -> Path:
    """An aligned map over its occupancy grid: mapped views, and landmarks where they are points.

    Args:
        poses: (N, 4, 4) of the mapped views; None where the map remembers none.
        pairs: (N, 2, 2) points of the map, brought to the grid, and the points on the grid that they belong to.
    """
    from matplotlib.transforms import Affine2D

    figure, axis = pyplot().subplots(figsize=(9, 8), layout="constrained")
    height, width = np.array(grid.image.shape) * grid.resolution
    x, y, yaw = grid.origin
    axis.imshow(
        grid.image,
        cmap="gray",
        vmin=0,
        vmax=255,
        extent=(0, width, 0, height),
        interpolation="nearest",
        transform=Affine2D().rotate(yaw).translate(x, y) + axis.transData,
        zorder=0,
    )
    shown = []
    if scene_map.landmarks is not None and scene_map.landmarks.kind == "points":
        places = scene_map.landmarks.exact_places + scene_map.header.origin
        label = f"{len(places)} landmarks"
        axis.plot(*places[:, :2].T, ".", color="tab:orange", markersize=1.5, alpha=0.4, label=label, zorder=1)
        low, high = np.quantile(places[:, :2], (0.01, 0.99), axis=0)
        shown += [low, high]
    if poses is not None:
        centres, forward = poses[:, :2, 3], poses[:, :2, 2]
        shown.append(centres)
        axis.plot(*centres.T, ".", color="tab:blue", markersize=4, label=f"{len(poses)} mapped views", zorder=2)
        some = np.unique(np.linspace(0, len(poses) - 1, _ARROWS).astype(int))
        axis.quiver(*centres[some].T, *forward[some].T, angles="xy", color="tab:blue", alpha=0.6, width=0.002, zorder=2)
    if pairs is not None:
        shown.append(pairs.reshape(-1, 2))
        axis.plot(*pairs.transpose(2, 1, 0), "-", color="tab:red", zorder=3)
        axis.plot(*pairs[:, 1].T, "x", color="tab:red", label="pairs: on the grid", zorder=3)
        axis.plot(*pairs[:, 0].T, "o", color="tab:red", fillstyle="none", label="pairs: of the map", zorder=3)
    corners = np.array([[0, 0], [width, 0], [0, height], [width, height]])
    cosine, sine = np.cos(yaw), np.sin(yaw)
    shown.append(corners @ np.array([[cosine, sine], [-sine, cosine]]) + (x, y))
    low, high = (getattr(np.vstack(shown), end)(axis=0) for end in ("min", "max"))
    axis.set(
        xlim=(low[0], high[0]),
        ylim=(low[1], high[1]),
        aspect="equal",
        xlabel="x [m]",
        ylabel="y [m]",
        title=f"{literal(scene_map.header.name)} on {literal(grid.name)}",
    )
    axis.legend(loc="upper right", fontsize=8)
    return save_figure(figure, path)


def draw_places(path: Path, answers: Sequence[FrameResult], seen: ViewCoverage) -> Path:
    """The error at each true place, from above."""
    plt = pyplot()
    first, second, _ = seen.axes
    true = np.stack([answer.true[:3, 3] for answer in answers])
    translation, rotation = errors(answers)
    lost = ~np.isfinite(translation)
    figure, both = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    for axis, values, label in (
        (both[0], 100 * translation, "position error [cm]"),
        (both[1], rotation, "rotation error [deg]"),
    ):
        top = float(np.percentile(values[~lost], 95)) if (~lost).any() else 1.0
        shown = axis.scatter(
            true[~lost, first], true[~lost, second], c=values[~lost], s=14, cmap="turbo", vmin=0, vmax=max(top, 1e-9)
        )
        axis.plot(true[lost, first], true[lost, second], "x", color="black", label=f"no answer ({lost.sum()})")
        figure.colorbar(shown, ax=axis, label=label, extend="max")
        axis.set(xlabel=f"{'xyz'[first]} [m]", ylabel=f"{'xyz'[second]} [m]", aspect="equal")
        axis.grid(alpha=0.3)
        if seen.second_down:
            axis.invert_yaxis()
        if lost.any():
            axis.legend()
    return save_figure(figure, path)


def draw_checks(path: Path, answers: Sequence[FrameResult], novelty: np.ndarray, limit: float | None) -> Path:
    """Error against novelty, and covariances against errors."""
    plt = pyplot()
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    translation, _ = errors(answers)
    known = np.isfinite(translation) & np.isfinite(novelty)
    if known.any():
        left.loglog(novelty[known], np.maximum(100 * translation[known], 1e-2), ".", color="tab:blue")
    if limit is not None:
        left.axvline(limit, color="black", linestyle="--", label="largest of this map")
        left.legend()
    left.set(xlabel="novelty", ylabel="position error [cm]")
    left.grid(alpha=0.3, which="both")
    squares = np.sort(normalised_squares(answers))
    if len(squares):
        right.plot(100 * chi2.cdf(squares, 6), 100 * np.arange(1, len(squares) + 1) / len(squares), color="tab:blue")
    right.plot([0, 100], [0, 100], ":", color="black")
    right.set(xlabel="ellipsoid [%]", ylabel="frames inside [%]", xlim=(0, 100), ylim=(0, 100), aspect="equal")
    right.grid(alpha=0.3)
    return save_figure(figure, path)


def draw_frame(path: Path, localizer: Localizer, frame: Frame) -> Path:
    """A frame's rays, predicted beside true; it is localized once more, with every patch's ray."""
    image = frame.load()
    estimate = localizer.sampling_every_patch().localize(image, frame.camera)
    return draw_ray_field(
        path, frame.name, image, frame.camera, estimate, frame.world_from_camera, localizer.map.header.origin
    )


def figures_table(figures: dict) -> str:
    """``evaluation.report.table`` as HTML."""
    cells = table("", figures).columns
    pairs = zip(cells[0].cells, cells[1].cells, strict=True)
    return (
        "<table>"
        + "".join(f"<tr><th>{html.escape(str(label))}<td>{html.escape(str(value))}" for label, value in pairs)
        + "</table>"
    )
