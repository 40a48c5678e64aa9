"""The models: what is stored, whether it fits this machine, and what a picture would take."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from iris.config import Settings
from iris.doctor.finding import Finding
from iris.doctor.torch_facts import Gpu, TorchFacts
from iris.errors import IrisError
from iris.fit import (
    NEEDS_FP8,
    ModelSize,
    engines_on,
    fits_instead,
    gib,
    host_advice,
)
from iris.host_memory import host_memory_bytes
from iris.store import bento
from iris.store.bases import pipeline_files
from iris.store.digest import no_folder
from iris.store.pinned import served_registry
from iris.store.registry import Registry
from iris.store.resolver import FULL_HASH_BYTES, entry_status
from iris.store.sizes import model_size

_SIDE_PX, _STEPS = 768, 4
_BYTES = {"float32": 4, "bfloat16": 2}


def look_at_models(settings: Settings, torch: TorchFacts | str) -> Iterator[Finding]:
    """The registry, the store, and the base that is served on this device."""
    try:
        registry = served_registry(settings)
    except IrisError as error:
        yield Finding("stop", "models", error.message)
        return
    for entry in registry.entries:
        state = entry_status(entry, FULL_HASH_BYTES)
        if state.state == "unusable":
            yield Finding("stop", entry.tag, state.detail)
        elif state.state == "missing" and no_folder(entry.source):
            yield Finding("stop", entry.tag, "not stored, and its source is gone", state.detail)
        else:
            where = "is imported at the next start" if state.state == "missing" else "stored"
            yield Finding("ok", entry.tag, where)
    if isinstance(torch, str):
        return
    name = registry.base.name
    try:
        folder = _folder(registry)
        if folder is None:
            return
        pipeline_files(folder)
        size = model_size(folder)
    except IrisError as error:
        yield Finding("stop", name, error.message)
        return
    yield from _memory(settings, name, size, torch)
    try:
        yield _speed(name, size, folder, torch)
    except (OSError, ValueError, KeyError, TypeError) as error:
        why = f"{folder}: vae/config.json or iris.json lacks what is needed ({error!r})"
        yield Finding("stop", name, why, "fetch or copy the model again")


def _folder(registry: Registry) -> Path | None:
    stored = bento.find(registry.base.tag)
    if stored is not None:
        return stored.path
    return None if no_folder(registry.base.source) else registry.base.source


def _memory(settings: Settings, name: str, size: ModelSize, torch: TorchFacts) -> Iterator[Finding]:
    dtype = torch.dtype if settings.dtype == "auto" else settings.dtype
    engines = settings.engines or max(1, len(torch.gpus))
    if not torch.gpus:
        yield from _on_processor(settings, name, size, dtype, engines)
        return
    for number, gpu in enumerate(torch.gpus):
        sharing = engines_on(number, engines, len(torch.gpus))
        if sharing:
            yield _on_gpu(settings, name, size, dtype, f"GPU {number}", gpu, sharing)
    kept = engines * size.host_bytes(settings.fit, bytes_each=_BYTES[dtype])
    memory = host_memory_bytes()
    if kept > memory:
        yield Finding(
            "note",
            name,
            f"{settings.fit.settings} keeps {gib(kept)} of weights in host memory in {dtype}, "
            f"and {gib(memory)} are there",
            "use more memory or a smaller model, or hold more of it on the GPU (docs/models.md)",
        )


def _on_processor(
    settings: Settings, name: str, size: ModelSize, dtype: str, engines: int
) -> Iterator[Finding]:
    each, memory = _BYTES[dtype], host_memory_bytes()
    needed = size.processor_bytes(settings.fit, engines=engines, bytes_each=each)
    found = f"weights take {gib(needed)} of memory in {dtype}"
    if engines > 1:
        found += f" for {engines} engines"
    if needed > memory:
        advice = host_advice(size, settings.fit, memory, engines=engines, bytes_each=each)
        yield Finding("stop", name, f"{found}, and {gib(memory)} are there", advice)
    elif settings.fit.needs_fp8:
        yield Finding("stop", name, f"{NEEDS_FP8}, and this is a CPU", "set IRIS_TRANSFORMER=int8")
    else:
        yield Finding("ok", name, found)


def _on_gpu(
    settings: Settings,
    name: str,
    size: ModelSize,
    dtype: str,
    place: str,
    gpu: Gpu,
    engines: int,
) -> Finding:
    fit, each = settings.fit, _BYTES[dtype]
    room = gpu.free_bytes // engines
    needed = size.device_bytes(fit, bytes_each=each)
    ways = fits_instead(size, fit, room, has_fp8=gpu.has_fp8, bytes_each=each)
    instead = f"set {ways[0].settings}" if ways else "use a larger GPU or a smaller model"
    if fit.needs_fp8 and not gpu.has_fp8:
        return Finding("stop", name, f"{NEEDS_FP8}, and {place} has none", instead)
    found = f"needs about {gib(needed)} with {fit.settings}; {place} has {gib(gpu.free_bytes)} free"
    if engines > 1:
        found += f" for {engines} engines"
    if needed > room:
        fewer = ", or fewer engines (IRIS_ENGINES)" if needed <= gpu.free_bytes else ""
        return Finding("stop", name, found, f"{instead}{fewer}")
    better = "" if ways[0] == fit else f"{ways[0].settings} fits too and is faster"
    return Finding("ok", name, found, better)


def _speed(name: str, size: ModelSize, folder: Path, torch: TorchFacts) -> Finding:
    """What the products alone take at the speed that was just measured: no picture is faster."""
    tokens = _text_tokens(folder) + (-(-_SIDE_PX // _pixels_per_token(folder))) ** 2
    seconds = _STEPS * 2 * size.blocks * tokens / torch.flops
    shown = f"{1000 * seconds:.0f} ms" if seconds < 10 else f"{seconds:.0f} s"
    return Finding(
        "ok",
        "speed",
        f"{torch.flops / 1e12:.2f} TFLOP/s in {torch.dtype}: the {_STEPS} steps of a "
        f"{_SIDE_PX}x{_SIDE_PX} picture of {name} take at least {shown}",
    )


def _pixels_per_token(folder: Path) -> int:
    config = json.loads((folder / "vae" / "config.json").read_text(encoding="utf-8"))
    return int(2 ** len(config["block_out_channels"]))


def _text_tokens(folder: Path) -> int:
    file = folder / "iris.json"
    if not file.is_file():
        return 512
    return int(json.loads(file.read_text(encoding="utf-8")).get("max_sequence_length", 512))
