"""RAR 5.0 archives with stored members, which rarfile reads without an external program.

The fields are those of https://www.rarlab.com/technote.htm.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path


def packed(path: Path, *members: bytes) -> Path:
    """Writes an archive of these members."""
    start = b"Rar!\x1a\x07\x01\x00" + _block(_number(1) + _number(0) + _number(0))
    path.write_bytes(b"".join([start, *members, _block(_number(5) + _number(0) + _number(0))]))
    return path


def member(name: str, content: bytes, record: bytes = b"") -> bytes:
    """One file; `record` makes it something else."""
    extra = _number(len(record)) + record if record else b""
    fields = _number(2) + (_number(3) + _number(len(extra)) if extra else _number(2)) + _number(len(content))
    fields += _number(4) + _number(len(content)) + _number(0o100644) + struct.pack("<I", zlib.crc32(content))
    fields += _number(0) + _number(1) + _number(len(name.encode())) + name.encode()
    return _block(fields + extra) + content


def redirected(kind: int, target: str) -> bytes:
    """The record that makes a member a symbolic link (1), a hard link (4) or a copy (5) of `target`."""
    return _number(5) + _number(kind) + _number(0) + _number(len(target)) + target.encode()


def encrypted() -> bytes:
    """The record that makes a member an encrypted one."""
    return _number(1) + _number(0) + _number(0) + bytes([15]) + bytes(16) + bytes(16)


def _block(fields: bytes) -> bytes:
    block = _number(len(fields)) + fields
    return struct.pack("<I", zlib.crc32(block)) + block


def _number(value: int) -> bytes:
    """A variable-length integer: seven bits a byte, lowest first."""
    coded = b""
    while value > 127:
        coded += bytes([value & 127 | 128])
        value >>= 7
    return coded + bytes([value])
