"""The report's page in a browser: what is clicked does what it says, in light, dark, print, and on a phone."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from test_report import ADAPTER, COSTS, FROZEN, evaluated, named

from pipeline.evaluation import shown
from pipeline.metrics.identification import CURVE
from pipeline.report import __main__ as report

try:
    from playwright import sync_api as playwright
except ImportError:
    playwright = None
CHROMIUM = next(
    (p for p in ("/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome") if Path(p).exists()), None
)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(playwright is None, reason="no playwright, which drives the browser: it is in the extra 'dev'"),
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium in /usr/bin: the page cannot be opened"),
]
MORE = {"auc_same_opposite": 0.9, "knn_macro_f1": 0.6, "steadiness_in_video": 0.98, "knn_switches_missed": 0.3}
CLASSES = ["Neutral", "Anger", "Happiness"]
PAIRS = {"query_people": 8, "distractor_people": 12, "genuine_pairs": 120, "impostor_pairs": 4272}


def drawn(seed, predicted):
    """What a run shows of one video of 30 frames, and of pairs, by hand."""
    rng = np.random.default_rng(seed)
    picture = cv2.imencode(".jpg", np.full((56, 56, 3), 120, np.uint8))[1].tobytes()
    arrays = {
        "roc/different": shown.RATES ** (1 / (1 + seed)), "roc/opposite": shown.RATES ** (1 / (2 + seed)),
        **{f"density/{kind}": np.ones(80) / 2 for kind in shown.KINDS},
        "similarity": rng.integers(-127, 127, (6, 6)).astype(np.int8), "similarity/label": np.array([0, 0, 1, 1, 2, 2]),
        "points": rng.normal(size=(9, 2)), "points/label": np.arange(9) % 3,
        "confusion": np.arange(9.0).reshape(3, 3) + seed, "nearest/cosine": np.array([[0.9, 0.8]]),
        "worst/predicted": np.array([2]), "worst/share": np.array([0.75]),
        "timeline/0/frame": np.arange(1, 31), "timeline/0/truth": np.repeat([0, 1, 2], 10),
        "timeline/0/predicted": np.array(predicted), "timeline/0/near": np.r_[np.nan, 1 - 0.01 * rng.random(29)],
        "timeline/0/step": np.array(1.0),
        "identification": np.where(CURVE < 2e-3, np.nan, CURVE ** (1 / (2 + seed))).astype(np.float32),
    }  # fmt: skip
    names = {
        "classes": CLASSES, "videos": ["v"], "queries": [["v", 1, 0]], "nearest": [[["v", 5, 0], ["v", 15, 1]]],
        "worst": [["v", 20, 1]],
    }  # fmt: skip
    return shown.Shown(arrays, names, {("v", frame): picture for frame in (1, 5, 15, 20, 30)})


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    place = tmp_path_factory.mktemp("page")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        strips = {
            "frozen": [0, 1] * 15,
            "a_head_with_a_long_name": [0] * 10 + [1] * 20,
            "tcn<b>": [0] * 10 + [1] * 10 + [2] * 10,
        }
        evaluated(
            "frozen",
            FROZEN | MORE,
            baseline=True,
            drawn=drawn(0, strips["frozen"]),
            model="identity",
            identification=PAIRS,
        )
        for k, name in enumerate(("a_head_with_a_long_name", "tcn<b>"), start=1):
            values = {key: value + 0.001 * k for key, value in (ADAPTER | MORE | {"macro_f1": 0.5}).items()}
            folder = {} if k == 1 else {"folder_name": "tcn"}
            seeds = [values | {"auc_same_different": 0.7 + 0.1 * s} for s in (0, 1)]
            evaluated(
                name,
                values,
                seeds=2,
                seed_values=seeds,
                drawn=drawn(k, strips[name]),
                costs=COSTS if k == 2 else None,
                model="tcn" if k == 2 else "mlp",
                **folder,
            )
        evaluated("only_numbers", ADAPTER | MORE, baseline=True)  # nothing to draw
        named("frozen", "a_head_with_a_long_name", "tcn", "only_numbers")
        report.main([])
    return (place / "report/index.html").as_uri()


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def opened(browser, address):
    """Opens the page; at the end, fails where the browser had anything to complain about."""
    said, pages = [], []

    def opened(width=1325, hash="", **options):
        page = browser.new_page(viewport={"width": width, "height": 900}, **options)
        page.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on(
            "request", lambda request: None if request.url.startswith(("file:", "data:")) else said.append(request.url)
        )
        page.set_default_timeout(15000)
        page.goto(address + hash)
        pages.append(page)
        return page

    yield opened
    for page in pages:
        page.close()
    assert said == []


def names_of(page):
    return page.locator("#results tbody tr:visible td:first-child a").all_inner_texts()


def test_a_click_or_the_keyboard_sorts_and_what_is_not_measured_stands_last(opened):
    page = opened()
    start = names_of(page)
    flips = page.get_by_role("button", name="kNN flips/100", exact=True)
    flips.click()
    assert names_of(page)[-1] == "frozen"  # fewest first: fewer are better
    assert page.locator("th", has=flips).get_attribute("aria-sort") == "ascending"
    flips.focus()
    page.keyboard.press("Enter")
    assert names_of(page)[0] == "frozen"
    page.get_by_role("button", name="run", exact=True).click()
    assert names_of(page) == sorted(start)
    page.get_by_role("button", name="best seed", exact=True).click()
    assert set(names_of(page)[-2:]) == {"frozen", "only_numbers"}  # of one seed


def test_the_filters_leave_the_runs_that_fit_and_say_how_many(opened):
    page = opened()
    page.get_by_label("Filter").fill("TCN")
    assert names_of(page) == ["tcn<b>"]
    assert page.locator("#count").inner_text() == "1 of 4 runs"
    page.get_by_label("Filter").fill("")
    page.get_by_label("Kind").select_option("baseline")
    assert set(names_of(page)) == {"frozen", "only_numbers"}
    page.get_by_label("Kind").select_option("")
    page.get_by_label("Predicts").select_option("classes")
    assert set(names_of(page)) == {"tcn<b>", "a_head_with_a_long_name"}


def test_the_main_table_fits_1325_pixels_and_all_measures_are_a_click_away(opened):
    page = opened()
    box = "document.querySelector('#results').parentElement"
    assert page.evaluate(f"{box}.scrollWidth <= {box}.clientWidth")
    assert not page.locator("#scrolls").is_visible()
    heads = page.locator("#results th:visible").all_inner_texts()
    assert {"steadiness", "steadiness in video", "kNN flips/100", "kNN switches missed"} <= set(heads)
    page.get_by_label("all measures").check()
    assert "classifier macro-F1" in page.locator("#results th:visible").all_inner_texts()
    assert page.locator("#results th").nth(3).get_attribute("title").endswith("is better.")
    page.set_viewport_size({"width": 700, "height": 900})
    assert page.locator("#scrolls").is_visible()


def test_two_pickers_put_any_two_runs_side_by_side(opened):
    page = opened()
    page.locator("#first").select_option(label="tcn<b>")
    page.locator("#second").select_option(label="frozen")
    table = page.locator("#differences")
    assert table.locator("thead th").all_inner_texts() == ["measure", "tcn<b>", "frozen", "tcn<b> minus frozen"]
    flips = table.locator("tr", has_text="kNN flips/100").locator("td").last.inner_text()
    assert flips.startswith("-34.1 (")
    assert flips.endswith(" better")
    page.locator("#first").select_option(label="frozen")
    page.locator("#second").select_option(label="tcn<b>")
    flips = table.locator("tr", has_text="kNN flips/100").locator("td").last.inner_text()
    assert flips.startswith("+34.1 (")
    assert flips.endswith(" worse")
    pictures = page.locator("#compared [role=img]").evaluate_all(
        "found => found.map((e) => e.getAttribute('aria-label'))"
    )
    for name in ("frozen", "tcn<b>"):
        for what in (
            "predicted classes",
            "cosines of pairs",
            "similarity of frames",
            "confusion",
            "principal components",
        ):
            assert f"{what}, {name}" in pictures
    assert "cosine to the frame before, frozen and tcn<b>" in pictures
    assert page.url.endswith("#compare=frozen&tcn%3Cb%3E")
    again = opened(hash="#compare=frozen&tcn%3Cb%3E")  # the address says what is shown
    assert again.locator("#differences thead th").nth(1).inner_text() == "frozen"


def test_the_page_draws_what_the_score_hangs_on_of_the_run_that_has_it(opened):
    page = opened(hash="#compare=tcn%3Cb%3E&frozen")
    assert "What macro-F1 hangs on" in page.locator("#compared h3").all_inner_texts()
    drawn = page.locator("#compared svg[aria-label='without each group, tcn<b>']")
    assert drawn.count() == 1
    assert drawn.locator("rect").evaluate_all("r => r.map((e) => e.getAttribute('fill'))") == ["#D55E00", "#0072B2"]
    words = drawn.locator("text").all_text_contents()
    assert words[0].startswith("10-60: 0.562 without its 1234 frames; mostly Fear taken for Sad|ness")
    assert words[1] == "+0.062"
    assert words[2] == "v7: 0.440 without its 90 frames; no other group has Disgust"
    assert "10-60_left, 10-60_right" in drawn.locator("rect title").first.text_content()
    left, width = (float(drawn.locator("rect").nth(1).get_attribute(name)) for name in ("x", "width"))
    zero = float(drawn.locator("line").first.get_attribute("x1"))
    assert left + width == pytest.approx(zero)  # a group that the score rests on lies left of it
    costs = page.locator("#compared svg[aria-label='cost of confusions, tcn<b>'] text").all_text_contents()
    assert costs == ["Fear taken for Sad|ness: 900 frames in 5 groups, most in 10-60", "+0.041"]
    assert page.locator("#compared svg[aria-label='without each group, frozen']").count() == 0


def test_a_row_leads_to_its_pictures_and_a_picture_to_its_row(opened):
    page = opened()
    page.get_by_label("Kind").select_option("baseline")
    page.locator("#results a", has_text="only_numbers").click()
    assert page.locator("#first").evaluate("e => e.selectedOptions[0].text") == "only_numbers"
    page.locator("#every .strips a", has_text="tcn<b>").first.click()
    assert page.locator("tr:target td a").inner_text() == "tcn<b>"
    assert page.locator("tr:target").is_visible()  # the filter that hid it is gone


def test_a_run_with_nothing_to_draw_leaves_no_empty_axes(opened):
    page = opened(hash="#compare=only_numbers&frozen")
    headings = page.locator("#compared h3").all_inner_texts()
    assert "Similarity of frames" in headings
    assert page.locator("#compared figure", has_text="only_numbers").count() == 0
    for picture in page.locator("svg[role=img]").all():
        assert picture.locator("rect, path, circle").count() > 0
    pixels = page.locator("canvas").first.evaluate(
        "c => [...c.getContext('2d').getImageData(0, 0, 6, 6).data].slice(0, 4)"
    )
    assert pixels[3] == 255


def test_all_runs_share_the_faces_the_true_strip_and_one_axis(opened):
    page = opened()
    box = page.locator("#every .strips")
    assert box.count() == 1
    assert box.locator("img").count() == 5
    labels = box.locator("svg").evaluate_all("found => found.map((e) => e.getAttribute('aria-label'))")
    assert labels[0] == "true classes"
    assert sorted(labels[1:]) == sorted(
        f"predicted classes, {n}" for n in ("tcn<b>", "a_head_with_a_long_name", "frozen")
    )
    widths = (
        box.locator("svg").first.locator("rect").evaluate_all("r => r.map((e) => Math.round(e.getAttribute('width')))")
    )
    assert widths == [333, 333, 333]
    curves = page.locator("#every svg[aria-label='ROC, same against different'] path[data-line]")
    assert curves.count() == 4  # three runs and chance


@pytest.mark.parametrize("options", [{"color_scheme": "dark"}, {"width": 390}], ids=["dark", "phone"])
def test_the_page_can_be_read_in_the_dark_and_on_a_phone(opened, options):
    page = opened(**options)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth + 2")
    ink, paper = page.evaluate("['color', 'backgroundColor'].map((k) => getComputedStyle(document.body)[k])")
    bright = [sum(map(int, value[4:-1].split(","))) / 3 for value in (ink, paper)]
    assert abs(bright[0] - bright[1]) > 150
    assert (bright[0] > bright[1]) == ("color_scheme" in options)


def test_what_is_printed_has_no_controls_and_all_tables(opened):
    page = opened(color_scheme="dark")
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert not page.locator("nav").is_visible()
    assert not page.locator("#words").is_visible()
    assert page.locator("#against-each-baseline table").is_visible()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"


def test_the_identification_curve_begins_where_it_is_measured_and_says_of_how_many(opened):
    page = opened()
    section = page.locator("#every section").filter(has=page.get_by_role("heading", name="Identification rate"))
    words = section.locator("svg text").all_text_contents()
    assert words[:4] == ["1e-3", "1e-2", "1e-1", "1"]  # nothing is measured below 2e-3
    assert "8 people among 12 others: 120 genuine and 4,272 impostor pairs." in section.locator(".note").inner_text()
    curve = section.locator("path[data-line=frozen]").get_attribute("d")
    left, top = map(float, curve.removeprefix("M").split("L")[0].split())
    width = 460 - 52 - 10
    assert left == pytest.approx(52 + width * (np.log10(CURVE[CURVE >= 2e-3][0]) + 3) / 3, abs=0.3)
    assert top == pytest.approx(8 + (340 - 36 - 8) * (1 - CURVE[CURVE >= 2e-3][0] ** 0.5), abs=0.3)
