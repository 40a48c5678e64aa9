"""What an operator is promised of the image, seen in the running container."""

import base64
import io
import json
import os
import re
import signal
import subprocess
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
import tomli_w
from build_image import BENTO, PACKAGES, STATE, USER
from PIL import Image

from iris import __version__
from iris.config import Settings
from iris.store.registry import load_registry
from tests.accounts.postgres import running_postgres
from tests.serve.test_upgrade import NEXT, next_registry

pytestmark = pytest.mark.image

CHECKOUT = Path(__file__).parents[2]
MAX_BYTES = 1.7e9  # on a CPU; torch for CUDA alone is more
GRACE_S = 30
GENERATIONS = "/v1/images/generations"
SMALL = {"model": "epithre-iris", "prompt": "a red boat on a calm sea", "size": "64x64"}


def picture(reply):
    image = Image.open(io.BytesIO(base64.b64decode(reply.data[0].b64_json)), formats=["PNG"])
    image.load()
    return image


def test_it_is_small_and_its_models_have_a_layer_of_their_own(image, backend, container, figures):
    num_layers = len(image["RootFS"]["Layers"])
    figures["size"] = f"{image['Size'] / 1e6:.0f} MB in {num_layers} layers"
    has_cuda = container.python("import torch; print('true' if torch.version.cuda else 'false')")
    assert has_cuda or image["Size"] <= MAX_BYTES
    history = backend("history", "--format={{.Size}}", image["Id"]).stdout
    units = {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9}
    sizes = (float(n) * units[unit] for n, unit in re.findall(r"([\d.]+) ?(\w+)", history))
    layers = [size for size in sizes if size]
    assert num_layers == len(layers) == 4  # code, models, packages, system
    models = int(container.run("du", "-sb", f"{BENTO}/models").split()[0])
    assert layers[1] == pytest.approx(models, rel=0.02)
    assert layers[0] < 2e6


def test_it_says_what_it_is(image):
    labels = image["Config"]["Labels"]
    assert labels["org.opencontainers.image.version"] == __version__
    revision = labels["org.opencontainers.image.revision"].removesuffix("-dirty")
    subprocess.run(["git", "cat-file", "-e", f"{revision}^{{commit}}"], cwd=CHECKOUT, check=True)
    registry = load_registry(Settings.from_env().registry)
    assert labels["epithre-iris.models"].split() == [entry.tag for entry in registry.entries]


def test_every_process_is_an_ordinary_user_without_capabilities(image, container):
    assert image["Config"]["User"] == f"{USER}:{USER}"
    processes = container.python(
        "import json, psutil, re;"
        "print(json.dumps([[p.pid, p.uids().real, p.cmdline(),"
        "re.findall(r'(?:CapEff|NoNewPrivs):\\s*(\\w+)', open(f'/proc/{p.pid}/status').read())]"
        "for p in psutil.process_iter()]))"
    )
    assert len(processes) >= 5  # arbiter, front, engine, two decoders
    for _, user, _, (capabilities, no_new_privileges) in processes:
        assert user == USER
        assert int(capabilities, 16) == 0
        assert no_new_privileges == "1"
    (first,) = (command for pid, _, command, _ in processes if pid == 1)
    assert "bentoml" in " ".join(first)  # signals reach it: no shell stands before it


def test_nothing_can_be_written_but_the_state_and_tmp(container):
    for path in ("/x", f"{BENTO}/src/service.py", f"{PACKAGES}/x", "/home/bentoml/x", "/run/x"):
        assert container.run("sh", "-c", f": >> {path}", check=False) != 0
    for folder in (STATE, "/tmp"):  # noqa: S108  (of the container)
        container.run("sh", "-c", f": > {folder}/x && rm {folder}/x")
    owners = container.run("find", BENTO, PACKAGES, "!", "-user", "root", "-print", "-quit")
    assert owners == ""  # a file system that is not read-only would not help either


def test_only_the_public_port_is_open_to_other_hosts(container):
    listening = container.python(
        "import json, psutil;"
        "print(json.dumps([list(c.laddr) for p in psutil.process_iter()"
        " for c in p.net_connections('inet') if c.status == psutil.CONN_LISTEN]))"
    )
    outside = {port for address, port in listening if not address.startswith("127.")}
    assert outside == {container.port}
    assert ["127.0.0.1", container.metrics_port] in listening


# the trainer of styles is part of the service; the recipe of the embedded model is not
FOREIGN = re.compile(r"/(tests|bench|world|evaluation|\.git)/|(?<!/src/iris)/training/")


def test_it_holds_what_it_runs_and_nothing_else(container):
    inside = container.run("find", BENTO, "-type", "f").split()
    assert not [path for path in inside if FOREIGN.search(path)]
    weights = [path for path in inside if path.endswith(".safetensors")]
    sums = container.run("sha256sum", *weights)
    assert len({line.split()[0] for line in sums.splitlines()}) == len(weights)  # none twice
    for program in ("cc", "gcc", "make", "git", "uv"):
        assert container.run("sh", "-c", f"command -v {program}", check=False) != 0
    lock = dict(
        line.split("==")
        for line in container.run("cat", f"{BENTO}/env/python/requirements.txt").splitlines()
        if "==" in line
    )
    installed = container.python(
        "import json; from importlib.metadata import distributions;"
        "print(json.dumps({d.name.lower().replace('_', '-').replace('.', '-'): d.version"
        " for d in distributions()}))"
    )
    assert installed == {name.lower().replace(".", "-"): of for name, of in lock.items()}


def test_the_bill_of_materials_is_what_lies_inside(image, container, tmp_path):
    import bentoml
    from sbom import describe

    bento = bentoml.get(image["Config"]["Labels"]["epithre-iris.bento"])
    listed = {c.bom_ref.value: c for c in describe(bento).components}
    installed = container.python(
        "import json; from importlib.metadata import distributions;"
        "print(json.dumps(len(list(distributions()))))"
    )
    packages = [component for component in listed.values() if component.purl]
    assert len(packages) == installed
    folders = container.run("sh", "-c", f"cd {BENTO}/models && ls -d */*/").split()
    for folder in folders:
        name, version = folder.strip("/").split("/")
        (digest,) = listed[f"{name}:{version}"].hashes
        assert digest.content == container.run("iris", "models", "hash", f"{BENTO}/models/{folder}")
    assert len(listed) == installed + len(folders) + 1  # and the base image


def test_it_holds_no_secret(image, container):
    secret = re.compile(r"esk_(live|test)_\w{8}|PRIVATE KEY|password|token", re.IGNORECASE)
    assert not secret.search(" ".join(image["Config"]["Env"]))
    keys = container.run(
        "grep", "-rlE", "esk_(live|test)_[A-Za-z0-9]{32}|BEGIN .*PRIVATE KEY", BENTO, check=False
    )
    assert keys == 1  # grep found none


def test_the_orchestrator_is_told_how_it_is(image, container):
    check = image["Config"].get("Healthcheck") or image["Healthcheck"]  # docker, podman
    assert container.run(*check["Test"][1:]).startswith("ready")
    assert container.run("iris", "health", "--live").startswith("ready")
    container.run("iris", "drain")  # there is nothing to wait for
    assert container.run("iris", "health", "--url", "http://127.0.0.1:9", check=False) == 2


def test_keys_are_made_inside(container):
    made = json.loads(container.run("iris", "keys", "create", "--name", "shop", "--json"))
    assert made["secret"] not in container.log
    assert made["id"] in container.run("iris", "keys", "list")


def test_the_official_client_paints_and_edits(container):
    client = container.openai()
    made = client.images.generate(
        model="epithre-iris", prompt="a red boat on a calm sea", size="256x256"
    )
    assert picture(made).size == (256, 256)
    edited = client.images.edit(
        model="epithre-iris",
        prompt="make it night",
        image=base64.b64decode(made.data[0].b64_json),
        extra_body={"lora": "dark"},
    )
    assert picture(edited).size == (256, 256)


def test_a_drain_waits_for_the_picture_in_the_making(container):
    with ThreadPoolExecutor(1) as pool:
        ask = SMALL | {"size": "768x768", "extra_body": {"num_steps": 50}}
        running = pool.submit(container.openai().images.generate, **ask)
        while " 1 pictures running" not in container.run("iris", "health"):
            assert not running.done()
        container.run("iris", "drain")
        assert picture(running.result(timeout=5)).size == (768, 768)


def test_a_picture_in_the_making_survives_sigterm_and_the_end_is_clean(start, figures):
    container = start()
    client = container.openai()
    ask = {"model": "epithre-iris", "prompt": "a ship in a storm", "size": "960x960"}
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(
            client.images.generate, **ask, extra_body={"num_steps": 50, "guidance_scale": 2.0}
        )
        while " 1 pictures running" not in container.run("iris", "health"):
            assert not running.done()
        told_s = time.monotonic()
        container.backend("kill", f"--signal={signal.SIGTERM.name}", container.name)
        assert picture(running.result()).size == (960, 960)
        figures["picture after SIGTERM in"] = f"{time.monotonic() - told_s:.1f} s"
    assert container.wait_until_ended() == 0
    ended_s = time.monotonic() - told_s
    figures["drained in"] = f"{ended_s:.1f} s"
    assert ended_s < GRACE_S
    assert "Traceback" not in container.log


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("IRIS_MAX_RUNNING=many", "IRIS_MAX_RUNNING='many' is not a number"),
        ("BENTOML_NO_UDS=1", "BENTOML_NO_UDS is set"),
        ("IRIS_DATABASE_URL=sqlite:////nowhere/iris.db", "IRIS_DATABASE_URL"),
        ("IRIS_REGISTRY=/nowhere.toml", "/nowhere.toml cannot be read"),
    ],
)
def test_a_crash_at_the_start_is_told_by_the_exit_status(setting, says, start):
    container = start(f"--env={setting}", ready=False)
    assert container.wait_until_ended() != 0
    assert says in container.log


def test_an_engine_that_dies_ends_the_container_for_a_new_one_to_start(start):
    container = start()
    container.run(
        "python",
        "-c",
        "import psutil;[p.kill() for p in psutil.process_iter(['cmdline']) "
        "if 'iris_engine' in (p.info['cmdline'] or [])]",
    )
    assert container.wait_until_ended() != 0


def test_several_services_share_their_keys_in_postgresql(start):
    with running_postgres() as server:
        database = ("--volume", f"{server.folder}:/postgres:ro")
        url = server.url().replace(str(server.folder), "/postgres")
        one, other = (start(*database, f"--env=IRIS_DATABASE_URL={url}") for _ in range(2))
        made = json.loads(one.run("iris", "keys", "create", "--name", "shop", "--json"))
        ask = {"headers": {"authorization": f"Bearer {made['secret']}"}, "timeout": 60}
        assert httpx.post(f"{other.url}{GENERATIONS}", json=SMALL, **ask).status_code == 200
        one.run("iris", "keys", "revoke", made["id"])
        deadline = time.monotonic() + 10
        while httpx.post(f"{other.url}{GENERATIONS}", json=SMALL, **ask).status_code != 401:
            assert time.monotonic() < deadline


def test_weights_on_a_volume_are_imported_by_a_job_and_served_beside_the_embedded_ones(
    start, backend, tmp_path
):
    weights = tmp_path / "weights"
    registry = next_registry(weights / "incoming")
    document = tomllib.loads(registry.read_text())
    for entry in (document["base"], *document["styles"]):
        inside = Path(registry.parent / entry["source"])
        entry["source"] = str(inside).replace(str(weights), "/weights").replace(str(CHECKOUT), "")
    registry.write_text(tomli_w.dumps(document))
    for path in (weights, *weights.rglob("*")):
        path.chmod(0o777 if path.is_dir() else 0o644)
    named = (f"--volume={registry}:/etc/iris/registry.toml:ro",)
    named += ("--env=IRIS_REGISTRY=/etc/iris/registry.toml",)
    backend(
        "run",
        "--rm",
        "--read-only",
        "--tmpfs=/tmp",
        "--cap-drop=ALL",
        "--env=BENTOML_HOME=/weights",
        f"--volume={weights}:/weights",
        f"--volume={CHECKOUT / 'models'}:/models:ro",
        *named,
        os.environ["IMAGE"],
        "iris",
        "models",
        "import",
    )
    stored = sorted((weights / "models").glob("*/*/"))
    mounts = [f"--volume={p}:{BENTO}/models/{p.parent.name}/{p.name}:ro" for p in stored]
    container = start(*named, *mounts)
    assert NEXT in httpx.get(f"{container.url}/v1/models").text
    assert picture(container.openai().images.generate(**SMALL)).size == (64, 64)
