"""How long all stages of a command will take together, told while it runs.

Each stage has a weight: the seconds that it took on the machine where it was measured. How fast this machine is against
that one is learnt from the stages as they go by, so only the weights' ratios matter.
"""

from __future__ import annotations

from collections.abc import Mapping


class StagePlan:
    """The stages ahead, in order.

    Args:
        weights: usual seconds of each stage. A stage that never shows up, since its result was there, costs nothing.
    """

    def __init__(self, weights: Mapping[str, float]) -> None:
        self._weights = dict(weights)
        self._order = list(weights)
        self._begun: dict[str, tuple[float, float]] = {}  # when a stage began, and the share that was done then
        self._last: dict[str, tuple[float, float]] = {}

    def seconds_left(self, stage: str, done: int, total: int, now: float) -> float | None:
        """Seconds until the last stage is done; None for a stage that is not in the plan, or before anything is known.

        Args:
            stage: the one under way.
            done, total: of it.
            now: seconds of a clock that never goes back.
        """
        if stage not in self._weights:
            return None
        share = done / max(total, 1)
        self._begun.setdefault(stage, (now, share))
        self._last[stage] = (now, share)
        spent = sum(self._last[name][0] - begun for name, (begun, _) in self._begun.items())
        expected = sum(
            self._weights[name] * (self._last[name][1] - share_then) for name, (_, share_then) in self._begun.items()
        )
        if not spent or not expected:
            return None
        (begun, share_then), slower = self._begun[stage], spent / expected
        own = (now - begun) / (share - share_then) if share > share_then else slower * self._weights[stage]
        later = sum(self._weights[name] for name in self._order[self._order.index(stage) + 1 :])
        return (1.0 - share) * own + later * slower
