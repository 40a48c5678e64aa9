from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from iris import __version__
from iris.accounts.db import Database
from iris.accounts.keys import KeyRing
from iris.cli import main
from iris.errors import Unauthenticated
from iris.store.digest import folder_sha256
from tests.store.klein_folder import write_klein

Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for key in [key for key in os.environ if key.startswith("IRIS_")]:
        monkeypatch.delenv(key)
    monkeypatch.setenv("IRIS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path / "bentoml"))
    monkeypatch.setenv("BENTOML_DO_NOT_TRACK", "True")
    return tmp_path / "home"


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "weights"
    (folder / "transformer").mkdir(parents=True)
    save_file({"a.weight": np.ones((2, 2), np.float32)}, folder / "transformer" / "w.safetensors")
    path = tmp_path / "registry.toml"
    path.write_text(
        '[base]\nname = "tiny"\ntag = "tiny-base:1.0.0"\nsource = "weights"\n'
        f'sha256 = "{folder_sha256(folder)}"\ndescription = "a model"\n'
    )
    monkeypatch.setenv("IRIS_REGISTRY", str(path))
    return path


def _authenticate(home: Path, secret: str) -> object:
    database = Database(f"sqlite:///{home / 'iris.db'}")
    try:
        return asyncio.run(KeyRing(database).authenticate(secret))
    finally:
        database.close()


def _iris(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, as a shell would start it."""
    return subprocess.run(
        [sys.executable, "-m", "iris.cli", *arguments], capture_output=True, text=True, timeout=60
    )


@pytest.mark.parametrize(
    ("options", "kind"), [([], "test"), (["--test"], "test"), (["--live"], "live")]
)
def test_a_created_key_is_shown_once_and_works(
    home: Path, capsys: Captured, options: list[str], kind: str
) -> None:
    assert main(["keys", "create", "--name", "shop", *options]) == 0
    first, secret = capsys.readouterr().out.splitlines()
    assert re.fullmatch(rf"{kind} key key_[0-9a-f]{{16}} \(shop\)", first)
    assert secret.startswith(f"esk_{kind}_")
    assert _authenticate(home, secret)
    assert main(["keys", "list"]) == 0
    assert secret not in capsys.readouterr().out


def test_json_output_is_one_object_with_the_secret(home: Path, capsys: Captured) -> None:
    assert main(["keys", "create", "--name", "shop", "--live", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert set(made) == {"id", "name", "is_test", "account_id", "secret"}
    assert made["is_test"] is False
    assert _authenticate(home, made["secret"])


def test_the_list_is_a_table_and_json_lines(capsys: Captured) -> None:
    for name in ("first", "a much longer name"):
        main(["keys", "create", "--name", name])
    capsys.readouterr()
    assert main(["keys", "list"]) == 0
    table = capsys.readouterr().out.splitlines()
    head = "ID NAME KIND KEY ACCOUNT RPM RPD IN FLIGHT CAP CREATED REVOKED"
    assert table[0].split() == head.split()
    assert len(table) == 3
    assert len({line.index("test") for line in table[1:]}) == 1
    assert main(["keys", "list", "--json"]) == 0
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {record["name"] for record in records} == {"first", "a much longer name"}
    assert all(record["revoked_at"] is None for record in records)


def test_a_revoked_key_stops_working(home: Path, capsys: Captured) -> None:
    main(["keys", "create", "--name", "shop", "--json"])
    made = json.loads(capsys.readouterr().out)
    assert main(["keys", "revoke", made["id"]]) == 0
    assert main(["keys", "revoke", made["id"]]) == 0
    assert made["id"] in capsys.readouterr().out
    with pytest.raises(Unauthenticated):
        _authenticate(home, made["secret"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["keys", "revoke", "key_0000000000000000"], "key_0000000000000000"),
        (["keys", "create", "--name", ""], "name of a key"),
        (["models", "hash", "/nowhere/at/all"], "/nowhere/at/all"),
    ],
)
def test_an_error_is_one_line_and_exit_status_two(
    capsys: Captured, arguments: list[str], said: str
) -> None:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("iris: ")
    assert captured.err.count("\n") == 1
    assert said in captured.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["accounts", "topup", "caf\udce9", "1000"],
        ["accounts", "topup", "shop", "1000", "--reference=caf\udce9"],
        ["keys", "revoke", "caf\udce9"],
        ["ledger", "refund", "caf\udce9"],
        ["usage", "caf\udce9"],
    ],
)
def test_bytes_that_are_no_text_are_refused_in_one_line(
    home: Path, capsys: Captured, arguments: list[str]
) -> None:
    """As Python gives the bytes of another encoding than UTF-8."""
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("iris: The argument ")
    assert captured.err.endswith("caf\\udce9' is not text in UTF-8.\n")
    assert captured.err.count("\n") == 1
    assert not home.exists()


def test_the_words_of_a_shell_are_looked_at_too() -> None:
    done = _iris("keys", "revoke", "caf\udce9")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "iris: The argument 'caf\\udce9' is not text in UTF-8.\n"


def test_a_bad_setting_is_an_error_of_every_command_that_reads_settings(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IRIS_MAX_RUNNING", "many")
    for arguments in (["keys", "list"], ["models", "list"], ["config"]):
        assert main(arguments) == 2
        assert "IRIS_MAX_RUNNING='many'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["keys"],
        ["keys", "create"],
        ["keys", "create", "--name", "a", "--test", "--live"],
        ["models", "burn"],
        ["keys", "list", "--all"],
    ],
)
def test_a_command_that_does_not_exist_is_refused_with_the_usage(
    capsys: Captured, arguments: list[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage: iris" in capsys.readouterr().err


def test_the_version_is_the_one_of_the_package(capsys: Captured) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"epithre-iris {__version__}\n"


def test_config_shows_every_setting_in_effect(
    home: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IRIS_MAX_RUNNING", "3")
    assert main(["config"]) == 0
    shown = dict(line.split("=", 1) for line in capsys.readouterr().out.splitlines())
    assert shown["IRIS_MAX_RUNNING"] == "3"
    assert shown["IRIS_HOME"] == str(home)
    assert shown["IRIS_DATABASE_URL"] == f"sqlite:///{home / 'iris.db'}"
    assert shown["IRIS_DEADLINE_S"] == "300.0"


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://iris:hunter2@db/iris",
        "postgresql://db/iris?password=hunter2",
        "postgresql://iris:hunter2@",
        "iris:hunter2@db",
    ],
)
def test_config_never_shows_a_password(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("IRIS_DATABASE_URL", url)
    assert main(["config"]) == 0
    captured = capsys.readouterr()
    assert "IRIS_DATABASE_URL=" in captured.out
    assert "hunter2" not in captured.out + captured.err


def test_models_are_imported_listed_and_verified(registry: Path, tmp_path: Path) -> None:
    before = _iris("models", "list")
    assert (before.returncode, "missing" in before.stdout) == (0, True)
    assert _iris("models", "verify").returncode == 2
    imported = _iris("models", "import")
    assert imported.returncode == 0, imported.stderr
    assert "1 imported" in imported.stdout
    assert "tiny-base:1.0.0" in imported.stderr
    listed = _iris("models", "list").stdout
    assert re.search(r"base +tiny +tiny-base:1\.0\.0 +stored", listed)
    assert _iris("models", "verify").returncode == 0
    (tmp_path / "bentoml/models/tiny-base/1.0.0/transformer/w.safetensors").unlink()
    damaged = _iris("models", "verify")
    assert damaged.returncode == 2
    assert damaged.stderr.splitlines()[-1].startswith("iris: tiny-base:1.0.0")


def test_what_was_added_and_is_not_served_is_verified_too(registry: Path, tmp_path: Path) -> None:
    folder = write_klein(tmp_path / "klein")
    assert _iris("models", "import").returncode == 0
    assert _iris("models", "import", str(folder), "--name", "mine").returncode == 0
    done = _iris("models", "verify")
    assert done.returncode == 0
    assert "1 models are what" in done.stdout
    assert "1 more, stored and not served now" in done.stdout
    (weights,) = tmp_path.glob("bentoml/models/epithre-iris-mine/*/transformer/*.safetensors")
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    damaged = _iris("models", "verify")
    assert damaged.returncode == 2
    assert "iris: epithre-iris-mine:" in damaged.stderr
    assert "iris models import DIR --name mine" in damaged.stderr
    shutil.rmtree(weights.parents[1])  # what nobody serves need not be stored
    assert _iris("models", "verify").returncode == 0


def test_the_hash_is_the_one_the_registry_wants(
    registry: Path, tmp_path: Path, capsys: Captured
) -> None:
    assert main(["models", "hash", str(tmp_path / "weights")]) == 0
    assert capsys.readouterr().out.strip() in registry.read_text()


@pytest.mark.parametrize(
    "arguments",
    [["keys", "list"], ["keys", "create", "--name", "a"], ["config"], ["models", "hash", "."]],
)
def test_a_light_command_loads_no_model_library(arguments: list[str], tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a")
    script = (
        "import sys; from iris.cli import main; status = main(sys.argv[1:]);"
        "heavy = {'torch', 'bentoml', 'diffusers', 'transformers', 'peft'} & set(sys.modules);"
        "sys.exit(f'loaded {heavy}' if heavy else status)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tmp_path,
    )
    assert (done.returncode, done.stderr.replace("\n", "")) in {
        (0, ""),
        (0, "Keep it now: it is stored nowhere and cannot be shown again."),
    }


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_stops_early_causes_no_traceback(
    monkeypatch: pytest.MonkeyPatch, unbuffered: str
) -> None:
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    for n in range(3):
        assert main(["keys", "create", "--name", f"key {n}"]) == 0
    process = subprocess.Popen(
        [sys.executable, "-m", "iris.cli", "keys", "list"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    process.stdout.close()
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "")


def test_config_never_shows_the_admin_token(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IRIS_ADMIN_TOKEN", "correct-horse-battery-staple-" + "x" * 8)
    assert main(["config"]) == 0
    shown = capsys.readouterr().out
    assert "IRIS_ADMIN_TOKEN=***" in shown
    assert "correct-horse" not in shown


def test_who_stops_a_command_reads_no_traceback(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("iris.cli._config", stopped)
    assert main(["config"]) == 130
    assert capsys.readouterr().err == "iris: stopped. Run it again to go on.\n"


def test_a_file_that_nobody_expected_to_fail_is_named(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_: object) -> None:
        raise PermissionError(13, "Permission denied", "/some/file")

    monkeypatch.setattr("iris.cli._config", fails)
    assert main(["config"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("iris: /some/file: Permission denied.")
