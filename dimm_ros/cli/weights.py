"""``dimm weights``: find or fetch an encoder's weights."""

from __future__ import annotations

from typing import Annotated

import typer

from dimm_ros.cli import options
from dimm_ros.cli.console import say, say_json
from dimm_ros.cli.verbs import Verb

_EPILOG = "Examples:\n\n  dimm weights\n\n  dimm weights dinov2-base\n\n  dimm weights --json"


def register(app: typer.Typer) -> None:
    app.command("weights", cls=Verb, epilog=_EPILOG)(run)


def run(
    name: Annotated[str, typer.Argument(help="encoder name")] = "dinov2-small", as_json: options.AsJson = False
) -> None:
    """Find an encoder's weights (cache, model hub, stand-in), fetch them if needed, and say which they are."""
    from dimm_ros.encoder.weights import find_weights

    found = find_weights(name)
    if as_json:
        say_json({"encoder": name, "origin": found.origin, "path": str(found.path), "sha256": found.sha256})
    else:
        say(f"{name}: {found.origin}\n  {found.path}\n  SHA-256 {found.sha256}")
