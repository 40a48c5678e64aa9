"""The embedded model as it lies in the repository, run by the engine."""

from pathlib import Path

import pytest
from diffusers import Flux2KleinPipeline

from evaluation.generate import Model
from evaluation.probe import Probe
from iris.engine.loader import quieten

ROOT = Path(__file__).resolve().parents[2] / "models" / "iris-mini"


@pytest.fixture(scope="session")
def folder() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def model() -> Model:
    """The weights and both styles behind the engine's own code."""
    return Model(ROOT, threads=1)


@pytest.fixture(scope="session")
def probe() -> Probe:
    return Probe.load()


@pytest.fixture(scope="session")
def pipeline() -> Flux2KleinPipeline:
    """The same weights in the stock pipeline."""
    quieten()
    pipeline = Flux2KleinPipeline.from_pretrained(
        ROOT / "weights", use_safetensors=True, local_files_only=True
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
