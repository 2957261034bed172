"""Packages of which a distribution has an older version than this package can use."""

import re
import sys
from importlib.metadata import PackageNotFoundError, version


def need(package: str, minimum: str) -> None:
    """End the program with one sentence where a package is older than this one can use; for the way in of a program.

    Args:
        package: its name on the package index.
        minimum: its oldest version that will do, such as "0.9.4".
    """
    try:
        found = version(package)
    except PackageNotFoundError:  # the import says so
        return
    if _numbers(found) < _numbers(minimum):
        sys.exit(
            f"error: {package} {found} is too old for dimm_ros, which needs {minimum}: pip install "
            f"'{package}>={minimum}'"
        )


def _numbers(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", text)[:3]]
