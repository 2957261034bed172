"""Named parts of a recording, such as ``near:train``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from dimm_ros.data.recording import Recording
from dimm_ros.errors import DataError

Splits = dict[str, dict[str, list[int]]]

#: Name of the split of a split.json that holds only one, {part: [frame numbers]}.
ONLY = "default"


def read_splits(path: Path, index_of: Mapping[int, int]) -> tuple[Splits, int]:
    """Read a split.json, whose lists hold frame numbers.

    Args:
        path: the file.
        index_of: frame number -> index into the recording's frames.

    Returns:
        Name -> part -> indices, and how many different listed frames the recording does not have.

    Raises:
        DataError: the file is neither {name: {part: [frame numbers]}} nor {part: [frame numbers]}.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content and all(isinstance(listed, list) for listed in content.values()):
            content = {ONLY: content}
        numbers = {name: {part: [int(n) for n in listed] for part, listed in parts.items()} for name, parts in content.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        raise DataError(
            f"'{path}' cannot be read; it must hold {{name: {{part: [frame numbers]}}}} or {{part: [frame numbers]}} as JSON.",
        ) from None
    absent = {n for parts in numbers.values() for listed in parts.values() for n in listed if n not in index_of}
    splits = {
        name: {part: [index_of[n] for n in listed if n in index_of] for part, listed in parts.items()}
        for name, parts in numbers.items()
    }
    return splits, len(absent)


def select(recording: Recording, split: str) -> Recording:
    """The named part of a recording, as a recording of its own.

    Args:
        recording: with splits.
        split: "name:part", or the part alone where there is only one name.

    Raises:
        DataError: no such part, or it is empty; the sentence lists the parts there are.
    """
    if ":" not in split and len(recording.splits) == 1:
        split = f"{next(iter(recording.splits))}:{split}"
    name, _, part = split.partition(":")
    indices = recording.splits.get(name, {}).get(part)
    if indices is None:
        names = ", ".join(f"{name}:{part}" for name, parts in recording.splits.items() for part in parts)
        raise DataError(
            f"'{recording.name}' has no split '{split}'; " + (f"it has {names}." if names else "it has no split.json.")
        )
    if not indices:
        raise DataError(f"Split '{split}' of '{recording.name}' holds no frame; check its split.json.")
    return replace(
        recording,
        name=f"{recording.name}-{name}-{part}",
        frames=[recording.frames[index] for index in sorted(indices)],
        splits={},
    )
