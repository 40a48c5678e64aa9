"""What an operator brings is stored whole, and lost at no moment."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from iris.cli import main
from iris.errors import ConfigError, StoreError
from iris.store import bento
from iris.store.additions import load_additions
from iris.store.bases import import_folder, pipeline_files, pull
from iris.store.hub import HubModel
from tests.store.hub_server import serving
from tests.store.klein_folder import write_klein

MODEL = HubModel("klein-4b", "acme/klein", "main", "Apache-2.0", "a small klein")
MINI = Path(__file__).parents[2] / "models" / "iris-mini" / "weights"
SHARD = "text_encoder/model-00002-of-00002.safetensors"


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def quiet(line: str) -> None:
    assert line


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def unlinkable(source: Path, target: Path) -> None:
    raise OSError(errno.EXDEV, "Invalid cross-device link")


@pytest.fixture
def home(tmp_path: Path, bento_home: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_klein(tmp_path / "downloaded")


@pytest.fixture(params=["one file system", "two file systems"])
def either(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store is where the folder is, or elsewhere."""
    if request.param == "two file systems":
        monkeypatch.setattr("iris.store.bento.os.link", unlinkable)


def breaking(after: int, error: BaseException, act: Callable[..., None]) -> Callable[..., None]:
    """The act, which fails when it was done that often."""
    left = [after]

    def done(*given: Any, **more: Any) -> None:
        if not left[0]:
            raise error
        left[0] -= 1
        act(*given, **more)

    return done


@pytest.mark.usefixtures("either")
@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left")])
@pytest.mark.parametrize(("act", "after"), [("_put", 3), ("publish", 0)])
def test_a_move_that_is_broken_off_leaves_every_file_in_the_folder(
    act: str,
    after: int,
    error: BaseException,
    folder: Path,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = contents(folder)
    with monkeypatch.context() as patch:
        patch.setattr(f"iris.store.bento.{act}", breaking(after, error, getattr(bento, act)))
        with pytest.raises((KeyboardInterrupt, StoreError)):
            import_folder(folder, "mine", home, quiet, is_moved=True)
    assert contents(folder) == before
    assert list(bento.staging_home().iterdir()) == []
    import_folder(folder, "mine", home, quiet, is_moved=True)


@pytest.mark.usefixtures("either")
def test_what_is_moved_is_in_the_store_and_out_of_the_folder(folder: Path, home: Path) -> None:
    files = [file.path for file in pipeline_files(folder)]
    before = contents(folder)
    stored = bento.find(import_folder(folder, "mine", home, quiet, is_moved=True).tag)
    assert stored is not None
    after = contents(stored.path)
    assert {name: after[name] for name in files} == {name: before[name] for name in files}
    assert contents(folder).keys() == before.keys() - set(files)


@pytest.mark.usefixtures("either")
def test_a_move_that_cannot_be_listed_leaves_the_folder_whole(folder: Path, home: Path) -> None:
    before = contents(folder)
    home.write_text("no folder")
    with pytest.raises(ConfigError, match="cannot be written"):
        import_folder(folder, "mine", home, quiet, is_moved=True)
    assert contents(folder) == before


def test_a_copy_that_is_damaged_is_never_moved(
    folder: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def put(source: Path, target: Path, **how: bool) -> None:
        target.parent.mkdir(exist_ok=True)
        content = source.read_bytes()
        target.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))

    before = contents(folder)
    monkeypatch.setattr("iris.store.bento._put", put)
    with pytest.raises(StoreError, match="differs from it"):
        import_folder(folder, "mine", home, quiet, is_moved=True)
    assert contents(folder) == before
    assert list((bento.store_path()).rglob("*.safetensors")) == []


def test_a_move_to_another_disk_needs_room_there_and_none_on_its_own(
    folder: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: Usage(10**9, 10**9, 0))
    with monkeypatch.context() as patch:
        patch.setattr("iris.store.bento.staging_home", lambda: Path("/proc"))
        with pytest.raises(StoreError, match=r"The copy needs .* GB below /proc"):
            import_folder(folder, "mine", home, quiet, is_moved=True)
    import_folder(folder, "mine", home, quiet, is_moved=True)


@pytest.mark.usefixtures("either")
def test_of_links_what_they_point_to_is_stored_and_stays(
    folder: Path, home: Path, tmp_path: Path
) -> None:
    """As the hub's own cache keeps them: relative, and out of the folder."""
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    names = [file.path for file in pipeline_files(folder)]
    before = contents(folder)
    for number, name in enumerate(names):
        (folder / name).rename(blobs / str(number))
        (folder / name).symlink_to(os.path.relpath(blobs / str(number), (folder / name).parent))
    stored = bento.find(import_folder(folder, "mine", home, quiet, is_moved=True).tag)
    assert stored is not None
    for number, name in enumerate(names):
        assert not (stored.path / name).is_symlink()
        assert (stored.path / name).read_bytes() == before[name]
        assert not (folder / name).is_symlink()
        assert (blobs / str(number)).read_bytes() == before[name]


def test_what_is_stored_already_is_taken_out_of_no_folder(folder: Path, home: Path) -> None:
    import_folder(folder, "mine", home, quiet)
    before = contents(folder)
    said: list[str] = []
    import_folder(folder, "mine", home, said.append, is_moved=True)
    assert contents(folder) == before
    assert "nothing is moved" in said[-1]


@pytest.mark.parametrize("is_moved", [False, True])
def test_what_is_damaged_in_the_store_is_mended_by_importing_it_again(
    is_moved: bool, folder: Path, home: Path
) -> None:
    entry = import_folder(folder, "mine", home, quiet)
    good = contents(entry.source)
    shard = entry.source / SHARD
    shard.write_bytes(good[SHARD][:-1] + bytes([good[SHARD][-1] ^ 1]))
    said: list[str] = []
    assert import_folder(folder, "mine", home, said.append, is_moved=is_moved) == entry
    assert any("has been changed since it was imported" in line for line in said)
    after = contents(entry.source)
    assert {**after, "model.yaml": b""} == {**good, "model.yaml": b""}
    assert (folder / SHARD).exists() != is_moved
    assert list(bento.staging_home().iterdir()) == []


def test_a_mending_that_cannot_be_published_leaves_nothing_half(
    folder: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = import_folder(folder, "mine", home, quiet)
    (entry.source / SHARD).unlink()
    rename = Path.rename

    def fail_into_the_store(self: Path, target: Path) -> Path:
        if target == entry.source:
            raise OSError(errno.EIO, "Input/output error")
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", fail_into_the_store)
        with pytest.raises(StoreError, match="cannot be moved"):
            import_folder(folder, "mine", home, quiet, is_moved=True)
    assert (folder / SHARD).exists()
    assert bento.find(entry.tag) is None
    import_folder(folder, "mine", home, quiet)
    assert (entry.source / SHARD).exists()


@pytest.mark.parametrize("what", ["home", "store"])
def test_what_could_not_be_listed_or_stored_is_not_even_read(
    what: str, folder: Path, home: Path, bento_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_file(dir: Path) -> None:  # as where a folder may not be written
        raise OSError(errno.EROFS, "Read-only file system")

    def hashed(*_: Any) -> None:
        raise AssertionError("gigabytes were read")

    monkeypatch.setattr("iris.store.bases.file_sha256s", hashed)
    if what == "home":
        monkeypatch.setattr("iris.store.bases.tempfile.TemporaryFile", no_file)
    else:
        bento.lock_path().mkdir()
    expected = {
        "home": (ConfigError, f"{home} cannot be written .Read-only file system.*IRIS_HOME"),
        "store": (StoreError, "iris-import.lock cannot be written .Is a directory.*BENTOML_HOME"),
    }
    error, says = expected[what]
    with pytest.raises(error, match=says):
        import_folder(folder, "mine", home, quiet)
    assert bento.versions_of("epithre-iris-mine") == ()


def test_what_a_killed_import_left_does_not_count_against_the_room(
    folder: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = bento.staging_home() / "iris-import-killed"
    left.mkdir()
    monkeypatch.setattr(
        "shutil.disk_usage", lambda _: Usage(10**12, 0, 0 if left.exists() else 10**12)
    )
    import_folder(folder, "mine", home, quiet)


@pytest.mark.parametrize("is_moved", [False, True])
def test_parts_that_are_links_to_folders_are_followed_and_stay(
    is_moved: bool, folder: Path, home: Path, tmp_path: Path
) -> None:
    whole = pipeline_files(folder)
    before = contents(folder)
    linked = tmp_path / "linked"
    linked.mkdir()
    for path in folder.iterdir():
        (linked / path.name).symlink_to(path)
    assert pipeline_files(linked) == whole
    entry = import_folder(linked, "mine", home, quiet, is_moved=is_moved)
    assert {file.path for file in whole} <= contents(entry.source).keys()
    assert contents(folder) == before
    assert (linked / "transformer").is_symlink() != is_moved


def test_a_folder_whose_name_is_no_models_says_how_to_name_it(folder: Path, home: Path) -> None:
    for name in ("my model", "e7b7dc27f91deacad38e78976d1f2b499d76a294"):
        renamed = folder.rename(folder.with_name(name))
        with pytest.raises(ConfigError, match=f"'{name}' is no name for a model.*--name NAME"):
            import_folder(renamed, None, home, quiet)
        folder = renamed


@pytest.mark.parametrize(
    "missing",
    [
        ("scheduler/scheduler_config.json",),
        ("text_encoder/config.json",),
        ("tokenizer/tokenizer_config.json",),
        ("transformer/config.json",),
        ("vae/config.json",),
        ("tokenizer/tokenizer.json", "tokenizer/merges.txt"),
        ("tokenizer/tokenizer.json", "tokenizer/vocab.json"),
        (SHARD,),
    ],
)
def test_a_folder_that_lacks_what_is_loaded_is_refused_by_name(
    missing: tuple[str, ...], folder: Path, home: Path
) -> None:
    for name in missing:
        (folder / name).unlink()
    with pytest.raises(StoreError, match=missing[0]) as refused:
        import_folder(folder, "mine", home, quiet)
    assert "etch or copy" in refused.value.message


@pytest.mark.parametrize(
    "present", [("tokenizer/tokenizer.json",), ("tokenizer/vocab.json", "tokenizer/merges.txt")]
)
def test_a_tokenizer_in_either_form_is_enough(present: tuple[str, ...], folder: Path) -> None:
    for name in {"tokenizer/tokenizer.json", "tokenizer/vocab.json", "tokenizer/merges.txt"}:
        if name not in present:
            (folder / name).unlink()
    assert {file.path for file in pipeline_files(folder)} > set(present)


@pytest.mark.parametrize("name", ["vae/config.json", "tokenizer/tokenizer.json", "iris.json"])
@pytest.mark.parametrize("content", [b"", b'{"of": ', b"[]", b"\xff", b"[" * 100_000])
def test_json_that_cannot_be_read_is_refused_by_name(
    name: str, content: bytes, folder: Path, home: Path
) -> None:
    (folder / name).write_bytes(content)
    with pytest.raises(StoreError, match=f"{name} cannot be read as JSON. Fetch or copy it again"):
        import_folder(folder, "mine", home, quiet)


@pytest.mark.parametrize(
    "content", ["{}", '{"weight_map": ["a"]}', '{"weight_map": {"a": "../b"}}']
)
def test_an_index_of_shards_that_are_not_there_is_refused(
    content: str, folder: Path, home: Path
) -> None:
    (folder / "text_encoder" / "model.safetensors.index.json").write_text(content)
    with pytest.raises(StoreError, match=r"model\.safetensors\.index\.json"):
        import_folder(folder, "mine", home, quiet)


def test_the_model_that_is_shipped_is_whole() -> None:
    assert len(pipeline_files(MINI)) > 10


def test_a_pull_that_is_broken_off_while_it_is_stored_fetches_nothing_again(
    folder: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    with serving(folder, MODEL.repository) as hub:
        with monkeypatch.context() as patch:
            patch.setattr("iris.store.bento.publish", breaking(0, KeyboardInterrupt(), quiet))
            with pytest.raises(KeyboardInterrupt):
                pull(MODEL, home, quiet, endpoint=hub.url)
        hub.fetched.clear()
        pull(MODEL, home, quiet, endpoint=hub.url)
        assert hub.fetched == []


def test_of_pulls_at_once_one_fetches_and_the_others_wait(
    folder: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    is_waiting = threading.Event()

    def second_says(line: str) -> None:
        if "waiting for another process that pulls klein-4b" in line:
            is_waiting.set()

    with serving(folder, MODEL.repository) as hub, ThreadPoolExecutor() as pool:

        def first_says(line: str) -> None:
            if line.startswith("pulling"):
                seconds.append(pool.submit(pull, MODEL, home, second_says, endpoint=hub.url))
                assert is_waiting.wait(60)

        seconds: list[Any] = []
        first = pull(MODEL, home, first_says, endpoint=hub.url)
        assert seconds[0].result() == first
        names = [name for name, _ in hub.fetched]
    assert len(names) == len(set(names)) > 10


def test_the_name_of_the_shipped_model_is_not_given_to_another(
    folder: Path,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("IRIS_HOME", str(home))
    assert main(["models", "import", str(folder), "--name", "iris-mini"]) == 2
    error = capsys.readouterr().err
    assert "'iris-mini' is the name of another model" in error
    assert "--name NAME" in error
    assert load_additions(home).models == ()


def test_the_name_of_a_published_model_is_not_given_to_another(folder: Path, home: Path) -> None:
    named_alike = folder.rename(folder.with_name("klein-4b"))
    with pytest.raises(ConfigError, match="'klein-4b' is the name of another model"):
        import_folder(named_alike, None, home, quiet)


def test_a_folder_that_cannot_be_looked_at_is_told(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IRIS_HOME", str(home))
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    whys = {
        "x" * 300: "File name too long",
        "loop": "Too many levels of symbolic links",
        "nothing": "No such file or directory",
    }
    for name, why in whys.items():
        for command in (["models", "import"], ["models", "hash"]):
            assert main([*command, str(tmp_path / name)]) == 2
            assert f"{name} is not a folder ({why})" in capsys.readouterr().err


def test_a_folder_that_may_not_be_read_is_told(
    folder: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def locked(self: Path) -> bool:
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    monkeypatch.setattr(Path, "is_file", locked)
    with pytest.raises(StoreError, match=r"cannot be read \(Permission denied\)"):
        pipeline_files(folder)


def test_a_folder_with_a_name_in_another_encoding_is_imported(folder: Path, home: Path) -> None:
    renamed = folder.rename(folder.with_name(os.fsdecode(b"caf\xe9")))
    entry = import_folder(renamed, "mine", home, quiet)
    assert entry.description.endswith("caf\N{REPLACEMENT CHARACTER}")
    assert load_additions(home).models == (entry,)


def test_a_file_with_a_name_in_another_encoding_is_refused(
    folder: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "vae" / os.fsdecode(b"caf\xe9.json")).write_text("{}")
    with pytest.raises(StoreError, match=r"'vae/caf\\udce9\.json' is not text in UTF-8"):
        import_folder(folder, "mine", home, quiet)
    for path in (p for p in folder.rglob("*") if p.suffix in (".png", ".bin", ".py")):
        path.unlink()
    assert main(["models", "hash", str(folder)]) == 2
    assert "is not text in UTF-8. Rename or remove it." in capsys.readouterr().err
