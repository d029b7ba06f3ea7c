"""S3 that is waited for: s3fs with one policy around every request. Opened by `storage.open_filesystem`."""

from __future__ import annotations

import asyncio
import errno
import logging
import re
import time
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar, TypeVar

import aiohttp
import botocore.exceptions as aws
from botocore.parsers import ResponseParserError
from fsspec.asyn import sync_wrapper
from s3fs import S3FileSystem
from s3fs.errors import translate_boto_error

from spfem_dist.backoff import pauses
from spfem_dist.errors import RefusedStorage, UnreachableStorage
from spfem_dist.redact import redact

log = logging.getLogger(__name__)
T = TypeVar("T")

#: A request that has waited this long says so, and again after each minute, seconds.
SAY_AFTER, SAY_EVERY = 5.0, 60.0

_CHUNK = 2**20
_PASSING_STATUS = {408, 429}
_PASSING_CODES = {
    "SlowDown",
    "RequestTimeout",
    "InternalError",
    "ServiceUnavailable",
    "Throttling",
    "ThrottlingException",
    "RequestLimitExceeded",
    "OperationAborted",
    "ConditionalRequestConflict",
    "IncompleteBody",
    "BadDigest",
    "XAmzContentSHA256Mismatch",
    "RequestTimeTooSkewed",
}
_NO_CREDENTIALS = (
    aws.NoCredentialsError,
    aws.PartialCredentialsError,
    aws.CredentialRetrievalError,
    aws.TokenRetrievalError,
)
_BROKEN = (
    aws.HTTPClientError,
    aws.ConnectionError,
    aws.IncompleteReadError,
    aws.FlexibleChecksumError,
    ResponseParserError,
    aiohttp.ClientError,
    TimeoutError,
)


class PatientS3(S3FileSystem):
    """S3 that is waited for: every request of s3fs passes here, whole reads and parts of uploads among them.

    patience_s: how long one request is tried again, seconds. Raises UnreachableStorage then, RefusedStorage at once.
    Attributes: `repeated`, the number of requests and reads of this process that had to be made again.
    """

    retries = 1  # s3fs's own; ours are around every request
    repeated = 0
    #: Called before every request of this process with its name: what fails there counts as the request's failure (`faults`).
    disturbance: ClassVar[Callable[[str], Awaitable[None]] | None] = None
    #: Answers every request (method, its arguments) instead of a server, where a plan asks what would be asked.
    instead: ClassVar[Callable[[str, dict[str, Any]], Awaitable[Any]] | None] = None

    def __init__(self, *arguments: Any, patience_s: float = 60.0, **options: Any) -> None:
        self.patience_s = patience_s
        super().__init__(*arguments, **options)

    async def _call_s3(self, method: str, *akwarglist: Any, **kwargs: Any) -> Any:
        place = _place(kwargs)
        lost = False  # an attempt whose answer never came may have been carried out

        async def once() -> Any:
            nonlocal lost
            try:
                return await self._request(method, *akwarglist, **kwargs)
            except aws.ClientError as error:
                if lost and method == "complete_multipart_upload" and _code(error) == "NoSuchUpload":
                    await self._request("head_object", Bucket=kwargs["Bucket"], Key=kwargs["Key"])
                    return {}
                lost = True
                raise
            except BaseException:
                lost = True
                raise

        answer = await self._patiently(f"{method.replace('_', ' ')} of {place}", once)
        if method == "get_object":
            answer["Body"] = _Body(self, place, kwargs, akwarglist, answer)
        return answer

    call_s3 = sync_wrapper(_call_s3)  # s3fs's own is bound to s3fs's own `_call_s3`, and writing files goes there

    async def _request(self, method: str, *akwarglist: Any, **kwargs: Any) -> Any:
        """One request, made once."""
        if PatientS3.disturbance is not None:
            await PatientS3.disturbance(method)
        if PatientS3.instead is not None:
            return await PatientS3.instead(method, dict(*akwarglist) | kwargs)
        await self.set_session()
        client = await self.get_s3(kwargs.get("Bucket"))
        call = getattr(client, method)
        return await call(**self._get_s3_method_kwargs(call, *akwarglist, **kwargs))

    async def _patiently(self, what: str, once: Callable[[], Awaitable[T]]) -> T:
        """The result of `once`, tried again while its errors are passing ones and patience lasts."""
        began, said = time.monotonic(), SAY_AFTER - SAY_EVERY
        for attempt, pause in enumerate(pauses(), start=1):
            try:
                return await once()
            except Exception as error:
                reason = redact(f"{type(error).__name__}: {error}")
                if isinstance(error, _NO_CREDENTIALS) or isinstance(translate_boto_error(error), PermissionError):
                    raise RefusedStorage(
                        errno.EACCES,
                        f"storage refuses {what} ({reason}): check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and "
                        "AWS_SESSION_TOKEN, or the role of this machine, on every node",
                    ) from None
                if isinstance(error, aws.ClientError) and _code(error) in ("PreconditionFailed", "412"):
                    raise FileExistsError(errno.EEXIST, f"{what}: it is there already, or was changed") from None
                if not passing(error):
                    raise translate_boto_error(error) from None
                waited = time.monotonic() - began
                if waited >= self.patience_s:
                    raise UnreachableStorage(
                        f"{what} failed for {waited:.0f} s ({attempt} attempts; last: {reason}): check the network and "
                        "AWS_ENDPOINT_URL; --storage.patience-s is how long a run waits"
                    ) from None
                if waited - said >= SAY_EVERY:
                    said = waited
                    log.warning("%s fails (%s); trying for %.0f s more", what, reason, self.patience_s - waited)
            PatientS3.repeated += 1
            await asyncio.sleep(min(pause, max(began + self.patience_s - time.monotonic(), 0)))
        raise AssertionError("pauses have no end")


class _Body:
    """The bytes of one answer, fetched when first read: a stream that breaks goes on where it broke, altered bytes come anew.

    Held in memory: s3fs asks for at most a block (50 MiB) at a time, and closes a larger answer unread.
    """

    def __init__(self, fs: PatientS3, place: str, request: dict[str, Any], options: tuple[Any, ...], answer: Any):
        self._fs, self._place, self._request, self._options = fs, place, request, options
        self._take(answer)
        self._data: bytes | None = None
        self._position = 0

    def _take(self, answer: Any) -> None:
        """Read from this answer, from its beginning."""
        self._stream, self._etag, self._size = answer["Body"], answer.get("ETag"), answer.get("ContentLength")
        self._first = 0  # where these bytes begin in the object
        if part := re.match(r"bytes (\d+)-(\d+)/", answer.get("ContentRange") or ""):
            self._first, self._size = int(part[1]), int(part[2]) - int(part[1]) + 1

    async def read(self, amount: int | None = None) -> bytes:
        if self._data is None:
            self._data = await self._whole()
        end = len(self._data) if amount is None or amount < 0 else self._position + amount
        chunk = self._data[self._position : end]
        self._position += len(chunk)
        return chunk

    def close(self) -> None:
        self._stream.close()

    async def _whole(self) -> bytes:
        found = bytearray()

        async def once() -> bytes:
            if self._size is not None and len(found) == self._size:
                return bytes(found)
            if self._stream is None:
                await self._open_again(len(found))
            try:
                while chunk := await self._stream.read(_CHUNK):
                    found.extend(chunk)
                if self._size is not None and len(found) != self._size:
                    raise aws.IncompleteReadError(actual_bytes=len(found), expected_bytes=self._size)
            except BaseException as error:
                self._stream.close()
                self._stream = None
                if isinstance(error, aws.FlexibleChecksumError) or len(found) > (self._size or len(found)):
                    found.clear()
                raise
            return bytes(found)

        try:
            return await self._fs._patiently(f"read of {self._place}", once)
        finally:
            if self._stream is None:
                self._stream = _Closed()

    async def _open_again(self, have: int) -> None:
        """Ask for the same object from the byte after the `have` that have come."""
        request = dict(self._request)
        if have:
            last = self._first + self._size - 1 if self._size is not None else ""
            request["Range"] = f"bytes={self._first + have}-{last}"
        if self._etag:
            request["IfMatch"] = self._etag
        answer = await self._fs._request("get_object", *self._options, **request)
        if have:
            self._stream = answer["Body"]
        else:
            self._take(answer)


class _Closed:
    def close(self) -> None:
        return


def passing(error: BaseException) -> bool:
    """Whether `error` may go away by itself."""
    if isinstance(error, aws.ClientError):
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return status >= 500 or status in _PASSING_STATUS or _code(error) in _PASSING_CODES
    if isinstance(error, (FileNotFoundError, PermissionError, FileExistsError, IsADirectoryError, NotADirectoryError)):
        return False
    if isinstance(error, OSError):
        return error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EINVAL, errno.ENOSYS)
    return isinstance(error, _BROKEN)


def _code(error: aws.ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _place(request: dict[str, Any]) -> str:
    bucket, key = request.get("Bucket", ""), request.get("Key") or request.get("Prefix") or ""
    return f"s3://{bucket}/{key}" if bucket else "S3"
