"""Write what a bento is made of as a CycloneDX document: packages, models and the base image.

    python deploy/image/sbom.py --out build/sbom.json [BENTO:TAG]

The packages are those of the bento's lock, which its image installs and nothing else. What the base
image brings is named by the image alone; a scanner of images lists its Debian packages.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import bentoml
from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import LicenseExpression
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL

from iris import __version__

_PINNED = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)==([^\s;]+)(?:\s*;.*)?")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bento", nargs="?", help="left out, one is built")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    bento = bentoml.get(arguments.bento or _build())
    document = JsonV1Dot6(describe(bento)).output_as_string(indent=1)
    if errors := JsonStrictValidator(SchemaVersion.V1_6).validate_str(document):
        sys.exit(f"The document is not valid CycloneDX 1.6: {errors}")
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(document + "\n")
    print(f"{arguments.out}: {document.count(chr(34) + 'bom-ref' + chr(34))} components")


def describe(bento: bentoml.Bento) -> Bom:
    bom = Bom()
    bom.metadata.component = Component(
        name="epithre-iris",
        version=__version__,
        type=ComponentType.APPLICATION,
        bom_ref=str(bento.tag),
    )
    components = [*_packages(bento), *_models(bento), _base_image(bento)]
    bom.components.update(components)
    bom.register_dependency(bom.metadata.component, components)
    return bom


def _packages(bento: bentoml.Bento) -> Iterator[Component]:
    lock = Path(bento.path_of("env/python/requirements.txt"))
    for line in lock.read_text().splitlines():
        if not line.strip() or line.startswith(("-", "#")):  # options say where, not what
            continue
        found = _PINNED.fullmatch(line.strip())
        if found is None:
            sys.exit(f"{lock}: {line!r} is not pinned. Build the bento with lock_packages: true.")
        name, version = found.groups()
        yield Component(
            name=name,
            version=version,
            type=ComponentType.LIBRARY,
            purl=PackageURL("pypi", None, name, version),
            bom_ref=f"{name}=={version}",
            licenses=_license(name, version),
        )


def _license(name: str, version: str) -> list[LicenseExpression]:
    """What the package says of itself, where this environment has the same one."""
    try:
        found = metadata.metadata(name)
    except metadata.PackageNotFoundError:
        return []
    expression = found.get("License-Expression")
    if found["Version"] != version or not expression:
        return []
    return [LicenseExpression(expression)]


def _models(bento: bentoml.Bento) -> Iterator[Component]:
    for info in bento.info.all_models:
        model = bentoml.models.get(info.tag)
        yield Component(
            name=info.tag.name,
            version=info.tag.version,
            type=ComponentType.MACHINE_LEARNING_MODEL,
            description=str(model.info.metadata["description"]),
            bom_ref=str(info.tag),
            hashes=[HashType(alg=HashAlgorithm.SHA_256, content=model.info.labels["sha256"])],
        )


def _base_image(bento: bentoml.Bento) -> Component:
    name, _, tag = bento.info.image.base_image.partition(":")
    return Component(
        name=name, version=tag, type=ComponentType.CONTAINER, bom_ref=f"container:{name}:{tag}"
    )


def _build() -> str:
    done = subprocess.run(
        ["bentoml", "build", "--output", "tag"], stdout=subprocess.PIPE, text=True
    )
    if done.returncode:
        sys.exit("No bento was built; the lines above say why.")
    return done.stdout.strip().rpartition("__tag__:")[2]


if __name__ == "__main__":
    main()
