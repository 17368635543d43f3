"""The official Python SDKs as clients of one endpoint: every call that a reader makes, results compared.

Started by the bar "wire 2" under target/venv-sdk. Keys come from OSS_ACCESS_KEY_ID,
OSS_ACCESS_KEY_SECRET and OSS_SESSION_TOKEN. Prints one JSON line: how many calls were compared, and
what was wrong. Knows nothing of the project.

Usage: clients.py URL REGION BUCKET FOLDER PREFIX [--v1] [--no-v1-list]
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import alibabacloud_oss_v2 as oss
import oss2
import requests
from alibabacloud_oss_v2.signer import SignerV1, SignerV4
from alibabacloud_oss_v2.types import Credentials, HttpRequest, SigningContext

# Small, so that a listing has many pages.
KEYS_MAX = 3
ABSENT = "no/such key"


class Compared:
    """Counts comparisons; what differs is remembered."""

    def __init__(self, folder: Path, prefix: str) -> None:
        self.files = {
            prefix + str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()
        }
        self.keys = sorted(self.files, key=lambda key: key.encode())
        self.prefix = prefix
        self.count = 0
        self.problems: list[str] = []

    def same(self, what: str, got: Any, expected: Any) -> None:
        self.count += 1
        if got != expected:
            self.problems.append(f"{what}: {str(got)[:120]} instead of {str(expected)[:120]}")

    def fails(self, what: str, call: Callable[[], Any], status: int, code: str) -> None:
        """The call must be refused with this status and code."""
        self.count += 1
        try:
            call()
        except oss2.exceptions.OssError as error:
            found = (error.status, error.code)
        except oss.exceptions.OperationError as error:
            service = error.unwrap()
            found = (getattr(service, "status_code", 0), getattr(service, "code", str(service)))
        else:
            found = (200, "no error")
        if found != (status, code):
            self.problems.append(f"{what}: {found} instead of {(status, code)}")

    def folders(self) -> tuple[list[str], list[str]]:
        """Keys and common prefixes of the top folder, by the definition."""
        rest = [key[len(self.prefix):] for key in self.keys]
        return (
            [self.prefix + name for name in rest if "/" not in name],
            sorted({self.prefix + name.split("/", 1)[0] + "/" for name in rest if "/" in name}, key=lambda key: key.encode()),
        )


def etag_of(data: bytes) -> str:
    return hashlib.md5(data).hexdigest().upper()


def with_oss2(compared: Compared, auth: Any, url: str, region: str, bucket: str, v1_list: bool) -> None:
    made = oss2.Bucket(auth, url, bucket, region=region)
    listed = [entry.key for entry in oss2.ObjectIteratorV2(made, prefix=compared.prefix, max_keys=KEYS_MAX)]
    compared.same("oss2 list V2", listed, compared.keys)
    both = list(oss2.ObjectIteratorV2(made, prefix=compared.prefix, delimiter="/", max_keys=KEYS_MAX))
    split = ([e.key for e in both if not e.is_prefix()], [e.key for e in both if e.is_prefix()])
    compared.same("oss2 list V2 with delimiter", split, compared.folders())
    if v1_list:
        listed = [entry.key for entry in oss2.ObjectIterator(made, prefix=compared.prefix, max_keys=KEYS_MAX)]
        compared.same("oss2 list V1", listed, compared.keys)
    for key, data in compared.files.items():
        compared.same(f"oss2 get {key}", made.get_object(key).read(), data)
        head = made.head_object(key)
        compared.same(f"oss2 head {key}", (head.content_length, head.etag), (len(data), etag_of(data)))
        with tempfile.NamedTemporaryFile() as file:
            made.get_object_to_file(key, file.name)
            compared.same(f"oss2 to file {key}", Path(file.name).read_bytes(), data)
        if len(data) > 2:
            part = made.get_object(key, byte_range=(1, len(data) - 2), headers={"x-oss-range-behavior": "standard"})
            compared.same(f"oss2 range of {key}", (part.status, part.read()), (206, data[1:-1]))
    key, data = next(iter(compared.files.items()))
    meta = made.get_object_meta(key)
    compared.same("oss2 meta", (meta.content_length, meta.etag), (len(data), etag_of(data)))
    matched = made.get_object(key, headers={"If-Match": etag_of(data)}).read()
    compared.same("oss2 If-Match", matched, data)
    compared.fails("oss2 If-Match of another", lambda: made.get_object(key, headers={"If-Match": "0" * 32}), 412, "PreconditionFailed")
    compared.fails("oss2 absent key", lambda: made.get_object(ABSENT), 404, "NoSuchKey")
    compared.same("oss2 exists", (made.object_exists(key), made.object_exists(ABSENT)), (True, False))


def with_v2(compared: Compared, client: oss.Client, bucket: str, v1_list: bool) -> None:
    def listed() -> Iterator[str]:
        request = oss.ListObjectsV2Request(bucket=bucket, prefix=compared.prefix, max_keys=KEYS_MAX)
        for page in client.list_objects_v2_paginator().iter_page(request):
            yield from (entry.key for entry in page.contents or [])

    compared.same("v2 list V2", list(listed()), compared.keys)
    request = oss.ListObjectsV2Request(bucket=bucket, prefix=compared.prefix, delimiter="/", max_keys=KEYS_MAX)
    pages = list(client.list_objects_v2_paginator().iter_page(request))
    keys = [entry.key for page in pages for entry in page.contents or []]
    prefixes = [entry.prefix for page in pages for entry in page.common_prefixes or []]
    compared.same("v2 list V2 with delimiter", (keys, prefixes), compared.folders())
    if v1_list:
        v1_request = oss.ListObjectsRequest(bucket=bucket, prefix=compared.prefix, max_keys=KEYS_MAX)
        v1_pages = client.list_objects_paginator().iter_page(v1_request)
        compared.same("v2 list V1", [entry.key for page in v1_pages for entry in page.contents or []], compared.keys)
    for key, data in compared.files.items():
        compared.same(f"v2 get {key}", client.get_object(oss.GetObjectRequest(bucket=bucket, key=key)).body.read(), data)
        head = client.head_object(oss.HeadObjectRequest(bucket=bucket, key=key))
        compared.same(f"v2 head {key}", (head.content_length, head.etag), (len(data), f'"{etag_of(data)}"'))
        with tempfile.TemporaryDirectory() as folder:
            target = os.path.join(folder, "file")
            client.get_object_to_file(oss.GetObjectRequest(bucket=bucket, key=key), target)
            compared.same(f"v2 to file {key}", Path(target).read_bytes(), data)
        if len(data) > 2:
            asked = oss.GetObjectRequest(
                bucket=bucket, key=key, range_header=f"bytes=1-{len(data) - 2}", range_behavior="standard", if_match=etag_of(data)
            )
            part = client.get_object(asked)
            compared.same(f"v2 range of {key}", (part.status_code, part.body.read()), (206, data[1:-1]))
    key, data = next(iter(compared.files.items()))
    meta = client.get_object_meta(oss.GetObjectMetaRequest(bucket=bucket, key=key))
    compared.same("v2 meta", (meta.content_length, meta.etag), (len(data), f'"{etag_of(data)}"'))
    other = oss.GetObjectRequest(bucket=bucket, key=key, if_match="0" * 32)
    compared.fails("v2 If-Match of another", lambda: client.get_object(other), 412, "PreconditionFailed")
    compared.fails("v2 absent key", lambda: client.get_object(oss.GetObjectRequest(bucket=bucket, key=ABSENT)), 404, "NoSuchKey")
    exists = (client.is_object_exist(bucket, key), client.is_object_exist(bucket, ABSENT))
    compared.same("v2 exists", exists, (True, False))


def oss2_auth(secret: str, v1: bool) -> Any:
    provider = oss2.credentials.StaticCredentialsProvider(
        os.environ["OSS_ACCESS_KEY_ID"], secret, os.environ.get("OSS_SESSION_TOKEN")
    )
    return oss2.ProviderAuth(provider) if v1 else oss2.ProviderAuthV4(provider)


def v2_client(secret: str, url: str, region: str, v1: bool) -> oss.Client:
    config = oss.config.load_default()
    config.endpoint, config.region = url, region
    config.signature_version = "v1" if v1 else "v4"
    config.credentials_provider = oss.credentials.StaticCredentialsProvider(
        os.environ["OSS_ACCESS_KEY_ID"], secret, os.environ.get("OSS_SESSION_TOKEN")
    )
    return oss.Client(config)


def answer_to(url: str, region: str, bucket: str, key: str, v1: bool, age_secs: int, token: str | None) -> tuple[int, str]:
    """Status and code of a GET signed by the SDK's own signer as of some time ago."""
    parts = urlsplit(url)
    plain = re.fullmatch(r"[0-9.]+", parts.hostname or "") is not None
    target = f"{url}/{bucket}/{quote(key)}" if plain else f"{parts.scheme}://{bucket}.{parts.netloc}/{quote(key)}"
    request = HttpRequest("GET", target)
    keys = Credentials(os.environ["OSS_ACCESS_KEY_ID"], os.environ["OSS_ACCESS_KEY_SECRET"], token)
    when = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(seconds=age_secs)
    context = SigningContext("oss", region, bucket, key, request, keys, signing_time=when)
    (SignerV1() if v1 else SignerV4()).sign(context)
    got = requests.get(target, headers=dict(request.headers), timeout=20)
    code = re.search(r"<Code>(\w+)</Code>", got.text) if got.status_code >= 400 else None
    return got.status_code, code[1] if code else ""


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("url", "region", "bucket", "folder", "prefix"):
        parser.add_argument(name)
    parser.add_argument("--v1", action="store_true", help="sign by V1 instead of V4")
    parser.add_argument("--no-v1-list", action="store_true", help="the endpoint has no ListObjects of version 1")
    options = parser.parse_args()
    compared = Compared(Path(options.folder), options.prefix)
    secret, wrong = os.environ["OSS_ACCESS_KEY_SECRET"], "another secret"
    v1_list, v1, region = not options.no_v1_list, options.v1, options.region
    refused = "SignatureDoesNotMatch"

    with_oss2(compared, oss2_auth(secret, v1), options.url, region, options.bucket, v1_list)
    bad = oss2.Bucket(oss2_auth(wrong, v1), options.url, options.bucket, region=region)
    compared.fails("oss2 wrong secret", lambda: bad.get_object(compared.keys[0]), 403, refused)
    if not v1:
        far = oss2.Bucket(oss2_auth(secret, v1), options.url, options.bucket, region="cn-elsewhere")
        compared.fails("oss2 wrong region", lambda: far.get_object(compared.keys[0]), 403, refused)

    # Under V1 this SDK sends an STS token in a header that is not the documented one.
    if not (v1 and os.environ.get("OSS_SESSION_TOKEN")):
        token, key = os.environ.get("OSS_SESSION_TOKEN"), compared.keys[0]
        for age_secs, expected in ((0, (200, "")), (14 * 60, (200, "")), (16 * 60, (403, "RequestTimeTooSkewed"))):
            got = answer_to(options.url, region, options.bucket, key, v1, age_secs, token)
            compared.same(f"signed {age_secs} s ago", got, expected)
        if token:
            got = answer_to(options.url, region, options.bucket, key, v1, 0, None)
            compared.same("signed without the token", got[0], 403)
        with_v2(compared, v2_client(secret, options.url, region, v1), options.bucket, v1_list)
        first = oss.GetObjectRequest(bucket=options.bucket, key=compared.keys[0])
        compared.fails("v2 wrong secret", lambda: v2_client(wrong, options.url, region, v1).get_object(first), 403, refused)
        if not v1:
            far_client = v2_client(secret, options.url, "cn-elsewhere", v1)
            compared.fails("v2 wrong region", lambda: far_client.get_object(first), 403, refused)
    print(json.dumps({"compared": compared.count, "problems": compared.problems}))


if __name__ == "__main__":
    main()
