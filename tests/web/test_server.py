"""The page's server by HTTP: uploads under names of ours, limits, hosts, and nothing of this machine but its own files."""

import tempfile

import pytest
from doors import command
from toy_generator import Brightener

pytest.importorskip("gradio")
from starlette.testclient import TestClient

from spfem_dist.web import server
from spfem_dist.web.editor import Editor
from spfem_dist.web.films import Limits
from spfem_dist.web.visits import Visits, remove


@pytest.fixture(scope="module")
def visits(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(tmp_path_factory.mktemp("visits")))
        visits = Visits()
        yield visits
        visits.close()


@pytest.fixture(scope="module")
def client(visits):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(visits.root))
        for name, value in server.SILENT.items():
            patch.setenv(name, value)
        editor = Editor(visits, Brightener(), "toy", Limits(megabytes=1))
        with TestClient(server.application(editor, [], ["127.0.0.1"]), base_url="http://127.0.0.1") as client:
            yield client


@pytest.fixture(autouse=True)
def emptied(visits):
    yield
    for folder in visits.uploads.iterdir():
        remove(folder)


@pytest.mark.parametrize("name", ["../../evil.mp4", "/etc/evil.mp4", "evil.sh", "a\\..\\evil.mp4", "x" * 500 + ".mp4"])
def test_an_upload_gets_a_name_of_ours(client, visits, name):
    (path,) = client.post("/gradio_api/upload", files={"files": (name, b"film")}).json()
    (kept,) = visits.uploads.rglob("film.*")
    assert str(kept) == path
    assert kept.read_bytes() == b"film"
    assert kept.suffix in (".mp4", ".bin")
    assert "evil" not in path


def test_too_large_an_upload_is_refused_before_it_is_read(client, visits):
    answer = client.post("/gradio_api/upload", files={"files": ("film.mp4", bytes(1_100_000))})
    assert answer.status_code == 413
    assert answer.text == "Films of up to 1 MB are taken here."
    assert list(visits.uploads.iterdir()) == []


def test_an_upload_that_says_no_size_or_holds_no_film_is_refused(client, visits):
    unsaid = client.post(
        "/gradio_api/upload", content=iter([b"x"]), headers={"content-type": "multipart/form-data; boundary=b"}
    )
    assert unsaid.status_code == 411
    assert client.post("/gradio_api/upload", data={"files": "text"}).status_code in (400, 422)
    assert list(visits.uploads.iterdir()) == []


def test_an_upload_is_given_back_and_no_other_file_of_this_machine(client):
    (path,) = client.post("/gradio_api/upload", files={"files": ("film.mp4", b"film")}).json()
    assert client.get(f"/gradio_api/file={path}").content == b"film"
    for other in ("/etc/hostname", __file__, f"{path}/../../../../etc/hostname"):
        assert client.get(f"/gradio_api/file={other}").status_code in (403, 404)


def test_a_page_elsewhere_whose_name_points_here_is_not_answered(client):
    assert client.get("/").status_code == 200
    assert client.get("/", headers={"host": "evil.example"}).status_code == 400


def test_the_page_asks_no_other_machine_for_anything(client):
    text = client.get("/").text + client.get("/theme.css").text
    assert "fonts.googleapis" not in text
    config = client.get("/config").json()
    assert config["analytics_enabled"] is False
    assert not config.get("run_history")


def test_a_taken_port_is_said(visits):
    with server.listening("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"127.0.0.1:{port} cannot be listened on.*give another --port"):
            server.listening("127.0.0.1", port)


def gradio_is_missing():
    """Called in the process of a command, before it."""
    import importlib.util

    real = importlib.util.find_spec
    importlib.util.find_spec = lambda name, *more: None if name == "gradio" else real(name, *more)


def test_without_the_extra_one_line_says_what_to_install():
    done = command("spfem", "demo", before=gradio_is_missing)
    assert done.code == 1
    assert done.err.splitlines()[-1] == "the page needs gradio: pip install 'spfem-dist[web]'"
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    ("address", "here"), [("127.0.0.1", True), ("localhost", True), ("::1", True), ("0.0.0.0", False)]
)
def test_only_an_address_of_this_machine_alone_is_one(address, here):
    assert server.loopback(address) is here
