"""``dimm map report``: a map as one page of pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from dimm_ros.cli import options
from dimm_ros.cli.console import bars, say, say_json
from dimm_ros.cli.verbs import Verb

_EPILOG = (
    "Examples:\n\n  dimm map report office.dimm\n\n  dimm map report office.dimm second_bag -o office.html\n\n"
    "  dimm map report kitchen.dimm redkitchen --split near:val --json"
)


def register(app: typer.Typer) -> None:
    app.command("report", cls=Verb, epilog=_EPILOG)(run)


def run(
    map_file: Annotated[Path, typer.Argument(metavar="MAP", help="a map that 'dimm map' wrote", show_default=False)],
    sources: Annotated[
        Optional[list[Path]],
        typer.Argument(metavar="[DATA]...", help="bags or folders with true poses", show_default=False),
    ] = None,
    output: Annotated[
        Optional[Path], typer.Option("-o", "--output", help="the page to write; default: MAP.html")
    ] = None,
    split: options.Split = None,
    as_json: options.AsJson = False,
    weights: options.WeightsFile = None,
    device: options.Device = "auto",
    image_topic: options.ImageTopic = None,
    camera_info_topic: options.CameraInfoTopic = None,
    pose_topic: options.PoseTopic = None,
    map_frame: options.MapFrame = "map",
) -> None:
    """Draw a map: where it was recorded from, how its training went and, on DATA with true poses, how good it is and
    where it is not.

    One HTML file with everything in it. It shows images of DATA, so give it to nobody who may not see them.
    """
    from dimm_ros.errors import InputError
    from dimm_ros.evaluation.map_report import write_map_report

    output = output or map_file.with_name(map_file.name + ".html")
    if output.is_dir():
        raise InputError(f"{output} is a folder; give a file name with -o, such as {output / 'map.html'}.")
    topics = options.bag_options(image_topic, camera_info_topic, pose_topic, map_frame)
    recordings = [options.opened(source, split, topics) for source in sources or ()]
    with bars() as progress:
        figures = write_map_report(
            map_file,
            output,
            recordings,
            device=device,
            weights=weights,
            progress=lambda name, done, total: progress(name, done, total),
        )
    if as_json:
        say_json(figures | {"report": str(output)})
    else:
        say(f"report: {output} ({output.stat().st_size / 1e6:.1f} MB)")
