"""``make docs``: the API reference, a page for each module, from its docstrings, in build/docs; a warning of pdoc's
fails it.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import pdoc

import dimm_ros

OUTPUT = Path(__file__).resolve().parents[1] / "build" / "docs"
_LEFT_OUT = "dimm_ros.cli."  # the command line says of itself what it does: 'dimm --help'


def modules() -> list[str]:
    """Names of the package and of its rooms in this checkout, whose modules pdoc finds, and ``!`` before those that
    need what is not here.
    """
    found = [
        "dimm_ros",
        *(info.name for info in pkgutil.walk_packages([str(Path(dimm_ros.__file__).parent)], "dimm_ros.")),
    ]
    found = [name for name in found if not f"{name}.".startswith(_LEFT_OUT)]
    missing = [name for name in found if not _importable(name)]
    return [name for name in found if name.count(".") <= 1 and name not in missing] + [f"!{name}" for name in missing]


def _importable(name: str) -> bool:
    try:
        importlib.import_module(name)
    except ImportError as error:  # ROS, mostly
        print(f"left out: {name} ({error})")
        return False
    return True


def main(output: Path = OUTPUT, names: Sequence[str] | None = None) -> int:
    """Write the pages of the named modules, of all by default; 1 if pdoc had to warn."""
    for name in dimm_ros.__all__:  # loaded lazily, which pdoc does not see
        setattr(dimm_ros, name, getattr(dimm_ros, name))
    pdoc.render.configure(docformat="google", footer_text=f"dimm_ros {dimm_ros.__version__}")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        pdoc.pdoc(*(names or modules()), output_directory=output)
    complaints = [str(one.message) for one in caught if "pdoc" in one.filename]
    print("\n".join([*complaints, f"API reference: {output / 'index.html'}"]))
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
