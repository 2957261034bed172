"""The audit's table, pictures and audit.json."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from rich.markup import escape
from rich.table import Table

from dimm_ros.audit.membership import SCORES
from dimm_ros.audit.privacy import Audit, Rebuilt
from dimm_ros.data.coverage import above, second_down
from dimm_ros.pictures.plots import literal, pyplot, save_figure
from dimm_ros.whole_file import write_whole

_SLICE = (0.05, 0.95)  # quantiles of the surface's extent that a picture shows
_ROOM_M = 0.5


def tables(title: str, figures: dict) -> list[Table]:
    """What leaks, and how much structure came back."""
    result = Table(title=escape(title), title_justify="left", show_header=False)
    result.add_column()
    result.add_column(overflow="fold")
    for row in _sentences(figures):
        result.add_row(*map(escape, row))
    return [result, _structure_table(figures)] if figures["structure"] else [result]


def _structure_table(figures: dict) -> Table:
    """Points that each attack got back, and how near the true surface they are, where that is known."""
    unjudged = figures.get("structure_unjudged")
    heads = () if unjudged else ("within 10 cm of the surface", "median distance", "surface covered")
    structure = Table("attack", "points", *heads, title="structure", title_justify="left", caption_justify="left")
    for row in figures["structure"]:
        shown = (_percent(row.get("within_10cm")), _cm(row.get("median_m")), _percent(row.get("covered")))
        structure.add_row(escape(row["attack"]), str(row["points"]), *(() if unjudged else shown))
    if unjudged:
        structure.caption = f"How near the true surface these points are is not known: {unjudged}."
    elif any(not row["points"] for row in figures["structure"]):
        structure.caption = "-: no point came back, so none is near the surface."
    return structure


def _sentences(figures: dict) -> list[tuple[str, str]]:
    path, contexts, rows = figures["path"], figures["contexts"], []
    if path is None:
        rows.append(("camera path", "not in the map, which was made with head.whole_share: 0"))
    else:
        error = (
            f", off by {path['median_error_m'] * 1e6:.0f} um and {path['median_error_deg']:.4f} deg"
            if "median_error_m" in path
            else ""
        )
        rows.append(
            ("camera path", f"poses of {path['images']} images recovered{error}: {path['extent_m']:.1f} m across")
        )
    rows += _landmark_sentences(figures.get("landmarks"))
    if contexts is not None:
        rows.append(
            (
                "global contexts",
                f"cosine with the true ones {contexts['cosine']:.3f} (other images' "
                f"{contexts['cosine_of_others']:.3f}); "
                f"{contexts['matched_to_its_image']:.0%} are matched to their own image among "
                f"{contexts['among_images']}",
            )
        )
    for question, answers in figures["membership"].items():
        shown = ", ".join(f"{value:.2f} by {SCORES[how]}" for how, value in answers.items())
        rows.append((question + " (AUC)", shown))
    tokens = figures.get("rebuilt_tokens")
    if tokens:
        like, unlike = tokens["cosine"], tokens["cosine_of_others"]
        rows.append(
            ("tokens rebuilt from the weights", f"cosine with the true ones {like:.2f} (other images' {unlike:.2f})")
        )
    away = figures["foreign_poses"].get("median_from_path_m")
    if away is not None:
        rows.append(("foreign images, head alone", f"placed {_cm(away)} from the path (median)"))
    if figures.get("scene_coordinate_error_m") is not None:
        rows.append(
            (
                "the yardstick's own error",
                f"{_cm(figures['scene_coordinate_error_m'])} (median point of a scene-coordinate map)",
            )
        )
    return rows


def _landmark_sentences(found: dict | None) -> list[tuple[str, str]]:
    """What landmarks give away: all of it as points, part of it as lines."""
    if found is None:
        return [("landmarks", "none in the map")]
    if found["kind"] == "points":
        return [("landmarks", f"{found['landmarks']} 3-D points with descriptors, in clear")]
    rows = [("landmarks", f"{found['landmarks']} lines with descriptors, in clear")]
    for name, label in (
        ("nearest_lines", "places guessed from the nearest lines"),
        ("two_maps", "places where lines of two maps meet"),
        ("guess", "a guess of the same kind without any attack"),
    ):
        row = found.get(name)
        if row:
            rows.append(
                (
                    label,
                    f"{_cm(row['median_error_m'])} off (median of {row['landmarks']}), {row['within_10cm']:.0%} within "
                    "10 cm",
                )
            )
    return rows


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _cm(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.0f} cm"


def write_report(folder: Path, title: str, audit: Audit, true_path: np.ndarray | None) -> list[Path]:
    """Write audit.json, path.png, structure.png and tokens.png, as far as there is something to show; returns their
    paths.
    """
    file = write_whole(folder / "audit.json", json.dumps(audit.figures, indent=2) + "\n")
    paths = [file]
    if audit.path is not None:
        paths.append(_draw_path(folder / "path.png", title, audit, true_path))
    if audit.clouds:
        paths.append(_draw_clouds(folder / "structure.png", title, audit))
    if audit.rebuilt:
        paths.append(_draw_tokens(folder / "tokens.png", title, audit.rebuilt))
    return paths


def _from_above(points: np.ndarray, path: np.ndarray | None) -> tuple[tuple[int, int, int], bool]:
    """The two axes across and the vertical one (the cameras', else that of least extent); whether the second points
    down.
    """
    if path is not None:
        axes, up_sign = above(path)
        return axes, second_down(axes, up_sign)
    up = int(np.argmin(np.ptp(points, axis=0)))
    first, second = (axis for axis in range(3) if axis != up)
    return (first, second, up), second_down((first, second, up), 1)


def _draw_path(file: Path, title: str, audit: Audit, true_path: np.ndarray | None) -> Path:
    plt = pyplot()
    places = audit.path[:, :3, 3]
    (x, y, _), flipped = _from_above(places, audit.path)
    figure, axis = plt.subplots(figsize=(7, 6), layout="constrained")
    if true_path is not None:
        axis.plot(true_path[:, x, 3], true_path[:, y, 3], "-", color="0.75", linewidth=6, label="true")
    axis.plot(places[:, x], places[:, y], "-", color="tab:red", linewidth=1, label="read out of the map file")
    step = max(1, len(places) // 40)
    ahead = audit.path[::step, :3, 2]
    axis.quiver(places[::step, x], places[::step, y], ahead[:, x], ahead[:, y], color="tab:red", width=0.003, scale=25)
    axis.set(
        xlabel=f"{'xyz'[x]} [m]",
        ylabel=f"{'xyz'[y]} [m]",
        title=f"{literal(title)}: camera path, from above",
        aspect="equal",
    )
    if flipped:
        axis.invert_yaxis()
    axis.legend()
    axis.grid(alpha=0.3)
    return save_figure(figure, file)


def _draw_clouds(file: Path, title: str, audit: Audit) -> Path:
    """Every attack's points from above, beside the true surface; floor and ceiling are left out of it."""
    plt = pyplot()
    # yardsticks first
    clouds = dict(sorted(audit.clouds.items(), key=lambda item: not item[0].startswith(("guess", "scene-coordinate"))))
    reference = np.concatenate([points for points in clouds.values() if len(points)] or [np.zeros((1, 3))])
    if audit.surface is not None:
        reference = audit.surface.points
    (x, y, up), flipped = _from_above(reference, audit.path)
    low, high = np.quantile(reference, _SLICE[0], axis=0), np.quantile(reference, _SLICE[1], axis=0)
    true = (
        None
        if audit.surface is None
        else audit.surface.points[((audit.surface.points > low) & (audit.surface.points < high))[:, up]]
    )
    if audit.path is not None:
        low, high = (
            np.minimum(low, audit.path[:, :3, 3].min(axis=0)),
            np.maximum(high, audit.path[:, :3, 3].max(axis=0)),
        )
    panels = {} if true is None else {"the true surface": true}
    panels |= clouds
    columns = min(4, len(panels))
    rows = -(-len(panels) // columns)
    shape = (high[y] - low[y] + 2 * _ROOM_M) / (high[x] - low[x] + 2 * _ROOM_M)
    size = (4 * columns, (4 * min(max(shape, 0.3), 2.0) + 0.6) * rows + 0.4)
    figure, axes = plt.subplots(
        rows, columns, figsize=size, layout="constrained", squeeze=False, sharex=True, sharey=True
    )
    for axis, (name, points) in zip(axes.flat, panels.items(), strict=False):
        if true is not None:
            axis.plot(true[:, x], true[:, y], ",", color="0.8")
        if name == "the true surface":
            axis.plot(points[:, x], points[:, y], ",", color="k")
        else:
            axis.plot(points[:, x], points[:, y], ".", markersize=2, color="tab:red")
            name = f"{name}\n{len(points)} points"
        if audit.path is not None:
            axis.plot(audit.path[:, x, 3], audit.path[:, y, 3], "-", color="tab:blue", linewidth=0.7)
        axis.set_title(name, fontsize=9)
        axis.set(aspect="equal", xlim=(low[x] - _ROOM_M, high[x] + _ROOM_M), ylim=(low[y] - _ROOM_M, high[y] + _ROOM_M))
    if flipped:
        axes[0, 0].invert_yaxis()  # the others share it
    for axis in axes.flat[len(panels) :]:
        axis.axis("off")
    figure.suptitle(
        f"{literal(title)}: what comes back of the scene, from above (metres; blue: the camera path, itself read out)"
    )
    return save_figure(figure, file)


def _draw_tokens(file: Path, title: str, rebuilt: list[Rebuilt]) -> Path:
    """Mapped images, their tokens and the rebuilt ones, by the colours of the true tokens' three main axes."""
    plt = pyplot()
    true = torch.cat([one.true for one in rebuilt])
    middle = true.mean(dim=0)
    _, _, axes3 = torch.linalg.svd(true - middle, full_matrices=False)
    projected = (true - middle) @ axes3[:3].T
    low, high = projected.quantile(0.02, dim=0), projected.quantile(0.98, dim=0)
    figure, axes = plt.subplots(
        3, len(rebuilt), figsize=(2.4 * len(rebuilt) + 1, 6), layout="constrained", squeeze=False
    )
    for column, one in enumerate(rebuilt):
        if one.image is not None:
            axes[0, column].imshow(one.image)
        for row, tokens in ((1, one.true), (2, one.tokens)):
            colours = (((tokens - middle) @ axes3[:3].T - low) / (high - low)).clamp(0, 1)
            axes[row, column].imshow(colours.reshape(*one.shape, 3).numpy())
    for row, name in enumerate(("a mapped image", "its tokens", "rebuilt from the map")):
        axes[row, 0].set_ylabel(name)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
    figure.suptitle(f"{literal(title)}: patch tokens")
    return save_figure(figure, file)
