"""What torch says of this machine, asked in a process of its own: it takes long to import."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

_TIMEOUT_S = 120
# A square product is timed until it is steady; half a second of it.
_PROGRAM = """
import json, sys, time, torch
device = "cuda" if sys.argv[1] != "cpu" and torch.cuda.is_available() else "cpu"
abilities = torch.cpu.get_capabilities()
fast = abilities.get("avx512_bf16", False) or abilities.get("amx_bf16", False)
dtype = torch.bfloat16 if device == "cuda" or fast else torch.float32
side = 8192 if device == "cuda" else 1024
x = torch.randn(side, side).to(device, dtype)
wait = torch.cuda.synchronize if device == "cuda" else (lambda: None)
x @ x; wait()
begun, count = time.perf_counter(), 0
while time.perf_counter() - begun < 0.5:
    x @ x; wait(); count += 1
spent = time.perf_counter() - begun
gpus = [
    {
        "name": torch.cuda.get_device_name(i),
        "capability": list(torch.cuda.get_device_capability(i)),
        "free": torch.cuda.mem_get_info(i)[0],
        "total": torch.cuda.mem_get_info(i)[1],
    }
    for i in range(torch.cuda.device_count() if device == "cuda" else 0)
]
print(json.dumps({
    "version": torch.__version__, "cuda": torch.version.cuda, "device": device, "gpus": gpus,
    "dtype": str(dtype).partition(".")[2], "flops": 2 * side**3 * count / spent,
}))
"""


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU as CUDA sees it."""

    name: str
    capability: tuple[int, int]
    free_bytes: int
    total_bytes: int

    @property
    def has_fp8(self) -> bool:
        return self.capability >= (8, 9)


@dataclass(frozen=True, slots=True)
class TorchFacts:
    """What torch would run on, and how fast it multiplies there."""

    version: str
    cuda: str | None  # the CUDA it was built for; None = a build for CPUs
    device: str  # cpu or cuda
    dtype: str  # what models compute in there
    flops: float  # a second, in a large matrix product in that dtype
    gpus: tuple[Gpu, ...]


def ask_torch(device: str) -> TorchFacts | str:
    """The facts for `device` (auto, cpu or cuda), or why there are none."""
    try:
        answer = subprocess.run(  # noqa: S603 - our own interpreter and program
            [sys.executable, "-c", _PROGRAM, device],
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"torch did not answer ({type(error).__name__})"
    if answer.returncode:
        last = answer.stderr.strip().splitlines()[-1:]
        return f"torch cannot be used: {''.join(last) or 'it said nothing'}"
    return read_facts(json.loads(answer.stdout.splitlines()[-1]))


def read_facts(found: dict[str, Any]) -> TorchFacts:
    """What the program printed."""
    gpus = (Gpu(g["name"], tuple(g["capability"]), g["free"], g["total"]) for g in found["gpus"])
    return TorchFacts(
        found["version"],
        found["cuda"],
        found["device"],
        found["dtype"],
        found["flops"],
        tuple(gpus),
    )
