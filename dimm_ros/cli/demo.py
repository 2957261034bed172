"""``dimm demo``: the main job, end to end: record, map, run the node, replay another bag into it, judge."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from dimm_ros.cli import options
from dimm_ros.cli.console import EXIT_FINDINGS, bars, describe, note, say, say_json, show
from dimm_ros.cli.verbs import Verb
from dimm_ros.errors import DimmError

if TYPE_CHECKING:
    from dimm_ros.cli.console import Bars
    from dimm_ros.config import Preset, TrainingConfig
    from dimm_ros.data.recording import Recording
    from dimm_ros.replay.demo_bags import DemoBags

_EPILOG = (
    "Examples:\n\n  dimm demo\n\n  dimm demo --mcap\n\n  dimm demo --data redkitchen\n\n"
    "  dimm demo --data redkitchen --split mid"
)
_LOG_LINES = 20  # of a node that failed
#: Seconds that an image usually takes on two CPU cores, see ``mapping.stages``.
_RENDER_S, _WRITE_S, _REPLAY_S, _JUDGE_S, _DRAW_S = 0.1, 0.02, 0.5, 0.4, 0.6


def register(app: typer.Typer) -> None:
    app.command("demo", cls=Verb, epilog=_EPILOG)(run)


def run(
    data: Annotated[
        Optional[Path], typer.Option(help="folder of posed images; default: walks through the rendered gallery")
    ] = None,
    split: Annotated[
        Optional[str],
        typer.Option(help="name in the folder's split.json; default: its first, else blocks are held out"),
    ] = None,
    results: options.Results = options.RESULTS,
    steps: Annotated[Optional[int], typer.Option(min=1, help="training steps instead of the preset's")] = None,
    rerun: options.Rerun = False,
    mcap: options.Mcap = False,
    as_json: options.AsJson = False,
) -> None:
    """Record a bag, build a map from it, start the localizer node, replay a second bag into it over DDS, print and draw
    how good it was.

    Bags and map are kept in RESULTS/demo.work: a second run goes on from there, if nothing has changed.
    """
    from dimm_ros.config import PRESETS
    from dimm_ros.data.open import open_recording
    from dimm_ros.encoder.dinov2 import Encoder
    from dimm_ros.evaluation.metrics import summarise
    from dimm_ros.evaluation.report import new_results, table, write_report
    from dimm_ros.mapping.retrieval import ReferenceViews
    from dimm_ros.pictures.sinks import written
    from dimm_ros.replay.demo_work import demo_bags, demo_map, linked
    from dimm_ros.scene_map import SceneMap

    try:
        from dimm_ros.replay.judge import beside_rays_alone, replay_through_node
    except ImportError as error:
        raise DimmError(
            f"The demo starts the ROS 2 node, but ROS 2 is not installed ({error}); use 'make demo', or source ROS 2."
        ) from None

    tell = note if as_json else say
    source = None if data is None else open_recording(data)
    preset = PRESETS["demo"]
    training = preset.training.changed(steps=steps)
    title = f"The node on {'the gallery' if data is None else data.resolve().name}: images it never saw"
    name = "demo" if data is None else f"demo-{data.resolve().name}"
    work = results / f"{name}.work"
    with new_results(name, results) as folder:
        with bars() as progress:
            progress.plan(_usual_seconds(source, split, preset, training, draws=rerun or mcap))
            tell("1/4  recording two bags: one to map, another to localize in")
            stage = demo_bags(work, source, split, progress)
            tell("2/4  building a map from the first")
            encoder = Encoder.open(preset.encoder)
            recording = open_recording(stage.mapping)
            result = demo_map(work, recording, encoder, preset.changed(training=training), progress)
            stage, result = linked(work, stage, folder), replace(result, path=folder / result.path.name)
            tell(f"     {describe(result, len(recording.frames))}")
            tell("3/4  starting the localizer node and replaying the second bag into it over DDS")
            query = open_recording(stage.query)
            log = folder / "node.log"
            try:
                answers, replay = replay_through_node(
                    stage.query,
                    result.path,
                    query,
                    stage.base_from_camera,
                    topics=stage.topics,
                    transport="compressed",
                    log=log,
                    progress=lambda done: progress("replaying", done, len(query.frames)),
                )
            except DimmError:
                if log.exists():
                    note(
                        "\n".join(
                            ["the end of the node's log:", *log.read_text(errors="replace").splitlines()[-_LOG_LINES:]]
                        )
                    )
                raise
            tell("4/4  judging every answer against the true pose")
            scene_map = SceneMap.load(result.path, encoder.device)
            reference = ReferenceViews.load(result.path, scene_map.header)
            answers, rays = beside_rays_alone(
                answers, query, scene_map, encoder, reference, lambda done, total: progress("judging", done, total)
            )
            if rerun or mcap:
                _show(folder, title, result.path, query, progress, rerun=rerun, mcap=mcap)
        figures = {
            "map": "demo",
            "data": query.name,
            "encoder": encoder.weights.origin,
            "transforms_on_tf": len(replay.broadcasts),
        }
        figures |= summarise(answers) | {"rays_alone": summarise(rays)}
        paths = write_report(folder, title, answers, figures, reference.world_from_camera)
    if as_json:
        say_json(figures)
    else:
        show(table(title, figures))
        for path in paths:
            if path.suffix == ".png":
                say(f"picture: {path}")
        for path in written(folder):
            say(f"for the viewer: {path}")
        say(f"everything else: {folder} (also as {results / 'latest'})")
        _say_what_next(folder, stage, written(folder))
    if not figures["answered"]:
        raise typer.Exit(EXIT_FINDINGS)


def _usual_seconds(
    data: Recording | None, split: str | None, preset: Preset, training: TrainingConfig, *, draws: bool
) -> dict[str, float]:
    """Of all stages: bags, map, node, judging, and pictures for viewers, if they are wanted."""
    from dimm_ros.mapping.stages import usual_seconds
    from dimm_ros.replay.demo_bags import RENDERED, sizes_of_data

    mapped, queries = RENDERED if data is None else sizes_of_data(data, split)
    image = _RENDER_S if data is None else _WRITE_S
    mapping = usual_seconds(mapped, preset.landmarks, preset.encoder, preset.head, training)
    return {
        "mapping bag": image * mapped,
        "query bag": image * queries,
        **mapping,
        "replaying": _REPLAY_S * queries,
        "judging": _JUDGE_S * queries,
        **({"drawing": _DRAW_S * queries} if draws else {}),
    }


def _show(folder: Path, title: str, map_file: Path, query: Recording, progress: Bars, **wanted: bool) -> None:
    """The second bag's images once more, in this process: the node sends no rays."""
    from dimm_ros.evaluation.evaluate import evaluate
    from dimm_ros.localizer import Localizer
    from dimm_ros.pictures.shown import ShownRun
    from dimm_ros.pictures.sinks import sinks

    localizer = Localizer.open(map_file)
    with sinks(ShownRun.of(title, localizer.frame_id, query.frames), folder, **wanted) as draw:
        evaluate(localizer, query, None, lambda done, total: progress("drawing", done, total), draw)


def _say_what_next(folder: Path, stage: DemoBags, viewer_files: list[Path]) -> None:
    """Commands to type, as they stand."""
    from dimm_ros.data.bag_writer import CAMERA_INFO_TOPIC, IMAGE_TOPIC

    called = Path(sys.argv[0])
    dimm = str(called) if called.name == "dimm" and shutil.which("dimm") is None else "dimm"
    map_file, raw = folder / "map.dimm", folder / "query_raw_bag"
    foxglove = [path for path in viewer_files if path.suffix == ".mcap"]
    if foxglove:
        say(f"next, in Foxglove: open {foxglove[0]}")
    else:
        say(f"next, for Foxglove: {dimm} eval {map_file} {stage.query} --mcap")
    say(f"in RViz, where ROS 2 is: {dimm} convert {stage.query} {raw} --images raw")
    say(
        f"    ros2 launch dimm_ros replay.launch.py bagfile:={raw.resolve()} map:={map_file.resolve()} "
        f"image:={IMAGE_TOPIC} camera_info:={CAMERA_INFO_TOPIC}"
    )
    say(f"your own recording: {dimm} doctor YOUR_BAG, then {dimm} map YOUR_BAG -o place.dimm (docs/tutorial.md)")
