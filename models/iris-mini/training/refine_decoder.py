"""Train the decoder on what the trained transformer makes.

    python -m training.refine_decoder [--minutes 12] [--seed 3] [--threads 2]

A transformer's latents are nearly right, each token for itself, and decoded as they are they show
the seams between tokens. Here half of the pictures come as the transformer makes them out of their
own noised latents, in the last steps of a picture of four, so the decoder learns to close seams.
The other half come exactly as the encoder gives them, so it forgets nothing about edits' sources.

Goes on from the decoder that is there, in runs/vae or in the weights, and writes runs/vae again.
Minutes are of the clock. A run that is stopped begins anew; one that is done can be gone on from.
"""

from __future__ import annotations

import argparse
import random
import time
from dataclasses import dataclass

import torch
from diffusers import Flux2Transformer2DModel
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from training.blocks import CELL
from training.codec import LinearCodec
from training.decoder import read_decoder, write_decoder
from training.examples import SHAPES, Camera, draw
from training.folders import RUNS, load_codec, load_vae, weights_folder
from training.lots import lots_of, tie
from training.text import Prompts, load_prompts
from training.train_decoder import BATCH, CROP, DECAY, loss_of, quality
from training.train_decoder import draw as draw_picture
from training.transformer import positions, shifted, text_positions
from world.captions import LANGUAGES, caption
from world.render import render

POOL = 64  # pictures at hand; every step draws one anew
IMAGINED = 0.5  # share of them that the transformer makes
RATE, LAST_RATE, WARM_STEPS = 2.5e-4, 0.02, 50
STEPS = 4  # of the pictures that the transformer makes
LARGEST_NOISE = 0.1  # on exact cells
SIDES = (512, 640, 704, 768, 960)
CROP_CELLS = CROP // CELL


@dataclass(frozen=True, slots=True)
class Pair:
    picture: Tensor  # (3, height, width) uint8
    cells: Tensor  # (128, height / 64, width / 64): what the decoder is given of it


class Imagination:
    """Draws pictures of the world, and what the transformer makes of them."""

    def __init__(
        self,
        codec: LinearCodec,
        prompts: Prompts,
        transformer: Flux2Transformer2DModel,
        seed: int,
    ) -> None:
        self._codec, self._camera, self._prompts = codec, Camera(codec), prompts
        self._transformer = transformer
        self._rng = random.Random(seed)
        self._noise = torch.Generator().manual_seed(seed)
        self._shapes = [shape for shape in SHAPES if min(shape.grid) >= CROP_CELLS]
        self._levels = [*shifted(torch.linspace(1, 1 / STEPS, STEPS)).tolist(), 0.0]

    def pair(self) -> Pair:
        return self._made() if self._rng.random() < IMAGINED else self._exact()

    def _exact(self) -> Pair:
        picture = draw_picture(self._rng, self._rng.choice(SIDES), self._rng.choice(SIDES))
        picture = picture[
            :, : picture.shape[1] // CELL * CELL, : picture.shape[2] // CELL * CELL
        ].contiguous()
        cells = self._codec.encode(picture[None])[0]
        noise = torch.randn(cells.shape, generator=self._noise)
        return Pair(picture, cells + LARGEST_NOISE * self._rng.random() * noise)

    @torch.no_grad()
    def _made(self) -> Pair:
        shape = self._rng.choices(self._shapes, [shape.share for shape in self._shapes])[0]
        example = draw(shape, self._rng)
        rows, columns = shape.grid
        pixels = render(example.target, columns * CELL, rows * CELL)
        picture = torch.from_numpy(pixels).permute(2, 0, 1)
        tokens = self._codec.encode(picture[None]).flatten(2).transpose(1, 2)
        shown = zip(example.references, shape.references, strict=True)
        references = [self._camera.tokens(scene, grid)[None] for scene, grid in shown]
        grids = (shape.grid, *shape.references)
        places = torch.cat([positions(grid, 10 * number) for number, grid in enumerate(grids)])
        prompt = caption(example.intent, self._rng.choice(LANGUAGES), self._rng)
        embedded = self._prompts.embed([prompt])
        lots = torch.tensor([lots_of(example)])
        noise = tie(torch.randn(tokens.shape, generator=self._noise), lots, self._noise)
        first = self._rng.randrange(1, STEPS)  # from pure noise it would be another picture
        noisy = (1 - self._levels[first]) * tokens + self._levels[first] * noise
        for level, below in zip(self._levels[first:], self._levels[first + 1 :], strict=False):
            velocity = self._transformer(
                hidden_states=torch.cat([noisy, *references], dim=1),
                encoder_hidden_states=embedded,
                timestep=torch.tensor([level]),
                img_ids=places,
                txt_ids=text_positions(),
                return_dict=False,
            )[0][:, : tokens.shape[1]]
            noisy = noisy + (below - level) * velocity
        return Pair(picture, noisy[0].T.reshape(-1, rows, columns).contiguous())


class Pool:
    """Pairs, of which crops along tokens are taken; one is replaced at every draw."""

    def __init__(self, imagination: Imagination, rng: random.Random) -> None:
        self._imagination, self._rng = imagination, rng
        self._pairs = [imagination.pair() for _ in tqdm(range(POOL), desc="first pictures")]

    def crops(self, count: int) -> tuple[Tensor, Tensor]:
        """(count, 3, CROP, CROP) in uint8, and the same of the cells."""
        self._pairs[self._rng.randrange(POOL)] = self._imagination.pair()
        chosen = [self._crop(pair) for pair in self._rng.sample(self._pairs, count)]
        return torch.stack([crop.picture for crop in chosen]), torch.stack(
            [crop.cells for crop in chosen]
        )

    def _crop(self, pair: Pair) -> Pair:
        _, rows, columns = pair.cells.shape
        row = self._rng.randint(0, rows - CROP_CELLS)
        column = self._rng.randint(0, columns - CROP_CELLS)
        top, left = row * CELL, column * CELL
        return Pair(
            pair.picture[:, top : top + CROP, left : left + CROP],
            pair.cells[:, row : row + CROP_CELLS, column : column + CROP_CELLS],
        )


def refine(minutes: float, seed: int) -> None:
    codec, vae = load_codec(), load_vae()
    prompts = load_prompts(weights_folder())
    transformer = Flux2Transformer2DModel.from_pretrained(
        weights_folder() / "transformer", use_safetensors=True, dtype=torch.float32
    )
    decoder = read_decoder(vae).to(memory_format=torch.channels_last)
    average = read_decoder(vae)
    optimiser = torch.optim.AdamW(decoder.parameters(), RATE, betas=(0.9, 0.98), weight_decay=1e-3)
    pool = Pool(Imagination(codec, prompts, transformer.eval(), seed), random.Random(seed))
    begin, steps, mean_loss = time.monotonic(), 0, 0.0
    bar = tqdm(desc="decoder", unit="step", mininterval=5)
    while (share := (time.monotonic() - begin) / 60 / minutes) < 1.0:
        slope = F.relu(torch.cos(torch.tensor(torch.pi / 2 * share))).item()
        for group in optimiser.param_groups:
            group["lr"] = RATE * min(1.0, (steps + 1) / WARM_STEPS) * max(LAST_RATE, slope)
        pictures, cells = pool.crops(BATCH)
        latents = codec.latents(cells).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            made = decoder(latents).float()
        loss = loss_of(made, pictures.float().div_(127.5).sub_(1.0))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(decoder.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        steps += 1
        with torch.no_grad():
            torch._foreach_lerp_(
                list(average.parameters()), list(decoder.parameters()), 1.0 - DECAY
            )
        mean_loss += (loss.item() - mean_loss) / min(100, steps)
        bar.update()
        bar.set_postfix(loss=f"{mean_loss:.4f}", refresh=False)
    bar.close()
    write_decoder(vae, average)
    vae.save_pretrained(RUNS / "vae")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=12.0)
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    before = load_vae().eval()
    refine(options.minutes, options.seed)
    codec, after = load_codec(), load_vae().eval()
    for side in (512, 768):
        found = [quality(vae, codec, side, 12) for vae in (before, after)]
        print(f"{side} px, exact latents: {found[0]:.2f} dB before, {found[1]:.2f} dB now")


if __name__ == "__main__":
    main()
