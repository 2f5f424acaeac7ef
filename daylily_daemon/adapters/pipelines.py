"""Reads the pipelines folder: one YAML file per pipeline, named like the file, checked in full.

A pipeline is a list of steps of any names, which run one after another. What a run would trip over hours
later is refused here: placeholders nobody fills, patterns that do not compile, two steps of one name,
misspelt keys. Everything that is wrong is told at once.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from daylily_daemon.domain.columns import WISHES, is_wish
from daylily_daemon.domain.document import BadDocument, Document, parse
from daylily_daemon.domain.errors import Permanent
from daylily_daemon.domain.model import Category, Problem
from daylily_daemon.domain.patterns import BadPattern, compiled
from daylily_daemon.domain.pipeline import (
    PLACEHOLDERS,
    Pipeline,
    StepTemplate,
    unknown_placeholders,
)

_LISTS: Final = ("daylily", "run_args", "clone_args")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,79}")
_LONGEST_S: Final = 30 * 86_400.0
_TODO: Final = {
    "string_type": "Put the value in quotes.",
    "missing": "Add the key.",
    "bool_type": "Write true or false.",
    "list_type": "Write a list: one element per line, each after a dash.",
    "tuple_type": "Write a list: one element per line, each after a dash.",
    "dict_type": "Write a mapping: one `NAME: value` per line.",
    "model_type": "Write a mapping: one `key: value` per line.",
}
_OTHER_TODO: Final = "Correct the value."


class BadPipelines(Permanent):
    """Pipeline files that cannot be used; ``problems`` holds each with its place."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems


def load_pipelines(directory: Path) -> Mapping[str, Pipeline]:
    """Return the pipelines of all ``*.yaml`` and ``*.yml`` files by name. Raises BadPipelines."""
    problems: list[Problem] = []
    found: dict[str, Pipeline] = {}
    for path in _files(directory):
        try:
            found[path.stem] = _read(path, found)
        except BadPipelines as exc:
            problems += exc.problems
    if not found and not problems:
        raise _bad(str(directory), "", "There is no pipeline file.", "Put one there: name.yaml.")
    if problems:
        raise BadPipelines(tuple(problems))
    return found


def _files(directory: Path) -> list[Path]:
    try:
        return sorted(p for p in directory.iterdir() if p.suffix in {".yaml", ".yml"})
    except OSError as exc:
        todo = "Correct `pipelines.dir` in the settings, or leave it out for the shipped ones."
        what = f"The folder of pipelines cannot be read: {exc.strerror}."
        raise _bad(str(directory), "", what, todo) from exc


def _read(path: Path, found: Mapping[str, Pipeline]) -> Pipeline:
    file = str(path)
    if not _NAME.fullmatch(path.stem):
        what = "The file name is no name of a pipeline."
        raise _bad(file, "", what, "Use letters, digits, `.`, `_` and `-`.")
    if path.stem in found:
        raise _bad(file, "", "Another file gives the same pipeline.", "Remove one of the two.")
    try:
        document = parse(path.read_bytes(), file)
        model = _PipelineFile.model_validate(document.mapping())
    except OSError as exc:
        what = f"It cannot be read: {exc.strerror}."
        raise _bad(file, "", what, "Correct its permissions, or remove it.") from exc
    except BadDocument as exc:
        raise BadPipelines((exc.problem,)) from exc
    except ValidationError as exc:
        raise BadPipelines(tuple(_problems(document, exc))) from exc
    return model.pipeline(path.stem)


def _bad(file: str, where: str, what: str, todo: str) -> BadPipelines:
    return BadPipelines((Problem(file, where, what, todo, Category.CONFIGURATION),))


def _problems(document: Document, invalid: ValidationError) -> Iterator[Problem]:
    for error in invalid.errors(include_url=False):
        path = error["loc"]
        kind, what = error["type"], error["msg"].removeprefix("Value error, ")
        what, todo = _sentences(kind, what, path)
        yield Problem(document.file, _where(document, path), what, todo, Category.CONFIGURATION)


def _sentences(kind: str, what: str, path: tuple[int | str, ...]) -> tuple[str, str]:
    if kind == "extra_forbidden":
        known = _StepFile.model_fields if len(path) > 1 else _PipelineFile.model_fields
        key = str(path[-1])
        near = difflib.get_close_matches(key, known, n=1)
        todo = f"Did you mean `{near[0]}`?" if near else f"Known keys are {', '.join(known)}."
        return f"The key {key!r} is not known.", todo
    if kind == "missing":
        return "The key is missing.", _TODO[kind]
    return what if what.endswith(".") else f"{what}.", _TODO.get(kind, _OTHER_TODO)


def _where(document: Document, path: tuple[int | str, ...]) -> str:
    """Name the line of the innermost part that is there, and the key."""
    lines = (document.line_of(*path[:end]) for end in range(len(path), 0, -1))
    line = next((line for line in lines if line), 1)
    key = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in path).lstrip(".")
    return f"line {line}, key {key}" if key else f"line {line}"


def _filled(text: str) -> str:
    """Let through a text into which single values can be inserted."""
    unknown = unknown_placeholders(text)
    if unknown:
        near = difflib.get_close_matches(unknown[0], PLACEHOLDERS, n=1)
        meant = f"did you mean {{{near[0]}}}?" if near else "see the list in domain/pipeline.py."
        raise ValueError(f"The placeholder {{{unknown[0]}}} is not known; {meant}")
    for name in _LISTS:
        if f"{{{name}}}" in text:
            raise ValueError(f"{{{name}}} is a list: it must be an element of argv by itself.")
    return text


def _element(text: str) -> str:
    """Let through an element of an argument list: a list value may stand there alone."""
    return text if text in {f"{{{name}}}" for name in _LISTS} else _filled(text)


def _inside(text: str) -> str:
    path = PurePosixPath(text)
    if path.is_absolute() or ".." in path.parts:
        raise ValueError("A path relative to cwd was expected, without `..`.")
    return _filled(text)


def _step_name(text: str) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9_-]{0,39}", text):
        raise ValueError(
            "A name of up to 40 small letters, digits, - and _ was expected, a letter first."
        )
    return text


def _progress(text: str) -> str:
    try:
        groups = compiled(text).names
    except BadPattern as exc:
        raise ValueError(f"The regular expression cannot be used: {exc}.") from exc
    if "percent" not in groups and not {"done", "total"} <= groups:
        raise ValueError("A group named percent, or groups named done and total, were expected.")
    return text


Text = Annotated[str, AfterValidator(_filled)]
StepName = Annotated[str, AfterValidator(_step_name)]
Element = Annotated[str, AfterValidator(_element)]
Inside = Annotated[str, AfterValidator(_inside)]
Seconds = Annotated[float, Field(ge=0, le=_LONGEST_S)]
Name = Annotated[str, Field(pattern=f"^{_NAME.pattern}$")]
Variable = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class _StepFile(_Strict):
    step: StepName
    argv: Annotated[list[Element], Field(min_length=1)]
    environment: dict[Variable, Text] = {}
    cwd: Text = "{work_dir}"
    timeout_s: Annotated[Seconds, Field(gt=0)] = 86_400.0
    grace_s: Seconds = 30.0
    fatal: bool = True
    success_file: Inside = ""
    report_file: Inside = ""
    progress_pattern: str = ""

    @field_validator("progress_pattern")
    @classmethod
    def _usable(cls, text: str) -> str:
        return _progress(text) if text else text

    def template(self) -> StepTemplate:
        fields: dict[str, Any] = {name: getattr(self, name) for name in type(self).model_fields}
        return StepTemplate(**{**fields, "argv": tuple(self.argv)})


class _PipelineFile(_Strict):
    description: str = ""
    timeout_s: Seconds = 0.0
    steps: Annotated[list[_StepFile], Field(min_length=1)]
    reference_genomes: Annotated[list[Name], Field(max_length=50)] = []
    results: Literal["optional", "required"] = "optional"
    obeys: dict[str, Annotated[list[float], Field(min_length=2, max_length=2)]] = {}

    @field_validator("obeys")
    @classmethod
    def _known(cls, obeys: dict[str, list[float]]) -> dict[str, list[float]]:
        for name, (least, most) in obeys.items():
            if not is_wish(name):
                raise ValueError(
                    f"{name!r} is no number that a sheet or recipe asks for: {WISHES}."
                )
            if least > most:
                raise ValueError(f"The least {name} is greater than the most; write [least, most].")
        return obeys

    @model_validator(mode="after")
    def _fit(self) -> Self:
        names = [entry.step for entry in self.steps]
        for step in dict.fromkeys(names):
            if names.count(step) > 1:
                raise ValueError(f"The step {step} is there twice; give one another name.")
        may_fail = {entry.step for entry in self.steps if not entry.fatal}
        if "export" in may_fail and "cleanup" in names:
            raise ValueError(
                "cleanup would remove what an export that may fail left: make it fatal."
            )
        return self

    def pipeline(self, name: str) -> Pipeline:
        steps = tuple(entry.template() for entry in self.steps)
        return Pipeline(
            name=name,
            description=self.description,
            timeout_s=self.timeout_s,
            steps=steps,
            reference_genomes=tuple(self.reference_genomes),
            results_required=self.results == "required",
            obeys={name: (least, most) for name, (least, most) in self.obeys.items()},
        )
