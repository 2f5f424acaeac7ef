"""The dashboard as it is stored: fresh, taken by promtool, and about figures that there are."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.arch.repository import ROOT
from tests.arch.test_docs import fault
from tests.promql import OF_THE_SCRAPE, unknown_names, used_labels
from tests.promtool import promtool

SCRIPT: Final = ROOT / "scripts" / "generate_dashboard.py"
FILE: Final = ROOT / "deploy" / "grafana" / "daylily.json"
BOARD: Final[Mapping[str, Any]] = json.loads(FILE.read_text())
PANELS: Final[Mapping[str, Any]] = {panel["title"]: panel for panel in BOARD["panels"]}
TARGETS: Final = [target for panel in PANELS.values() for target in panel["targets"]]
every_panel = pytest.mark.parametrize("title", PANELS)
every_target = pytest.mark.parametrize("target", TARGETS, ids=lambda target: target["expr"])


def generate(*arguments: str) -> subprocess.CompletedProcess[str]:
    argv = (sys.executable, str(SCRIPT), *arguments)
    return subprocess.run(argv, capture_output=True, text=True, check=False)


def test_the_stored_dashboard_is_what_the_script_makes(tmp_path: Path) -> None:
    assert generate("--check").stderr == ""
    copy = tmp_path / "daylily.json"
    copy.write_text(FILE.read_text().replace("daylily_slots", "daylily_places"))
    stale = generate("--check", str(copy))
    assert (stale.returncode, stale.stderr) == (1, "daylily.json is stale: run `make docs`.\n")
    assert generate(str(copy)).returncode == 0
    assert copy.read_bytes() == FILE.read_bytes()


def checked(*expressions: str, folder: Path) -> subprocess.CompletedProcess[str]:
    rules = [{"record": f"panel_{n}", "expr": expr} for n, expr in enumerate(expressions)]
    file = folder / "rules.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    argv = (str(promtool()), "check", "rules", str(file))
    return subprocess.run(argv, capture_output=True, text=True, check=False)


def test_promtool_takes_every_expression(tmp_path: Path) -> None:
    said = checked(*(target["expr"] for target in TARGETS), folder=tmp_path)
    assert said.returncode == 0, said.stderr
    assert f"{len(TARGETS)} rules found" in said.stdout
    assert checked("sum by daylily_slots", folder=tmp_path).returncode != 0


@every_target
def test_each_name_and_label_is_that_of_a_figure(target: Mapping[str, Any]) -> None:
    assert unknown_names(target["expr"]) == set()
    assert re.search(r"daylily_\w+", target["expr"])


@every_target
def test_a_legend_names_labels_that_its_series_have(target: Mapping[str, Any]) -> None:
    expression, legend = target["expr"], set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
    grouped = re.search(r"\bby \(([^)]*)\)", expression)
    if grouped:
        assert legend <= set(re.split(r"\W+", grouped[1])) - {"le"}
    else:
        folder = {"folder"} if "daylily_disk" in expression else set()
        assert legend <= OF_THE_SCRAPE | folder
    assert set(used_labels(expression)) - {"instance", "le"} <= legend


@every_panel
def test_a_panel_asks_a_question_of_the_chosen_source_and_has_room(title: str) -> None:
    panel = PANELS[title]
    assert title.endswith("?")
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert {target["datasource"]["uid"] for target in panel["targets"]} == {"${datasource}"}
    assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
    assert panel["options"]["legend"]["showLegend"]
    for command in re.findall(r"`(daylily-daemon [^`]*)`", panel["description"]):
        assert fault(shlex.split(command)) == ""


def test_no_two_panels_lie_over_each_other() -> None:
    cells: set[tuple[int, int]] = set()
    for panel in PANELS.values():
        at = panel["gridPos"]
        mine = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & mine
        assert at["x"] + at["w"] <= 24
        cells |= mine
    assert len(PANELS) == len(BOARD["panels"])


def test_source_and_daemons_are_chosen_in_the_dashboard() -> None:
    variables = {one["name"]: one for one in BOARD["templating"]["list"]}
    assert variables["datasource"]["query"] == "prometheus"
    assert unknown_names(variables["instance"]["query"]) == set()
    assert set(re.findall(r"\$(\w+)", json.dumps(TARGETS))) <= variables.keys()
