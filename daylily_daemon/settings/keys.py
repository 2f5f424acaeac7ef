"""Every setting by its dotted key (``daemon.sweep_s``): its variables, its value, how it is shown."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, get_origin

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

from daylily_daemon.settings.fields import Section
from daylily_daemon.settings.model import RetryPattern, Settings

VARIABLE_PREFIX: Final = "DAYLILY_"

OLD_NAMES: Final[Mapping[str, tuple[str, ...]]] = {
    "aws.region": ("AWS_REGION", "AWS_DEFAULT_REGION"),
    "aws.profile": ("AWS_PROFILE",),
    "aws.endpoint_url": ("AWS_ENDPOINT_URL",),
    "control.bucket": ("DAYLILY_CONTROL_BUCKET", "DAYLILY_MONITOR_BUCKET", "S3_BUCKET"),
    "control.prefix": ("S3_PREFIX",),
    "tables.worksets": ("WORKSET_TABLE_NAME", "DAYLILY_DYNAMODB_TABLE"),
    "topic.sns_topic_arn": ("DAYLILY_SNS_TOPIC_ARN", "SNS_TOPIC_ARN"),
    "notifications.linear.api_key": ("LINEAR_API_KEY",),
    "notifications.linear.team_id": ("LINEAR_TEAM_ID",),
    "log.level": ("DAYLILY_LOG_LEVEL",),
}
"""Variables of the old system and of the AWS tools, strongest first; empty ones are skipped."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """One setting: its dotted key and what its model says of it."""

    key: str
    field: FieldInfo

    @property
    def default(self) -> Any:
        return self.field.default

    @property
    def plain(self) -> Any:
        """The default as YAML has it: text, numbers, lists."""
        return to_jsonable_python(self.default, fallback=SecretStr.get_secret_value)

    @property
    def meaning(self) -> str:
        return self.field.description or ""

    @property
    def secret(self) -> bool:
        return isinstance(self.default, SecretStr)

    @property
    def many(self) -> bool:
        return get_origin(self.field.annotation) is tuple

    @property
    def restart(self) -> bool:
        """Whether a new value counts only after the daemon has started again."""
        extra = self.field.json_schema_extra
        return isinstance(extra, dict) and "restart" in extra


@dataclass(frozen=True, slots=True)
class Changes:
    live: tuple[str, ...]
    needs_restart: tuple[str, ...]


def section_of(info: FieldInfo) -> type[Section] | None:
    kind = info.annotation
    return kind if isinstance(kind, type) and issubclass(kind, Section) else None


def _leaves(model: type[BaseModel], prefix: str = "") -> Iterator[Leaf]:
    for name, info in model.model_fields.items():
        section = section_of(info)
        if section:
            yield from _leaves(section, f"{prefix}{name}.")
        else:
            yield Leaf(prefix + name, info)


def _within(key: str) -> str:
    return key.rpartition(".")[0]


LEAVES: Final[Mapping[str, Leaf]] = {leaf.key: leaf for leaf in _leaves(Settings)}
"""Every setting by its dotted key, in the order of the models."""

_NAMES: Final = tuple({_within(key) for key in LEAVES} | LEAVES.keys())


def variable(key: str) -> str:
    """Return the environment variable of a dotted key."""
    return VARIABLE_PREFIX + key.upper().replace(".", "__")


def nearest(key: str) -> str | None:
    """Return the setting or section that was probably meant."""
    section, _, name = key.rpartition(".")
    siblings = {known.rpartition(".")[2]: known for known in _NAMES if _within(known) == section}
    if near := difflib.get_close_matches(name, siblings, n=1):
        return siblings[near[0]]
    elsewhere = [known for known in LEAVES if known.rpartition(".")[2] == name]
    return next(iter(elsewhere or difflib.get_close_matches(key, LEAVES, n=1, cutoff=0.8)), None)


def value_of(settings: Settings, key: str) -> Any:
    value: Any = settings
    for name in key.split("."):
        value = getattr(value, name)
    return value


def changes(old: Settings, new: Settings) -> Changes:
    """Return the keys whose values differ: what may be swapped now, and what a restart is needed for."""
    differing = [leaf for key, leaf in LEAVES.items() if value_of(old, key) != value_of(new, key)]
    return Changes(
        live=tuple(leaf.key for leaf in differing if not leaf.restart),
        needs_restart=tuple(leaf.key for leaf in differing if leaf.restart),
    )


def displayed(value: object) -> str:
    """Return a value for people: ``set`` or ``not set`` for a secret, empty for none."""
    match value:
        case SecretStr():
            return "set" if value.get_secret_value() else "not set"
        case None:
            return ""
        case bool():
            return str(value).lower()
        case float():
            return str(int(value)) if value.is_integer() else str(value)
        case tuple():
            return ", ".join(map(displayed, value))
        case RetryPattern():
            return value.code
        case _:
            return str(value)
