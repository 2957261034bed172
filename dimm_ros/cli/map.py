"""``dimm map``: train a map from a recording; its sub-verbs have files of their own."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from dimm_ros.cli import map_align, map_info, map_merge, map_report, map_update, options
from dimm_ros.cli.console import EXIT_STOPPED, bars, describe, note, say, say_json
from dimm_ros.cli.map_group import DEFAULT, MapVerbs
from dimm_ros.cli.verbs import Verb
from dimm_ros.config import PRESETS
from dimm_ros.errors import BusyError, DimmError

if TYPE_CHECKING:
    from dimm_ros.cli.console import Bars
    from dimm_ros.data.recording import Recording

_EPILOG = (
    "Examples:\n\n  dimm map tour_bag -o office.dimm\n\n  dimm map redkitchen --split near:train -o kitchen.dimm "
    "--preset cpu\n\n"
    "  dimm map tour_bag -o office.dimm --image-topic /front/image_raw --map-frame map"
)

Preset = Enum("Preset", {name: name for name in ("auto", *PRESETS)}, type=str)


class Depth(str, Enum):
    """Source of the depth for virtual views."""

    auto = "auto"
    recorded = "recorded"
    stereo = "stereo"
    none = "none"


class LandmarkChoice(str, Enum):
    """How a map holds its landmarks."""

    points = "points"
    lines = "lines"
    none = "none"


_GROUP_EPILOG = (
    "Examples:\n\n  dimm map tour_bag -o office.dimm\n\n  dimm map info office.dimm\n\n  dimm map update "
    "office.dimm new_wing_bag -o office2.dimm\n\n"
    "A recording that is called like a verb is given as ./info."
)


def register(app: typer.Typer) -> None:
    verbs = typer.Typer(
        cls=MapVerbs, help="What can be done with maps; without a verb, one is trained (new).", epilog=_GROUP_EPILOG
    )
    verbs.command(DEFAULT, cls=Verb, epilog=_EPILOG)(run)
    for verb in (map_info, map_report, map_update, map_merge, map_align):
        verb.register(verbs)
    app.add_typer(verbs, name="map")


def run(
    source: Annotated[
        Path,
        typer.Argument(
            help="bag, COLMAP model or the folder of a known data set, see docs/data.md", show_default=False
        ),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="the map file to write")],
    landmarks: Annotated[
        Optional[LandmarkChoice],
        typer.Option(
            help="landmarks as points, hidden in lines, or none: rays alone (docs/privacy.md says what each gives away)"
        ),
    ] = None,
    preset: Annotated[Preset, typer.Option(help="sizes and lengths; auto is cpu, on a GPU too")] = Preset.auto,
    steps: Annotated[Optional[int], typer.Option(min=1, help="training steps instead of the preset's")] = None,
    passes: Annotated[
        Optional[int], typer.Option(min=1, help="encoded views per image instead of the preset's")
    ] = None,
    depth: Annotated[Optional[Depth], typer.Option(help="depth for virtual views instead of the preset's")] = None,
    encoder: Annotated[
        Optional[str], typer.Option(help="encoder instead of the preset's, such as dinov2-base; see 'dimm weights'")
    ] = None,
    input_size: Annotated[
        Optional[int], typer.Option(min=56, help="longer side of the encoder's input, a multiple of 14")
    ] = None,
    name: Annotated[Optional[str], typer.Option(help="the map's name; default: its file's")] = None,
    overwrite: options.Overwrite = False,
    licence: options.Licence = None,
    keep_features: Annotated[
        bool,
        typer.Option(
            "--keep-features",
            help="keep tokens of the images in MAP.features.safetensors for 'dimm map update' (private)",
        ),
    ] = False,
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
    """Train a map from a recording of posed images.

    Ctrl-C stops safely: during the training it saves a usable map. The same command goes on from there.
    """
    from dimm_ros.config import preset_of
    from dimm_ros.encoder.dinov2 import Encoder, choose_device
    from dimm_ros.encoder.patches import PATCH
    from dimm_ros.encoder.weights import encoder_config
    from dimm_ros.mapping.build import build_map
    from dimm_ros.mapping.distributed import joined_workers, local_device
    from dimm_ros.mapping.stages import usual_seconds

    if input_size is not None and input_size % PATCH:
        raise typer.BadParameter(
            f"must be a multiple of {PATCH}, such as {round(input_size / PATCH) * PATCH}.", param_hint="--input-size"
        )
    options.check_new_map(output, overwrite, goes_on=True)
    recording = options.opened(
        source, split, options.bag_options(image_topic, camera_info_topic, pose_topic, map_frame)
    )
    chosen = preset_of(preset.value, choose_device(device).type)
    training = chosen.training.changed(seed=seed, steps=steps, passes=passes, depth=depth and depth.value)
    network = encoder_config(encoder or chosen.encoder.name, chosen.encoder).changed(input_size=input_size)
    device = local_device(device)
    opened = Encoder.open(network, device=device, weights=weights)
    kept = f"the work so far is kept in {output}.work: run the same command to go on"
    try:
        with joined_workers(opened.device) as workers, bars(stoppable=True, visible=workers.first) as progress:
            if workers.first and not Path(f"{output}.work").exists():
                _tell_findings(recording, progress)
            kinds = chosen.landmarks.changed(kind=landmarks and landmarks.value)
            progress.plan(usual_seconds(len(recording.frames), kinds, network, chosen.head, training))
            result = build_map(
                recording,
                output,
                opened,
                head=chosen.head,
                training=training,
                landmarks=kinds,
                name=name,
                licence=licence,
                keep=keep_features,
                progress=progress,
                workers=workers,
            )
        if not workers.first:
            return  # the first one has said it all
    except (DimmError, OSError, KeyboardInterrupt) as error:
        if not isinstance(error, BusyError) and Path(f"{output}.work").exists():
            note(f"no map was written; {kept}")
        raise
    if result.path is None:
        note(f"Stopped; no map was written yet, but {kept}.")
        raise typer.Exit(EXIT_STOPPED)
    if as_json:
        say_json(
            {
                "map": str(result.path),
                "complete": result.complete,
                "images": len(recording.frames),
                "bytes": result.path.stat().st_size,
                "seconds": result.seconds,
            }
        )
    else:
        say(describe(result, len(recording.frames)))
    if not result.complete:
        note("Run the same command to go on.")
        raise typer.Exit(EXIT_STOPPED)


def _tell_findings(recording: Recording, progress: Bars) -> None:
    """What the doctor finds, so that nobody waits long for a map that cannot be good."""
    from dimm_ros.doctor.examine import main_findings

    def shown(stage: str, done: int, total: int) -> None:
        if progress(stage, done, total):
            raise KeyboardInterrupt

    for finding in main_findings(recording, shown):
        note(f"{finding.severity.name.lower()}: {finding.check}: {finding.what}; {finding.cure} (see 'dimm doctor')")
