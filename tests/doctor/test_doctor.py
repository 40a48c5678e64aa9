"""What is told of a machine, and that nothing is changed by looking."""

from __future__ import annotations

import json
import shutil
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from iris.accounts.db import Database
from iris.accounts.state import state_of
from iris.cli import main
from iris.config import DEFAULT_REGISTRY, Settings
from iris.doctor.finding import Finding
from iris.doctor.machine import look_at_machine
from iris.doctor.models import look_at_models
from iris.doctor.surroundings import look_around
from iris.doctor.torch_facts import Gpu, TorchFacts, read_facts
from iris.errors import ConfigError, StoreError
from iris.store.registry import Registry, load_registry
from tests.test_fit import KLEIN

GIB = 1 << 30
CPU = TorchFacts("2.13.0", None, "cpu", "float32", 5e10, ())


def with_gpu(free_gib: float, capability: tuple[int, int] = (8, 9)) -> TorchFacts:
    gpu = Gpu("NVIDIA X", capability, int(free_gib * GIB), 24 * GIB)
    return TorchFacts("2.13.0", "13.0", "cuda", "bfloat16", 1e14, (gpu,))


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path / "bentoml"))
    return Settings.from_env({"IRIS_HOME": str(tmp_path / "home"), "IRIS_METRICS_BIND": ""})


def test_a_machine_without_a_gpu_paints_on_its_processor(settings: Settings) -> None:
    found = list(look_at_machine(settings, CPU))
    assert {finding.level for finding in found} <= {"ok", "note"}


def test_a_gpu_that_was_asked_for_and_is_not_there_stops(tmp_path: Path) -> None:
    env = {"IRIS_HOME": str(tmp_path), "IRIS_DEVICE": "cuda"}
    found = list(look_at_machine(Settings.from_env(env), CPU))
    assert [finding.subject for finding in found if finding.level == "stop"] == ["GPU"]


def test_a_torch_that_cannot_be_used_stops(settings: Settings) -> None:
    last = list(look_at_machine(settings, "torch cannot be used: no module"))[-1]
    assert (last.level, last.subject) == ("stop", "torch")


@pytest.mark.parametrize(("free_gib", "level"), [(20, "ok"), (0.5, "stop")])
def test_the_model_is_held_against_the_gpus_memory(
    free_gib: float, level: str, settings: Settings
) -> None:
    found = [f for f in look_at_models(settings, with_gpu(free_gib)) if f.subject == "iris-mini"]
    assert [finding.level for finding in found] == [level]
    assert "GiB" in found[0].found


@pytest.fixture
def klein(monkeypatch: pytest.MonkeyPatch) -> None:
    """The served model has the parameters of klein-4B; the machine has 24 GiB of memory."""
    monkeypatch.setattr("iris.doctor.models.model_size", lambda folder: KLEIN)
    monkeypatch.setattr("iris.doctor.models.host_memory_bytes", lambda: 24 * GIB)


def memory_of(settings: Settings, torch: TorchFacts, **changed: object) -> list[Finding]:
    changed_settings = replace(settings, **changed)  # type: ignore[arg-type]
    return [f for f in look_at_models(changed_settings, torch) if f.subject == "iris-mini"]


def test_weights_that_a_processor_has_no_memory_for_stop(settings: Settings, klein: None) -> None:
    (found,) = memory_of(settings, CPU)
    assert found.level == "stop"
    assert "26.3 GiB of memory in float32, and 24.0 GiB are there" in found.found
    assert "IRIS_DTYPE=bfloat16" in found.advice
    assert [f.level for f in memory_of(settings, CPU, dtype="bfloat16")] == ["ok"]


def test_a_small_model_is_at_home_on_a_small_machine(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("iris.doctor.models.host_memory_bytes", lambda: GIB // 2)
    assert [f.level for f in memory_of(settings, CPU, engines=4)] == ["ok"]


@pytest.mark.parametrize("torch", [CPU, with_gpu(20, (8, 6))])
def test_float8_without_its_units_stops_with_what_to_set(
    torch: TorchFacts, settings: Settings
) -> None:
    (found,) = memory_of(settings, torch, transformer="fp8")
    assert found.level == "stop"
    assert "float8 units" in found.found
    assert "set IRIS_TRANSFORMER=int8" in found.advice
    assert [f.level for f in memory_of(settings, torch, transformer="int8")] == ["ok"]


def test_float8_is_taken_where_the_gpu_has_its_units(settings: Settings, klein: None) -> None:
    (found,) = memory_of(settings, with_gpu(11), transformer="fp8", text_encoder="int8")
    assert found.level == "ok"


def test_the_dtype_that_is_set_is_the_one_that_is_counted(settings: Settings, klein: None) -> None:
    gpu = with_gpu(24)
    assert [f.level for f in memory_of(settings, gpu)] == ["ok"]
    (found,) = memory_of(settings, gpu, dtype="float32")
    assert found.level == "stop"
    assert "needs about 29.3 GiB" in found.found
    assert "IRIS_TRANSFORMER=whole IRIS_TEXT_ENCODER=whole" not in found.advice


def test_engines_that_share_a_gpu_are_all_counted(settings: Settings, klein: None) -> None:
    (found,) = memory_of(settings, with_gpu(24), engines=2)
    assert found.level == "stop"
    assert "24.0 GiB free for 2 engines" in found.found
    assert "fewer engines (IRIS_ENGINES)" in found.advice


def test_a_gpu_that_no_engine_takes_stops_nothing(settings: Settings, klein: None) -> None:
    large, full = with_gpu(20), with_gpu(1)
    both = replace(large, gpus=large.gpus + full.gpus)
    assert [f.level for f in memory_of(settings, both, engines=1)] == ["ok"]
    assert [f.level for f in memory_of(settings, both)] == ["ok", "stop"]


def test_what_offload_keeps_in_host_memory_is_held_against_it(
    settings: Settings, klein: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    ways = {"transformer": "offload", "text_encoder": "offload"}
    assert [f.level for f in memory_of(settings, with_gpu(24), **ways)] == ["ok"]
    monkeypatch.setattr("iris.doctor.models.host_memory_bytes", lambda: 8 * GIB)
    told, note = memory_of(settings, with_gpu(24), **ways)
    assert (told.level, note.level) == ("ok", "note")
    assert "keeps 12.7 GiB of weights in host memory" in note.found
    assert [f.level for f in memory_of(settings, with_gpu(24))] == ["ok"]


def test_the_memory_told_is_what_a_container_may_have(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("iris.doctor.machine.host_memory_bytes", lambda: 3 * GIB)
    found = {f.subject: f for f in look_at_machine(settings, CPU)}
    assert found["processor"].found.endswith("3.0 GiB of memory")


def test_speed_is_told_from_what_was_measured(settings: Settings) -> None:
    slow, fast = (
        next(f for f in look_at_models(settings, facts) if f.subject == "speed").found
        for facts in (CPU, with_gpu(20))
    )
    assert "at least" in slow
    assert slow != fast


def test_an_address_that_is_taken_is_told(settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        found = {f.subject: f for f in look_around(settings, f"127.0.0.1:{port}")}
    assert found["port"].level == "note"
    assert "(Address already in use)" in found["port"].found


@pytest.mark.parametrize("port", ["abc", "0", "99999", "-1", "\N{ARABIC-INDIC DIGIT THREE}"])
def test_a_port_that_is_none_is_told(port: str, settings: Settings) -> None:
    found = {f.subject: f for f in look_around(settings, f"127.0.0.1:{port}")}
    assert found["port"].level == "stop"
    assert "PORT" in found["port"].advice


def test_a_port_that_is_none_ends_the_command_with_one(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("iris.doctor.torch_facts.ask_torch", lambda device: CPU)
    monkeypatch.setenv("IRIS_HOME", str(settings.home))
    monkeypatch.setenv("PORT", "abc")
    assert main(["doctor"]) == 1
    assert "[STOP] port: 127.0.0.1:abc is no address" in capsys.readouterr().out


def test_a_host_that_nobody_knows_is_told_as_such(settings: Settings) -> None:
    found = {f.subject: f for f in look_around(settings, "a..b:3001")}
    assert found["port"].found == "a..b:3001 cannot be had (Name or service not known)"


def test_a_home_that_may_not_be_read_is_told(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def locked(url: str) -> str:
        raise PermissionError(13, "Permission denied", "/elsewhere/iris.db")

    monkeypatch.setattr("iris.doctor.surroundings.state_of", locked)
    monkeypatch.setattr(Path, "exists", locked)
    found = {f.subject: f for f in look_around(settings, "127.0.0.1:0")}
    assert found["database"].level == "stop"
    assert found["database"].found == "/elsewhere/iris.db cannot be read (Permission denied)"


def test_a_store_that_cannot_be_made_is_told(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none() -> Path:
        raise StoreError("The Bento model store cannot be made.")

    monkeypatch.setattr("iris.store.bento.store_path", none)
    found = [*look_at_models(settings, CPU), *look_around(settings, "127.0.0.1:0")]
    stops = {finding.subject for finding in found if finding.level == "stop"}
    assert {"iris-mini", "model store"} < stops


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("vae/config.json", None, "has no vae/config.json"),
        ("vae/config.json", "{", "vae/config.json cannot be read"),
        ("vae/config.json", "{}", "lacks what is needed"),
        ("iris.json", '{"max_sequence_length": "many"}', "lacks what is needed"),
        ("tokenizer/tokenizer.json", None, "has neither tokenizer/tokenizer.json nor"),
    ],
)
def test_a_model_without_what_is_read_of_it_stops(
    name: str,
    content: str | None,
    says: str,
    settings: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    base = load_registry(DEFAULT_REGISTRY).base
    source = shutil.copytree(base.source, tmp_path / "weights")
    (source / name).unlink()
    if content is not None:
        (source / name).write_text(content)
    broken = Registry(Path("r"), replace(base, tag="broken:1", source=source), ())
    monkeypatch.setattr("iris.doctor.models.served_registry", lambda settings: broken)
    found = list(look_at_models(settings, CPU))
    assert found[-1].level == "stop"
    assert says in found[-1].found


def test_looking_makes_no_database(settings: Settings) -> None:
    found = {f.subject: f for f in look_around(settings, "127.0.0.1:0")}
    assert "is made at the first start" in found["database"].found
    assert not settings.home.exists()


def test_a_database_is_told_by_its_state(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'iris.db'}"
    Database(url).close()
    assert state_of(url).endswith("up to date")
    (tmp_path / "other.db").write_bytes(b"no database at all, but long enough to be one" * 30)
    with pytest.raises(ConfigError, match="cannot be used"):
        state_of(f"sqlite:///{tmp_path / 'other.db'}")
    with pytest.raises(ConfigError) as refused:
        state_of("postgresql://iris:secret@127.0.0.1:9/iris")
    assert "secret" not in refused.value.message


def test_the_facts_of_torch_are_read() -> None:
    found = read_facts(
        {
            "version": "2.13.0",
            "cuda": "13.0",
            "device": "cuda",
            "dtype": "bfloat16",
            "flops": 1.0,
            "gpus": [{"name": "X", "capability": [9, 0], "free": 1, "total": 2}],
        }
    )
    assert found.gpus[0].has_fp8
    assert not Gpu("Y", (8, 6), 1, 2).has_fp8


def test_the_command_ends_with_one_where_something_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for key, value in {"IRIS_HOME": str(tmp_path), "IRIS_METRICS_BIND": ""}.items():
        monkeypatch.setenv(key, value)
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path / "bentoml"))
    monkeypatch.setattr("iris.doctor.torch_facts.ask_torch", lambda device: CPU)
    assert main(["doctor"]) == 0
    assert "[ ok ] torch: 2.13.0" in capsys.readouterr().out
    monkeypatch.setenv("IRIS_MODEL", "klein-4b")
    assert main(["doctor", "--json"]) == 1
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    (stop,) = [line for line in lines if line["level"] == "stop"]
    assert "IRIS_MODEL" in stop["found"]
