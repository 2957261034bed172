"""The ``dimm`` command: maps, evaluation, the demo, and what they need."""

from __future__ import annotations

import logging
import os
import sys

# Before torch loads: idle OpenMP threads sleep instead of spinning, which on a busy computer costs tenfold.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import typer  # noqa: E402
from rich.markup import escape  # noqa: E402

from dimm_ros import __version__  # noqa: E402
from dimm_ros.cli import convert, demo, doctor, eval, gallery, localize, map, weights  # noqa: E402
from dimm_ros.cli.console import EXIT_ERROR, EXIT_STOPPED, errors, set_up_logging  # noqa: E402
from dimm_ros.errors import DimmError  # noqa: E402

app = typer.Typer(
    name="dimm", no_args_is_help=True, rich_markup_mode="rich", pretty_exceptions_enable=False,
    help="Localize a robot from one camera in a place it has seen before.",
)
for verb in (map, eval, localize, convert, doctor, demo, gallery, weights):
    verb.register(app)


@app.callback(invoke_without_command=True)
def _options(
    verbose: bool = typer.Option(False, "--verbose", "-v", help="say more"),
    version: bool = typer.Option(False, "--version", help="print the version"),
) -> None:
    set_up_logging(verbose)
    if version:
        print(f"dimm_ros {__version__}")
        raise typer.Exit()


def main() -> None:
    """Entry point: known errors become one sentence and exit code 2, Ctrl-C exit code 130."""
    try:
        app()
    except DimmError as error:
        errors.print(f"[bold red]error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(EXIT_ERROR)
    except KeyboardInterrupt:
        errors.print("stopped")
        sys.exit(EXIT_STOPPED)
    except OSError as error:
        logging.getLogger(__name__).debug("", exc_info=True)
        where = f" ({error.filename})" if error.filename else ""
        cause = f"{error.strerror or error}{where}"
        errors.print(f"[bold red]error:[/] {escape(cause)}; check the path, its permissions and the free disk space.", soft_wrap=True)
        sys.exit(EXIT_ERROR)


if __name__ == "__main__":
    main()
