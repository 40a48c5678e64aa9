"""The process that decodes untrusted images: `python -m iris.images.worker`.

It lives exactly as long as the process that started it, holds itself to a memory and a CPU limit,
and speaks the frames of `iris.images.wire` on its standard input and output, one job at a time:

    -> {"want": "pixels" | "holes" | "size", "fit": [...]} + the file
    <- {"began": true}                            the file has arrived whole
    <- {"width": 1, "height": 1} + RGB bytes, or {"reason": "...", "retire": false}
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import fcntl
import io
import math
import os
import resource
import signal
import sys
from typing import BinaryIO, Final

from PIL import GifImagePlugin, Image, JpegImagePlugin, PngImagePlugin, WebPImagePlugin

from iris.images import wire
from iris.images.fit import Exact, fitted_size
from iris.images.header import MAX_FILE_BYTES, Unusable, undecodable
from iris.images.prescan import prescan, sniff
from iris.images.raster import forbid_bombs, render, render_holes

# imported for their own sake: each registers its format with Pillow
PLUGINS: Final = (GifImagePlugin, JpegImagePlugin, PngImagePlugin, WebPImagePlugin)
_PIPE_BYTES: Final = 1024 * 1024
_PR_SET_PDEATHSIG: Final = 1
_TOO_MUCH_MEMORY: Final = "needs more memory to decode than is allowed. Send a smaller copy."


def main() -> None:
    """Take the limits from the command line, say hello, and answer until the input ends."""
    parser = argparse.ArgumentParser(prog="iris.images.worker")
    parser.add_argument("--parent-pid", type=int, required=True)
    parser.add_argument("--memory-mb", type=int, required=True)
    parser.add_argument("--cpu-s", type=float, required=True)
    options = parser.parse_args()
    _live_with(options.parent_pid)
    # Whatever a library prints goes to the log and never between two frames.
    outgoing = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    for fd in (0, outgoing.fileno()):
        # A wider pipe saves wake-ups; the usual one does where the system grants no more.
        with contextlib.suppress(OSError):
            fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_FSIZE, 0)
    _limit(resource.RLIMIT_AS, options.memory_mb * 1024 * 1024)
    try:
        _warm_up()
    except MemoryError:
        sys.exit(f"iris.images.worker: {options.memory_mb} MB are not enough to decode one pixel")
    _send(outgoing, {"ready": True})
    while _answer(sys.stdin.buffer, outgoing, options.cpu_s):
        pass


def _live_with(parent_pid: int) -> None:
    """Die when the parent dies, and from nothing a terminal or supervisor sends to the group."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:
        sys.exit(0)


def _limit(kind: int, value: int) -> None:
    _, hard = resource.getrlimit(kind)
    capped = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (capped, capped))


def _limit_cpu(cpu_s: float) -> None:
    """Let this job have `cpu_s` seconds on top of what the process has used so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    soft = math.ceil(used.ru_utime + used.ru_stime + cpu_s) + 1
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(
        resource.RLIMIT_CPU,
        (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard),
    )


def _warm_up() -> None:
    """Decode one pixel, so that no first request pays for imports and tables."""
    forbid_bombs()
    file = io.BytesIO()
    Image.new("RGB", (1, 1)).save(file, "PNG")
    render(prescan(file.getvalue()), Exact(2, 2))


def _answer(incoming: BinaryIO, outgoing: BinaryIO, cpu_s: float) -> bool:
    """Do one job; False when the input has ended."""
    raw = incoming.read(wire.LENGTHS.size)
    if len(raw) < wire.LENGTHS.size:
        return False
    head_bytes, blob_bytes = wire.lengths(raw, max_blob_bytes=MAX_FILE_BYTES)
    text, data = incoming.read(head_bytes), incoming.read(blob_bytes)
    if len(text) < head_bytes or len(data) < blob_bytes:
        return False
    job = wire.unpack_head(text)
    _limit_cpu(cpu_s)
    _send(outgoing, {"began": True})
    head, blob = _result(job, data)
    _send(outgoing, head, blob)
    return True


def _result(job: wire.Head, data: bytes) -> tuple[wire.Head, bytes]:
    fit = wire.fit_from_json(job.get("fit"))
    try:
        header = prescan(data)
        if job.get("want") == "size":
            width, height = header.upright_px
            if fit is not None:
                width, height = fitted_size(width, height, fit)
            return {"width": width, "height": height}, b""
        if fit is None:
            raise wire.BrokenFrame("pixels were wanted in no size")
        pixels = (render_holes if job.get("want") == "holes" else render)(header, fit)
    except Unusable as error:
        return {"reason": error.reason, "retire": False}, b""
    except MemoryError:
        # The heap may be in pieces after this; a fresh process costs less than finding out.
        return {"reason": _TOO_MUCH_MEMORY, "retire": True}, b""
    except wire.BrokenFrame:
        raise
    except Exception:
        # Decoders raise anything at hostile data; all of it means the same to who sent it.
        return {"reason": undecodable(sniff(data)).reason, "retire": False}, b""
    return {"width": pixels.width_px, "height": pixels.height_px}, pixels.rgb


def _send(outgoing: BinaryIO, head: wire.Head, blob: bytes = b"") -> None:
    outgoing.write(wire.pack(head, len(blob)))
    outgoing.write(blob)
    outgoing.flush()


if __name__ == "__main__":
    main()
