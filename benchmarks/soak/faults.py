"""What goes wrong, how long, and the words that the localizer must find for it."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class InjectedFault:
    """One kind of fault.

    Attributes:
        name: as in figures and in commands to the camera.
        words: regular expression that a status's reason or a diagnostic's message must match.
        seconds: shortest and longest time.
        blind: the images show nothing of the map, so that a pose of them is a wrong one.
    """

    name: str
    words: str
    seconds: tuple[float, float] = (1.0, 2.5)
    blind: bool = False

    def named_in(self, text: str) -> bool:
        """Whether a sentence names the fault."""
        return re.search(self.words, text) is not None


_REJECTED = r"of the rays agree|is uncertain by|unlike every mapped view|estimates agree"

FAULTS = (
    # What the camera sends.
    InjectedFault("black image", r"black", blind=True),
    InjectedFault("white image", r"white", blind=True),
    InjectedFault("noise", _REJECTED, blind=True),
    InjectedFault("NaN camera_info", r"camera's intrinsics hold NaN"),
    InjectedFault("wrong encoding", r"encoding 'rgb9' is not known"),
    InjectedFault("wrong size", r"The image is 320x240 but camera_info says 640x480"),
    InjectedFault("truncated data", r"needs 921600 bytes, but has 460800; it is truncated"),
    # When it sends it.
    InjectedFault("gap", r"No image arrives on '/camera/image_raw'", (5.0, 5.5)),
    InjectedFault("duplicated stamp", r"not newer than the one before"),
    InjectedFault("backward clock", r"max_image_age|not newer than the one before|jumped back"),
    # What TF says.
    InjectedFault("TF missing", r"'odom'"),
    InjectedFault("TF jump", r"from where the last pose and odometry put it"),
    # What happens to processes and files.
    InjectedFault("map file garbage", r"garbage\.safetensors is damaged or not a map"),
    InjectedFault("second map", r"map_name second"),
    InjectedFault("camera killed", r"No image arrives on '/camera/image_raw'", (2.5, 4.0)),
)


def schedule(seed: int, quick: bool) -> Iterator[tuple[InjectedFault, float, float]]:
    """Rounds of all faults, each round in another order, for ever.

    Args:
        seed: of the order and of the times.
        quick: shortest times only.

    Yields:
        The fault, how long it lasts, and the seconds of good images after it.
    """
    rng = random.Random(seed)
    while True:
        for fault in rng.sample(FAULTS, len(FAULTS)):
            if quick:
                yield fault, fault.seconds[0], 1.1
            else:
                yield fault, rng.uniform(*fault.seconds), rng.uniform(1.5, 4.0)
