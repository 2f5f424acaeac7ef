"""The recipe of a workset: what a lab wants to be run, checked.

Two contracts share one file name. In the older one, families of keys hold the arguments of the clone and
run commands; the newer one lists samples and names a pipeline. A file may mix them. Unknown keys are left
alone, unless they look like known ones. Everything that is wrong is told at once, each with its line.

Arguments are split once, by POSIX shell rules, and never run by a shell. What only a shell could give a
meaning to is refused rather than handed to a program as a strange word: ``;``, ``&``, ``|``, ``<``, ``>``,
``$NAME``, ``$(…)``, backticks, and ``#`` comments, unless quotes or a backslash take that meaning away.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from daylily_daemon.domain.columns import INPUT_ENDS, is_wish
from daylily_daemon.domain.document import BadDocument, Document, parse, shown, unseen
from daylily_daemon.domain.lookalikes import fold, meant, plain, typographic_fault
from daylily_daemon.domain.model import WORKSET_ID, Category, Priority, Problem, WorksetId
from daylily_daemon.domain.paths import MAX_PATH, is_none, split_s3
from daylily_daemon.domain.sheet import RECIPE_FILE, Sample, capped, id_fault, input_fault
from daylily_daemon.domain.table import MAX_COUNTED, Enough

CLONE_KEYS: Final = ("day_clone_args", "day-clone", "clone_args", "clone-args", "clone")
RUN_KEYS: Final = (
    *("dy_r", "dy-r", "dy", "run", "run_suffix", "run-suffix", "run_cmd", "run-command"),
)
EXPORT_KEYS: Final = ("export_uri", "export-uri", "export")
CLUSTER_KEYS: Final = ("cluster_name", "preferred_cluster")
OTHER_KEYS: Final = (
    *(
        "samples",
        "pipeline",
        "reference_genome",
        "priority",
        "max_retries",
        "budget",
        "workdir_name",
    ),
)
SAMPLE_KEYS: Final = ("sample_id", "fastq_r1", "fastq_r2", "coverage")
MAX_KEYS: Final = 500
"""Keys at the top, and of one sample."""
MAX_RETRIES: Final = 10
MAX_CHARS: Final = 16 * 1024
"""Of one value; what is longer fits neither into a command line nor into the workset's item."""

_KNOWN: Final = frozenset({*RUN_KEYS, *CLONE_KEYS, *EXPORT_KEYS, *CLUSTER_KEYS, *OTHER_KEYS})
_BY_FOLD: Final = {fold(key): key for key in sorted(_KNOWN, reverse=True)}
_SAMPLE_BY_FOLD: Final = {fold(key): key for key in SAMPLE_KEYS}
_SYNONYMS: Final = {
    **dict.fromkeys(
        ("GENOME", "GENOME_BUILD", "REF_GENOME", "REFERENCE", "REF"), "reference_genome"
    ),
    **dict.fromkeys(("ASSEMBLY", "BUILD", "REFERENCE_BUILD"), "reference_genome"),
    **dict.fromkeys(("RETRIES", "RETRY", "MAX_RETRY", "MAX_ATTEMPTS"), "max_retries"),
    "CLUSTER": "cluster_name",
}
"""Other words for a key, as ``plain`` writes them: ignored, they would change what is run."""
_SAMPLE_SYNONYMS: Final = {
    **{f"{word}{n}": f"fastq_r{n}" for word in ("R", "FQ", "READ", "READ_", "MATE") for n in "12"},
    **{f"R{n}_{word}": f"fastq_r{n}" for word in ("FQ", "FASTQ", "FILE", "PATH") for n in "12"},
    **dict.fromkeys(("ID", "NAME", "SAMPLE", "SAMPLE_NAME"), "sample_id"),
    "DEPTH": "coverage",
}
_SUFFIX_KEYS: Final = ("suffix", "args", "cmd", "command")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,79}")
_PLACEHOLDER: Final = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
_NUMBER: Final = re.compile(r"[0-9]{1,6}(?:\.[0-9]{1,6})?")
_LINE_END: Final = re.compile(r"\\?(?:\r\n|\r|\n)")
"""A line break in a value is a space, with the backslash that continues a line before it."""
_QUOTED: Final = re.compile(
    r"""(?P<escaped>\\.)|(?P<single>'[^']*')|(?P<double>"(?:\\.|[^"\\])*")|(?P<bare>[^\\'"]+)""",
    re.DOTALL,
)
_EXPANSION: Final = r"\$(?:\w+|[({@*#?$!-])|`"
_SHELL: Final = {
    "bare": re.compile(rf"[;&|<>]+|(?<!\S)#|{_EXPANSION}"),
    "double": re.compile(_EXPANSION),
}
"""What to look for in which kind of text. Even ``\\$`` within double quotes is refused: shlex, unlike a
shell, would keep the backslash."""

_TODO_SAMPLES: Final = "List samples as `- {sample_id: S1, fastq_r1: PATH, fastq_r2: PATH}`."

KeyPath = tuple[str | int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    run_args: tuple[str, ...] = ()
    clone_args: tuple[str, ...] = ()
    workdir_name: str
    export_uri: str = ""
    """``s3://bucket/prefix/`` with a closing slash; empty if the recipe leaves it open."""
    cluster_name: str = ""
    pipeline: str = ""
    """Empty if the recipe leaves it open."""
    reference_genome: str = ""
    samples: tuple[Sample, ...] = ()
    max_retries: int | None = None
    priority: Priority | None = None
    file: str = field(default=RECIPE_FILE, compare=False)
    where: Mapping[str, str] = field(default_factory=dict, compare=False)
    """For messages about keys that others judge: ``line 3, key reference_genome``."""


def read_recipe(
    data: bytes, workset: WorksetId, file: str = RECIPE_FILE
) -> Recipe | tuple[Problem, ...]:
    """Return the recipe, or everything that is wrong with it. Raises nothing."""
    try:
        document = parse(data, file)
        document.mapping()
    except BadDocument as exc:
        return (exc.problem,)
    reading = _Reading(document, {"workset": workset})
    recipe = Recipe(workdir_name="")
    with suppress(Enough):
        recipe = reading.recipe()
    problems = [problem for _, problem in sorted(reading.problems, key=lambda found: found[0])]
    return capped(problems) if problems else recipe


def shell_text(text: str) -> str:
    """Return the first piece of ``text`` that only a shell could give a meaning to; empty if none."""
    for part in _QUOTED.finditer(text):
        pattern = _SHELL.get(part.lastgroup or "")
        found = pattern.search(text, part.start(), part.end()) if pattern else None
        if found:
            return found[0]
    return ""


@dataclass(slots=True)
class _Reading:
    """Reads one document and collects what is wrong with it."""

    document: Document
    values: dict[str, str]
    """Placeholder to what it stands for."""
    problems: list[tuple[int, Problem]] = field(default_factory=list)
    """Each with its line."""

    def recipe(self) -> Recipe:
        self._check_keys()
        workdir_name = self._workdir_name()
        pipeline = self._name(("pipeline",))
        return Recipe(
            workdir_name=workdir_name,
            pipeline=pipeline,
            run_args=self._run_args(pipeline),
            clone_args=self._clone_args(),
            export_uri=self._export_uri(),
            cluster_name=self._name(CLUSTER_KEYS),
            reference_genome=self._name(("reference_genome",)).lower(),
            samples=self._samples(),
            max_retries=self._max_retries(),
            priority=self._priority(),
            file=self.document.file,
            where={"reference_genome": self._where(("reference_genome",))},
        )

    def _check_keys(self) -> None:
        """Tell of keys that would be left alone, though they look like those that are read."""
        keys: Mapping[str, object] = self.document.value
        if len(keys) > MAX_KEYS:
            what = f"There are {len(keys):,} keys; at most {MAX_KEYS} are allowed."
            self._add((list(keys)[MAX_KEYS],), what, "Keep those that are read, and `notes`.")
            raise Enough
        for key in (key for key in keys if key not in _KNOWN and key != "notes"):
            near = meant(key, _BY_FOLD, keys) or _SYNONYMS.get(plain(key), "")
            if near:
                what = f"The key {shown(key)} looks like {near}, but is not written so."
                self._add((key,), what, f"Write `{near}`, or a name that nobody takes for it.")
            elif is_wish(plain(key)):
                what = f"The key {shown(key)} is not read here."
                self._add(
                    (key,), what, "Give each sample its `coverage`, or use the sheet's column."
                )

    def _workdir_name(self) -> str:
        path, text = self._first(("workdir_name",))
        name = self._filled(path, text) if text else self.values["workset"]
        if name and not WORKSET_ID.fullmatch(name):
            what = f"{shown(name)} is no name of a folder."
            self._add(path, what, "Use up to 80 letters, digits, `_` and `-`.")
        self.values["workdir_name"] = name
        return name

    def _run_args(self, pipeline: str) -> tuple[str, ...]:
        """An older recipe must say what to run; one that names a pipeline may leave it to that."""
        path, text = self._first(RUN_KEYS)
        if not path and not pipeline:
            what = "No arguments of the run are given."
            todo = (
                "Write them under `dy-r` (also: dy, run, run_suffix, run_cmd) or name a `pipeline`."
            )
            self._add(("dy-r",), what, todo)
        return self._split(path, text)

    def _clone_args(self) -> tuple[str, ...]:
        arguments = self._split(*self._first(CLONE_KEYS))
        path, budget = self._first(("budget",))
        budget = self._filled(path, budget)
        return (*arguments, "--budget", budget) if budget else arguments

    def _export_uri(self) -> str:
        path, text = self._first(EXPORT_KEYS)
        uri = self._filled(path, text)
        place = split_s3(uri)
        parts = uri.rstrip("/").split("/")[2:]
        clean = (
            len(uri) <= MAX_PATH
            and all(parts)
            and not {".", ".."} & set(parts)
            and not set(uri) & set(" \"'<>*?\\")
        )
        if uri and not (place and len(parts) > 1 and clean):
            what = f"{shown(uri, 300)} is not of the form s3://bucket/prefix/."
            self._add(path, what, "Give a bucket and a folder in it, or leave the key out.")
        return uri.rstrip("/") + "/" if uri else ""

    def _name(self, keys: Sequence[str]) -> str:
        path, text = self._first(keys)
        if text and not _NAME.fullmatch(text):
            what = f"{shown(text)} is no name."
            self._add(path, what, "Use up to 80 letters, digits, `.`, `_` and `-`.")
        return text

    def _choice(self, key: str, choices: Sequence[str]) -> str:
        path, text = self._first((key,))
        if text and text.lower() not in choices:
            self._add(path, f"{shown(text)} is not known.", f"Use one of {', '.join(choices)}.")
        return text.lower()

    def _priority(self) -> Priority | None:
        text = self._choice("priority", tuple(Priority))
        return Priority(text) if text in tuple(Priority) else None

    def _max_retries(self) -> int | None:
        path, text = self._first(("max_retries",))
        if not text:
            return None
        if not re.fullmatch(r"[0-9]{1,2}", text) or int(text) > MAX_RETRIES:
            what = f"{shown(text)} is no whole number from 0 to {MAX_RETRIES}."
            self._add(path, what, "Correct it, or leave the key out.")
            return None
        return int(text)

    def _samples(self) -> tuple[Sample, ...]:
        listed = self.document.value.get("samples")
        if listed is None:
            return ()
        if not isinstance(listed, list) or not listed:
            what = "A list of samples was expected."
            self._add(("samples",), what, _TODO_SAMPLES, Category.DATA)
            return ()
        read = [self._sample(index, entry) for index, entry in enumerate(listed)]
        self._check_twice([sample for sample in read if sample])
        return tuple(sample for sample in read if sample)

    def _sample(self, index: int, entry: object) -> Sample | None:
        at: KeyPath = ("samples", index)
        if not isinstance(entry, dict):
            what = "A sample is not a mapping of keys to values."
            self._add(at, what, _TODO_SAMPLES, Category.DATA)
            return None
        self._check_sample_keys(at, entry)
        keys = ("sample_id", "fastq_r1", "fastq_r2")
        said = {key: self._text((*at, key), entry.get(key)) for key in keys}
        text = {key: "" if is_none(value) else value for key, value in said.items()}
        for key in keys[:2]:
            if not text[key] and not isinstance(entry.get(key), list | dict):
                self._add((*at, key), "It is missing or empty.", _TODO_SAMPLES, Category.DATA)
        self._check_sample(at, text)
        return Sample(**text, coverage=self._coverage(at, entry), line=self._line(at))

    def _check_sample_keys(self, at: KeyPath, entry: Mapping[str, object]) -> None:
        if len(entry) > MAX_KEYS:
            what = f"There are {len(entry):,} keys; at most {MAX_KEYS} are allowed."
            self._add(at, what, _TODO_SAMPLES, Category.DATA)
            raise Enough
        for key in (key for key in entry if key not in SAMPLE_KEYS):
            near, value = meant(key, _SAMPLE_BY_FOLD, entry), str(entry[key])
            other = _SAMPLE_SYNONYMS.get(plain(key), "")
            if near := near or ("" if other in entry else other):
                what = f"The key {shown(key)} looks like {near}, but is not written so."
                todo = f"Write `{near}`, or a name that nobody takes for it."
                self._add((*at, key), what, todo, Category.DATA)
            elif value[-20:].lower().endswith(INPUT_ENDS):
                what = f"{shown(value, 300)} looks like input, but no input is read under this key."
                self._add((*at, key), what, "Name it as fastq_r1 or fastq_r2.", Category.DATA)
            elif is_wish(plain(key)):
                what = f"The key {shown(key)} is not read here."
                self._add((*at, key), what, "Use `coverage`, or a sheet.", Category.DATA)

    def _check_sample(self, at: KeyPath, text: Mapping[str, str]) -> None:
        if text["sample_id"] and (fault := id_fault(text["sample_id"])):
            self._add((*at, "sample_id"), *fault, Category.DATA)
        for key, column in (("fastq_r1", "R1_FQ"), ("fastq_r2", "R2_FQ")):
            if text[key] and (fault := input_fault(column, text[key])):
                self._add((*at, key), *fault, Category.DATA)
        if text["fastq_r1"] and text["fastq_r1"] == text["fastq_r2"]:
            what = f"fastq_r1 and fastq_r2 name the same file {shown(text['fastq_r1'], 300)}."
            self._add((*at, "fastq_r2"), what, "Name the file of each read.", Category.DATA)

    def _check_twice(self, samples: Sequence[Sample]) -> None:
        seen: dict[str, Sample] = {}
        for sample in samples:
            first = seen.setdefault(sample.sample_id, sample)
            if first is not sample and sample.sample_id:
                lines = f"on line {first.line} and line {sample.line}"
                what = f"The sample {shown(sample.sample_id)} is there twice, {lines}."
                todo = "Keep one; several lanes of one sample need a stage_samples.tsv."
                self._add(("samples",), what, todo, Category.DATA)

    def _coverage(self, at: KeyPath, entry: Mapping[str, object]) -> float | None:
        text = self._text((*at, "coverage"), entry.get("coverage"))
        if is_none(text):
            return None
        if not _NUMBER.fullmatch(text) or float(text) == 0:
            what = f"{shown(text)} is no number above 0."
            self._add((*at, "coverage"), what, "Write it like 30 or 0.5.", Category.DATA)
            return None
        return float(text)

    def _first(self, keys: Sequence[str]) -> tuple[KeyPath, str]:
        """Return the first of ``keys`` that is not empty, and its text; ``((), "")`` if all are."""
        for key in keys:
            before = len(self.problems)
            text = self._short((key,), self._joined((key,), self.document.value.get(key)))
            if fault := typographic_fault(text):
                self._add((key,), *fault)
                text = ""
            if text or len(self.problems) > before:
                return (key,), text
        return (), ""

    def _short(self, path: KeyPath, text: str) -> str:
        if len(text) <= MAX_CHARS:
            return text
        what = f"There are {len(text):,} characters; at most {MAX_CHARS:,} are allowed."
        self._add(path, what, "Put long lists into a file and name that.")
        return ""

    def _joined(self, path: KeyPath, value: object) -> str:
        """Return the text of a value that may be a text, a list of texts, or a mapping of one."""
        if isinstance(value, list):
            texts = [self._text((*path, index), item) for index, item in enumerate(value)]
            return " ".join(text for text in texts if text)
        if not isinstance(value, dict):
            return self._text(path, value)
        for key in _SUFFIX_KEYS:
            text = self._joined((*path, key), value.get(key))
            if text:
                return text
        if value and not value.keys() & set(_SUFFIX_KEYS):
            what = f"The mapping has none of the keys {', '.join(_SUFFIX_KEYS)}."
            self._add(path, what, "Use one of them, or write plain text.")
        return ""

    def _text(self, path: KeyPath, value: object) -> str:
        """Return one value as it is written, without space around it; empty for null."""
        if value is None:
            return ""
        text = self.document.text_of(*path)
        if text is None:
            self._add(path, "A single value was expected here.", "Write plain text.")
            return ""
        return text.strip(" \t\r\n")

    def _split(self, path: KeyPath, text: str) -> tuple[str, ...]:
        line = _LINE_END.sub(" ", text).replace("\t", " ")
        fault = _argument_fault(line)
        if fault:
            self._add(path, *fault)
            return ()
        return tuple(shlex.split(self._filled(path, line)))

    def _filled(self, path: KeyPath, text: str) -> str:
        """Return ``text`` with its placeholders replaced, once."""
        odd = unseen(text)
        if odd:
            what = f"{shown(text)} holds a character that cannot be seen ({odd})."
            self._add(path, what, "Remove it, or type a plain space in its place.")
        for name in _PLACEHOLDER.findall(text):
            if name not in self.values:
                what = f"The placeholder {shown('{' + name + '}')} is not known."
                known = " and ".join(f"{{{known}}}" for known in sorted(self.values))
                self._add(path, what, f"Only {known} can be used here.")
        return _PLACEHOLDER.sub(lambda match: self.values.get(match[1], ""), text)

    def _line(self, path: KeyPath) -> int:
        """Return the line of ``path`` or of what it stands in; 0 for a missing key at the top."""
        lines = (self.document.line_of(*path[:end]) for end in range(len(path), 0, -1))
        return next((line for line in lines if line), 0)

    def _add(
        self, path: KeyPath, what: str, todo: str, category: Category = Category.CONFIGURATION
    ) -> None:
        problem = Problem(self.document.file, self._where(path), what, todo, category)
        self.problems.append((self._line(path), problem))
        if len(self.problems) >= MAX_COUNTED:
            raise Enough

    def _where(self, path: KeyPath) -> str:
        line = self._line(path)
        key = "".join(f"[{part}]" if isinstance(part, int) else f".{_key(part)}" for part in path)
        return f"line {line}, key {key[1:]}" if line else f"key {key[1:]}"


def _key(part: str) -> str:
    """Return a key for the place of a problem, on one line and short."""
    return part if part.isascii() and part.isprintable() and len(part) <= 80 else shown(part)


def _argument_fault(text: str) -> tuple[str, str] | None:
    """Return what is wrong with one line of arguments and what to do."""
    try:
        shlex.split(text)
    except ValueError:
        return f"A quote is not closed, or a backslash ends {shown(text)}.", "Close the quote."
    found = shell_text(text)
    if found:
        what = f"{shown(found)} means something only to a shell, and no shell runs the arguments."
        return what, "Remove it, or put it in single quotes if the program itself wants it."
    return None
