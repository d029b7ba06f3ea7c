"""S3 that answers slowly, with 503 SlowDown, or not at all: faults in front of every request that this process makes to it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from contextlib import contextmanager

from spfem_dist.faults.grammar import Fault


@contextmanager
def disturbed_s3(faults: list[Fault], seed: int) -> Iterator[None]:
    """Within, requests to S3 meet `faults`; which ones is drawn from `seed`. Nothing is touched where there are none.

    They fire where a server's answer would, below all retries, so that what is tried again is what would be in earnest.
    """
    if not faults:
        yield
        return
    from botocore.exceptions import ClientError, ConnectionClosedError

    from spfem_dist.s3 import PatientS3

    draws = random.Random(seed)

    async def disturb(operation: str) -> None:
        for fault in faults:
            if fault.action == "slow":
                await asyncio.sleep(fault.seconds or 0)
            elif draws.random() < (fault.share or 0):
                if fault.action == "resets":
                    raise ConnectionClosedError(endpoint_url=f"S3 (injected: {fault.text})")
                answer = {"Error": {"Code": "SlowDown", "Message": f"injected: {fault.text}"}}
                raise ClientError(answer, operation)

    PatientS3.disturbance = staticmethod(disturb)
    try:
        yield
    finally:
        PatientS3.disturbance = None
