"""``dimm map update``: a new recording joins a map."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from dimm_ros.cli import options
from dimm_ros.cli.console import EXIT_STOPPED, bars, describe, note, say, say_json
from dimm_ros.cli.verbs import Verb
from dimm_ros.errors import BusyError, DimmError, MapError

_EPILOG = (
    "Examples:\n\n  dimm map update office.dimm new_wing_bag -o office2.dimm --licence CC-BY-4.0\n\n"
    "  dimm map update office.dimm new_wing_bag --overwrite\n\n"
    "  dimm map update kitchen.dimm redkitchen --split near:val --steps 400 -o kitchen2.dimm"
)


def register(app: typer.Typer) -> None:
    app.command("update", cls=Verb, epilog=_EPILOG)(run)


def run(
    map_file: Annotated[Path, typer.Argument(metavar="MAP", help="a map that 'dimm map' wrote", show_default=False)],
    sources: Annotated[
        list[Path],
        typer.Argument(metavar="DATA...", help="bags or folders with poses in the map's frame", show_default=False),
    ],
    output: Annotated[
        Optional[Path],
        typer.Option("-o", "--output", help="the map file to write; without it MAP itself, which takes --overwrite"),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="replace MAP, or another map that is at --output")
    ] = False,
    steps: Annotated[Optional[int], typer.Option(min=1, help="training steps instead of the map's")] = None,
    passes: Annotated[Optional[int], typer.Option(min=1, help="encoded views per image instead of the map's")] = None,
    licence: options.Licence = None,
    keep_features: Annotated[
        Optional[bool],
        typer.Option("--keep-features/--no-keep-features", help="as of dimm map; default: if there are some of MAP"),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="seed of everything random")] = 0,
    split: options.Split = None,
    weights: options.WeightsFile = None,
    device: options.Device = "auto",
    image_topic: options.ImageTopic = None,
    camera_info_topic: options.CameraInfoTopic = None,
    pose_topic: options.PoseTopic = None,
    map_frame: options.MapFrame = "map",
    as_json: options.AsJson = False,
) -> None:
    """Train a map further on new recordings of its place, without the old images.

    Old views are rehearsed from kept features, if there are some beside the map, else as the map remembers them
    (docs/maps.md). MAP stays as it is, with --overwrite until the new one is complete. Ctrl-C stops safely; the same
    command goes on from there.
    """
    from dimm_ros.config import LandmarkConfig
    from dimm_ros.encoder.dinov2 import Encoder
    from dimm_ros.mapping.landmarks import points_config
    from dimm_ros.mapping.stages import usual_seconds
    from dimm_ros.mapping.update import update_map
    from dimm_ros.scene_map import SceneMap

    header = SceneMap.load(map_file).header
    in_place = output is None or output.resolve() == map_file.resolve()
    if not in_place:
        options.check_new_map(output, overwrite)
    topics = options.bag_options(image_topic, camera_info_topic, pose_topic, map_frame)
    recordings = [options.opened(source, split, topics) for source in sources]
    if in_place and not overwrite:
        raise MapError(f"{map_file} would be replaced by the updated map; name a new file with -o, or say --overwrite.")
    encoder = Encoder.open(header.encoder, device=device, weights=weights, sha256=header.encoder_sha256)
    training = header.training.changed(seed=seed, steps=steps, passes=passes)
    kept = (
        f"{map_file} is as it was; the work so far is kept in {output or map_file}.work: run the same command to go on"
    )
    known = header.landmarks
    landmarks = LandmarkConfig(kind="none") if known is None else points_config(known)
    images = sum(len(recording.frames) for recording in recordings)
    try:
        with bars(stoppable=True) as progress:
            progress.plan(usual_seconds(images, landmarks, header.encoder, header.head, training))
            result = update_map(
                map_file,
                recordings,
                encoder,
                output,
                training=training,
                licence=licence,
                keep=keep_features,
                progress=progress,
            )
    except (DimmError, OSError, KeyboardInterrupt) as error:
        if not isinstance(error, BusyError) and Path(f"{output or map_file}.work").exists():
            note(kept)
        raise
    if result.path is None:
        note(f"Stopped; {kept}.")
        raise typer.Exit(EXIT_STOPPED)
    if as_json:
        say_json(
            {"map": str(result.path), "images": images, "bytes": result.path.stat().st_size, "seconds": result.seconds}
        )
    else:
        say(f"Updated with {images} images. {describe(result, sum(one.frames for one in header.sources) + images)}")
