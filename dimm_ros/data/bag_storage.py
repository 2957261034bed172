"""What every kind of bag file is to its reader: connections and raw messages, or a damage with its cure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Protocol

from rosbags.interfaces import Connection, ConnectionExtRosbag2, MessageDefinition, MessageDefinitionFormat, Qos
from rosbags.rosbag2.metadata import parse_qos

#: How ROS 2 encodes messages.
CDR = "cdr"


class StorageFile(Protocol):
    """One open file of a bag.

    Attributes:
        connections: those that hold CDR (or, in ROS 1, its own) messages; ``id`` is unique within the file.
        others: encodings of the messages that were left out because they are neither.
        ros1: whether its messages are of ROS 1.
        cure: what to do when it turns out to be damaged.
    """

    connections: list[Connection]
    others: set[str]
    ros1: ClassVar[bool]
    cure: ClassVar[str]

    def messages(self, ids: set[int], start: int | None, stop: int | None) -> Iterator[tuple[int, int, bytes]]:
        """(id of the connection, log time in ns, bytes) in order of time, from ``start`` on and before ``stop``."""

    def close(self) -> None:
        """Close the file."""


class DamagedFile(Exception):
    """A file that cannot be read: the text is the cause, ``cure`` what to do."""

    def __init__(self, cause: str, cure: str) -> None:
        super().__init__(cause)
        self.cure = cure


def cause_of(error: Exception) -> str:
    """One clause of what a parser said."""
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


def cdr_connection(number: int, topic: str, kind: str, count: int, profiles: str, owner: StorageFile) -> Connection:
    """A topic with CDR messages. Its definition is left aside: all types that are read here are standard ones."""
    if kind.count("/") == 1:  # some writers leave the middle out
        kind = kind.replace("/", "/msg/")
    definition = MessageDefinition(MessageDefinitionFormat.NONE, "")
    return Connection(number, topic, kind, definition, "", count, ConnectionExtRosbag2(CDR, _profiles(profiles)), owner)


def _profiles(text: str) -> list[Qos]:
    try:
        return parse_qos(text)
    except Exception:  # noqa: BLE001  rosbags checks nothing, and they only tell the player what was latched
        return []
