"""Train a style: a LoRA whose strength means how much of the style a picture has.

    python -m training.train_style NAME --minutes M [--threads N]

The targets are the world's own pictures, rendered in the style by the amount that the adapter is
scaled with, so that lora_strength 0.3 is taught to give 0.3 of it. The base stays frozen. The state
is saved to models/iris-mini/runs/NAME; the adapter is written to models/iris-mini/runs/next/styles.
Without a state it starts from the adapter that is there, unless --fresh.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from diffusers import Flux2Transformer2DModel
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from tqdm import tqdm

from iris.training.adapter import adapt, read, state_of, take, write
from training.batches import Batches
from training.devices import COMPILED, choose
from training.export import settle
from training.folders import EXAMPLES, NEXT, RUNS, style_file, weights_folder
from training.text import load_prompts
from training.train_transformer import loss_of
from training.transformer import Taught, compile_blocks
from world.spec import STYLES

RANK = 16
RATE = 2e-3
WARM_UP = 30  # steps
SAVE_EVERY = 120.0  # seconds
TOKENS = {"cpu": 4800, "cuda": 32000}  # a batch


def share_strength(model: nn.Module, name: str) -> Tensor:
    """Give all layers one strength, a tensor: set anew for each batch without recompiling."""
    strength = torch.ones((), device=next(model.parameters()).device)
    for module in model.modules():
        if isinstance(module, LoraLayer):
            module.scaling[name] = strength  # type: ignore[assignment]
    return strength


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=STYLES)
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--base", type=Path, default=weights_folder())
    parser.add_argument("--out", type=Path, default=NEXT / "styles")
    parser.add_argument("--tokens", type=int, help="tokens a batch (4800 on a CPU, 32000 on a GPU)")
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, help=COMPILED)
    parser.add_argument("--fresh", action="store_true", help="start from nothing")
    options = parser.parse_args()
    device = choose(options.device)
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    state_file = RUNS / options.name / "state.pt"
    state_file.parent.mkdir(parents=True, exist_ok=True)

    model = Flux2Transformer2DModel.from_pretrained(
        options.base / "transformer", use_safetensors=True, dtype=torch.float32
    ).to(device)
    targets = adapt(model, options.name, RANK)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(trained, RATE, betas=(0.9, 0.98), weight_decay=0.0)
    steps = 0
    if state_file.exists():
        state = torch.load(state_file, map_location=device, weights_only=True)
        take(model, options.name, state["adapter"])
        optimiser.load_state_dict(state["optimiser"])
        steps = state["steps"]
    elif not options.fresh and (trained_before := style_file(options.name)).exists():
        read(model, options.name, trained_before)
    strength = share_strength(model, options.name)
    prompts = load_prompts(options.base, device)
    folder = EXAMPLES / options.name
    tokens = options.tokens or TOKENS[device.type]
    batches = Batches(folder, prompts, tokens, options.seed + steps)
    taught = Taught(model).to(device)
    is_compiled = device.type == "cpu" if options.compile is None else options.compile
    if is_compiled:
        compile_blocks(model)

    def save() -> None:
        adapter = state_of(model, options.name)
        state = {"adapter": adapter, "optimiser": optimiser.state_dict(), "steps": steps}
        torch.save(state, state_file.with_suffix(".partial"))
        state_file.with_suffix(".partial").rename(state_file)

    begin = saved_at = time.monotonic()
    first, average = steps, torch.zeros((), device=device)
    bar = tqdm(desc=options.name, unit="step", initial=steps, mininterval=10)
    while (spent := (time.monotonic() - begin) / 60) < options.minutes:
        rate = min(1.0, (steps - first + 1) / WARM_UP, 2.5 * (1.0 - spent / options.minutes))
        for group in optimiser.param_groups:
            group["lr"] = RATE * rate
        batch = batches.next()
        strength.fill_(batch.amount)
        loss, _ = loss_of(taught, batch)
        loss.backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()
        optimiser.zero_grad()
        steps += 1
        average += (loss.detach() - average) / min(50, steps - first)
        bar.update()
        if steps % 10 == 0:
            bar.set_postfix(loss=f"{average.item():.4f}", refresh=False)
        if time.monotonic() - saved_at > SAVE_EVERY:
            save()
            saved_at = time.monotonic()
    save()
    settle(write(model, options.name, targets, options.out / options.name))


if __name__ == "__main__":
    main()
