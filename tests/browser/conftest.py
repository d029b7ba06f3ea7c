"""What a person would look at: two runs of stage 1 that differ, one of stage 2 under their priors, MLflow's server, and Chromium."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from doors import ROOT, command, well
from mlflow_server import mlflow_server
from toy_stage2 import make_toy

from spfem_dist.tracking.store import open_client

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
EXPERIMENT = "expressions"


def pytest_addoption(parser):
    parser.addoption(
        "--keep-pictures", action="store_true", help="write the screenshots of tests/browser to docs/pictures"
    )


def pytest_collection_modifyitems(items):
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.browser)


@dataclass(frozen=True)
class Shown:
    """A store of finished runs behind a server. ids: MLflow's run ids by name."""

    address: str
    client: object
    experiment: str
    ids: dict[str, str]


@pytest.fixture(scope="session")
def store(tmp_path_factory):
    """URI of the store with three runs: `broad` and `sharp` see 48 samples in 12 and in 6 steps; `guided` has sharp's priors."""
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    pytest.importorskip("playwright.sync_api")
    place = tmp_path_factory.mktemp("browser")
    toy, uri = make_toy(place), f"sqlite:///{place}/mlflow.db"
    words = ["--data.shards", toy.shards, "--data.split", toy.split, "--data.size", "32", "--checkpoint.storage", place]
    words += ["--tracking.uri", uri, "--tracking.experiment", EXPERIMENT, "--tracking.log-every-steps", "1", "--local"]
    stage1 = ["python", "recipes/cdrl_stage1.py", *words, "--cerl.steps", "2", "--cerl.global-batch", "4"]
    stage1 += ["--validation.every-steps", "2", "--validation.samples", "4", "--tracking.pictures-every-steps", "2"]
    well(command(*stage1, "--name", "broad", "--ccrl.steps", "12", "--ccrl.global-batch", "4"))
    sharp = ["--ccrl.steps", "6", "--ccrl.global-batch", "8", "--ccrl.temperature", "0.2"]
    well(command(*stage1, "--name", "sharp", *sharp))
    stage2 = [
        "python",
        "recipes/cdrl_stage2.py",
        "--priors",
        "models:/ccrl",
        "models:/cerl",
        *words,
        "--name",
        "guided",
    ]
    stage2 += [
        "--pretraining.enabled",
        "False",
        "--ned.steps",
        "4",
        "--ned.global-batch",
        "4",
        "--validation.every-steps",
        "2",
        "--validation.samples",
    ]
    well(command(*stage2, "2", "--tracking.pictures-every-steps", "2"))
    return uri


@pytest.fixture(scope="session")
def shown(store, tmp_path_factory):
    """The store behind `mlflow server`."""
    with mlflow_server(store, tmp_path_factory.mktemp("server")) as address:
        client = open_client(store)
        experiment = client.get_experiment_by_name(EXPERIMENT).experiment_id
        yield Shown(
            address, client, experiment, {r.info.run_name: r.info.run_id for r in client.search_runs([experiment])}
        )


@pytest.fixture(scope="session")
def chromium():
    """Debian's Chromium without a window."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox"] if os.geteuid() == 0 else []
        )
        yield browser
        browser.close()


@pytest.fixture
def page(shown, chromium):
    """A new person's browser, at the server."""
    context = chromium.new_context(base_url=shown.address, viewport={"width": 1280, "height": 860})
    context.add_init_script("localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true')")
    page = context.new_page()
    page.set_default_timeout(180_000)
    yield page
    context.close()


@pytest.fixture
def keep(request, page):
    """keep(name): a screenshot for docs/pictures, with --keep-pictures. Only what the synthetic corpus gave is ever in it."""

    def keep(name):
        if request.config.getoption("--keep-pictures", False):
            # A palette: the pages are flat, and pictures in a repository should be small.
            from io import BytesIO

            from PIL import Image

            picture = Image.open(BytesIO(page.screenshot(animations="disabled"))).convert("RGB")
            picture.quantize(256).save(ROOT / "docs" / "pictures" / f"{name}.png", optimize=True)

    return keep
