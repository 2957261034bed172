"""Opens a file of a bag, whatever it is called: its first bytes tell what it is."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from rosbags.rosbag1 import Reader

from dimm_ros.data import bag_mcap, bag_sqlite
from dimm_ros.data.bag_storage import DamagedFile, StorageFile, cause_of

try:
    from compression import zstd
except ImportError:  # Python below 3.14
    from backports import zstd

_ROS1_MAGIC, _ZSTD_MAGIC = b"#ROSBAG V", b"\x28\xb5\x2f\xfd"


def open_storage(path: Path, scratch: Callable[[], Path]) -> StorageFile:
    """Open a file of a bag, whatever it is called.

    Args:
        path: the file.
        scratch: makes a new folder for a copy, of a file that is packed or was not closed by its recorder.

    Raises:
        DamagedFile: it is empty, damaged, or of none of the kinds.
        OSError: it cannot be read, or the copy not written.
    """
    with path.open("rb") as file:
        head = file.read(16)
    if head.startswith(_ZSTD_MAGIC):
        unpacked = scratch() / path.name.removesuffix(".zstd")
        try:
            with zstd.open(path, "rb") as packed, unpacked.open("wb") as file:
                shutil.copyfileobj(packed, file, 1 << 20)
        except (EOFError, zstd.ZstdError) as error:
            raise DamagedFile(
                str(error).rstrip("."), "its compressed file is damaged or cut off, copy it again"
            ) from None
        return open_storage(unpacked, scratch)
    for magic, kind in _KINDS:
        if head.startswith(magic):
            try:
                if kind is bag_sqlite.SqliteFile:
                    path = bag_sqlite.finished(path, scratch)
                return kind(path)
            except (DamagedFile, OSError):
                raise
            except Exception as error:  # whatever a damaged file leads its parser to
                raise DamagedFile(cause_of(error), kind.cure) from None
    if not head:
        raise DamagedFile(
            "its file is empty",
            "the recording never began or the disk was full: record it again, or copy the file again",
        )
    raise DamagedFile(
        "its first bytes are of no MCAP, sqlite3 or ROS 1 bag file", "copy it again from where it was recorded"
    )


def decompressed(data: bytes) -> bytes:
    """A message of a bag that was recorded with ``--compression-mode message``."""
    return zstd.decompress(data)


class Ros1File:
    """A bag file of ROS 1, by rosbags."""

    ros1 = True
    cure = "repair it with 'rosbag reindex' of ROS 1"

    def __init__(self, path: Path) -> None:
        self._reader = Reader(path)
        self._reader.open()
        self.connections, self.others = list(self._reader.connections), set()

    def close(self) -> None:
        self._reader.close()

    def messages(self, ids: set[int], start: int | None, stop: int | None) -> Iterator[tuple[int, int, bytes]]:
        wanted = [connection for connection in self.connections if connection.id in ids]
        for connection, log_ns, data in self._reader.messages(wanted, start, stop):
            yield connection.id, log_ns, data


_KINDS = ((bag_mcap.MAGIC, bag_mcap.McapFile), (bag_sqlite.MAGIC, bag_sqlite.SqliteFile), (_ROS1_MAGIC, Ros1File))
