"""How much memory this machine has, or leaves to the container that we are in."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

_CGROUPS = Path("/sys/fs/cgroup")
_OWN_CGROUPS = Path("/proc/self/cgroup")


def host_memory_bytes(own: Path = _OWN_CGROUPS, mounted: Path = _CGROUPS) -> int:
    """The memory of this machine, or what a container may have of it.

    own: the file that says in which control groups this process is; mounted: where they lie.
    """
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([physical, *_limits(own, mounted)])


def _limits(own: Path, mounted: Path) -> Iterator[int]:
    """Of each control group that this process is in, of version 2 or 1, and of those around it."""
    lines: list[str] = []
    with suppress(OSError):  # another system than Linux
        lines = own.read_text(encoding="utf-8").splitlines()
    for line in lines:
        controllers, _, path = line.partition(":")[2].partition(":")
        if not controllers:
            folder, name = mounted, "memory.max"
        elif "memory" in controllers.split(","):
            folder, name = mounted / "memory", "memory.limit_in_bytes"
        else:
            continue
        # A container that sees its own group as the outermost has no such folders but the last.
        group = PurePosixPath(path.lstrip("/"))
        for around in (group, *group.parents):
            with suppress(OSError, ValueError):  # no such file, or `max`
                yield int((folder / around / name).read_text(encoding="ascii"))
