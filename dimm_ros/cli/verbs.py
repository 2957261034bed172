"""Classes of the command line's verbs and groups of verbs."""

from __future__ import annotations

from typer.core import TyperCommand, TyperGroup


class _PlainFlags:
    """Help pages show a switch as a switch, not as something that takes a <bool>."""

    def get_params(self, ctx) -> list:
        params = super().get_params(ctx)
        for param in params:
            if getattr(param, "is_flag", False) and param.metavar is None:
                param.metavar = ""
        return params


class Verb(_PlainFlags, TyperCommand):
    """A verb; in the list of verbs its first sentence flows, whatever the docstring's line breaks."""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        if self.help and not self.short_help:
            self.short_help = " ".join(self.help.split("\n\n")[0].split())


class Verbs(_PlainFlags, TyperGroup):
    """Several verbs."""
