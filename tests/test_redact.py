"""No secret in what is printed, logged or tracked."""

from __future__ import annotations

import json

import pytest

from spfem_dist.redact import redact, redact_settings, without_credentials
from spfem_dist.tracking.store import reachable


@pytest.mark.parametrize(
    "uri",
    [
        "http://me:sesame@host:5000/path",
        "postgresql://me:sesame@db/mlflow",
        "postgresql+psycopg2://me:ses@sesame@db/mlflow",
        "postgresql://me:sesame/with?odd#signs:@db:5432/mlflow",
        "postgresql://me:1/sesame@db/mlflow",
        "postgresql://me:two words/sesame@db/mlflow",
        "http://me:x://sesame@host/",
        'https://me:"sesame@host/',
        "https://:sesame@host/",
        "redis://me@home.org:x/sesame@host/0",
        "s3://me:x sesame@host:port/x",
        "postgresql://me@home.org:x sesame@host/x",
        "redis://me@home.org:x sesame@[::1]:9/host",
        "redis://me:x sesame@[::1]:9/host",
        "postgresql:/me:x/sesame@host",
        "https://sesame@host",
        "mssql://host/db?user=me&password=sesame",
        "https://host/?access_token=sesame&x=1",
        "https://host/x?X-Amz-Signature=sesame&x=1",
        "https://host/x?X-Amz-Security-Token=sesame",
    ],
)
def test_a_redacted_uri_has_no_secret_and_keeps_the_host(uri):
    shown = redact(f"cannot reach {uri}, sorry")
    assert "sesame" not in shown
    assert "***" in shown
    assert "host" in shown or "db" in shown
    assert shown.endswith(", sorry") or "?" in uri


@pytest.mark.parametrize(
    "uri",
    [
        "sqlite:////tmp/runs/mlflow.db",
        "http://host:5000",
        "http://127.0.0.1:5000/#/models/ned@champion",
        "s3://bucket/prefix@2",
        "models:/ned@champion",
    ],
)
def test_a_uri_without_secrets_stays_as_it_is(uri):
    assert redact(uri) == uri


@pytest.mark.parametrize("uri", ["https://me:sesame[x@[::1]:9", "postgresql://me:x@host:sesame/x", "http://[::sesame"])
def test_a_store_whose_address_cannot_be_read_is_named_without_any_part_of_a_password(uri):
    reach = reachable(uri)
    assert not reach.ok
    assert "is not a usable URI" in reach.detail
    assert "sesame" not in reach.detail.replace(redact(uri), "")


def test_a_password_with_a_space_is_found_in_quotes_too():
    assert "sesame" not in redact("--preset 'sqlite://:x sesame@127.0.0.1:port' is not known")


def test_each_uri_of_a_text_is_redacted_by_itself():
    shown = redact("http://host:5000/a did not answer postgresql://me:ses/ame@db, nor did http://other:5000")
    assert shown == "http://host:5000/a did not answer postgresql://***@db, nor did http://other:5000"


def test_the_secrets_of_the_environment_are_found_anywhere(monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "very-secret-key-0123456789")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "sesame")
    assert redact("refused: very-secret-key-0123456789, sesame") == "refused: ***, ***"


def test_settings_lose_their_secrets_and_nothing_else():
    settings = {
        "a": {"api_key": "sesame", "keep": 2},
        "uri": "http://me:sesame@h",
        "max_tokens": 5,
        "items": ["http://u:ses/ame@h"],
    }
    clean = redact_settings(settings)
    assert clean["items"] == ["http://***@h"]
    assert "sesame" not in json.dumps(clean)
    assert clean["a"]["keep"] == 2
    assert clean["max_tokens"] == 5


def test_settings_without_credentials_can_be_used_again():
    assert without_credentials({"uri": "http://me:sesame@host:5000"}) == {"uri": "http://host:5000"}


def test_the_key_of_a_saved_view_of_mlflow_is_no_secret():
    address = "http://127.0.0.1:5000/#/experiments/1/runs?compareRunsMode=CHART&viewStateShareKey=0a1b"
    assert redact(address) == address
