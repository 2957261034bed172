"""Named parts of a recording, such as ``near:train``.

Published data sets come with the split ``official``: ``official:train`` to map, ``official:val`` for the images that
the published protocol judges (the data set's own "test"), and ``official:tune`` where it has a third part. A
``split.json`` beside any data adds more.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from dimm_ros.data.recording import Frame, Recording
from dimm_ros.errors import DataError

Splits = dict[str, dict[str, list[int]]]

SPLIT_FILE = "split.json"
#: Name of the split that a data set was published with.
OFFICIAL = "official"
#: Name of the split of a split.json that holds only one, {part: [frames]}.
ONLY = "default"


def add_split_file(recording: Recording, path: Path) -> Recording:
    """The recording with the parts of a split.json, whose lists hold frame numbers or names.

    A number is the last one in a frame's name ("frame-000012" or "seq1/IMG_0012.png" is 12) and may be used where these
    differ. A name is the frame's own, or its file name alone where that is unique.

    Raises:
        DataError: the file is neither {name: {part: [frames]}} nor {part: [frames]}, or gives numbers that are not
        unique.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
        if content and all(isinstance(listed, list) for listed in content.values()):
            content = {ONLY: content}
        entries = {
            name: {part: [_entry(value) for value in listed] for part, listed in parts.items()}
            for name, parts in content.items()
        }
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        raise DataError(
            f"'{path}' cannot be read; it must hold {{name: {{part: [frame numbers or names]}}}} or {{part: [...]}} as "
            "JSON."
        ) from None
    listed = [entry for parts in entries.values() for values in parts.values() for entry in values]
    index_of = _by_name(recording.frames)
    if any(isinstance(entry, int) for entry in listed):
        numbers = _by_number(recording.frames)
        if numbers is None:
            raise DataError(
                f"'{path}' lists frame numbers, but those in the frames' names are not unique; list the names."
            )
        index_of |= numbers
    splits = {
        name: {part: [index_of[entry] for entry in values if entry in index_of] for part, values in parts.items()}
        for name, parts in entries.items()
    }
    absent = len({entry for entry in listed if entry not in index_of})
    notes = (f"{absent} frames of {path.name} are not in the folder or have no valid pose.",) if absent else ()
    return replace(recording, splits=recording.splits | splits, notes=(*recording.notes, *notes))


def _entry(value: object) -> int | str:
    return value.replace("\\", "/") if isinstance(value, str) else int(value)


def _by_name(frames: Sequence[Frame]) -> dict[int | str, int]:
    files: dict[int | str, int | None] = {}
    for index, frame in enumerate(frames):
        file = PurePosixPath(frame.name).name
        files[file] = None if file in files else index
    return {file: index for file, index in files.items() if index is not None} | {
        frame.name: index for index, frame in enumerate(frames)
    }


def _by_number(frames: Sequence[Frame]) -> dict[int | str, int] | None:
    found = [re.findall(r"\d+", PurePosixPath(frame.name).stem) for frame in frames]
    numbers: dict[int | str, int] = {int(digits[-1]): index for index, digits in enumerate(found) if digits}
    return numbers if len(numbers) == len(frames) else None


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
            f"'{recording.name}' has no split '{split}'; "
            + (f"it has {names}." if names else f"it has no {SPLIT_FILE} and no published split.")
        )
    if not indices:
        raise DataError(f"Split '{split}' of '{recording.name}' holds no frame; check its {SPLIT_FILE}.")
    return replace(
        recording,
        name=f"{recording.name}-{name}-{part}",
        frames=[recording.frames[index] for index in sorted(indices)],
        splits={},
    )
