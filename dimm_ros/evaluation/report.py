"""What a person sees of a run: a table, TUM trajectories, pictures, metrics.json, in a dated folder."""

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

from dimm_ros.errors import DataError
from dimm_ros.evaluation.metrics import Answer, errors
from dimm_ros.geometry.poses import to_quaternion
from dimm_ros.pictures.plots import literal, pyplot
from dimm_ros.whole_file import written_whole


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
        raise DataError(f"The results folder {folder} cannot be made ({error.strerror}); choose another with --results.") from error


@contextmanager
def new_results(name: str, root: str | Path = "results") -> Iterator[Path]:
    """The same for a block: its end makes the folder results/latest, an error in it (Ctrl-C is one) takes the folder away again.

    Raises:
        DataError: the folder cannot be made.
    """
    root = Path(root)
    missing = [place for place in (root, *root.parents) if not place.exists()]
    folder = None
    try:
        folder = results_folder(name, root)
        yield folder
        point_latest(folder)
    except BaseException:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):
            for place in missing:  # from the inside out, and only what is empty
                place.rmdir()
        raise


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
        ("median error", f"{cm(figures['median_translation_m'])}, {degrees(figures['median_rotation_deg'])}"),
        ("90th percentile", f"{cm(figures['p90_translation_m'])}, {degrees(figures['p90_rotation_deg'])}"),
        ("within 5 cm / 5 deg", share(figures["recall_5cm_5deg"])),
        ("within 10 cm / 5 deg", share(figures["recall_10cm_5deg"])),
        ("within 25 cm / 2 deg", share(figures["recall_25cm_2deg"])),
        ("latency (median)", ms(figures["latency_ms_median"])),
        ("  of which encoder", ms(figures["encoder_ms_median"])),
    ]
    if figures.get("retrieval_median_translation_m") is not None:
        value = f"{cm(figures['retrieval_median_translation_m'])}, {degrees(figures['retrieval_median_rotation_deg'])}"
        rows.append(("retrieval, median error (pose of the most similar image)", value))
        value = f"{cm(figures['nearest_mapped_median_m'])}, {degrees(figures['nearest_mapped_median_deg'])} away"
        rows.append(("nearest mapped image, median", value))
    if figures.get("nees_mean") is not None:
        rows.append(("covariance: NEES (6 = exact), in 95 % ellipsoid", f"{figures['nees_mean']:.1f}, {share(figures['nees_within_95'])}"))
    result = Table(title=escape(title), show_header=False, title_justify="left")
    for row in rows:
        result.add_row(*row)
    return result


def write_report(folder: Path, title: str, answers: Sequence[Answer], figures: dict) -> list[Path]:
    """Write metrics.json, estimated.tum, true.tum, trajectory.png and errors.png, and point results/latest here; returns their paths."""
    metrics = folder / "metrics.json"
    with written_whole(metrics) as partial:
        partial.write_text(json.dumps(figures, indent=2) + "\n")
    answered = [answer for answer in answers if answer.estimated is not None]
    paths = [metrics, _write_tum(folder / "true.tum", answers, [answer.true for answer in answers])]
    paths.append(_write_tum(folder / "estimated.tum", answered, [answer.estimated for answer in answered]))
    if answers:
        paths += [_draw_trajectory(folder / "trajectory.png", title, answers), _draw_errors(folder / "errors.png", title, answers)]
    point_latest(folder)
    return paths


def _write_tum(path: Path, answers: Sequence[Answer], poses: Sequence[np.ndarray]) -> Path:
    lines = []
    for answer, pose in zip(answers, poses, strict=True):
        translation, xyzw = to_quaternion(pose)
        seconds, nanoseconds = divmod(answer.stamp_ns, 1_000_000_000)
        lines.append(f"{seconds}.{nanoseconds:09d} " + " ".join(f"{value:.9f}" for value in (*translation, *xyzw)))
    path.write_text("\n".join(lines) + "\n")
    return path


def _draw_trajectory(path: Path, title: str, answers: Sequence[Answer]) -> Path:
    """Estimated beside true camera centres: the two axes of largest extent above, error against frame below."""
    plt = pyplot()
    true = np.stack([answer.true[:3, 3] for answer in answers])
    estimated = np.stack([answer.estimated[:3, 3] if answer.estimated is not None else np.full(3, np.nan) for answer in answers])
    first, second = sorted(np.argsort(np.ptp(true, axis=0))[-2:])
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(8, 9), height_ratios=[3, 1], layout="constrained")
    top.plot(true[:, first], true[:, second], "-", color="0.35", linewidth=2, label="true")
    for one, other in zip(true, estimated, strict=True):
        top.plot([one[first], other[first]], [one[second], other[second]], "-", color="tab:orange", linewidth=0.6, alpha=0.7)
    top.plot(estimated[:, first], estimated[:, second], ".", color="tab:blue", markersize=5, label="estimated")
    lost = np.isnan(estimated[:, 0])
    if lost.any():
        top.plot(true[lost, first], true[lost, second], "x", color="tab:red", label="no answer")
    low, high = true.min(axis=0) - 0.25, true.max(axis=0) + 0.25
    top.set(
        xlabel=f"{'xyz'[first]} [m]", ylabel=f"{'xyz'[second]} [m]", title=literal(title), xlim=(low[first], high[first]),
        ylim=(low[second], high[second]), aspect="equal",
    )
    top.grid(alpha=0.3)
    top.legend()
    translation, _ = errors(answers)
    bottom.plot(100 * np.where(np.isfinite(translation), translation, np.nan), color="tab:blue")
    _log_scale(bottom, "y", translation)
    bottom.set(xlabel="frame", ylabel="translation error [cm]")
    bottom.grid(alpha=0.3, which="both")
    return _save(figure, path)


def _draw_errors(path: Path, title: str, answers: Sequence[Answer]) -> Path:
    """Share of frames below each error, translation and rotation."""
    plt = pyplot()
    translation, rotation = errors(answers)
    figure, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    share = np.arange(1, len(answers) + 1) / len(answers) * 100
    for axis, values, label in ((axes[0], 100 * translation, "translation error [cm]"), (axes[1], rotation, "rotation error [deg]")):
        ordered = np.sort(values)
        known = np.isfinite(ordered)
        axis.step(ordered[known], share[known], where="post")
        axis.set(xlabel=label, ylabel="frames [%]", ylim=(0, 101))
        _log_scale(axis, "x", values)
        axis.grid(alpha=0.3, which="both")
    figure.suptitle(literal(title))
    return _save(figure, path)


def _log_scale(axis, name: str, values: np.ndarray) -> None:
    """A logarithmic axis in plain numbers, where there is any positive error to show."""
    if (np.isfinite(values) & (values > 0)).any():
        from matplotlib.ticker import FuncFormatter

        axis.set(**{f"{name}scale": "log"})
        getattr(axis, f"{name}axis").set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        getattr(axis, f"{name}axis").set_minor_formatter(FuncFormatter(lambda value, _: f"{value:g}" if f"{value:e}"[0] in "25" else ""))
    else:
        axis.text(0.5, 0.5, "no frame was answered", transform=axis.transAxes, ha="center")


def _save(figure, path: Path) -> Path:
    figure.savefig(path, dpi=110)
    pyplot().close(figure)
    return path
