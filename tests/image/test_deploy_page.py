"""What docs/deploy.md says of running the image, run as it is written."""

import os
import re
import secrets
import subprocess
from pathlib import Path

import pytest
from build_image import left_environment

from tests.image.conftest import free_port

pytestmark = pytest.mark.image

PAGE = (Path(__file__).parents[2] / "docs" / "deploy.md").read_text()


def commands():
    section = PAGE.split("## Run it")[1].split("\n## ")[0]
    return "".join(re.findall(r"^```bash\n(.*?)^```$", section, re.MULTILINE | re.DOTALL))


def test_the_commands_run_as_they_are_written(tmp_path):
    backend, image = os.environ["BACKEND"], os.environ["IMAGE"]
    name, port = f"epithre-iris-page-{secrets.token_hex(4)}", free_port()
    script = commands().replace("epithre-iris:0.1.0", image.replace("epithre-iris", "@"))
    # the container and its volume; not the model and not the folder
    script = re.sub(r'(?<![\w/"-])epithre-iris(?![\w"-])', name, script)
    script = script.replace("@", "epithre-iris").replace("3000", str(port))
    # the network may be shared with the host
    script = script.replace(
        "docker run ", f"docker run --env PORT={port} --env IRIS_METRICS_BIND= "
    )
    try:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script.replace("docker ", f"{backend} ")],
            cwd=tmp_path,
            env=os.environ | left_environment(),
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    finally:
        for command in (["rm", "--force", name], ["volume", "rm", "--force", name]):
            subprocess.run([backend, *command], env=os.environ | left_environment(), check=False)
    assert re.search(r"^ready; 0 pictures running", done.stdout, re.MULTILINE)
    assert "live key" in done.stdout
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
