"""Frozen values copied with other fields: what ``dataclasses.replace`` returns, in a quarter of its time.

Every event of a story makes a dozen such copies, of values with up to thirty fields.
``dataclasses.replace`` walks over the fields of the class and calls its constructor; this sets the slots of
a new object one after the other. While a story is played it stands in for the original in the modules of
the program. Of a class that is not frozen, has no slots, or computes something when it is made, and of a
field that does not exist, the original decides.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Final

from tests.sim.planting import Places, put

Copy = Callable[[Any, dict[str, Any]], Any]
_ORIGINAL: Final = dataclasses.replace
_COPIES: Final[dict[type, Copy]] = {}
PACKAGES: Final = ("daylily_daemon.", "tests.fakes.", "tests.sim.")


def replace(value: Any, /, **changes: Any) -> Any:
    """Return what ``dataclasses.replace`` returns. Raises what it raises."""
    cls = value.__class__
    copy = _COPIES.get(cls)
    if copy is None:
        copy = _COPIES[cls] = _copy_of(cls) if _is_plain(cls) else _by_constructor
    return copy(value, changes)


def _is_plain(cls: type) -> bool:
    """Return whether an object of ``cls`` is its slots and nothing else."""
    known = getattr(cls, "__dataclass_params__", None)
    if known is None or not known.frozen or hasattr(cls, "__post_init__"):
        return False
    every = list(cls.__dataclass_fields__.values())  # type: ignore[attr-defined]
    names = [field.name for field in dataclasses.fields(cls)]
    slots = vars(cls).get("__slots__", ())
    return len(every) == len(names) == len(slots) and all(field.init for field in every)


def _by_constructor(value: Any, changes: dict[str, Any]) -> Any:
    return _ORIGINAL(value, **changes)


def _copy_of(cls: type) -> Copy:
    """Write the function that copies objects of ``cls``, and compile it."""
    names = [field.name for field in dataclasses.fields(cls)]
    setters = {name: vars(cls)[name].__set__ for name in names}
    known: dict[str, Any] = {f"set_{name}": setter for name, setter in setters.items()}
    known |= {"new": object.__new__, "cls": cls, "setters": setters, "original": _ORIGINAL}
    lines = [
        "def copy(value, changes):",
        "    made = new(cls)",
        *(f"    set_{name}(made, value.{name})" for name in names),
        "    for name in changes:",
        "        if name not in setters:",
        "            return original(value, **changes)",
        "        setters[name](made, changes[name])",
        "    return made",
    ]
    exec("\n".join(lines), known)
    return known["copy"]  # type: ignore[no-any-return]


def _places() -> Places:
    modules = [module for name, module in sys.modules.items() if name.startswith(PACKAGES)]
    return [(m, "replace", replace) for m in modules if vars(m).get("replace") is _ORIGINAL]


_PLACES: Final[dict[int, Places]] = {}


def quick() -> AbstractContextManager[Any]:
    """Return a context in which the program makes its copies so."""
    if len(sys.modules) not in _PLACES:
        _PLACES.clear()
        _PLACES[len(sys.modules)] = _places()
    return put(*_PLACES[len(sys.modules)])
