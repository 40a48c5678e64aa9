"""What a figure was measured on."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import torch

_ABILITIES = ("amx_bf16", "avx512_bf16", "avx512_f", "avx2")  # the first that a CPU has is named


def facts() -> dict[str, object]:
    """The machine, the versions and the command, for a result file."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    abilities = torch.cpu.get_capabilities()
    return {
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "commit": _commit(),
        "cpu": model,
        "isa": next((name for name in _ABILITIES if abilities.get(name)), None),
        "cores": len(os.sched_getaffinity(0)),
        "load_before": round(os.getloadavg()[0], 2),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def _commit() -> str | None:
    """Of the checkout; with a plus where files were changed since."""
    command = ["git", "describe", "--always", "--abbrev=12", "--dirty=+"]
    folder = Path(__file__).parent
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)  # noqa: S603
    return done.stdout.strip() or None
