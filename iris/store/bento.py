"""The Bento model store, as far as this house needs it: find, stage and publish exact versions.

BentoML is imported inside the functions, so that reading the registry stays cheap.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from iris.errors import StoreError
from iris.store.digest import BENTO_FILE, ModelFile
from iris.store.registry import Registry

if TYPE_CHECKING:
    from bentoml.models import BentoModel

BENTO_DESCRIPTION = "bento.yaml"  # in the folder of a bento, beside `src`
_STAGING_PREFIX = "iris-import-"
_STYLE_PREFIX = "iris-style-"  # a style that is being added, see iris.store.styles
_DAY_S = 86_400.0

T = TypeVar("T")


class Unusable(StoreError):
    """What lies in the store under a tag has no record that can be read."""


@dataclass(frozen=True, slots=True)
class StoredModel:
    """A model in the store, and what was written down when it was imported."""

    tag: str
    path: Path
    labels: Mapping[str, str]
    sizes: Mapping[str, int]  # bytes of every file, by path
    metadata: Mapping[str, Any]

    @property
    def description(self) -> str:
        return str(self.metadata.get("description", ""))


def store_path() -> Path:
    """The folder of the model store in use.

    That is `$BENTOML_HOME/models`, or the bento's own `models` folder inside a container.

    Raises:
        StoreError: it is not there and cannot be made.
    """
    from bentoml._internal.configuration.containers import BentoMLContainer

    try:
        return Path(BentoMLContainer.model_store.get()._path)
    except OSError as error:  # BentoML makes its folders when it is asked for the first time
        home = os.environ.get("BENTOML_HOME", "~/bentoml")
        raise StoreError(
            f"The Bento model store cannot be made in {home} ({error.strerror}). Set BENTOML_HOME "
            "to a folder that can be written."
        ) from error


def use_models_of(bento_folder: Path) -> None:
    """From now on the store is the bento's own, where it carries its models as in a container.

    BentoML does so when it loads the bento; a command beside it does not go through BentoML.
    """
    from bentoml._internal.configuration.containers import BentoMLContainer
    from bentoml._internal.models import ModelStore

    models = bento_folder / "models"
    if models.is_dir() and any(models.iterdir()):
        BentoMLContainer.model_store.set(ModelStore(models))


def tags_of(bento_folder: Path) -> list[str]:
    """The models that a bento was built with, in the order in which its services declare them.

    Raises:
        StoreError: its bento.yaml cannot be read.
    """
    from bentoml._internal.bento.bento import BaseBentoInfo

    path = bento_folder / BENTO_DESCRIPTION
    try:
        with path.open(encoding="utf-8") as stream:
            return [str(model.tag) for model in BaseBentoInfo.from_yaml_file(stream).all_models]
    except Exception as error:  # YAML, cattrs and BentoML each have their own
        raise StoreError(
            f"{path} cannot be read as a bento's description. Build the bento again."
        ) from error


def find(tag: str) -> StoredModel | None:
    """The stored model with exactly this tag, or None.

    A folder without model.yaml is what a killed `bentoml models pull` leaves: it counts as absent.

    Raises:
        Unusable: its model.yaml cannot be read or is of another model.
        StoreError: this user may not look at it.
    """
    # `bentoml.models.get` takes the beginning of a version too: 1.0.0 would find 1.0.0-rc1
    path = _folder(tag)
    try:
        if not (path / BENTO_FILE).is_file():
            return None
    except OSError as error:
        raise StoreError(
            f"{path} in the Bento model store cannot be read ({error.strerror}). Let this user "
            "read it, or set BENTOML_HOME to another folder."
        ) from error
    from bentoml._internal.models import Model

    try:
        info = Model.from_path(path).info
        sizes: Any = info.metadata.get("files")
    except Exception as error:  # YAML, cattrs and BentoML each have their own
        raise _unusable(tag, path, f"its {BENTO_FILE} cannot be read") from error
    if str(info.tag) != tag:
        raise _unusable(tag, path, f"its {BENTO_FILE} says {info.tag}")
    if not isinstance(sizes, dict):
        raise _unusable(tag, path, "it was not put there by `iris models import`")
    return StoredModel(tag, path, dict(info.labels), sizes, dict(info.metadata))


def stage(
    tag: str,
    files: tuple[ModelFile, ...],
    source: Path,
    labels: Mapping[str, str],
    metadata: Mapping[str, Any],
    *,
    is_linked: bool = False,
) -> Path:
    """Copy a model to where `publish` can move it from; returns the folder.

    Call it and `publish` under the import lock. `source` stays as it is.

    is_linked: the files get a second name instead of a copy, where the file system allows it.
    """
    # BentoML reports every saved model to its makers unless it is told not to
    os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")
    import bentoml
    from bentoml._internal.models import ModelStore

    staging = Path(tempfile.mkdtemp(prefix=_STAGING_PREFIX, dir=staging_home()))
    # BentoML writes the description of the model; the files go in after it, because going through
    # BentoML would copy them twice, the first time into /tmp
    with bentoml.models.create(
        tag,
        labels=dict(labels),
        metadata={**metadata, "files": {file.path: file.size_bytes for file in files}},
        _model_store=ModelStore(staging),
    ):
        pass
    name, _, version = tag.partition(":")
    folder = staging / name / version
    for file in files:
        _put(source / file.path, folder / file.path, is_linked=is_linked)
    return folder


def publish(tag: str, staged: Path) -> None:
    """Move a staged model into the store, whole or not at all.

    What lay there is put beside it first, where `clear_staging` takes it away.

    Raises:
        StoreError: the store and its tmp folder are on different file systems.
    """
    # BentoML's own save copies into the final folder, where a killed process leaves half a model
    target = _folder(tag)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists():  # without a record, or damaged: nobody replaces what is whole
            old = Path(tempfile.mkdtemp(prefix=_STAGING_PREFIX, dir=staging_home()))
            target.rename(old / target.name)
        staged.rename(target)
    except OSError as error:
        raise StoreError(
            f"{tag} cannot be moved from {staged} to {target} ({error.strerror}). Both must be on "
            "one writable file system: set BENTOML_HOME to a folder on it."
        ) from error
    # which version is the latest is asked by nobody here; BentoML works it out again when needed
    (target.parent / "latest").unlink(missing_ok=True)


def clear_staging() -> None:
    """Remove what killed or finished imports left. Call it under the import lock only.

    A style that is being added lies beside them without a lock; none takes a day.
    """
    home = staging_home()
    for folder in home.glob(f"{_STAGING_PREFIX}*"):
        shutil.rmtree(folder, ignore_errors=True)
    for folder in home.glob(f"{_STYLE_PREFIX}*"):
        with suppress(OSError):
            if folder.stat().st_mtime < time.time() - _DAY_S:
                shutil.rmtree(folder)


def is_carried() -> bool:
    """Whether the store in use is the one that a bento carries, as in a container."""
    return (store_path().parent / BENTO_DESCRIPTION).is_file()


def lock_path(what: str = "import") -> Path:
    """The file whose lock an import holds, or whatever else is done one at a time."""
    return store_path().parent / f"iris-{what}.lock"


def bento_models(registry: Registry) -> dict[str, BentoModel]:
    """Every registered model by the name of an attribute: model_base, model_style_000_<name>, ...

    They are references, which need not be in the store yet. A bento lists them by these names, so
    the numbers keep the order of the registry.
    """
    from bentoml.models import BentoModel

    return {"model_base": BentoModel(registry.base.tag)} | {
        f"model_style_{number:03}_{style.name.replace('-', '_')}": BentoModel(style.tag)
        for number, style in enumerate(registry.styles)
    }


def declare_models(registry: Registry) -> Callable[[type[T]], type[T]]:
    """Class decorator, below `@bentoml.service`: a bento of the class holds the registered models.

    `bentoml build` finds models only as class attributes; this sets one for each entry.
    """

    def declare(cls: type[T]) -> type[T]:
        for name, model in bento_models(registry).items():
            setattr(cls, name, model)
        return cls

    return declare


def _folder(tag: str) -> Path:
    name, _, version = tag.partition(":")
    return store_path() / name / version


def versions_of(name: str) -> tuple[str, ...]:
    """The versions of a model that are in the store, in no order."""
    folder = store_path() / name
    if not folder.is_dir():
        return ()
    return tuple(found.name for found in folder.iterdir() if found.is_dir())


def _put(source: Path, target: Path, *, is_linked: bool) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if is_linked:
        with suppress(OSError):  # another file system, or one on which a file has one name only
            os.link(source.resolve(), target)  # of a symbolic link, what it points to
            return
    shutil.copyfile(source, target)


def staging_home() -> Path:
    """A folder on the store's file system for what is not in the store yet. Raises StoreError."""
    # not inside the store: BentoML takes every folder there for a model
    home = store_path().parent / "tmp"
    try:
        home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(
            f"{home} cannot be made ({error.strerror}). Set BENTOML_HOME to a folder that can be "
            "written."
        ) from error
    return home


def _unusable(tag: str, path: Path, why: str) -> Unusable:
    # `bentoml models delete` wants to read the record, too
    return Unusable(
        f"{tag} in the Bento model store ({path}) cannot be used: {why}. Remove that folder, then "
        "repeat what put it there: `iris models import`, `iris models pull` or `iris styles add`."
    )
