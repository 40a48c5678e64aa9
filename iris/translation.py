"""Prompts in another language before the model reads them: a hook, off unless it is set.

IRIS_TRANSLATOR names a function, `MODULE:NAME`, that takes a prompt and returns one. It is called
in a thread, once a picture, and may be called by several at once. Nothing of it ships here.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable

from iris.errors import BackendUnavailable, ConfigError

_log = logging.getLogger("iris")

Translator = Callable[[str], str]


def load_translator(name: str) -> Translator | None:
    """The function of that name; None for the empty name.

    Raises:
        ConfigError: there is no such module or function.
    """
    if not name:
        return None
    module, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"IRIS_TRANSLATOR={name!r} cannot be loaded ({type(error).__name__}). It must be "
            "MODULE:NAME of a function on the Python path that takes a prompt and returns one."
        ) from error
    if not callable(found):
        raise ConfigError(f"IRIS_TRANSLATOR={name!r} is no function.")
    translator: Translator = found
    return translator


def translated(translator: Translator, prompt: str) -> str:
    """What the translator makes of the prompt.

    Raises:
        BackendUnavailable: it failed, or gave no text. The log says how, never the prompt.
    """
    try:
        answer = translator(prompt)
    except Exception as error:
        _log.error("the translator failed: %s", type(error).__name__)
        raise BackendUnavailable("The prompt cannot be translated right now.") from None
    if not isinstance(answer, str) or not answer.strip():
        _log.error("the translator gave no text")
        raise BackendUnavailable("The prompt cannot be translated right now.")
    return answer.strip()
