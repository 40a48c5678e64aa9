"""docs/deploy.md says what there is: targets, commands, folders, and the count of pods."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest
from replicas import cost_model, mean_s, pods_for, simulate

from iris.cli import _parser

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "deploy.md").read_text()
BLOCKS = re.findall(r"^```bash\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
LINES = [line for block in BLOCKS for line in block.replace("\\\n", " ").splitlines()]


def rows(head):
    """The cells of the table with this head."""
    lines = PAGE.split(head)[1].splitlines()[2:]
    table = lines[: next(n for n, line in enumerate(lines) if not line.startswith("|"))]
    return [[cell.strip(" *") for cell in line.strip("|").split("|")] for line in table]


@pytest.mark.parametrize("line", [line for line in LINES if line.startswith("make ")])
def test_every_target_of_make_exists(line):
    subprocess.run(["make", "--dry-run", *shlex.split(line)[1:]], cwd=ROOT, check=True)


def test_every_command_of_ours_is_understood():
    commands = [re.search(r"\biris ((?:keys|models|health|drain)\b[^;|]*)", line) for line in LINES]
    found = [shlex.split(command[1]) for command in commands if command]
    assert len(found) >= 5
    for words in found:
        _parser().parse_args(words)


def test_every_folder_it_names_is_there():
    named = set(re.findall(r"\bdeploy/[\w./-]*\w", PAGE)) - {"deploy/.env", "deploy/epithre-iris"}
    assert len(named) > 5
    for name in named:
        assert (ROOT / name).exists(), name


def test_the_count_of_pods_is_what_the_simulation_says():
    (load,) = (float(row[0]) for row in rows("| load of a pod |") if row[0] == "0.75")
    cost = cost_model(1.3)
    assert f"a picture of this mix {mean_s(cost):.2f} s" in PAGE
    assert [int(pods) for _, pods in rows("| pictures a second |")] == [
        pods_for(float(rate), cost, load) for rate, _ in rows("| pictures a second |")
    ]
    assert simulate(cost, load, 20_000).is_good
    assert not simulate(cost, 0.80, 20_000).is_good
