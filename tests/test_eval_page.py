"""The report in a real browser: nothing complains, nothing is fetched, filters work, axe finds no serious fault."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import eval_cases
import pytest

from eval.failures import count_kinds
from eval.grading import grade
from eval.predictions import Prediction
from eval.report import write_report
from eval.retention import retention_numbers
from eval.scoring import assemble_scores, score_graded

pytestmark = pytest.mark.slow
GRAVE = {"serious", "critical"}


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A report with everything in it, one with as little as there can be, one with more failures than are shown."""
    full, found = eval_cases.scored()
    bare, few = eval_cases.scored(eval_cases.behaviour(abstain=None, citations=None, gate={}), with_base=False)
    bare = {**bare, "calibration": None, "latency": None, "slices": [], "constrained": None, "sources": {}}
    many = [found[i % len(found)].model_copy(update={"id": f"f{i}"}) for i in range(70)]
    made = {"full": (full, found), "bare": (bare, few), "many": (full, many), "hostile": eval_cases.hostile()}
    directory = tmp_path_factory.mktemp("pages")
    return {name: write_report(directory / name, *one).as_uri() for name, one in made.items()}


class Watched:
    """A page that notes what it logs and what it asks for."""

    def __init__(self, browser: Any, width: int, scheme: str) -> None:
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        self.page = context.new_page()
        self.logged: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.logged.append(message.text))
        self.page.on("pageerror", lambda error: self.logged.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.logged.append(dialog.message), dialog.dismiss()))
        self.page.on("request", lambda request: self.asked.append(request.url))


@pytest.mark.parametrize(
    ("name", "scheme", "width"),
    [
        *((name, scheme, width) for name in ("full", "bare") for scheme in ("light", "dark") for width in (390, 1280)),
        ("hostile", "light", 390),
    ],
)
def test_page_is_quiet_and_accessible(browser: Any, pages: dict[str, str], name: str, scheme: str, width: int) -> None:
    from axe_playwright_python.sync_playwright import Axe

    watched = Watched(browser, width, scheme)
    page = watched.page
    page.goto(pages[name])
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") <= width, "it is no wider than the window"
    found = Axe().run(page).response
    assert len(found["passes"]) > 15, "the rules were run"
    grave = [one for one in found["violations"] if one["impact"] in GRAVE]
    shown = [(one["id"], one["help"], [node["html"][:200] for node in one["nodes"][:3]]) for one in grave]
    assert grave == [], json.dumps(shown, indent=1)
    assert watched.logged == []
    assert watched.asked == [pages[name]]
    page.context.close()


def test_axe_finds_a_planted_fault(browser: Any, tmp_path: Path) -> None:
    """The check above can fail."""
    from axe_playwright_python.sync_playwright import Axe

    page = browser.new_page()
    (tmp_path / "bad.html").write_text(
        '<html lang="en"><title>x</title><img src="data:,"><p style="color:#eee">pale</p>'
    )
    page.goto((tmp_path / "bad.html").as_uri())
    found = {one["id"] for one in Axe().run(page).response["violations"] if one["impact"] in GRAVE}
    assert {"image-alt", "color-contrast"} <= found
    page.close()


def test_filters(browser: Any, pages: dict[str, str]) -> None:
    page = Watched(browser, 1280, "light").page
    page.goto(pages["full"])
    failures = eval_cases.scored()[1]
    shown = page.locator(".failure:visible")
    assert shown.count() == len(failures)
    for kind, n in count_kinds(failures).items():
        page.select_option("#kind", kind)
        assert shown.count() == n
        assert page.inner_text("#shown") == f"{n} of {len(failures)} shown"
    page.select_option("#kind", "")
    page.fill("#words", failures[0].question.upper())
    assert shown.count() == sum(failures[0].question in one.question for one in failures)
    page.fill("#words", "no such words")
    assert shown.count() == 0
    page.context.close()


def test_many_failures_come_in_steps_by_keyboard(browser: Any, pages: dict[str, str]) -> None:
    page = Watched(browser, 390, "dark").page
    page.goto(pages["many"])
    shown = page.locator(".failure:visible")
    assert shown.count() == 25
    page.focus("#more")
    page.keyboard.press("Enter")
    assert shown.count() == 50
    assert page.evaluate("document.activeElement.parentElement.isSameNode(document.querySelectorAll('.failure')[25])")
    page.keyboard.press("Enter")
    assert shown.nth(25).get_attribute("open") is not None, "the first of the new ones opens"
    page.click("#more")
    assert shown.count() == 70
    assert not page.is_visible("#more")
    page.context.close()


def test_what_is_wrong_is_highlighted(browser: Any, pages: dict[str, str]) -> None:
    page = Watched(browser, 1280, "light").page
    page.goto(pages["full"])
    wrong = page.locator('.failure[data-kinds="wrong"]').first
    wrong.locator("summary").click()
    marked = wrong.locator("mark").inner_text()
    assert marked in eval_cases.COLOURS
    assert f'The answer is "{marked}"' in wrong.inner_text()
    page.context.close()


def test_print_opens_the_failures_and_leaves_out_the_controls(browser: Any, pages: dict[str, str]) -> None:
    page = Watched(browser, 1280, "dark").page
    page.goto(pages["full"])
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not page.is_visible("#kind")
    assert not page.is_visible("#words")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator(".failure:not([open])").count() == 0
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator(".failure[open]").count() == 0
    assert page.pdf().startswith(b"%PDF")
    page.context.close()


def test_it_reads_without_scripts(browser: Any, pages: dict[str, str]) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(pages["many"])
    assert page.locator(".failure:visible").count() == 70
    assert not page.is_visible("#filter"), "a filter that cannot filter is not shown"
    context.close()


def test_paper_has_all_reasons_the_table_of_the_gate_and_how_many_failures_it_shows(
    browser: Any, pages: dict[str, str]
) -> None:
    page = Watched(browser, 688, "light").page  # A4 less its margins
    page.goto(pages["many"])
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate("document.documentElement.scrollWidth") <= 688
    assert page.locator("th", has_text="Where it lies").bounding_box()["x"] > 0
    assert page.locator("details.reasons li").first.is_visible()
    assert page.locator("#shown").inner_text() == "25 of 70 shown"
    assert page.is_visible("#shown")
    page.context.close()


def test_a_text_from_right_to_left_ends_at_the_left(browser: Any, tmp_path: Path) -> None:
    scores, (failure, *_) = eval_cases.scored()
    passage = {"id": "p1", "text": "الصندوق رقم 4 أبيض اللون.", "source": None, "cited": False}
    page = Watched(browser, 900, "light").page
    page.goto(write_report(tmp_path, scores, [failure.model_copy(update={"passages": (passage,)})]).as_uri())
    page.click(".failure summary")
    first, stop = page.evaluate("""[0, 24].map((at) => {
        const range = document.createRange(), text = document.querySelector(".passages div").firstChild;
        range.setStart(text, at); range.setEnd(text, at + 1);
        return range.getBoundingClientRect().left;
    })""")
    assert stop < first
    page.context.close()


ON_EACH_OTHER = """[...document.querySelectorAll("figure svg[role=img]")].flatMap((picture) => {
  const words = [...picture.querySelectorAll("text")].map((one) => [one.textContent, one.getBoundingClientRect()]);
  return words.flatMap(([first, a], at) => words.slice(at + 1)
    .filter(([, b]) => a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 3 && b.top < a.bottom - 3)
    .map(([second]) => `${first} | ${second}`));
})"""


def test_words_of_a_picture_do_not_lie_on_each_other(browser: Any, tmp_path: Path) -> None:
    """A great loss beside a small margin, and a share of nothing, leave the words under an axis little room."""
    rules, asked = eval_cases.behaviour(), eval_cases.pairs(60)
    bad = {pair.id: Prediction(id=pair.id, output="no") for pair in asked}
    scored = score_graded(rules, grade(rules, asked, bad), slices=("topic",))
    lost = retention_numbers(*eval_cases.results({"arithmetic": (200, 0.9, 0.5)}))
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(write_report(tmp_path, assemble_scores(rules, scored, None, lost), []).as_uri())
    assert page.locator("#retention text, #slices-0 text").count() > 10
    assert page.evaluate(ON_EACH_OTHER) == []
    page.close()
