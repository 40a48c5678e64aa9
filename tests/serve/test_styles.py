"""Styles come and go while the service runs; a mask is held over HTTP."""

import base64
import io
import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

from tests.serve.conftest import CHECKOUT, a_photo, body, picture, png

pytestmark = pytest.mark.serve

LONG = {"num_steps": 50, "size": "512x512", "seed": 3, "lora": "ink", "lora_strength": 1.0}


@pytest.fixture(scope="module")
def stage(start, tmp_path_factory):
    """(server, iris): a server of its own, and the command in its environment."""
    store = tmp_path_factory.mktemp("bentoml-styles")
    server = start(bentoml_home=store)

    def iris(*arguments):
        env = {key: value for key, value in os.environ.items() if not key.startswith("IRIS_")}
        env |= {"BENTOML_HOME": str(store), "IRIS_HOME": str(server.home)}
        return subprocess.run(
            [sys.executable, "-m", "iris.cli", *map(str, arguments)],
            capture_output=True,
            text=True,
            env=env,
            cwd=CHECKOUT,
            timeout=120,
        )

    return server, iris


@pytest.fixture
def as_kohya(tmp_path):
    """as_kohya(name) -> a registered style of the embedded model in kohya's key format."""

    def write(name):
        folder = CHECKOUT / "models" / "iris-mini" / "styles" / name
        tensors = {}
        for key, value in load_file(folder / "pytorch_lora_weights.safetensors").items():
            module, _, side = key.removeprefix("transformer.").rpartition(".lora_")
            end = {"A.weight": "lora_down.weight", "B.weight": "lora_up.weight"}[side]
            tensors[f"lora_transformer_{module.replace('.', '_')}.{end}"] = value
        save_file(tensors, tmp_path / f"{name}.safetensors")
        return tmp_path / f"{name}.safetensors"

    return write


def styles_of(client):
    (model,) = client.get("/v1/models").json()["data"]
    return {style["name"]: style["version"] for style in model["styles"]}


def paint(client, **changes):
    return client.post("/v1/images/generations", json=body(**changes), timeout=300)


def pixels(response):
    """Without what the file says of itself, which names the style."""
    return picture(response.json()).tobytes()


def test_a_style_comes_changes_and_goes_without_a_restart(stage, as_kohya):
    server, iris = stage
    with server.client() as client:
        assert paint(client, lora="ink").status_code == 400
        assert iris("styles", "add", "ink", as_kohya("dark")).returncode == 0
        assert "ink" not in styles_of(client)
        reloaded = iris("styles", "reload")
        assert (reloaded.returncode, "ink 1" in reloaded.stdout) == (0, True), reloaded.stderr
        assert styles_of(client)["ink"] == "1"

        seed = {"seed": 5, "lora_strength": 0.9}
        assert pixels(paint(client, lora="ink", **seed)) == pixels(
            paint(client, lora="dark", **seed)
        )

        expected = paint(client, **LONG).json()["data"]
        found = []
        running = threading.Thread(target=lambda: found.append(paint(client, **LONG)))
        begun = server.metric("iris_engine_steps_total")
        running.start()
        while server.metric("iris_engine_steps_total") < begun + 2:
            time.sleep(0.02)
        assert iris("styles", "add", "ink", as_kohya("anime")).returncode == 0
        assert iris("styles", "reload").returncode == 0
        running.join()
        assert found[0].json()["data"] == expected  # it kept the version it began with
        assert styles_of(client)["ink"] == "2"
        assert pixels(paint(client, lora="ink", **seed)) == pixels(
            paint(client, lora="anime", **seed)
        )

        assert iris("styles", "remove", "ink").returncode == 0
        assert iris("styles", "reload").returncode == 0
        refused = paint(client, lora="ink")
        assert refused.status_code == 400
        assert "none, dark, anime." in refused.json()["error"]["message"]


def test_a_style_that_does_not_fit_never_reaches_the_service(stage, tmp_path):
    server, iris = stage
    (tmp_path / "bad.safetensors").write_bytes(b"PK\x03\x04 a pickle of torch")
    refused = iris("styles", "add", "bad", tmp_path / "bad.safetensors")
    assert refused.returncode == 2
    assert refused.stderr.startswith("iris: ")
    assert "pickle" in refused.stderr
    with server.client() as client:
        assert "bad" not in styles_of(client)


def test_an_edit_within_a_mask_leaves_the_rest_as_it_was(stage):
    server, _ = stage
    source = a_photo(256, 192)
    mask = Image.new("RGBA", source.size, (0, 0, 0, 255))
    mask.paste((0, 0, 0, 0), (64, 48, 192, 144))
    reply = server.openai().images.edit(
        model="epithre-iris",
        image=("a.png", png(source), "image/png"),
        mask=("m.png", png(mask), "image/png"),
        prompt="a red boat on a calm sea",
        extra_body={"strength": 1.0, "seed": 2},
    )
    made = np.asarray(Image.open(io.BytesIO(base64.b64decode(reply.data[0].b64_json))))
    inside = np.asarray(mask)[..., 3] == 0
    assert (made[~inside] == np.asarray(source)[~inside]).all()
    assert (made[inside] != np.asarray(source)[inside]).any()
