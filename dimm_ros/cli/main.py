"""The ``dimm`` command: maps, evaluation, the demo, and what they need."""

from __future__ import annotations

import logging
import os
import signal
import sys

# Before torch loads: idle OpenMP threads sleep instead of spinning, which on a busy computer costs tenfold.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import typer  # noqa: E402
from rich.markup import escape  # noqa: E402

from dimm_ros import __version__  # noqa: E402
from dimm_ros.cli import audit, convert, demo, doctor, eval, export, gallery, localize, map, sample, weights  # noqa: E402
from dimm_ros.cli.console import EXIT_CODES, EXIT_ERROR, EXIT_STOPPED, errors, note, sentence, set_up_logging  # noqa: E402
from dimm_ros.cli.verbs import Verbs  # noqa: E402
from dimm_ros.errors import DimmError  # noqa: E402

#: In the order in which they are used: data, map, judgement, robot; the demo does it all.
_VERBS = (demo, gallery, convert, doctor, map, eval, localize, audit, export, weights, sample)


class _Verbs(Verbs):
    """Known errors of any verb become one sentence and exit code 1, Ctrl-C exit code 130."""

    def list_commands(self, ctx) -> list[str]:
        order = [verb.__name__.rpartition(".")[2] for verb in _VERBS]
        return sorted(self.commands, key=lambda name: order.index(name) if name in order else len(order))

    def main(self, *words, **options) -> object:
        try:
            try:
                return super().main(*words, **options)
            finally:
                sys.stdout.flush()  # a full disk shows here, not when Python ends
        except DimmError as error:
            _complain(str(error))
        except OSError as error:
            logging.getLogger(__name__).debug("", exc_info=True)
            _complain(sentence(error))
            _give_up_stdout()
        sys.exit(EXIT_ERROR)

    def invoke(self, ctx) -> object:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            note("stopped")
            raise typer.Exit(EXIT_STOPPED) from None


def _give_up_stdout() -> None:
    """What cannot be written now must not end Python with another error."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _complain(text: str) -> None:
    errors.print(f"[bold red]error:[/] {escape(text)}", highlight=False, soft_wrap=True)


app = typer.Typer(
    name="dimm",
    cls=_Verbs,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Localize a robot from one camera in a place it has seen before.",
    epilog=f"{EXIT_CODES}\n\nTab completion: dimm --install-completion",
)
for verb in _VERBS:
    verb.register(app)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"dimm_ros {__version__}")
        raise typer.Exit()


@app.callback()
def _options(
    verbose: bool = typer.Option(False, "--verbose", "-v", help="say more"),
    version: bool = typer.Option(False, "--version", help="print the version", callback=_version, is_eager=True),
) -> None:
    set_up_logging(verbose)


def main() -> None:
    """Entry point. What ends the process politely (``timeout``, a service manager) ends it as Ctrl-C does, leaving
    nothing half-written.
    """
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    app(prog_name="dimm")


if __name__ == "__main__":
    main()
