"""The README's code does what it says, run as written against a running server."""

import re
import subprocess
import sys

import pytest
from PIL import Image

from iris.api.schemas import EditBody, GenerateBody
from tests.serve.conftest import CHECKOUT

pytestmark = pytest.mark.serve

README = (CHECKOUT / "README.md").read_text()


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def pointed_at(code, server):
    """The same code for this server's port and home."""
    assert "http://localhost:3000" in code
    code = code.replace("http://localhost:3000", server.url)
    return code.replace("~/.epithre-iris", str(server.home))


def size_of(path):
    with Image.open(path) as image:
        return image.size


def test_every_block_is_run_by_a_test():
    assert set(re.findall(r"^```(\w*)$", README, re.MULTILINE)) == {"bash", "python", ""}
    assert [code.split()[0] for code in blocks("bash")[:2]] == ["make", "make"]


def test_the_make_commands_exist():
    for code in blocks("bash")[:2]:
        subprocess.run(["make", "--dry-run", code.split()[1]], cwd=CHECKOUT, check=True)


def test_the_curl_examples_write_pictures(server, tmp_path):
    code = pointed_at("\n".join(blocks("bash")[2:]), server)
    subprocess.run(["bash", "-euo", "pipefail", "-c", code], cwd=tmp_path, check=True, timeout=120)
    assert size_of(tmp_path / "picture.png") == (768, 768)
    assert size_of(tmp_path / "edited.png") == (704, 704)


def test_the_openai_examples_write_pictures(server, tmp_path):
    code = pointed_at("\n".join(blocks("python")), server)
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=120)
    assert size_of(tmp_path / "samurai.png") == (512, 768)
    for name in ("night.png", "composed.png"):
        assert size_of(tmp_path / name) == (464, 704)


def test_every_field_of_the_api_is_in_the_table():
    named = set(re.findall(r"`(\w+)`", README.split("## Fields")[1].split("##")[0]))
    fields = set(GenerateBody.model_fields) | set(EditBody.model_fields)
    assert fields <= named


def test_every_file_it_points_to_exists():
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (CHECKOUT / target).exists(), target
