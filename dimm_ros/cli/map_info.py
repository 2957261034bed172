"""``dimm map info``: what a map file is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dimm_ros.cli import options
from dimm_ros.cli.console import say_json, show
from dimm_ros.cli.verbs import Verb

_EPILOG = "Examples:\n\n  dimm map info office.dimm\n\n  dimm map info office.dimm --json"


def register(app: typer.Typer) -> None:
    app.command("info", cls=Verb, epilog=_EPILOG)(run)


def run(
    map_file: Annotated[Path, typer.Argument(metavar="MAP", help="a map that 'dimm map' wrote", show_default=False)],
    as_json: options.AsJson = False,
) -> None:
    """What a map is: sources and their licence, encoder, coverage, held-out accuracy, size, date, format."""
    from dimm_ros.evaluation.map_info import map_info, table

    info = map_info(map_file)
    if as_json:
        say_json(info)
    else:
        show(table(info))
