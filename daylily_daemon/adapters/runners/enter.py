"""Becomes another user and then the command: ``python -IS enter.py UID GID GROUPS COMMAND...``, as root.

The command gets a user namespace of its own, in which there is nobody but its user. The kernel lets nobody
from one such namespace look into the processes of another, though the user is the same: /proc/PID/root of
another job's process would otherwise show, and let write, what that job may write.

Ends with 126 and a sentence where the kernel refuses, and as a shell does where the command cannot be run.
"""

import ctypes
import errno
import os
import sys
from typing import NoReturn

CLONE_NEWUSER = 0x1000_0000
NOT_EXECUTABLE, NOT_FOUND = 126, 127
NO_MORE = (
    "this machine allows no more user namespaces: raise user.max_user_namespaces (sysctl), "
    "or leave runner.user empty"
)
"""What the kernel calls no space left on a device."""


def map_user(pid: int, uid: int, gid: int) -> None:
    """Let the namespace of ``pid`` know one user and one group, by the numbers they have outside."""
    for kind, number in (("gid", gid), ("uid", uid)):
        with open(f"/proc/{pid}/{kind}_map", "w") as file:
            file.write(f"{number} {number} 1\n")


def leave_namespace(uid: int, gid: int) -> None:
    """Enter a new user namespace; a child that stays outside says who is in it. Raises OSError."""
    told, tell = os.pipe2(os.O_CLOEXEC)
    pid, child = os.getpid(), os.fork()
    if child == 0:
        try:
            os.close(tell)
            if os.read(told, 1):
                map_user(pid, uid, gid)
            os._exit(0)
        finally:
            os._exit(1)
    os.close(told)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWUSER):
        number = ctypes.get_errno()
        raise OSError(number, NO_MORE if number == errno.ENOSPC else os.strerror(number))
    os.write(tell, b"!")
    os.close(tell)
    if os.waitpid(child, 0)[1]:
        raise OSError("its user cannot be made known there")


def become(uid: int, gid: int, groups: list[int]) -> None:
    """Become the user for good, in a namespace without others. Raises OSError."""
    os.setgroups(groups)
    leave_namespace(uid, gid)
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)


def main(arguments: list[str]) -> NoReturn:
    """Be the command; end with what a shell would say if that cannot be."""
    uid, gid, groups, *command = arguments
    what, code = f"cannot become the user {uid}", NOT_EXECUTABLE
    try:
        become(int(uid), int(gid), [int(number) for number in groups.split(",") if number])
        what = f"cannot enter the directory {os.getcwd()}"
        os.chdir(os.getcwd())
        what = f"cannot run {command[0]}"
        os.execvp(command[0], command)
    except OSError as exc:
        code = NOT_FOUND if isinstance(exc, FileNotFoundError) else code
        sys.stderr.write(f"daylily: {what}: {exc.strerror or exc}\n")
        sys.exit(code)


if __name__ == "__main__":
    main(sys.argv[1:])
