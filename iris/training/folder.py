"""The folder of one training: one process at a time works there, and its files are whole."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from iris.errors import ConfigError, StoreError


@contextmanager
def alone(folder: Path, *, is_fresh: bool) -> Iterator[None]:
    """Keep every other process from training there, or from clearing it.

    is_fresh: what an earlier training left is removed first.

    Raises:
        ConfigError: another process trains there, or the folder cannot be removed.
        StoreError: the lock beside the folder cannot be written.
    """
    path = folder.with_name(f"{folder.name}.lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a")
    except OSError as error:
        raise _uncleared(folder, error) if is_fresh else unwritten(path, error) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(
                f"Another process trains {folder.name} in {folder}. Wait for it, or end it: what "
                "it learnt is kept. Or train under another name."
            ) from error
        if is_fresh:
            _clear(folder)
        yield  # closing the file frees the lock, and so does the end of the process


def _clear(folder: Path) -> None:
    try:
        with suppress(FileNotFoundError):
            shutil.rmtree(folder)
    except OSError as error:
        raise _uncleared(folder, error) from error


def _uncleared(folder: Path, error: OSError) -> ConfigError:
    return ConfigError(
        f"{folder} cannot be removed ({error.strerror}). Remove it yourself, or set IRIS_HOME to a "
        "folder that can be written."
    )


@contextmanager
def whole(path: Path) -> Iterator[BinaryIO]:
    """A file that takes the place of `path` once it is written and on the disk, or never.

    Raises:
        StoreError: it cannot be written.
    """
    partial = path.with_name(f"{path.name}.partial")
    try:
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except (OSError, RuntimeError) as error:  # torch's own of a full disk is the latter
        raise unwritten(path, error) from error


def unwritten(path: Path, error: Exception) -> StoreError:
    """What to say of a file or folder that cannot be written."""
    why = getattr(error, "strerror", None) or type(error).__name__
    return StoreError(
        f"{path} cannot be written ({why}). Make room there, or set IRIS_HOME to a folder that can "
        "be written, and start the training again: it goes on from what was saved last."
    )
