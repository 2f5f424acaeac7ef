"""What the SDK knows of AWS, read without what nobody here uses.

The SDK keeps its data for as long as a client lives: each shape with its documentation, in ordered
dictionaries, and the endpoints of some three hundred services. That was a tenth of an idle daemon.
"""

from __future__ import annotations

import gzip
import json
import os
from typing import Any, Final

from botocore.loaders import JSONFileLoader

ENDPOINTS: Final = frozenset({"dynamodb", "s3", "sqs", "sns", "sts", "portal.sso", "oidc"})
"""The services that are called: ours, and those that credentials come from. The SDK makes up the endpoints of
others by the rule of their partition."""


class LeanFiles(JSONFileLoader):
    """Reads the files of the SDK's data: a ``file_loader`` for its ``Loader``."""

    def load_file(self, file_path: str) -> Any:
        """Return what is in ``file_path``, given without its ending; None if there is no such file.

        Raises OSError and ValueError.
        """
        kind, packed = os.path.basename(file_path), f"{file_path}.json.gz"
        if os.path.isfile(f"{file_path}.json"):
            with open(f"{file_path}.json", "rb") as file:
                return _read(kind, file.read())
        if os.path.isfile(packed):
            with gzip.open(packed) as unpacked:
                return _read(kind, unpacked.read())
        return None


def _read(kind: str, text: bytes) -> Any:
    if kind == "service-2":
        return json.loads(text, object_pairs_hook=_undocumented)
    found = json.loads(text)
    if kind == "endpoints":
        for partition in found["partitions"]:
            services = partition["services"]
            partition["services"] = {name: services[name] for name in ENDPOINTS & services.keys()}
    return found


def _undocumented(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Leave texts empty, for some are read; what is a member of that name stays."""
    return {
        key: "" if key == "documentation" and type(value) is str else value for key, value in pairs
    }
