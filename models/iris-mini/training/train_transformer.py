"""Train the transformer on the rendered examples; goes on from the last state or the weights.

    python -m training.train_transformer --minutes M [--decay D] [--loud L] [--more SHAPE=TIMES ...]

The learning rate is constant and falls to nothing over the last D minutes. In the first L minutes
what the noise decides is spoken louder than it will be: a model that never read it needs that. The
state is saved every few minutes to models/iris-mini/runs/transformer; stopped and started again, it
goes on. Without a state it starts from the weights that are there, unless --fresh. Where a GPU is
visible it trains there, with larger batches.
"""

from __future__ import annotations

import argparse
import time
from functools import partial

import torch
from diffusers import Flux2Transformer2DModel
from torch import Tensor, nn
from tqdm import tqdm

from training.batches import Batch, Batches
from training.devices import COMPILED, choose
from training.examples import MOODS, MOST, SHAPES
from training.folders import EXAMPLES, RUNS, text_folder, weights_folder
from training.text import load_prompts
from training.transformer import (
    COORDINATES,
    LAND,
    PARTS,
    PLACES,
    Taught,
    build_transformer,
    compile_blocks,
)
from world.spec import COLOURS, KINDS

MUON_RATE, ADAM_RATE = 1.5e-3, 7.5e-4
LOUDEST = 10.0  # times the strength of the noise's lots, where they are taught for the first time
WARM_UP = 100  # steps
LISTENING = 250  # steps in which teachers that are new to a trained model only listen to it
EMA = 0.998
# a batch; below that a GPU waits for who asks it: 75 steps took an H200 as long with a third of it
TOKENS = {"cpu": 3200, "cuda": 96000}
SAVE_EVERY = 180.0  # seconds


def optimisers(model: nn.Module, teachers: nn.Module) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the blocks, AdamW for everything at the ends, and teachers."""
    inside, ends = [], []
    for name, parameter in model.named_parameters():
        block = name.startswith(("transformer_blocks.", "single_transformer_blocks."))
        (inside if block and parameter.ndim == 2 else ends).append(parameter)
    return [
        torch.optim.Muon(
            inside, MUON_RATE, weight_decay=0.02, momentum=0.95, adjust_lr_fn="match_rms_adamw"
        ),
        *(
            torch.optim.AdamW(some, ADAM_RATE, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
            for some in (ends, list(teachers.parameters()))
        ),
    ]


def loss_of(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    """The velocity's mean squared error, objects weighted; and how wrong the teachers were told."""
    tokens = batch.noisy.shape[1]
    with torch.autocast(batch.noisy.device.type, torch.bfloat16):
        answer, told = model(
            hidden_states=torch.cat([batch.noisy, batch.references], dim=1),
            encoder_hidden_states=batch.prompts,
            timestep=batch.sigma,
            img_ids=batch.where.image_positions,
            txt_ids=batch.where.text_positions,
        )
    answer = answer[:, :tokens].float()
    asked = batch.where.coordinates, batch.where.places, batch.contents, batch.moods
    lost = torch.stack([unlearnt(one.float(), *asked) for one in told]).mean()
    return (batch.weight * batch.fineness * (answer - batch.velocity) ** 2).mean(), lost


def unlearnt(
    told: Tensor, coordinates: Tensor, places: Tensor, contents: Tensor, moods: Tensor
) -> Tensor:
    """How wrong a teacher was told where tokens are and, of the picture's own, what they show."""
    sizes = [COORDINATES, PLACES * MOST, PARTS * MOST, 2, len(KINDS), len(COLOURS)]
    sizes += [*MOODS, LAND * MOST]
    where, seats, parts, plain, kinds, colours, *choices, lands = told.split(sizes, dim=2)
    squares = ((where - coordinates) ** 2).mean()
    asked = places.expand(len(told), -1, -1).flatten()
    crosses = PLACES * nn.functional.cross_entropy(seats.reshape(-1, MOST), asked)

    own = contents.shape[1]
    widths = [1, PARTS, 1, 1, 1, LAND]
    inside, part, kind, colour, below, land = contents.split(widths, dim=2)
    squares = squares + ((plain[:, :own] - torch.cat([inside, below], dim=2)) ** 2).mean()
    # of the objects' own tokens alone: among all of them they would count for nothing
    objects = inside.flatten() / inside.sum().clamp_min(1)
    cross = partial(nn.functional.cross_entropy, reduction="none")
    wrong = cross(kinds[:, :own].flatten(0, 1), kind.long().flatten())
    wrong = wrong + cross(colours[:, :own].flatten(0, 1), colour.long().flatten())
    several = cross(parts[:, :own].reshape(-1, MOST), part.long().flatten())
    wrong = wrong + several.view(-1, PARTS).sum(1)
    # the noise whispers: it is read only by looking at all of it, so this is asked the loudest
    heard = torch.zeros((), device=told.device)
    for number, mood in enumerate(choices):
        chosen = moods[:, number, None].expand(-1, own)
        heard = heard + nn.functional.cross_entropy(mood[:, :own].flatten(0, 1), chosen.flatten())
    there = lands[:, :own].reshape(-1, MOST)
    crosses = crosses + LAND * nn.functional.cross_entropy(there, land.long().flatten())
    return squares + 0.2 * (crosses + objects @ wrong) + heard


def times(text: str) -> tuple[str, float]:
    """paint-12x12=4 -> a shape's name, and how many times more often it comes."""
    name, _, number = text.partition("=")
    if name not in {shape.name for shape in SHAPES}:
        raise argparse.ArgumentTypeError(
            f"No shape is named {name!r}. Their names are a task, the picture's rows and columns, "
            "and those of each of its images, as paint-12x12 or edit-10x15-10x15; see SHAPES in "
            "training/examples.py."
        )
    try:
        return name, float(number)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} wants a number after a =, as {name}=4"
        ) from None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--decay", type=float, default=0.0, help="minutes at the end")
    parser.add_argument("--loud", type=float, default=0.0, help="minutes in which noise speaks up")
    parser.add_argument("--rate", type=float, default=1.0, help="times the learning rates")
    parser.add_argument("--tokens", type=int, help="tokens a batch (3200 on a CPU, 96000 on a GPU)")
    parser.add_argument(
        "--more",
        type=times,
        nargs="+",
        default=[],
        metavar="SHAPE=TIMES",
        help="shapes that come so many times more often, for what is learnt last: paint-12x12=4",
    )
    parser.add_argument("--teaching", type=float, default=1.0, help="weight of what teachers ask")
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, help=COMPILED)
    parser.add_argument("--fresh", action="store_true", help="start from random weights")
    options = parser.parse_args()
    device = choose(options.device)
    tokens = options.tokens or TOKENS[device.type]
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    folder = RUNS / "transformer"
    folder.mkdir(parents=True, exist_ok=True)
    state_file = folder / "state.pt"

    model = build_transformer().to(device)
    taught = Taught(model).to(device)
    ema = build_transformer().to(device).requires_grad_(False)
    steps, samples = 0, 0
    listening = 0 if options.fresh else LISTENING
    kinds = optimisers(model, taught.teachers)
    if state_file.exists() and not options.fresh:
        state = torch.load(state_file, map_location=device, weights_only=True)
        model.load_state_dict(state["model"])
        ema.load_state_dict(state["ema"])
        for optimiser, saved in zip(kinds, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        if state["teachers"] is not None:
            taught.teachers.load_state_dict(state["teachers"])
            listening = 0
        steps, samples = state["steps"], state["samples"]
    else:
        if not options.fresh:
            trained = Flux2Transformer2DModel.from_pretrained(
                weights_folder() / "transformer", use_safetensors=True, dtype=torch.float32
            )
            model.load_state_dict(trained.state_dict())
        ema.load_state_dict(model.state_dict())
    prompts = load_prompts(text_folder(), device)
    batches = Batches(EXAMPLES / "plain", prompts, tokens, options.seed + steps, dict(options.more))
    is_compiled = device.type == "cpu" if options.compile is None else options.compile
    if is_compiled:
        compile_blocks(model)

    def save() -> None:
        state = {
            "model": model.state_dict(),
            "ema": ema.state_dict(),
            "optimisers": [optimiser.state_dict() for optimiser in kinds],
            "teachers": taught.teachers.state_dict() if options.teaching else None,
            "steps": steps,
            "samples": samples,
        }
        torch.save(state, state_file.with_suffix(".partial"))
        state_file.with_suffix(".partial").rename(state_file)

    begin = saved_at = time.monotonic()
    first = steps
    lately = torch.zeros(
        2, device=device
    )  # both losses, averaged; read seldom: a GPU is waited for
    bar = tqdm(desc="transformer", unit="sample", initial=samples, mininterval=10)
    while (spent := (time.monotonic() - begin) / 60) < options.minutes:
        left = options.minutes - spent
        step = steps - first + 1
        rate = options.rate * min(1.0, step / WARM_UP)
        if options.decay:
            rate *= min(1.0, left / options.decay)
        for optimiser, base in zip(kinds[:2], (MUON_RATE, ADAM_RATE), strict=True):
            for group in optimiser.param_groups:
                group["lr"] = base * rate
        if options.loud:
            batches.loudness = LOUDEST ** max(0.0, 1.0 - spent / options.loud)
        batch = batches.next()
        taught.listens_only = step <= listening
        loss, lost = loss_of(taught, batch)
        # teachers that are new must not teach: Adam lets them learn from the smallest of losses
        teaching = options.teaching
        if not taught.listens_only:
            teaching *= min(1.0, (step - listening) / WARM_UP / 3) ** 2
        (loss + teaching * lost).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 2.0)
        for optimiser in kinds:
            optimiser.step()
            optimiser.zero_grad()
        keep = min(EMA, (1 + steps) / (10 + steps))
        with torch.no_grad():
            torch._foreach_lerp_(list(ema.parameters()), list(model.parameters()), 1 - keep)
        steps += 1
        samples += len(batch.sigma)
        both = torch.stack([loss.detach(), lost.detach()])
        lately += (both - lately) / min(100, steps - first)
        bar.update(len(batch.sigma))
        if steps % 25 == 0:
            average, astray = lately.tolist()
            bar.set_postfix(
                step=steps, loss=f"{average:.4f}", astray=f"{astray:.4f}", refresh=False
            )
        if steps % 200 == 0:
            batches.scan()
        if time.monotonic() - saved_at > SAVE_EVERY:
            save()
            saved_at = time.monotonic()
    save()


if __name__ == "__main__":
    main()
