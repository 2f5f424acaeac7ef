"""Where settings come from, what is wrong with them, and what a reload may change.

Five sources, each stronger than the one before: ``config/default.yaml``, the state directory systemd
hands over, the file of ``--config``, the environment, the command line. Each is flattened to dotted keys
(``daemon.sweep_s``) with the place where the value was written, so that the effective settings can say
where each came from, and every problem names the line or the variable to mend. All problems are found at
once: unknown keys of any source, then what the models refuse. Secrets appear in no problem or listing.

The models carry the defaults. ``config/default.yaml`` repeats them for people; it is read first, so that
an edit of it counts, and may be missing.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final, get_origin

from pydantic import BaseModel, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from daylily_daemon.adapters.aws import config_file, profile_region
from daylily_daemon.domain.document import BadDocument, Document, parse, shown
from daylily_daemon.domain.errors import DaemonError
from daylily_daemon.domain.model import Category, Problem
from daylily_daemon.settings_model import RetryPattern, Section, Settings

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

Keys = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Leaf:
    """One setting: its dotted key and what its model says of it."""

    key: str
    field: FieldInfo

    @property
    def default(self) -> Any:
        return self.field.default

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


def variable(key: str) -> str:
    """Return the environment variable of a dotted key."""
    return VARIABLE_PREFIX + key.upper().replace(".", "__")


def _section(info: FieldInfo) -> type[Section] | None:
    kind = info.annotation
    return kind if isinstance(kind, type) and issubclass(kind, Section) else None


def _leaves(model: type[BaseModel], prefix: str = "") -> Iterator[Leaf]:
    for name, info in model.model_fields.items():
        section = _section(info)
        if section:
            yield from _leaves(section, f"{prefix}{name}.")
        else:
            yield Leaf(prefix + name, info)


LEAVES: Final[Mapping[str, Leaf]] = {leaf.key: leaf for leaf in _leaves(Settings)}
"""Every setting by its dotted key, in the order of the models."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    config: Path | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    command_line: Mapping[str, str] = field(default_factory=dict)
    """Dotted key to text, as ``--set key=text`` and the flags of the command give it."""
    required: tuple[str, ...] = ()
    """Keys the command cannot do without, though they have no default."""


@dataclass(frozen=True, slots=True)
class Loaded:
    settings: Settings
    origin: Mapping[str, str]
    """Dotted key to ``default``, ``<file> line <n>``, ``environment <name>`` or ``command line``."""


@dataclass(frozen=True, slots=True)
class Row:
    key: str
    value_shown: str
    """``set`` or ``not set`` for a secret."""
    origin: str


@dataclass(frozen=True, slots=True)
class Changes:
    live: tuple[str, ...]
    needs_restart: tuple[str, ...]


class BadSettings(DaemonError):
    """Everything that is wrong with the settings, each with its place."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


def shipped(name: str) -> Path:
    """Return the path of a file or folder of ``config/``.

    A wheel carries the folder as ``_config``. In a checkout that is a link to ``config/``; where a checkout
    came without its links (they are then small text files), the folder itself lies beside the package.
    """
    package = Path(__file__).parent
    carried = package / "_config"
    return (carried if carried.is_dir() else package.parent / "config") / name


def load(sources: Sources) -> Loaded:
    """Read every source and check the whole. Raises BadSettings with all problems at once."""
    reading = _Reading(sources)
    if shipped("default.yaml").exists():
        reading.take_file(shipped("default.yaml"))
    reading.take_state_directory()
    if sources.config:
        reading.take_file(sources.config)
    reading.take_environment()
    reading.take_command_line()
    reading.take_profile_region()
    reading.take_secret_files()
    reading.require()
    settings = reading.validated()
    if settings is None or reading.problems:
        raise BadSettings(tuple(reading.problems))
    return Loaded(settings, {key: reading.origin(key, settings) for key in LEAVES})


def describe(loaded: Loaded) -> list[Row]:
    """Return every setting as it counts now, secrets masked."""
    return [Row(key, _shown(value_of(loaded.settings, key)), loaded.origin[key]) for key in LEAVES]


def changes(old: Settings, new: Settings) -> Changes:
    """Return the keys whose values differ: what may be swapped now, and what a restart is needed for."""
    differing = [leaf for key, leaf in LEAVES.items() if value_of(old, key) != value_of(new, key)]
    return Changes(
        live=tuple(leaf.key for leaf in differing if not leaf.restart),
        needs_restart=tuple(leaf.key for leaf in differing if leaf.restart),
    )


def table() -> str:
    """Return every setting as the Markdown table of the README."""
    lines = ["| setting | default | meaning | reload | other variables |", "|---|---|---|---|---|"]
    for key, leaf in LEAVES.items():
        default = "" if leaf.secret else _shown(leaf.default)
        default = f"`{default}`" if default else ""
        names = ", ".join(f"`{name}`" for name in OLD_NAMES.get(key, ()))
        reload = "restart" if leaf.restart else "live"
        lines.append(f"| `{key}` | {default} | {leaf.meaning} | {reload} | {names} |")
    return "\n".join(lines) + "\n"


def value_of(settings: Settings, key: str) -> Any:
    value: Any = settings
    for name in key.split("."):
        value = getattr(value, name)
    return value


def _shown(value: object) -> str:
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
            return ", ".join(map(_shown, value))
        case RetryPattern():
            return value.code
        case _:
            return str(value)


@dataclass(frozen=True, slots=True)
class Place:
    file: str
    where: str = ""

    def __str__(self) -> str:
        return f"{self.file} {self.where}".strip()


@dataclass(frozen=True, slots=True)
class Given:
    value: Any
    at: Callable[[Keys], Place]
    """Where this value, or a part of it, was written."""


def _line(document: Document, keys: Keys) -> Place:
    """Return the line of what ``keys`` name, or of what it would belong to."""
    known = (document.line_of(*keys[:end]) for end in range(len(keys), 0, -1))
    line = next(filter(None, known), None)
    return Place(document.file, f"line {line}" if line else "")


def _dotted(keys: Keys) -> str:
    return ".".join(map(str, keys))


def _nearest(key: str) -> str | None:
    """Return the setting or section that was probably meant."""
    section, _, name = key.rpartition(".")
    siblings = {known.rpartition(".")[2]: known for known in _NAMES if _within(known) == section}
    if near := difflib.get_close_matches(name, siblings, n=1):
        return siblings[near[0]]
    elsewhere = [known for known in LEAVES if known.rpartition(".")[2] == name]
    return next(iter(elsewhere or difflib.get_close_matches(key, LEAVES, n=1, cutoff=0.8)), None)


def _secret_of(key: str) -> str:
    """Return the setting whose value stands in the file that ``key`` names, if it is such a key."""
    return key.removesuffix("_file") if key.endswith("_file") else ""


def _within(key: str) -> str:
    return key.rpartition(".")[0]


_NAMES: Final = tuple({_within(key) for key in LEAVES} | LEAVES.keys())


def _expected(error: ErrorDetails, *, secret: bool) -> str:
    """Return the rest of a sentence that begins with the key; shows no secret."""
    match error["type"]:
        case "missing":
            return "is missing"
        case "extra_forbidden":
            return f"is unknown; known are {', '.join(RetryPattern.model_fields)}"
        case "model_type":
            expected = "a mapping"
        case "value_error":
            expected = str(error["ctx"]["error"])
        case _:
            expected = error["msg"].removeprefix("Input should be ")
    if secret:
        return f"must be {expected}"
    found = re.sub(r"//[^/@\s]*@", "//***@", str(error["input"]))
    return f"is {shown(found)}, but must be {expected}"


class _Reading:
    """What the sources gave so far, the stronger over the weaker, and what was wrong with it."""

    def __init__(self, sources: Sources) -> None:
        self.sources = sources
        self.given: dict[str, Given] = {}
        self.problems: list[Problem] = []

    def report(self, place: Place, what: str, todo: str) -> None:
        problem = Problem(place.file, place.where, what, todo, Category.CONFIGURATION)
        self.problems.append(problem)

    def take_file(self, path: Path) -> None:
        try:
            document = parse(path.read_bytes(), str(path))
        except BadDocument as bad:
            self.problems.append(bad.problem)
        except OSError as error:
            what = f"The file cannot be read: {error.strerror}."
            self.report(Place(str(path)), what, "Check its name and permissions.")
        else:
            at = partial(_line, document)
            self.take_mapping(Settings, (), Given(document.value, at))

    def take_mapping(self, model: type[BaseModel], path: Keys, found: Given) -> None:
        """Flatten one section; what is empty in it counts as not written."""
        if found.value is None:
            return
        if not isinstance(found.value, Mapping):
            what = f"{_dotted(path) or 'The file'} is not a mapping of settings."
            self.report(found.at(path), what, "Write one `key: value` a line.")
            return
        for name, value in found.value.items():
            here = (*path, name)
            info = model.model_fields.get(name)
            section = info and _section(info)
            if info is None:
                self.unknown(_dotted(here), found.at(here))
            elif section:
                self.take_mapping(section, here, Given(value, found.at))
            elif value is not None:
                self.given[_dotted(here)] = Given(value, found.at)

    def unknown(self, key: str, place: Place, spell: Callable[[str], str] = str) -> None:
        nearest = _nearest(key)
        hint = f"Did you mean {spell(nearest)}?" if nearest else "The README lists every setting."
        self.report(place, f"There is no setting {key}.", hint)

    def take_text(self, key: str, text: str, place: Place) -> None:
        """Take a value from a variable or the command line: lists as ``a, b`` or as YAML in brackets."""
        value: Any = text
        if LEAVES[key].many and text.lstrip().startswith("["):
            try:
                value = parse(text.encode(), f"{place}").value
            except BadDocument as bad:
                self.problems.append(bad.problem)
                return
        elif LEAVES[key].many:
            value = [part.strip() for part in text.split(",") if part.strip()]
        self.given[key] = Given(value, lambda _: place)

    def take_state_directory(self) -> None:
        first = self.sources.environment.get("STATE_DIRECTORY", "").split(":")[0]
        if first:
            self.take_text("daemon.state_dir", first, Place("environment", "STATE_DIRECTORY"))

    def take_environment(self) -> None:
        environment = self.sources.environment
        for key, names in OLD_NAMES.items():
            name = next((name for name in names if environment.get(name)), None)
            if name:
                self.take_text(key, environment[name], Place("environment", name))
        for name in sorted(environment):
            if not name.startswith(VARIABLE_PREFIX) or "__" not in name:
                continue
            key = name.removeprefix(VARIABLE_PREFIX).replace("__", ".").lower()
            place = Place("environment", name)
            if key in LEAVES:
                self.take_text(key, environment[name], place)
            else:
                self.unknown(key, place, variable)

    def take_command_line(self) -> None:
        place = Place("command line")
        for key, text in self.sources.command_line.items():
            if key not in LEAVES:
                self.unknown(key, place)
            elif LEAVES[key].secret:
                what = f"{key} is a secret, and every user of the machine sees command lines."
                todo = f"Use {key}_file or the variable {variable(key)}."
                self.report(place, what, todo)
            else:
                self.take_text(key, text, place)

    def take_profile_region(self) -> None:
        """As with other AWS tools, the profile's region outweighs the default, and nothing else does."""
        given, profile = self.given.get("aws.region"), self.given.get("aws.profile")
        if given and given.value != LEAVES["aws.region"].default:
            return
        if given and self.place("aws.region").file != str(shipped("default.yaml")):
            return
        environment = self.sources.environment
        name = str(profile.value) if profile else ""
        if region := profile_region(environment, name):
            where = f"(profile {name or 'default'})"
            self.take_text("aws.region", region, Place(config_file(environment), where))

    def take_secret_files(self) -> None:
        for key in [key for key in self.given if LEAVES.get(_secret_of(key))]:
            name, secret, place = self.given[key].value, _secret_of(key), self.place(key)
            if not name or not isinstance(name, str):
                continue
            if secret in self.given and self.given[secret].value:
                what = f"{key} and {secret} ({self.place(secret)}) are both set."
                self.report(place, what, "Keep one of them.")
            else:
                self.take_secret(secret, name, place)

    def take_secret(self, key: str, name: str, place: Place) -> None:
        try:
            path = self.secret_path(name)
            text = path.read_bytes().decode().strip()
        except UnicodeDecodeError:
            self.report(place, f"The file {name} of {key} is not UTF-8.", "Write the bare value.")
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            what = f"The file {shown(name)} of {key} cannot be read: {why}."
            self.report(place, what, "Check its name and permissions.")
        else:
            self.given[key] = Given(text, lambda _: Place("file", str(path)))
            if not text:
                self.report(place, f"The file {name} of {key} is empty.", "Write the bare value.")

    def secret_path(self, name: str) -> Path:
        """Return where ``name`` is: absolute, a systemd credential, or beside the configuration file."""
        beside = self.sources.config.parent if self.sources.config else Path()
        credentials = self.sources.environment.get("CREDENTIALS_DIRECTORY")
        credential = Path(credentials or beside) / name
        return credential if credential.exists() else beside / name

    def require(self) -> None:
        for key in self.sources.required:
            if key not in self.given or self.given[key].value == "":
                todo = (
                    f"Set it in the file of --config or by {variable(key)}: {LEAVES[key].meaning}"
                )
                self.report(Place("settings", key), "It has no value, and needs one.", todo)

    def validated(self) -> Settings | None:
        nested: dict[str, Any] = {}
        for key, given in self.given.items():
            *sections, name = key.split(".")
            inner = nested
            for section in sections:
                inner = inner.setdefault(section, {})
            inner[name] = given.value
        try:
            return Settings.model_validate(nested)
        except ValidationError as refused:
            for error in refused.errors(include_url=False):
                self.refused(error)
        return None

    def refused(self, error: ErrorDetails) -> None:
        if error["type"] == "clash":
            self.clashing(_dotted(error["loc"]), error["ctx"])
            return
        keys = error["loc"]
        key = next(k for k in LEAVES if f"{_dotted(keys)}.".startswith(f"{k}."))
        what = f"{_dotted(keys)} {_expected(error, secret=LEAVES[key].secret)}."
        self.report(self.given[key].at(keys), what, f"Its meaning: {LEAVES[key].meaning}")

    def clashing(self, section: str, context: Mapping[str, Any]) -> None:
        keys = [f"{section}.{name}" for name in context["keys"]]
        places = [self.place(key) for key in keys if key in self.given]
        written = [place for place in places if place.file != str(shipped("default.yaml"))]
        place = next(iter(written or places), Place("settings", section))
        self.report(place, f"{section}: {context['message']}.", f"Change {' or '.join(keys)}.")

    def place(self, key: str) -> Place:
        return self.given[key].at(tuple(key.split(".")))

    def origin(self, key: str, settings: Settings) -> str:
        if key not in self.given:
            return "default"
        place = self.place(key)
        untouched = value_of(settings, key) == LEAVES[key].default
        from_default = untouched and place.file == str(shipped("default.yaml"))
        return "default" if from_default else str(place)
