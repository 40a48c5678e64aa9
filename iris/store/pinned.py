"""Which registry is in force: the file that is named, or what a built bento was built with.

A bento holds its models, so they, and no second list beside them, say what it serves: whichever
registry it was built from, it goes on serving exactly that.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from iris.catalog import DEFAULT_STRENGTH
from iris.config import DEFAULT_REGISTRY, Settings
from iris.errors import ConfigError, StoreError
from iris.store import bento
from iris.store.additions import load_additions, with_additions
from iris.store.bento import BENTO_DESCRIPTION
from iris.store.registry import BaseEntry, Registry, StyleEntry, load_registry

_HERE = Path(__file__).resolve().parents[2]  # where service.py is


def served_registry(settings: Settings, *, here: Path = _HERE) -> Registry:
    """The registry that is set, with what was added to it on this host.

    Inside a bento, unless a registry is named, it is the bento's own, to which nothing is added.

    here: the folder of service.py; a bento keeps it as `src`, beside its bento.yaml.

    Raises:
        ConfigError: a file cannot be read, an entry is not allowed, or there is no such model.
        StoreError: a model of the bento is not in the store, or its record says too little.
    """
    description = here.parent / BENTO_DESCRIPTION
    if settings.registry == DEFAULT_REGISTRY and here.name == "src" and description.is_file():
        bento.use_models_of(here.parent)
        pinned = _pinned(description)
        if settings.model not in ("", pinned.base.name):
            raise ConfigError(
                f"IRIS_MODEL={settings.model!r} is not in this bento, which serves "
                f"{pinned.base.name}. Build one with it, or unset IRIS_MODEL."
            )
        return pinned
    added = load_additions(settings.home)
    return with_additions(load_registry(settings.registry), added, settings.model)


def _pinned(description: Path) -> Registry:
    entries = [_entry(description, tag) for tag in bento.tags_of(description.parent)]
    bases = [entry for entry in entries if not isinstance(entry, StyleEntry)]
    if len(bases) != 1:
        raise StoreError(
            f"{description} names {len(bases)} base models instead of one. Build the bento again."
        )
    styles = tuple(entry for entry in entries if isinstance(entry, StyleEntry))
    return Registry(description, bases[0], styles)


def _entry(description: Path, tag: str) -> BaseEntry | StyleEntry:
    model = bento.find(tag)
    if model is None:
        raise StoreError(
            f"{tag}, which {description} was built with, is not in the Bento model store "
            f"({bento.store_path()}). Put it back with `bentoml models import`, or build again."
        )
    labels = model.labels
    try:
        common: dict[str, Any] = {
            "name": labels["name"],
            "tag": tag,
            "source": model.path,
            "sha256": labels["sha256"],
            "description": model.description,
        }
        if labels["kind"] == "base":
            return BaseEntry(**common)
        return StyleEntry(
            **common,
            base=labels["base"],
            rank=int(labels["rank"]),
            default_strength=float(model.metadata.get("default_strength", DEFAULT_STRENGTH)),
            trigger=str(model.metadata.get("trigger", "")),
        )
    except (KeyError, ValueError) as error:
        raise StoreError(
            f"{tag} in the Bento model store ({model.path}) was not put there by "
            "`iris models import`. Import it and build the bento again."
        ) from error
