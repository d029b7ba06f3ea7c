"""MLflow's pages as a person sees them in a browser, over runs that the recipes trained."""

import pytest

from spfem_dist.tracking import view
from spfem_dist.tracking.store import experiment_page

expect = pytest.importorskip("playwright.sync_api").expect
expect.set_options(timeout=180_000)  # the page shares its machine with the server, and others
pytestmark = pytest.mark.timeout(1500)

#: Of each chart that is drawn: title of the x axis, and x and name of each curve.
CURVES = """charts => charts.map(chart => ({axis: chart.layout.xaxis.title.text,
    curves: chart.data.map(curve => ({name: curve.name, x: Array.from(curve.x || [])}))}))"""


def at(shown, page, runs=()):
    """Open the experiment's charts, by the address that a run prints, or the comparison of `runs`."""
    page.goto(experiment_page(shown.experiment, shown.address, [shown.ids[name] for name in runs]))


def test_the_table_of_runs_names_them_and_their_recipe_and_data(shown, page, keep):
    at(shown, page)
    page.goto(page.url.replace("compareRunsMode=CHART", "compareRunsMode=TABLE"))
    for name in ("broad", "sharp", "guided"):
        expect(page.get_by_role("link", name=name, exact=True)).to_be_visible()
    for column in ("recipe", "workers", "seed", "Dataset"):
        expect(page.get_by_role("columnheader").filter(has_text=column).first).to_be_attached()
    expect(page.get_by_text("cdrl_stage2").first).to_be_visible()
    expect(page.get_by_text("synthetic", exact=False).first).to_be_visible()
    expect(page.get_by_text("One parent for each training run").first).to_be_visible()
    keep("mlflow-runs")


def test_one_chart_holds_the_curves_of_two_runs_by_samples_seen(shown, page, keep):
    """The saved view from its menu, as somebody finds it who was never here. 48 samples were 12 steps of the one and 6 of the other."""
    page.goto(experiment_page(shown.experiment, shown.address).split("&viewStateShareKey=")[0])
    page.get_by_test_id("saved-views-trigger").click()
    page.get_by_test_id(f"saved-views-item-{view.KEY}").get_by_text(view.NAME).click()
    page.wait_for_url(f"**viewStateShareKey={view.KEY}*")
    page.goto(page.url + "&workflowType=machine_learning&compareRunsMode=CHART")
    expect(page.get_by_text("ccrl: losses by samples seen")).to_be_visible()
    expect(page.get_by_text("train/ccrl/contrast vs val/ccrl/contrast").first).to_be_visible()
    page.wait_for_function(
        """names => Array.from(document.querySelectorAll('.js-plotly-plot')).slice(0, 1).some(chart => chart.data
            && names.every(name => chart.data.some(curve => curve.name === name && curve.x && curve.x.length > 5)))""",
        arg=["broad", "sharp"],
    )
    drawn = page.locator(".js-plotly-plot").evaluate_all(CURVES)[0]
    assert drawn["axis"] == "Step"
    assert {"name": "broad", "x": [4 * step for step in range(1, 13)]} in drawn["curves"]
    assert {"name": "sharp", "x": [8 * step for step in range(1, 7)]} in drawn["curves"]
    expect(page.locator(".js-plotly-plot .xtitle").first).to_have_text("Step")
    page.wait_for_timeout(3000)
    keep("mlflow-curves")


def test_pictures_of_two_runs_are_looked_at_step_by_step(shown, page, keep):
    """`broad` has pictures after each 8 samples, `sharp` after each 16; the slider starts at 48, the last of both."""

    def pictures(step):
        return page.locator(f"img[src*='ccrl~attention%2Bstep%2B{step}%2B']")

    at(shown, page)
    page.set_viewport_size({"width": 1280, "height": 1400})
    page.get_by_text("Pictures", exact=True).scroll_into_view_if_needed()
    expect(pictures(48)).to_have_count(2)
    for picture in pictures(48).all():
        expect(picture).to_be_visible()
        assert picture.evaluate("drawn => drawn.decode().then(() => drawn.naturalWidth)") > 32
    page.wait_for_timeout(3000)
    keep("mlflow-pictures")
    page.get_by_role("slider").first.press("ArrowLeft")
    expect(pictures(40)).to_have_count(1)  # of `broad` alone
    page.get_by_role("slider").first.press("ArrowLeft")
    expect(pictures(32)).to_have_count(2)
    expect(pictures(48)).to_have_count(0)


def test_comparing_two_runs_shows_the_parameters_that_differ(shown, page, keep):
    at(shown, page, ["broad", "sharp"])
    expect(page.get_by_text("Comparing 2 Runs")).to_be_visible()
    parameters = page.locator("tr")
    expect(parameters.filter(has_text="ccrl.heads")).to_have_count(1)
    page.get_by_text("Show diff only").first.click()
    expect(parameters.filter(has_text="ccrl.heads")).to_have_count(0)
    row = parameters.filter(has_text="ccrl.temperature").first
    expect(row).to_contain_text("0.07")
    expect(row).to_contain_text("0.2")
    for name in ("ccrl.global_batch", "ccrl.steps"):
        expect(parameters.filter(has_text=name).first).to_be_visible()
    row.scroll_into_view_if_needed()
    keep("mlflow-differences")


def test_the_page_of_a_model_leads_to_its_run_and_its_priors(shown, page):
    page.goto("/#/models/ned")
    expect(page.get_by_text("champion").first).to_be_visible()
    expect(page.get_by_text("spfem edit talk.mp4").first).to_be_visible()
    page.goto("/#/models/ned/versions/1")
    expect(page.get_by_text("champion").first).to_be_visible()
    expect(page.get_by_text("models:/ccrl/2").first).to_be_visible()
    expect(page.get_by_role("link", name="guided-ned")).to_be_visible()
    page.get_by_role("link", name="guided-ned").click()
    for prior in ("ccrl", "cerl"):  # the models that went in
        expect(page.get_by_text(prior, exact=False).first).to_be_visible()
