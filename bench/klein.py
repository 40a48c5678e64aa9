"""FLUX.2-klein-4B's architecture with random weights, in every way to fit it into a GPU's memory.

    python bench/klein.py [--only whole/whole,fp8/int8] [--side 960] [--rounds 3] [--rehearse]

For each way: seconds to place the weights, GiB they take, milliseconds of a picture of 960x960 from
prompt to pixels and the most GiB it takes, the most that the largest work takes that may be asked
for (five references and guidance), and how far the first velocity and the prompt's embedding are
from those of the first way (relative: norm of the difference over the norm). Beside it what
`iris/fit.py` asks for, and last what its WORKING_BYTES would have to be. Needs no BentoML; others
may use the GPU, but what CUDA takes itself is known only where nobody else comes or goes meanwhile.
--rehearse runs it small on a CPU, for what a CPU can, and writes nothing.
"""

from __future__ import annotations

import argparse
import copy
import gc
import json
import subprocess
import time
import traceback
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import torch
from architecture import components_of, klein
from gpu import a_job
from gpu_engine import Bench
from machine import facts
from server import RESULTS
from torch import Tensor, nn

from iris.engine.denoiser import to_pixels
from iris.engine.loader import Components, quieten
from iris.engine.lora import Styles
from iris.engine.placement import place
from iris.errors import StoreError
from iris.fit import TEXT_ENCODER, TRANSFORMER, WORKING_BYTES, Fit, ModelSize
from iris.jobs import Job

_GIB = 1 << 30
_CPU = torch.device("cpu")
_LONG_S = 5.0  # no further rounds of a way that has taken so long
# The first is what the others are compared with; each part alone, then what smaller cards take.
WAYS = ("whole/whole", "fp8/whole", "int8/whole", "offload/whole", "whole/int8", "whole/offload")
WAYS += ("fp8/int8", "int8/int8", "fp8/offload", "offload/offload", "whole/cpu")


def size_of(components: Components) -> ModelSize:
    """What `iris.store.sizes.model_size` reads from files, of a model that is there."""
    model: Any = components.transformer
    text = components.text_encoder
    blocks = [_count(b) for b in (*model.transformer_blocks, *model.single_transformer_blocks)]
    layers = [_count(layer) for layer in text.layers]
    return ModelSize(
        blocks=sum(blocks),
        largest_block=max(blocks),
        transformer_rest=_count(model) - sum(blocks),
        text_layers=sum(layers),
        largest_text_layer=max(layers),
        text_embedding=_count(text.embed_tokens),
        autoencoder=_count(components.vae),
    )


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def twin(module: Any) -> Any:
    """A copy over the same memory: where its weights are brought, the first one's stay."""
    shared = {
        id(parameter): nn.Parameter(parameter.data, requires_grad=False)
        for parameter in module.parameters()
    }
    return copy.deepcopy(module, shared)


def placed(whole: Components, fit: Fit) -> tuple[Components, float]:
    """The model, held as the fit says, and the seconds that took; `whole` lies on the host."""
    parts = replace(
        whole,
        transformer=twin(whole.transformer),
        text_encoder=twin(whole.text_encoder),
        vae=twin(whole.vae),
    )
    begun = time.perf_counter()
    parts.vae.to(parts.device)
    place(parts.transformer, parts.text_encoder, fit, parts.device)
    _wait(parts.device)
    return parts, time.perf_counter() - begun


def velocity_and_prompt(bench: Bench, job: Job) -> tuple[Tensor, Tensor]:
    (row,) = bench.rows([job])
    before = row.latents
    bench.denoiser.step([row])
    moved = (row.latents - before) / (row.sigmas[1] - row.sigmas[0])
    return moved.float().cpu(), row.prompt.float().cpu()


def picture_ms(bench: Bench, job: Job, rounds: int, device: torch.device) -> float:
    """The least of some; the first is not counted, and slow ways have fewer."""
    work = bench.pictures([job])
    work()
    taken: list[float] = []
    while len(taken) < rounds and sum(taken) < _LONG_S:
        _wait(device)
        begun = time.perf_counter()
        work()
        _wait(device)
        taken.append(time.perf_counter() - begun)
    return 1000 * min(taken)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def _empty(device: torch.device) -> None:
    """Nothing of an earlier way counts any more."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def _gib(number: float) -> float:
    return round(number / _GIB, 2)


class Peaks:
    """The most memory that was taken since this was made; nothing on a CPU."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        _empty(device)

    def found(self, name: str) -> dict[str, float]:
        if self._device.type != "cuda":
            return {}
        return {
            f"{name}_gib": _gib(torch.cuda.max_memory_allocated()),
            f"{name}_reserved_gib": _gib(torch.cuda.max_memory_reserved()),
        }


def measured(
    whole: Components, fit: Fit, side_px: int, largest: Job, rounds: int
) -> tuple[dict[str, Any], tuple[Tensor, Tensor]]:
    """Figures of one way, and its velocity and prompt."""
    device = whole.device
    size, each = size_of(whole), whole.dtype.itemsize
    peaks = Peaks(device)
    components, seconds = placed(whole, fit)
    found: dict[str, Any] = {"place_s": round(seconds, 1)}
    found |= peaks.found("placing")
    if device.type == "cuda":
        found["weights_gib"] = _gib(torch.cuda.memory_allocated())
        stats = getattr(torch.cuda, "host_memory_stats", dict)()
        found["pinned_gib"] = _gib(stats.get("allocated_bytes.current", 0))
    found["counted_weights_gib"] = _gib(size.weight_bytes(fit, bytes_each=each))
    found["counted_gib"] = _gib(size.device_bytes(fit, bytes_each=each))
    bench = Bench(components, Styles(components.transformer), compiled=False)
    job = a_job(side_px, 4, 0)
    kept = velocity_and_prompt(bench, job)
    peaks = Peaks(device)
    found["picture_ms"] = round(picture_ms(bench, job, rounds, device))
    found |= peaks.found("peak")
    peaks = Peaks(device)
    (row,) = bench.rows([largest])
    bench.denoiser.step([row])
    to_pixels(bench.denoiser.decode(row))
    found |= peaks.found("largest")
    return found, kept


def gpu_used_gib() -> float | None:
    """Of the whole card, by the driver, which needs no context of ours."""
    command = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits", "--id=0"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)  # noqa: S603
        return float(answer.stdout.split()[0]) / 1024
    except (OSError, ValueError, IndexError, subprocess.SubprocessError):
        return None


def working_bytes(result: dict[str, Any], context_gib: float) -> dict[str, float]:
    """What WORKING_BYTES has to be for each way, in GiB: the most that was seen beside weights.

    Seen is the most that was allocated, which is what a card that is nearly full has to have, and
    CUDA's own share; the weights are those that `iris/fit.py` counts.
    """
    return {
        name: round(
            max(found["peak_gib"], found["largest_gib"])
            + context_gib
            - found["counted_weights_gib"],
            2,
        )
        for name, found in result.items()
        if isinstance(found, dict) and "largest_gib" in found
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", default=",".join(WAYS), help="TRANSFORMER/TEXT,...")
    parser.add_argument("--side", type=int, default=960)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rehearse", action="store_true")
    parser.add_argument("--out", type=Path, default=RESULTS / "klein.json")
    options = parser.parse_args()
    if not torch.cuda.is_available() and not options.rehearse:
        print("There is no GPU here: nothing was measured.")
        return
    ways = [Fit(*way.split("/")) for way in options.only.split(",")]
    for way in ways:
        if (way.transformer, way.text_encoder) not in product(TRANSFORMER, TEXT_ENCODER):
            raise SystemExit(f"{way}: TRANSFORMER is {TRANSFORMER}, TEXT is {TEXT_ENCODER}.")
    quieten()
    device = torch.device("cpu" if options.rehearse else "cuda")
    dtype = torch.float32 if options.rehearse else torch.bfloat16
    side, edit = (s // 8 // 16 * 16 if options.rehearse else s for s in (options.side, 704))
    largest = replace(a_job(edit, 1, 5), guidance_scale=2.0)
    result: dict[str, Any] = {"machine": facts(), "side": side, "rounds": options.rounds}

    def keep(name: str, value: Any) -> None:
        result[name] = value
        print(f"{name}: {json.dumps(value)}", flush=True)
        if not options.rehearse:  # at once: what has been measured when it is stopped is kept
            options.out.parent.mkdir(parents=True, exist_ok=True)
            options.out.write_text(json.dumps(result, indent=2) + "\n")

    used_gib = gpu_used_gib()
    begun = time.perf_counter()
    torch.manual_seed(0)
    pipeline = klein(24 if options.rehearse else 1, device, dtype)  # numbers are slow on a CPU
    whole = components_of(pipeline, device)
    pipeline.to(_CPU)
    del pipeline
    _empty(device)
    keep("build", {"seconds": round(time.perf_counter() - begun, 1)})
    exact: tuple[Tensor, Tensor] | None = None
    context_gib = 0.0
    with torch.inference_mode():
        for way in ways:
            name = f"{way.transformer}/{way.text_encoder}"
            try:
                found, ours = measured(whole, way, side, largest, options.rounds)
            except StoreError as error:
                keep(name, {"refused": error.message})
                continue
            except Exception as error:
                traceback.print_exc()
                keep(name, {"failed": f"{type(error).__name__}: {str(error)[:300]}"})
                continue
            exact = exact or ours
            for part, one, other in zip(("velocity", "prompt"), ours, exact, strict=True):
                found[f"{part}_off"] = round(float((one - other).norm() / other.norm()), 5)
            keep(name, found)
            now_gib = gpu_used_gib()
            if used_gib is not None and now_gib is not None and not context_gib:
                context_gib = now_gib - used_gib - torch.cuda.memory_reserved() / _GIB
                keep("cuda_itself_gib", round(context_gib, 2))
    beside = working_bytes(result, context_gib)
    keep("working_gib", beside)
    most = max(beside.values(), default=0.0)
    print(f"WORKING_BYTES is {WORKING_BYTES / _GIB:.1f} GiB; the most seen is {most:.2f}")
    if options.rehearse:
        print("A rehearsal: these figures mean nothing and are not kept.")


if __name__ == "__main__":
    main()
