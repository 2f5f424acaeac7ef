"""Figures as a store of metrics takes them: how something is, how often it happened, how long it took."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LevelDatum:
    """How something is."""

    name: str
    value: float


@dataclass(frozen=True, slots=True)
class CountDatum:
    """How often something happened since the last time that was told."""

    name: str
    count: int


@dataclass(frozen=True, slots=True)
class TimesDatum:
    """How long something took that happened since the last time that was told, in seconds."""

    name: str
    count: int
    sum_s: float
    least_s: float
    most_s: float


Datum = LevelDatum | CountDatum | TimesDatum
