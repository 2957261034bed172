"""``dimm audit``: what an attacker can read out of a map file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from dimm_ros.cli import options
from dimm_ros.cli.console import bars, note, say, say_json, show
from dimm_ros.cli.verbs import Verb, Verbs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dimm_ros.data.recording import Frame

_EPILOG = (
    "Examples:\n\n  dimm audit privacy office.dimm\n\n  dimm audit privacy office.dimm tour_bag --foreign other_bag "
    "--json\n\n"
    "  dimm audit privacy kitchen.dimm redkitchen --split near:train --unseen near:val --foreign bonsai"
)


def register(app: typer.Typer) -> None:
    audit = typer.Typer(cls=Verbs, no_args_is_help=True, help="What an attacker can read out of a map file.")
    audit.command("privacy", cls=Verb, epilog=_EPILOG)(privacy)
    app.add_typer(audit, name="audit")


def privacy(
    map_file: Annotated[Path, typer.Argument(metavar="MAP", help="a map that 'dimm map' wrote", show_default=False)],
    source: Annotated[
        Optional[Path], typer.Argument(metavar="DATA", help="the recording it was made from, to judge the attacks by")
    ] = None,
    split: options.Split = None,
    unseen: Annotated[
        Optional[str], typer.Option(help="part of DATA that the map was not made from, NAME:PART")
    ] = None,
    foreign: Annotated[
        Optional[Path], typer.Option(help="bag or folder of another place; default: a rendered room")
    ] = None,
    images: Annotated[
        int, typer.Option(min=4, help="images of each kind, evenly chosen; of the mapped ones twice as many")
    ] = 50,
    results: options.Results = options.RESULTS,
    as_json: options.AsJson = False,
    weights: options.WeightsFile = None,
    device: options.Device = "auto",
    image_topic: options.ImageTopic = None,
    camera_info_topic: options.CameraInfoTopic = None,
    pose_topic: options.PoseTopic = None,
    map_frame: options.MapFrame = "map",
) -> None:
    """Attack a map file: camera path, images, scene structure. docs/privacy.md says what each attack does.

    With DATA the attacks are judged against the truth; where it has depth images, so is the structure, beside a
    scene-coordinate map of the same images.
    """
    from dimm_ros.audit.attacker import check_place, read_out
    from dimm_ros.audit.photos import foreign_frames, take
    from dimm_ros.audit.privacy import Evidence, attack
    from dimm_ros.audit.report import tables, write_report
    from dimm_ros.data.open import open_recording
    from dimm_ros.encoder.dinov2 import Encoder, choose_device
    from dimm_ros.errors import InputError
    from dimm_ros.evaluation.report import new_results
    from dimm_ros.mapping.landmarks import points_of
    from dimm_ros.scene_map import SceneMap

    if unseen is not None and source is None:
        raise InputError("--unseen names a part of DATA; give DATA, the recording the map was made from.")
    topics = options.bag_options(image_topic, camera_info_topic, pose_topic, map_frame)
    mapped = None if source is None else open_recording(source, split=split, **topics)
    other = None if unseen is None else open_recording(source, split=unseen, **topics)
    scene_map = SceneMap.load(map_file, choose_device(device))
    header = scene_map.header
    read_out(scene_map)  # refuses merged maps before anything is encoded
    elsewhere = foreign_frames(images) if foreign is None else _some(open_recording(foreign, **topics).frames, images)
    with new_results(f"audit_{header.name}", results) as folder:
        encoder = Encoder.open(header.encoder, device=device, weights=weights, sha256=header.encoder_sha256)
        with bars() as progress:
            kinds = {
                "mapped": [] if mapped is None else _some(mapped.frames, 2 * images),
                "unseen": [] if other is None else _some(other.frames, images),
                "foreign": elsewhere,
            }
            photos = {}
            for kind, frames in kinds.items():

                def report(done: int, kind: str = kind, total: int = len(frames)) -> None:
                    progress(kind, done, total)

                photos[kind] = take(frames, encoder, report)
                if kind != "foreign" and photos[kind]:
                    check_place(scene_map, photos[kind], mapped.name, mapped=kind == "mapped")
            true_path = None if mapped is None else mapped.poses()
            landmarks = {
                name: None
                if recording is None
                else points_of(scene_map, recording, lambda stage, done, total: bool(progress(stage, done, total)))
                for name, recording in (("true_landmarks", mapped), ("second_landmarks", other))
            }
            audit = attack(scene_map, Evidence(**photos, true_path=true_path, **landmarks), progress=progress)
        write_report(folder, header.name, audit, true_path)
    if as_json:
        say_json(audit.figures)
        return
    for table in tables(f"what {map_file.name} gives away", audit.figures):
        show(table)
    if mapped is None:
        note("Without DATA nothing is judged: give the recording that the map was made from.")
    say(f"pictures and audit.json: {folder} (also as {results / 'latest'})")


def _some(frames: Sequence[Frame], count: int) -> list[Frame]:
    """At most so many frames, evenly chosen."""
    step = max(1.0, len(frames) / count)
    return [frames[int(number * step)] for number in range(min(count, len(frames)))]
