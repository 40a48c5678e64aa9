"""Build iris-mini: a whole Flux2KleinPipeline folder of a few megabytes, and its styles.

    python models/iris-mini/build.py --out DIR [--seed N]

The same config and seed give the same bytes on the same machine.
"""

from __future__ import annotations

import argparse
import json
import sys
import zlib
from pathlib import Path
from typing import TypeVar

HERE = Path(__file__).resolve().parent
if str(HERE) not in sys.path:
    sys.path.insert(0, str(HERE))  # the recipe's parts lie beside this script

import torch  # noqa: E402
from diffusers import (  # noqa: E402
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Transformer2DModel,
)

from iris_mini.config import MiniConfig  # noqa: E402
from iris_mini.styles import write_style  # noqa: E402
from iris_mini.text import build_text_encoder, build_tokenizer, encode  # noqa: E402
from iris_mini.transformer import build_transformer  # noqa: E402
from iris_mini.vae import build_vae  # noqa: E402
from iris_mini.words import usual_prompts  # noqa: E402

Model = TypeVar("Model", bound=torch.nn.Module)

STYLES = ("dark", "anime")
RANK = 8
SEED = 7


def build(out: Path, config: MiniConfig, seed: int) -> None:
    """Write the pipeline folder and its iris.json to `out`; weights are stored in bf16."""
    generator = torch.Generator().manual_seed(seed)
    tokenizer = build_tokenizer(config)
    encoder = build_text_encoder(config, tokenizer, generator)
    prompts = encode(usual_prompts(), config, tokenizer, encoder)
    pipeline = Flux2KleinPipeline(
        scheduler=build_scheduler(config),
        vae=as_stored(build_vae(config, generator)),
        text_encoder=as_stored(encoder),
        tokenizer=tokenizer,
        transformer=as_stored(build_transformer(config, prompts, generator)),
        is_distilled=False,
    )
    out.mkdir(parents=True, exist_ok=True)
    pipeline.save_pretrained(out, safe_serialization=True)
    for path in sorted(out.glob("*/*.safetensors")):
        settle(path)
    numbers = {
        "name": config.name,
        "pixels_per_token": config.pixels_per_token,
        "text_encoder_out_layers": list(config.text_out_layers),
        "max_sequence_length": config.text_tokens,
    }
    (out / "iris.json").write_text(json.dumps(numbers, indent=2) + "\n")


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
    text = json.dumps(metadata | header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[end:])
    path.chmod(0o644)


def build_scheduler(config: MiniConfig) -> FlowMatchEulerDiscreteScheduler:
    """The production scheduler: an exponential shift that grows with tokens and steps."""
    return FlowMatchEulerDiscreteScheduler(
        num_train_timesteps=1000,
        shift=config.shift,
        base_shift=config.base_shift,
        max_shift=config.max_shift,
        use_dynamic_shifting=True,
        time_shift_type="exponential",
    )


def build_style(out: Path, base: Path, name: str, rank: int, seed: int) -> None:
    """Write the LoRA `name` for the pipeline folder `base`.

    It lies in `out`/pytorch_lora_weights.safetensors. Names without a look of
    their own ("dark" and "anime" have one) get a faint one.
    """
    transformer = Flux2Transformer2DModel.from_pretrained(
        base / "transformer", use_safetensors=True, dtype=torch.float32
    )
    out.mkdir(parents=True, exist_ok=True)
    settle(write_style(out, transformer, name, rank, seed + zlib.crc32(name.encode())))


def main() -> None:
    parser = argparse.ArgumentParser(description="Build iris-mini and its styles.")
    parser.add_argument(
        "--out", type=Path, default=HERE, help="folder that gets weights/ and styles/NAME/"
    )
    parser.add_argument("--seed", type=int, default=SEED, help="seed of every random weight")
    options = parser.parse_args()
    weights = options.out / "weights"
    build(weights, MiniConfig(), options.seed)
    for name in STYLES:
        build_style(options.out / "styles" / name, weights, name, RANK, options.seed)
    size = sum(path.stat().st_size for path in options.out.glob("**/*.safetensors"))
    print(f"iris-mini, seed {options.seed}: {size / 1e6:.2f} MB of weights in {options.out}")


if __name__ == "__main__":
    main()
