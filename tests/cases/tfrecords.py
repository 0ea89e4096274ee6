"""TFRecord files and the examples in them, written by hand."""

import struct


def example(features: dict, packed: bool = True) -> bytes:
    """A tf.train.Example of bytes and int features."""
    entries = b""
    for name, values in features.items():
        if isinstance(values[0], bytes):
            value = field(1, b"".join(field(1, item) for item in values))
        elif packed:
            value = field(3, field(1, b"".join(map(number, values))))
        else:
            value = field(3, b"".join(number(1 << 3) + number(item) for item in values))
        entries += field(1, field(1, name.encode()) + field(2, value))
    return field(1, entries)


def tfrecord(*contents: bytes) -> bytes:
    return b"".join(struct.pack("<Q", len(c)) + b"crc1" + c + b"crc2" for c in contents)


def number(value: int) -> bytes:
    """A protobuf varint."""
    value &= (1 << 64) - 1
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


def field(tag: int, content: bytes) -> bytes:
    return number(tag << 3 | 2) + number(len(content)) + content
