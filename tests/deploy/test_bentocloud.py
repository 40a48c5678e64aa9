"""BentoCloud's configuration, read as BentoML's own client reads it."""

from pathlib import Path

import yaml
from bentoml._internal.cloud.schemas.schemasv2 import CreateDeploymentSchema
from bentoml._internal.utils.cattr import bentoml_cattr

from iris.config import Settings

ROOT = Path(__file__).parents[2]
GIVEN = yaml.safe_load((ROOT / "deploy/bentocloud/deployment.yaml").read_text())


def test_the_client_understands_every_word_of_it():
    understood = bentoml_cattr.structure(GIVEN, CreateDeploymentSchema)
    assert without_defaults(bentoml_cattr.unstructure(understood)) == without_defaults(GIVEN)


def without_defaults(value):
    if isinstance(value, dict):
        kept = {key: without_defaults(item) for key, item in value.items()}
        return {key: item for key, item in kept.items() if item not in (None, {}, [], False)}
    if isinstance(value, list):
        return [without_defaults(item) for item in value]
    return value


def test_it_names_the_services_of_the_bento():
    source = (ROOT / "service.py").read_text()
    assert set(GIVEN["services"]) == {"epithre_iris", "iris_engine"}
    assert all(f'"{name}"' in source for name in GIVEN["services"])


def test_its_settings_are_settings():
    for service in GIVEN["services"].values():
        envs = [*GIVEN["envs"], *service.get("envs", ())]
        Settings.from_env({env["name"]: env["value"] for env in envs})
