"""The models: what is stored, whether it fits this GPU, and what a picture would take."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from iris.config import Settings
from iris.doctor.finding import Finding
from iris.doctor.torch_facts import TorchFacts
from iris.errors import IrisError
from iris.fit import ModelSize, fits_for, gib
from iris.store import bento
from iris.store.bases import pipeline_files
from iris.store.digest import no_folder
from iris.store.pinned import served_registry
from iris.store.registry import Registry
from iris.store.resolver import entry_status
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
        state = entry_status(entry)
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
    if not torch.gpus:
        needed = size.weight_bytes(settings.fit, bytes_each=_BYTES[torch.dtype])
        yield Finding("ok", name, f"weights take {gib(needed)} of memory in {torch.dtype}")
        return
    for number, gpu in enumerate(torch.gpus):
        needed = size.device_bytes(settings.fit)
        found = f"needs about {gib(needed)} with {settings.fit.settings}; GPU {number} has "
        found += f"{gib(gpu.free_bytes)} free"
        ways = list(fits_for(size, gpu.free_bytes, has_fp8=gpu.has_fp8))
        if needed <= gpu.free_bytes:
            best = ways[0] if ways else settings.fit
            advice = "" if best == settings.fit else f"{best.settings} fits too and is faster"
            yield Finding("ok", name, found, advice)
        else:
            advice = f"set {ways[0].settings}" if ways else "use a larger GPU or a smaller model"
            yield Finding("stop", name, found, advice)


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
