"""Published evaluation protocols: the figures that each data set is judged by, with the published rows beside ours.

The published figures are those of DIMM (ICCV 2025) and of the papers that report beside it: medians on 7-Scenes against
the structure-from-motion ground truth of Brachmann et al. (ICCV 2021), and the mean share of Wayspots' query images
within 10 cm and 5 degrees. For the other data sets none are known here, so none are printed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from rich.markup import escape
from rich.table import Table

from dimm_ros.data.recording import Recording
from dimm_ros.data.splits import OFFICIAL, select
from dimm_ros.errors import InputError
from dimm_ros.evaluation.metrics import FrameResult, errors, summarise

#: Share of frames: label -> (metres, degrees).
_5CM, _10CM, _HALF_METRE = ("5 cm / 5 deg", (0.05, 5.0)), ("10 cm / 5 deg", (0.10, 5.0)), ("0.5 m", (0.5, np.inf))

_Pair = tuple[float, float | None]


@dataclass(frozen=True)
class PublishedResult:
    """Figures that a paper reports.

    Attributes:
        method: its name.
        scenes: scene -> median centimetres and degrees (None where the paper's table has no degrees).
        mean: the same, averaged over all scenes.
        shares: label -> per cent of frames, averaged over all scenes.
    """

    method: str
    scenes: dict[str, _Pair] = field(default_factory=dict)
    mean: _Pair | None = None
    shares: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Protocol:
    """How a data set is judged: medians, and the shares of frames within thresholds, over its test images.

    Attributes:
        title: the data set.
        recalls: label and (metres, degrees) of the shares.
        published: rows to print beside ours.
        caption: what the published figures were measured against.
    """

    title: str
    recalls: tuple[tuple[str, tuple[float, float]], ...]
    published: tuple[PublishedResult, ...] = ()
    caption: str = "No published figures are known to dimm_ros for this data set."


_SEVEN = {
    "chess": (2.3, 0.9),
    "fire": (2.6, None),
    "heads": (2.0, 1.3),
    "office": (5.7, 1.0),
    "pumpkin": (2.7, 0.8),
    "kitchen": (3.2, 0.8),
    "stairs": (6.2, None),
}

PROTOCOLS = {
    "7scenes": Protocol(
        "7-Scenes",
        (_5CM,),
        (
            PublishedResult("DIMM", _SEVEN, (3.5, 1.0)),
            PublishedResult("NaCR", mean=(2.2, 0.4)),
            PublishedResult("ACE", mean=(1.10, 0.34)),
            PublishedResult("GLACE", mean=(1.2, 0.3)),
            PublishedResult("marepo", mean=(3.2, 1.5)),
            PublishedResult("Reloc3r-512", mean=(4.0, 1.0)),
            PublishedResult("hloc", mean=(1.27, 0.27)),
        ),
        "Published: against structure-from-motion poses, not the original ones of KinectFusion; compare on the same "
        "poses.",
    ),
    "12scenes": Protocol("12-Scenes", (_5CM,)),
    "indoor6": Protocol("Indoor-6", (_5CM,)),
    "cambridge": Protocol("Cambridge Landmarks", ()),
    "wayspots": Protocol(
        "Wayspots",
        (_10CM, _HALF_METRE),
        tuple(
            PublishedResult(method, shares={_10CM[0]: share})
            for method, share in (("DIMM", 42.9), ("NaCR", 54.5), ("ACE", 52.2), ("marepo", 47.2))
        ),
        "Published: the mean of the ten scenes.",
    ),
}


def protocol_of(name: str) -> Protocol:
    """The protocol of a name.

    Raises:
        InputError: no such protocol.
    """
    if name not in PROTOCOLS:
        raise InputError(f"Protocol '{name}' is not known; choose {', '.join(PROTOCOLS)}.")
    return PROTOCOLS[name]


def judged_part(recording: Recording) -> Recording:
    """The images that the published protocol judges, ``official:val``; all where the data have no published split."""
    return select(recording, f"{OFFICIAL}:val") if "val" in recording.splits.get(OFFICIAL, {}) else recording


def judge(protocol: Protocol, answers: Sequence[FrameResult]) -> dict[str, float | None]:
    """The protocol's figures of a run: medians (cm, deg), and per cent of frames per label; unanswered frames count as
    failures.
    """
    summary = summarise(answers)
    translation, rotation = errors(answers)
    centimetres = summary["median_translation_m"]
    figures = {
        "median_cm": None if centimetres is None else 100 * centimetres,
        "median_deg": summary["median_rotation_deg"],
    }
    for label, (metres, degrees) in protocol.recalls:
        within = (translation <= metres) & ((rotation <= degrees) | np.isinf(degrees))
        figures[label] = 100 * float(np.mean(within)) if len(answers) else None
    return figures


def protocol_table(protocol: Protocol, scene: str, figures: dict[str, float | None]) -> Table:
    """Our row and the published ones, which say so.

    Args:
        protocol: of the data set.
        scene: the recording's name, in which the scene's name is looked for.
        figures: of ``judge``.
    """
    known = next((name for row in protocol.published for name in row.scenes if name in scene.lower()), None)
    means = any(row.mean for row in protocol.published)
    result = Table(
        title=escape(f"{protocol.title}: {scene}"),
        title_justify="left",
        caption=protocol.caption,
        caption_justify="left",
    )
    for heading in (
        "",
        "median of this scene",
        *(["mean of all scenes"] if means else []),
        *(f"within {label}" for label, _ in protocol.recalls),
    ):
        result.add_column(heading, justify="left" if not heading else "right")
    shares = [_share(figures[label]) for label, _ in protocol.recalls]
    result.add_row(
        "dimm_ros",
        _pair((figures["median_cm"], figures["median_deg"])),
        *(["-"] if means else []),
        *shares,
        style="bold",
    )
    for row in protocol.published:
        published = [_share(row.shares.get(label)) for label, _ in protocol.recalls]
        result.add_row(
            f"{row.method} (published)", _pair(row.scenes.get(known)), *([_pair(row.mean)] if means else []), *published
        )
    return result


def _pair(pair: tuple[float | None, float | None] | None) -> str:
    if pair is None or pair[0] is None:
        return "-"
    return f"{pair[0]:.4g} cm" + ("" if pair[1] is None else f", {pair[1]:.3g} deg")


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} %"
