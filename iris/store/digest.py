"""What a model folder holds, and the one SHA-256 that stands for all of it."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from iris.errors import StoreError

# An allow-list: of the formats in use only pickles and Python files run code when they are loaded,
# but the next format to do so has no name yet.
ALLOWED_SUFFIXES = frozenset({".safetensors", ".json", ".txt", ".md", ".jinja", ".model"})
ALLOWED_NAMES = frozenset({"LICENSE", "NOTICE", "README", ".gitattributes"})
BENTO_FILE = "model.yaml"  # written by BentoML beside the files of a stored model


@dataclass(frozen=True, slots=True)
class ModelFile:
    """One file of a model folder; `path` is relative to the folder, with slashes."""

    path: str
    size_bytes: int


def list_files(folder: Path) -> tuple[ModelFile, ...]:
    """Every file of a model folder, sorted by path; BentoML's own model.yaml is left out.

    Raises:
        StoreError: there is no such folder, it is empty, or it holds a link, a special file or a
            file of a kind that is not safe to load.
    """
    if why := no_folder(folder):
        raise StoreError(
            f"{folder} is not a folder ({why}). A model is a folder of safetensors and JSON."
        )
    files = tuple(sorted(_walk(folder, folder), key=lambda file: file.path.encode()))
    if not files:
        raise StoreError(f"{folder} is empty. A model is a folder of safetensors and JSON.")
    return files


def no_folder(path: Path) -> str:
    """Why there is no folder to be read at the path; empty where there is one."""
    try:
        is_folder = stat.S_ISDIR(path.stat().st_mode)
    except OSError as error:  # a path that is too long, or below a folder that is not ours
        return error.strerror or type(error).__name__
    return "" if is_folder else "it is a file"


def folder_sha256(folder: Path) -> str:
    """The hash of a model folder: of every file's path and content, and of nothing else.

    It is the SHA-256 over the lines `path NUL sha256(content) LF`, sorted by path.

    Raises:
        StoreError: as `list_files`, or a file cannot be read.
    """
    return sha256_of(file_sha256s(folder, list_files(folder)))


def file_sha256s(folder: Path, files: Iterable[ModelFile]) -> dict[str, str]:
    """The SHA-256 of each file, by its path.

    Raises:
        StoreError: a file cannot be read.
    """
    found = {}
    for file in files:
        try:
            with (folder / file.path).open("rb") as stream:
                found[file.path] = hashlib.file_digest(stream, "sha256").hexdigest()
        except OSError as error:
            raise StoreError(f"{folder / file.path} cannot be read ({error.strerror}).") from error
    return found


def sha256_of(file_sha256s: Mapping[str, str]) -> str:
    """The hash of a folder with these files: path -> SHA-256."""
    total = hashlib.sha256()
    for path in sorted(file_sha256s, key=str.encode):
        total.update(f"{path}\0{file_sha256s[path]}\n".encode())
    return total.hexdigest()


def _walk(folder: Path, root: Path) -> Iterator[ModelFile]:
    try:
        entries = list(os.scandir(folder))
    except OSError as error:
        raise StoreError(f"{folder} cannot be read ({error.strerror}).") from error
    for entry in entries:
        path = Path(entry.path).relative_to(root).as_posix()
        if entry.is_symlink():
            raise StoreError(
                f"{root}: {path} is a symbolic link, and a model must hold its own files. "
                "Copy the folder with `cp -rL`."
            )
        if entry.is_dir():
            yield from _walk(Path(entry.path), root)
        elif path != BENTO_FILE:
            if not entry.is_file():
                raise StoreError(f"{root}: {path} is not a plain file. Remove it.")
            _check_kind(root, path)
            yield ModelFile(path, entry.stat().st_size)


def check_text(root: Path, path: str) -> None:
    """Whether the name can be written down and hashed. Raises StoreError."""
    try:
        path.encode()
    except UnicodeEncodeError as error:
        raise StoreError(
            f"{root}: the name {path!r} is not text in UTF-8. Rename or remove it."
        ) from error


def _check_kind(root: Path, path: str) -> None:
    check_text(root, path)
    name = path.rsplit("/", 1)[-1]
    if name not in ALLOWED_NAMES and Path(name).suffix not in ALLOWED_SUFFIXES:
        raise StoreError(
            f"{root}: {path} may not be part of a model, because loading it could run code or is "
            f"not needed. Allowed are {', '.join(sorted(ALLOWED_SUFFIXES | ALLOWED_NAMES))}; "
            "convert weights to safetensors."
        )
