from __future__ import annotations

import logging

import pytest

from iris.errors import BackendUnavailable, ConfigError
from iris.translation import load_translator, translated


def upper(prompt: str) -> str:
    return f" {prompt.upper()} "


def broken(prompt: str) -> str:
    raise ValueError(prompt)


def silent(prompt: str) -> str:
    return "  "


def test_there_is_none_unless_it_is_set() -> None:
    assert load_translator("") is None


def test_a_named_function_is_found_and_called() -> None:
    translator = load_translator("os.path:basename")
    assert translator is not None
    assert translated(translator, "di/pantai") == "pantai"
    assert translated(upper, "pantai") == "PANTAI"


@pytest.mark.parametrize("name", ["nowhere.at_all:f", "os.path:nothing", "os.path", "os:sep", ":"])
def test_what_cannot_be_called_stops_the_start(name: str) -> None:
    with pytest.raises(ConfigError, match="IRIS_TRANSLATOR"):
        load_translator(name)


@pytest.mark.parametrize("translator", [broken, silent, lambda prompt: None])
def test_a_translator_that_fails_tells_nothing_of_the_prompt(
    translator: object, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with pytest.raises(BackendUnavailable) as refused:
        translated(translator, "rahasia")  # type: ignore[arg-type]
    assert "rahasia" not in caplog.text + refused.value.message
