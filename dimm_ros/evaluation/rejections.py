"""Why images had no answer: the sentences of localizer, solver and node, counted by kind, each kind with its cure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

_NOT_OF_THE_MAP = (
    "these views are not of this map, or look another way than the mapped ones: check that it is the right map and the "
    "right camera_info ('dimm doctor'), then record there and take it in with 'dimm map update'"
)
_RAYS_DISAGREE = (
    "a wrong camera (focal length, lens model: 'dimm doctor' tells), much that was not there when the map was made, or "
    "another place; record there and take it in with 'dimm map update'"
)
_UNCERTAIN = (
    "the map knows little from here: record more views, closer together ('dimm doctor' shows where they are thin), or "
    "train longer ('dimm map --steps')"
)


@dataclass(frozen=True)
class RejectionKind:
    """Kind of rejection: sentences that mean the same.

    Attributes:
        name: in a few words.
        begins: regular expression of their beginning.
        cure: what to do about it.
    """

    name: str
    begins: str
    cure: str


KINDS = (
    RejectionKind("unlike every mapped view", r"The image is unlike every mapped view", _NOT_OF_THE_MAP),
    RejectionKind("too few rays agree with the pose", r"Only \d+ ?% of the rays agree", _RAYS_DISAGREE),
    RejectionKind("too few rays agree on a rotation", r"Only \d+ of \d+ rays agree on a rotation", _RAYS_DISAGREE),
    RejectionKind("too few rays meet in a point", r"Only \d+ of \d+ rays meet", _RAYS_DISAGREE),
    RejectionKind("no two rays fit each other", r"No two of the \d+ rays", _RAYS_DISAGREE),
    RejectionKind(
        "too few rays are finite",
        r"Only \d+ of \d+ rays are finite",
        "the lens model holds for too little of the image: check its distortion",
    ),
    RejectionKind(
        "the rays do not fix a pose",
        r"(The \d+ rays leave the pose undetermined|The pose's covariance is not finite)",
        _UNCERTAIN,
    ),
    RejectionKind(
        "uncertain position",
        r"The position is uncertain",
        f"{_UNCERTAIN}; the node can accept more (acceptance.max_position_sigma)",
    ),
    RejectionKind(
        "uncertain rotation",
        r"The rotation is uncertain",
        f"{_UNCERTAIN}; the node can accept more (acceptance.max_rotation_sigma_deg)",
    ),
    RejectionKind(
        "not believed yet",
        r"(No pose is believed yet|The last pose is too old to vouch|The hint is being checked)",
        "a first pose, or one after a while without any, takes images that agree (gate.first_fix), so the first ones "
        "have no answer",
    ),
    RejectionKind(
        "far from the pose before",
        r"(The pose is [\d.]+ m and [\d.]+ deg from where|The estimate is in another map)",
        "two places look alike, or odometry slips: give a hint (initialpose), or see in the picture where it leaps",
    ),
    RejectionKind(
        "nothing to see in the image",
        r"The image is (black|white|of one colour)",
        "uncover the lens, light the place, or mend the exposure",
    ),
    RejectionKind(
        "image out of time",
        r"(The image is (dated )?[\d.]+ s (old|in the future)|The image is not newer|use_sim_time is set)",
        "stamps and the node's clock do not fit: see docs/ros.md on time",
    ),
    RejectionKind(
        "no word from the node",
        r"The node said nothing",
        "images were lost or the node ended: see node.log, and docs/ros.md on the DDS profile",
    ),
)


def kind_of(reason: str) -> RejectionKind:
    """What a sentence means; one of no known kind stands for itself, without its numbers."""
    known = next((kind for kind in KINDS if re.match(kind.begins, reason)), None)
    return known or RejectionKind(re.sub(r"\d+(\.\d+)?", "..", reason).rstrip("."), "", "see the reason of each frame")


def count_rejections(reasons: Iterable[str]) -> list[dict[str, str | int]]:
    """Kinds of rejections, the most frequent first: {"reason", "frames", "cure", "example"}, the last as given."""
    kinds = [(kind_of(reason), reason) for reason in reasons]
    examples = {kind.name: (kind, reason) for kind, reason in reversed(kinds)}
    counts = Counter(kind.name for kind, _ in kinds)
    return [
        {"reason": name, "frames": frames, "cure": examples[name][0].cure, "example": examples[name][1]}
        for name, frames in counts.most_common()
    ]
