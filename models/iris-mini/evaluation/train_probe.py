"""Train the probe on rendered pictures.

    python -m evaluation.train_probe [--pictures N] [--epochs N] [--seed N]

Renders the pictures first; takes minutes on one core. Pictures are drawn without regard to
which combinations the model may train on: the probe must know them all.
"""

from __future__ import annotations

import argparse
import json
import math
import random
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from evaluation.ceiling import ceiling
from evaluation.measures import Image
from evaluation.probe import (
    SIDE,
    VALUES,
    WEIGHTS,
    Probe,
    ProbeNet,
    Seen,
    as_input,
    read,
    save,
    shrink,
)
from training.devices import choose
from world import sampling
from world.render import render
from world.spec import (
    COLOURS,
    COUNT_SHARE,
    KINDS,
    PAIR_SHARE,
    PAIR_X,
    POSITION_X,
    POSITIONS,
    SCENES,
    SIZE_SHARE,
    SIZES,
    STYLES,
    TIMES,
    Scene,
    Thing,
    Wanted,
)

BATCH = 64
CHUNK = 250  # pictures a process draws at a time
NONE = -1  # label of a field that does not apply
DOUBLE = 0.3  # share of the pictures of one object that get a second one, see `draw_double`
Drawn = tuple[Image, Seen]


def draw_scene(rng: random.Random) -> Scene:
    """Any picture at all, with a little more play than a caption allows."""
    kind, other = rng.sample(KINDS, 2)
    colour = rng.choice(COLOURS)
    form = rng.choices(("lone", "row", "pair", "none"), (0.55, 0.2, 0.2, 0.05))[0]
    things: tuple[Thing, ...] = ()
    if form == "lone":
        position, size = rng.choice(POSITIONS), rng.choice(SIZES)
        x = POSITION_X[position] + rng.uniform(-0.02, 0.02)
        things = (Thing(kind, colour, x, SIZE_SHARE[size]),)
    elif form == "row":
        things = sampling.row(kind, colour, rng.choice(list(COUNT_SHARE)))
    elif form == "pair":
        things = sampling.pair(
            Wanted(kind, colour, "left"), Wanted(other, rng.choice(COLOURS), "right")
        )
        if rng.random() < 0.3:  # as an edit leaves it that adds to a lone object
            side = rng.randrange(2)
            x = PAIR_X["left" if side == 0 else "right"] + rng.uniform(-0.05, 0.05)
            share = rng.choice((SIZE_SHARE["small"], PAIR_SHARE))
            new = Thing(things[side].kind, things[side].colour, x, share)
            things = (new, things[1]) if side == 0 else (things[0], new)
    style = rng.choices((None, *STYLES), (0.6, 0.2, 0.2))[0]
    amount = rng.uniform(0.0, 1.5) if style else 0.0
    things = tuple(replace(one, x=one.x + rng.uniform(-0.015, 0.015)) for one in things)
    scene, time = rng.choice(SCENES), rng.choice(TIMES)
    return Scene(scene, time, things, sampling.backdrop(rng), style, amount)


def draw_double(rng: random.Random, scene: Scene, width: int, height: int, scale: float) -> Drawn:
    """A scene of one object with a second one that shines through or stands close beside it.

    What a generated picture has where the model could not decide on a place: there are two, however
    pale or incomplete the second is. One that is pale alone is still one.
    """
    [thing] = scene.things
    whole = render(scene, width, height, scale)
    strength = rng.uniform(0.35, 1.0)
    if rng.random() < 0.25:
        empty = render(replace(scene, things=()), width, height, scale)
        return _mixed(rng, empty, whole, 0.5 + 0.5 * strength, None), Seen.of(scene)
    side = thing.share * min(width, height) / width
    x = thing.x + rng.choice((-1, 1)) * rng.uniform(max(0.35 * side, 0.1), 1.4 * side)
    if not 0.1 < x < 0.9:
        x = 2 * thing.x - x
    seen = Seen.of(scene)
    if rng.random() < 0.25:
        other = Thing(rng.choice(KINDS), rng.choice(COLOURS), x, thing.share)
        truth = Seen(scene=seen.scene, time=seen.time, count=2)
    else:
        other = replace(thing, x=x)
        truth = replace(seen, count=2, position=None, size=None)
    form = rng.randrange(3)
    if form == 0:  # beside it, or before or behind it
        things = (thing, other) if rng.random() < 0.5 else (other, thing)
        return render(replace(scene, things=things), width, height, scale), truth
    if form == 1:  # either is seen through the other
        elsewhere = render(replace(scene, things=(other,)), width, height, scale)
        return _mixed(rng, whole, elsewhere, rng.uniform(0.3, 0.7), None), truth
    both = render(replace(scene, things=(thing, other)), width, height, scale)
    cells = 8 if rng.random() < 0.5 else None
    return _mixed(rng, whole, both, strength, cells), truth


def _mixed(
    rng: random.Random, one: Image, other: Image, strength: float, cells: int | None
) -> Image:
    """So much of the other picture in the first; with cells, not in each of so many squared."""
    amount = np.float32(strength)
    if cells is not None:
        there = np.array([[rng.random() < 0.65 for _ in range(cells)] for _ in range(cells)])
        height, width = one.shape[:2]
        rows = np.arange(height) * cells // height
        columns = np.arange(width) * cells // width
        amount = strength * there[np.ix_(rows, columns)][..., None].astype(np.float32)
    return (one + amount * (other.astype(np.float32) - one)).round().astype(np.uint8)


def draw_size(rng: random.Random) -> tuple[int, int]:
    """Width and height, drawn small: pictures are shrunk by area anyway."""
    most = rng.choices((1.0, 2.0, 3.0), (0.35, 0.55, 0.1))[0]
    ratio = most ** rng.uniform(-1.0, 1.0)
    side = rng.uniform(190, 260)
    return round(side * math.sqrt(ratio)), round(side / math.sqrt(ratio))


def labels(truth: Seen) -> list[int]:
    known = dict(truth.items())
    return [values.index(known[name]) if name in known else NONE for name, values in VALUES.items()]


def draw_chunk(chunk: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Images (CHUNK, 3, SIDE, SIDE) uint8, logs of their shapes, labels (CHUNK, fields)."""
    torch.set_num_threads(1)
    rng = random.Random(f"probe {seed} {chunk}")
    images, shapes, truths = [], [], []
    for _ in range(CHUNK):
        scene, (width, height) = draw_scene(rng), draw_size(rng)
        scale = min(width, height) / rng.uniform(480, 960)
        if len(scene.things) == 1 and rng.random() < DOUBLE:
            picture, truth = draw_double(rng, scene, width, height, scale)
        else:
            picture, truth = render(scene, width, height, scale), Seen.of(scene)
        images.append(shrink(torch.from_numpy(picture)))
        shapes.append(math.log(width / height))
        truths.append(labels(truth))
    return torch.stack(images), torch.tensor(shapes), torch.tensor(truths, dtype=torch.int8)


def draw(pictures: int, seed: int, processes: int) -> tuple[Tensor, Tensor, Tensor]:
    chunks = math.ceil(pictures / CHUNK)
    images = torch.empty(chunks * CHUNK, 3, SIDE, SIDE, dtype=torch.uint8)
    shapes = torch.empty(chunks * CHUNK)
    truths = torch.empty(chunks * CHUNK, len(VALUES), dtype=torch.int8)
    with ProcessPoolExecutor(processes) as pool:
        drawn = pool.map(partial(draw_chunk, seed=seed), range(chunks))
        for i, chunk in enumerate(tqdm(drawn, total=chunks, desc="pictures", unit="x250")):
            part = slice(i * CHUNK, (i + 1) * CHUNK)
            images[part], shapes[part], truths[part] = chunk
    return images, shapes, truths


def disturb(images: Tensor) -> Tensor:
    """What a generated picture may suffer from: softness, seams, noise, a cast of colour.

    A good half of the pictures gets the cast only.
    """
    part = len(images) // 4
    clean, soft, rough = images.split([len(images) - 2 * part, part, part])
    device = images.device
    side = int(torch.randint(56, 100, ()))
    small = functional.interpolate(soft, (side, side), mode="area")
    soft = functional.interpolate(small, (SIDE, SIDE), mode="bilinear")
    worn = torch.cat([soft, rough])
    size = len(worn)
    # A model makes a picture cell by cell, and a cell may be a little off.
    cells = int(torch.randint(6, 17, ()))
    off = 0.1 * _some(size, device) * torch.randn(size, 3, cells, cells, device=device)
    worn = worn + functional.interpolate(off, (SIDE, SIDE), mode="bilinear")
    worn = worn + 0.08 * _some(size, device) * torch.randn(size, 1, SIDE, SIDE, device=device)
    images = torch.cat([clean, worn.clamp(-1.0, 1.0)])
    gain = 1.0 + 0.05 * torch.randn(len(images), 3, 1, 1, device=device)
    return images * gain + 0.04 * torch.randn(len(images), 3, 1, 1, device=device)


def _some(size: int, device: torch.device) -> Tensor:
    return torch.rand(size, 1, 1, 1, device=device)


def batches(count: int) -> Iterator[Tensor]:
    yield from torch.randperm(count).split(BATCH)


def train(
    net: ProbeNet,
    images: Tensor,
    shapes: Tensor,
    truths: Tensor,
    epochs: int,
    device: torch.device,
) -> ProbeNet:
    images, shapes, truths = images.to(device), shapes.to(device), truths.to(device)
    net = net.to(device, memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(net.parameters(), lr=3e-3, weight_decay=0.02)
    steps = epochs * math.ceil(len(images) / BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, 4e-3, total_steps=steps, pct_start=0.1
    )
    progress = tqdm(total=steps, desc="training")
    for _ in range(epochs):
        for number in batches(len(images)):
            chosen = number.to(device)
            inputs = disturb(as_input(images[chosen])).contiguous(memory_format=torch.channels_last)
            with torch.autocast(device.type, torch.bfloat16):
                logits = net(inputs, shapes[chosen])
            wanted = truths[chosen].long()
            loss = torch.zeros((), device=device)
            for column, name in enumerate(VALUES):
                # over the whole batch: what fewer pictures have counts for less
                loss = loss + functional.cross_entropy(
                    logits[name].float(), wanted[:, column], ignore_index=NONE, reduction="sum"
                ) / len(wanted)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            progress.update()
        progress.set_postfix(loss=f"{loss.item():.3f}")
    progress.close()
    return net.cpu().eval()


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the probe of the evaluation.")
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    parser.add_argument("--start", type=Path, help="a probe to go on from")
    parser.add_argument("--pictures", type=int, default=40_000)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--processes", type=int, default=1, help="that render")
    parser.add_argument("--threads", type=int, default=1, help="that train")
    parser.add_argument("--seed", type=int, default=7, help="of the pictures")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    options = parser.parse_args()
    data = draw(options.pictures, options.seed, options.processes)
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    net = ProbeNet() if options.start is None else read(options.start)
    save(train(net, *data, options.epochs, choose(options.device)), options.out)
    print(json.dumps(ceiling(Probe.load(options.out), 1600, options.seed), indent=2))


if __name__ == "__main__":
    main()
