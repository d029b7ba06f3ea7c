"""The page of `spfem demo` as people use it in a browser: the real server, the shipped generator, rendered faces."""

import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import av
import numpy as np
import pytest
from conftest import CHROMIUM
from documented import words_of
from doors import ROOT
from PIL import Image
from toy_generator import film, shown, sound_packets, talking_head

from spfem_dist.editing.request import STRENGTHS
from spfem_dist.emotions import Emotion

pytest.importorskip("gradio")
expect = pytest.importorskip("playwright.sync_api").expect
expect.set_options(timeout=180_000)  # the page shares its machine with its server, and others
pytestmark = pytest.mark.timeout(900)
USUAL = STRENGTHS[Emotion.SURPRISED]
PREVIEW, AFTER = "#preview img", "#preview img >> nth=1"


@dataclass(frozen=True)
class Served:
    """A server of its own. place: where it keeps what is dropped. log: what it prints."""

    address: str
    process: subprocess.Popen
    place: Path
    log: Path

    def files(self) -> list[Path]:
        """What people dropped, and what was made of it."""
        (root,) = self.place.glob("spfem-web-*")
        return [path for name in ("uploads", "results") for path in (root / name).rglob("*") if path.is_file()]


def served(place: Path, *flags) -> Served:
    """`spfem demo` in a process of its own, once it can be reached."""
    place.mkdir()
    words = [sys.executable, "-c", "from spfem_dist.cli import main; main()", *words_of("spfem demo")[1:]]
    environment = {"TMPDIR": str(place), "SPFEM_HOME": str(place), "OMP_NUM_THREADS": "2", "PYTHONUNBUFFERED": "1"}
    log = place / "log"
    with log.open("w") as out:
        process = subprocess.Popen(
            [*words, "--port", "0", *flags],
            cwd=ROOT,
            env=os.environ | environment,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    until = time.monotonic() + 300
    while not (found := re.search(r"http://\S+", log.read_text())):
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < until, log.read_text()
        time.sleep(0.2)
    return Served(found[0], process, place, log)


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    demo = served(tmp_path_factory.mktemp("demo") / "place", "--seconds", "5", "--megabytes", "5")
    yield demo
    demo.process.send_signal(signal.SIGINT)
    demo.process.wait(60)


@pytest.fixture(scope="module")
def talk(tmp_path_factory):
    return film(tmp_path_factory.mktemp("films") / "my-private-holiday.mp4", talking_head(1, 256).frames)


@pytest.fixture
def visitor(demo, chromium):
    """visitor(width) opens the page as somebody new."""
    contexts = []

    def open_page(width=1280):
        context = chromium.new_context(base_url=demo.address, viewport={"width": width, "height": 860})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(180_000)
        page.goto("/")
        expect(page.locator("#start")).to_be_visible()
        return page

    yield open_page
    for context in contexts:
        context.close()


def drop(page, path, where="film"):
    if where == "reference":
        page.get_by_text("In the manner of another film").click()
    page.set_input_files(f"#{where} input[type=file]", path)


def dropped(page, path):
    """Drop a film and wait until its face was followed."""
    drop(page, path)
    expect(page.locator(PREVIEW)).to_have_count(2)
    expect(page.locator("#said")).not_to_contain_text("Looking")


def edited(page):
    page.click("#start")
    expect(page.locator("#result video")).to_be_visible()
    with page.expect_download() as download:
        page.click("a.download")
    return Path(download.value.path())


def gone(demo):
    until = time.monotonic() + 30
    while demo.files() and time.monotonic() < until:
        time.sleep(0.2)
    return demo.files() == []


def test_a_dropped_film_is_edited_and_taken(demo, visitor, talk):
    page = visitor()
    dropped(page, talk)
    page.get_by_label("surprised").check()
    expect(page.locator("#strength input[type=number]")).to_have_value(f"{USUAL:g}")
    page.click("#start")
    expect(page.locator("#result .progress-bar, #result .progress-text").first).to_be_attached()
    result = edited(page)
    assert sound_packets(result) == sound_packets(talk)
    assert len(shown(result)[1]) == len(shown(talk)[1])
    with av.open(str(result)) as container:
        assert container.metadata["comment"].startswith(f"edited by spfem: emotion surprised, strength {USUAL:g}")
    playing = page.locator("#result video")
    assert playing.evaluate("video => video.play().then(() => [video.videoWidth, video.videoHeight])") == [512, 256]
    expect(page.locator("#head")).to_contain_text("synthetic media")


def test_the_preview_follows_the_slider_within_a_second(visitor, talk):
    page = visitor()
    dropped(page, talk)
    took = []
    for strength in ("0.4", "2.6", "1.1", "3", "0.2"):
        before = page.get_attribute(AFTER, "src")
        began = time.monotonic()
        page.fill("#strength input[type=number]", strength)
        page.keyboard.press("Tab")
        page.wait_for_function(f"before => document.querySelectorAll('{PREVIEW}')[1].src !== before", arg=before)
        took.append(time.monotonic() - began)
    assert sorted(took)[2] < 1, took
    before = page.get_attribute(AFTER, "src")
    page.locator("#strength input[type=range]").focus()
    page.keyboard.press("End")  # the handle, not the number
    page.wait_for_function(f"before => document.querySelectorAll('{PREVIEW}')[1].src !== before", arg=before)


def test_the_frame_shown_is_chosen(visitor, talk):
    page = visitor()
    dropped(page, talk)
    before = page.get_attribute(PREVIEW + " >> nth=0", "src")
    page.locator("#moment input[type=range]").focus()
    page.keyboard.press("Home")
    page.locator("#moment input[type=range]").dispatch_event("pointerup")
    page.wait_for_function(f"before => document.querySelector('{PREVIEW}').src !== before", arg=before)


def test_a_reference_film_gives_its_manner(visitor, talk, tmp_path):
    page = visitor()
    page.get_by_label("as the reference").check()
    dropped_film = film(tmp_path / "angry.mp4", talking_head(2, 256).frames[:17], sound=None)
    drop(page, talk)
    expect(page.locator("#said")).to_contain_text("Drop a reference film, or choose an emotion")
    drop(page, dropped_film, "reference")
    expect(page.locator("#manner-said")).to_contain_text("Its manner is mixed with the emotion")
    expect(page.locator(PREVIEW)).to_have_count(2)
    with av.open(str(edited(page))) as container:
        assert "in the manner of reference.mp4" in container.metadata["comment"]
        assert "emotion" not in container.metadata["comment"]


@pytest.fixture
def bad_films(tmp_path, talk):
    """What somebody may drop, and what the page says of it."""
    letter, damaged = tmp_path / "letter.mp4", tmp_path / "damaged.mp4"
    letter.write_text("Dear all, this is no film. " * 50)
    damaged.write_bytes(talk.read_bytes()[: talk.stat().st_size * 2 // 3])
    grey = np.full((30, 128, 128, 3), 90, np.uint8)
    return {
        letter: "The film cannot be edited: cannot be read",
        damaged: "damaged",
        film(tmp_path / "wall.mp4", grey): "no face in any of 30 frames",
        film(tmp_path / "long.mp4", np.concatenate([grey] * 5)): "lasts 6 s; up to 5 s are taken here",
        film(tmp_path / "short.mp4", talking_head(1, 256).frames[:2]): "frames; at least",
    }


def test_a_bad_film_is_refused_in_words_and_the_page_goes_on(demo, visitor, bad_films, talk):
    page = visitor()
    for path, words in bad_films.items():
        drop(page, path)
        expect(page.locator("#said [role=alert]")).to_contain_text(words)
        page.click("#film button[aria-label=Clear]")
        expect(page.locator("#said [role=alert]")).to_have_count(0)
        page.wait_for_timeout(500)  # a person's pause: gradio loses what begins while it closes its stream of events
    assert gone(demo)
    page.click("#start")
    expect(page.locator("#said [role=alert]")).to_contain_text("Drop a film first")
    dropped(page, talk)


def test_too_large_a_film_is_refused_by_the_page(demo, visitor, tmp_path):
    large = tmp_path / "large.mp4"
    large.write_bytes(os.urandom(6_000_000))
    page = visitor()
    drop(page, large)
    expect(page.get_by_text("exceed the maximum allowed size of 5.0 Mb").first).to_be_visible()
    assert demo.files() == []


def test_two_people_at_once_get_a_film_each(demo, visitor, talk, tmp_path):
    other = film(tmp_path / "other.mp4", talking_head(2, 256).frames[:20])
    a, b = visitor(), visitor()
    dropped(a, talk)
    dropped(b, other)
    b.get_by_label("angry").check()
    a.click("#start")
    b.click("#start")
    for page in (a, b):
        expect(page.locator("#result video")).to_be_visible()
    results = []
    for page in (a, b):
        with page.expect_download() as download:
            page.click("a.download")
        results.append(Path(download.value.path()))
    assert [len(shown(path)[1]) for path in results] == [30, 20]
    assert [sound_packets(path) for path in results] == [sound_packets(talk), sound_packets(other)]
    a.context.close()
    until = time.monotonic() + 30
    while len(demo.files()) > 3 and time.monotonic() < until:
        time.sleep(0.2)
    assert len(demo.files()) == 3  # b's film, its edit, and both beside each other
    expect(b.locator("#result video")).to_be_visible()


def test_a_closed_page_leaves_no_file(demo, visitor, talk):
    page = visitor()
    dropped(page, talk)
    page.click("#start")
    expect(page.locator("#result video")).to_be_visible()
    assert len(demo.files()) == 3
    page.context.close()
    assert gone(demo)


def test_a_page_that_is_closed_while_it_waits_leaves_no_file(demo, visitor, talk):
    page = visitor()
    dropped(page, talk)
    page.click("#start")
    page.context.close()
    time.sleep(2)
    assert gone(demo)


def test_on_a_phone_nothing_scrolls_sideways(visitor, talk):
    page = visitor(390)
    for _ in range(2):
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        wide = "e => [...document.querySelectorAll('#desk *')].filter(e => e.offsetParent && e.getBoundingClientRect().right > 391).length"
        assert page.evaluate(wide) == 0
        if not page.locator(PREVIEW).count():
            dropped(page, talk)
            edited(page)


def test_a_film_is_recorded(demo, chromium, tmp_path):
    """With a camera that shows a rendered head; sound is a beep."""
    camera = tmp_path / "camera.y4m"
    frames = talking_head(1, 256).frames
    with av.open(str(camera), "w", format="yuv4mpegpipe") as container:
        stream = container.add_stream("rawvideo", rate=25, width=256, height=256, pix_fmt="yuv420p")
        for pixels in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")))
        container.mux(stream.encode(None))
    flags = ["--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"]
    flags += [f"--use-file-for-fake-video-capture={camera}", *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    browser = chromium.browser_type.launch(executable_path=CHROMIUM, args=flags)
    page = browser.new_page(base_url=demo.address)
    page.set_default_timeout(180_000)
    page.goto("/")
    page.click("#film [aria-label='Capture from camera']")
    page.click("#film >> text=Click to Access Webcam")
    page.click("#film [aria-label='start recording']")
    page.wait_for_timeout(2500)
    page.click("#film [aria-label='start recording'] [title='stop recording']")
    expect(page.locator(PREVIEW)).to_have_count(2)
    result = edited(page)
    assert sound_packets(result)
    browser.close()
    assert gone(demo)


def test_the_page_asks_no_other_machine_and_the_log_names_no_file(demo, chromium, talk):
    context = chromium.new_context(base_url=demo.address)
    page, asked = context.new_page(), []
    page.on("request", lambda request: asked.append(request.url))
    page.goto("/")
    dropped(page, talk)
    context.close()
    assert asked
    assert [url for url in asked if not url.startswith((demo.address, "data:", "blob:"))] == []
    said = demo.log.read_text()
    assert talk.stem not in said
    assert "film.mp4" not in said
    assert [line for line in said.splitlines() if "Traceback" in line] == []


@pytest.mark.parametrize(("stop", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_server_leaves_nothing(tmp_path, chromium, talk, stop, status):
    demo = served(tmp_path / "place", "--no-examples")
    page = chromium.new_page(base_url=demo.address)
    page.set_default_timeout(180_000)
    page.goto("/")
    dropped(page, talk)
    page.click("#start")
    assert demo.files()
    demo.process.send_signal(stop)
    assert demo.process.wait(60) == status, demo.log.read_text()
    assert [path.name for path in demo.place.iterdir()] == ["log"]
    assert "Traceback" not in demo.log.read_text()
    page.close()


def test_the_picture_of_the_documentation(visitor, request):
    """With --keep-pictures, of a rendered head."""
    page = visitor(1100)
    page.locator("#desk .gallery button, #desk .gallery-item").first.click()
    expect(page.locator(PREVIEW)).to_have_count(2)
    expect(page.locator("#said")).not_to_contain_text("Looking")
    page.click("#start")
    expect(page.locator("#result video")).to_be_visible()
    page.wait_for_timeout(1000)
    if request.config.getoption("--keep-pictures", False):
        picture = Image.open(BytesIO(page.screenshot(full_page=True, animations="disabled"))).convert("RGB")
        picture.save(ROOT / "docs" / "pictures" / "web.jpg", quality=80, optimize=True)
