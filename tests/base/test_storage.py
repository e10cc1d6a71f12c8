"""Bytes by key: whole or an error, on a folder and on an S3 server that misbehaves."""

from __future__ import annotations

import errno
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faulty_s3 import Faulty

from ssm_platform.base.storage import (
    DamagedObject,
    MissingKey,
    Storage,
    StorageError,
    StorageSettings,
    may_return,
    open_storage,
)
from ssm_platform.base.storage.s3 import S3Storage

PAYLOAD = bytes(range(256)) * 400
QUICK = StorageSettings(deadline_s=60, timeout_s=10, backoff_s=0.01)
BRIEF = QUICK.model_copy(update={"deadline_s": 0.5})


@pytest.fixture(params=["folder", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "folder":
        return open_storage(tmp_path / "store")
    return open_storage(request.getfixturevalue("bucket") + "/below", QUICK)


def test_what_is_written_is_read(storage: Storage, tmp_path: Path) -> None:
    storage.write("a/one.bin", PAYLOAD)
    storage.write("a/two.bin", b"")
    (tmp_path / "local").write_bytes(PAYLOAD[::-1])
    storage.write_file("b/three.bin", tmp_path / "local")
    assert storage.read("a/one.bin") == PAYLOAD
    assert storage.read("a/two.bin") == b""
    assert storage.read("b/three.bin") == PAYLOAD[::-1]
    assert storage.read_range("a/one.bin", 1000, 17) == PAYLOAD[1000:1017]
    assert storage.read_range("a/one.bin", 5, 0) == b""
    assert storage.list() == ["a/one.bin", "a/two.bin", "b/three.bin"]
    assert storage.list("a/t") == ["a/two.bin"]
    storage.write("a/one.bin", b"new")
    assert (storage.read("a/one.bin"), storage.read_range("a/one.bin", 1, 2)) == (b"new", b"ew")
    storage.delete("a/one.bin")
    storage.delete("a/one.bin")
    assert not storage.exists("a/one.bin")
    assert storage.exists("a/two.bin")


def test_what_is_not_there_is_named(storage: Storage) -> None:
    for call in (storage.read, lambda key: storage.read_range(key, 0, 4)):
        with pytest.raises(MissingKey, match=r"gone/1\.bin: no such"):
            call("gone/1.bin")


def test_a_range_past_the_end_is_an_error_not_less(storage: Storage) -> None:
    storage.write("x.bin", b"0123456789")
    for start in (8, 50):
        with pytest.raises(DamagedObject, match=r"x\.bin: .*"):
            storage.read_range("x.bin", start, 5)


@pytest.mark.parametrize("key", ["", "/etc/passwd", "a/../../b"])
def test_keys_stay_below_their_place(storage: Storage, key: str) -> None:
    with pytest.raises(ValueError, match="is not a relative path"):
        storage.read(key)


def test_storage_travels_between_processes(storage: Storage) -> None:
    storage.write("k", b"v")
    assert pickle.loads(pickle.dumps(storage)).read("k") == b"v"


def test_other_schemes_are_refused() -> None:
    with pytest.raises(ValueError, match="gs://x: storage is a folder or s3"):
        open_storage("gs://x")
    with pytest.raises(ValueError, match="names a bucket"):
        open_storage("s3://")


def test_a_local_write_that_fails_leaves_the_old_object(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = open_storage(tmp_path)
    storage.write("k", b"old")

    def full_disk(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full_disk)
        with pytest.raises(OSError, match="No space left"):
            storage.write("k", b"new")
    assert storage.read("k") == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["k"], "a full disk keeps nothing of what did not fit"


@pytest.mark.parametrize("fault", ["error500", "slow_down", "truncated", "shorter", "dropped"])
def test_a_passing_fault_is_survived(faulty: Faulty, fault: str) -> None:
    storage = open_storage(faulty.uri, QUICK)
    storage.write("k.bin", PAYLOAD)
    faulty.schedule(fault, fault)
    assert storage.read_range("k.bin", 100, 50_000) == PAYLOAD[100:50_100]
    assert faulty.requests("GET") == 3
    if fault != "shorter":  # a whole object has no length of ours to hold the answer against
        faulty.schedule(fault)
        assert storage.read("k.bin") == PAYLOAD


def test_a_server_that_does_not_answer_is_asked_again(faulty: Faulty) -> None:
    storage = open_storage(faulty.uri, QUICK.model_copy(update={"timeout_s": 0.5}))
    storage.write("k.bin", PAYLOAD)
    faulty.schedule("stalled")
    assert storage.read("k.bin") == PAYLOAD


@pytest.mark.parametrize("fault", ["error500", "truncated", "shorter", "dropped"])
def test_a_lasting_fault_ends_after_the_tries_with_the_key(faulty: Faulty, fault: str) -> None:
    storage = open_storage(faulty.uri, BRIEF)
    storage.write("clips/k.bin", PAYLOAD)
    faulty.schedule(*[fault] * 200)
    with pytest.raises(StorageError, match=r"s3://shards/x/clips/k\.bin: gave up after \d+ tries in 0.5 s") as caught:
        storage.read_range("clips/k.bin", 0, 50_000)
    assert 3 < faulty.requests("GET") < 60
    assert may_return(caught.value)


def test_a_trickle_ends_at_the_deadline(faulty: Faulty) -> None:
    storage = open_storage(faulty.uri, QUICK.model_copy(update={"deadline_s": 0.6}))
    storage.write("k.bin", PAYLOAD)
    faulty.schedule(*["trickle"] * 20)
    with pytest.raises(StorageError, match=r"k\.bin: gave up after 1 tries in 0.6 s: the body came too slowly"):
        storage.read_range("k.bin", 0, 100_000)


def test_a_write_is_tried_again(faulty: Faulty, tmp_path: Path) -> None:
    storage = open_storage(faulty.uri, QUICK)
    faulty.schedule("error500", "slow_down")
    storage.write("k.bin", PAYLOAD)
    faulty.schedule("error500")
    (tmp_path / "file").write_bytes(PAYLOAD)
    storage.write_file("f.bin", tmp_path / "file")
    assert storage.read("k.bin") == storage.read("f.bin") == PAYLOAD


def test_a_refusal_is_not_tried_again_and_tells_no_secret(
    faulty: Faulty, monkeypatch: pytest.MonkeyPatch, bucket: str
) -> None:
    storage = open_storage(faulty.uri, QUICK)
    faulty.schedule("denied")
    with pytest.raises(StorageError, match=r"k\.bin: refused: AccessDenied \(HTTP 403\)") as caught:
        storage.read("k.bin")
    assert faulty.requests("GET") == 1
    assert "hush-hush" not in f"{caught.value!r} {caught.value.__context__!r} {caught.value.__cause__!r}"
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    with pytest.raises(StorageError, match=r"k\.bin: no S3 credentials: set AWS_ACCESS_KEY_ID"):
        open_storage(bucket, QUICK).read("k.bin")


def test_nobody_listening_is_an_error_with_the_key(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(StorageError, match=r"s3://shards/k\.bin: gave up after \d+ tries in 0.5 s: EndpointConnection"):
        open_storage(bucket, BRIEF).read("k.bin")


def test_an_object_larger_than_a_part_goes_both_ways_in_parts(faulty: Faulty, tmp_path: Path) -> None:
    """No request carries more than a part, so no size is too large, and a fault costs one part."""
    parts = QUICK.model_copy(update={"part_bytes": 5 * 2**20})
    storage, large = open_storage(faulty.uri, parts), np.random.default_rng(0).bytes(5 * 2**20 + 5)
    (tmp_path / "file").write_bytes(large)
    faulty.limit = 5 * 2**20
    for write in (lambda: storage.write("k.bin", large), lambda: storage.write_file("f.bin", tmp_path / "file")):
        faulty.schedule("error500", "slow_down", "dropped")
        write()
        assert faulty.requests("PUT") >= 2
    faulty.schedule("error500", "truncated", "dropped")
    assert storage.read("k.bin") == large
    assert faulty.requests("GET") == 3 + 2
    with storage.as_file("f.bin") as path:
        assert path.read_bytes() == large
    with pytest.raises(MissingKey), storage.as_file("gone"):
        pass


def test_a_large_object_that_came_slowly_is_not_given_up_as_long_as_its_parts_come(faulty: Faulty) -> None:
    storage = open_storage(faulty.uri, QUICK.model_copy(update={"part_bytes": 20_000, "deadline_s": 2.0}))
    open_storage(faulty.uri, QUICK).write("k.bin", PAYLOAD)
    faulty.schedule(*["trickle"] * 6)  # 0.05 s for 2,000 bytes: 2.5 s in all
    assert storage.read("k.bin") == PAYLOAD


def test_what_may_return_is_told_from_what_stays() -> None:
    def caused(cause: BaseException) -> ValueError:
        error = ValueError("unreadable")
        error.__cause__ = cause
        return error

    for error in (StorageError("k", "gave up"), OSError(errno.EIO, "io"), caused(OSError(errno.ESTALE, "stale"))):
        assert may_return(error)
    lasting = (MissingKey("k", "no"), DamagedObject("k", "crc"), ValueError("cut"), FileNotFoundError(2, "no"))
    for error in (*lasting, caused(lasting[0]), OSError("text only")):
        assert not may_return(error)


class Crowded:
    """A bucket of very many keys behind boto3's interface; each page fails once."""

    def __init__(self, count: int) -> None:
        self.keys, self.asked = [f"x/{number:06d}" for number in range(count)], 0

    def list_objects_v2(self, **place: str) -> dict[str, object]:
        self.asked += 1
        if self.asked % 2:
            raise ConnectionResetError("peer")
        first = int(place.get("ContinuationToken", 0))
        page = {"Contents": [{"Key": key} for key in self.keys[first : first + 1000]], "IsTruncated": False}
        if first + 1000 < len(self.keys):
            page |= {"IsTruncated": True, "NextContinuationToken": str(first + 1000)}
        return page


def test_a_hundred_thousand_keys_are_listed_page_by_page() -> None:
    storage = S3Storage("s3://b/x", QUICK.model_copy(update={"backoff_s": 0.0}))
    storage._client = crowded = Crowded(100_000)
    assert storage.list() == [f"{number:06d}" for number in range(100_000)]
    assert crowded.asked == 200, "a fault costs its page, not the listing"


class CountsAndDiscards:
    """The client's side of an upload in parts: keeps sizes and ends, not bytes."""

    def __init__(self) -> None:
        self.sizes: dict[int, int] = {}
        self.ends: dict[int, bytes] = {}
        self.completed: list[int] = []

    def create_multipart_upload(self, **_: Any) -> dict[str, str]:
        return {"UploadId": "u"}

    def upload_part(self, *, PartNumber: int, Body: bytes, **_: Any) -> dict[str, str]:
        self.sizes[PartNumber], self.ends[PartNumber] = len(Body), Body[-4:]
        return {"ETag": str(PartNumber)}

    def complete_multipart_upload(self, *, MultipartUpload: dict[str, Any], **_: Any) -> None:
        self.completed = [part["PartNumber"] for part in MultipartUpload["Parts"]]


def test_a_state_over_five_gib_is_sent_in_parts(tmp_path: Path) -> None:
    """What one request cannot hold: a file with a hole of 5.1 GiB, and a mark at its end."""
    size, path = int(5.1 * 2**30), tmp_path / "state"
    with path.open("wb") as file:
        file.truncate(size - 4)
        file.seek(size - 4)
        file.write(b"mark")
    storage, client = S3Storage("s3://b/runs", StorageSettings()), CountsAndDiscards()
    vars(storage)["_client"] = client
    storage.write_file("state.pt", path)
    assert sum(client.sizes.values()) == size
    assert max(client.sizes.values()) <= StorageSettings().part_bytes
    assert client.completed == sorted(client.sizes)
    assert client.ends[max(client.ends)] == b"mark"
    assert max(client.sizes) <= 10_000
