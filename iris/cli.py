"""The `iris` command: accounts, keys, ledger, models, styles, health and settings.

Every command imports what it needs when it runs: listing keys must not load a model library.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
import time
from collections.abc import Callable, Sequence

from iris import __version__, bookkeeping, model_commands, reports, style_commands
from iris.config import Settings
from iris.doctor import command
from iris.errors import InvalidRequest, IrisError


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 2 for an error told in one line."""
    words = sys.argv[1:] if argv is None else argv
    status = 0
    try:
        _check_text(words)
        arguments = _parser().parse_args(words)
        run: Callable[[argparse.Namespace], int | None] = arguments.run
        status = run(arguments) or 0
        sys.stdout.flush()  # here, where a closed pipe can still be handled
    except IrisError as error:
        print(f"iris: {error.message}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # `iris keys list | head` wants no more lines
        # what is left in the buffer has to go somewhere when Python ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        print("iris: stopped. Run it again to go on.", file=sys.stderr)
        return 130  # as shells say it
    except Exception as error:
        trouble = _file_trouble(error) or _database_trouble(error)
        if trouble is None:
            raise
        print(f"iris: {trouble}", file=sys.stderr)
        return 2
    return status


def _check_text(words: Sequence[str]) -> None:
    """No database keeps bytes that are no text. Raises InvalidRequest, which names the argument."""
    for word in words:
        try:
            word.encode()
        except UnicodeEncodeError:
            raise InvalidRequest(f"The argument {word!r} is not text in UTF-8.") from None


def _file_trouble(error: Exception) -> str | None:
    """What to say of a file or folder that nobody expected to fail, or None."""
    if not isinstance(error, OSError) or error.strerror is None:
        return None
    name = "" if error.filename is None else f"{error.filename}: "
    return (
        f"{name}{error.strerror}. See that it is there, that it can be used and the disk has room."
    )


def _database_trouble(error: Exception) -> str | None:
    """What to say where a database that was opened could not be used after all, or None."""
    # loaded already where the error is one of these; others of a database are the program's own
    from sqlalchemy.exc import InterfaceError, InternalError, OperationalError

    if not isinstance(error, InterfaceError | InternalError | OperationalError):
        return None
    cause = " ".join(str(error.orig).split())
    if error.statement is None:  # the commit itself: it may have been done, the answer lost
        return (
            f"The database did not answer to the end ({cause}). Whether anything was changed is "
            "not known: look before you try again."
        )
    return (
        f"The database cannot be used ({cause}). Nothing was changed. See that it can be reached, "
        "that it can be written and that nothing else keeps it locked, and try again."
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="iris", description="Operate epithre-iris.")
    parser.add_argument("--version", action="version", version=f"epithre-iris {__version__}")
    rooms = parser.add_subparsers(required=True, metavar="COMMAND")

    bookkeeping.add_commands(rooms)
    reports.add_commands(rooms)

    model_commands.add_commands(rooms)
    style_commands.add_commands(rooms)
    command.add_command(rooms)

    health = rooms.add_parser("health", help="whether a service of this host takes pictures")
    health.add_argument("--url", help="where it is; left out, where this environment starts one")
    health.add_argument(
        "--live", action="store_true", help="whether it is alive, which a starting one is too"
    )
    health.set_defaults(run=_health)

    drain = rooms.add_parser("drain", help="wait until a service has no picture left to make")
    drain.add_argument("--url", help="where it is; left out, where this environment starts one")
    drain.add_argument(
        "--settle", type=float, default=0, metavar="S", help="seconds to wait before the first look"
    )
    drain.add_argument(
        "--timeout", type=float, default=300, metavar="S", help="seconds to wait after it"
    )
    drain.set_defaults(run=_drain)

    config = rooms.add_parser("config", help="the settings in effect")
    config.set_defaults(run=_config)
    return parser


def _health(arguments: argparse.Namespace) -> None:
    from iris.probe import ask, own_url

    url = arguments.url or own_url()
    print(ask(f"{url.rstrip('/')}/{'livez' if arguments.live else 'readyz'}"))


def _drain(arguments: argparse.Namespace) -> None:
    from iris.probe import own_url, wait_until_idle

    time.sleep(arguments.settle)
    wait_until_idle((arguments.url or own_url()).rstrip("/"), arguments.timeout, _progress)


def _config(arguments: argparse.Namespace) -> None:
    for name, value in dataclasses.asdict(Settings.from_env()).items():
        shown = _without_password(value) if name == "database_url" else value
        if name == "admin_token" and value:
            shown = "***"
        print(f"IRIS_{name.upper()}={shown}")


def _without_password(url: str) -> str:
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        parsed = make_url(url)
    except ArgumentError:
        return "*** (not a database URL)"  # it may hold a password all the same
    # some drivers take a password as a query parameter
    hidden = {key: "hidden" for key in parsed.query if "pass" in key.lower()}
    return parsed.update_query_dict(hidden).render_as_string(hide_password=True)


def _progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
