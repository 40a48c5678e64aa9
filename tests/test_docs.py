"""The docs say what the code does: settings, defaults, metrics, links."""

import dataclasses
import re
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from iris.api.metrics import Metrics
from iris.config import Settings
from iris.engine import metrics as engine_metrics

ROOT = Path(__file__).parents[1]
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()


def rows(text):
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("| `")
    ]


def test_every_setting_is_listed_with_its_default():
    section = OPERATIONS.split("## Settings")[1].split("## Models")[0]
    listed = {row[0].strip("`"): row[1].strip("`") for row in rows(section)}
    fields = {f"IRIS_{f.name.upper()}": f for f in dataclasses.fields(Settings)}
    assert listed.keys() == fields.keys()
    for name, field in fields.items():
        if field.default is not dataclasses.MISSING:
            is_float = isinstance(field.default, float)
            assert listed[name] == (f"{field.default:g}" if is_float else str(field.default)), name


def test_every_metric_of_ours_is_listed_and_no_other():
    assert engine_metrics.STEPS  # imported: it fills the default registry
    ours = set()
    for registry in (REGISTRY, Metrics().registry):
        for metric in registry.collect():
            if metric.name.startswith("iris_"):
                total = "_total" if metric.type == "counter" else ""
                ours.add(metric.name + total)
    listed = set(re.findall(r"`(iris_\w+)(?:\{[^}]*\})?`", OPERATIONS))
    assert listed == ours


PAGES = sorted(
    page.relative_to(ROOT).as_posix()
    for pattern in ("*.md", "docs/**/*.md", "models/*/*.md")
    for page in ROOT.glob(pattern)
)


def anchors(text):
    """What the headings of a page are linked by."""
    headings = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {
        re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings
    }


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page):
    path = ROOT / page
    for target, anchor in re.findall(r"\]\(([^)#:]*)(?:#([^)]*))?\)", path.read_text()):
        found = path.parent / target if target else path
        assert found.exists(), target
        assert not anchor or anchor in anchors(found.read_text()), f"{target}#{anchor}"


@pytest.mark.parametrize("page", PAGES)
def test_every_line_of_a_table_has_the_cells_of_its_head(page):
    cells = 0
    for line in (ROOT / page).read_text().splitlines():
        if not line.startswith("|"):
            cells = 0
            continue
        found = len(re.sub(r"\\\||`[^`]*`", "", line).split("|"))
        assert cells in (0, found), line
        cells = found
