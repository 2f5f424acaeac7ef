"""How a setting is declared.

A field is ``live`` (a reload changes it) or ``fixed`` (it keeps its value until the daemon starts again).
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError


def live(default: Any, meaning: str, **limits: Any) -> Any:
    """Declare a setting that a reload may change."""
    return Field(default, description=meaning, **limits)


def fixed(default: Any, meaning: str, **limits: Any) -> Any:
    """Declare a setting that keeps its value until the daemon starts again."""
    return Field(default, description=meaning, json_schema_extra={"restart": True}, **limits)


def clash(message: str, *keys: str) -> PydanticCustomError:
    """Return the error of fields that do not go together; its place is that of the first one set."""
    return PydanticCustomError("clash", "{message}", {"message": message, "keys": keys})


class Section(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, hide_input_in_errors=True
    )
