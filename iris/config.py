"""Settings: read once from IRIS_* variables, frozen; a bad value stops the start by name."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from iris.errors import ConfigError
from iris.fit import TEXT_ENCODER, TRANSFORMER, Fit


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Every setting of the service. `from_env` is the only place that reads the environment.

    Durations are seconds, sizes bytes unless the name says otherwise.
    """

    home: Path  # database and first key
    database_url: str  # SQLAlchemy URL
    registry: Path  # which model versions are served
    model: str = ""  # which base is served, by name; "" = the registry's
    deadline_s: float = 300.0  # a picture that takes longer is a 504
    stall_s: float = 60.0  # a step, encoding or decoding that takes longer: the device hangs
    max_waiting: int = 64  # pictures admitted but not begun
    max_running: int = 8  # pictures that share one pass
    cache_mb: int = 256  # of the device's memory, for prompts and images encoded before
    engines: int = 0  # each with a copy of the weights; 0 = one for each GPU, one on a CPU
    device: str = "auto"  # auto | cpu | cuda
    dtype: str = "auto"  # auto | float32 | bfloat16
    compile: str = "auto"  # auto | on | off; auto = on CUDA alone
    strict: str = "off"  # on | off; on = a seed's picture is the same to the byte on CUDA too
    transformer: str = "whole"  # whole | fp8 | int8 | offload: see docs/models.md
    text_encoder: str = "whole"  # whole | int8 | offload | cpu
    styles_mb: int = 1024  # of the device's memory, for styles lately asked for
    translator: str = ""  # MODULE:NAME of what prompts go through before the engine; "" = nothing
    cpu_threads: int = 0  # torch threads of each engine; 0 = the usable cores, shared out
    decode_workers: int = 2  # processes that decode untrusted images
    decode_timeout_s: float = 10.0  # wall clock of one image
    decode_memory_mb: int = 1536  # address space of one decode process
    body_timeout_s: float = 60.0  # a body that takes longer to arrive is refused
    key_rpm: int = 60  # limits of a new key: admitted in any 60 seconds
    key_rpd: int = 10_000  # admitted in a UTC day
    key_in_flight: int = 10  # in the making at once
    key_monthly_cap_idr: int = 1_000_000  # spent in a UTC month; 0 = no cap
    replay_mb: int = 256  # of replies kept for a day for their Idempotency-Key
    admin_token: str = field(default="", repr=False)  # opens /admin/v1; "" = there is none
    admin_bind: str = "127.0.0.1:3002"  # its listener; "public" = on the public port as well
    metrics_bind: str = "127.0.0.1:3001"  # Prometheus listener, never the public port; "" = none
    log_level: str = "INFO"

    @property
    def fit(self) -> Fit:
        return Fit(self.transformer, self.text_encoder)

    @classmethod
    def from_env(cls, env: Mapping[str, str] | None = None) -> Settings:
        """Read IRIS_<FIELD> for every field.

        Raises:
            ConfigError: an unknown IRIS_* variable or a value out of range, with key and value.
        """
        env = os.environ if env is None else env
        given = {key: value for key, value in env.items() if key.startswith("IRIS_")}
        fields = {f"IRIS_{f.name.upper()}": f for f in dataclasses.fields(cls)}
        unknown = sorted(set(given) - set(fields))
        if unknown:
            raise ConfigError(f"{unknown[0]} is not a setting. Known: {', '.join(sorted(fields))}.")
        home = Path(given.get("IRIS_HOME") or "~/.epithre-iris").expanduser().absolute()
        values: dict[str, object] = {
            "home": home,
            "database_url": given.get("IRIS_DATABASE_URL") or f"sqlite:///{home / 'iris.db'}",
            "registry": _path(given.get("IRIS_REGISTRY") or DEFAULT_REGISTRY),
        }
        for key, setting in fields.items():
            if setting.name not in values and key in given:
                values[setting.name] = _parse(key, given[key], type(setting.default))
        settings = cls(**values)  # type: ignore[arg-type]
        settings._check()
        return settings

    def _check(self) -> None:
        for name, low, high in _RANGES:
            value = getattr(self, name)
            if not low <= value <= high:
                raise ConfigError(f"IRIS_{name.upper()}={value} must be between {low} and {high}.")
        for name, allowed in _CHOICES:
            value = getattr(self, name)
            if value not in allowed:
                raise ConfigError(
                    f"IRIS_{name.upper()}={value!r} must be one of {', '.join(allowed)}."
                )
        if self.metrics_bind and not _is_address(self.metrics_bind):
            raise ConfigError(
                f"IRIS_METRICS_BIND={self.metrics_bind!r} must be HOST:PORT, or empty for none."
            )
        if self.admin_bind != PUBLIC and not _is_address(self.admin_bind):
            raise ConfigError(
                f"IRIS_ADMIN_BIND={self.admin_bind!r} must be HOST:PORT, or `{PUBLIC}`."
            )
        token = self.admin_token  # never shown
        if token and not (
            len(token) >= MIN_TOKEN_CHARACTERS and token.isascii() and token.isprintable()
        ):
            raise ConfigError(
                f"IRIS_ADMIN_TOKEN must be at least {MIN_TOKEN_CHARACTERS} printable ASCII "
                "characters, such as `openssl rand -hex 32` makes."
            )


PUBLIC = "public"
MIN_TOKEN_CHARACTERS = 32
DEFAULT_REGISTRY = Path(__file__).resolve().parent.parent / "models" / "registry.toml"
# Every admitted picture holds one of the 100 connections that BentoML keeps between the two
# processes, and admitting and cancelling need some as well.
_RANGES: tuple[tuple[str, float, float], ...] = (
    ("deadline_s", 1.0, 86_400.0),
    ("stall_s", 1.0, 3_600.0),
    ("max_waiting", 1, 64),
    ("max_running", 1, 16),
    ("styles_mb", 0, 65_536),
    ("cache_mb", 0, 65_536),
    ("engines", 0, 16),
    ("cpu_threads", 0, 1_024),
    ("decode_workers", 1, 64),
    ("decode_timeout_s", 0.1, 600.0),
    ("decode_memory_mb", 256, 65_536),
    ("body_timeout_s", 1.0, 3_600.0),
    ("key_rpm", 1, 1_000_000),
    ("key_rpd", 1, 1_000_000),
    ("key_in_flight", 1, 1_000_000),
    ("key_monthly_cap_idr", 0, 10**12),
    ("replay_mb", 1, 65_536),
)
_CHOICES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("device", ("auto", "cpu", "cuda")),
    ("dtype", ("auto", "float32", "bfloat16")),
    ("transformer", TRANSFORMER),
    ("text_encoder", TEXT_ENCODER),
    ("compile", ("auto", "on", "off")),
    ("strict", ("on", "off")),
    ("log_level", ("DEBUG", "INFO", "WARNING", "ERROR")),
)


def _is_address(text: str) -> bool:
    host, _, port = text.rpartition(":")
    return bool(host) and port.isascii() and port.isdecimal() and 0 < int(port) < 65536


def _path(name: str | Path) -> Path:
    return Path(name).expanduser().absolute()


def _parse(key: str, text: str, kind: type) -> object:
    if kind is str:
        return text
    try:
        value = kind(text)
    except ValueError:
        raise ConfigError(f"{key}={text!r} is not a number ({kind.__name__}).") from None
    if not math.isfinite(value):
        raise ConfigError(f"{key}={text!r} must be finite.")
    return value
