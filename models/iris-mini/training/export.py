"""Put the trained parts together: a Flux2KleinPipeline folder with its iris.json.

    python -m training.export [--out DIR] [--farther TIMES --since DIR]

Weights are stored in bf16. Styles are written by train_style.py. --farther takes the transformer so
many times as far from where it began (--since, a pipeline folder) as training took it: what short
training has only begun to change is then changed more. Measure what becomes of all the rest.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

import torch
from diffusers import AutoencoderKLFlux2, Flux2KleinPipeline
from safetensors.torch import load_file
from torch import Tensor
from transformers import Qwen2Tokenizer, Qwen3ForCausalLM

from training import text
from training.folders import NEXT, RUNS, load_vae, text_folder
from training.grids import COMPOSITION_SIDES, REFERENCE_SIDES, SIDES
from training.transformer import build_scheduler, build_transformer

Model = TypeVar("Model", bound=torch.nn.Module)


def as_stored(model: Model) -> Model:
    """Round the weights to bf16, the type they have on disk."""
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.is_floating_point():
            tensor.data = tensor.data.to(torch.bfloat16)
    return model


def settle(path: Path) -> None:
    """Sort the header of a safetensors file, whose metadata comes in an order of chance."""
    content = path.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    metadata = {"__metadata__": dict(sorted(header.pop("__metadata__", {}).items()))}
    line = json.dumps(metadata | header, separators=(",", ":")).encode()
    line += b" " * (-len(line) % 8)
    path.write_bytes(len(line).to_bytes(8, "little") + line + content[end:])
    path.chmod(0o644)


def forget_origin(path: Path) -> None:
    """Take out of a config the folder of this machine that the part was read from."""
    config = json.loads(path.read_text(encoding="utf-8"))
    if config.pop("_name_or_path", None) is not None:
        path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def farther(since: Path, weights: Mapping[str, Tensor], times: float) -> dict[str, Tensor]:
    """Weights on the straight line from those of a pipeline folder to these, 1 = these."""
    file = since / "transformer" / "diffusion_pytorch_model.safetensors"
    return {
        name: torch.lerp(value.float(), weights[name].float(), times)
        for name, value in load_file(file).items()
    }


def export(
    out: Path, vae: AutoencoderKLFlux2, times: float = 1.0, since: Path | None = None
) -> None:
    """Write the pipeline folder: text encoder and transformer of the last run, and `vae`."""
    state = torch.load(RUNS / "transformer" / "state.pt", map_location="cpu", weights_only=True)
    transformer = build_transformer()
    weights = state["ema"] if since is None else farther(since, state["ema"], times)
    transformer.load_state_dict(weights)
    pipeline = Flux2KleinPipeline(
        scheduler=build_scheduler(),
        vae=as_stored(vae),
        text_encoder=as_stored(
            Qwen3ForCausalLM.from_pretrained(text_folder() / "text_encoder", dtype=torch.float32)
        ),
        tokenizer=Qwen2Tokenizer.from_pretrained(text_folder() / "tokenizer"),
        transformer=as_stored(transformer),
        is_distilled=False,
    )
    out.mkdir(parents=True, exist_ok=True)
    pipeline.save_pretrained(out, safe_serialization=True)
    for path in sorted(out.glob("*/*.safetensors")):
        settle(path)
    for path in sorted(out.glob("*/config.json")):
        forget_origin(path)
    numbers = {
        "name": "iris-mini",
        "pixels_per_token": 2 * pipeline.vae_scale_factor,
        "text_encoder_out_layers": list(text.OUT_LAYERS),
        "max_sequence_length": text.TOKENS,
        "sides": asdict(SIDES),
        "composition_sides": asdict(COMPOSITION_SIDES),
        "reference_sides": asdict(REFERENCE_SIDES),
    }
    (out / "iris.json").write_text(json.dumps(numbers, indent=2) + "\n")
    print(f"{out}: {state['samples']} samples seen in {state['steps']} steps")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=NEXT / "weights")
    parser.add_argument("--farther", type=float, default=1.0, metavar="TIMES")
    parser.add_argument("--since", type=Path, help="the pipeline folder that training began with")
    options = parser.parse_args()
    if options.farther != 1.0 and options.since is None:
        parser.error("--farther wants --since: the folder whose weights training began with")
    export(options.out, load_vae(), options.farther, options.since)


if __name__ == "__main__":
    main()
