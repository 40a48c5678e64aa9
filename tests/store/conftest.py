from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from iris.store.digest import folder_sha256

MODULES = ("transformer_blocks.0.attn.to_q", "single_transformer_blocks.0.attn.to_out")


def _write_lora(
    path: Path,
    *,
    modules: tuple[str, ...] = MODULES,
    rank: int = 2,
    change: Mapping[str, np.ndarray | None] | None = None,
) -> None:
    """A LoRA for the base of `Models`; `change` replaces, adds or (None) removes tensors."""
    tensors: dict[str, np.ndarray] = {}
    for module in modules:
        tensors[f"transformer.{module}.lora_A.weight"] = np.full((rank, 6), 0.5, np.float32)
        tensors[f"transformer.{module}.lora_B.weight"] = np.full((4, rank), 0.25, np.float32)
    for name, tensor in (change or {}).items():
        if tensor is None:
            del tensors[name]
        else:
            tensors[name] = tensor
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path)


def _write_raw(path: Path, header: object, data: bytes) -> None:
    """A safetensors file byte by byte, right or wrong."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


@dataclass
class Models:
    """A folder with sources and the registry that names them."""

    folder: Path

    @property
    def base(self) -> Path:
        return self.folder / "tiny" / "weights"

    def style(self, name: str) -> Path:
        return self.folder / "tiny" / "styles" / name

    def write_base(self) -> None:
        (self.base / "transformer").mkdir(parents=True, exist_ok=True)
        (self.base / "model_index.json").write_text("{}")
        weights = {f"{module}.weight": np.ones((4, 6), np.float32) for module in MODULES}
        weights["norm.weight"] = np.ones((4,), np.float32)
        save_file(weights, self.base / "transformer" / "model.safetensors")

    def register(self, *styles: str, version: str = "1.0.0") -> Path:
        """Write registry.toml with the hashes that the sources have now."""
        base_tag = f"tiny-base:{version}"
        text = f"""
            [base]
            name = "tiny"
            tag = "{base_tag}"
            source = "tiny/weights"
            sha256 = "{folder_sha256(self.base)}"
            description = "a model for tests"
            """
        for name in styles:
            text += f"""
            [[styles]]
            name = "{name}"
            tag = "tiny-lora-{name}:{version}"
            source = "tiny/styles/{name}"
            base = "{base_tag}"
            rank = 2
            sha256 = "{folder_sha256(self.style(name))}"
            description = "{name} pictures"
            """
        path = self.folder / "registry.toml"
        path.write_text(text)
        return path


@pytest.fixture
def write_lora() -> Callable[..., None]:
    return _write_lora


@pytest.fixture
def write_raw() -> Callable[[Path, object, bytes], None]:
    return _write_raw


@pytest.fixture
def models(tmp_path: Path) -> Models:
    """A base and the styles dark and anime, not registered yet."""
    models = Models(tmp_path / "sources")
    models.write_base()
    for name in ("dark", "anime"):
        _write_lora(models.style(name) / "pytorch_lora_weights.safetensors")
    return models


@pytest.fixture
def bento_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty Bento home for this test, in this process and in those it starts."""
    with warnings.catch_warnings():
        # BentoML's own modules use things that pathspec and pydantic call deprecated
        warnings.simplefilter("ignore", DeprecationWarning)
        import _bentoml_sdk.models  # noqa: F401
    from bentoml._internal.configuration.containers import BentoMLContainer
    from bentoml._internal.models import ModelStore

    home = tmp_path / "bentoml"
    for folder in ("models", "bentos", "tmp"):
        (home / folder).mkdir(parents=True)
    monkeypatch.setenv("BENTOML_HOME", str(home))
    monkeypatch.setenv("BENTOML_DO_NOT_TRACK", "True")
    BentoMLContainer.bentoml_home.set(str(home))
    BentoMLContainer.model_store.set(ModelStore(home / "models"))
    yield home
    BentoMLContainer.model_store.reset()
    BentoMLContainer.bentoml_home.reset()
