from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from iris.errors import StoreError
from iris.store.digest import folder_sha256, list_files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    (folder / "vae").mkdir(parents=True)
    (folder / "vae" / "config.json").write_text("{}")
    (folder / "LICENSE").write_text("free")
    (folder / "a.txt").write_text("first")
    return folder


def test_the_hash_is_the_one_that_is_documented(folder: Path) -> None:
    lines = b""
    for path in ("LICENSE", "a.txt", "vae/config.json"):
        content = hashlib.sha256((folder / path).read_bytes()).hexdigest()
        lines += f"{path}\0{content}\n".encode()
    assert folder_sha256(folder) == hashlib.sha256(lines).hexdigest()


def test_every_change_of_a_path_or_a_content_changes_the_hash(folder: Path) -> None:
    hashes = {folder_sha256(folder)}
    (folder / "a.txt").write_text("firsT")
    hashes.add(folder_sha256(folder))
    (folder / "a.txt").rename(folder / "b.txt")
    hashes.add(folder_sha256(folder))
    (folder / "b.txt").rename(folder / "vae" / "b.txt")
    hashes.add(folder_sha256(folder))
    (folder / "empty.txt").touch()
    hashes.add(folder_sha256(folder))
    (folder / "empty.txt").unlink()
    (folder / "LICENSE").unlink()
    hashes.add(folder_sha256(folder))
    assert len(hashes) == 6


def test_the_place_times_and_modes_of_the_files_are_no_part_of_the_hash(folder: Path) -> None:
    before = folder_sha256(folder)
    os.utime(folder / "a.txt", (1, 1))
    (folder / "a.txt").chmod(0o600)
    (folder / "nothing").mkdir()
    assert folder_sha256(folder.rename(folder.with_name("elsewhere"))) == before


def test_the_description_bentoml_adds_is_no_part_of_the_hash(folder: Path) -> None:
    before = folder_sha256(folder)
    (folder / "model.yaml").write_text("name: x")
    assert folder_sha256(folder) == before


@pytest.mark.parametrize(
    "name",
    [
        *("w.bin", "w.pt", "w.pth", "w.ckpt", "w.pkl", "w.pickle", "custom_objects.pkl", "W.PKL"),
        *("model.py", "lib.so", "w.safetensors.pkl", "noending", "w.npy", "vae/model.yaml"),
    ],
)
def test_a_file_that_could_run_code_is_refused_by_name(folder: Path, name: str) -> None:
    (folder / name).write_text("x")
    with pytest.raises(StoreError) as caught:
        folder_sha256(folder)
    assert name in caught.value.message
    assert ".safetensors" in caught.value.message


def test_links_of_every_kind_are_refused(folder: Path, tmp_path: Path) -> None:
    outside = tmp_path / "secret.txt"
    outside.write_text("not yours")
    for name, target in (("a", outside), ("b", folder / "vae"), ("c", tmp_path / "nothing")):
        link = folder / f"{name}.txt"
        link.unlink(missing_ok=True)
        link.symlink_to(target)
        with pytest.raises(StoreError, match=rf"{name}\.txt is a symbolic link"):
            list_files(folder)
        link.unlink()


def test_a_pipe_is_refused_without_being_opened(folder: Path) -> None:
    os.mkfifo(folder / "pipe.txt")
    with pytest.raises(StoreError, match=r"pipe\.txt is not a plain file"):
        folder_sha256(folder)


def test_a_missing_and_an_empty_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="is not a folder"):
        folder_sha256(tmp_path / "nowhere")
    (tmp_path / "empty" / "inner").mkdir(parents=True)
    with pytest.raises(StoreError, match="is empty"):
        folder_sha256(tmp_path / "empty")
