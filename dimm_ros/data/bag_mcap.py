"""MCAP files (https://mcap.dev/spec).

rosbags' own reader refuses a whole file for one channel that it cannot decode, loses the messages of chunks without an
index, and scans a file without chunks anew for every message.
"""

from __future__ import annotations

import heapq
import os
import struct
from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from zlib import crc32

from rosbags.interfaces import Connection
from rosbags.rosbag2.storage_mcap import DECOMPRESSORS

from dimm_ros.data.bag_storage import CDR, DamagedFile, cdr_connection

MAGIC = b"\x89MCAP0\r\n"
_FOOTER, _SCHEMA, _CHANNEL, _MESSAGE, _CHUNK, _CHUNK_INDEX, _STATISTICS = 0x02, 0x03, 0x04, 0x05, 0x06, 0x08, 0x0B
_FOOTER_BYTES = 9 + 20  # of the record that precedes the closing magic
_MESSAGE_HEADER = 22  # channel, sequence number, two times


@dataclass
class _Chunk:
    """Where a chunk is, the log times of its messages, and their channels (None: unknown)."""

    start: int
    stop: int
    offset: int
    length: int
    channels: set[int] | None = None


@dataclass
class _Contents:
    """Index of an MCAP file.

    ``loose`` are messages outside chunks: (log time, offset of the bytes, their length, channel).
    """

    schemas: dict[int, str] = field(default_factory=dict)
    channels: dict[int, tuple[int, str, str, dict[str, str]]] = field(default_factory=dict)
    counts: dict[int, int] = field(default_factory=dict)
    chunks: list[_Chunk] = field(default_factory=list)
    loose: list[tuple[int, int, int, int]] = field(default_factory=list)


class McapFile:
    """An MCAP file: by its summary where that is complete, else by one scan that notes every message's place."""

    ros1 = False
    cure = "if its recording was cut off, repair it with 'mcap recover'"

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        try:
            self._size = os.fstat(self._file.fileno()).st_size
            self._decoded: tuple[int, bytes] = (-1, b"")
            self._contents = self._read_contents()
            self.connections, self.others = self._channels()
        except BaseException:
            self._file.close()
            raise

    def close(self) -> None:
        self._file.close()

    def messages(self, ids: set[int], start: int | None, stop: int | None) -> Iterator[tuple[int, int, bytes]]:
        begin, end = -1 if start is None else start, 2**64 if stop is None else stop
        yield from heapq.merge(
            self._loose(ids, begin, end), self._chunked(ids, begin, end), key=lambda message: message[1]
        )

    def _loose(self, ids: set[int], begin: int, end: int) -> Iterator[tuple[int, int, bytes]]:
        loose = self._contents.loose
        for place in range(bisect_left(loose, (begin,)), bisect_left(loose, (end,))):
            log_ns, offset, length, channel = loose[place]
            if channel in ids:
                yield channel, log_ns, self._read(offset, length)

    def _chunked(self, ids: set[int], begin: int, end: int) -> Iterator[tuple[int, int, bytes]]:
        """A chunk is read when its first message may be the next."""
        waiting: list[tuple[int, int, int, bytes]] = []
        serial = 0
        for chunk in self._contents.chunks:
            if chunk.stop < begin or chunk.start >= end or (chunk.channels is not None and not chunk.channels & ids):
                continue
            while waiting and waiting[0][0] < chunk.start:
                log_ns, _, channel, data = heapq.heappop(waiting)
                yield channel, log_ns, data
            data = self._chunk(chunk.offset, chunk.length)
            for op, offset, length in _records(_slicer(data), 0, len(data)):
                if op == _MESSAGE:
                    channel, log_ns = _message(_slicer(data), offset, length)
                    if channel in ids and begin <= log_ns < end:
                        serial += 1
                        heapq.heappush(
                            waiting, (log_ns, serial, channel, data[offset + _MESSAGE_HEADER : offset + length])
                        )
        while waiting:
            log_ns, _, channel, data = heapq.heappop(waiting)
            yield channel, log_ns, data

    def _read(self, offset: int, size: int) -> bytes:
        if not 0 <= size <= self._size - offset:  # before anything of that size is made
            raise DamagedFile(f"a record of {size} bytes at byte {offset} reaches beyond the end", self.cure)
        data = os.pread(self._file.fileno(), size, offset)
        if len(data) != size:
            raise DamagedFile("it was cut off while it was in use", self.cure)
        return data

    def _read_contents(self) -> _Contents:
        end = self._size - len(MAGIC) - _FOOTER_BYTES
        if (
            end < len(MAGIC)
            or self._read(self._size - len(MAGIC), len(MAGIC)) != MAGIC
            or self._read(end, 1)[0] != _FOOTER
        ):
            raise DamagedFile("its end is missing", self.cure)
        (summary,) = struct.unpack("<Q", self._read(end + 9, 8))
        if not (summary == 0 or len(MAGIC) <= summary <= end):
            raise DamagedFile("its footer points outside the file", self.cure)
        indexed = self._read_summary(summary, end) if summary else None
        return indexed or self._scan(len(MAGIC), summary or end)

    def _read_summary(self, start: int, end: int) -> _Contents | None:
        """None where the summary does not tell all."""
        found, chunk_count, message_count = _Contents(), 0, 0
        for op, offset, length in _records(self._read, start, end):
            if op in (_SCHEMA, _CHANNEL):
                _describe(found, op, self._read(offset, length))
            elif op == _CHUNK_INDEX:
                data = self._read(offset, length)
                first, last, place, size, width = struct.unpack_from("<QQQQI", data)
                channels = {channel for channel, _ in struct.iter_unpack("<HQ", data[36 : 36 + width])}
                found.chunks.append(_Chunk(first, last, place, size, channels or None))
            elif op == _STATISTICS:
                data = self._read(offset, length)
                message_count, chunk_count = struct.unpack_from("<Q14xI", data)
                (width,) = struct.unpack_from("<I", data, 42)
                found.counts = dict(struct.iter_unpack("<HQ", data[46 : 46 + width]))
        found.chunks.sort(key=lambda chunk: chunk.start)
        complete = len(found.chunks) == chunk_count > 0 and sum(found.counts.values()) == message_count > 0
        return found if complete and found.counts.keys() <= found.channels.keys() else None

    def _scan(self, start: int, end: int) -> _Contents:
        found = _Contents()
        for op, offset, length in _records(self._read, start, end):
            if op in (_SCHEMA, _CHANNEL):
                _describe(found, op, self._read(offset, length))
            elif op == _MESSAGE:
                channel, log_ns = _message(self._read, offset, length)
                found.counts[channel] = found.counts.get(channel, 0) + 1
                found.loose.append((log_ns, offset + _MESSAGE_HEADER, length - _MESSAGE_HEADER, channel))
            elif op == _CHUNK:
                data, times, channels = self._chunk(offset - 9, length + 9), [], set()
                for inner, place, size in _records(_slicer(data), 0, len(data)):
                    if inner in (_SCHEMA, _CHANNEL):
                        _describe(found, inner, data[place : place + size])
                    elif inner == _MESSAGE:
                        channel, log_ns = _message(_slicer(data), place, size)
                        found.counts[channel] = found.counts.get(channel, 0) + 1
                        times.append(log_ns)
                        channels.add(channel)
                if times:
                    found.chunks.append(_Chunk(min(times), max(times), offset - 9, length + 9, channels))
        found.loose.sort()
        found.chunks.sort(key=lambda chunk: chunk.start)
        return found

    def _chunk(self, offset: int, length: int) -> bytes:
        """The records of a chunk; the last one is kept, since neighbours are often asked for one after the other."""
        kept = self._decoded
        if kept[0] == offset:
            return kept[1]
        data = self._read(offset + 9, length - 9)
        size, crc, width = struct.unpack_from("<16xQII", data)
        compression = data[32 : 32 + width].decode("utf-8", "replace")
        (packed,) = struct.unpack_from("<Q", data, 32 + width)
        if compression not in DECOMPRESSORS:
            raise DamagedFile(
                f"its chunks are compressed by '{compression}'", "write it anew with zstd or without compression"
            )
        records = DECOMPRESSORS[compression](data[40 + width : 40 + width + packed], size)
        if len(records) != size or (crc and crc32(records) != crc):
            raise DamagedFile(f"the chunk at byte {offset} is damaged", self.cure)
        self._decoded = (offset, records)
        return records

    def _channels(self) -> tuple[list[Connection], set[str]]:
        connections, others = [], set()
        for number, (schema, topic, encoding, metadata) in sorted(self._contents.channels.items()):
            name, count = self._contents.schemas.get(schema, ""), self._contents.counts.get(number, 0)
            if encoding == CDR and "/" in name:
                connections.append(
                    cdr_connection(number, topic, name, count, metadata.get("offered_qos_profiles", ""), self)
                )
            elif count:
                others.add(encoding or "unknown")
        return connections, others


def _slicer(data: bytes) -> Callable[[int, int], bytes]:
    return lambda offset, size: data[offset : offset + size]


def _records(read: Callable[[int, int], bytes], start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """(kind, offset of the content, its length) of the MCAP records between two places."""
    while start < end:
        op, length = struct.unpack("<BQ", read(start, 9))
        if length > end - start - 9:
            raise DamagedFile(f"a record of {length} bytes at byte {start} reaches beyond the end", McapFile.cure)
        yield op, start + 9, length
        start += 9 + length


def _message(read: Callable[[int, int], bytes], offset: int, length: int) -> tuple[int, int]:
    """Channel and log time of a message record."""
    if length < _MESSAGE_HEADER:
        raise DamagedFile(f"the message at byte {offset} has no header", McapFile.cure)
    return struct.unpack("<H4xQ", read(offset, 14))


def _describe(found: _Contents, op: int, data: bytes) -> None:
    """Take in a schema or a channel."""
    if op == _SCHEMA:
        (number,) = struct.unpack_from("<H", data)
        found.schemas[number], _ = _text(data, 2)
        return
    number, schema = struct.unpack_from("<HH", data)
    topic, place = _text(data, 4)
    encoding, place = _text(data, place)
    (width,) = struct.unpack_from("<I", data, place)
    metadata, place, end = {}, place + 4, place + 4 + width
    while place < end:
        key, place = _text(data, place)
        metadata[key], place = _text(data, place)
    found.channels[number] = schema, topic, encoding, metadata


def _text(data: bytes, place: int) -> tuple[str, int]:
    (width,) = struct.unpack_from("<I", data, place)
    return data[place + 4 : place + 4 + width].decode("utf-8", "replace"), place + 4 + width
