"""An S3 server for the tests of this folder: one per session, an empty bucket per test."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
from faulty_s3 import Faulty, s3_server

BUCKET = "shards"


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    with s3_server() as endpoint:
        yield endpoint


@cache
def _client(endpoint: str) -> Any:
    import boto3

    return boto3.client("s3", endpoint_url=endpoint)


@pytest.fixture
def bucket(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URI of an empty bucket; the environment points boto3 at it."""
    settings = {
        "AWS_ENDPOINT_URL": s3_endpoint,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "hush-hush",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    client = _client(s3_endpoint)
    client.create_bucket(Bucket=BUCKET)
    yield f"s3://{BUCKET}"
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
    for item in [item for page in pages for item in page.get("Contents", [])]:
        client.delete_object(Bucket=BUCKET, Key=item["Key"])
    client.delete_bucket(Bucket=BUCKET)


@pytest.fixture
def faulty(bucket: str, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Faulty]:
    """The same bucket behind a proxy that misbehaves as told."""
    proxy = Faulty(s3_endpoint, f"{bucket}/x")
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
    yield proxy
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_endpoint)
    proxy.close()
