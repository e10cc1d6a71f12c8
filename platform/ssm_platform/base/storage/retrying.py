"""How long S3 is asked: which failures another try may mend, and for how long.

Pauses double and are drawn at random below that, so that the decoders of a fleet do not come back all at once. Knows
boto3's errors and none of its calls. What is raised in the end names the key and carries no text of boto3's own.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from functools import cache
from itertools import count
from typing import Any, TypeVar

from ssm_platform.base.storage.protocol import DamagedObject, MissingKey, StorageError, StorageSettings

T = TypeVar("T")


_LONGEST_PAUSE = 10.0


class Retry(Exception):
    """A try failed in a way that another may not."""


def tried(name: str, settings: StorageSettings, action: Callable[[float], T]) -> T:
    """The action's result, tried until the deadline of the settings; it is told when the time is up."""
    until = time.monotonic() + settings.deadline_s
    for tries in count(1):
        try:
            return action(until)
        except _s3_errors() as error:
            failure = _judged(name, error)
        if isinstance(failure, StorageError):
            raise failure
        pause = min(settings.backoff_s * 2 ** min(tries - 1, 20), _LONGEST_PAUSE) * random.uniform(0.5, 1)
        if time.monotonic() + pause > until:
            break
        time.sleep(pause)
    raise StorageError(name, f"gave up after {tries} tries in {settings.deadline_s:g} s: {failure}")


@cache
def _s3_errors() -> tuple[type[Exception], ...]:
    """What a try may raise: a short body, an answer of the server, a broken connection."""
    from boto3.exceptions import S3UploadFailedError
    from botocore.exceptions import BotoCoreError, ClientError
    from urllib3.exceptions import HTTPError

    return (Retry, ClientError, BotoCoreError, S3UploadFailedError, HTTPError, OSError)


def _judged(key: str, error: Exception) -> StorageError | str:
    """Why a try failed: a text where another may help, an error where none can."""
    from botocore.exceptions import ClientError, NoCredentialsError, PartialCredentialsError

    if isinstance(error.__context__, ClientError):  # an upload in parts wraps the server's answer
        error = error.__context__
    if isinstance(error, ClientError):
        return _answered(key, error.response)
    if isinstance(error, NoCredentialsError | PartialCredentialsError):
        return StorageError(key, "no S3 credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
    return str(error) if isinstance(error, Retry) else type(error).__name__


def _answered(key: str, answer: Mapping[str, Any]) -> StorageError | str:
    status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    code = answer.get("Error", {}).get("Code", "unknown")
    if status == 404:
        return MissingKey(key, f"no such object ({code})")
    if status == 416:
        return DamagedObject(key, "the object ends before what is asked for")
    if status < 500 and status != 429 and code not in ("SlowDown", "RequestTimeout"):
        return StorageError(key, f"refused: {code} (HTTP {status})")
    return f"{code} (HTTP {status})"
