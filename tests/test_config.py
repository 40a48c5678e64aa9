from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from iris.config import Settings
from iris.errors import ConfigError

# every setting: a value that is not its default, as text and as it has to arrive
GIVEN: dict[str, tuple[str, object]] = {
    "home": ("/srv/iris", Path("/srv/iris")),
    "database_url": ("sqlite:////srv/other.db", "sqlite:////srv/other.db"),
    "registry": ("/srv/registry.toml", Path("/srv/registry.toml")),
    "deadline_s": ("12.5", 12.5),
    "max_waiting": ("7", 7),
    "max_running": ("3", 3),
    "cache_mb": ("64", 64),
    "engines": ("2", 2),
    "stall_s": ("5", 5.0),
    "device": ("cuda", "cuda"),
    "dtype": ("bfloat16", "bfloat16"),
    "compile": ("on", "on"),
    "model": ("klein-4b", "klein-4b"),
    "transformer": ("int8", "int8"),
    "text_encoder": ("offload", "offload"),
    "styles_mb": ("64", 64),
    "translator": ("my_module:to_english", "my_module:to_english"),
    "strict": ("on", "on"),
    "cpu_threads": ("2", 2),
    "decode_workers": ("4", 4),
    "decode_timeout_s": ("2.5", 2.5),
    "decode_memory_mb": ("512", 512),
    "body_timeout_s": ("9", 9.0),
    "key_rpm": ("600", 600),
    "key_rpd": ("700", 700),
    "key_in_flight": ("80", 80),
    "key_monthly_cap_idr": ("0", 0),
    "replay_mb": ("16", 16),
    "admin_token": ("t" * 32, "t" * 32),
    "admin_bind": ("127.0.0.1:9200", "127.0.0.1:9200"),
    "metrics_bind": ("0.0.0.0:9100", "0.0.0.0:9100"),
    "log_level": ("DEBUG", "DEBUG"),
}
NUMBERS = {
    "deadline_s": (1.0, 86_400.0),
    "max_waiting": (1, 64),
    "max_running": (1, 16),
    "styles_mb": (0, 65_536),
    "cpu_threads": (0, 1_024),
    "decode_workers": (1, 64),
    "decode_timeout_s": (0.1, 600.0),
    "decode_memory_mb": (256, 65_536),
    "body_timeout_s": (1.0, 3_600.0),
    "key_rpm": (1, 1_000_000),
    "key_rpd": (1, 1_000_000),
    "key_in_flight": (1, 1_000_000),
    "key_monthly_cap_idr": (0, 10**12),
    "replay_mb": (1, 65_536),
}
EDGES = [(name, edge) for name, edges in NUMBERS.items() for edge in edges]


def _refusal(key: str, value: str) -> str:
    with pytest.raises(ConfigError) as caught:
        Settings.from_env({key: value})
    message = caught.value.message
    assert key in message
    return message


def test_no_setting_is_forgotten_here() -> None:
    assert set(GIVEN) == {field.name for field in dataclasses.fields(Settings)}


@pytest.mark.parametrize("name", GIVEN)
def test_every_setting_is_read_from_its_own_variable_and_changes_no_other(name: str) -> None:
    text, value = GIVEN[name]
    default = dataclasses.asdict(Settings.from_env({}))
    changed = dataclasses.asdict(Settings.from_env({f"IRIS_{name.upper()}": text}))
    assert default[name] != value
    assert changed[name] == value
    assert type(changed[name]) is type(value) or isinstance(value, Path)
    moved = {key for key in default if default[key] != changed[key]}
    assert moved == ({"home", "database_url"} if name == "home" else {name})


def test_all_settings_can_be_given_at_once() -> None:
    settings = Settings.from_env(
        {f"IRIS_{name.upper()}": text for name, (text, _) in GIVEN.items()}
    )
    assert dataclasses.asdict(settings) == {name: value for name, (_, value) in GIVEN.items()}


def test_the_environment_of_the_process_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IRIS_MAX_RUNNING", "5")
    assert Settings.from_env().max_running == 5


def test_the_database_lives_in_the_home_unless_it_is_placed_elsewhere() -> None:
    assert Settings.from_env({"IRIS_HOME": "/srv"}).database_url == "sqlite:////srv/iris.db"


def test_paths_are_absolute_whatever_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/somebody")
    settings = Settings.from_env({"IRIS_HOME": "data", "IRIS_REGISTRY": "~/registry.toml"})
    assert settings.home == tmp_path / "data"
    assert settings.registry == Path("/home/somebody/registry.toml")


def test_the_default_registry_is_the_one_of_this_checkout() -> None:
    root = Path(__file__).resolve().parent.parent
    assert Settings.from_env({}).registry == root / "models" / "registry.toml"


@pytest.mark.parametrize("key", ["IRIS_MAX_RUNING", "IRIS_", "IRIS_device", "IRIS_FROM_ENV"])
def test_an_unknown_variable_is_refused_with_the_known_ones(key: str) -> None:
    message = _refusal(key, "1")
    assert all(f"IRIS_{name.upper()}" in message for name in GIVEN)


def test_variables_of_others_are_left_alone() -> None:
    others = {"PATH": "/bin", "MY_IRIS_HOME": "/x", "iris_home": "/x", "BENTOML_HOME": "/y"}
    assert Settings.from_env(others) == Settings.from_env({})


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("text", ["", "many", "0x10", "1,5", "--1", "nan"])
def test_what_is_no_number_is_refused_with_key_and_value(name: str, text: str) -> None:
    assert repr(text) in _refusal(f"IRIS_{name.upper()}", text)


@pytest.mark.parametrize("name", [name for name, edges in NUMBERS.items() if type(edges[0]) is int])
def test_a_fraction_is_no_whole_number(name: str) -> None:
    assert "'2.0'" in _refusal(f"IRIS_{name.upper()}", "2.0")


@pytest.mark.parametrize("text", ["inf", "-inf", "1e999"])
def test_infinity_is_refused(text: str) -> None:
    assert text in _refusal("IRIS_DEADLINE_S", text)


@pytest.mark.parametrize(("name", "edge"), EDGES)
def test_the_edge_of_a_range_is_allowed_and_one_step_beyond_is_not(name: str, edge: float) -> None:
    key = f"IRIS_{name.upper()}"
    assert getattr(Settings.from_env({key: str(edge)}), name) == edge
    low, high = NUMBERS[name]
    step = 1 if type(low) is int else 0.01
    beyond = edge - step if edge == low else edge + step
    message = _refusal(key, str(beyond))
    assert f"={beyond}" in message
    assert f"between {low} and {high}" in message


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("device", ("auto", "cpu", "cuda")),
        ("dtype", ("auto", "float32", "bfloat16")),
        ("compile", ("auto", "on", "off")),
        ("strict", ("on", "off")),
        ("log_level", ("DEBUG", "INFO", "WARNING", "ERROR")),
    ],
)
def test_a_choice_takes_exactly_its_words(name: str, allowed: tuple[str, ...]) -> None:
    key = f"IRIS_{name.upper()}"
    for word in allowed:
        assert getattr(Settings.from_env({key: word}), name) == word
    for other in ("", "float16", allowed[0].swapcase(), f" {allowed[0]}"):
        message = _refusal(key, other)
        assert repr(other) in message
        assert all(word in message for word in allowed)


@pytest.mark.parametrize("text", ["3001", ":3001", "host:", "host:0", "host:65536", "host:x", " "])
def test_a_metrics_address_that_is_none_is_refused(text: str) -> None:
    assert repr(text) in _refusal("IRIS_METRICS_BIND", text)


@pytest.mark.parametrize("text", ["", "127.0.0.1:1", "[::1]:65535", "metrics.internal:9100"])
def test_a_metrics_address_may_be_any_host_and_port_or_none(text: str) -> None:
    assert Settings.from_env({"IRIS_METRICS_BIND": text}).metrics_bind == text


def test_settings_cannot_be_changed_after_the_start() -> None:
    settings = Settings.from_env({})
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.max_running = 9  # type: ignore[misc]


@pytest.mark.parametrize(
    "bind", ["", "3002", "localhost:", ":1", "localhost:0", "x:99999", "Public"]
)
def test_an_admin_address_that_is_none_is_refused(bind: str) -> None:
    assert "HOST:PORT" in _refusal("IRIS_ADMIN_BIND", bind)


@pytest.mark.parametrize("token", ["short", "x" * 31, "é" * 32, "x" * 31 + "\n"])
def test_an_admin_token_that_could_be_guessed_or_sent_by_nobody_is_refused_unseen(
    token: str,
) -> None:
    with pytest.raises(ConfigError, match="IRIS_ADMIN_TOKEN") as caught:
        Settings.from_env({"IRIS_ADMIN_TOKEN": token})
    assert token not in caught.value.message


def test_settings_can_be_shown_without_the_admin_token() -> None:
    assert "x" * 32 not in repr(Settings.from_env({"IRIS_ADMIN_TOKEN": "x" * 32}))
