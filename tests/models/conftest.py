"""The embedded model as it lies in the repository, and its recipe."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch
from diffusers import Flux2KleinPipeline

ROOT = Path(__file__).resolve().parents[2] / "models" / "iris-mini"


@pytest.fixture(scope="session")
def model() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def recipe() -> ModuleType:
    spec = importlib.util.spec_from_file_location("iris_mini_build", ROOT / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def pipeline() -> Flux2KleinPipeline:
    torch.set_num_threads(1)
    pipeline = Flux2KleinPipeline.from_pretrained(
        ROOT / "weights", dtype=torch.float32, use_safetensors=True, local_files_only=True
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
