"""Faults of S3 fire requests below the retries, so that a run outlives them and reads the same bytes."""

import os

import boto3
import pytest
from moto_s3 import moto_s3

from spfem_dist import backoff
from spfem_dist.faults.grammar import parse_fault
from spfem_dist.faults.storage import disturbed_s3
from spfem_dist.s3 import PatientS3
from spfem_dist.storage import open_filesystem


@pytest.fixture
def bucket(monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setattr(backoff, "FIRST", 0.01)
    monkeypatch.setattr(backoff, "LONGEST", 0.05)
    with moto_s3() as address:
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        boto3.client("s3").create_bucket(Bucket="faulty")
        yield "s3://faulty"


def test_what_is_written_through_faults_is_read_through_faults(bucket):
    fs, root = open_filesystem(bucket)
    contents = {f"{root}/{n}": os.urandom(1000) for n in range(10)}
    for words in ("s3 errors 0.4", "s3 resets 0.4"):
        before = PatientS3.repeated
        with disturbed_s3([parse_fault(words)], seed=0):
            for path, content in contents.items():
                fs.pipe_file(path, content)
            assert {path: fs.cat_file(path) for path in contents} == contents
        assert PatientS3.repeated >= before + 4, f"{words} did not fire"
    after = PatientS3.repeated
    assert {path: fs.cat_file(path) for path in contents} == contents
    assert PatientS3.repeated == after, "the faults did not end with their run"
