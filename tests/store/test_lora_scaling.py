"""A pattern of PEFT's means the layers that PEFT takes it for, and runs nothing of a stranger's."""

from __future__ import annotations

import random
import re
import time
from typing import Any

import pytest

from iris.store.lora_scaling import _MAX_PATTERNS_CHARACTERS, scaling_of
from tests.store.flux2_loras import BASE

RANK, OTHER = 4, 12.0
PIECES = (
    *("transformer_blocks", "single_transformer_blocks", "attn", "ff", "to_q", "to_out", "to"),
    *("q", "_q", "0", "1", "10", ".", ".", ".", r"\.", r"\.", r"\d", r"\d+", r"\d+", "_"),
)


def means(pattern: str, module: str) -> bool:
    scaling = scaling_of({"lora_alpha": RANK, "alpha_pattern": {pattern: OTHER}})
    return scaling.alpha_of(f"base_model.model.{module}", RANK) == OTHER


def drawn(dice: random.Random, module: str) -> str:
    """A pattern: the end of a module's name with changes, or pieces as they come."""
    if dice.random() < 0.3:
        text = "".join(dice.choices(PIECES, k=dice.randint(1, 6)))
    else:
        end = module[dice.randrange(len(module)) :] if dice.random() < 0.2 else module
        parts = end.split(".")
        text = dice.choice((".", r"\.")).join(parts[dice.randrange(len(parts)) :])
        if dice.random() < 0.5:
            text = re.sub(r"\d", lambda _: dice.choice((r"\d", r"\d+", ".")), text)
    return dice.choice(("", "", "^")) + text + dice.choice(("", "", "$"))


def test_a_pattern_means_the_layers_that_peft_takes_it_for() -> None:
    get_pattern_key = pytest.importorskip("peft.utils.other").get_pattern_key
    dice = random.Random(3)
    modules = [*BASE, "transformer_blocks.10.attn.to_q", "transformer_blocks.110.ff.q", "to", "0.q"]
    seen = {True: 0, False: 0}
    for _ in range(1000):
        module = dice.choice(modules)
        pattern = "|".join(drawn(dice, module) for _ in range(dice.choice((1, 1, 1, 2, 3))))
        for named in {module, *dice.choices(modules, k=3)}:
            wanted = get_pattern_key([pattern], named) == pattern
            assert means(pattern, named) == wanted, (pattern, named)
            seen[wanted] += 1
    assert min(seen.values()) > 300  # neither answer is the rare one


@pytest.mark.parametrize(
    "pattern",
    [
        "((.|.)*)*!",
        "(a+)+$",
        ".*",
        "to_q+",
        "to_(q|k)",
        "[a-z]",
        "(?i)to_q",
        r"(\w)\1",
        r"\w+",
        "a{9999}",
        "(",
        "\\",
        "",
        "to_q|",
        "to_q|(a+)+$",
        "a^b",
        "a$b",
        "to_q\n",
        "\x1b[2J",
        "to_q\N{RIGHT-TO-LEFT OVERRIDE}",
        "\N{ARABIC-INDIC DIGIT ONE}",
        "\ud800",
    ],
)
def test_what_is_more_than_a_name_is_refused_and_not_run(pattern: str) -> None:
    with pytest.raises(ValueError, match="is not the name of a layer; use letters") as caught:
        scaling_of({"alpha_pattern": {"to_k": 1, pattern: 1}})
    assert str(caught.value).isascii()
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("unit", ["." * 42, r"\d+", r"\d+" * 20, "to_q", r"to_\d+"])
def test_the_longest_patterns_are_matched_at_once(unit: str) -> None:
    """As many characters as are read, for every tenth layer of the largest base."""
    pattern = "|".join([unit] * (_MAX_PATTERNS_CHARACTERS // (len(unit) + 1)))
    scaling = scaling_of({"alpha_pattern": {pattern: OTHER}})
    start = time.process_time()
    for block in range(20):
        scaling.alpha_of(f"transformer_blocks.{'1' * 20}{block}.attn.to_k", RANK)
    assert time.process_time() - start < 5


def test_more_patterns_than_any_model_has_layers_are_refused() -> None:
    patterns: dict[str, Any] = {f"to_{number}": 1 for number in range(10_000)}
    with pytest.raises(ValueError, match="alpha_pattern have 68890 characters, at most 32768"):
        scaling_of({"alpha_pattern": patterns})
