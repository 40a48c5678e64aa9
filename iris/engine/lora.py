"""Styles as LoRA beside the weights: a row that wears one gets its product added, layer by layer.

    y = base(x) + strength * scale * (x @ down.T) @ up.T

Nothing is fused into the weights or taken out again, which would wear bfloat16 weights down, and
the layers themselves know nothing of styles. Each row's product is computed over its own tokens, so
a pass costs only what its rows wear, and a picture is the same whatever its neighbours wear.
"""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from diffusers import Flux2KleinPipeline
from safetensors import SafetensorError
from torch import Tensor, nn

from iris.engine import metrics
from iris.engine.quantised import EightBitLinear
from iris.engine.transfer import upload
from iris.errors import StoreError

_WEIGHTS = "pytorch_lora_weights.safetensors"
_KEPT_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class Adapter:
    """One style for one layer. down: (rank, in), up: (out, rank), scale: alpha / rank."""

    down: Tensor
    up: Tensor
    scale: float

    def add_to(self, y: Tensor, x: Tensor, strength: float, outputs: slice) -> None:
        """Add the style's share to y, (tokens, outputs), in place. x: (tokens, in)."""
        y.addmm_(x @ self.down.T, self.up[outputs].T, alpha=strength * self.scale)


class Style:
    """One version of a style, on the device. It stays there as long as somebody holds it."""

    def __init__(self, adapters: Mapping[nn.Module, Adapter]) -> None:
        self.adapters = adapters  # by the layer they change
        tensors = [tensor for a in adapters.values() for tensor in (a.down, a.up)]
        self.num_bytes = sum(tensor.nbytes for tensor in tensors)


@dataclass(frozen=True, slots=True)
class Worn:
    """A style as a row wears it."""

    style: Style
    strength: float


class Styles:
    """Every style that can be asked for; those lately asked for lie on the device.

    What a picture in the making wears stays with it, whatever else is asked for or served
    meanwhile. Safe to call from several threads.
    """

    def __init__(self, transformer: nn.Module, *, kept_bytes: int = _KEPT_BYTES) -> None:
        """kept_bytes: of the device's memory, for styles that no picture wears right now."""
        self._transformer = transformer
        self._kept_bytes = kept_bytes
        self._lock = Lock()  # held for a moment only: whoever is admitted asks for the names
        self._loading = Lock()  # one style at a time
        self._folders: dict[str, Path] = {}
        self._kept: OrderedDict[Path, Style] = OrderedDict()  # the last one asked for is last
        self._alive: weakref.WeakValueDictionary[Path, Style] = weakref.WeakValueDictionary()

    @property
    def names(self) -> frozenset[str]:
        with self._lock:
            return frozenset(self._folders)

    def serve(self, folders: Mapping[str, Path]) -> None:
        """From now on these names mean these folders; names not among them stay what they are.

        All of them, or none where one does not fit.

        Raises:
            StoreError: a style names a layer the transformer lacks, has another shape or cannot be
                read.
        """
        for name, folder in folders.items():
            with self._lock:
                is_known = self._folders.get(name) == folder
            if not is_known:
                for path, adapter in read_adapters(folder).items():
                    _check_fits(self._transformer, name, path, adapter)
        with self._lock:
            self._folders.update(folders)

    def wear(self, name: str | None, strength: float) -> Worn | None:
        """The style on the device, for a row; None where it would change nothing.

        Raises:
            StoreError: its file is gone or has been changed.
        """
        if name is None or strength == 0.0:
            return None
        with self._lock:
            folder = self._folders[name]
            style = self._loaded(folder)
        if style is None:
            with self._loading:
                with self._lock:
                    style = self._loaded(folder)  # by whoever was before
                if style is None:
                    style = self._load(folder)
                    with self._lock:
                        self._keep(folder, style)
        return Worn(style, strength)

    def let_go(self) -> None:
        """Give back the memory of every style that no picture wears."""
        with self._lock:
            self._kept.clear()
            metrics.STYLE_BYTES.set(0)

    def _loaded(self, folder: Path) -> Style | None:
        style = self._kept.pop(folder, None) or self._alive.get(folder)
        if style is not None:
            self._keep(folder, style)
        return style

    def _keep(self, folder: Path, style: Style) -> None:
        self._kept[folder] = self._alive[folder] = style
        while len(self._kept) > 1 and self._num_kept_bytes() > self._kept_bytes:
            self._kept.popitem(last=False)
        metrics.STYLE_BYTES.set(self._num_kept_bytes())

    def _num_kept_bytes(self) -> int:
        return sum(style.num_bytes for style in self._kept.values())

    def _load(self, folder: Path) -> Style:
        like = self._transformer.get_submodule("x_embedder").get_parameter("weight")
        return Style(
            {
                self._transformer.get_submodule(path): Adapter(
                    upload(adapter.down, like.device, like.dtype),
                    upload(adapter.up, like.device, like.dtype),
                    adapter.scale,
                )
                for path, adapter in read_adapters(folder).items()
            }
        )


def read_adapters(folder: Path) -> dict[str, Adapter]:
    """Read a style: module path in the transformer -> its matrices.

    Goes through diffusers' own reader; whatever it does not turn into complete pairs is an error
    here, never silently dropped. `iris styles add` brings other key formats to this one.

    Raises:
        StoreError: no such file, not safetensors, no pair found, or a key that fits nothing.
    """
    try:
        state, metadata = Flux2KleinPipeline.lora_state_dict(
            folder,
            weight_name=_WEIGHTS,
            use_safetensors=True,
            local_files_only=True,
            return_lora_metadata=True,
        )
    except (OSError, ValueError, SafetensorError) as error:
        raise StoreError(f"The style in {folder} cannot be read: {error}") from error
    prefix = "transformer."
    downs: dict[str, Tensor] = {}
    ups: dict[str, Tensor] = {}
    alphas: dict[str, float] = {}
    for key, tensor in state.items():
        path = key.removeprefix(prefix)
        for ending, found in ((".lora_A.weight", downs), (".lora_B.weight", ups)):
            if path.endswith(ending):
                found[path.removesuffix(ending)] = tensor
                break
        else:
            if not path.endswith(".alpha"):
                raise StoreError(f"The style in {folder} has a tensor {key!r} that is no LoRA.")
            alphas[path.removesuffix(".alpha")] = float(tensor)
    if not downs or downs.keys() != ups.keys():
        raise StoreError(
            f"The style in {folder} has {len(downs)} down and {len(ups)} up matrices; it needs "
            "at least one pair and every pair complete."
        )
    settings = {k.removeprefix(prefix): v for k, v in (metadata or {}).items()}
    adapters = {}
    for path, down in downs.items():
        rank = down.shape[0]
        alpha = alphas.get(path, settings.get("alpha_pattern", {}).get(path))
        if alpha is None:
            alpha = settings.get("lora_alpha", rank)
        adapters[path] = Adapter(down, ups[path], float(alpha) / rank)
    return adapters


def install_styles(
    transformer: nn.Module, folders: Mapping[str, Path], *, kept_bytes: int = _KEPT_BYTES
) -> Styles:
    """The styles of the transformer, whose weights stay as they are.

    folders: style name -> folder of its weights.

    Raises:
        StoreError: as `Styles.serve`.
    """
    styles = Styles(transformer, kept_bytes=kept_bytes)
    styles.serve(folders)
    return styles


def _check_fits(transformer: nn.Module, name: str, path: str, adapter: Adapter) -> None:
    try:
        layer = transformer.get_submodule(path)
    except AttributeError:
        layer = None
    if not isinstance(layer, nn.Linear | EightBitLinear):
        raise StoreError(f"Style {name!r} changes {path!r}, which this base model does not have.")
    found = (adapter.up.shape[0], adapter.down.shape[1])
    if found != (layer.out_features, layer.in_features):
        raise StoreError(
            f"Style {name!r} was made for another base: {path!r} is "
            f"{layer.out_features}x{layer.in_features} here and {found[0]}x{found[1]} in the style."
        )
    if adapter.up.shape[1] != adapter.down.shape[0]:
        raise StoreError(
            f"Style {name!r} has two ranks for {path!r}: {adapter.down.shape[0]} and "
            f"{adapter.up.shape[1]}."
        )
