"""What a head node of AWS ParallelCluster does that no other machine does.

With ``HeadNode/Imds/Secured``, which is true by default, a rule of the packet filter lets only
root, the administrator of the cluster and the default user reach the metadata service of the instance. The
daemon's user then gets no credentials of the role, and nothing says why.
"""

from __future__ import annotations

import getpass
import os
from functools import cache
from pathlib import Path
from typing import Final

SCRIPT: Final = "/opt/parallelcluster/scripts/imds/imds-access.sh"
_SIGNS: Final = (SCRIPT, "/etc/parallelcluster", "/opt/parallelcluster")


@cache
def credentials_advice(root: Path = Path("/")) -> str:
    """Return, as a sentence, what lets this user get the role's credentials; empty on other machines."""
    if not any(os.path.exists(root / sign.lstrip("/")) for sign in _SIGNS):
        return ""
    return (
        "This is a head node of AWS ParallelCluster, where only chosen users reach the credentials of the "
        f"role: let this one by `{SCRIPT} --allow {_user()}` as root."
    )


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a user without a name
        return "daylily"
