"""Teach the text encoder to read: every attribute of a caption, from the registers.

    python -m training.train_text [--steps N] [--seed N] [--threads N]

Writes tokenizer/ and text_encoder/ to models/iris-mini/runs/text. The encoder is frozen after it.
"""

from __future__ import annotations

import argparse
import random

import torch
from torch import Tensor, nn
from tqdm import tqdm

from training.folders import RUNS
from training.text import REGISTERS, WIDTH, Prompts, build_encoder, build_tokenizer
from world.captions import caption
from world.captions.vocabulary import vocabulary
from world.compositions import sample_compose
from world.edits import sample_edit
from world.sampling import sample_full, sample_paint
from world.spec import (
    COLOURS,
    COUNTS,
    KINDS,
    MOST_REFERENCES,
    OPERATIONS,
    POSITIONS,
    SCENES,
    SIZES,
    TIMES,
    Intent,
    Wanted,
)

IMAGES = tuple(range(1, MOST_REFERENCES + 1))
OBJECT = {
    "kind": KINDS,
    "colour": COLOURS,
    "position": POSITIONS,
    "size": SIZES,
    "count": COUNTS,
    "image": IMAGES,
}
# Which register answers for which fields, and what values a field may have besides None.
FIELDS: dict[str, tuple[int, tuple[object, ...]]] = {
    "operation": (1, OPERATIONS),
    "scene": (0, SCENES),
    "time": (0, TIMES),
    "scene_image": (0, IMAGES),
    "time_image": (0, IMAGES),
    "subject": (1, KINDS),
    **{f"first {name}": (2, values) for name, values in OBJECT.items()},
    **{f"second {name}": (3, values) for name, values in OBJECT.items()},
}


def labels(intent: Intent) -> list[int]:
    """A class per field; 0 is None."""
    first, second = (*intent.objects, Wanted(), Wanted())[:2]
    found: dict[str, object] = {
        "operation": intent.operation,
        "scene": intent.scene,
        "time": intent.time,
        "scene_image": intent.scene_image,
        "time_image": intent.time_image,
        "subject": intent.subject,
    }
    for name in OBJECT:
        found[f"first {name}"] = getattr(first, name)
        found[f"second {name}"] = getattr(second, name)
    if intent.operation in ("paint", "compose", "add"):
        # "a cat" and "one cat" ask for the same; so does nothing said of the size
        for place in ("first", "second"):
            if found[f"{place} count"] == 1:
                found[f"{place} count"] = None
            if found[f"{place} size"] == "medium":
                found[f"{place} size"] = None
    if intent.operation == "replace":
        found["first count"] = None
    classes = []
    for field, (_, values) in FIELDS.items():
        value = found[field]
        classes.append(0 if value is None else 1 + values.index(value))
    return classes


def draw(rng: random.Random, held_out: bool = False) -> tuple[str, Intent]:
    """A caption and what it asks for."""
    share = rng.random()
    if share < 0.45:
        intent = sample_paint(rng).intent
    elif share < 0.55:
        intent = sample_full(rng, unseen=rng.random() < 0.1).intent
    elif share < 0.80:
        intent = sample_edit(rng).intent
    else:
        intent = sample_compose(rng, rng.randint(1, 5)).intent
    language = rng.choice(("en", "id"))
    return caption(intent, language, rng, held_out=held_out), intent


class Reader(nn.Module):
    """Linear heads on the registers."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = nn.ModuleList(nn.Linear(WIDTH, 1 + len(v)) for _, v in FIELDS.values())

    def forward(self, hidden: Tensor, first: Tensor) -> list[Tensor]:
        rows = torch.arange(hidden.shape[0])
        registers = [hidden[rows, first + k] for k in range(len(REGISTERS))]
        return [
            head(registers[k]) for head, (k, _) in zip(self.heads, FIELDS.values(), strict=True)
        ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--batch", type=int, default=192)
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    rng = random.Random(options.seed)
    out = RUNS / "text"

    tokenizer = build_tokenizer(list(vocabulary()))
    encoder = build_encoder(tokenizer)
    reader = Reader()
    prompts = Prompts(tokenizer, encoder)
    parameters = [*encoder.model.parameters(), *reader.parameters()]
    optimiser = torch.optim.AdamW(parameters, 2e-3, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, 2e-3, total_steps=options.steps, pct_start=0.08
    )
    read = torch.compile(encoder.model, dynamic=False)
    bar = tqdm(range(options.steps), desc="text", mininterval=5)
    for step in bar:
        drawn = [draw(rng) for _ in range(options.batch)]
        ids, mask, first = prompts.ids([text for text, _ in drawn])
        wanted = torch.tensor([labels(intent) for _, intent in drawn])
        with torch.autocast("cpu", torch.bfloat16):
            hidden = read(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
        answers = reader(hidden.float(), first)
        loss = torch.stack(
            [nn.functional.cross_entropy(answer, wanted[:, k]) for k, answer in enumerate(answers)]
        ).sum()
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        schedule.step()
        if step % 20 == 0:
            bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
    encoder.eval()
    for held_out in (False, True):
        report(prompts, reader, held_out, random.Random(99))
    out.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(out / "tokenizer")
    encoder.to(torch.bfloat16).save_pretrained(out / "text_encoder")


@torch.no_grad()
def report(prompts: Prompts, reader: Reader, held_out: bool, rng: random.Random) -> None:
    """Print how many captions are read right, by field and altogether."""
    drawn = [draw(rng, held_out) for _ in range(1500)]
    right = []
    for start in range(0, len(drawn), 250):
        part = drawn[start : start + 250]
        ids, mask, first = prompts.ids([text for text, _ in part])
        hidden = prompts.encoder.model(input_ids=ids, attention_mask=mask).last_hidden_state
        answers = torch.stack([a.argmax(1) for a in reader(hidden, first)], dim=1)
        right.append(answers == torch.tensor([labels(intent) for _, intent in part]))
    table = torch.cat(right)
    worst = sorted(zip(table.float().mean(0).tolist(), FIELDS, strict=True))[:8]
    print(
        f"held-out templates {held_out}: all fields {table.all(1).float().mean():.4f}; worst "
        + ", ".join(f"{name} {share:.4f}" for share, name in worst)
    )
    for index in (~table.all(1)).nonzero()[:12, 0].tolist():
        text, _ = drawn[index]
        missed = [name for name, ok in zip(FIELDS, table[index].tolist(), strict=True) if not ok]
        print("   ", text, missed)


if __name__ == "__main__":
    main()
