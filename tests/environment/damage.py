"""Damage to a data file that LMDB does not survive."""

import struct
from pathlib import Path

_PAGE = 4096
_LEAF = 0x02


def crash_lmdb(data: Path) -> None:
    """Let the nodes of the last leaf pages lie beyond the end of the file, where LMDB's map has nothing behind it.

    A walk through all pages then ends the process (SIGBUS); to open the environment does not.
    """
    content = bytearray(data.read_bytes())
    for start in range(len(content) - 14 * _PAGE, len(content), _PAGE):
        flags, lower = struct.unpack_from("=HH", content, start + 10)
        if flags == _LEAF:
            for pointer in range(start + 16, start + lower, 2):
                struct.pack_into("=H", content, pointer, 0xFFF0)
    data.write_bytes(content)
