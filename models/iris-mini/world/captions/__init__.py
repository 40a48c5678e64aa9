"""Says an intent in words, in English or Indonesian, in one of very many ways."""

from __future__ import annotations

import random

from world.captions.english import EnglishSpeech
from world.captions.indonesian import IndonesianSpeech
from world.captions.speech import MOST_WORDS, Speech
from world.spec import Intent

_SPEECHES: dict[str, type[Speech]] = {"en": EnglishSpeech, "id": IndonesianSpeech}
LANGUAGES = tuple(_SPEECHES)


def caption(intent: Intent, language: str, rng: random.Random, held_out: bool = False) -> str:
    """What a person may write who wants this.

    It says all that the intent says and nothing else of the world, besides words that mean nothing
    there. `held_out` takes the phrasings that training never uses.
    """
    speech = _SPEECHES[language]
    text = speech(intent, rng).say(held_out)
    # Only an intent that says everything of two objects from images ever comes near this.
    while text.count(" ") >= MOST_WORDS:
        text = speech(intent, rng).say(held_out)
    return text
