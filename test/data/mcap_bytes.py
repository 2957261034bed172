"""MCAP files written record by record, so that they can lack what a good writer puts in."""

from __future__ import annotations

import struct
from pathlib import Path

from bag_messages import STORE, BagContent

MAGIC = b"\x89MCAP0\r\n"


def record(op: int, body: bytes) -> bytes:
    return struct.pack("<BQ", op, len(body)) + body


def text(value: str) -> bytes:
    return struct.pack("<I", len(value.encode())) + value.encode()


def schema(number: int, name: str, encoding: str, data: bytes) -> bytes:
    return record(0x03, struct.pack("<H", number) + text(name) + text(encoding) + struct.pack("<I", len(data)) + data)


def channel(number: int, topic: str, encoding: str) -> bytes:
    return record(0x04, struct.pack("<HH", number, number) + text(topic) + text(encoding) + struct.pack("<I", 0))


def message(number: int, ns: int, data: bytes) -> bytes:
    return record(0x05, struct.pack("<HIQQ", number, 0, ns, ns) + data)


def write_mcap(
    path: Path,
    content: BagContent,
    *,
    chunked: bool = True,
    message_index: bool = True,
    summary: bool = True,
    profile: str = "ros2",
    by_time: bool = True,
    others: tuple[tuple[str, str, str, bytes, str], ...] = (),
    kind=lambda name: name,
    definitions: str = "ros2msg",
) -> Path:
    """A file of three messages a chunk.

    Args:
        chunked, message_index, summary: what it has.
        by_time: False leaves the messages in the content's own order.
        others: (topic, name of the schema, its encoding, its data, encoding of messages) of channels with one message.
        kind: makes the name that a type is given.
        definitions: encoding that the schemas of the messages are given; other than ros2msg they are empty.
    """
    entries = sorted(content.messages, key=lambda entry: entry[0]) if by_time else content.messages
    numbers = {topic: number for number, topic in enumerate(dict.fromkeys(topic for _, topic, _ in entries), 1)}
    types = {topic: message.__msgtype__ for _, topic, message in entries}
    described = b""
    for topic, number in numbers.items():
        data = STORE.generate_msgdef(types[topic], ros_version=2)[0].encode() if definitions == "ros2msg" else b""
        described += schema(number, kind(types[topic]), definitions, data) + channel(number, topic, "cdr")
    stored = [
        (ns, numbers[topic], bytes(STORE.serialize_cdr(message, message.__msgtype__))) for ns, topic, message in entries
    ]
    for number, (topic, name, encoding, data, messages) in enumerate(others, len(numbers) + 1):
        described += schema(number, name, encoding, data) + channel(number, topic, messages)
        stored.append((entries[0][0], number, b"\x00\x01\x00\x00 something else"))
    if by_time:
        stored.sort(key=lambda entry: entry[0])
    out = bytearray(MAGIC + record(0x01, text(profile) + text("test")))
    indexes = b""
    if chunked:
        for start in range(0, len(stored), 3):
            part = stored[start : start + 3]
            inner, places = described if start == 0 else b"", {}
            for ns, number, data in part:
                places.setdefault(number, []).append((ns, len(inner)))
                inner += message(number, ns, data)
            times = struct.pack("<QQ", part[0][0], part[-1][0])
            chunk_start = len(out)
            out += record(
                0x06, times + struct.pack("<QI", len(inner), 0) + text("") + struct.pack("<Q", len(inner)) + inner
            )
            length, offsets = len(out) - chunk_start, b""
            if message_index:
                for number, found in places.items():
                    offsets += struct.pack("<HQ", number, len(out))
                    pairs = b"".join(struct.pack("<QQ", *pair) for pair in found)
                    out += record(0x07, struct.pack("<HI", number, len(pairs)) + pairs)
            indexes += record(
                0x08,
                times
                + struct.pack("<QQI", chunk_start, length, len(offsets))
                + offsets
                + struct.pack("<Q", len(out) - chunk_start - length)
                + text("")
                + struct.pack("<QQ", len(inner), len(inner)),
            )
    else:
        out += described + b"".join(message(number, ns, data) for ns, number, data in stored)
    out += record(0x0F, struct.pack("<I", 0))
    summary_start = len(out) if summary else 0
    if summary:
        counts = {number: sum(entry[1] == number for entry in stored) for number in {entry[1] for entry in stored}}
        chunks = -(-len(stored) // 3) if chunked else 0
        table = b"".join(struct.pack("<HQ", *pair) for pair in counts.items())
        figures = struct.pack(
            "<QHIIIIQQ", len(stored), len(counts), len(counts), 0, 0, chunks, stored[0][0], stored[-1][0]
        )
        out += described + indexes + record(0x0B, figures + struct.pack("<I", len(table)) + table)
    path.write_bytes(bytes(out + record(0x02, struct.pack("<QQI", summary_start, 0, 0)) + MAGIC))
    return path
