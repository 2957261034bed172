"""Finding of a check, with cause and cure."""

from __future__ import annotations

import enum
from dataclasses import asdict, dataclass, field

import numpy as np


class Severity(enum.IntEnum):
    """How bad a finding is; only a PROBLEM makes ``dimm doctor`` exit with 3."""

    OK = 0
    UNKNOWN = 1
    WARNING = 2
    PROBLEM = 3


@dataclass(frozen=True)
class Finding:
    """Finding: a line of the table.

    Attributes:
        severity: UNKNOWN means that the recording does not allow a verdict.
        check: short name of what was checked, such as "focal length".
        what: what was seen, with figures and units.
        cause: the usual reason; empty where all is well.
        cure: what to do.
        figures: the numbers behind it, for scripts.
    """

    severity: Severity
    check: str
    what: str
    cause: str = ""
    cure: str = ""
    figures: dict = field(default_factory=dict)

    def as_dict(self) -> dict:
        """For JSON, the severity by its name."""
        return asdict(self) | {"severity": self.severity.name.lower()}


def two_digits(value: float) -> str:
    """A distance of any size for a sentence: 0.0084, 2.3, 180, 2300."""
    return np.format_float_positional(value, precision=2, fractional=False, trim="-")


def ok(check: str, what: str, **figures) -> Finding:
    return Finding(severity=Severity.OK, check=check, what=what, figures=figures)


def unknown(check: str, what: str, cause: str = "", cure: str = "", **figures) -> Finding:
    return Finding(severity=Severity.UNKNOWN, check=check, what=what, cause=cause, cure=cure, figures=figures)


def warning(check: str, what: str, cause: str, cure: str, **figures) -> Finding:
    return Finding(severity=Severity.WARNING, check=check, what=what, cause=cause, cure=cure, figures=figures)


def problem(check: str, what: str, cause: str, cure: str, **figures) -> Finding:
    return Finding(severity=Severity.PROBLEM, check=check, what=what, cause=cause, cure=cure, figures=figures)
