"""The words the tokenizer learns its merges from: what people ask a picture service for."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path

WORDS = Path(__file__).with_name("words.txt")
TEMPLATES = {
    "english": "a {word} {subject}, {subject} in the {other}",
    "indonesian": "sebuah {subject} {word}, {subject} di {other}",
}


def sections() -> dict[str, list[str]]:
    """The lines of words.txt by the [name] above them."""
    found: dict[str, list[str]] = {}
    name = ""
    for line in WORDS.read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            name = line.strip("[]")
            found[name] = []
        elif line:
            found[name].append(line)
    return found


def corpus() -> Iterator[str]:
    """The training text of the tokenizer, always the same lines in the same order."""
    found = sections()
    for language, template in TEMPLATES.items():
        subjects = " ".join(found[f"{language} subjects"]).split()
        words = " ".join(found[f"{language} words"]).split()
        for index, subject in enumerate(subjects):
            for word in islice(cycle(words), index * 7, index * 7 + 6):
                other = subjects[(index * 13 + 5) % len(subjects)]
                yield template.format(word=word, subject=subject, other=other)
        for _ in range(8):
            yield from found[f"{language} lines"]
    for _ in range(20):
        yield "user\n\nassistant\n\n"
        yield "0 1 2 3 4 5 6 7 8 9 . , ; : ! ? ' \" ( ) - \n\n"


def usual_prompts() -> list[str]:
    """A few prompts of both languages, short and long."""
    found = sections()
    prompts = []
    for language in TEMPLATES:
        subjects = " ".join(found[f"{language} subjects"]).split()[::9]
        words = " ".join(found[f"{language} words"]).split()
        prompts += [f"{word} {subject}" for word, subject in zip(words, subjects, strict=False)]
        prompts += found[f"{language} lines"][:8]
    return prompts
