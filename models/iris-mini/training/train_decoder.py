"""Fit the autoencoder's components on rendered pictures, then train its decoder.

    python -m training.train_decoder [--minutes 18] [--seed 1] [--threads 1]

Writes runs/codec.safetensors first, then runs/vae: components.safetensors, and every two minutes
checkpoint.pt (from which a further start goes on) and the vae as it is, in fp32. Minutes are of
the processor, so that another program beside it or a pause costs no training.

Latents are of single blocks, so a crop along blocks is a picture of its own. The first part of
the time trains only what works at half the resolution and below: its 12 channels, read as the
waves of 2x2 pixels, are compared with the picture. The rest trains everything.
"""

from __future__ import annotations

import argparse
import random
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLFlux2
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from training.autoencoder import build_vae, start_decoder
from training.blocks import BLOCK, CELL, low_waves
from training.codec import LinearCodec
from training.components import Components, fit_components
from training.decoder import RGB
from training.folders import RUNS
from world.render import render
from world.sampling import sample_scene
from world.spec import STYLES

FIT_PICTURES = 720
FIT_SIDES = (256, 320, 384, 448, 512, 512, 576, 576, 640, 640, 704, 704, 768, 768, 832, 960)
STYLED = 0.24  # share of the pictures that are in a style
AMOUNTS = (0.4, 1.4)

SIDES = (320, 448, 512, 576, 640, 640, 704, 704, 768, 768, 832, 960)
CROP = 256
BATCH = 4
POOL = 48  # pictures at hand; every step draws one anew
LARGEST_NOISE = 0.15  # on normalised cells: what the transformer makes is never exact
HALF_SHARE = 0.3  # of the time
LEARNING_RATE = 6e-4
LAST_RATE = 0.02  # share of it at the end
WARM_STEPS = 100
DECAY = 0.998  # of the average of the weights
CHECKPOINT_SECONDS = 120.0


def draw(rng: random.Random, width: int, height: int) -> Tensor:
    """A random picture of the world (3, height, width) in uint8, some of them in a style."""
    scene = sample_scene(rng)
    if rng.random() < STYLED:
        scene = replace(scene, style=rng.choice(STYLES), amount=rng.uniform(*AMOUNTS))
    return torch.from_numpy(render(scene, width, height)).permute(2, 0, 1)


def fit(seed: int) -> Components:
    """Components measured on random pictures of random sizes and shapes."""
    rng = random.Random(seed)
    pictures = [
        draw(rng, rng.choice(FIT_SIDES), rng.choice(FIT_SIDES)) for _ in range(FIT_PICTURES)
    ]
    return fit_components(pictures)


def components_of(runs: Path, seed: int) -> Components:
    """The components in `runs`, fitted now if there are none; the codec is saved beside them."""
    path = runs / "vae" / "components.safetensors"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        components = fit(seed)
        components.save(path)
    components = Components.load(path)
    codec = runs / "codec.safetensors"
    if not codec.exists():
        LinearCodec.of(components).save(codec)
    return components


class Pool:
    """Rendered pictures, of which crops are taken; one is replaced at every draw."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)
        self._pictures: list[Tensor] = []
        for _ in range(POOL):
            self._pictures.append(self._draw())

    def crops(self, count: int) -> Tensor:
        """(count, 3, CROP, CROP) in uint8; of two places of a picture the busier one."""
        self._pictures[self._rng.randrange(POOL)] = self._draw()
        crops = []
        for picture in self._rng.sample(self._pictures, count):
            choice = [self._crop(picture) for _ in range(2)]
            crops.append(max(choice, key=_busyness))
        return torch.stack(crops)

    def _draw(self) -> Tensor:
        return draw(self._rng, self._rng.choice(SIDES), self._rng.choice(SIDES))

    def _crop(self, picture: Tensor) -> Tensor:
        _, height, width = picture.shape
        top = BLOCK * self._rng.randint(0, (height - CROP) // BLOCK)
        left = BLOCK * self._rng.randint(0, (width - CROP) // BLOCK)
        return picture[:, top : top + CROP, left : left + CROP]


def _busyness(crop: Tensor) -> float:
    coarse = crop[1, ::4, ::4].float()
    return float(coarse.diff(dim=0).abs().mean() + coarse.diff(dim=1).abs().mean())


def loss_of(made: Tensor, wanted: Tensor) -> Tensor:
    """L1, L2 and L1 of the differences between neighbours: edges are to be crisp."""
    error = made - wanted
    edges = error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()
    return error.abs().mean() + 2.0 * error.square().mean() + 0.5 * edges


def pixels_of_half(x: Tensor) -> Tensor:
    """The first 12 channels at half the resolution as pixels: 4 waves of 2x2 for each colour."""
    waves = low_waves(2, 4)
    x = x[:, : 4 * RGB].float().unflatten(1, (RGB, 4))
    return F.pixel_shuffle(2.0 * torch.einsum("bcwyx,wp->bcpyx", x, waves).flatten(1, 2), 2)


class Training:
    """The decoder, its average, its optimiser and how far it is."""

    def __init__(self, components: Components, seed: int, minutes: float) -> None:
        self.codec = LinearCodec.of(components)
        self.decoder = start_decoder(components, seed).to(memory_format=torch.channels_last)
        self.average = start_decoder(components, seed)
        self.optimiser = torch.optim.AdamW(
            self.decoder.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.98), weight_decay=1e-3
        )
        self.generator = torch.Generator().manual_seed(seed)
        self.minutes = minutes
        self.seconds = 0.0
        self.steps = 0

    @property
    def progress(self) -> float:
        """0..1, by time."""
        return min(1.0, self.seconds / (60.0 * self.minutes))

    def step(self, pictures: Tensor) -> float:
        """One step on pictures in uint8; the loss."""
        wanted = pictures.float().div_(127.5).sub_(1.0)
        cells = self.codec.encode(wanted)
        amount = LARGEST_NOISE * torch.rand(len(cells), 1, 1, 1, generator=self.generator)
        cells = cells + amount * torch.randn(cells.shape, generator=self.generator)
        latents = self.codec.latents(cells).contiguous(memory_format=torch.channels_last)
        for group in self.optimiser.param_groups:
            group["lr"] = self._rate()
        with torch.autocast("cpu", torch.bfloat16):
            half = self.decoder.half(latents)
            if self.progress < HALF_SHARE:
                made = pixels_of_half(half)
            else:
                made = self.decoder.finish(half).float()
        loss = loss_of(made, wanted)
        self.optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.decoder.parameters(), 1.0)
        self.optimiser.step()
        self.steps += 1
        with torch.no_grad():
            keep = min(DECAY, self.steps / (self.steps + 10.0))
            for mean, value in zip(
                self.average.parameters(), self.decoder.parameters(), strict=True
            ):
                mean.lerp_(value, 1.0 - keep)
        return loss.item()

    def _rate(self) -> float:
        warm = min(1.0, (self.steps + 1) / WARM_STEPS)
        slope = 0.5 * (1.0 + torch.cos(torch.tensor(torch.pi * self.progress)).item())
        return LEARNING_RATE * warm * (LAST_RATE + (1.0 - LAST_RATE) * slope)

    def save(self, path: Path) -> None:
        state = {
            "decoder": self.decoder.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "generator": self.generator.get_state(),
            "seconds": self.seconds,
            "steps": self.steps,
        }
        new = path.with_suffix(".new")
        torch.save(state, new)
        new.replace(path)

    def load(self, path: Path) -> None:
        state: dict[str, Any] = torch.load(path, weights_only=True)
        self.decoder.load_state_dict(state["decoder"])
        self.average.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.generator.set_state(state["generator"])
        self.seconds = state["seconds"]
        self.steps = state["steps"]


def train(runs: Path, seed: int, minutes: float) -> None:
    """Train for so many minutes in all, going on from the checkpoint if there is one."""
    components = components_of(runs, seed)
    training = Training(components, seed, minutes)
    checkpoint = runs / "vae" / "checkpoint.pt"
    if checkpoint.exists():
        training.load(checkpoint)
    pool = Pool(seed + training.steps)
    saved = training.seconds
    last = time.process_time()
    with tqdm(total=round(60 * minutes), initial=round(training.seconds), unit="s") as bar:
        while training.progress < 1.0:
            loss = training.step(pool.crops(BATCH))
            now = time.process_time()
            training.seconds += (now - last) / torch.get_num_threads()
            last = now
            if training.steps % 10 == 0:
                bar.n = round(training.seconds)
                bar.set_postfix(step=training.steps, loss=f"{loss:.4f}")
            if training.seconds - saved > CHECKPOINT_SECONDS:
                training.save(checkpoint)
                build_vae(components, training.average).save_pretrained(runs / "vae")
                saved = training.seconds
    training.save(checkpoint)
    build_vae(components, training.average).save_pretrained(runs / "vae")


def quality(vae: AutoencoderKLFlux2, codec: LinearCodec, side: int, pictures: int) -> float:
    """Mean PSNR in dB over random pictures of `side` pixels, cut to whole tokens."""
    rng = random.Random(1_000_003 + side)
    side = side // CELL * CELL
    total = 0.0
    for _ in range(pictures):
        picture = draw(rng, side, side)[None]
        with torch.inference_mode():
            made = vae.decode(codec.latents(codec.encode(picture))).sample.clamp(-1.0, 1.0)
        error = (made + 1.0) / 2.0 - picture.float() / 255.0
        total -= 10.0 * torch.log10(error.square().mean()).item()
    return total / pictures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=Path, default=RUNS)
    parser.add_argument("--minutes", type=float, default=18.0, help="in all, of every start")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    train(options.runs, options.seed, options.minutes)
    codec = LinearCodec.load(options.runs / "codec.safetensors")
    vae = AutoencoderKLFlux2.from_pretrained(options.runs / "vae").eval()
    vae.to(memory_format=torch.channels_last)
    for side in (256, 512, 768, 960):
        print(f"{side} px: {quality(vae, codec, side, 16):.2f} dB")


if __name__ == "__main__":
    main()
