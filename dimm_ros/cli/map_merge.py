"""``dimm map merge``: several maps in one frame become one file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from dimm_ros.cli import options
from dimm_ros.cli.console import say, say_json
from dimm_ros.cli.verbs import Verb

_EPILOG = (
    "Examples:\n\n  dimm map merge east.dimm west.dimm -o floor.dimm\n\n  dimm map merge east.dimm "
    "west.dimm -o floor.dimm --name floor --json"
)


def register(app: typer.Typer) -> None:
    app.command("merge", cls=Verb, epilog=_EPILOG)(run)


def run(
    maps: Annotated[
        list[Path], typer.Argument(metavar="MAP MAP...", help="maps of one encoder in one frame", show_default=False)
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="the map file to write")],
    name: Annotated[Optional[str], typer.Option(help="the new map's name; default: its file's")] = None,
    overwrite: options.Overwrite = False,
    as_json: options.AsJson = False,
) -> None:
    """Write one map that knows what several know; nothing is trained, and no image is needed.

    The maps' heads stay as they are, side by side; each image is answered by the one that it is most familiar to.
    """
    from dimm_ros.mapping.merge import merge_maps
    from dimm_ros.scene_map import SceneMap

    options.check_new_map(output, overwrite)
    merge_maps(maps, output, name=name)
    header = SceneMap.load(output).header
    size, images = output.stat().st_size, sum(source.frames for source in header.sources)
    if as_json:
        say_json({"map": str(output), "parts": [part.name for part in header.parts], "images": images, "bytes": size})
    else:
        say(f"Map of {images} images, merged from {len(header.parts)}: {output} ({size / 1e6:.1f} MB)")
