"""What exactly was checked, in a few characters, so that what is used can be compared with it.

Between the check and the run a workset may wait for hours, and whoever can write into the lab's folder can
change what the check allowed. The plan therefore keeps a pin: digests of recipe and sheet, one digest over
the place, size and version of every input, and when the youngest of them was written. Staging computes the
same from what it is about to use. Thousands of files do not fit into an item, so the digest alone cannot
name the one that differs; but what was written after everything that was checked is not what was checked.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from daylily_daemon.domain.errors import Permanent

CHANGED: Final = "was changed after it was checked"
TODO: Final = "Put daylily.ready again, and it is checked anew."
_FORMAT: Final = "1"
_DIGITS: Final = 32
_TOLD: Final = 10


@dataclass(frozen=True, slots=True)
class Pin:
    """One input file as it was found."""

    place: str
    size_bytes: int
    version: str
    """The ETag; of a local file where its links lead, its inode and the time of its last change."""
    written_ns: int
    """When, by the clock of S3 or of the file system, since 1970."""
    local: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What a plan keeps of all that was checked."""

    recipe: str
    sheet: str
    """Empty where the samples of the recipe stood in for it."""
    inputs: str
    youngest_s3_ns: int
    youngest_local_ns: int

    def __str__(self) -> str:
        youngest = f"{self.youngest_s3_ns}.{self.youngest_local_ns}"
        return f"{_FORMAT}.{self.recipe}.{self.sheet}.{self.inputs}.{youngest}"

    def differing(self, pins: Sequence[Pin]) -> str:
        """Return what is not as it was checked, as a sentence; empty if everything is."""
        if digest_of_pins(pins) == self.inputs:
            return ""
        younger = [pin.place for pin in pins if pin.written_ns > self._youngest(pin)]
        if not younger:
            return (
                f"One of the {len(pins):,} input files {CHANGED}, or was added or removed. {TODO}"
            )
        more = f" and {len(younger) - _TOLD:,} more" if len(younger) > _TOLD else ""
        return f"{', '.join(sorted(younger)[:_TOLD])}{more} {CHANGED}. {TODO}"

    def _youngest(self, pin: Pin) -> int:
        return self.youngest_local_ns if pin.local else self.youngest_s3_ns


def checked(recipe: str, sheet: str, pins: Sequence[Pin]) -> Checked:
    """Return what to keep of a check; recipe and sheet by their digests, the sheet empty if there is none."""
    return Checked(
        recipe=recipe,
        sheet=sheet,
        inputs=digest_of_pins(pins),
        youngest_s3_ns=_youngest(pin for pin in pins if not pin.local),
        youngest_local_ns=_youngest(pin for pin in pins if pin.local),
    )


def read_pin(text: str) -> Checked | None:
    """Return what ``str`` made this text of; None for an empty one. Raises Permanent for any other."""
    if not text:
        return None
    parts = text.split(".")
    if len(parts) != 6 or parts[0] != _FORMAT or not all(part.isdecimal() for part in parts[4:]):
        raise Permanent(f"What was checked cannot be read any more ({text[:100]!r}). {TODO}")
    return Checked(
        recipe=parts[1],
        sheet=parts[2],
        inputs=parts[3],
        youngest_s3_ns=int(parts[4]),
        youngest_local_ns=int(parts[5]),
    )


def digest_of(data: bytes) -> str:
    return sha256(data).hexdigest()[:_DIGITS]


def digest_of_pins(pins: Sequence[Pin]) -> str:
    """Return a digest that depends on every file, and not on their order or how often one is named."""
    lines = sorted({f"{pin.place}\0{pin.size_bytes}\0{pin.version}\n" for pin in pins})
    return digest_of("".join(lines).encode("utf-8", "surrogateescape"))


def _youngest(pins: Iterable[Pin]) -> int:
    return max((pin.written_ns for pin in pins), default=0)
