"""``dimm export``: a map's network as an ONNX file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from dimm_ros.cli import options
from dimm_ros.cli.console import say, say_json
from dimm_ros.cli.verbs import Verb

_EPILOG = "Examples:\n\n  dimm export office.dimm\n\n  dimm export office.dimm -o networks --precision int8"


def register(app: typer.Typer) -> None:
    app.command("export", cls=Verb, epilog=_EPILOG)(run)


def run(
    map_file: Annotated[Path, typer.Argument(metavar="MAP", show_default=False)],
    output: Annotated[
        Optional[Path], typer.Option("-o", "--output", help="file.onnx or folder to write; default: beside the map")
    ] = None,
    precision: Annotated[str, typer.Option(help="fp32, or int8: faster on most CPUs, a little less accurate")] = "fp32",
    weights: options.WeightsFile = None,
    as_json: options.AsJson = False,
) -> None:
    """Export encoder and head of a map to ONNX, for ONNX Runtime (backend: onnx) and other runtimes.

    The localizer looks for the file beside the map, and takes it for this very map only.
    """
    from dimm_ros.runtime.export import export_map

    path = export_map(map_file, output, weights=weights, precision=precision)
    size = path.stat().st_size
    if as_json:
        say_json({"network": str(path), "precision": precision, "bytes": size})
    else:
        say(f"{path} ({size / 1e6:.1f} MB, {precision})")
