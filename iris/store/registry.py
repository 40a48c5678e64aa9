"""The registry: the exact versions of the base model and the styles that are served."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from iris.catalog import DEFAULT_STRENGTH, Catalog, Style
from iris.errors import ConfigError

MAX_RANK = 1024
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?")
_TAG_PART = re.compile(r"[a-z0-9](?:[-._a-z0-9]{0,61}[a-z0-9])?")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_BASE_KEYS = ("name", "tag", "source", "sha256", "description")
_STYLE_KEYS = (*_BASE_KEYS, "base", "rank")
_STYLE_CHOICES = ("default_strength", "trigger")
MAX_STRENGTH = 1.5
MAX_TRIGGER_CHARACTERS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseEntry:
    """The base model."""

    name: str
    tag: str  # NAME:VERSION in the Bento model store
    source: Path  # folder it is imported from; may be absent once it is stored
    sha256: str  # of the folder, see iris.store.digest
    description: str

    @property
    def version(self) -> str:
        return self.tag.partition(":")[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class StyleEntry(BaseEntry):
    """A style: a LoRA for the base model."""

    base: str  # the base's tag
    rank: int  # the largest of its layers
    default_strength: float = DEFAULT_STRENGTH
    trigger: str = ""


Entry = BaseEntry | StyleEntry


@dataclass(frozen=True, slots=True)
class Registry:
    """The whole file, in its order."""

    path: Path
    base: BaseEntry
    styles: tuple[StyleEntry, ...]

    @property
    def entries(self) -> tuple[Entry, ...]:
        """The base, then the styles."""
        return (self.base, *self.styles)

    def catalog(self) -> Catalog:
        """What clients are told of it."""
        return Catalog(
            base=self.base.name,
            base_version=self.base.version,
            description=self.base.description,
            styles=tuple(
                Style(s.name, s.version, s.description, s.default_strength, s.trigger)
                for s in self.styles
            ),
        )


def load_registry(path: Path) -> Registry:
    """Read and check the file.

    Raises:
        ConfigError: it cannot be read, or an entry is not allowed; names file, key, value and what
            is allowed.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read ({error.strerror}). IRIS_REGISTRY names the registry of models."
        ) from error
    except ValueError as error:  # TOML or UTF-8
        raise ConfigError(f"{path} is not a TOML file: {error}.") from error
    _check_keys(path, "the file", document, required=("base",), allowed=("base", "styles"))
    base = BaseEntry(**_common(path, "[base]", document["base"], _BASE_KEYS))
    registry = Registry(path, base, read_styles(path, document))
    check_together(registry)
    return registry


def read_styles(path: Path, document: Mapping[str, Any]) -> tuple[StyleEntry, ...]:
    """The [[styles]] of a file. Raises ConfigError."""
    return tuple(_style(path, *numbered) for numbered in _tables(path, document, "styles"))


def read_models(path: Path, document: Mapping[str, Any]) -> tuple[BaseEntry, ...]:
    """The [[models]] of a file. Raises ConfigError."""
    return tuple(
        BaseEntry(**_common(path, f"[[models]] {number}", table, _BASE_KEYS))
        for number, table in _tables(path, document, "models")
    )


def _tables(path: Path, document: Mapping[str, Any], key: str) -> Iterator[tuple[int, Any]]:
    tables = document.get(key, [])
    if not isinstance(tables, list):
        raise ConfigError(f"{path}: {key} must be written as [[{key}]], once for each.")
    return enumerate(tables, start=1)


def _style(path: Path, number: int, table: Any) -> StyleEntry:
    where = f"[[styles]] {number}"
    values = _common(path, where, table, _STYLE_KEYS, _STYLE_CHOICES)
    rank = table["rank"]
    if type(rank) is not int or not 1 <= rank <= MAX_RANK:
        raise _refused(path, where, "rank", rank, f"a whole number from 1 to {MAX_RANK}")
    if values["name"] == "none":
        raise _refused(path, where, "name", "none", "another name: `none` means no style")
    strength = table.get("default_strength", DEFAULT_STRENGTH)
    if type(strength) not in (int, float) or not 0 <= strength <= MAX_STRENGTH:
        raise _refused(
            path, where, "default_strength", strength, f"a number from 0.0 to {MAX_STRENGTH}"
        )
    trigger = table.get("trigger", "")
    if not isinstance(trigger, str) or not is_trigger(trigger):
        raise _refused(
            path,
            where,
            "trigger",
            trigger,
            f"a text of at most {MAX_TRIGGER_CHARACTERS} characters",
        )
    return StyleEntry(
        **values,
        base=_tag(path, where, "base", table["base"]),
        rank=rank,
        default_strength=float(strength),
        trigger=trigger,
    )


def is_trigger(text: str) -> bool:
    """Whether a style may have these words."""
    return len(text) <= MAX_TRIGGER_CHARACTERS and (not text or text.isprintable())


def _common(
    path: Path, where: str, table: Any, keys: tuple[str, ...], choices: tuple[str, ...] = ()
) -> dict[str, Any]:
    if not isinstance(table, dict):
        raise ConfigError(f"{path}: {where} must be a table with the keys {', '.join(keys)}.")
    _check_keys(path, where, table, required=keys, allowed=(*keys, *choices))
    name = _text(path, where, table, "name", _NAME, "1 to 32 of a-z, 0-9 and - (not at the ends)")
    source = table["source"]
    if not isinstance(source, str) or not source or "\0" in source:
        raise _refused(path, where, "source", source, "a folder, relative to the registry file")
    description = table["description"]
    if not isinstance(description, str) or not 0 < len(description.strip()) <= 500:
        raise _refused(path, where, "description", description, "a text of 1 to 500 characters")
    return {
        "name": name,
        "tag": _tag(path, where, "tag", table["tag"]),
        "source": path.absolute().parent / source,
        "sha256": _text(
            path, where, table, "sha256", _SHA256, "the 64 hex digits of `iris models hash FOLDER`"
        ),
        "description": description,
    }


def _check_keys(
    path: Path,
    where: str,
    table: Mapping[str, Any],
    *,
    required: tuple[str, ...],
    allowed: tuple[str, ...],
) -> None:
    for key in required:
        if key not in table:
            raise ConfigError(f"{path}: {where} has no {key}. Needed are {', '.join(required)}.")
    for key in table:
        if key not in allowed:
            raise ConfigError(f"{path}: {where} knows no {key}. Allowed are {', '.join(allowed)}.")


def _text(
    path: Path, where: str, table: Mapping[str, Any], key: str, form: re.Pattern[str], allowed: str
) -> str:
    value = table[key]
    if not isinstance(value, str) or form.fullmatch(value) is None:
        raise _refused(path, where, key, value, allowed)
    return value


def _tag(path: Path, where: str, key: str, value: Any) -> str:
    name, _, version = value.partition(":") if isinstance(value, str) else ("", "", "")
    parts_fit = _TAG_PART.fullmatch(name) and _TAG_PART.fullmatch(version)
    if not parts_fit or version == "latest":
        raise _refused(
            path, where, key, value, "NAME:VERSION with an exact version, such as my-model:1.0.0"
        )
    return f"{name}:{version}"


def _refused(path: Path, where: str, key: str, value: object, allowed: str) -> ConfigError:
    return ConfigError(f"{path}: {where} {key}={value!r} must be {allowed}.")


def check_together(registry: Registry) -> None:
    """Names and tags are unique, and every style is for the base. Raises ConfigError."""
    seen: dict[tuple[str, str], str] = {}
    for number, style in enumerate(registry.styles, start=1):
        where = f"[[styles]] {number}"
        if style.base != registry.base.tag:
            raise _refused(
                registry.path, where, "base", style.base, f"the tag of [base], {registry.base.tag}"
            )
        for key, value in (("name", style.name), ("tag", style.tag)):
            first = seen.setdefault((key, value), where)
            if first != where:
                raise _refused(registry.path, where, key, value, f"unique; {first} has it already")
        if style.tag == registry.base.tag:
            raise _refused(registry.path, where, "tag", style.tag, "unique; [base] has it already")
