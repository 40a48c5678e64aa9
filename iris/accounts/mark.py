"""A mark that the system itself moves when it has taken the last byte of a reply.

Whoever sends and then writes down that it sent can be killed between the two. `sendfile` does both
in one system call: it hands bytes of a file to a socket, and it stores how far it came in memory
of the caller. That memory is a page of a shared mapping here, so what was stored is in the file
however the process ends.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
from collections.abc import Callable

SendByte = Callable[[int, int], None]  # a socket's descriptor and the byte it gets

SIZE = 8  # bytes of the mark in its file

if sys.platform == "linux":
    _sendfile = ctypes.CDLL(None, use_errno=True).sendfile
    _sendfile.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t)
    _sendfile.restype = ctypes.c_ssize_t


class Mark:
    """The first SIZE bytes of a file: an even number at rest, an odd one when a byte was sent."""

    def __init__(self, file: int) -> None:
        """file: a descriptor that is open for reading and writing, of SIZE bytes or more."""
        self._page = mmap.mmap(file, SIZE)
        self._place = ctypes.c_int64.from_buffer(self._page)
        if sys.platform == "linux":
            # Every byte there is, twice: byte N is sent from place 2 N, and is over at 2 N + 1.
            self._bytes = os.memfd_create("iris-mark")
            os.write(self._bytes, bytes(place // 2 for place in range(512)))

    def reset(self) -> None:
        """Say that nothing was sent."""
        self._place.value = 0

    def send(self, line: int, byte: int) -> None:
        """Hand one byte to the socket `line`, and be marked by that; both, or neither.

        Elsewhere than on Linux a death between the two leaves a byte that was sent without a mark.

        Raises:
            BlockingIOError: the socket takes nothing at present.
            OSError: the connection is broken.
        """
        self._place.value = 2 * byte
        if sys.platform != "linux":
            os.write(line, bytes([byte]))
            self._place.value += 1
        elif _sendfile(line, self._bytes, ctypes.addressof(self._place), 1) != 1:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))

    def close(self) -> None:
        del self._place
        self._page.close()
        if sys.platform == "linux":
            os.close(self._bytes)


def is_marked(content: bytes) -> bool:
    """Whether a byte was sent, by what a mark's file begins with."""
    return int.from_bytes(content[:SIZE], sys.byteorder) % 2 == 1
