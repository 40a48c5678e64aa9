"""A second version of the models, built, served and taken back, by nothing but tags."""

import os
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import tomli_w
from safetensors.torch import load_file, save_file

from iris.store.digest import folder_sha256
from tests.serve.conftest import BENTOML, CHECKOUT, body

pytestmark = pytest.mark.serve

MODELS = CHECKOUT / "models"
NEXT = "99.0.0"


@pytest.fixture(scope="module")
def bentos(tmp_path_factory):
    """(home, tag of the present version, tag of the next one): two bentos in one store."""
    home = tmp_path_factory.mktemp("upgrade")
    env = {**os.environ, "BENTOML_HOME": str(home), "IRIS_HOME": str(home / "iris")}

    def build(version, **settings):
        done = subprocess.run(
            [BENTOML, "build", "--output", "tag", "--version", version],
            cwd=CHECKOUT,
            env=env | settings,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip().split("__tag__:")[1]

    old = build("old")
    new = build("new", IRIS_REGISTRY=str(next_registry(home / "next")))
    shutil.rmtree(home / "next")  # neither the registry nor its sources are needed any more
    return home, old, new


def next_registry(folder: Path) -> Path:
    """The present models at another version, with a decoder that paints a little brighter."""
    weights = folder / "weights"
    shutil.copytree(MODELS / "iris-mini" / "weights", weights)
    file = weights / "vae" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    tensors["decoder.conv_out.bias"] += 0.1
    save_file(tensors, file)
    registry = tomllib.loads((MODELS / "registry.toml").read_text())
    base = registry["base"]
    for entry in (base, *registry["styles"]):
        entry["tag"] = f"{entry['tag'].partition(':')[0]}:{NEXT}"
        entry["source"] = str(MODELS / entry["source"])
    base |= {"source": "weights", "sha256": folder_sha256(weights)}
    registry["styles"] = [style | {"base": base["tag"]} for style in reversed(registry["styles"])]
    path = folder / "registry.toml"
    path.write_text(tomli_w.dumps(registry))
    return path


def painted(start, home, tag):
    """What a service of this bento says it is, and its pictures for a seed."""
    server = start(tag, bentoml_home=home)
    try:
        with server.client() as client:
            (model,) = client.get("/v1/models").json()["data"]
            pictures = [
                client.post("/v1/images/generations", json=body(**changes)).json()["data"]
                for changes in ({}, {"lora": "dark"})
            ]
        return model, pictures
    finally:
        server.stop()


def test_an_upgrade_changes_the_pictures_and_a_rollback_brings_them_back_to_the_byte(start, bentos):
    home, old, new = bentos
    before, pictures = painted(start, home, old)
    after, brighter = painted(start, home, new)
    back, again = painted(start, home, old)
    assert again == pictures
    assert all(one != other for one, other in zip(pictures, brighter, strict=True))
    assert back == before
    assert NEXT in str(after)
    assert NEXT not in str(before)


def test_a_bento_names_its_models_in_the_order_of_its_registry(bentos):
    home, *tags = bentos
    listed = []
    for tag in tags:
        done = subprocess.run(
            [BENTOML, "get", tag, "--output", "json"],
            env={**os.environ, "BENTOML_HOME": str(home)},
            capture_output=True,
            text=True,
            check=True,
        )
        listed.append([word for word in done.stdout.split('"') if "epithre-iris-" in word])
    present = tomllib.loads((MODELS / "registry.toml").read_text())
    assert listed[0] == [present["base"]["tag"], *(s["tag"] for s in present["styles"])]
    names = [tag.partition(":")[0] for tag in listed[0]]
    assert listed[1] == [f"{name}:{NEXT}" for name in (names[0], *reversed(names[1:]))]


def test_a_bento_holds_what_it_runs_and_nothing_else(bentos):
    home, old, _ = bentos
    folder = home / "bentos" / Path(*old.split(":"))
    files = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
    source = {path.relative_to("src") for path in files if path.parts[0] == "src"}
    code = {path.relative_to(CHECKOUT) for path in (CHECKOUT / "iris").rglob("*.py")}
    beside = {"service.py", "README.md", "requirements.txt", "bentofile.yaml"}
    assert code <= source
    assert {str(path) for path in source if path.parts[0] != "iris"} == beside
    assert not [path for path in files if path.suffix == ".safetensors"]
    lock = (folder / "env" / "python" / "requirements.txt").read_text().splitlines()
    wanted = (CHECKOUT / "requirements.txt").read_text().splitlines()
    packages = [line for line in lock if line and not line.startswith(("-", "#"))]
    assert len(packages) > 2 * len(wanted)  # also what they need themselves
    assert all("==" in line for line in packages)
