"""``dimm sample``: what a release hands out to try the node with; for who makes releases, hence not in the help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dimm_ros.cli import options
from dimm_ros.cli.console import EXIT_STOPPED, bars, note, say, say_json
from dimm_ros.cli.verbs import Verb

_EPILOG = "Examples:\n\n  dimm sample results/sample"


def register(app: typer.Typer) -> None:
    app.command("sample", cls=Verb, epilog=_EPILOG, hidden=True)(run)


def run(
    output: Annotated[Path, typer.Argument(metavar="FOLDER", help="the folder to write", show_default=False)],
    weights: options.WeightsFile = None,
    device: options.Device = "auto",
    as_json: options.AsJson = False,
) -> None:
    """Write a small ready map of the gallery, a ten-second bag of another walk through it, and both as an archive."""
    from dimm_ros.encoder.dinov2 import Encoder
    from dimm_ros.replay.sample import README, SampleSize, write_sample

    size = SampleSize()
    encoder = Encoder.open(size.preset.encoder, device=device, weights=weights)
    with bars(stoppable=True) as progress:
        archive = write_sample(output, encoder, progress, size)
    if archive is None:
        note("Stopped; run the same command to go on.")
        raise typer.Exit(EXIT_STOPPED)
    if as_json:
        say_json({"sample": str(output), "archive": str(archive), "bytes": archive.stat().st_size})
        return
    say(f"sample: {output} (begin with {output / README})")
    say(f"archive: {archive} ({archive.stat().st_size / 1e6:.1f} MB)")
