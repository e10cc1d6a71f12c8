"""Which storage a place names, and where runs go that name none."""

from __future__ import annotations

import os
from pathlib import Path

from ssm_platform.base.storage.local import LocalStorage
from ssm_platform.base.storage.protocol import Storage, StorageSettings
from ssm_platform.base.storage.s3 import S3Storage


def default_place() -> str:
    """Where runs go that name no place: `SSM_STORAGE`, which clusters set to a bucket, else the folder `runs`."""
    return os.environ.get("SSM_STORAGE", "runs")


def open_storage(uri: str | Path, settings: StorageSettings | None = None) -> Storage:
    """A folder (made when first written to) or `s3://bucket/prefix`. ValueError for any other scheme."""
    text = str(uri)
    if text.startswith("s3://"):
        return S3Storage(text, settings or StorageSettings())
    if "://" in text:
        raise ValueError(f"{text}: storage is a folder or s3://bucket/prefix")
    return LocalStorage(Path(text).expanduser().absolute())
