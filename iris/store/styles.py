"""Styles that an operator adds: checked, brought to one form, stored under a version, served."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from iris.errors import ConfigError, StoreError
from iris.store import bento
from iris.store.additions import changing, load_additions
from iris.store.digest import folder_sha256
from iris.store.importer import Progress, import_entry
from iris.store.lora import WEIGHTS_FILE
from iris.store.lora_convert import convert
from iris.store.lora_scaling import Scaling, scaling_of
from iris.store.registry import MAX_STRENGTH, Registry, StyleEntry, is_trigger
from iris.store.resolver import check_base, is_whole, resolve

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?")
_PEFT_WEIGHTS, _PEFT_SETTINGS = "adapter_model.safetensors", "adapter_config.json"
_MAX_SETTINGS_BYTES = 1 << 20
_BLOCKS = ("transformer_blocks.", "single_transformer_blocks.")  # see iris.training.adapter


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """A style as its operator wants it."""

    name: str
    default_strength: float
    trigger: str
    description: str


def check_wish(wish: Wish) -> None:
    """
    Raises:
        ConfigError: names what is not allowed.
    """
    if _NAME.fullmatch(wish.name) is None or wish.name == "none":
        raise ConfigError(
            f"{wish.name!r} is no name for a style. Use 1 to 32 of a-z, 0-9 and - (not at the "
            "ends); `none` means no style."
        )
    if not 0.0 <= wish.default_strength <= MAX_STRENGTH:
        raise ConfigError(
            f"--default-strength {wish.default_strength} must be from 0.0 to {MAX_STRENGTH}."
        )
    if not is_trigger(wish.trigger):
        raise ConfigError("--trigger must be at most 200 printable characters in one line.")
    if not 0 < len(wish.description.strip()) <= 500:
        raise ConfigError("--description must be 1 to 500 characters.")


def add_style(
    wish: Wish, source: Path, registry: Registry, home: Path, progress: Progress
) -> StyleEntry:
    """Store the LoRA in `source` as the next version of the style, and serve it from now on.

    source: a safetensors file, or a folder with one (and PEFT's settings, if it has them).
    registry: what is served; the style is for its base. The same LoRA with the same settings again
    changes nothing, and mends what is stored where that is damaged.

    Raises:
        ConfigError: the wish is not allowed, or the additions cannot be written.
        StoreError: the LoRA cannot be used; says why.
    """
    check_wish(wish)
    base = bento.find(registry.base.tag)
    if base is None:
        import_entry(registry.base, registry, progress)  # alone: the style may be what is missing
        base = bento.find(registry.base.tag)
        if base is None:
            raise StoreError(f"{registry.base.tag} is not in the Bento model store.")
    file, scaling = _source(source)
    folder = _new_folder()
    try:
        found = convert(file, folder / WEIGHTS_FILE, check_base(base.path), scaling)
        entry = StyleEntry(
            name=wish.name,
            tag=f"{_model_name(wish.name)}:0",
            source=folder,
            sha256=folder_sha256(folder),
            description=wish.description.strip(),
            base=registry.base.tag,
            rank=found.rank,
            default_strength=wish.default_strength,
            trigger=wish.trigger,
        )
        progress(f"{file.name}: rank {found.rank}, {found.num_modules} layers, for {entry.base}")
        with changing(home) as additions:
            stored = _stored(entry, registry, progress)
            additions[0] = additions[0].with_style(stored)
        return stored
    finally:
        shutil.rmtree(folder)


def check_alike(on: Registry, served: Registry) -> None:
    """Whether a style that is learnt on the one's base will fit the other's. Both are stored.

    Raises:
        StoreError: names a layer that it would change and that is not the same in both.
    """
    there, here = (check_base(resolve(registry).base_path) for registry in (on, served))
    for name, info in there.items():
        if not name.startswith(_BLOCKS) or len(info.shape) != 2:
            continue
        found = here[name].shape if name in here else ()
        if found != info.shape:
            shapes = [" x ".join(map(str, shape)) or "missing" for shape in (info.shape, found)]
            raise StoreError(
                f"A style learnt on {on.base.tag} would not fit {served.base.tag}, which is "
                f"served: {name} is {shapes[0]} there and {shapes[1]} here. Train on a base of the "
                "same shape with --on, or serve that one with IRIS_MODEL."
            )


def remove_style(name: str, registry: Registry, home: Path) -> None:
    """Serve the added style no longer; its versions stay in the store.

    Raises:
        ConfigError: no such style was added for the base.
    """
    base = registry.base.tag
    added = [style.name for style in load_additions(home).styles if style.base == base]
    if name not in added:
        raise ConfigError(
            f"No style {name!r} was added for {base}. Added are: {', '.join(added) or 'none'}."
        )
    with changing(home) as additions:
        additions[0] = additions[0].without_style(name, base)


def _stored(entry: StyleEntry, registry: Registry, progress: Progress) -> StyleEntry:
    """The entry under the version that holds it: the one that is served, or a new one."""
    name = _model_name(entry.name)
    for style in _served(registry, entry.name):
        same = replace(entry, tag=style.tag, source=style.source)
        if same != style:
            continue
        if is_whole(style, progress):
            progress(f"{style.tag} is the same")
        else:
            import_entry(replace(entry, tag=style.tag), registry, progress)
        return style
    numbers = [int(version) for version in bento.versions_of(name) if version.isdecimal()]
    new = replace(entry, tag=f"{name}:{max(numbers, default=0) + 1}")
    import_entry(new, registry, progress)
    stored = bento.find(new.tag)
    if stored is None:
        raise StoreError(f"{new.tag} was stored and is gone. Add it again.")
    return replace(new, source=stored.path)


def _served(registry: Registry, name: str) -> tuple[StyleEntry, ...]:
    """The served style of that name, if there is one."""
    return tuple(style for style in registry.styles if style.name == name)


def _model_name(name: str) -> str:
    return f"epithre-iris-lora-{name}"


def _new_folder() -> Path:
    try:
        return Path(tempfile.mkdtemp(prefix="iris-style-", dir=bento.staging_home()))
    except OSError as error:
        raise StoreError(
            f"{bento.store_path().parent} cannot be written ({error.strerror}). Set BENTOML_HOME "
            "to a folder that can be, and add the style again."
        ) from error


def is_there(source: Path) -> bool:
    """Raises StoreError where that cannot be told."""
    try:
        source.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise _unreadable(source, error) from error
    return True


def _unreadable(source: Path, error: OSError) -> StoreError:
    return StoreError(
        f"{source} cannot be read ({error.strerror}). Name a safetensors file, or a folder with "
        "one, that you may read."
    )


def _source(source: Path) -> tuple[Path, Scaling]:
    """The file with the weights, and what is said beside it of their scale."""
    if not is_there(source):
        raise StoreError(f"{source} is not there. Name a safetensors file, or a folder with one.")
    if not source.is_dir():
        return source, _scaling_beside(source)
    try:
        found = sorted(file for file in source.iterdir() if file.match("*.safetensors"))
    except OSError as error:
        raise _unreadable(source, error) from error
    if len(found) != 1:
        names = ", ".join(file.name for file in found) or "no safetensors file"
        raise StoreError(f"{source} holds {names}. Name the one file that is the style.")
    return found[0], _scaling_beside(found[0])


def _scaling_beside(file: Path) -> Scaling:
    settings = file.with_name(_PEFT_SETTINGS)
    if file.name != _PEFT_WEIGHTS or not settings.is_file():
        return Scaling()
    try:
        if settings.stat().st_size > _MAX_SETTINGS_BYTES:
            raise ValueError("it is too large")
        return scaling_of(json.loads(settings.read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError) as error:
        raise StoreError(
            f"{settings} cannot be read as PEFT's settings, which say what the style is scaled by "
            f"({error}). Fetch it again, or take the weights alone to another folder."
        ) from error
