"""The commands about styles: add, list, remove, reload, train.

Every command imports what it needs when it runs.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

from iris.catalog import DEFAULT_STRENGTH
from iris.config import Settings
from iris.errors import ConfigError, StoreError
from iris.model_commands import add_command, progress, served
from iris.table import print_table


def add_commands(rooms: Any) -> None:
    """Add them to the parsers of `iris`."""
    actions = rooms.add_parser("styles", help="LoRA styles for the served base").add_subparsers(
        required=True, metavar="ACTION"
    )
    add = add_command(actions, "add", _add, "check a LoRA, store it as a version and serve it")
    add.add_argument("name", metavar="NAME", help="what `lora` will call it")
    add.add_argument(
        "source",
        metavar="FILE_OR_HUB_ID",
        help="a safetensors file, a folder with one, or OWNER/REPOSITORY[/FILE] on a hub",
    )
    add_wish(add)
    add_command(actions, "list", _list, "the styles of the served base")
    remove = add_command(actions, "remove", _remove, "serve an added style no longer")
    remove.add_argument("name", metavar="NAME")
    add_command(actions, "reload", _reload, "have the running services serve what is listed now")

    train = add_command(actions, "train", _train, "learn a style from pictures, and serve it")
    train.add_argument("name", metavar="NAME")
    train.add_argument("--images", type=Path, required=True, metavar="DIR", help="the pictures")
    train.add_argument(
        "--captions",
        type=Path,
        metavar="FILE",
        help='lines of {"file": ..., "text": ...}; by default dog.txt beside dog.png',
    )
    train.add_argument("--on", metavar="MODEL", help="the base to train on; by default the served")
    for option, kind, default, about in _TRAINING:
        train.add_argument(option, type=kind, default=default, help=f"{about} ({default})")
    train.add_argument("--fresh", action="store_true", help="do not go on from an earlier run")
    add_wish(train)


_MAX_SEED = 2**63 - 1  # as a request's
_TRAINING: tuple[tuple[str, type, float, str], ...] = (
    ("--rank", int, 16, "of the LoRA"),
    ("--steps", int, 1000, "of the optimiser, all told"),
    ("--rate", float, 1e-4, "its learning rate"),
    ("--batch", int, 1, "pictures a step"),
    ("--size", int, 512, "pixels of a square of the pictures' largest area"),
    ("--seed", int, 0, "what is drawn"),
    ("--sample-every", int, 250, "steps between sample grids; 0 for none"),
    ("--sample-steps", int, 4, "denoising steps of a sample"),
)


def add_wish(parser: argparse.ArgumentParser) -> None:
    """What an operator says of a style besides its files."""
    parser.add_argument(
        "--default-strength",
        type=float,
        default=DEFAULT_STRENGTH,
        metavar="S",
        help=f"where a request names none; 0.0 to 1.5, {DEFAULT_STRENGTH} if left out",
    )
    parser.add_argument(
        "--trigger", default="", metavar="WORDS", help="put before a prompt that lacks them"
    )
    parser.add_argument("--description", help="shown by /v1/models; by default, where it is from")


def _add(arguments: argparse.Namespace) -> None:
    from iris.store.hub import fetch_style
    from iris.store.styles import Wish, add_style, check_wish, is_there

    source = Path(arguments.source)
    wish = Wish(
        name=arguments.name,
        default_strength=arguments.default_strength,
        trigger=arguments.trigger,
        description=arguments.description or f"added from {source.name}",
    )
    check_wish(wish)
    registry = served()
    if _may_be_on_a_hub(arguments.source) and not is_there(source):
        _check_owner(arguments.source)
        source = fetch_style(arguments.source, progress)
    entry = add_style(wish, source, registry, Settings.from_env().home, progress)
    print(f"{entry.tag} is served by what starts from now on; `iris styles reload` for what runs")


def _may_be_on_a_hub(source: str) -> bool:
    """Whether this may be OWNER/REPOSITORY[/FILE]. A file there has two names before its own."""
    if {"", ".", ".."} & set(source.split("/")):
        return False
    is_file = source.endswith((".pt", ".bin")) or (
        source.endswith(".safetensors") and source.count("/") < 2
    )
    return not is_file


def _check_owner(source: str) -> None:
    """Whether what would be an owner on a hub is no folder here, below which a file was meant.

    Raises:
        StoreError: it is one.
    """
    folder = source.partition("/")[0]
    if Path(folder).is_dir():
        raise StoreError(
            f"{source} is not there, and {folder} is a folder here, so it is not looked for on a "
            "hub. Name a file that is there; for a hub's, run this in another folder."
        )


def _train(arguments: argparse.Namespace) -> None:
    from iris.store.importer import ensure_registered
    from iris.store.registry import MAX_RANK
    from iris.store.resolver import resolve
    from iris.store.styles import Wish, add_style, check_alike, check_wish
    from iris.training.folder import alone
    from iris.training.run import Recipe, train

    settings = Settings.from_env()
    wish = Wish(
        name=arguments.name,
        default_strength=arguments.default_strength,
        trigger=arguments.trigger,
        description=arguments.description or f"trained on {arguments.images.resolve().name}",
    )
    check_wish(wish)
    for option, _, _, _ in _TRAINING:
        value = getattr(arguments, option.removeprefix("--").replace("-", "_"))
        may_be_zero = option in ("--seed", "--sample-every")
        if not (0 < value < math.inf or (value == 0 and may_be_zero)):  # NaN neither
            raise ConfigError(f"{option} {value} must be a number above 0.")
    for option, value, most in (
        ("--rank", arguments.rank, MAX_RANK),
        ("--seed", arguments.seed, _MAX_SEED),
    ):
        if value > most:
            raise ConfigError(f"{option} {value} must be at most {most}.")
    registry = served()
    on = served(arguments.on) if arguments.on else registry
    ensure_registered(on, progress)
    if on != registry:
        ensure_registered(registry, progress)
        check_alike(on, registry)
    folder = settings.home / "training" / arguments.name
    recipe = Recipe(
        base=on.base.tag,
        images=arguments.images.resolve(),
        captions=arguments.captions and arguments.captions.resolve(),
        trigger=arguments.trigger,
        rank=arguments.rank,
        steps=arguments.steps,
        rate=arguments.rate,
        batch=arguments.batch,
        side_px=arguments.size,
        seed=arguments.seed,
        sample_every=arguments.sample_every,
        sample_steps=arguments.sample_steps,
    )
    with alone(folder, is_fresh=arguments.fresh):
        made = train(
            recipe,
            resolve(on).base_path,
            folder,
            progress,
            device=settings.device,
            dtype=settings.dtype,
            threads=settings.cpu_threads,
        )
        entry = add_style(wish, made, registry, settings.home, progress)
    print(f"{entry.tag} is served by what starts from now on; `iris styles reload` for what runs")
    if recipe.sample_every:
        print(f"samples: {folder / 'samples'}")


def _list(arguments: argparse.Namespace) -> None:
    from iris.store.additions import load_additions

    registry = served()
    added = load_additions(Settings.from_env().home).styles
    rows = [
        (
            style.name,
            style.tag,
            "added" if style in added else "registered",
            str(style.rank),
            f"{style.default_strength:g}",
            style.trigger or "-",
            style.description,
        )
        for style in registry.styles
    ]
    print_table(("NAME", "TAG", "FROM", "RANK", "STRENGTH", "TRIGGER", "DESCRIPTION"), rows)
    others = {style.base for style in added} - {registry.base.tag}
    for base in sorted(others):
        names = ", ".join(style.name for style in added if style.base == base)
        progress(f"not served with {registry.base.tag}: {names}, made for {base}")


def _remove(arguments: argparse.Namespace) -> None:
    from iris.store.styles import remove_style

    remove_style(arguments.name, served(), Settings.from_env().home)
    print(f"{arguments.name} is no longer listed; `iris styles reload` for what runs")


def _reload(arguments: argparse.Namespace) -> None:
    from iris.reload import reload_styles

    for line in reload_styles(Settings.from_env().home):
        print(line)
