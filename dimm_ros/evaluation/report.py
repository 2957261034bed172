"""Report of a run: a table, TUM trajectories, pictures, metrics.json, in a dated folder."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from itertools import count
from pathlib import Path

import numpy as np
from rich.markup import escape
from rich.table import Table

from dimm_ros.data.coverage import above, second_down
from dimm_ros.errors import DataError
from dimm_ros.evaluation.metrics import FrameResult, errors
from dimm_ros.geometry.covariance import position_sigma
from dimm_ros.geometry.poses import to_quaternion
from dimm_ros.pictures.plots import literal, pyplot, save_figure
from dimm_ros.whole_file import write_whole


def results_folder(name: str, root: str | Path = "results") -> Path:
    """Make results/<time>_<name>, a new folder.

    Raises:
        DataError: the folder cannot be made.
    """
    first = folder = Path(root) / f"{datetime.now():%Y%m%d-%H%M%S}_{name}"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        for number in count(2):
            with suppress(FileExistsError):
                folder.mkdir()
                return folder
            folder = first.with_name(f"{first.name}_{number}")  # another run of the same second
    except OSError as error:
        raise DataError(
            f"The results folder {folder} cannot be made ({error.strerror}); choose another with --results."
        ) from error


@contextmanager
def new_results(name: str, root: str | Path = "results") -> Iterator[Path]:
    """The same for a block: its end makes the folder results/latest, an error in it (Ctrl-C is one) takes the folder
    away again.

    Raises:
        DataError: the folder cannot be made.
    """
    root = Path(root)
    missing = [place for place in (root, *root.parents) if not place.exists()]
    folder = None
    try:
        folder = results_folder(name, root)
        yield folder
    except BaseException:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):
            for place in missing:  # from the inside out, and only what is empty
                place.rmdir()
        raise
    point_latest(folder)  # here alone: results that are taken away again must not be the latest


def point_latest(folder: Path) -> None:
    """Let results/latest be this folder; a real folder of that name is left alone."""
    latest = folder.parent / "latest"
    if latest.exists() and not latest.is_symlink():
        return
    link = folder.parent / f".latest{os.getpid()}"
    link.unlink(missing_ok=True)
    link.symlink_to(folder.name)
    os.replace(link, latest)


def table(title: str, figures: dict) -> Table:
    """The figures of a run as a table, with retrieval beside where it is known."""

    def cm(value: float | None) -> str:
        return "-" if value is None else f"{100 * value:.1f} cm"

    def degrees(value: float | None) -> str:
        return "-" if value is None else f"{value:.2f} deg"

    def share(value: float | None) -> str:
        return "-" if value is None else f"{100 * value:.1f} %"

    def ms(value: float | None) -> str:
        return "-" if value is None else f"{value:.0f} ms"

    rows = [
        ("frames answered / rejected", f"{figures['answered']} / {figures['rejected']} of {figures['frames']}"),
        *_rejections(figures.get("rejections", ())),
        *_memory(figures),
        ("median error", f"{cm(figures['median_translation_m'])}, {degrees(figures['median_rotation_deg'])}"),
        ("90th percentile", f"{cm(figures['p90_translation_m'])}, {degrees(figures['p90_rotation_deg'])}"),
        ("within 5 cm / 5 deg", share(figures["recall_5cm_5deg"])),
        ("within 10 cm / 5 deg", share(figures["recall_10cm_5deg"])),
        ("within 25 cm / 2 deg", share(figures["recall_25cm_2deg"])),
        ("latency (median)", ms(figures["latency_ms_median"])),
        ("  of which encoder", ms(figures["encoder_ms_median"])),
    ]
    if alone := figures.get("rays_alone"):
        value = f"{cm(alone['median_translation_m'])}, {degrees(alone['median_rotation_deg'])}"
        rows.append((f"rays alone, median error ({alone['answered']} answered)", value))
    if figures.get("retrieval_median_translation_m") is not None:
        value = f"{cm(figures['retrieval_median_translation_m'])}, {degrees(figures['retrieval_median_rotation_deg'])}"
        rows.append(("retrieval, median error (pose of the most similar image)", value))
        value = f"{cm(figures['nearest_mapped_median_m'])}, {degrees(figures['nearest_mapped_median_deg'])} away"
        rows.append(("nearest mapped image, median", value))
    if figures.get("nees_mean") is not None:
        rows.append(
            (
                "covariance: NEES (6 = exact), in 95 % ellipsoid",
                f"{figures['nees_mean']:.1f}, {share(figures['nees_within_95'])}",
            )
        )
    result = Table(title=escape(title), show_header=False, title_justify="left")
    for row in rows:
        result.add_row(*row)
    return result


def _rejections(rejections: Sequence[dict]) -> list[tuple[str, str]]:
    """How many frames were rejected for which reason, and what to do about the most frequent."""
    rows = [(f"  {row['reason']}", str(row["frames"])) for row in rejections]
    return [*rows, ("  what to do about most of them", rejections[0]["cure"])] if rows else []


def _memory(figures: dict) -> list[tuple[str, str]]:
    """A row that warns where queries are images that the map was made from."""
    mapped = figures.get("frames_mapped")
    if not mapped or mapped < 0.5 * figures["frames"]:
        return []
    found = f"{mapped} of {figures['frames']} images were mapped"
    return [("NOT A TEST", f"{found}: this is the map's memory; judge it on another recording")]


def write_report(
    folder: Path, title: str, answers: Sequence[FrameResult], figures: dict, mapped: np.ndarray | None = None
) -> list[Path]:
    """Write metrics.json, estimated.tum, true.tum, trajectory.png and errors.png.

    Args:
        folder: of the results.
        title: above the pictures.
        answers, figures: of the run.
        mapped: (N, 4, 4) world_from_camera of the map's own images, to be drawn; None where they are not known.

    Returns:
        Paths of the files.
    """
    answered = [(one.stamp_ns, one.estimated) for one in answers if one.estimated is not None]
    paths = [
        write_whole(folder / "metrics.json", json.dumps(figures, indent=2) + "\n"),
        write_tum(folder / "true.tum", [(answer.stamp_ns, answer.true) for answer in answers]),
        write_tum(folder / "estimated.tum", answered),
    ]
    if answers:
        paths.append(_draw_trajectory(folder / "trajectory.png", title, answers, mapped))
        paths.append(_draw_errors(folder / "errors.png", title, answers))
    return paths


def write_tum(path: Path, poses: Sequence[tuple[int, np.ndarray]]) -> Path:
    """Write stamps (nanoseconds) and (4, 4) poses as TUM RGB-D does: t x y z qx qy qz qw, seconds and metres."""
    lines = []
    for stamp_ns, pose in poses:
        translation, xyzw = to_quaternion(pose)
        seconds, nanoseconds = divmod(stamp_ns, 1_000_000_000)
        lines.append(f"{seconds}.{nanoseconds:09d} " + " ".join(f"{value:.9f}" for value in (*translation, *xyzw)))
    return write_whole(path, "\n".join(lines) + "\n")


def _draw_trajectory(path: Path, title: str, answers: Sequence[FrameResult], mapped: np.ndarray | None) -> Path:
    """Estimated beside true camera centres from above, coloured by the error that each answer states; below, both
    errors.
    """
    plt = pyplot()
    true = np.stack([answer.true[:3, 3] for answer in answers])
    estimated = np.stack(
        [answer.estimated[:3, 3] if answer.estimated is not None else np.full(3, np.nan) for answer in answers]
    )
    axes, up_sign = above(np.stack([answer.true for answer in answers]))
    first, second, _ = axes
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(8, 9), height_ratios=[3, 1], layout="constrained")
    if mapped is not None:
        places = mapped[:, first, 3], mapped[:, second, 3]
        top.plot(*places, ".", color="0.85", markersize=7, label="mapped views", zorder=0)
    top.plot(true[:, first], true[:, second], "-", color="0.35", linewidth=2, label="true")
    for one, other in zip(true, estimated, strict=True):
        top.plot(
            [one[first], other[first]], [one[second], other[second]], "-", color="tab:orange", linewidth=0.6, alpha=0.7
        )
    sigma = 100 * np.array([_sigma(answer) for answer in answers])
    known = np.isfinite(sigma)
    if known.any():
        dots = top.scatter(
            estimated[known, first],
            estimated[known, second],
            c=sigma[known],
            s=22,
            cmap="plasma_r",
            vmin=0,
            label="estimated",
            zorder=3,
        )
        figure.colorbar(dots, ax=top, label="standard deviation that the answer states [cm]", shrink=0.8)
    else:
        top.plot(estimated[:, first], estimated[:, second], ".", color="tab:blue", markersize=5, label="estimated")
    lost = np.isnan(estimated[:, 0])
    if lost.any():
        top.plot(true[lost, first], true[lost, second], "x", color="tab:red", label="no answer")
    shown = true if mapped is None else np.concatenate([true, mapped[:, :3, 3]])
    low, high = shown.min(axis=0) - 0.25, shown.max(axis=0) + 0.25
    top.set(
        xlabel=f"{'xyz'[first]} [m]",
        ylabel=f"{'xyz'[second]} [m]",
        title=f"{literal(title)}, from above",
        xlim=(low[first], high[first]),
        ylim=(low[second], high[second]),
        aspect="equal",
    )
    if second_down(axes, up_sign):
        top.invert_yaxis()
    top.grid(alpha=0.3)
    top.legend()
    translation, _ = errors(answers)
    bottom.plot(100 * np.where(np.isfinite(translation), translation, np.nan), color="tab:blue", label="error")
    if known.any():
        bottom.plot(sigma, ":", color="tab:purple", label="stated standard deviation")
        bottom.legend(fontsize=8)
    log_scale(bottom, "y", translation)
    bottom.set(xlabel="frame", ylabel="position [cm]")
    bottom.grid(alpha=0.3, which="both")
    return save_figure(figure, path)


def _sigma(answer: FrameResult) -> float:
    """Standard deviation of an answer's position along its worst axis, metres; NaN where there is none."""
    return float("nan") if answer.estimated is None or answer.covariance is None else position_sigma(answer.covariance)


def _draw_errors(path: Path, title: str, answers: Sequence[FrameResult]) -> Path:
    """Share of frames below each error, translation and rotation."""
    plt = pyplot()
    translation, rotation = errors(answers)
    figure, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    share = np.arange(1, len(answers) + 1) / len(answers) * 100
    for axis, values, label in (
        (axes[0], 100 * translation, "translation error [cm]"),
        (axes[1], rotation, "rotation error [deg]"),
    ):
        ordered = np.sort(values)
        known = np.isfinite(ordered)
        axis.step(ordered[known], share[known], where="post")
        axis.set(xlabel=label, ylabel="frames [%]", ylim=(0, 101))
        log_scale(axis, "x", values)
        axis.grid(alpha=0.3, which="both")
    figure.suptitle(literal(title))
    return save_figure(figure, path)


def log_scale(axis, name: str, values: np.ndarray) -> None:
    """A logarithmic axis in plain numbers, where there is any positive error to show."""
    if (np.isfinite(values) & (values > 0)).any():
        from matplotlib.ticker import FuncFormatter

        axis.set(**{f"{name}scale": "log"})
        getattr(axis, f"{name}axis").set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        getattr(axis, f"{name}axis").set_minor_formatter(
            FuncFormatter(lambda value, _: f"{value:g}" if f"{value:e}"[0] in "25" else "")
        )
    else:
        axis.text(0.5, 0.5, "no frame was answered", transform=axis.transAxes, ha="center")
