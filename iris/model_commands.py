"""The commands about base models: pull, import, list, verify, hash.

Every command imports what it needs when it runs.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iris.config import Settings
from iris.errors import ConfigError
from iris.table import print_table

if TYPE_CHECKING:
    from iris.store.registry import Registry


def add_commands(rooms: Any) -> None:
    """Add them to the parsers of `iris`."""
    actions = rooms.add_parser("models", help="the base models, and what is stored").add_subparsers(
        required=True, metavar="ACTION"
    )
    pull = add_command(actions, "pull", _pull, "fetch a published model from its hub")
    pull.add_argument("name", metavar="NAME", help="such as klein-4b; `iris models list` shows all")
    pull.add_argument("--revision", help="a branch, tag or commit; fetches even what is there")
    bring = add_command(
        actions, "import", _import, "put a folder, or what the registry names, into the model store"
    )
    bring.add_argument("folder", metavar="DIR", type=Path, nargs="?", help="a diffusers pipeline")
    bring.add_argument("--name", help="what IRIS_MODEL will call it; by default the folder's name")
    bring.add_argument(
        "--move", action="store_true", help="take the files out of DIR once they are stored"
    )
    add_command(actions, "list", _list, "every model and style, and whether it is stored")
    add_command(actions, "verify", _verify, "hash every stored file, also of what is not served")
    digest = add_command(actions, "hash", _hash, "the sha256 of a model folder, for the registry")
    digest.add_argument("folder", metavar="DIR", type=Path)


def add_command(actions: Any, name: str, run: Any, about: str) -> argparse.ArgumentParser:
    """A parser of one action."""
    parser: argparse.ArgumentParser = actions.add_parser(name, help=about)
    parser.set_defaults(run=run)
    return parser


def served(model: str | None = None) -> Registry:
    """What this environment serves, or would with that model. Raises ConfigError, StoreError."""
    from iris.store.pinned import served_registry

    settings = Settings.from_env()
    return served_registry(dataclasses.replace(settings, model=model) if model else settings)


def progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _pull(arguments: argparse.Namespace) -> None:
    from iris.store.bases import pull
    from iris.store.hub import KNOWN

    model = KNOWN.get(arguments.name)
    if model is None:
        raise ConfigError(
            f"No published model is known as {arguments.name!r}. Known are: {', '.join(KNOWN)}. "
            "Any other folder of this architecture is taken by `iris models import DIR`."
        )
    entry = pull(model, Settings.from_env().home, progress, revision=arguments.revision)
    print(f"{entry.tag} is in the model store. Serve it: IRIS_MODEL={entry.name} make serve")


def _import(arguments: argparse.Namespace) -> None:
    if arguments.folder is None:
        if arguments.name or arguments.move:
            raise ConfigError("--name and --move need the folder that is to be imported.")
        from iris.store.importer import ensure_registered

        registry = served()
        imported = ensure_registered(registry, progress)
        there = len(registry.entries) - len(imported)
        print(f"{len(imported)} imported, {there} were there already")
        return
    from iris.store.bases import import_folder
    from iris.store.registry import load_registry

    settings = Settings.from_env()
    entry = import_folder(
        arguments.folder,
        arguments.name,
        settings.home,
        progress,
        taken=(load_registry(settings.registry).base.name,),
        is_moved=arguments.move,
    )
    print(f"{entry.tag} is in the model store. Serve it: IRIS_MODEL={entry.name} make serve")


def _list(arguments: argparse.Namespace) -> None:
    from iris.store.additions import load_additions
    from iris.store.hub import KNOWN
    from iris.store.registry import StyleEntry
    from iris.store.resolver import entry_status, status

    registry = served()
    lines = list(status(registry))
    others = [e for e in load_additions(Settings.from_env().home).models if e != registry.base]
    lines += [entry_status(entry) for entry in others]
    rows: list[tuple[str, ...]] = []
    for line in lines:
        is_style = isinstance(line.entry, StyleEntry)
        kind = "style" if is_style else "base" if line.entry == registry.base else "other base"
        rows.append((kind, line.entry.name, line.entry.tag, line.state, line.detail))
    named = {line.entry.name for line in lines}
    rows += [
        ("to pull", model.name, model.repository, "on its hub", f"`iris models pull {model.name}`")
        for model in KNOWN.values()
        if model.name not in named
    ]
    print_table(("KIND", "NAME", "TAG", "STATE", "WHERE"), rows)


def _verify(arguments: argparse.Namespace) -> None:
    from iris.store import bento
    from iris.store.additions import load_additions
    from iris.store.registry import load_registry
    from iris.store.resolver import check_stored, verify

    settings, registry = Settings.from_env(), served()
    verify(registry, progress)
    print(f"{len(registry.entries)} models are what {registry.path} says")
    if registry.path.name == bento.BENTO_DESCRIPTION:  # beside a bento's own there are none
        return
    added = load_additions(settings.home)
    known = (*load_registry(settings.registry).entries, *added.models, *added.styles)
    others = [entry for entry in known if entry not in registry.entries]
    stored = [entry for entry in others if bento.find(entry.tag) is not None]
    for entry in stored:
        check_stored(entry, progress)
    if stored:
        print(f"{len(stored)} more, stored and not served now, are what was listed of them")


def _hash(arguments: argparse.Namespace) -> None:
    from iris.store.digest import folder_sha256

    print(folder_sha256(arguments.folder))
