"""A map as one HTML page: what it is, where it was recorded from, how its training went, and how good it is where truth
is known.
"""

from __future__ import annotations

import base64
import html
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dimm_ros.data.coverage import view_coverage
from dimm_ros.data.recording import Recording
from dimm_ros.errors import DataError, MapError
from dimm_ros.evaluation import map_figures
from dimm_ros.evaluation.evaluate import evaluate
from dimm_ros.evaluation.map_info import map_info, reaches, rows
from dimm_ros.evaluation.metrics import FrameResult, errors, summarise
from dimm_ros.localizer import Localizer
from dimm_ros.mapping.retrieval import ReferenceViews
from dimm_ros.progress import ProgressCallback
from dimm_ros.scene_map import SceneMap
from dimm_ros.whole_file import write_whole

_WORST = 3  # frames with their ray fields
_STYLE = (
    "body{font:15px/1.45 system-ui,sans-serif;max-width:70em;margin:2em auto;padding:0 1em;color:#222}"
    "table{border-collapse:collapse;margin:1em 0}"
    "td,th{padding:.25em .8em;border-bottom:1px solid #ddd;text-align:left;vertical-align:top}"
    "img{max-width:100%}.note{color:#666}"
)


@dataclass(frozen=True)
class RecordingResult:
    """A recording, localized.

    Attributes:
        recording: with true poses.
        answers: one for each frame.
        novelty: (N,) of each frame; NaN where the map knows none.
        figures: ``summarise`` of the answers.
    """

    recording: Recording
    answers: Sequence[FrameResult]
    novelty: np.ndarray
    figures: dict


def write_map_report(
    map_path: str | Path,
    output: str | Path,
    recordings: Sequence[Recording] = (),
    *,
    device: str = "auto",
    weights: str | Path | None = None,
    progress: ProgressCallback | None = None,
) -> dict:
    """Write the page, whole or not at all.

    Args:
        map_path: the map.
        output: the HTML file.
        recordings: with true poses in the map's frame; none is needed.

    Returns:
        ``map_info`` and, under "data", the figures of each recording.

    Raises:
        MapError: not a map, or the page cannot be written.
        DataError: a recording in another frame, or an image that cannot be read.
    """
    map_path, output, progress = Path(map_path), Path(output), progress or (lambda *_: None)
    info = map_info(map_path)
    for recording in recordings:
        if recording.frame_id != info["frame_id"]:
            raise DataError(
                f"'{recording.name}' has poses in frame '{recording.frame_id}', map '{info['name']}' is in "
                f"'{info['frame_id']}'."
            )
    scene_map = SceneMap.load(map_path)
    reference = ReferenceViews.load(map_path, scene_map.header)
    with tempfile.TemporaryDirectory() as folder:
        body = [*_about(info), *_mapped(scene_map, reference, Path(folder))]
        judged: list[RecordingResult] = []
        if recordings:
            localizer = Localizer.open(map_path, device=device, weights=weights)
            for number, recording in enumerate(recordings):
                judged.append(_judge(localizer, recording, reference, progress))
                body += _results(localizer, judged[-1], scene_map, Path(folder), number)
        else:
            body.append(_note("Give recordings with true poses (dimm map report MAP DATA) to see how good the map is."))
    page = (
        "<!doctype html><html lang=en><meta "
        f"charset=utf-8><title>{html.escape(info['name'])}</title><style>{_STYLE}</style>"
        f"<h1>Map {html.escape(info['name'])}</h1>{''.join(body)}</html>\n"
    )
    _write(output, page)
    return info | {"data": [{"name": one.recording.name} | one.figures for one in judged]}


def _write(path: Path, page: str) -> None:
    try:
        write_whole(path, page)
    except OSError as error:
        raise MapError(
            f"The report {path} cannot be written ({error.strerror}); free space or choose another place with -o."
        ) from error


def _judge(
    localizer: Localizer, recording: Recording, reference: ReferenceViews | None, progress: ProgressCallback
) -> RecordingResult:
    novelty = []

    def show(_, image: np.ndarray, estimate) -> None:
        novelty.append(np.nan if estimate.novelty is None else estimate.novelty)

    answers = evaluate(
        localizer, recording, reference, lambda done, total: progress(f"localizing {recording.name}", done, total), show
    )
    return RecordingResult(recording, answers, np.array(novelty), summarise(answers))


def _about(info: dict) -> list[str]:
    cells = "".join(f"<tr><th>{html.escape(label)}<td>{html.escape(text)}" for label, text in rows(info))
    return [f"<table>{cells}</table>"]


def _mapped(scene_map: SceneMap, reference: ReferenceViews | None, folder: Path) -> list[str]:
    """Coverage and training curves."""
    poses = map_figures.mapped_poses(scene_map, reference)
    body = ["<h2>Where it was recorded from</h2>"]
    if poses is None:
        body.append(_note("Not known: the map remembers no view, and its retrieval file is not beside it."))
    else:
        body += [
            _image(map_figures.draw_coverage(folder / "coverage.png", poses)),
            _note(
                "From above. Colours: distance to the next views that look the same way; circled views are thin: a "
                "robot is localized "
                "worse there. Right: how many views look into each direction, turned as the picture from above."
            ),
        ]
    known = reaches(scene_map.header)
    if known:
        drawn = _image(map_figures.draw_reach(folder / "reach.png", known))
        body += [
            "<h2>How far from the mapped views it answers</h2>",
            drawn,
            _note(
                "Frames that were held out while the map was made, each against the nearest view that was not; red "
                "lines are frames without an "
                "answer. Nothing is known of views further away than these."
            ),
        ]
    body.append("<h2>Training</h2>")
    if scene_map.header.curves:
        body.append(_image(map_figures.draw_curves(folder / "curves.png", scene_map.header.curves)))
    else:
        body.append(_note("The map was made by an earlier dimm_ros, which kept no curve."))
    return body


def _results(
    localizer: Localizer, judged: RecordingResult, scene_map: SceneMap, folder: Path, number: int
) -> list[str]:
    """A recording's part of the page."""
    title = f"<h2>On {html.escape(judged.recording.name)}</h2>"
    if not judged.answers:
        return [title, _note("It has no frame.")]
    seen = view_coverage(judged.recording.poses())
    body = [title, map_figures.figures_table(judged.figures)]
    body.append(_image(map_figures.draw_places(folder / f"places_{number}.png", judged.answers, seen)))
    limit = scene_map.header.calibration.max_novelty
    body.append(_image(map_figures.draw_checks(folder / f"checks_{number}.png", judged.answers, judged.novelty, limit)))
    body.append(
        _note(
            "Left: error against novelty, how unlike all mapped views an image is; beyond the dashed line images are "
            "rejected. Right: the share "
            "of frames inside the covariance's ellipsoids against the share that there should be; below the diagonal "
            "the covariance is too small."
        )
    )
    translation, _ = errors(judged.answers)
    worst = [
        int(index)
        for index in np.argsort(-np.where(np.isfinite(translation), translation, -1.0))[:_WORST]
        if np.isfinite(translation[index])
    ]
    if worst:
        body.append("<h3>Worst frames</h3>")
    for place, index in enumerate(worst):
        body.append(
            _image(
                map_figures.draw_frame(
                    folder / f"worst_{number}_{place}.png", localizer, judged.recording.frames[index]
                )
            )
        )
    rejected = [answer for answer in judged.answers if answer.estimated is None]
    if rejected:
        listed = "".join(f"<li>{html.escape(answer.name)}: {html.escape(answer.reason)}" for answer in rejected[:20])
        more = f"<li>and {len(rejected) - 20} more" if len(rejected) > 20 else ""
        body.append(f"<h3>Rejected frames</h3><ul>{listed}{more}</ul>")
    return body


def _image(path: Path) -> str:
    return f'<p><img alt="{path.stem}" src="data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}">'


def _note(text: str) -> str:
    return f"<p class=note>{html.escape(text)}"
