"""The compose file: valid by its schema, and the same hardening as everywhere else."""

import re
import subprocess
import sys
from pathlib import Path

import yaml
from build_image import STATE, USER

from iris import __version__
from iris.config import Settings

DEPLOY = Path(__file__).parents[2] / "deploy"
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
CHECK = Path(sys.executable).with_name("check-jsonschema")


def test_it_is_valid_by_the_schema_of_the_specification():
    subprocess.run(
        [CHECK, "--builtin-schema", "vendor.compose-spec", DEPLOY / "compose.yaml"], check=True
    )


def test_the_service_has_nothing_it_does_not_need():
    iris = COMPOSE["services"]["iris"]
    assert iris["user"] == f"{USER}:{USER}"
    assert iris["read_only"]
    assert iris["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in iris["security_opt"]
    assert [volume.partition(":")[2] for volume in iris["volumes"]] == [STATE]
    assert float(iris["stop_grace_period"].removesuffix("s")) > 30  # what BentoML gives


def test_only_the_public_port_is_the_host_s_and_only_for_itself_unless_it_is_said():
    assert COMPOSE["services"]["iris"]["ports"] == ["${LISTEN:-127.0.0.1:3000}:3000"]
    assert "ports" not in COMPOSE["services"]["postgres"]
    assert COMPOSE["networks"]["database"] == {"internal": True}


def test_its_settings_are_settings():
    filled = {
        name: re.sub(r"\$\{\w+(?::-(\w*)|:\?[^}]*)?\}", r"\1", value)
        for name, value in COMPOSE["services"]["iris"]["environment"].items()
    }
    assert Settings.from_env(filled).device == "auto"


def test_no_password_is_in_it_and_what_is_yours_is_not_in_git():
    text = (DEPLOY / "compose.yaml").read_text()
    assert text.count("${POSTGRES_PASSWORD:?") == 2
    assert "POSTGRES_PASSWORD=\n" in (DEPLOY / ".env.example").read_text()
    ignored = subprocess.run(
        ["git", "check-ignore", "deploy/.env"], cwd=DEPLOY.parent, capture_output=True
    )
    assert ignored.returncode == 0


def test_the_image_has_a_version():
    assert COMPOSE["services"]["iris"]["image"] == f"${{IMAGE:-epithre-iris:{__version__}}}"
    assert f"IMAGE=epithre-iris:{__version__}" in (DEPLOY / ".env.example").read_text()
    assert re.fullmatch(r"postgres:\d+", COMPOSE["services"]["postgres"]["image"])
