"""The container image of a bento: Python, the locked packages, the code and its models.

bentofile.yaml cannot say this. Its `docker.distro` is taken for "debian" where it is left out,
which brings a compiler and git that nothing here needs; `docker.dockerfile_template` and
`docker.cuda_version` fall back to BentoML's first format. The packages are in bentofile.yaml.
"""

from __future__ import annotations

from bentoml.images import Image

# torch's wheels carry the CUDA libraries, so a GPU needs no other base.
BASE_IMAGE = "python:3.11-slim"
PYTHON_VERSION = "3.11"

_COMMAND = "/usr/local/bin/iris"
# BentoML makes these at every start where they are missing, which a read-only file system forbids.
_FOLDERS = " ".join(f"/home/bentoml/{name}" for name in ("bentos", "models", "envs", "tmp"))
_SCRIPT = (
    "#!/bin/sh",
    'PYTHONPATH=/home/bentoml/bento/src exec /app/.venv/bin/python -m iris.cli "$@"',
)


def container_image() -> Image:
    """The image, with the `iris` command on its path: keys are made where the database is."""
    lines = " ".join(f"'{line}'" for line in _SCRIPT)
    return Image(
        base_image=BASE_IMAGE,
        distro="",
        python_version=PYTHON_VERSION,
        commands=[
            f"mkdir -p {_FOLDERS}",
            f"printf '%s\\n' {lines} > {_COMMAND} && chmod 755 {_COMMAND}",
        ],
    )
