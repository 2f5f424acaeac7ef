"""Every setting is documented, in default.yaml and the README, and read by the program."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from pathlib import Path

import pytest
import yaml

from daylily_daemon.settings.keys import LEAVES
from daylily_daemon.settings.model import Settings
from daylily_daemon.settings.notifications import ChannelSettings
from daylily_daemon.settings.sources import Sources, load, shipped
from tests.arch.repository import ROOT

PACKAGE = ROOT / "daylily_daemon"
README = ROOT / "README.md"
LAYERS_THAT_MAY_READ = (
    "__main__.py",
    "bootstrap.py",
    "channels.py",
    "in_force.py",
    "runners.py",
    "composition/*.py",
    "cli/**/*.py",
)
UNITS = {"_s": "in seconds"}

Read = tuple[str, str]
"""What an attribute was taken from, by its last name, and the attribute."""


def keys_of(found: object, prefix: str = "") -> set[str]:
    if not isinstance(found, dict):
        return {prefix.removesuffix(".")}
    return {key for name, inner in found.items() for key in keys_of(inner, f"{prefix}{name}.")}


def test_default_yaml_is_where_the_package_looks_for_it() -> None:
    assert shipped("default.yaml").samefile(ROOT / "config" / "default.yaml")


def test_default_yaml_holds_every_setting_and_nothing_else() -> None:
    assert keys_of(yaml.safe_load(shipped("default.yaml").read_text())) == set(LEAVES)


def test_default_yaml_as_a_file_of_ones_own_changes_nothing() -> None:
    assert load(Sources(config=shipped("default.yaml"))).settings == Settings()


def test_default_yaml_explains_every_setting_in_the_words_of_the_models() -> None:
    text = re.sub(r"\n *# ", " ", shipped("default.yaml").read_text())
    for key, leaf in LEAVES.items():
        *sections, name = key.split(".")
        assert f" {leaf.meaning}\n{'  ' * len(sections)}{name}: " in text


def test_the_table_of_the_readme_has_a_row_for_every_setting() -> None:
    table = re.search(r"generated: settings -->\n(.*?)<!-- end", README.read_text(), re.DOTALL)
    assert table
    rows = [line.split(" | ") for line in table[1].splitlines()[2:]]
    assert [row[0].strip("| `") for row in rows] == list(LEAVES)
    assert {len(row) for row in rows} == {5}


@pytest.mark.parametrize("key", LEAVES)
def test_every_setting_says_what_it_means_and_in_which_unit(key: str) -> None:
    meaning = LEAVES[key].meaning
    assert meaning.endswith(".")
    assert len(meaning) > 15
    for suffix, unit in UNITS.items():
        assert not key.endswith(suffix) or unit in meaning


def reads(source: str) -> set[Read]:
    """Return what is taken from what; a name that an attribute was assigned to stands for it."""
    nodes = list(ast.walk(ast.parse(source)))
    stands_for: dict[str, set[str]] = {}
    for node in nodes:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Attribute(attr=section)):
                stands_for.setdefault(name, set()).add(section)
    found: set[Read] = set()
    for node in nodes:
        match node:
            case ast.Attribute(value=ast.Attribute(attr=section), attr=name):
                found.add((section, name))
            case ast.Attribute(value=ast.Name(id=base), attr=name):
                found |= {(section, name) for section in {base, *stands_for.get(base, ())}}
            case ast.Attribute(attr=name):
                found.add(("", name))
    return found


def unread(keys: Iterable[str], found: set[Read]) -> set[str]:
    """Return the settings of which no code takes ``<section>.<name>``.

    What all channels have in common may be read in a loop over them, under any name. A ``…_file`` is
    read by the settings themselves.
    """
    anywhere = {name for _, name in found} & set(ChannelSettings.model_fields)
    missing = set()
    for key in keys:
        section, name = key.split(".")[-2:]
        by_settings = key.endswith("_file") and key.removesuffix("_file") in LEAVES
        if not by_settings and (section, name) not in found and name not in anywhere:
            missing.add(key)
    return missing


def sources() -> list[Path]:
    return [path for pattern in LAYERS_THAT_MAY_READ for path in PACKAGE.glob(pattern)]


def test_every_setting_is_read() -> None:
    found: set[Read] = set()
    for path in sources():
        found |= reads(path.read_text())
    assert sorted(unread(LEAVES, found)) == []


READER = """
def f(settings, path):
    ours = settings.queues
    use(ours.wait_s, path.dir)
"""


def test_a_setting_that_nobody_reads_is_found() -> None:
    asked = ("queues.wait_s", "inputs.wait_s", "pipelines.dir", "notifications.sns.enabled")
    assert unread(asked, reads(READER)) == set(asked[1:])
    assert unread(asked[3:], reads("[c.enabled for c in channels]")) == set()
