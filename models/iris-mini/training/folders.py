"""Where the recipe's steps leave their work, and what they start from when there is none yet.

A run's own folder comes first; where a step has not run here, its part of what is served stands in,
so that training can be taken up from a fresh checkout. What is served is touched by
`training.release` alone.
"""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKLFlux2

from training.codec import LinearCodec

MODEL = Path(__file__).resolve().parents[1]
RUNS = MODEL / "runs"
NEXT = RUNS / "next"  # the next version: weights/, styles/, results.json, contact-sheet.png
EXAMPLES = RUNS / "examples"


def weights_folder() -> Path:
    """The pipeline folder of the next version, or of the one that is served."""
    return NEXT / "weights" if (NEXT / "weights").exists() else MODEL / "weights"


def style_file(name: str) -> Path:
    """The adapter of the next version, or of the one that is served; it need not be there."""
    folders = (parent / "styles" / name for parent in (NEXT, MODEL))
    files = [folder / "pytorch_lora_weights.safetensors" for folder in folders]
    return files[0] if files[0].exists() else files[1]


def text_folder() -> Path:
    """The folder that holds tokenizer/ and text_encoder/."""
    return RUNS / "text" if (RUNS / "text").exists() else weights_folder()


def load_vae() -> AutoencoderKLFlux2:
    """The trained autoencoder in fp32."""
    trained = RUNS / "vae"
    folder = trained if (trained / "config.json").exists() else weights_folder() / "vae"
    return AutoencoderKLFlux2.from_pretrained(folder, use_safetensors=True, dtype=torch.float32)


def load_codec() -> LinearCodec:
    """The encoder as one matrix."""
    file = RUNS / "codec.safetensors"
    return LinearCodec.load(file) if file.exists() else LinearCodec.of_vae(load_vae())
