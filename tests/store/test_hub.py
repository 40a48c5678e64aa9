"""Pulling from a hub over HTTP: what is fetched, what is not, what goes on where it stopped."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from iris.errors import StoreError
from iris.store import bento
from iris.store.additions import load_additions
from iris.store.bases import import_folder, pull
from iris.store.hub import KNOWN, HubModel, check_complete, fetch_style, is_model_file
from iris.store.resolver import is_whole
from iris.store.sizes import model_size
from tests.store.hub_server import COMMIT, Hub, serving
from tests.store.klein_folder import TEXT, WIDTH, write_klein

MODEL = HubModel("klein-4b", "acme/klein", "main", "Apache-2.0", "a small klein")
# The pipeline of klein-4b at the pinned commit, and its bytes, as public code that checks them has.
PUBLISHED = {
    "model_index.json": 446,
    "scheduler/scheduler_config.json": 486,
    "text_encoder/config.json": 1_536,
    "text_encoder/generation_config.json": 214,
    "text_encoder/model-00001-of-00002.safetensors": 4_967_215_360,
    "text_encoder/model-00002-of-00002.safetensors": 3_077_766_632,
    "text_encoder/model.safetensors.index.json": 32_855,
    "tokenizer/added_tokens.json": 707,
    "tokenizer/chat_template.jinja": 4_168,
    "tokenizer/merges.txt": 1_671_853,
    "tokenizer/special_tokens_map.json": 613,
    "tokenizer/tokenizer_config.json": 5_404,
    "tokenizer/vocab.json": 2_776_833,
    "transformer/config.json": 541,
    "transformer/diffusion_pytorch_model.safetensors": 7_751_109_744,
    "vae/config.json": 821,
    "vae/diffusion_pytorch_model.safetensors": 168_120_878,
}
LEFT = ("flux-2-klein-4b.safetensors", "teaser.png", "modeling.py", "diffusion_pytorch_model.bin")


class Lines(list[str]):
    def __call__(self, line: str) -> None:
        self.append(line)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hf"))
    with serving(write_klein(tmp_path / "published"), MODEL.repository) as hub:
        yield hub


@pytest.fixture
def home(tmp_path: Path, bento_home: Path) -> Path:
    return tmp_path / "home"


def test_the_pipeline_is_fetched_and_nothing_else(hub: Hub, home: Path, bento_home: Path) -> None:
    says = Lines()
    entry = pull(MODEL, home, says, endpoint=hub.url)
    assert entry.tag == f"epithre-iris-klein-4b:{COMMIT[:12]}"
    assert not [name for name, _ in hub.fetched if name.endswith(LEFT)]
    stored = bento.find(entry.tag)
    assert stored is not None
    names = {p.relative_to(stored.path).as_posix() for p in stored.path.rglob("*") if p.is_file()}
    assert "transformer/diffusion_pytorch_model.safetensors" in names
    assert "LICENSE.md" in names
    assert not [name for name in names if name.endswith(LEFT)]
    assert stored.labels["commit"] == COMMIT
    assert stored.labels["licence"] == "Apache-2.0"
    assert set(stored.metadata["sha256"]) == names - {"model.yaml"}
    assert "Apache-2.0" in "".join(says)
    assert load_additions(home).models == (entry,)
    assert list((bento_home / "tmp").iterdir()) == []  # no second copy is left


def test_the_files_are_moved_and_not_copied(
    hub: Hub, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched: dict[str, int] = {}
    stage = bento.stage

    def watched(tag: str, files: Any, source: Path, *rest: Any, **more: Any) -> Path:
        fetched.update({file.path: (source / file.path).stat().st_ino for file in files})
        return stage(tag, files, source, *rest, **more)

    monkeypatch.setattr("iris.store.bento.stage", watched)
    stored = bento.find(pull(MODEL, home, Lines(), endpoint=hub.url).tag)
    assert stored is not None
    assert fetched
    assert {name: (stored.path / name).stat().st_ino for name in fetched} == fetched


def test_a_broken_download_goes_on_where_it_stopped(
    hub: Hub, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also in another process: nothing but what is on the disk is gone by."""
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda _: None)
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1_000)  # it is 10 MB
    weights = "transformer/diffusion_pytorch_model.safetensors"
    hub.cut_after_bytes = 10_000
    with pytest.raises(StoreError, match="What was fetched is kept"):
        pull(MODEL, home, Lines(), endpoint=hub.url)
    arrived = {name for name, _ in hub.fetched if name != weights}
    hub.cut_after_bytes = None
    hub.fetched.clear()
    stored = bento.find(pull(MODEL, home, Lines(), endpoint=hub.url).tag)
    assert stored is not None
    assert (weights, "bytes=10000-") in hub.fetched
    assert not arrived & dict(hub.fetched).keys()
    assert (stored.path / weights).read_bytes() == (hub.folder / weights).read_bytes()


def test_a_remainder_longer_than_its_file_is_thrown_away(hub: Hub, home: Path) -> None:
    hub.damaged = "vae/diffusion_pytorch_model.safetensors"
    with pytest.raises(StoreError, match="damaged"):
        pull(MODEL, home, Lines(), endpoint=hub.url)
    hub.damaged = ""
    (folder,) = bento.staging_home().glob("iris-pull-*")
    (folder / "vae" / "diffusion_pytorch_model.safetensors.partial").write_bytes(bytes(10**6))
    assert bento.find(pull(MODEL, home, Lines(), endpoint=hub.url).tag) is not None


def test_a_file_that_arrives_damaged_is_told_and_fetched_again(hub: Hub, home: Path) -> None:
    hub.damaged = "vae/diffusion_pytorch_model.safetensors"
    with pytest.raises(StoreError, match=f"{hub.damaged} of acme/klein arrived damaged"):
        pull(MODEL, home, Lines(), endpoint=hub.url)
    hub.damaged = ""
    hub.fetched.clear()
    assert bento.find(pull(MODEL, home, Lines(), endpoint=hub.url).tag) is not None
    assert [name for name, _ in hub.fetched] == ["vae/diffusion_pytorch_model.safetensors"]


def test_what_was_pulled_is_not_asked_for_again(hub: Hub, home: Path) -> None:
    first = pull(MODEL, home, Lines(), endpoint=hub.url)
    hub.status = 500
    assert pull(MODEL, home, Lines(), endpoint=hub.url) == first


def damage(stored: Path, harm: str) -> None:
    weights = stored / "transformer" / "diffusion_pytorch_model.safetensors"
    content = weights.read_bytes()
    match harm:
        case "a byte":
            weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        case "a cut":
            weights.write_bytes(content[:-1])
        case "the record":
            (stored / "model.yaml").write_text("")
        case _:
            (stored / "more.json").write_text("{}")


@pytest.mark.parametrize("harm", ["a byte", "a cut", "the record", "another file"])
@pytest.mark.parametrize("revision", [None, "main"])
def test_what_was_pulled_and_is_damaged_in_the_store_is_pulled_again(
    revision: str | None, harm: str, hub: Hub, home: Path
) -> None:
    entry = pull(MODEL, home, Lines(), endpoint=hub.url)
    weights = "transformer/diffusion_pytorch_model.safetensors"
    damage(entry.source, harm)
    assert pull(MODEL, home, Lines(), revision=revision, endpoint=hub.url) == entry
    assert (entry.source / weights).read_bytes() == (hub.folder / weights).read_bytes()
    assert is_whole(entry, Lines())
    assert list(bento.staging_home().iterdir()) == []


def test_what_is_damaged_is_pulled_again_at_the_commit_it_has(hub: Hub, home: Path) -> None:
    entry = pull(MODEL, home, Lines(), revision="branch", endpoint=hub.url)
    damage(entry.source, "a byte")
    hub.asked.clear()
    pull(MODEL, home, Lines(), endpoint=hub.url)
    assert any(f"/revision/{COMMIT}" in path for path in hub.asked)


@pytest.mark.parametrize(
    ("number", "says"),
    [
        (errno.ENOSPC, "Make room there"),
        (errno.EDQUOT, "Make room there"),
        (errno.EACCES, "Let this user write there"),
        (errno.EROFS, "Let this user write there"),
    ],
)
def test_a_disk_that_takes_no_more_is_not_blamed_on_the_hub(
    number: int, says: str, hub: Hub, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("huggingface_hub.file_download.http_get", fail)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", fail)
    with pytest.raises(StoreError, match=f"{says}, or set BENTOML_HOME to another fol") as caught:
        pull(MODEL, home, Lines(), endpoint=hub.url)
    assert f"{bento.staging_home()} ({os.strerror(number)})" in caught.value.message
    assert "network" not in caught.value.message
    with pytest.raises(StoreError, match=f"{says}, or set HF_HOME to another folder") as caught:
        fetch_style("acme/klein/vae/diffusion_pytorch_model.safetensors", Lines(), hub.url)
    assert "no file here" not in caught.value.message


def test_a_name_that_no_hub_has_may_have_been_a_path(hub: Hub) -> None:
    name = "loras/sub/ink.safetensors"
    with pytest.raises(StoreError, match=f"^{name} is no file here, and on the hub loras/sub is "):
        fetch_style(name, Lines(), hub.url)


def test_too_small_a_disk_is_told_before_anything_is_fetched(
    hub: Hub, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: Usage(10**9, 9 * 10**8, 10**8))
    with pytest.raises(StoreError, match="BENTOML_HOME to a folder on a larger disk"):
        pull(MODEL, home, Lines(), endpoint=hub.url)
    assert hub.fetched == []


class Usage(NamedTuple):
    total: int
    used: int
    free: int


@pytest.mark.parametrize(
    ("missing", "says"),
    [
        ("model_index.json", "no model_index.json"),
        ("transformer/diffusion_pytorch_model.safetensors", "no safetensors weights in transf"),
        ("scheduler/scheduler_config.json", "no scheduler/"),
    ],
)
def test_a_repository_that_is_no_such_model_is_refused(
    missing: str, says: str, hub: Hub, home: Path
) -> None:
    (hub.folder / missing).unlink()
    with pytest.raises(StoreError, match=says):
        pull(MODEL, home, Lines(), endpoint=hub.url)
    assert hub.fetched == []


def test_a_hub_that_refuses_or_is_not_there_is_told(hub: Hub, home: Path) -> None:
    hub.status = 403
    with pytest.raises(StoreError, match="acme/klein was refused by the hub"):
        pull(MODEL, home, Lines(), endpoint=hub.url)
    elsewhere = HubModel("other", "acme/nothing", "main", "MIT", "d")
    hub.status = 200
    with pytest.raises(StoreError, match="acme/nothing is not there, or is private"):
        pull(elsewhere, home, Lines(), endpoint=hub.url)
    with pytest.raises(StoreError, match="Without a network"):
        pull(MODEL, home, Lines(), endpoint="http://127.0.0.1:9")


def test_a_style_is_fetched_by_its_repository_or_its_file(hub: Hub, bento_home: Path) -> None:
    path = fetch_style("acme/klein/vae/diffusion_pytorch_model.safetensors", Lines(), hub.url)
    assert path.read_bytes()[8:9] == b"{"
    with pytest.raises(StoreError, match="Name one: acme/klein/FILE"):
        fetch_style("acme/klein", Lines(), hub.url)
    with pytest.raises(StoreError, match="has no safetensors file README"):
        fetch_style("acme/klein/README.md", Lines(), hub.url)
    with pytest.raises(StoreError, match="neither a file here nor"):
        fetch_style("klein", Lines(), hub.url)


def test_a_folder_is_imported_and_kept(home: Path, tmp_path: Path) -> None:
    folder = write_klein(tmp_path / "downloaded")
    before = sorted(folder.rglob("*"))
    entry = import_folder(folder, "mine", home, Lines())
    assert entry.tag == f"epithre-iris-mine:{entry.sha256[:12]}"
    assert sorted(folder.rglob("*")) == before
    assert import_folder(folder, "mine", home, Lines()) == entry


def test_a_folder_of_links_is_imported_as_files(home: Path, tmp_path: Path) -> None:
    """As the hub's own cache keeps them."""
    folder = write_klein(tmp_path / "downloaded")
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    for number, path in enumerate(sorted(folder.rglob("*.safetensors"))):
        path.rename(blobs / str(number))
        path.symlink_to(blobs / str(number))
    stored = bento.find(import_folder(folder, "mine", home, Lines()).tag)
    assert stored is not None
    assert not any(path.is_symlink() for path in stored.path.rglob("*"))


def test_an_import_may_take_the_files_away(home: Path, tmp_path: Path) -> None:
    folder = write_klein(tmp_path / "downloaded")
    import_folder(folder, "mine", home, Lines(), is_moved=True)
    assert not list(folder.rglob("transformer/*.safetensors"))
    assert (folder / "teaser.png").exists()


def test_a_folder_of_another_pipeline_is_refused(home: Path, tmp_path: Path) -> None:
    folder = write_klein(tmp_path / "downloaded")
    (folder / "model_index.json").write_text('{"_class_name": "FluxPipeline"}')
    with pytest.raises(StoreError, match=r"is a FluxPipeline; only FLUX\.2-klein"):
        import_folder(folder, "mine", home, Lines())


@pytest.mark.parametrize("name", ["", "Klein", "a/b", "-x"])
def test_a_name_that_cannot_be_one_is_refused(name: str, home: Path, tmp_path: Path) -> None:
    from iris.errors import ConfigError

    with pytest.raises(ConfigError, match="no name for a model"):
        import_folder(tmp_path, name, home, Lines())


def test_the_size_counts_what_the_engine_keeps(tmp_path: Path) -> None:
    size = model_size(write_klein(tmp_path / "klein"))
    double, single = WIDTH * WIDTH + 4 + 6 * WIDTH * WIDTH, 4 * WIDTH * WIDTH
    assert size.blocks == 5 * double + 20 * single
    assert size.largest_block == double
    assert size.transformer_rest == 8 * WIDTH + 3 * TEXT * WIDTH + 8 * WIDTH
    assert size.text_layers == 27 * 3 * TEXT * TEXT  # three layers behind the last that is read
    assert size.text_embedding == 50 * TEXT
    assert size.autoencoder == 16


@pytest.mark.parametrize(
    ("path", "is_kept"),
    [
        ("transformer/diffusion_pytorch_model-00001-of-00002.safetensors", True),
        ("text_encoder/model.safetensors.index.json", True),
        ("tokenizer/vocab.json", True),
        ("tokenizer/merges.txt", True),
        ("LICENSE.md", True),
        ("LICENSE", True),
        ("flux-2-klein-4b.safetensors", False),
        ("transformer/model.bin", False),
        ("transformer/code.py", False),
        ("safety/model.safetensors", False),
        ("vae/../../model.safetensors", False),
        ("/vae/model.safetensors", False),
        ("teaser.png", False),
        (".gitattributes", False),
    ],
)
def test_only_what_is_loaded_is_taken(path: str, is_kept: bool) -> None:
    assert is_model_file(path) == is_kept


def test_all_of_the_published_pipeline_is_taken(tmp_path: Path) -> None:
    assert all(map(is_model_file, PUBLISHED))
    check_complete("klein-4b", PUBLISHED)
    written = write_klein(tmp_path / "klein")
    names = {p.relative_to(written).as_posix() for p in written.rglob("*") if p.is_file()}
    assert names >= PUBLISHED.keys()  # the folder that stands in for it in these tests


def test_what_is_pulled_is_one_commit_for_ever() -> None:
    assert all(re.fullmatch("[0-9a-f]{40}", model.revision) for model in KNOWN.values())


def test_what_can_be_pulled_may_be_served() -> None:
    assert {model.licence for model in KNOWN.values()} == {"Apache-2.0"}
