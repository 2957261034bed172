"""Every dimm command that a document or a help page shows is one that dimm understands; nothing is run."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.main import get_command

from dimm_ros.cli.main import app

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
OPERATORS = {"|", "||", "&&", ";", ">", ">>", "2>", "<", "&"}


def blocks(text: str) -> list[str]:
    """The lines of the fenced blocks, continued ones joined."""
    return [
        line
        for block in re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
        for line in block.replace("\\\n", " ").splitlines()
    ]


def commands(lines: list[str]) -> Iterator[list[str]]:
    """The words after dimm of each command that begins a line or follows a shell's operator."""
    for line in lines:
        if not re.search(r"(^|\s)dimm\s", line) or "│" in line:
            continue
        try:
            words = shlex.split(line.removeprefix("$ "), comments=True)
        except ValueError:  # an apostrophe of prose
            continue
        while words:
            end = next((place for place, word in enumerate(words) if word in OPERATORS), len(words))
            if words[0] == "dimm":
                yield words[1:end]
            words = words[end + 1 :]


def resolve(words: list[str]):
    """The command that the words name, and the words that are left for it."""
    command, context = get_command(app), None
    while hasattr(command, "commands"):
        context = command.make_context("dimm", list(words), parent=context)
        left = [*getattr(context, "_protected_args", []), *context.args]
        _, command, words = command.resolve_command(context, left)
    return command, words, context


def parse(words: list[str]) -> None:
    """Raises click's usage error when dimm would."""
    command, left, context = resolve(words)
    command.make_context("dimm", list(left), parent=context)


def shown(pages: list[Path]) -> list[tuple[str, list[str]]]:
    return [(page.name, words) for page in pages for words in commands(blocks(page.read_text(encoding="utf-8")))]


@pytest.mark.parametrize(
    ("page", "words"), shown(PAGES), ids=lambda value: value if isinstance(value, str) else " ".join(value)
)
def test_commands_in_blocks(page: str, words: list[str]) -> None:
    parse(words)


def test_commands_in_text() -> None:
    """`dimm verb --option ...` in backquotes may leave arguments out, but what it names exists."""
    checked = 0
    for page in PAGES:
        text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
        for code in re.findall(r"`dimm ([^`]+)`", text):
            words = code.split()
            name, command = [], get_command(app)
            while words and hasattr(command, "commands"):
                assert words[0].startswith("-") or words[0] in command.commands or name, f"{page.name}: dimm {code}"
                if words[0] not in command.commands:
                    break
                command = command.commands[words[0]]
                name.append(words.pop(0))
            command = getattr(command, "default", command)  # of dimm map
            known = {option for param in command.params for option in (*param.opts, *param.secondary_opts)} | {"--help"}
            assert {word for word in words if word.startswith("--")} <= known, f"{page.name}: dimm {code}"
            checked += 1
    assert checked > 10


def leaves(command) -> Iterator:
    for below in getattr(command, "commands", {}).values():
        yield from leaves(below) if hasattr(below, "commands") else [below]


@pytest.mark.parametrize("verb", list(leaves(get_command(app))), ids=lambda verb: verb.name)
def test_examples_of_the_help_pages(verb) -> None:
    found = list(commands([line.strip() for line in (verb.epilog or "").splitlines()]))
    assert found, f"{verb.name} has no example"
    for words in found:
        parse(words)


@pytest.mark.parametrize("verb", list(leaves(get_command(app))), ids=lambda verb: verb.name)
def test_every_verb_has_json(verb) -> None:
    assert any("--json" in param.opts for param in verb.params)


def test_wrong_commands_are_noticed() -> None:
    usage_error = typer.BadParameter.__mro__[1]  # click's, or that of the click in newer typers

    for words in (
        ["fly"],
        ["map", "bag"],
        ["map", "bag", "-o", "a.dimm", "--fly"],
        ["eval", "a.dimm"],
        ["gallery", "bag", "--storage", "tape"],
    ):
        with pytest.raises(usage_error):
            parse(words)
    assert list(commands(["$ dimm map a -o b  # why", "cd x && dimm doctor a | head", "run dimm"])) == [
        ["map", "a", "-o", "b"],
        ["doctor", "a"],
    ]
