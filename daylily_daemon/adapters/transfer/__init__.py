"""Copies between S3 and local disks: parallel, resumable, verified, with progress."""

from daylily_daemon.adapters.transfer.copying import (
    CopyOptions,
    Damaged,
    OnProgress,
    local_files,
    readable,
    retrying,
    safe_relative,
    split_uri,
)
from daylily_daemon.adapters.transfer.downloads import Downloaded, Fetch, download
from daylily_daemon.adapters.transfer.uploads import Uploaded, upload

__all__ = [
    "CopyOptions",
    "Damaged",
    "Downloaded",
    "Fetch",
    "OnProgress",
    "Uploaded",
    "download",
    "local_files",
    "readable",
    "retrying",
    "safe_relative",
    "split_uri",
    "upload",
]
