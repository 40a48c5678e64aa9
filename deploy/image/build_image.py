"""Build the container image: a bento, `bentoml containerize`, then its content in layers.

`bentoml containerize` makes an image that works, but puts code and models into one layer, leaves
its installer inside, lets the process own its code and says nothing of versions. So what it made
is laid out again: system, packages, models, code, each in a layer of its own and owned by root.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from iris import __version__

USER = 1034  # the user that BentoML makes; as a number, which Kubernetes can check
STATE = "/var/lib/epithre-iris"  # the one folder that is written to; mount a volume there
BENTO = "/home/bentoml/bento"
PACKAGES = "/app/.venv"
ENVIRONMENT_FILE = Path("image.env")  # what a command in place of `bentoml containerize` may leave


def main() -> None:
    arguments = _parser().parse_args()
    bento = _build_bento(arguments.version)
    if leaked := credentials(_lock(bento)):
        _stop(
            f"the lock of {bento} names a package index with a password in it ({leaked}), and a "
            "lock goes into the image. Give uv the password by ~/.netrc instead, and remove this "
            f"bento with `bentoml delete {bento}`."
        )
    image = arguments.image or f"epithre-iris:{bento.partition(':')[2]}"
    name, _, version = image.rpartition(":")
    raw = f"{name}-bento:{version}"
    if arguments.containerize:
        ENVIRONMENT_FILE.unlink(missing_ok=True)
        _run("containerizing", [*shlex.split(arguments.containerize), bento, raw])
        os.environ.update(left_environment())
    else:
        command = ["bentoml", "containerize", bento, "--backend", arguments.backend]
        _run("containerizing", [*command, "--image-tag", raw])
    _lay_out(arguments.backend, bento, raw, image)
    _describe(arguments.backend, image)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--image", help="NAME:TAG; left out, epithre-iris:<the bento's version>")
    parser.add_argument("--version", help="of the bento; left out, BentoML makes one")
    parser.add_argument("--backend", default="docker", help="docker, podman, ...")
    parser.add_argument(
        "--containerize",
        help="a command called as COMMAND BENTO:TAG IMAGE:TAG instead of BentoML's",
    )
    return parser


def _build_bento(version: str | None) -> str:
    """Returns the bento's tag."""
    command = ["bentoml", "build", "--output", "tag"]
    if version:
        command += ["--version", version]
    out = _run("building the bento", command, capture=True)
    return out.strip().rpartition("__tag__:")[2]


def _lock(bento: str) -> str:
    import bentoml

    return Path(bentoml.get(bento).path_of("env/python/requirements.txt")).read_text()


def credentials(lock: str) -> str | None:
    """The first address in it that carries a user or a password, without them."""
    found = re.search(r"(\w+://)[^\s/@]+@([^\s/]+)", lock)
    return found and f"{found[1]}...@{found[2]}"


def _lay_out(backend: str, bento: str, raw: str, image: str) -> None:
    config = _inspect(backend, raw)["Config"]
    command = [backend, "build", "--tag", image, "--file", "-"]
    if backend in ("podman", "buildah"):
        command += ["--format", "docker"]  # the other format has no health check
    with tempfile.TemporaryDirectory() as empty:
        _run(
            "laying out the image",
            [*command, empty],
            given=containerfile(raw, config, labels(bento, _revision())),
        )


def containerfile(raw: str, config: Mapping[str, Any], labels: Mapping[str, str]) -> str:
    """The layers, from the one that changes least to the one that changes most.

    config: of the image `raw`, as `docker image inspect` shows it; what it sets is kept.
    """
    environment = dict(entry.split("=", 1) for entry in config["Env"]) | {"IRIS_HOME": STATE}
    lines = [
        f"FROM {raw} AS bento",
        "USER root",
        "WORKDIR /",
        f"RUN chmod -R u=rwX,go=rX {BENTO}",  # root's from here on, and to be read by all
        "FROM bento AS system",
        # the installer, its cache, and what has a layer of its own
        f"RUN rm -rf /app {BENTO} /root/.cache && python3 -m pip uninstall --yes uv",
        f"RUN install -d -o {USER} -g {USER} -m 700 {STATE}",
        "FROM bento AS code",
        f"RUN rm -rf {BENTO}/models",
        "FROM scratch",
        "COPY --from=system / /",
        f"COPY --from=bento --chown=0:0 {PACKAGES} {PACKAGES}",
        f"COPY --from=bento --chown=0:0 {BENTO}/models {BENTO}/models",
        f"COPY --from=code --chown=0:0 {BENTO} {BENTO}",
        f"ENV {_pairs(environment)}",
        f"LABEL {_pairs(labels)}",
        f"EXPOSE {' '.join(sorted(config['ExposedPorts']))}",
        f"WORKDIR {config['WorkingDir']}",
        f"USER {USER}:{USER}",
        "STOPSIGNAL SIGTERM",
        'HEALTHCHECK --interval=10s --timeout=5s --start-period=120s CMD ["iris", "health"]',
        f"ENTRYPOINT {json.dumps(config['Entrypoint'])}",
    ]
    return "\n".join(lines) + "\n"


def _pairs(values: Mapping[str, str]) -> str:
    quoted = {key: json.dumps(value).replace("$", "\\$") for key, value in values.items()}
    return " ".join(f"{key}={value}" for key, value in quoted.items())


def labels(bento: str, revision: str) -> dict[str, str]:
    """What somebody who finds the image in a registry wants to know."""
    return {
        "org.opencontainers.image.title": "epithre-iris",
        "org.opencontainers.image.description": "text-to-image and image editing",
        "org.opencontainers.image.version": __version__,
        "org.opencontainers.image.revision": revision,
        "epithre-iris.bento": bento,
        "epithre-iris.models": " ".join(_models(bento)),
    }


def _models(bento: str) -> list[str]:
    import bentoml

    return [str(model.tag) for model in bentoml.get(bento).info.all_models]


def _revision() -> str:
    """The commit; `-dirty` where the checkout differs from it; unknown outside a checkout."""
    found = subprocess.run(
        ["git", "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"],
        capture_output=True,
        text=True,
    )
    return found.stdout.strip() or "unknown"


def left_environment() -> dict[str, str]:
    """What the file of `export` lines that the command left sets, if it left one."""
    if not ENVIRONMENT_FILE.exists():
        return {}
    script = f"set -a; . ./{ENVIRONMENT_FILE}; env -0"
    shell = subprocess.run(["env", "-i", "bash", "-ec", script], capture_output=True, check=True)
    pairs = (entry.split("=", 1) for entry in shell.stdout.decode().split("\0") if entry)
    return {key: value for key, value in pairs if key not in ("PWD", "SHLVL", "_", "OLDPWD")}


def _describe(backend: str, image: str) -> None:
    found = _inspect(backend, image)
    print(
        f"{image}: {found['Size'] / 1e6:.0f} MB in {len(found['RootFS']['Layers'])} layers, "
        f"user {found['Config']['User']}"
    )


def _inspect(backend: str, image: str) -> Any:
    out = _run("", [backend, "image", "inspect", image], capture=True)
    return json.loads(out)[0]


def _run(
    what: str, command: Sequence[str], *, capture: bool = False, given: str | None = None
) -> str:
    """Run a command and say how long it took; its errors are shown as they are."""
    begun_s = time.monotonic()
    if what:
        print(f"{what}: {shlex.join(command)}", file=sys.stderr, flush=True)
    try:
        done = subprocess.run(
            command,
            input=given,
            stdout=subprocess.PIPE if capture else None,
            text=True,
        )
    except FileNotFoundError:
        _stop(f"{command[0]} is not there. Install it, or name another with BACKEND=...")
    if done.returncode:
        _stop(f"`{shlex.join(command)}` ended with {done.returncode}; its own lines stand above.")
    if what:
        print(f"{what}: {time.monotonic() - begun_s:.0f} s", file=sys.stderr, flush=True)
    return done.stdout if capture else ""


def _stop(why: str) -> NoReturn:
    print(f"No image was made: {why}", file=sys.stderr)
    sys.exit(1)


if __name__ == "__main__":
    main()
