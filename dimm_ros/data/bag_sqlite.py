"""sqlite3 files of rosbag2.

rosbags' own reader refuses a whole file for one definition that it does not know, passes over what its recorder did not
move from the log into the file, and takes #, ? and % in a path for those of a URI.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

from rosbags.interfaces import Connection

from dimm_ros.data.bag_storage import CDR, DamagedFile, cdr_connection

MAGIC = b"SQLite format 3\0"
_UNFINISHED = ("-wal", "-journal")  # what sqlite leaves beside a file whose writer did not close it


def finished(path: Path, scratch: Callable[[], Path]) -> Path:
    """A database with what its writer still had to move into it; the user's own files stay as they are."""
    beside = [
        other
        for ending in _UNFINISHED
        if (other := path.with_name(path.name + ending)).exists() and other.stat().st_size
    ]
    if not beside:
        return path
    place = scratch()
    for source in (path, *beside):
        shutil.copyfile(source, place / source.name)
    with closing(sqlite3.connect(place / path.name)) as base:
        base.execute("PRAGMA journal_mode=DELETE").fetchall()  # takes the log in, and leaves one file
    return place / path.name


class SqliteFile:
    """An sqlite3 file of rosbag2, of any version of its schema."""

    ros1 = False
    cure = "copy it again from where it was recorded, or rescue what is left with '.recover' of the sqlite3 shell"

    def __init__(self, path: Path) -> None:
        # As a URI, so that no character of the path means something else; nothing is written beside the file.
        self._base = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True, check_same_thread=False
        )
        try:
            self.others: set[str] = set()
            self.connections = self._topics()
        except BaseException:
            self._base.close()
            raise

    def close(self) -> None:
        self._base.close()

    def messages(self, ids: set[int], start: int | None, stop: int | None) -> Iterator[tuple[int, int, bytes]]:
        wanted = ",".join(str(int(number)) for number in ids)
        times = (-(2**63) if start is None else start, 2**63 - 1 if stop is None else stop)
        yield from self._base.execute(
            f"SELECT topic_id, timestamp, data FROM messages WHERE topic_id IN ({wanted}) "
            "AND timestamp >= ? AND timestamp < ? ORDER BY timestamp, id",
            times,
        )

    def _topics(self) -> list[Connection]:
        columns = {
            table: {row[1] for row in self._base.execute(f"PRAGMA table_info({table})")}
            for table in ("topics", "messages")
        }
        if not columns["topics"] or not columns["messages"]:
            raise DamagedFile(
                "it is an sqlite3 file without the tables of a bag", "give the file that 'ros2 bag record' wrote"
            )
        counts = dict(self._base.execute("SELECT topic_id, count(*) FROM messages GROUP BY topic_id"))
        profiles = "offered_qos_profiles" if "offered_qos_profiles" in columns["topics"] else "''"
        found = []
        for number, topic, kind, encoding, qos in self._base.execute(
            f"SELECT id, name, type, serialization_format, {profiles} FROM topics ORDER BY id"
        ):
            count = counts.get(number, 0)
            if encoding == CDR:
                found.append(cdr_connection(number, topic, kind, count, qos, self))
            elif count:
                self.others.add(encoding)
        return found
