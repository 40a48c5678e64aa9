"""The log: one JSON object a line, one line a request, and nothing a client sent in it."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from types import TracebackType

from iris.api.record import RequestRecord

LOGGER = logging.getLogger("iris")
LIBRARIES = ("py.warnings", "python_multipart", "uvicorn")  # that write lines of their own
HEALTH_ROUTES = frozenset({"/livez", "/healthz", "/readyz"})


class JsonFormatter(logging.Formatter):
    """Renders a record as one line of JSON: ts, level, logger, event and the record's `fields`.

    The text of an exception can quote what a client sent, so an exception is rendered as its class
    and the places it passed, never its text.
    """

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "ts": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "event": record.getMessage(),
        }
        if record.exc_info and record.exc_info[1] is not None:
            line |= describe(record.exc_info[1])
        line |= getattr(record, "fields", {})
        return json.dumps(line, default=str)


def configure_logging(level: str) -> None:
    """Send what `iris` and the wire's libraries say to stderr as JSON lines. Once a process."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.captureWarnings(True)
    for logger in (LOGGER, *map(logging.getLogger, LIBRARIES)):
        logger.handlers = [handler]
        logger.propagate = False
    LOGGER.setLevel(level)
    # It speaks of what clients send wrong, which the request's own line says already.
    logging.getLogger("python_multipart").setLevel(logging.ERROR)


def log_request(record: RequestRecord) -> None:
    """The one line of a finished request; what an orchestrator asks all day is for debugging."""
    fields: dict[str, object] = {
        "request_id": record.request_id,
        "method": record.method,
        "route": record.route,
        "status": record.status,
        "code": record.code,
        "ms": round(record.elapsed_s * 1000, 1),
        "key_id": record.key_id,
        "size": record.size,
        "steps": record.num_steps,
        "lora": record.lora,
        "charged_idr": record.charged_idr,
    }
    level = logging.DEBUG if record.route in HEALTH_ROUTES else logging.INFO
    LOGGER.log(level, "request", extra={"fields": fields})


def log_crash(record: RequestRecord, error: BaseException) -> None:
    """An exception nobody expected: its class and where it passed, never what it says."""
    fields = {"request_id": record.request_id, "route": record.route} | describe(error)
    LOGGER.error("crash", extra={"fields": fields})


def describe(error: BaseException) -> dict[str, object]:
    """The class of an exception, its places as module:line:function, and what caused it."""
    cause = error.__cause__ or error.__context__
    described: dict[str, object] = {
        "exception": f"{type(error).__module__}.{type(error).__qualname__}",
        "at": _places(error.__traceback__),
    }
    if cause is not None:
        described["cause"] = f"{type(cause).__module__}.{type(cause).__qualname__}"
        described["cause_at"] = _places(cause.__traceback__)
    return described


def _places(trace: TracebackType | None) -> list[str]:
    places = []
    while trace is not None:
        code = trace.tb_frame.f_code
        module = trace.tb_frame.f_globals.get("__name__", "?")
        places.append(f"{module}:{trace.tb_lineno}:{code.co_name}")
        trace = trace.tb_next
    return places
