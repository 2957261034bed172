"""Runs the localizer and the camera, breaks things on schedule, and judges what the localizer publishes."""

from __future__ import annotations

import json
import math
import os
import random
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import SetParameters

from benchmarks.soak.faults import FAULTS, InjectedFault, schedule
from dimm_ros.errors import DimmError
from dimm_ros.replay.collector import Collector, Report
from dimm_ros.replay.session import LocalizerProcess, LocalSession

#: What must hold: seconds from a fault's end to the next accepted image, and growth of the process's memory in MB.
RECOVERY_S, GROWTH_MB = 1.0, 20.0
#: The same of a run that is too short for more than one round: what the first time of each fault leaves behind counts.
FIRST_ROUND_MB = 40.0

#: What a first pose may take in the time of one image, where that is slow.
_IMAGES = 8

_REMAP = {"image": "/camera/image_raw", "camera_info": "/camera/camera_info"}
_START_S, _WAIT_S = 180.0, 15.0
_SAMPLE_S = 0.25
_LINGER_S = 1.2  # /diagnostics comes once a second: how long after its end a fault may still be named


@dataclass
class Incident:
    """One fault as it happened; times of ``time.monotonic()``.

    Attributes:
        fault: what it was.
        begin, end: first spoilt and first good message.
        recovery_s: from the end to the arrival of the next accepted image's status; None when none came.
        named_by: the sentence that named it, empty when none did.
        poses: accepted images with stamps within the fault.
    """

    fault: InjectedFault
    begin: float
    end: float
    recovery_s: float | None
    named_by: str
    poses: int


#: Parts of a process's memory as /proc names them; shared memory is the middleware's, for images between processes.
_PARTS = {"VmRSS": "resident", "RssAnon": "of it its own", "RssShmem": "of it shared memory"}


@dataclass
class Memory:
    """Memory of a process over time, MB by part."""

    samples: list[tuple[float, dict[str, float]]] = field(default_factory=list)

    def levels(self, part: str, since: float) -> tuple[float, float]:
        """Medians of the first and of the last tenth of the samples since a time, NaN without ten."""
        values = [megabytes[part] for at, megabytes in self.samples if at >= since]
        if len(values) < 10:
            return math.nan, math.nan
        tenth = max(3, len(values) // 10)
        return statistics.median(values[:tenth]), statistics.median(values[-tenth:])


class CameraProcess:
    """The camera's process and what it says."""

    def __init__(self, recording: Path, environment: dict[str, str]) -> None:
        command = [sys.executable, "-m", "benchmarks.soak.camera", str(recording)]
        self.process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def tell(self, fault: str) -> dict:
        """Begin a fault, or end the present one; returns when the first image after that is out."""
        self.process.stdin.write(f"{fault}\n")
        self.process.stdin.flush()
        return self.heard()

    def heard(self) -> dict:
        """The next thing it says."""
        line = self.process.stdout.readline()
        if not line:
            raise DimmError("The soak's own camera process has ended; its error is above.")
        return json.loads(line)

    def kill(self) -> None:
        """As a crash would."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            pipe.close()


class Soak:
    """One run.

    Args:
        recording: whose images the camera shows.
        scene_map: a map of it.
        second_map: another map whose name is "second".
        folder: for the map file that is damaged, and the localizer's log.
        parameters: further ones of the localizer.
    """

    def __init__(
        self, recording: Path, scene_map: Path, second_map: Path, folder: Path, parameters: dict | None = None
    ) -> None:
        self._recording, self._map, self._second, self._folder = recording, scene_map, second_map, folder
        self._parameters = {"map": str(scene_map), "device": "cpu"} | (parameters or {})
        self._said: list[tuple[float, str]] = []
        self._memory = Memory()
        self._incidents: list[Incident] = []

    def run(
        self, seconds: float, seed: int, *, quick: bool = False, progress: Callable[[Incident], object] | None = None
    ) -> dict:
        """Soak for a time, all faults at least once.

        Args:
            seconds: how long; the round of faults that is under way then is not finished, but the first one is.
            seed: of the faults' order and times.
            quick: shortest faults.
            progress: called after each.

        Returns:
            Figures, ``checks`` among them: name -> whether it holds.
        """
        with ExitStack() as stack:
            session = stack.enter_context(LocalSession("soak"))
            self._collector = Collector(session.node)
            session.node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)
            self._client = session.node.create_client(SetParameters, "/localizer/set_parameters")
            self._environment = {**session.environment, "PYTHONPATH": os.pathsep.join(sys.path)}
            self._localizer = stack.enter_context(
                LocalizerProcess(self._environment, self._parameters, _REMAP, self._folder / "localizer.log")
            )
            self._camera = CameraProcess(self._recording, self._environment)
            stack.callback(lambda: self._camera.kill())
            stopped = threading.Event()
            watcher = threading.Thread(target=self._watch, args=(stopped,), daemon=True)
            watcher.start()
            stack.callback(watcher.join)
            stack.callback(stopped.set)

            deadline = time.monotonic() + _START_S
            while not self._wait(lambda report: report.message.accepted, 0.0, 1.0):
                if time.monotonic() > deadline or self._localizer.process.poll() is not None:
                    log = (self._folder / "localizer.log").read_text(errors="replace").strip().splitlines()
                    raise DimmError(
                        "The localizer answers no image even before the first fault; its last words: "
                        f"{log[-1] if log else 'none'}"
                    )
            self._camera.heard()
            started = time.monotonic()
            for fault, length, calm in schedule(seed, quick):
                time.sleep(calm)
                self._incidents.append(self._suffer(fault, length))
                if progress is not None:
                    progress(self._incidents[-1])
                if self._localizer.process.poll() is not None:
                    break
                if time.monotonic() - started > seconds and len(self._incidents) >= len(FAULTS):
                    break
            alive = self._localizer.process.poll() is None
            status = self._localizer.stop()
        return self._figures(seed, started, alive and status == 0)

    def _suffer(self, fault: InjectedFault, length: float) -> Incident:
        """Let one fault happen, and look at what came of it."""
        begin, end, good_ns = {
            "map file garbage": self._damage_map,
            "second map": self._change_map,
            "camera killed": self._kill_camera,
        }.get(fault.name, lambda seconds: self._tell_camera(fault, seconds))(length)
        back = self._wait(lambda report: report.message.accepted and report.stamp_ns >= good_ns, end, _WAIT_S)
        time.sleep(max(0.0, end + _LINGER_S - time.monotonic()))
        within = [one for one in self._collector.reports if begin <= one.received_s <= end + _LINGER_S]
        sentences = [one.message.reason for one in within] + [f"map_name {one.message.map_name}" for one in within]
        sentences += [text for at, text in self._said if begin <= at <= end + _LINGER_S]
        named = next(filter(fault.named_in, sentences), "")
        # Half a tenth of a second: an image from before the fault may be under way when it begins.
        poses = sum(
            one.message.accepted and begin + 0.05 < one.received_s < end and self._shot_within(one, begin, end)
            for one in within
        )
        return Incident(fault, begin, end, None if back is None else max(0.0, back.received_s - end), named, poses)

    def _tell_camera(self, fault: InjectedFault, seconds: float) -> tuple[float, float, int]:
        began = self._camera.tell(fault.name)
        time.sleep(seconds)
        ended = self._camera.tell("")
        return began["at"], ended["at"], ended["stamp"]

    def _damage_map(self, seconds: float) -> tuple[float, float, int]:
        """The file of the running map is overwritten, and somebody loads it again; then the good one is put back."""
        path = self._folder / "garbage.safetensors"
        path.write_bytes(random.Random(0).randbytes(100_000))
        begin = time.monotonic()
        self._set_map(path)
        time.sleep(seconds)
        shutil.copyfile(self._map, path)
        end = time.monotonic()
        self._set_map(self._map)
        return begin, end, time.time_ns()

    def _change_map(self, seconds: float) -> tuple[float, float, int]:
        """Another map is set, and is in force for a while."""
        begin = time.monotonic()
        self._set_map(self._second)
        self._wait(lambda report: report.message.map_name == "second", begin, _WAIT_S)
        time.sleep(seconds)
        end = time.monotonic()
        self._set_map(self._map)
        return begin, end, time.time_ns()

    def _kill_camera(self, seconds: float) -> tuple[float, float, int]:
        begin = time.monotonic()
        self._camera.kill()
        time.sleep(seconds)
        self._camera = CameraProcess(self._recording, self._environment)
        return begin, self._camera.heard()["at"], time.time_ns()

    def _set_map(self, path: Path) -> None:
        value = ParameterValue(type=ParameterType.PARAMETER_STRING, string_value=str(path))
        done = threading.Event()
        future = self._client.call_async(SetParameters.Request(parameters=[Parameter(name="map", value=value)]))
        future.add_done_callback(lambda _: done.set())
        if not done.wait(_WAIT_S):
            raise DimmError("The localizer does not answer set_parameters.")

    def _wait(self, condition: Callable[[Report], bool], since: float, timeout_s: float) -> Report | None:
        """The first status received since a time that fulfils a condition, once it is there."""

        def found() -> Report | None:
            return next((one for one in self._collector.reports if one.received_s >= since and condition(one)), None)

        self._collector.wait_for(found, timeout_s)
        return found()

    @staticmethod
    def _shot_within(report: Report, begin: float, end: float) -> bool:
        """Whether the status is of an image with a stamp within a time of ``time.monotonic()``."""
        at = report.stamp_ns * 1e-9 - time.time() + time.monotonic()
        return begin <= at < end

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        self._said += [(time.monotonic(), status.message) for status in message.status]

    def _watch(self, stopped: threading.Event) -> None:
        """Sample the localizer's memory."""
        status = Path(f"/proc/{self._localizer.process.pid}/status")
        while not stopped.wait(_SAMPLE_S):
            try:
                fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
                sample = {name: int(fields[key].split()[0]) / 1024 for key, name in _PARTS.items()}
            except (OSError, KeyError):  # it has ended
                return
            self._memory.samples.append((time.monotonic(), sample))

    def _figures(self, seed: int, started: float, survived: bool) -> dict:
        seconds = self._memory.samples[-1][0] - started
        # Whatever a first time of each fault leaves behind belongs to warm-up, as far as the run is long enough for
        # that.
        first_round = self._incidents[min(len(self._incidents), len(FAULTS)) - 1].end + _LINGER_S
        rounds_follow = seconds > 3 * (first_round - started)
        warm = first_round if rounds_follow else started + seconds / 4
        allowed = GROWTH_MB if rounds_follow else FIRST_ROUND_MB
        levels = {part: self._memory.levels(part, warm) for part in _PARTS.values()}
        growth = levels["resident"][1] - levels["resident"][0]
        faults = {}
        for fault in FAULTS:
            own = [one for one in self._incidents if one.fault is fault]
            times = [one.recovery_s for one in own if one.recovery_s is not None]
            faults[fault.name] = {
                "times": len(own),
                "named": sum(bool(one.named_by) for one in own),
                "answered again": len(times),
                "recovery_s_median": round(statistics.median(times), 3) if times else None,
                "recovery_s_max": round(max(times), 3) if times else None,
                "poses": sum(one.poses for one in own),
                "sentence": next((one.named_by for one in own if one.named_by), ""),
            }
        reports = self._collector.reports
        # A busy machine: a first pose takes three images localized in full, and a changed map a warm-up besides. The
        # limit is in the figures.
        full = [one.message.image_age_ms for one in reports if one.message.accepted and not one.message.tracked]
        image_ms = statistics.median(full or [math.inf])
        limit = max(RECOVERY_S, _IMAGES * image_ms / 1e3)
        checks = {
            "the process never dies": survived,
            f"memory grows by less than {allowed:g} MB": growth < allowed,
            "every fault is named": all(one.named_by for one in self._incidents),
            f"answers within {limit:.2f} s of each fault's end": all(
                one.recovery_s is not None and one.recovery_s <= limit for one in self._incidents
            ),
            "no pose of an image that shows nothing": not any(one.poses for one in self._incidents if one.fault.blind),
            "every fault happened": {one.fault for one in self._incidents} == set(FAULTS),
        }
        return {
            "seed": seed,
            "image_age_ms_median": round(image_ms, 1),
            "seconds": round(seconds, 1),
            "faults_in_all": len(self._incidents),
            "checks": checks,
            "statuses": len(reports),
            "poses": len(self._collector.answers),
            "warm-up_s": round(warm - started, 1),
            "memory_mb": {
                part: {"after warm-up": round(first, 1), "end": round(last, 1)}
                for part, (first, last) in levels.items()
            },
            "faults": faults,
        }
