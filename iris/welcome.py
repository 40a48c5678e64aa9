"""What a person needs once the service is ready: where it is, a key, a first picture."""

from __future__ import annotations

import shlex
from pathlib import Path

_WRITE_PNG = (
    "import base64,json,sys; "
    'open("picture.png","wb").write(base64.b64decode(json.load(sys.stdin)["data"][0]["b64_json"]))'
)


def welcome(url: str, key_file: Path, secret: str | None) -> str:
    """The lines printed at start-up. The secret is shown only when it has just been made."""
    if secret is not None:
        key = f"{secret}  (a test key, shown this once; kept in {key_file})"
    elif key_file.exists():
        key = f"in {key_file}"
    else:
        key = "one that you made with `iris keys create`"
    bearer = f"$(cat {shlex.quote(str(key_file))})" if key_file.exists() else "$KEY"
    return f"""
epithre-iris is ready.

  URL   {url}/v1   (docs at {url}/docs)
  key   {key}

A first picture, written to picture.png:

  curl -sS {url}/v1/images/generations \\
    -H "Authorization: Bearer {bearer}" -H "Content-Type: application/json" \\
    -d '{{"model": "epithre-iris", "prompt": "a red boat on a calm sea"}}' \\
    | python3 -c '{_WRITE_PNG}'
"""
