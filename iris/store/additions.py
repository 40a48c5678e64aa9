"""What an operator has added on this host, beside the registry: models from a hub, styles.

One file in IRIS_HOME, with the same keys as the registry. The files of what it names lie in the
Bento model store; it says which versions of them are served.
"""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from iris.errors import ConfigError
from iris.store.registry import (
    BaseEntry,
    Registry,
    StyleEntry,
    check_together,
    read_models,
    read_styles,
)

FILE = "additions.toml"
_HEAD = "# Written by `iris models` and `iris styles`.\n"


@dataclass(frozen=True, slots=True)
class Additions:
    """The models and styles of the file, in its order."""

    path: Path
    models: tuple[BaseEntry, ...] = ()
    styles: tuple[StyleEntry, ...] = ()

    def with_model(self, model: BaseEntry) -> Additions:
        """With this model in the place of the one of the same name."""
        others = (other for other in self.models if other.name != model.name)
        return replace(self, models=(*others, model))

    def with_style(self, style: StyleEntry) -> Additions:
        """With this style in the place of the one of the same name for the same base."""
        return replace(self, styles=(*self._without(style.name, style.base), style))

    def without_style(self, name: str, base: str) -> Additions:
        return replace(self, styles=self._without(name, base))

    def _without(self, name: str, base: str) -> tuple[StyleEntry, ...]:
        return tuple(s for s in self.styles if (s.name, s.base) != (name, base))


def load_additions(home: Path) -> Additions:
    """What the file in `home` says; nothing where there is none.

    Raises:
        ConfigError: it cannot be read, or an entry is not allowed; names file, key and value.
    """
    path = home / FILE
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Additions(path)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}).") from error
    except ValueError as error:  # TOML or UTF-8
        raise ConfigError(f"{path} is not a TOML file: {error}. Mend or remove it.") from error
    strange = document.keys() - {"models", "styles"}
    if strange:
        raise ConfigError(f"{path} knows no {min(strange)}. Allowed are models, styles.")
    return Additions(path, read_models(path, document), read_styles(path, document))


@contextmanager
def changing(home: Path) -> Iterator[list[Additions]]:
    """The additions in a list of one; what stands there in the end is written. One at a time.

    Raises:
        ConfigError: the file cannot be read or written.
    """
    try:
        home.mkdir(parents=True, exist_ok=True)
        lock = (home / f"{FILE}.lock").open("a")
    except OSError as error:
        raise ConfigError(f"{home} cannot be written ({error.strerror}). Set IRIS_HOME.") from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        before = load_additions(home)
        place = [before]
        yield place
        if place[0] != before:
            _write(place[0])


def with_additions(registry: Registry, added: Additions, model: str) -> Registry:
    """The registry with what was added: another base where `model` names one, and its styles.

    An added style takes the place of a registered one of the same name.

    Raises:
        ConfigError: there is no such model; names those there are.
    """
    bases = {registry.base.name: registry.base} | {entry.name: entry for entry in added.models}
    base = bases.get(model or registry.base.name)
    if base is None:
        raise ConfigError(
            f"IRIS_MODEL={model!r} is not here. There are: {', '.join(bases)}. `iris models list` "
            "shows what can be pulled; `iris models import DIR --name NAME` takes a folder."
        )
    styles = {style.name: style for style in registry.styles if style.base == base.tag}
    styles |= {style.name: style for style in added.styles if style.base == base.tag}
    served = Registry(registry.path, base, tuple(styles.values()))
    check_together(served)
    return served


def _write(added: Additions) -> None:
    parts = [_HEAD]
    for key, entries in (("models", added.models), ("styles", added.styles)):
        parts += [f"\n[[{key}]]\n{_table(entry)}" for entry in entries]
    path = added.path
    try:
        content = "".join(parts).encode()
    except UnicodeEncodeError as error:  # such as the store's own path
        line = error.object[: error.end].rpartition("\n")[2]
        raise ConfigError(
            f"{path} cannot be written: {line!r} is not text in UTF-8. Name it otherwise."
        ) from error
    try:
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f"{FILE}.")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise ConfigError(f"{path} cannot be written ({error.strerror}).") from error


def _table(entry: BaseEntry) -> str:
    values: dict[str, object] = {
        "name": entry.name,
        "tag": entry.tag,
        "source": str(entry.source),
        "sha256": entry.sha256,
        "description": entry.description,
    }
    if isinstance(entry, StyleEntry):
        values |= {
            "base": entry.base,
            "rank": entry.rank,
            "default_strength": entry.default_strength,
            "trigger": entry.trigger,
        }
    # A JSON string is a TOML string, as long as nothing beyond ASCII is escaped in pairs
    return "".join(
        f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in values.items()
    ).replace("\x7f", "\\u007f")
