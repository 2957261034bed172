"""The doctor's table, picture and findings.json."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.markup import escape
from rich.table import Table

from dimm_ros.doctor.examine import Examination
from dimm_ros.doctor.findings import Finding, Severity
from dimm_ros.pictures.plots import literal, pyplot
from dimm_ros.whole_file import written_whole

_LOOK = {
    Severity.OK: ("green", "ok"),
    Severity.UNKNOWN: ("cyan", "cannot tell"),
    Severity.WARNING: ("yellow", "warning"),
    Severity.PROBLEM: ("bold red", "PROBLEM"),
}
_ARROWS = 60


def table(title: str, findings: Sequence[Finding]) -> Table:
    """Findings, worst first."""
    result = Table(title=escape(title), title_justify="left", show_header=False)
    result.add_column(no_wrap=True)
    result.add_column()
    result.add_column(ratio=1, overflow="fold")
    for finding in sorted(findings, key=lambda one: -one.severity):
        style, word = _LOOK[finding.severity]
        advice = [
            f"[dim]{label}:[/] {escape(text)}"
            for label, text in (("cause", finding.cause), ("cure", finding.cure))
            if text
        ]
        result.add_row(f"[{style}]{word}[/]", escape(finding.check), "\n".join([escape(finding.what), *advice]))
    return result


def write_report(folder: Path, examination: Examination) -> list[Path]:
    """Write findings.json and doctor.png; returns their paths."""
    file = folder / "findings.json"
    with written_whole(file) as partial:
        partial.write_text(json.dumps(examination.as_dict(), indent=2) + "\n", encoding="utf-8")
    picture = draw(folder / "doctor.png", examination)
    return [file, picture]


def draw(path: Path, examination: Examination) -> Path:
    """The path from above, errors of the hypotheses, error against focal length and time, blur and exposure."""
    plt = pyplot()
    figure, axes = plt.subplots(2, 2, figsize=(12, 9), layout="constrained")
    _draw_path(axes[0, 0], examination)
    _draw_bars(axes[0, 1], examination)
    _draw_images(axes[1, 0], examination)
    _draw_curves(axes[1, 1], examination)
    figure.suptitle(f"{literal(examination.recording.name)}: {len(examination.recording.frames)} images")
    with written_whole(path) as partial:
        figure.savefig(partial, dpi=80, format="png")
    plt.close(figure)
    return path


def _empty(axis, text: str) -> None:
    axis.text(0.5, 0.5, text, transform=axis.transAxes, ha="center", va="center", wrap=True)
    axis.set(xticks=[], yticks=[])


def _draw_path(axis, examination: Examination) -> None:
    coverage = examination.coverage
    if coverage is None:
        return _empty(axis, "no poses")
    poses = examination.recording.poses()
    first, second, _ = coverage.axes
    centres = poses[:, :3, 3]
    stamps = np.array([frame.stamp_ns for frame in examination.recording.frames])
    parts = np.flatnonzero(np.diff(stamps) > 5 * np.median(np.diff(stamps))) + 1 if len(stamps) > 2 else []
    for part in np.split(np.arange(len(centres)), parts):
        axis.plot(centres[part, first], centres[part, second], "-", color="0.7", linewidth=1)
    chosen = np.unique(np.linspace(0, len(poses) - 1, _ARROWS).astype(int))
    reach = 0.07 * max(np.ptp(centres[:, first]), np.ptp(centres[:, second]), 1e-6)
    axis.quiver(
        centres[chosen, first],
        centres[chosen, second],
        poses[chosen, first, 2],
        poses[chosen, second, 2],
        angles="xy",
        scale_units="xy",
        scale=1 / reach,
        color="tab:blue",
        width=0.004,
    )
    colours = axis.scatter(centres[:, first], centres[:, second], c=coverage.spacing, s=8, cmap="viridis", zorder=3)
    axis.figure.colorbar(colours, ax=axis, label="distance to the next views [m]", shrink=0.8)
    if coverage.thin.any():
        thin = centres[coverage.thin]
        axis.plot(
            thin[:, first],
            thin[:, second],
            "o",
            color="tab:red",
            fillstyle="none",
            markersize=10,
            label="thin",
            zorder=4,
        )
        axis.legend()
    if coverage.second_down:
        axis.invert_yaxis()
    axis.set(xlabel=f"{'xyz'[first]} [m]", ylabel=f"{'xyz'[second]} [m]", title="seen from above", aspect="equal")
    axis.grid(alpha=0.3)


def _draw_bars(axis, examination: Examination) -> None:
    diagnosis = examination.diagnosis
    if diagnosis is None:
        return _empty(axis, "epipolar test: cannot tell")
    names, values = list(diagnosis.bars), np.array(list(diagnosis.bars.values()))
    best = int(np.nanargmin(values))
    colours = ["tab:green" if place == best else "0.6" for place in range(len(values))]
    colours[0] = "tab:green" if values[0] < 1.1 * values[best] else "tab:red"
    axis.barh(range(len(values)), values, color=colours)
    axis.set_yticks(range(len(values)), [name.split(" (")[0] for name in names])
    axis.invert_yaxis()
    axis.axvline(diagnosis.floor_px, color="black", linestyle=":", label="features themselves")
    axis.set(xscale="log", xlabel="epipolar error [px]", title="what the images say about the poses")
    for place, value in enumerate(values):
        axis.annotate(f" {value:.1f}", (value, place), va="center", fontsize=8)
    axis.margins(x=0.15)
    axis.legend(loc="lower right", fontsize=8)


def _draw_images(axis, examination: Examination) -> None:
    figures = examination.images
    if not len(figures.frame):
        return _empty(axis, "no image could be read")
    axis.semilogy(figures.frame, np.maximum(figures.sharpness, 1e-2), color="tab:blue", linewidth=0.8)
    axis.semilogy(
        figures.frame[figures.blurred],
        np.maximum(figures.sharpness[figures.blurred], 1e-2),
        "o",
        color="tab:red",
        markersize=4,
        label="blurred",
    )
    if figures.blurred.any():
        axis.legend(loc="upper left", fontsize=8)
    axis.set(xlabel="image", ylabel="sharpness (variance of the Laplacian)", title="blur and exposure")
    axis.yaxis.label.set_color("tab:blue")
    other = axis.twinx()
    other.plot(figures.frame, 100 * figures.clipped, color="tab:orange", linewidth=0.8)
    other.set(ylabel="black or white pixels [%]", ylim=(0, 100))
    other.yaxis.label.set_color("tab:orange")


def _draw_curves(axis, examination: Examination) -> None:
    diagnosis = examination.diagnosis
    if diagnosis is None:
        return _empty(axis, "focal length and time: cannot tell")
    factors, errors = np.array(diagnosis.focal_curve).T
    axis.plot(factors, errors, ".-", color="tab:purple", label="focal length (lower axis)")
    axis.axvline(diagnosis.focal_factor, color="tab:purple", linestyle=":")
    axis.set(
        xlabel="focal length, as a multiple of the given one",
        ylabel="epipolar error [px]",
        yscale="log",
        title="focal length and time",
    )
    other = axis.twiny()
    shifts, errors = np.array(diagnosis.shift_curve).T
    line = other.plot(shifts, errors, ".-", color="tab:olive", label="time (upper axis)")
    other.set(xlabel="pose of so many frames later")
    axis.legend(handles=[axis.lines[0], line[0]], loc="upper center", fontsize=8)
    axis.grid(alpha=0.3)
