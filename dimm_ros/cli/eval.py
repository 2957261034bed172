"""``dimm eval``: how good is a map on frames with known poses."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from dimm_ros.cli import options
from dimm_ros.cli.console import EXIT_FINDINGS, bars, note, say, say_json, show
from dimm_ros.cli.verbs import Verb

_EPILOG = (
    "Examples:\n\n  dimm eval office.dimm second_bag\n\n  dimm eval kitchen.dimm redkitchen --split near:val --json\n\n"
    "  dimm eval chess.dimm 7scenes/chess --protocol 7scenes\n\n"
    "  dimm eval office.dimm second_bag --mcap --rerun\n\n"
    "  dimm eval --compare results/20260105-101500_second_bag results/20260106-093000_second_bag"
)


def register(app: typer.Typer) -> None:
    app.command("eval", cls=Verb, epilog=_EPILOG)(run)


def run(
    map_file: Annotated[Path, typer.Argument(metavar="MAP", help="a map that 'dimm map' wrote", show_default=False)],
    source: Annotated[Path, typer.Argument(metavar="DATA", help="bag or folder with true poses", show_default=False)],
    more: Annotated[
        Optional[list[Path]],
        typer.Argument(metavar="[RESULTS]...", help="--compare takes results folders alone", show_default=False),
    ] = None,
    compare: Annotated[
        bool, typer.Option("--compare", help="instead: results folders of earlier runs beside each other")
    ] = False,
    split: options.Split = None,
    protocol: Annotated[
        Optional[str],
        typer.Option(
            help="published rows beside ours: 7scenes, 12scenes, indoor6, cambridge or wayspots; judges official:val"
        ),
    ] = None,
    rerun: options.Rerun = False,
    rerun_spawn: options.RerunSpawn = False,
    mcap: options.Mcap = False,
    results: options.Results = options.RESULTS,
    as_json: options.AsJson = False,
    weights: options.WeightsFile = None,
    device: options.Device = "auto",
    backend: options.Backend = options.Engine.torch,
    image_topic: options.ImageTopic = None,
    camera_info_topic: options.CameraInfoTopic = None,
    pose_topic: options.PoseTopic = None,
    map_frame: options.MapFrame = "map",
) -> None:
    """Localize every frame of a recording and compare with its true pose.

    The retrieval baseline (pose of the most similar mapped image) needs the file MAP.retrieval.safetensors, which
    'dimm map' writes beside the map. rays_best.png, rays_median.png and rays_worst.png show the rays of three frames.
    With --compare nothing is localized: dimm eval --compare RESULTS RESULTS...
    """
    if compare:
        _compare([map_file, source, *(more or ())], results, as_json)
        return
    if more:
        words = "One map is judged on one recording; only --compare takes several results folders."
        raise typer.BadParameter(words, param_hint="RESULTS")
    from dimm_ros.data.open import open_recording
    from dimm_ros.evaluation.evaluate import evaluate
    from dimm_ros.evaluation.map_figures import mapped_poses
    from dimm_ros.evaluation.metrics import summarise
    from dimm_ros.evaluation.protocols import judge, judged_part, protocol_of, protocol_table
    from dimm_ros.evaluation.ray_fields import draw_ray_fields
    from dimm_ros.evaluation.report import new_results, table, write_report
    from dimm_ros.localizer import Localizer
    from dimm_ros.mapping.retrieval import ReferenceViews, reference_path
    from dimm_ros.pictures.shown import ShownRun
    from dimm_ros.pictures.sinks import sinks, written

    rules = None if protocol is None else protocol_of(protocol)
    recording = open_recording(
        source, split=split, **options.bag_options(image_topic, camera_info_topic, pose_topic, map_frame)
    )
    if rules is not None and split is None:
        recording = judged_part(recording)
    for line in recording.notes:
        note(line)
    title = f"{map_file.stem} on {recording.name}"
    with new_results(recording.name, results) as folder:
        localizer = Localizer.open(map_file, device=device, weights=weights, backend=backend.value)
        reference = ReferenceViews.load(map_file, localizer.map.header)
        run_shown = ShownRun.of(title, localizer.frame_id, recording.frames)
        with sinks(run_shown, folder, rerun=rerun, spawn=rerun_spawn, mcap=mcap) as draw, bars() as progress:
            answers = evaluate(
                localizer, recording, reference, lambda done, total: progress("localizing", done, total), draw
            )
        figures = {
            "map": map_file.name,
            "data": recording.name,
            "encoder": localizer.encoder.weights.origin,
        } | summarise(answers)
        if rules is not None:
            figures["protocol"] = {"name": protocol} | judge(rules, answers)
        write_report(folder, title, answers, figures, mapped_poses(localizer.map, reference))
        draw_ray_fields(folder, localizer, recording, answers)
    if as_json:
        say_json(figures)
    else:
        show(table(title, figures))
        if rules is not None:
            show(protocol_table(rules, recording.name, figures["protocol"]))
        if reference is None:
            say(f"No retrieval baseline: {reference_path(map_file).name} of this map is not beside it.")
        for path in written(folder):
            say(f"for the viewer: {path}")
        say(f"pictures, trajectories and metrics.json: {folder} (also as {results / 'latest'})")
    if answers and not figures["answered"]:
        raise typer.Exit(EXIT_FINDINGS)


def _compare(folders: list[Path], results: Path, as_json: bool) -> None:
    from dimm_ros.evaluation.compare import comparison_table, draw_comparison, read_run
    from dimm_ros.evaluation.report import new_results

    runs = [read_run(folder) for folder in folders]
    with new_results("compare", results) as folder:
        picture = draw_comparison(folder / "errors.png", runs)
    if as_json:
        say_json([{"run": one.name} | one.figures for one in runs])
        return
    show(comparison_table(runs))
    say(f"picture: {picture}")
