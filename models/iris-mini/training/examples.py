"""The training set: examples of the world as latents, rendered once and read many times.

One file holds PART examples of one shape: a task, the token grid of the picture and those of its
references. Each has WORDINGS captions in either language, as the text encoder's ids.
"""

from __future__ import annotations

import math
import pickle
import random
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path

import torch
from torch import Tensor

from training.codec import LinearCodec
from training.grids import GRIDS, GRIDS_OF_COMPOSITIONS, GRIDS_OF_REFERENCES, TOKEN, GridSize
from training.lots import lots_of
from training.sources import AS_RENDERED, Taking, draw_taking, take
from training.text import Prompts
from world.captions import LANGUAGES, caption
from world.compositions import sample_compose
from world.edits import sample_edit
from world.frame import CELL, TILE_CELLS, frame_of
from world.sampling import sample_paint
from world.spec import COLOURS, KINDS, MOST_REFERENCES, Example, Intent, Scene

HALF = TOKEN // 2  # pictures are rendered at half size: the latents hold nothing finer
PART = 256
WORDINGS = 3  # captions of an example in each language
CONTENTS = 9
MOST = 16  # whole numbers of tokens are below it
MOODS = (2, 3)  # how many there are of each choice that `mood_of` gives
AMOUNTS = (0.3, 0.6, 0.6, 0.8, 1.0, 1.0, 1.25, 1.5)  # of a style, as lora_strength has it
AS_IS = 0.5  # share of the references that come as they were rendered
CHANGED = 0.25  # mean difference of a token's latents that counts as changed


@dataclass(frozen=True, slots=True)
class Shape:
    """One kind of batch."""

    task: str  # paint, edit or compose
    grid: GridSize
    references: tuple[GridSize, ...] = ()
    share: float = 1.0  # how many of all samples have this shape, relatively

    @property
    def name(self) -> str:
        grids = [f"{rows}x{columns}" for rows, columns in (self.grid, *self.references)]
        return "-".join((self.task, *grids))

    @property
    def tokens(self) -> int:
        return sum(rows * columns for rows, columns in (self.grid, *self.references))


# Of each task, how often a grid comes: that of squares, of the aspects of cameras, of all others.
_SQUARE, _USUAL, _OTHERS = 24.0, 4.0, 0.5
_USUAL_GRIDS = ((10, 15), (15, 10), (9, 15), (15, 9), (12, 15), (15, 12), (12, 13), (13, 12))
_COMPANIES = 10  # of images in unlike sizes, for each number of images


def _often(grid: GridSize) -> float:
    if grid == (12, 12):
        return _SQUARE
    return _USUAL if grid in _USUAL_GRIDS else _OTHERS


def _shapes() -> Iterator[Shape]:
    """Every grid that is served: of one that nobody trained on, half of the picture is wrong."""
    for grid in GRIDS:
        yield Shape("paint", grid, share=_often(grid))
        yield Shape("edit", grid, (grid,), share=0.9 * _often(grid))
    square = (11, 11)
    for number, share in enumerate((1.5, 6.0, 5.0, 1.0, 1.0), start=1):
        yield Shape("compose", square, ((8, 8),) * number, share)
    rng = random.Random(0)  # images come in any sizes together: too many for all of them
    for number in range(1, MOST_REFERENCES + 1):
        for _ in range(_COMPANIES):
            images = tuple(rng.choice(GRIDS_OF_REFERENCES) for _ in range(number))
            grid = square if rng.random() < 0.5 else rng.choice(GRIDS_OF_COMPOSITIONS)
            yield Shape("compose", grid, images, _OTHERS)


SHAPES = tuple({shape.name: shape for shape in _shapes()}.values())


@dataclass
class Part:
    """PART examples of one shape; tokens are row-major."""

    intents: list[Intent]
    target: Tensor  # (PART, tokens, 128) fp16
    references: Tensor  # (PART, tokens of all references, 128) fp16
    weighty: Tensor  # (PART, tokens) bool: objects, or what an edit changes
    contents: Tensor  # (PART, tokens, CONTENTS) fp16, see `contents_of`
    moods: Tensor  # (PART, len(MOODS)) int64, see `mood_of`
    lots: Tensor  # (PART, len(lots.NAMES), 2): what the noise must mean, see `lots_of`
    on_grid: Tensor  # (PART,) bool: whether all references lie on the grid, see `training.sources`
    prompts: Tensor  # (PART, WORDINGS * len(LANGUAGES), text.TOKENS) int16: ids of captions
    amount: float = 0.0  # of the style, where the targets have one

    def to(self, device: torch.device) -> Part:
        moved = {
            field.name: value.to(device)
            for field in fields(self)
            if isinstance(value := getattr(self, field.name), Tensor)
        }
        return replace(self, **moved)


class Camera:
    """Scenes -> latents by way of small renders."""

    def __init__(self, codec: LinearCodec) -> None:
        # summed over 2x2 pixels: as if the small picture were enlarged and then encoded
        weight = codec.weight.view(32, 3, 16, 2, 16, 2).sum(dim=(3, 5)).flatten(1)
        self._matrix = (weight / codec.std[:, None]).T.contiguous()
        self._shift = (codec.bias - codec.mean) / codec.std

    def tokens(self, scene: Scene, grid: GridSize, taking: Taking = AS_RENDERED) -> Tensor:
        """(tokens, 128) fp32."""
        rows, columns = grid
        taken = take(scene, columns * HALF, rows * HALF, HALF / TOKEN, taking)
        pixels = torch.from_numpy(taken)
        picture = pixels.permute(2, 0, 1).float().div_(127.5).sub_(1.0)
        blocks = picture.view(3, 2 * rows, 16, 2 * columns, 16).permute(1, 3, 0, 2, 4)
        latents = torch.addmm(self._shift, blocks.reshape(-1, 768), self._matrix)
        # to 2x2 patches, channels before places: as patchify of iris.engine.latents
        cells = latents.view(rows, 2, columns, 2, 32).permute(0, 2, 4, 1, 3)
        return cells.reshape(rows * columns, 128)


def boxes(scene: Scene, grid: GridSize) -> Tensor:
    """(tokens,) bool: where the scene's objects are."""
    rows, columns = grid
    frame = frame_of(scene, columns, rows, 1 / CELL)
    found = torch.zeros(rows, columns, dtype=torch.bool)
    for thing in scene.things:
        left, top, side = frame.box(thing)
        end = max(math.ceil(top + side), 0)
        found[max(int(top), 0) : end, max(int(left), 0) : math.ceil(left + side)] = True
    return found.flatten()


def contents_of(scene: Scene, grid: GridSize) -> Tensor:
    """(tokens, CONTENTS): what a token shows, in plain numbers.

    Whether it is part of an object; if so, which column and row of it, of how many, and the numbers
    of its kind and colour; how far below the horizon; and which column and row of the land, whose
    patterns repeat after TILE_CELLS columns and hang from the horizon.
    """
    rows, columns = grid
    frame = frame_of(scene, columns, rows, 1 / CELL)
    y = (torch.arange(rows) + 0.5).repeat_interleave(columns)
    x = (torch.arange(columns) + 0.5).repeat(rows)
    found = torch.zeros(rows * columns, CONTENTS)
    found[:, 6] = ((y - frame.horizon) / 4).clamp(-1, 1)
    from_edge = columns - x if scene.backdrop.land == 1 else x
    found[:, 7] = (from_edge / frame.cell).floor() % TILE_CELLS
    found[:, 8] = (((y - frame.horizon) / frame.cell).floor() + TILE_CELLS).clamp(0, MOST - 1)
    for thing in scene.things:
        left, top, side = frame.box(thing)
        inside = (x > left) & (x < left + side) & (y > top) & (y < top + side)
        column, row = ((x - left) / frame.cell).floor(), ((y - top) / frame.cell).floor()
        whole = torch.full_like(column, round(side / frame.cell))
        kind = torch.full_like(column, KINDS.index(thing.kind))
        colour = torch.full_like(column, COLOURS.index(thing.colour))
        shown = torch.stack([torch.ones_like(column), column, row, whole, kind, colour], dim=1)
        found[inside, :6] = shown[inside]
    return found


def mood_of(scene: Scene) -> list[int]:
    """What no caption decides, and the noise does: the land and the sky."""
    return [scene.backdrop.land, scene.backdrop.sky]


def draw(shape: Shape, rng: random.Random) -> Example:
    if shape.task == "paint":
        return sample_paint(rng)
    if shape.task == "edit":
        return sample_edit(rng)
    return sample_compose(rng, len(shape.references))


def make_part(
    shape: Shape, camera: Camera, prompts: Prompts, seed: int, number: int, style: str | None
) -> Part:
    """Render one part; the same arguments give the same part.

    style: the targets are in this style, all by one amount; the references stay as they are.
    """
    rng = random.Random(zlib.crc32(f"{seed}/{shape.name}/{number}/{style}".encode()))
    intents, targets, references, weighty = [], [], [], []
    contents, moods, lots, on_grid, captions = [], [], [], [], []
    amount = rng.choice(AMOUNTS) if style else 0.0
    for _ in range(PART):
        example = draw(shape, rng)
        target = example.target
        if style is not None:
            target = replace(target, style=style, amount=amount)
        tokens = camera.tokens(target, shape.grid)
        takings = [draw_taking(rng, TOKEN * max(grid), AS_IS) for grid in shape.references]
        shown = [
            camera.tokens(scene, grid, taking)
            for scene, grid, taking in zip(
                example.references, shape.references, takings, strict=True
            )
        ]
        if shape.task == "edit":
            before = camera.tokens(example.references[0], shape.grid)
            after = camera.tokens(example.target, shape.grid) if style else tokens
            weight = (after - before).abs().mean(dim=1) > CHANGED
            if example.intent.operation in ("time", "scene"):
                weight = weight & boxes(target, shape.grid)
        else:
            weight = boxes(target, shape.grid)
        intents.append(example.intent)
        targets.append(tokens.half())
        references.append(torch.cat(shown).half() if shown else torch.zeros(0, 128).half())
        weighty.append(weight)
        contents.append(contents_of(target, shape.grid).half())
        moods.append(mood_of(target))
        lots.append(lots_of(example))
        on_grid.append(all(taking.is_on_grid for taking in takings))
        for language in LANGUAGES:
            captions += [caption(example.intent, language, rng) for _ in range(WORDINGS)]
    return Part(
        intents,
        torch.stack(targets),
        torch.stack(references),
        torch.stack(weighty),
        torch.stack(contents),
        torch.tensor(moods),
        torch.tensor(lots),
        torch.tensor(on_grid),
        prompts.ids(captions)[0].to(torch.int16).unflatten(0, (PART, -1)),
        amount,
    )


def part_file(folder: Path, shape: Shape, number: int, style: str | None = None) -> Path:
    return folder / (style or "plain") / f"{shape.name}.{number:03}.pickle"


def save_part(part: Part, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial")
    with partial.open("wb") as stream:
        pickle.dump(part, stream, protocol=5)
    partial.rename(file)


def load_part(file: Path) -> Part:
    """Read what save_part wrote; only ever this recipe's own files."""
    with file.open("rb") as stream:
        part: Part = pickle.load(stream)  # noqa: S301
    return part
