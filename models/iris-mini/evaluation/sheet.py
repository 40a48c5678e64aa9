"""Draw the contact sheet: prompts and what the model makes of them.

    python -m evaluation.sheet [--model DIR] [--out FILE]

Nothing is picked out: the prompts are fixed, and the seeds are 1, 2, 3 and so on.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont
from tqdm import tqdm

from evaluation.generate import EDIT_STRENGTH, Maker, Model, Oracle, Task
from evaluation.measures import Image
from evaluation.sections.cases import EDIT_SIDE, SIDE
from evaluation.sections.documented import BEACH, CLOUDS, PRODUCT, SAMURAI, SUNSET
from world.render import render
from world.spec import Backdrop, Scene, Thing

MINI = Path(__file__).resolve().parents[1]
COLUMNS = 8
CELL, GAP, TEXT, HEAD = 182, 9, 58, 24
WIDTH = COLUMNS * CELL + (COLUMNS + 1) * GAP
MOST_BYTES = 1_000_000
PAPER, INK, GREY = (250, 249, 246), (30, 30, 34), (110, 110, 116)


@dataclass(frozen=True, slots=True)
class Cell:
    """A picture to be made, or one that is given, and the words under it."""

    words: str
    task: Task | None = None
    given: Scene | None = None


def _things(kind: str = "", colour: str = "", xs: tuple[float, ...] = (0.5,), share: float = 0.36):
    return tuple(Thing(kind, colour, x, share) for x in xs) if kind else ()


def _paint(words: str, target: Scene, seed: int = 1, **more: object) -> Cell:
    task = Task(words, target, SIDE, SIDE, seed, **more)  # type: ignore[arg-type]
    style = f"\n{task.style} {task.style_strength}" if task.style else ""
    return Cell(words + style, task)


def _edit(source: Scene, words: str, target: Scene, strength: float = EDIT_STRENGTH) -> list[Cell]:
    """The source and what becomes of it."""
    task = Task(words, target, EDIT_SIDE, EDIT_SIDE, 1, sources=(source,), strength=strength)
    return [Cell("source", given=source), Cell(words, task)]


def _compose(words: str, references: tuple[Scene, ...], target: Scene) -> list[Cell]:
    task = Task(words, target, EDIT_SIDE, EDIT_SIDE, 1, sources=references)
    shown = [Cell(f"image {i + 1}", given=scene) for i, scene in enumerate(references)]
    return [*shown, Cell(words, task)]


def rows() -> list[tuple[str, list[Cell]]]:
    """Title and cells of every row; the target scenes are for the oracle only."""
    prompts = [
        (BEACH, Scene("beach", "sunset", ())),
        ("a red boat on the sea at night", Scene("sea", "night", _things("boat", "red"))),
        (
            "seekor kucing oranye di sawah saat hujan",
            Scene("ricefield", "rain", _things("cat", "orange")),
        ),
        (
            "three yellow balloons over the mountains",
            Scene("mountains", "day", _things("balloon", "yellow", (0.2, 0.5, 0.8), 0.26)),
        ),
        (
            "a large blue car in the city in the snow",
            Scene("city", "snow", _things("car", "blue", share=0.52)),
        ),
        (
            "sebuah rumah putih kecil di sebelah kiri di perbukitan",
            Scene("hills", "day", _things("house", "white", (0.25,), 0.25)),
        ),
        (
            "a green lamp on the left and a pink chair on the right in a studio",
            Scene(
                "studio",
                "day",
                (Thing("lamp", "green", 0.28, 0.36), Thing("chair", "pink", 0.72, 0.36)),
            ),
        ),
        (
            "a black bird in the desert during a thunderstorm",
            Scene("desert", "storm", _things("bird", "black")),
        ),
    ]
    temple = Scene("mountains", "fog", _things("temple", "red"))
    alone = Scene("bamboo", "day", _things("samurai", "red"))
    times = (
        ("day", "on a sunny day"),
        ("sunset", "at sunset"),
        ("night", "at night"),
        ("storm", "in a storm"),
        ("fog", "in the fog"),
        ("rain", "in the rain"),
        ("snow", "in the snow"),
        ("blossoms", "with cherry blossoms falling"),
    )
    house = Scene("forest", "day", _things("house", "blue"))
    car = Scene("beach", "day", _things("car", "red", (0.25,)))
    cup = Scene("studio", "day", _things("cup", "purple", share=0.52))
    tree = Scene("desert", "day", _things("tree", "green"))
    bottle = Scene("desert", "day", _things("bottle", "blue", share=0.52))
    studio = Scene("studio", "day", _things("chair", "yellow"), Backdrop(land=1, sky=1))
    light = Scene("sea", "sunset", _things("fish", "orange"), Backdrop(land=0, sky=2))
    cat = Scene("hills", "snow", _things("cat", "pink", share=0.52))
    city = Scene("city", "night", _things("car", "green", (0.25,)))
    samurai = Scene("bamboo", "blossoms", _things("samurai", "red"))
    lantern = Scene("city", "sunset", _things("cat", "black"))
    pair = (*car.things, Thing("umbrella", "yellow", 0.72, 0.36))
    return [
        ("Prompts, seed 1", [_paint(said, target) for said, target in prompts]),
        (
            "One prompt that leaves all else open, seeds 1 to 8",
            [
                _paint("a samurai", replace(alone, backdrop=Backdrop(land=i % 2, sky=i % 3)), i + 1)
                for i in range(COLUMNS)
            ],
        ),
        (
            "One seed, other times and weather",
            [
                _paint(f"a blue house in the forest {said}", replace(house, time=time))
                for time, said in times
            ],
        ),
        (
            "Edits of one image, strength 0.75",
            [
                *_edit(house, SUNSET, replace(house, time="sunset")),
                *_edit(
                    car, "make the car green", replace(car, things=_things("car", "green", (0.25,)))
                ),
                *_edit(
                    cup,
                    "replace the cup with a bird",
                    replace(cup, things=_things("bird", "purple", share=0.52)),
                ),
                *_edit(tree, "hapus pohon itu", replace(tree, things=())),
            ],
        ),
        (
            "More edits",
            [
                *_edit(temple, CLOUDS, replace(temple, time="storm"), 0.7),
                *_edit(car, "add a yellow umbrella on the right", replace(car, things=pair)),
                *_edit(house, "move it to the city", replace(house, scene="city")),
                *_edit(
                    cup,
                    "make it three cups",
                    replace(cup, things=_things("cup", "purple", (0.2, 0.5, 0.8), 0.26)),
                ),
            ],
        ),
        (
            "Compositions of several images",
            [
                *_compose(
                    PRODUCT,
                    (bottle, studio, light),
                    replace(studio, time="sunset", things=_things("bottle", "blue")),
                ),
                *_compose(
                    "the cat from image 1 in the scene of image 2",
                    (cat, city),
                    replace(city, things=_things("cat", "pink")),
                ),
            ],
        ),
        (
            "Styles",
            [
                *(
                    _paint(
                        "a black cat in the city at sunset",
                        lantern,
                        style="dark",
                        style_strength=value,
                    )
                    for value in (0.0, 0.5, 1.0, 1.5)
                ),
                *(
                    _paint(SAMURAI, samurai, style="anime", style_strength=value)
                    for value in (0.0, 0.8, 1.2, 1.5)
                ),
            ],
        ),
    ]


def draw(maker: Maker, out: Path) -> None:
    table = rows()
    tasks = [cell.task for _, cells in table for cell in cells if cell.task]
    pictures = iter(tqdm(maker.make(tasks), total=len(tasks), desc="pictures"))
    height = len(table) * (HEAD + CELL + TEXT) + GAP
    sheet = Pillow.new("RGB", (WIDTH, height), PAPER)
    pen = ImageDraw.Draw(sheet)
    head, small = ImageFont.load_default(size=15), ImageFont.load_default(size=11)
    for row, (title, cells) in enumerate(table):
        top = GAP + row * (HEAD + CELL + TEXT)
        pen.text((GAP, top), title, fill=INK, font=head)
        for column, cell in enumerate(cells):
            left = GAP + column * (CELL + GAP)
            picture = next(pictures) if cell.task else render(cell.given, SIDE, SIDE)  # type: ignore[arg-type]
            sheet.paste(_reduced(picture), (left, top + HEAD))
            lines = "\n".join(_wrapped(cell.words, small))
            colour = INK if cell.task else GREY
            pen.multiline_text(
                (left, top + HEAD + CELL + 2), lines, fill=colour, font=small, spacing=1
            )
    out.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(out, optimize=True)
    if out.stat().st_size > MOST_BYTES:
        sheet.quantize(256, method=Pillow.Quantize.MEDIANCUT, dither=Pillow.Dither.NONE).save(
            out, optimize=True
        )
    print(f"{out}: {WIDTH}x{height}, {out.stat().st_size / 1e3:.0f} kB")


def _wrapped(words: str, font: ImageFont.FreeTypeFont) -> list[str]:
    """Lines that are no wider than a cell."""
    lines: list[str] = []
    for paragraph in words.split("\n"):
        lines.append("")
        for word in paragraph.split():
            longer = f"{lines[-1]} {word}".strip()
            if font.getlength(longer) <= CELL:
                lines[-1] = longer
            else:
                lines.append(word)
    return lines


def _reduced(picture: Image) -> Pillow.Image:
    return Pillow.fromarray(picture).resize((CELL, CELL), Pillow.Resampling.LANCZOS)


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw iris-mini's contact sheet.")
    parser.add_argument("--model", type=Path, default=MINI, help="holds weights/ and styles/")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--oracle", action="store_true", help="render instead of running a model")
    parser.add_argument("--out", type=Path, help="default: contact-sheet.png there")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    maker = Oracle() if options.oracle else Model(options.model, options.threads)
    draw(maker, options.out or options.model / "contact-sheet.png")


if __name__ == "__main__":
    main()
