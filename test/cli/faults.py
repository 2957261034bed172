"""A computer's faults, made for the length of a block: a full disk, permissions that count for root too, Ctrl-C at a
terminal.
"""

from __future__ import annotations

import ctypes
import os
import pty
import re
import resource
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
_ROOM = 32 * 1024  # bytes left on a full disk: small files may begin, none of a verb's outputs fits
_OVERRIDES = (1 << 1) | (1 << 2)  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH of capabilities(7)
_VERSION = 0x20080522


def tree(folder: Path) -> dict[str, str]:
    """Everything below a folder: relative path -> digest of a file, target of a link, nothing for a folder."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = os.readlink(path)
        elif os.access(path, os.R_OK):
            found[name] = sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
    return found


@contextmanager
def permissions_count() -> Iterator[None]:
    """Root's right to pass over permission bits is put down; without that right there is nothing to do. Threads begun
    within inherit it.
    """
    if os.geteuid() != 0:
        yield
        return
    libc = ctypes.CDLL(None, use_errno=True)
    # effective, permitted, inheritable; then their upper halves
    header, sets = ((ctypes.c_uint32 * 2)(_VERSION, 0), (ctypes.c_uint32 * 6)())
    if libc.capget(header, sets):
        pytest.skip(
            f"capabilities cannot be read here ({os.strerror(ctypes.get_errno())}), and root may read everything"
        )
    before = sets[0]
    sets[0] = before & ~_OVERRIDES
    assert libc.capset(header, sets) == 0, os.strerror(ctypes.get_errno())
    try:
        yield
    finally:
        sets[0] = before
        assert libc.capset(header, sets) == 0, os.strerror(ctypes.get_errno())


@contextmanager
def full_disk(place: Path, fill: Callable[[Path], object]) -> Iterator[None]:
    """A folder on a disk that has no room left: a small tmpfs, or, where none may be mounted, a limit on the size of
    new files.

    Args:
        place: the folder to be.
        fill: puts there what there was before.
    """
    place.mkdir()
    mounted = (
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(place)], capture_output=True).returncode
        == 0
    )
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        fill(place)
        if mounted:
            disk = os.statvfs(place)
            (place / "ballast").write_bytes(bytes(max(0, disk.f_bavail * disk.f_frsize - _ROOM)))
        else:
            resource.setrlimit(resource.RLIMIT_FSIZE, (_ROOM, limits[1]))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        if mounted:
            subprocess.run(["umount", "--lazy", str(place)], check=True)


@dataclass(frozen=True)
class Ended:
    """How a process ended, and what it said."""

    code: int
    stdout: str
    stderr: str


def interrupted(words: list[str], at: str, cwd: Path, limit_s: float = 400.0) -> Ended:
    """Run dimm at a terminal and press Ctrl-C as soon as it shows something.

    Args:
        words: the command's.
        at: regular expression of what stderr must show.
        cwd: where it runs.
        limit_s: the process is killed, and the test fails, after that time.
    """
    terminal, end = pty.openpty()
    environment = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "200", "TERM": "xterm", "NO_COLOR": "1"}
    deadline, seen, pressed = time.monotonic() + limit_s, b"", False
    with tempfile.TemporaryFile() as stdout:
        process = subprocess.Popen(
            [sys.executable, "-m", "dimm_ros.cli.main", *words],
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=end,
            cwd=cwd,
            env=environment,
        )
        os.close(end)
        try:
            while time.monotonic() < deadline:
                if not select.select([terminal], [], [], 1.0)[0]:
                    continue
                try:
                    part = os.read(terminal, 65536)
                except OSError:  # the process has closed its end
                    break
                if not part:
                    break
                seen += part
                if not pressed and re.search(at.encode(), seen):
                    process.send_signal(signal.SIGINT)
                    pressed = True
            process.wait(max(1.0, deadline - time.monotonic()))
        finally:
            process.kill()
            process.wait()
            os.close(terminal)
        stdout.seek(0)
        said = stdout.read().decode()
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen.decode(errors="replace"))
    assert pressed, f"never showed {at}: {text}"
    return Ended(process.returncode, said, text)
