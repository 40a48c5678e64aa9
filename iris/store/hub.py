"""Fetching from a Hugging Face hub: models into a folder of the store's file system, and styles.

Only safetensors and the JSON and text around them are fetched; a repository's code never is.
A download that was broken off goes on where it stopped.
"""

from __future__ import annotations

import errno
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from iris.errors import StoreError
from iris.store import bento
from iris.store.digest import ALLOWED_NAMES, ALLOWED_SUFFIXES

INDEX = "model_index.json"
_NEEDED = {  # of each part, by folder
    "scheduler": "scheduler_config.json",
    "text_encoder": "config.json",
    "tokenizer": "tokenizer_config.json",
    "transformer": "config.json",
    "vae": "config.json",
}
PARTS = tuple(_NEEDED)
_WORDS = ("tokenizer/tokenizer.json",), ("tokenizer/vocab.json", "tokenizer/merges.txt")
_NOT_WHOLE = "it is no whole FLUX.2-klein pipeline. Fetch or copy what is missing."
_BESIDE = re.compile(rf"{INDEX}|iris\.json|LICENSE(\.\w+)?|NOTICE|README\.md")
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SPARE_BYTES = 1 << 30  # that stay free
_FULL = (errno.ENOSPC, errno.EDQUOT)
_CLOSED = (errno.EACCES, errno.EROFS)


@dataclass(frozen=True, slots=True)
class HubModel:
    """A published model that can be pulled by name."""

    name: str
    repository: str
    revision: str  # the commit that is pulled where no other is asked for
    licence: str
    description: str


# The base models of this architecture that are published under a licence that lets them be served.
KNOWN = {
    model.name: model
    for model in (
        HubModel(
            "klein-4b",
            "black-forest-labs/FLUX.2-klein-4B",
            "e7b7dc27f91deacad38e78976d1f2b499d76a294",
            "Apache-2.0",
            "FLUX.2 [klein] 4B by Black Forest Labs, distilled to four steps: pictures and edits",
        ),
        HubModel(
            "klein-base-4b",
            "black-forest-labs/FLUX.2-klein-base-4B",
            "a3b4f4849157f664bdbc776fd7453c2783562f4d",
            "Apache-2.0",
            "FLUX.2 [klein] 4B Base by Black Forest Labs, not distilled: styles are trained on it",
        ),
    )
}


@dataclass(frozen=True, slots=True)
class Fetched:
    """A repository's files in a folder, at one commit."""

    folder: Path
    commit: str
    sha256: dict[str, str]  # of the large files, as the hub has them


def is_model_file(path: str) -> bool:
    """Whether the engine loads this file of a pipeline's folder, or its licence is in it."""
    folder, _, name = path.rpartition("/")
    if not folder:
        return _BESIDE.fullmatch(name) is not None
    is_kind = Path(name).suffix in ALLOWED_SUFFIXES or name in ALLOWED_NAMES
    return folder in _NEEDED and is_kind


@dataclass(frozen=True, slots=True)
class _Place:
    """Where files are fetched to."""

    folder: Path
    setting: str  # the environment variable that moves it


def fetch_model(
    model: HubModel, revision: str, progress: Callable[[str], None], endpoint: str | None = None
) -> Fetched:
    """Download the files of the model that are loaded, with a progress bar.

    revision: a branch, tag or commit. endpoint: the hub, huggingface.co or HF_ENDPOINT by default.

    Raises:
        StoreError: the hub cannot be reached or refuses, the repository is no such model, or the
            disk is too small.
    """
    from huggingface_hub import HfApi

    api = HfApi(endpoint=endpoint)
    place = _Place(bento.staging_home(), "BENTOML_HOME")
    with _told(model.repository, place):
        info = api.model_info(model.repository, revision=revision, files_metadata=True)
    commit = info.sha or ""
    if _COMMIT.fullmatch(commit) is None:
        raise StoreError(f"{model.repository} has no commit {revision}.")
    sizes = {
        file.rfilename: file.size or 0
        for file in info.siblings or ()
        if is_model_file(file.rfilename)
    }
    check_complete(model.repository, sizes)
    folder = place.folder / f"iris-pull-{model.name}-{commit[:12]}"
    _check_room(folder, sizes)
    progress(
        f"pulling {model.repository} at {commit}: {len(sizes)} files, "
        f"{sum(sizes.values()) / 1e9:.2f} GB, licence {model.licence}"
    )
    for path, size in sizes.items():
        with _told(model.repository, place):
            _download(model.repository, commit, path, size, folder, endpoint)
    hashes = {file.rfilename: file.lfs.sha256 for file in info.siblings or () if file.lfs}
    return Fetched(folder, commit, {path: hashes[path] for path in sizes if path in hashes})


def _download(
    repository: str, commit: str, path: str, size: int, folder: Path, endpoint: str | None
) -> None:
    """One file of a commit into the folder, from where an earlier download of it stopped.

    The hub's client itself goes on only as long as its process lives.
    """
    from huggingface_hub import hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

    target = folder / path
    if target.is_file() and target.stat().st_size == size:
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"{target.name}.partial")
    if partial.is_file() and partial.stat().st_size > size:
        partial.unlink()  # of something else
    with partial.open("ab") as stream:
        http_get(
            hf_hub_url(repository, path, revision=commit, endpoint=endpoint),
            stream,
            resume_size=stream.tell(),
            headers=build_hf_headers(),
            expected_size=size,
            displayed_filename=path,
        )
    partial.rename(target)


def fetch_style(name: str, progress: Callable[[str], None], endpoint: str | None = None) -> Path:
    """Download a style: OWNER/REPOSITORY, or OWNER/REPOSITORY/FILE where it has several.

    Raises:
        StoreError: the hub cannot be reached or refuses, or it is not clear which file is meant.
    """
    from huggingface_hub import HfApi, hf_hub_download
    from huggingface_hub.constants import HF_HUB_CACHE

    owner, _, rest = name.partition("/")
    repository, _, file = rest.partition("/")
    repository = f"{owner}/{repository}"
    if _REPOSITORY.fullmatch(repository) is None:
        raise StoreError(
            f"{name} is neither a file here nor OWNER/REPOSITORY or OWNER/REPOSITORY/FILE on a hub."
        )
    api = HfApi(endpoint=endpoint)
    place = _Place(Path(HF_HUB_CACHE), "HF_HOME")
    before = f"{name} is no file here, and on the hub "  # it may be a path that was mistyped
    with _told(repository, place, before):
        files = api.list_repo_files(repository)
    weights = [path for path in files if path.endswith(".safetensors")]
    if not file:
        if len(weights) != 1:
            listed = ", ".join(weights[:10]) or "none"
            raise StoreError(
                f"{repository} has {len(weights)} safetensors files ({listed}). Name one: "
                f"{repository}/FILE."
            )
        file = weights[0]
    elif file not in weights:
        raise StoreError(f"{repository} has no safetensors file {file}.")
    progress(f"pulling {file} of {repository}")
    with _told(repository, place):
        path = Path(hf_hub_download(repository, file, endpoint=endpoint))
        settings = str(PurePosixPath(file).with_name("adapter_config.json"))
        if settings in files:
            hf_hub_download(repository, settings, endpoint=endpoint)
    return path


def check_complete(source: str, paths: Iterable[str]) -> None:
    """Whether these files make a pipeline with safetensors weights.

    A pipeline without its tokenizer's words would be loaded all the same, and read every prompt
    alike.

    Raises:
        StoreError: names what is missing.
    """
    present = set(paths)
    if INDEX not in present:
        raise StoreError(f"{source} has no {INDEX}: it is no pipeline in the diffusers layout.")
    for part, config in _NEEDED.items():
        if f"{part}/{config}" not in present:
            raise StoreError(f"{source} has no {part}/{config}: {_NOT_WHOLE}")
        is_weights = re.compile(rf"{part}/.+\.safetensors").fullmatch
        if part in ("text_encoder", "transformer", "vae") and not any(map(is_weights, present)):
            raise StoreError(
                f"{source} has no safetensors weights in {part}/; other formats are not loaded, "
                "because loading them can run code."
            )
    if not any(present.issuperset(words) for words in _WORDS):
        raise StoreError(
            f"{source} has neither tokenizer/tokenizer.json nor tokenizer/vocab.json with "
            f"merges.txt: {_NOT_WHOLE}"
        )


def _check_room(folder: Path, sizes: dict[str, int]) -> None:
    there = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    needed = sum(sizes.values()) - there + _SPARE_BYTES
    free = shutil.disk_usage(folder.parent).free
    if needed > free:
        raise StoreError(
            f"The download needs {needed / 1e9:.1f} GB below {folder.parent}, and {free / 1e9:.1f} "
            "are free. Make room, or set BENTOML_HOME to a folder on a larger disk."
        )


@contextmanager
def _told(repository: str, place: _Place, before: str = "") -> Iterator[None]:
    """Tells what a refusal of the hub or of the disk means, in the place of the client's errors.

    before: what is said before the hub's.
    """
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    what = before + repository
    try:
        yield
    except GatedRepoError as error:
        why = "asks for its terms to be accepted: do so on its page, then `hf auth login`"
        raise _refused(what, why) from error
    except RepositoryNotFoundError as error:
        why = "is not there, or is private: check the name, or `hf auth login`"
        raise _refused(what, why) from error
    except RevisionNotFoundError as error:
        raise _refused(what, "has no such revision: see its commits on the hub") from error
    except HfHubHTTPError as error:
        raise _refused(what, "was refused by the hub; try again later") from error
    except Exception as error:  # of the client, of httpx, of the disk
        disk = error.strerror if isinstance(error, OSError) else None
        why = disk or type(error).__name__
        if isinstance(error, OSError) and error.errno in _FULL + _CLOSED:
            first = "Make room there" if error.errno in _FULL else "Let this user write there"
            raise StoreError(
                f"{repository} cannot be written to {place.folder} ({why}). {first}, or set "
                f"{place.setting} to another folder. What was fetched is kept."
            ) from error
        raise _refused(
            what,
            f"cannot be fetched ({why}). Without a network, copy it here and name its path",
        ) from error


def _refused(repository: str, why: str) -> StoreError:
    return StoreError(f"{repository} {why}. What was fetched is kept.")
