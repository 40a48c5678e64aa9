from __future__ import annotations

import asyncio
import multiprocessing
import os
import stat
from pathlib import Path

import pytest

from iris.accounts.db import Database
from iris.accounts.first_key import ensure_first_key
from iris.accounts.keys import KeyRing, create_key, list_keys, revoke_key
from iris.errors import ConfigError


def test_the_first_start_makes_one_test_key_that_works(database: Database, tmp_path: Path) -> None:
    path, secret = ensure_first_key(database, tmp_path / "home")
    assert secret is not None
    assert path == tmp_path / "home" / "first-key"
    assert path.read_text() == secret + "\n"
    key = asyncio.run(KeyRing(database).authenticate(secret))
    assert key.is_test
    assert [record.key for record in list_keys(database)] == [key]


def test_the_file_and_a_new_folder_are_readable_by_their_owner_alone(
    database: Database, tmp_path: Path
) -> None:
    before = os.umask(0)
    try:
        path, _ = ensure_first_key(database, tmp_path / "new" / "home")
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [file.name for file in path.parent.iterdir()] == ["first-key"]


def test_a_second_start_makes_nothing(database: Database, tmp_path: Path) -> None:
    path, secret = ensure_first_key(database, tmp_path)
    assert ensure_first_key(database, tmp_path) == (path, None)
    assert path.read_text() == f"{secret}\n"
    assert len(list_keys(database)) == 1


def test_a_database_that_ever_held_a_key_gets_none_even_if_it_was_revoked(
    database: Database, tmp_path: Path
) -> None:
    key, _ = create_key(database, "mine", is_test=False)
    revoke_key(database, key.id)
    path, secret = ensure_first_key(database, tmp_path)
    assert secret is None
    assert not path.exists()


def test_the_file_of_a_deleted_database_is_replaced_with_a_key_that_works(
    database: Database, tmp_path: Path
) -> None:
    stale = tmp_path / "first-key"
    stale.write_text("esk_test_stale\n")
    stale.chmod(0o644)
    path, secret = ensure_first_key(database, tmp_path)
    assert path == stale
    assert stale.read_text() == f"{secret}\n"
    assert stat.S_IMODE(stale.stat().st_mode) == 0o600


def test_a_link_in_the_place_of_the_file_is_replaced_and_not_followed(
    database: Database, tmp_path: Path
) -> None:
    target = tmp_path / "target"
    target.write_text("precious")
    (tmp_path / "first-key").symlink_to(target)
    path, _ = ensure_first_key(database, tmp_path)
    assert target.read_text() == "precious"
    assert not path.is_symlink()


def test_a_file_that_cannot_be_written_leaves_no_key_behind(
    database: Database, tmp_path: Path
) -> None:
    (tmp_path / "home2").write_text("a file, not a folder")
    with pytest.raises(ConfigError, match="IRIS_HOME"):
        ensure_first_key(database, tmp_path / "home2")
    assert list_keys(database) == ()


def _start(url: str, home: Path, barrier: object, results: object) -> None:
    barrier.wait()  # type: ignore[attr-defined]
    database = Database(url)
    results.put(ensure_first_key(database, home)[1])  # type: ignore[attr-defined]
    database.close()


def test_processes_that_start_together_make_exactly_one_key(url: str, tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(6), context.Queue()
    processes = [
        context.Process(target=_start, args=(url, tmp_path / "home", barrier, results))
        for _ in range(6)
    ]
    for process in processes:
        process.start()
    outcomes = [results.get(timeout=30) for _ in processes]
    for process in processes:
        process.join()
    secrets = [outcome for outcome in outcomes if outcome is not None]
    assert len(secrets) == 1
    assert (tmp_path / "home" / "first-key").read_text() == f"{secrets[0]}\n"
    database = Database(url)
    assert len(list_keys(database)) == 1
    database.close()
