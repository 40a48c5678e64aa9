"""Render the training set to models/iris-mini/runs/examples; parts that are there are kept.

python -m training.prepare_examples [--count N] [--style NAME] [--processes N]
"""

from __future__ import annotations

import argparse
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import cache

import torch
from tqdm import tqdm

from training.examples import (
    PART,
    SHAPES,
    Camera,
    Shape,
    make_part,
    part_file,
    save_part,
)
from training.folders import EXAMPLES, load_codec, text_folder
from training.text import Prompts, load_prompts
from world.spec import STYLES


@cache
def camera() -> Camera:
    torch.set_num_threads(1)
    return Camera(load_codec())


@cache
def prompts() -> Prompts:
    return load_prompts(text_folder())


def make(shape: Shape, number: int, seed: int, style: str | None) -> None:
    file = part_file(EXAMPLES, shape, number, style)
    if not file.exists():
        save_part(make_part(shape, camera(), prompts(), seed, number, style), file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=80_000, help="examples of all shapes together")
    parser.add_argument("--style", choices=STYLES, help="targets in this style")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--seed", type=int, default=11)
    options = parser.parse_args()
    total = sum(shape.share for shape in SHAPES)
    work = []
    for shape in SHAPES:
        parts = max(1, round(options.count * shape.share / total / PART))
        work += [(number, shape) for number in range(parts)]
    work.sort(key=lambda item: item[0])  # all shapes early, so that training may begin early
    with ProcessPoolExecutor(options.processes) as pool:
        waiting = [
            pool.submit(make, shape, number, options.seed, options.style) for number, shape in work
        ]
        for done in tqdm(as_completed(waiting), total=len(waiting), desc="parts", mininterval=5):
            done.result()


if __name__ == "__main__":
    main()
