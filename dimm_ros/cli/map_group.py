"""``dimm map`` and its sub-verbs: what is none of them is the recording to be mapped."""

from __future__ import annotations

from typer.core import TyperGroup

#: The verb that is meant where none is named; a recording called as a verb is given as ./info.
DEFAULT = "new"


class MapVerbs(TyperGroup):
    """``dimm map DATA -o MAP`` is ``dimm map new DATA -o MAP``."""

    @property
    def default(self):
        """The command that is run where no verb is named."""
        return self.commands[DEFAULT]

    def parse_args(self, ctx, args: list[str]) -> list[str]:
        named = bool(args) and (args[0] in self.commands or args[0] == "--help")
        if not named and not (ctx.resilient_parsing and not args):
            args = [DEFAULT, *args]
        return super().parse_args(ctx, args)

    def format_help(self, ctx, formatter) -> None:
        alone = self.default.make_context(ctx.info_name, [], parent=ctx.parent, resilient_parsing=True)
        self.default.format_help(alone, formatter)
        super().format_help(ctx, formatter)
