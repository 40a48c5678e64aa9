"""What styles cost a step: none, one and three, on the embedded model and at klein's width.

    python bench/style.py [--rounds 7] [--threads 2]

A style costs 2 r (in + out) operations a token where the layer costs 2 in out, so the share falls
with the width: hence the second model, one block of each kind as wide as FLUX.2-klein-4B's,
with random weights.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from architecture import add_styles
from diffusers import Flux2Transformer2DModel
from machine import facts
from server import CHECKOUT, RESULTS

from iris.engine.loader import use_threads
from iris.engine.lora import Styles, Worn, install_styles
from iris.engine.pointwise import Pointwise
from iris.engine.transformer import PackedTransformer

AS_WIDE = "one block of each kind at klein's width, 160 tokens each"
MINI = CHECKOUT / "models" / "iris-mini"


def embedded() -> tuple[Flux2Transformer2DModel, Styles]:
    model = Flux2Transformer2DModel.from_pretrained(
        MINI / "weights" / "transformer", use_safetensors=True, dtype=torch.float32
    )
    names = ("dark", "anime")
    return model, install_styles(model, {name: MINI / "styles" / name for name in names})


def as_wide_as_klein() -> tuple[Flux2Transformer2DModel, Styles]:
    model = Flux2Transformer2DModel(
        in_channels=128,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=128,
        num_attention_heads=24,
        joint_attention_dim=7680,
        mlp_ratio=3.0,
        axes_dims_rope=(32, 32, 32, 32),
        rope_theta=2000,
        guidance_embeds=False,
    )
    return model, add_styles(model, ("dark", "anime"))


def passes(
    model: Flux2Transformer2DModel, styles: Styles, text: int, picture: int
) -> dict[str, Callable[[], object]]:
    """Name -> a pass of three pictures."""
    packed = PackedTransformer(model, Pointwise(compiled=False))
    prompts = [torch.randn(text, model.config.joint_attention_dim) for _ in range(3)]
    pictures = [torch.randn(picture, model.config.in_channels) for _ in range(3)]
    rotation = packed.rotation(torch.zeros(text + picture, 4))
    wanted: dict[str, list[tuple[str | None, float]]] = {
        "none": [(None, 0.6)] * 3,
        "one": [("dark", 0.8)] * 3,
        "three": [(None, 0.6), ("dark", 0.8), ("anime", 0.8)],
    }

    def one(worn: list[Worn | None]) -> Callable[[], object]:
        return lambda: packed(
            prompts, pictures, [picture] * 3, [rotation] * 3, torch.tensor([0.9, 0.5, 0.2]), worn
        )

    return {name: one([styles.wear(*one) for one in which]) for name, which in wanted.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RESULTS / "style.json")
    options = parser.parse_args()
    use_threads(options.threads)
    result: dict[str, Any] = {"machine": facts(), "threads": options.threads}
    with torch.inference_mode():
        for name, (model, styles), text, picture in (
            ("iris-mini, three pictures of 768x768", embedded(), 64, 144),
            (AS_WIDE, as_wide_as_klein(), 32, 128),
        ):
            seconds: dict[str, list[float]] = {}
            for turn in range(options.rounds + 1):  # the first is not counted
                for which, run in passes(model, styles, text, picture).items():
                    begun = time.perf_counter()
                    run()
                    if turn:
                        seconds.setdefault(which, []).append(time.perf_counter() - begun)
            medians = {which: statistics.median(taken) for which, taken in seconds.items()}
            result[name] = {f"{which}_s": round(value, 4) for which, value in medians.items()} | {
                "cost of one": round(medians["one"] / medians["none"] - 1, 4),
                "cost of three": round(medians["three"] / medians["none"] - 1, 4),
            }
            print(f"{name}: {json.dumps(result[name])}", flush=True)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
