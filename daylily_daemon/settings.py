"""Where settings come from, what is wrong with them, and what a reload may change.

Five sources, each stronger than the one before: ``config/default.yaml``, the state directory systemd
hands over, the file of ``--config``, the environment, the command line. Each is flattened to dotted keys
(``daemon.sweep_s``) with the place where the value was written, so that the effective settings can say
where each came from, and every problem names the line or the variable to mend. All problems are found at
once: unknown keys of any source, then what the models refuse. Secrets appear in no problem or listing.

The models carry the defaults. ``config/default.yaml`` repeats them for people; it is read first, so that an
edit of it counts, and may be missing.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, get_origin

from pydantic import BaseModel, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from daylily_daemon.domain.document import BadDocument, parse
from daylily_daemon.domain.errors import DaemonError
from daylily_daemon.domain.model import Category, Problem
from daylily_daemon.settings_model import RetryPattern, Section, Settings

__all__ = ["BadSettings", "Changes", "Loaded", "Row", "Settings", "Sources", "changes", "describe"]
