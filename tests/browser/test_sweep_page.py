"""A sweep as a person sees it in MLflow: parallel coordinates of its trials, by the address that it prints."""

import json
import re
from io import BytesIO
from pathlib import Path

import pytest
from doors import ROOT, process, well
from mlflow_server import mlflow_server
from PIL import Image

expect = pytest.importorskip("playwright.sync_api").expect
expect.set_options(timeout=180_000)  # the page shares its machine with the server, and others
pytestmark = pytest.mark.timeout(1500)

PLANTED = "tests/sweep/planted_recipe.py"
FIELDS = ("first.optimizer.lr", "first.optimizer.momentum")


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """Storage and printed text of a sweep of four trials, two by two."""
    storage = tmp_path_factory.mktemp("swept")
    words = [PLANTED, "--local", "--metric", "val/toy/error", "--scheduler", "none", "--name", "rates"]
    words += ["--space", f"{FIELDS[0]}=grid:0.05,0.2", f"{FIELDS[1]}=grid:0,0.3", "--checkpoint.storage", str(storage)]
    return storage, well(process("recipes/sweep.py", *words, "--tracking.uri", f"sqlite:///{storage}/mlflow.db")).out


def test_the_printed_address_shows_trials_as_parallel_coordinates_the_best_first(swept, chromium, tmp_path, request):
    storage, said = swept
    address = re.search(r"http://127.0.0.1:5000(/#\S+)", said)[1]
    trials = json.loads((Path(storage) / "rates" / "sweep.json").read_text())["trials"]
    with mlflow_server(f"sqlite:///{storage}/mlflow.db", tmp_path) as server:
        context = chromium.new_context(base_url=server, viewport={"width": 1280, "height": 860})
        context.add_init_script("localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true')")
        page = context.new_page()
        page.set_default_timeout(180_000)
        page.goto(f"{server}{address}")
        expect(page.get_by_role("heading", name="Parallel Coordinates")).to_be_visible()
        page.wait_for_function(
            """titles => Array.from(document.querySelectorAll('svg')).some(drawn =>
                titles.every(title => drawn.textContent.includes(title)))""",
            arg=["first....zer.lr", "first....mentum", "sweep/objective"],  # as the page shortens them
        )
        names = page.get_by_text(re.compile(r"^rates-t00\d$")).all_inner_texts()
        best_first = [trial["name"] for trial in sorted(trials, key=lambda trial: trial["figure"])]
        assert list(dict.fromkeys(names)) == best_first
        if request.config.getoption("--keep-pictures", False):
            page.wait_for_timeout(3000)
            picture = Image.open(BytesIO(page.screenshot(animations="disabled"))).convert("RGB")
            picture.quantize(256).save(ROOT / "docs" / "pictures" / "mlflow-sweep.png", optimize=True)
        context.close()
