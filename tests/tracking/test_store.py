"""The tracking store: reachable or not, in one clear message."""

from __future__ import annotations

import http.server
import signal
import socket
import sqlite3
import subprocess
import sys
import threading

import pytest

from spfem_dist.tracking.store import (
    TrackingUnavailable,
    experiment_page,
    flatten,
    open_experiment,
    reachable,
)


@pytest.fixture
def closed_port():
    """A port that refuses connections: taken, so that nobody else gets it, and not listening."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@pytest.fixture
def answering():
    """Start a server that answers every request with `status` and `body`; returns its port."""
    servers = []

    def start(status, body):
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                self.send_response(status)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *words):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return server.server_address[1]

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_settings_flatten_to_dotted_names():
    assert flatten({"a": {"b": 1, "c": {"d": 2}}, "e": {}}) == {"a.b": 1, "a.c.d": 2, "e": {}}


WRITER = """
import os, signal, sqlite3, sys
store = sqlite3.connect(sys.argv[1], isolation_level=None)
for words in ("create table points (x)", "insert into points values ('old')", "pragma cache_size = 1", "begin"):
    store.execute(words)
store.execute("update points set x = 'new'")
store.executemany("insert into points values (?)", [("x" * 1000,)] * 1000)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_file_that_a_killed_process_was_writing_can_be_used_and_has_what_was_whole(tmp_path):
    file = tmp_path / "mlflow.db"
    assert subprocess.run([sys.executable, "-c", WRITER, str(file)]).returncode == -signal.SIGKILL
    assert (tmp_path / "mlflow.db-journal").stat().st_size, "the writer was killed before it wrote"
    reach = reachable(f"sqlite:///{file}")
    assert reach.ok, reach.detail
    assert sqlite3.connect(file).execute("select x from points").fetchall() == [("old",)]


def test_tracking_off_counts_as_reachable():
    assert reachable("").ok


def test_a_sqlite_file_to_be_made_is_reachable_and_is_not_made_by_asking(tmp_path):
    file = tmp_path / "new" / "mlflow.db"
    reach = reachable(f"sqlite:///{file}")
    assert reach.ok
    assert "will be made" in reach.detail
    assert not file.parent.exists()


def test_a_file_that_is_no_database_is_named(tmp_path):
    file = tmp_path / "notes.txt"
    file.write_text("these are notes, and long enough to have been a database header" * 20)
    reach = reachable(f"sqlite:///{file}")
    assert not reach.ok
    assert str(file) in reach.detail


def test_a_folder_instead_of_a_database_is_named(tmp_path):
    reach = reachable(f"sqlite:///{tmp_path}")
    assert not reach.ok
    assert "is a folder" in reach.detail


@pytest.mark.parametrize("uri", ["./mlruns", "ftp://host/x", "databricks"])
def test_a_store_of_unknown_kind_gets_the_list_of_known_kinds(uri):
    reach = reachable(uri)
    assert not reach.ok
    assert "sqlite:///" in reach.detail


def test_a_server_that_is_away_is_named_without_its_password(closed_port):
    reach = reachable(f"http://me:sesame@127.0.0.1:{closed_port}", timeout=2)
    assert not reach.ok
    assert f"127.0.0.1:{closed_port}" in reach.detail
    assert "sesame" not in reach.detail


def test_a_database_that_is_away_is_named_without_its_password(closed_port):
    reach = reachable(f"postgresql://me:sesame@127.0.0.1:{closed_port}/mlflow", timeout=2)
    assert not reach.ok
    assert str(closed_port) in reach.detail
    assert "sesame" not in reach.detail


def test_a_server_that_wants_a_log_in_says_which_variables_to_set(answering):
    reach = reachable(f"http://127.0.0.1:{answering(401, b'')}")
    assert not reach.ok
    assert "MLFLOW_TRACKING_USERNAME" in reach.detail


def test_a_server_that_is_not_mlflow_is_told_apart(answering):
    assert "as an MLflow server" in reachable(f"http://127.0.0.1:{answering(200, b'<html>')}").detail
    assert "HTTP 404" in reachable(f"http://127.0.0.1:{answering(404, b'')}").detail


def test_starting_without_the_server_fails_at_once_and_says_how_to_go_on(closed_port):
    with pytest.raises(TrackingUnavailable) as caught:
        open_experiment(f"http://me:sesame@127.0.0.1:{closed_port}", "cdrl")
    text = str(caught.value)
    assert f"127.0.0.1:{closed_port}" in text
    assert "--tracking.uri sqlite:///" in text
    assert "--tracking.uri ''" in text
    assert "sesame" not in text


def test_an_experiment_is_opened_once_and_comes_back_after_deletion(store, client):
    first = open_experiment(store, "twice")
    assert open_experiment(store, "twice") == first
    client.delete_experiment(first)
    assert open_experiment(store, "twice") == first
    assert client.get_experiment(first).lifecycle_stage == "active"


def test_files_of_a_sqlite_store_lie_beside_it_wherever_the_process_runs(store, client, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    place = client.get_experiment(open_experiment(store, "files")).artifact_location
    folder = store.removeprefix("sqlite:///").rsplit("/", 1)[0]
    assert place == f"file://{folder}/mlartifacts/files"
    assert not list(tmp_path.iterdir())


def test_the_page_of_a_comparison_names_both_runs_and_no_password():
    page = experiment_page("7", "http://me:sesame@host:5000/", runs=["aa", "bb"])
    assert page.startswith("http://***@host:5000/#/compare-runs?")
    assert "aa" in page
    assert "bb" in page
    assert "machine_learning" in experiment_page("7")


def test_runs_that_start_together_share_a_new_database(tmp_path):
    ask = f"from spfem_dist.tracking.store import open_experiment; print(open_experiment('sqlite:///{tmp_path}/new.db', 'x'))"
    both = [subprocess.Popen([sys.executable, "-c", ask], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate(timeout=120)[0].strip() for process in both] == ["1", "1"]
