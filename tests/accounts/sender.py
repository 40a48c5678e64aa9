"""Sends one byte after another, each with a mark, until it is killed: a process that starts fast.

python -m tests.accounts.sender FILE LOG SOCKET
"""

from __future__ import annotations

import os
import sys

from iris.accounts.mark import Mark


def main(file: str, log: str, line: str) -> None:
    mark = Mark(os.open(file, os.O_RDWR))
    written = os.open(log, os.O_WRONLY | os.O_APPEND)
    while True:
        mark.reset()
        os.write(written, b"?")
        mark.send(int(line), 10)
        os.write(written, b"!")


if __name__ == "__main__":
    main(*sys.argv[1:])
