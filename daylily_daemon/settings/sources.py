"""Where settings come from, and what is wrong with them.

pydantic-settings asks the sources below, strongest first, lays their answers over each other and checks
the whole. Each source knows where every value was written, so that the effective settings can say where
they came from, and every problem names the line or the variable to correct. All problems are found at once:
unknown keys of any source, then what the models refuse. Secrets appear in no problem or listing.
"""

from __future__ import annotations

import re
from collections import ChainMap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from pydantic_settings import PydanticBaseSettingsSource

from daylily_daemon.adapters.aws import config_file, profile_region
from daylily_daemon.application.errors import Invalid
from daylily_daemon.domain.document import BadDocument, Document, parse, shown
from daylily_daemon.domain.model import Category, Problem
from daylily_daemon.settings.keys import (
    LEAVES,
    OLD_NAMES,
    VARIABLE_PREFIX,
    displayed,
    nearest,
    section_of,
    value_of,
    variable,
)
from daylily_daemon.settings.model import RetryPattern, Settings

Keys = tuple[str | int, ...]


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
class Effective:
    key: str
    value_shown: str
    """``set`` or ``not set`` for a secret."""
    origin: str


class BadSettings(Invalid):
    """Everything that is wrong with the settings, each with its place."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


def shipped(name: str) -> Path:
    """Return the path of a file or folder of ``config/``.

    A wheel carries the folder as ``_config``. In a checkout that is a link to ``config/``; where a checkout
    came without its links (they are then small text files), the folder itself lies beside the package.
    """
    package = Path(__file__).parent.parent
    carried = package / "_config"
    return (carried if carried.is_dir() else package.parent / "config") / name


def load(sources: Sources) -> Loaded:
    """Read every source and check the whole. Raises BadSettings with all problems at once."""
    ordered = _by_rank(sources)
    given = ChainMap(*(source.given for source in ordered))
    settings, refused = _validated(ordered, given)
    found = [problem for source in reversed(ordered) for problem in source.problems]
    found += [*_missing(sources.required, given), *refused]
    if settings is None or found:
        raise BadSettings(tuple(found))
    origin = {key: str(given[key].place(key)) if key in given else "default" for key in LEAVES}
    return Loaded(settings, origin)


def state_dir_of(sources: Sources) -> Path:
    """Return the state directory that is meant, even where other settings make no sense."""
    key = "daemon.state_dir"
    given = ChainMap(*(source.given for source in _by_rank(sources)))
    value = given[key].value if key in given else None
    return Path(str(value or _named_in(sources.config) or LEAVES[key].default))


def _named_in(file: Path | None) -> str:
    """Return the state directory that a file names which cannot be understood as a whole."""
    try:
        text = file.read_text(errors="replace") if file else ""
    except OSError:
        return ""
    found = re.search(r"""\bstate_dir\s*:\s*["']?([^\s"'#,}]+)""", text)
    return found[1] if found else ""


def _by_rank(sources: Sources) -> tuple[Source, ...]:
    """Return every source, the strongest first."""
    default = shipped("default.yaml")
    written: list[Source] = [
        CommandLine(sources.command_line),
        Environment(sources.environment),
        *([File(sources.config)] if sources.config else []),
        StateDirectory(sources.environment),
        *([Shipped(default)] if default.exists() else []),
    ]
    secrets = SecretFiles(ChainMap(*(source.given for source in written)), sources)
    return (secrets, *written, Profile(sources.environment))


def describe(loaded: Loaded) -> list[Effective]:
    """Return every setting as it counts now, secrets masked."""
    return [
        Effective(key, displayed(value_of(loaded.settings, key)), loaded.origin[key])
        for key in LEAVES
    ]


def digests(settings: Settings) -> dict[str, str]:
    """Return 32 bits of a hash of every value that is not the default; of a secret, whether it is set."""
    shown = {key: displayed(value_of(settings, key)) for key in LEAVES}
    return {
        key: sha256(value.encode()).hexdigest()[:8]
        for key, value in shown.items()
        if value != displayed(LEAVES[key].default)
    }


@dataclass(frozen=True, slots=True)
class Written:
    file: str
    where: str = ""

    def __str__(self) -> str:
        return f"{self.file} {self.where}".strip()


@dataclass(frozen=True, slots=True)
class Given:
    value: Any
    at: Callable[[Keys], Written]
    """Where this value, or a part of it, was written."""

    def place(self, key: str) -> Written:
        return self.at(tuple(key.split(".")))


class Source(PydanticBaseSettingsSource):
    """What one source gives, by dotted key, and what was wrong with it."""

    def __init__(self) -> None:
        super().__init__(Settings)
        self.given: dict[str, Given] = {}
        self.problems: list[Problem] = []

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        return None, field_name, False  # whoever asks gets the whole tree

    def __call__(self) -> dict[str, Any]:
        tree: dict[str, Any] = {}
        for key, given in self.given.items():
            *sections, name = key.split(".")
            inner = tree
            for section in sections:
                inner = inner.setdefault(section, {})
            masked = LEAVES[key].secret and isinstance(given.value, str)
            inner[name] = SecretStr(given.value) if masked else given.value
        return tree

    def report(self, place: Written, what: str, todo: str) -> None:
        self.problems.append(_problem(place, what, todo))

    def unknown(self, key: str, place: Written, spell: Callable[[str], str] = str) -> None:
        near = nearest(key)
        hint = f"Did you mean {spell(near)}?" if near else "The README lists every setting."
        self.report(place, f"There is no setting {key}.", hint)

    def take_text(self, key: str, text: str, place: Written) -> None:
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


class CommandLine(Source):
    def __init__(self, texts: Mapping[str, str]) -> None:
        super().__init__()
        place = Written("command line")
        for key, text in texts.items():
            if key not in LEAVES:
                self.unknown(key, place)
            elif LEAVES[key].secret:
                what = f"{key} is a secret, and every user of the machine sees command lines."
                todo = f"Use {key}_file or the variable {variable(key)}."
                self.report(place, what, todo)
            else:
                self.take_text(key, text, place)


class Environment(Source):
    def __init__(self, environment: Mapping[str, str]) -> None:
        super().__init__()
        for key, names in OLD_NAMES.items():
            name = next((name for name in names if environment.get(name)), None)
            if name:
                self.take_text(key, environment[name], Written("environment", name))
        for name in sorted(environment):
            if not name.startswith(VARIABLE_PREFIX) or "__" not in name:
                continue
            key = name.removeprefix(VARIABLE_PREFIX).replace("__", ".").lower()
            place = Written("environment", name)
            if key in LEAVES:
                self.take_text(key, environment[name], place)
            else:
                self.unknown(key, place, variable)


class StateDirectory(Source):
    """The folder that systemd hands over."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        super().__init__()
        first = environment.get("STATE_DIRECTORY", "").split(":")[0]
        if first:
            self.take_text("daemon.state_dir", first, Written("environment", "STATE_DIRECTORY"))


class File(Source):
    def __init__(self, path: Path) -> None:
        super().__init__()
        try:
            document = parse(path.read_bytes(), str(path))
        except BadDocument as bad:
            self.problems.append(bad.problem)
        except OSError as error:
            what = f"The file cannot be read: {error.strerror}."
            self.report(Written(str(path)), what, "Check its name and permissions.")
        else:
            self.take_section(Settings, (), Given(document.value, partial(_line, document)))

    def take_section(self, model: type[BaseModel], path: Keys, found: Given) -> None:
        """Flatten one section; what is empty in it counts as not written."""
        if found.value is None:
            return
        if not isinstance(found.value, Mapping):
            what = f"{_dotted(path) or 'The file'} is not a mapping of settings."
            self.report(found.at(path), what, "Write one `key: value` per line.")
            return
        for name, value in found.value.items():
            here = (*path, name)
            info = model.model_fields.get(name)
            section = info and section_of(info)
            if info is None:
                self.unknown(_dotted(here), found.at(here))
            elif section:
                self.take_section(section, here, Given(value, found.at))
            elif value is not None:
                self.given[_dotted(here)] = Given(value, found.at)


class Shipped(File):
    """``config/default.yaml``, which repeats the defaults for people: what somebody changed there counts."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        for key in [key for key in self.given if self.given[key].value == LEAVES[key].plain]:
            del self.given[key]


class Profile(Source):
    """The region of the AWS profile: as with other AWS tools, it outweighs the default and nothing else."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        super().__init__()
        self._environment = environment

    def __call__(self) -> dict[str, Any]:
        name = str(self.current_state.get("aws", {}).get("profile", ""))
        if region := profile_region(self._environment, name):
            place = Written(config_file(self._environment), f"(profile {name or 'default'})")
            self.take_text("aws.region", region, place)
        return super().__call__()


class SecretFiles(Source):
    """The secrets in the files that ``…_file`` settings of the other sources name."""

    def __init__(self, given: Mapping[str, Given], sources: Sources) -> None:
        super().__init__()
        self._sources = sources
        for key, secret in _SECRETS.items():
            name = given[key].value if key in given else ""
            if not name or not isinstance(name, str):
                continue
            place = given[key].place(key)
            if secret in given and given[secret].value:
                what = f"{key} and {secret} ({given[secret].place(secret)}) are both set."
                self.report(place, what, "Keep one of them.")
            else:
                self.take_secret(secret, name, place)

    def take_secret(self, key: str, name: str, place: Written) -> None:
        try:
            path = self.path_of(name)
            text = path.read_bytes().decode().strip()
        except UnicodeDecodeError:
            what = f"The file {name} of {key} is not UTF-8."
            self.report(place, what, "Write the bare value.")
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            what = f"The file {shown(name)} of {key} cannot be read: {why}."
            self.report(place, what, "Check its name and permissions.")
        else:
            self.take_text(key, text, Written("file", str(path)))
            if not text:
                self.report(place, f"The file {name} of {key} is empty.", "Write the bare value.")

    def path_of(self, name: str) -> Path:
        """Return where ``name`` is: absolute, a systemd credential, or beside the configuration file."""
        beside = self._sources.config.parent if self._sources.config else Path()
        credentials = self._sources.environment.get("CREDENTIALS_DIRECTORY")
        credential = Path(credentials or beside) / name
        return credential if credential.exists() else beside / name


_SECRETS: Final = {f"{key}_file": key for key, leaf in LEAVES.items() if leaf.secret}
"""The secret by the setting that names its file."""


def _line(document: Document, keys: Keys) -> Written:
    """Return the line of what ``keys`` name, or of what it would belong to."""
    known = (document.line_of(*keys[:end]) for end in range(len(keys), 0, -1))
    line = next(filter(None, known), None)
    return Written(document.file, f"line {line}" if line else "")


def _dotted(keys: Keys) -> str:
    return ".".join(map(str, keys))


def _problem(place: Written, what: str, todo: str) -> Problem:
    return Problem(place.file, place.where, what, todo, Category.CONFIGURATION)


def _missing(required: tuple[str, ...], given: Mapping[str, Given]) -> list[Problem]:
    what, todo = "It has no value, and needs one.", "Set it in the file of --config or by {}: {}"
    return [
        _problem(Written("settings", key), what, todo.format(variable(key), LEAVES[key].meaning))
        for key in required
        if key not in given or given[key].value == ""
    ]


def _validated(
    sources: tuple[Source, ...], given: Mapping[str, Given]
) -> tuple[Settings | None, list[Problem]]:
    try:
        return Settings(*sources), []
    except ValidationError as refused:
        return None, [_refused(error, given) for error in refused.errors(include_url=False)]


def _refused(error: ErrorDetails, given: Mapping[str, Given]) -> Problem:
    keys = error["loc"]
    if error["type"] == "clash":
        return _clashing(_dotted(keys), error["ctx"], given)
    key = next(k for k in LEAVES if f"{_dotted(keys)}.".startswith(f"{k}."))
    what = f"{_dotted(keys)} {_expected(error, secret=LEAVES[key].secret)}."
    return _problem(given[key].at(keys), what, f"Its meaning: {LEAVES[key].meaning}")


def _clashing(section: str, context: Mapping[str, Any], given: Mapping[str, Given]) -> Problem:
    keys = [f"{section}.{name}" for name in context["keys"]]
    written = (given[key].place(key) for key in keys if key in given)
    place = next(written, Written("settings", section))
    return _problem(place, f"{section}: {context['message']}.", f"Change {' or '.join(keys)}.")


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
