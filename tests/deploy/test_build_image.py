"""How an image is laid out again: everything that it was is kept, in layers that change apart."""

import re

import pytest
from build_image import BENTO, PACKAGES, USER, containerfile, credentials, left_environment

CONFIG = {
    "Env": ["PATH=/app/.venv/bin:/bin", "BENTOML_HOME=/home/bentoml/", 'ODD=a "b" = $c'],
    "ExposedPorts": {"3001/tcp": {}, "3000/tcp": {}},
    "WorkingDir": BENTO,
    "Entrypoint": [f"{BENTO}/env/docker/entrypoint.sh"],
}


@pytest.fixture
def last_stage():
    lines = containerfile("raw:1", CONFIG, {"who": 'says "hello"'}).splitlines()
    return lines[lines.index("FROM scratch") :]


def test_what_changes_least_comes_first(last_stage):
    copied = [line.split()[-1] for line in last_stage if line.startswith("COPY")]
    assert copied == ["/", PACKAGES, f"{BENTO}/models", BENTO]


def test_variables_ports_and_entry_point_are_kept(last_stage):
    text = "\n".join(last_stage)
    assert 'PATH="/app/.venv/bin:/bin"' in text
    assert r'ODD="a \"b\" = $c"' in text.replace(r"\$", "$")
    assert "EXPOSE 3000/tcp 3001/tcp" in text
    assert f"WORKDIR {BENTO}" in text
    assert f'ENTRYPOINT ["{BENTO}/env/docker/entrypoint.sh"]' in text
    assert r'LABEL who="says \"hello\""' in text


def test_the_user_is_a_number_and_comes_last(last_stage):
    users = [line for line in last_stage if line.startswith("USER")]
    assert users == [f"USER {USER}:{USER}"]
    assert not re.search(r"^RUN", "\n".join(last_stage), re.MULTILINE)


def test_a_dollar_in_a_value_stays_one(last_stage):
    assert r"\$c" in "\n".join(last_stage)  # or the builder would put a variable there


def test_what_the_command_left_is_read_like_a_shell_would(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert left_environment() == {}
    (tmp_path / "image.env").write_text("export A=1 B='two words'\n# C=3\n")
    assert left_environment() == {"A": "1", "B": "two words"}


@pytest.mark.parametrize(
    ("lock", "leaked"),
    [
        ("--index-url https://me:secret@packages.example/simple\na==1\n", "https://...@packages"),
        ("--find-links https://token@packages.example/x\n", "https://...@packages"),
        ("--index-url https://packages.example/simple\na==1 ; python_version > '3'\n", None),
        ("a @ https://packages.example/a@1.whl\n", None),
    ],
)
def test_a_password_in_a_lock_is_seen_and_not_repeated(lock, leaked):
    found = credentials(lock)
    assert (found or "").startswith(leaked or "")
    assert bool(found) == bool(leaked)
    assert "secret" not in str(found)
