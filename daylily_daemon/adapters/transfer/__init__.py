"""Copies between S3 and local disks: parallel, resumable, verified, with progress."""

from daylily_daemon.adapters.transfer.collecting import Collected, LocalFile, collect
from daylily_daemon.adapters.transfer.copying import (
    CopyOptions,
    Damaged,
    OnProgress,
    local_files,
    retrying,
    safe_relative,
    split_uri,
)
from daylily_daemon.adapters.transfer.downloads import Downloaded, Fetch, download
from daylily_daemon.adapters.transfer.uploads import Uploaded, upload, upload_files

__all__ = [
    "Collected",
    "CopyOptions",
    "Damaged",
    "Downloaded",
    "Fetch",
    "LocalFile",
    "OnProgress",
    "Uploaded",
    "collect",
    "download",
    "local_files",
    "retrying",
    "safe_relative",
    "split_uri",
    "upload",
    "upload_files",
]
