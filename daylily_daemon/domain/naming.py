"""Names made of what a lab or S3 gives us: ids of triggers, ids of worksets, folders of keys."""

from __future__ import annotations

import re
from hashlib import sha256
from typing import Final

from daylily_daemon.domain.model import WORKSET_ID, Category, Problem, WorksetId

_UNSAFE: Final = re.compile(r"[^A-Za-z0-9_-]+")
_ID_LENGTH: Final = 80
_DIGEST_LENGTH: Final = 8


def trigger_id(bucket: str, key: str, discriminator: str) -> str:
    """Return the command id of one write of a trigger object: 40 hex digits.

    ``discriminator`` tells two writes of the same key apart: the version id where the bucket has
    versions, else the event's sequencer, else the ETag. Equal arguments give equal ids for ever.
    """
    text = "\0".join((bucket, key, discriminator))
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:40]


def safe_id(folder: str) -> WorksetId:
    """Return ``folder`` itself if it is a valid id, else ``<sanitised>-<8 hex digits of its SHA-256>``.

    The digest keeps folders apart whose names differ only in what had to be replaced.
    """
    if WORKSET_ID.fullmatch(folder):
        return WorksetId(folder)
    digest = sha256(folder.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGEST_LENGTH]
    cleaned = _UNSAFE.sub("-", folder).strip("-_")[: _ID_LENGTH - _DIGEST_LENGTH - 1]
    return WorksetId(f"{cleaned.rstrip('-_') or 'workset'}-{digest}")


def name_problem(folder: str) -> Problem | None:
    """Return why a folder of that name can be no workset; None if it can."""
    if WORKSET_ID.fullmatch(folder):
        return None
    return Problem(
        folder[:200],
        "folder name",
        "is not a workset id: letters, digits, - and _ are allowed, at most 80, the first a letter "
        "or digit.",
        "Copy the files into a folder with such a name and put daylily.ready there.",
        Category.CONFIGURATION,
    )


def workset_of_key(prefix: str, key: str) -> tuple[str, str] | None:
    """Split ``<prefix><folder>/<file>`` into folder and file name.

    None for a key outside ``prefix``, directly under it, or deeper than one folder: files such as
    ``sample_data/…`` name no workset. ``prefix`` is empty or ends with a slash.
    """
    if not key.startswith(prefix):
        return None
    folder, slash, name = key[len(prefix) :].partition("/")
    return (folder, name) if folder and slash and name and "/" not in name else None
