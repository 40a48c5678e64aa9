"""The name of an account or a key, which a person chooses and another one reads."""

from __future__ import annotations

from iris.errors import InvalidRequest

MAX_NAME_CHARACTERS = 100


def check_name(name: str, what: str) -> str:
    """The name as it is, if it can be shown.

    Raises:
        InvalidRequest: it is empty, too long or not printable.
    """
    if not (0 < len(name) <= MAX_NAME_CHARACTERS and name.isprintable() and name.strip() == name):
        raise InvalidRequest(
            f"{name!r} cannot be the name of {what}: it must be 1 to {MAX_NAME_CHARACTERS} "
            "printable characters, without spaces around them.",
            param="name",
        )
    return name
