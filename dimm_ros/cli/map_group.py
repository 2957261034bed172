"""``dimm map`` and its sub-verbs: what is none of them is the recording to be mapped."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path

from dimm_ros.cli.verbs import Verbs

#: The verb that is meant where none is named; a recording called as a verb is given as ./info.
DEFAULT = "new"


class MapVerbs(Verbs):
    """``dimm map DATA -o MAP`` is ``dimm map new DATA -o MAP``."""

    @property
    def default(self):
        """The command that is run where no verb is named."""
        return self.commands[DEFAULT]

    def parse_args(self, ctx, args: list[str]) -> list[str]:
        named = bool(args) and (args[0] in self.commands or args[0] == "--help")
        if not named and not (ctx.resilient_parsing and not args):
            if args and not args[0].startswith("-") and not Path(args[0]).exists():
                self._check_spelling(ctx, args[0])
            args = [DEFAULT, *args]
        return super().parse_args(ctx, args)

    def _check_spelling(self, ctx, word: str) -> None:
        """A word that is no recording, but nearly a verb, ends in wrong usage."""
        alike = get_close_matches(word, [name for name in self.commands if name != DEFAULT], n=1)
        if alike:
            ctx.fail(f"'{word}' is neither a verb of dimm map nor a recording that exists; did you mean '{alike[0]}'?")

    def format_help(self, ctx, formatter) -> None:
        alone = self.default.make_context(ctx.info_name, [], parent=ctx.parent, resilient_parsing=True)
        self.default.format_help(alone, formatter)
        super().format_help(ctx, formatter)
