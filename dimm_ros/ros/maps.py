"""The node's maps: loaded on the worker's thread, changed while the node runs; what cannot be used leaves the old
ones.
"""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING

from dimm_ros.errors import DimmError, ParameterError
from dimm_ros.geometry.camera import Camera
from dimm_ros.ros.reporter import Reporter, sentence
from dimm_ros.ros.tf import bare

if TYPE_CHECKING:
    from rclpy.impl.rcutils_logger import RcutilsLogger

    from dimm_ros.atlas import Atlas
    from dimm_ros.ros.parameters import NodeConfig

#: A camera to warm up with before camera_info is known: most robots' cameras are 4:3.
_TYPICAL_CAMERA = Camera(640, 480, 500.0, 500.0, 319.5, 239.5)

_UNCONFIGURED = "The node is not configured."


class Maps:
    """The loaded maps.

    Args:
        config: gives the parameters in force.
        reporter: gets the map's name and errors.
        logger: for progress.
        opener: called as ``dimm_ros.atlas.open_map``; None takes that.

    Attributes:
        atlas: the maps, None before they are loaded.
        doing: what is going on, or why nothing is loaded, one sentence.
        loaded: set once loading has ended, well or not.
        failed: whether it ended badly.
        trouble: why the latest change was not made, empty when it was.
    """

    def __init__(
        self, config: Callable[[], NodeConfig], reporter: Reporter, logger: RcutilsLogger, opener: Callable | None
    ) -> None:
        self._config, self._reporter, self._log, self._opener = config, reporter, logger, opener
        self.atlas: Atlas | None = None
        self.doing, self.failed, self.trouble = _UNCONFIGURED, False, ""
        self.loaded = threading.Event()
        self._asked: tuple[object, ...] = ()
        self._loading: object = None

    def expect(self) -> Callable[[], None]:
        """To be called before maps are loaded; returns what loads them (it never raises, see ``failed``), for the
        worker's thread.
        """
        self.loaded.clear()
        self.failed = False
        self._asked = _asked(self._config())
        self.doing = "The map is still being loaded."
        self._loading = token = object()
        return lambda: self._load(token)

    def stale(self) -> bool:
        """Whether the parameters have changed since what is loaded was asked for."""
        return self._asked != _asked(self._config())

    def _load(self, token: object) -> None:
        problem = ""
        try:
            atlas = self._open(None)
            if token is self._loading:
                self.atlas = atlas
                self._announce()
        except Exception as error:  # noqa: BLE001  whatever it is, the node stays and says so
            problem = sentence(error)
            self._log.error(f"Cannot localize: {problem}")
            if not isinstance(error, DimmError):
                self._log.error(traceback.format_exc())
        if token is not self._loading:
            return  # nobody waits for these any more
        if problem:
            self.atlas, self.failed, self.doing = None, True, problem
        self.loaded.set()

    def change(self) -> bool:
        """Load what the parameters name now, in place of what is loaded; on failure that stays. Returns whether it went
        well.
        """
        config, old = self._config(), self.atlas
        if old is None:
            return False  # cleaned up meanwhile
        try:
            # set once more it is read again
            same = _asked(config)[:-1] == self._asked[:-1] and config.map != self._asked[-1]
            if not (same and old.select(config.map)):
                self.atlas = self._open(old)
            self._asked = _asked(config)
        except Exception as error:  # noqa: BLE001  the robot goes on with the old map
            self.trouble = f"The map stays '{old.current.name}', the new one cannot be used: {sentence(error)}"
            self._reporter.trouble = self.trouble
            self._log.error(self.trouble)
            if not isinstance(error, DimmError):
                self._log.error(traceback.format_exc())
            return False
        self._reporter.trouble = self.trouble = ""
        self._announce()
        return True

    def release(self) -> None:
        """Forget the maps; why they could not be loaded is still known."""
        self.atlas = self._loading = None
        self._reporter.map_name = self._reporter.map_frame = self._reporter.trouble = self.trouble = ""
        if not self.failed:
            self.doing = _UNCONFIGURED

    def apply_rules(self) -> None:
        """Hand the parameters' thresholds to the maps."""
        if self.atlas is not None:
            self.atlas.set_rules(self._config().solver, self._config().acceptance)

    def _open(self, old: Atlas | None) -> Atlas:
        config, started = self._config(), time.perf_counter()
        entries = config.map_entries
        if not entries:
            raise ParameterError("No map is given; set the parameter 'map' to a file that 'dimm map' wrote.")
        self._log.info(f"Loading map{'s' if len(entries) > 1 else ''} {', '.join(map(repr, entries))} ...")
        from dimm_ros.atlas import Atlas, open_map  # torch takes seconds to import, and the node is up by now

        atlas = Atlas.open(
            entries,
            start=config.map,
            opener=self._opener or open_map,
            encoders=old.encoders if old is not None else None,
            folder=config.map_folder,
            device=config.device,
            weights=config.weights or None,
            solver=config.solver,
            acceptance=config.acceptance,
            backend=config.backend,
            onnx_provider=config.onnx_provider,
        )
        names = ", ".join(f"'{name}'" for name in atlas.names)
        self._log.info(f"Loaded {names} in {time.perf_counter() - started:.1f} s; warming up ...")
        if old is None:
            self.doing = f"Loaded {names}, the network is warming up."
        started = time.perf_counter()
        atlas.warm_up(_TYPICAL_CAMERA)
        self._log.info(f"Warm-up took {time.perf_counter() - started:.1f} s; ready.")
        atlas.set_rules(self._config().solver, self._config().acceptance)
        return atlas

    def _announce(self) -> None:
        current = self.atlas.current
        self._reporter.map_name, self._reporter.map_frame = current.name, bare(current.frame_id)
        self.doing = ""


def _asked(config: NodeConfig) -> tuple[object, ...]:
    """What decides which maps are loaded; the last is the one to begin with."""
    return (
        tuple(config.maps),
        config.map_folder,
        config.device,
        config.weights,
        config.backend,
        config.onnx_provider,
        config.map,
    )
