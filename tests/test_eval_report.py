"""The report's pages: whole, self-contained, escaped, honest about what is missing."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import eval_cases

from curate.behaviour import Output
from curate.pairs import Pair
from eval.breakdowns import slice_sentence
from eval.canvas import percent
from eval.failures import find_failures, read_failures, write_failures
from eval.grading import grade
from eval.predictions import Prediction
from eval.report import markdown_code, markdown_fence, markdown_text, render_html, render_markdown, write_report
from eval.retention import Result, retention_numbers
from eval.scoring import assemble_scores, score_graded
from eval.sections import SHOWN, SHOWN_OF_KIND, choose_shown, split_at


class Page(HTMLParser):
    """Elements with their attributes, text without style and script, ids; fails on tags that are not closed."""

    VOID = frozenset({"meta", "link", "input", "br", "img"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.inside: list[str] = []
        self.feed(html)
        assert self.inside == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.inside.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.inside.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"style", "script"} & set(self.inside):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    @property
    def ids(self) -> list[str]:
        return [str(attributes["id"]) for _, attributes in self.elements if "id" in attributes]


def test_page_is_whole(scored: tuple[dict[str, Any], list[Any]]) -> None:
    page = Page(render_html(*scored))
    for name in ("gate", "pictures", "numbers", "failures", "sources"):
        assert name in page.ids
    for picture in ("abstention", "violations", "reliability", "risk-coverage", "retention", "scales"):
        assert picture in page.ids
    assert len(page.ids) == len(set(page.ids)), "an id stands once"
    targets = {str(a.get("href"))[1:] for _, a in page.elements if str(a.get("href")).startswith("#")}
    assert targets <= set(page.ids)
    labels = {name for _, a in page.elements for name in str(a.get("aria-labelledby") or "").split()}
    assert labels
    assert labels <= set(page.ids)


def test_page_begins_with_the_verdict_and_its_reasons(scored: tuple[dict[str, Any], list[Any]]) -> None:
    scores, failures = scored
    text = Page(render_html(scores, failures)).text
    places = [text.index(scores["verdict"]), *(text.index(reason) for reason in scores["reasons"][:3])]
    assert places == sorted(places)
    assert places[-1] < text.index("The gate: base against tuned")


def test_page_shows_base_and_tuned_of_every_gate_line(scored: tuple[dict[str, Any], list[Any]]) -> None:
    scores, failures = scored
    text = Page(render_html(scores, failures)).text
    for line in scores["gate"]:
        assert percent(line["value"]).replace("\xa0", " ") in text
        assert f"n = {line['n']:,}" in text
    adherence = scores["baseline"]["schema"]["adherence"]
    assert percent(adherence["value"]).replace("\xa0", " ") in text


def test_base_that_answers_nothing_usable_is_not_praised_for_making_nothing_up(
    scored: tuple[dict[str, Any], list[Any]],
) -> None:
    scores, failures = scored
    counts = scores["baseline"]["abstention"]["counts"]
    all_malformed = dict.fromkeys(counts, 0) | {"malformed_answerable": 7, "malformed_unanswerable": 5}
    half = dict.fromkeys(counts, 0) | {"malformed_answerable": 7, "answered_correct": 7}
    for given, told in ((all_malformed, True), (half, False)):
        worse = {**scores["baseline"], "abstention": {**scores["baseline"]["abstention"], "counts": given}}
        text = Page(render_html({**scores, "baseline": worse}, failures)).text
        assert ("not usable for 12 of 12 questions" in text) is told


def test_page_fetches_nothing(scored: tuple[dict[str, Any], list[Any]]) -> None:
    html = render_html(*scored)
    page = Page(html)
    for tag, attributes in page.elements:
        for name in ("src", "href", "action", "data", "poster", "srcset", "xlink:href"):
            if name in attributes:
                assert str(attributes[name]).startswith(("#", "data:")), (tag, attributes)
    styles = "".join(re.findall(r"<style>(.*?)</style>", html, re.DOTALL))
    assert "url(" not in styles
    assert "@import" not in styles
    assert not [tag for tag, _ in page.elements if tag in ("iframe", "object", "embed", "img")]


def test_policy_allows_the_one_script_and_style_by_hash(scored: tuple[dict[str, Any], list[Any]]) -> None:
    html = render_html(*scored)
    policy = next(str(a["content"]) for tag, a in Page(html).elements if a.get("http-equiv"))
    for tag in ("style", "script"):
        inline = re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
        assert len(inline) == 1
        digest = base64.b64encode(hashlib.sha256(inline[0].encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert not re.search(r"<[^>]+ (style|on\w+)=", html), "such attributes would be refused by the policy"


def test_everything_from_data_is_escaped() -> None:
    scores, failures = eval_cases.hostile()
    assert failures[0].kinds == ("schema",)
    assert eval_cases.EVIL in json.dumps(scores["slices"], ensure_ascii=False).replace('\\"', '"')
    html = render_html(scores, failures)
    page = Page(html)
    assert [tag for tag, _ in page.elements].count("script") == 1
    assert "img" not in [tag for tag, _ in page.elements]
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    assert "49" not in re.findall(r"&amp;(.{0,4})", html), "a template in data is never run"
    assert page.text.count(" ".join(eval_cases.EVIL.split())) > 10


def test_markup_in_a_marked_output_stays_text() -> None:
    rules = eval_cases.behaviour()
    pair = eval_cases.pairs(2)[1]
    output = json.dumps({**eval_cases.answer(eval_cases.EVIL), "citations": [eval_cases.EVIL]})
    answered = Prediction(id=pair.id, output=output)
    found = find_failures(rules, grade(rules, [pair], {pair.id: answered}))
    parts = split_at(found[0].given, found[0].marks)
    assert [text for text, wrong in parts if wrong] == [json.dumps(eval_cases.EVIL)[1:-1]] * 2
    page = Page(render_html(eval_cases.scored()[0], found))
    assert [tag for tag, _ in page.elements].count("mark") == 2
    assert [tag for tag, _ in page.elements].count("script") == 1


def test_markdown_from_data_is_no_markup() -> None:
    text = render_markdown(*eval_cases.hostile())
    outside = re.sub(r"(`{3,})\n.*?\n\1", "", text, flags=re.DOTALL)
    assert not re.search(r"(?<!\\)<script", re.sub(r"`[^`\n]*`", "", outside))
    assert markdown_text("@team [x](http://a.b) #12 a|b <b>") == (
        "@\u200bteam \\[x\\](http:\u200b//a.b) #\u200b12 a\\|b \\<b\\>"
    )
    assert markdown_code("a`b|c\nd") == "`a'b¦c d`"
    assert markdown_fence("``` x ````") == "`````\n``` x ````\n`````"


def test_markdown_holds_verdict_and_gate(scored: tuple[dict[str, Any], list[Any]]) -> None:
    scores, failures = scored
    text = render_markdown(scores, failures)
    assert text.startswith("# ✅ GO: ")
    rows = [line for line in text.splitlines() if line.startswith("| ✅")]
    assert len(rows) == len(scores["gate"])
    for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        assert len({line.rstrip().count("|") for line in block.splitlines()}) == 1, "as many cells in every row"


def test_null_sections_say_why() -> None:
    rules = eval_cases.behaviour(abstain=None, citations=None, answer=None, gate={})
    asked = eval_cases.pairs(20)
    bare = {pair.id: Prediction(id=pair.id, output=json.dumps(pair.output)) for pair in asked}
    graded = grade(rules, asked, bare)
    scores = assemble_scores(rules, score_graded(rules, graded))
    text = Page(render_html(scores, find_failures(rules, graded))).text
    assert "Nothing was required" in text
    assert "The behaviour lists nothing under" in text
    for part in ("no answered output carries a confidence", "does not say where citations stand", "no general items"):
        assert part in text
    assert "no base model to compare with" in text
    assert "There are none: all 20 outputs" in text
    assert "no run that tried several adapter scales" in text


def test_parts_and_costs_are_shown_where_they_were_measured(scored: tuple[dict[str, Any], list[Any]]) -> None:
    scores, failures = scored
    page = Page(render_html(scores, failures))
    worst = scores["slices"][0]["values"][0]
    assert f"By topic, {worst['value']} fares worst: {100 * worst['right']['value']:.1f}" in page.text
    assert "llguidance 1 saw to it" in page.text
    there = {"slices-0", "latency", "constrained", "numbers-honesty", "numbers-vocabulary", "numbers-recalibration"}
    assert there <= set(page.ids)
    assert "“azure” instead of “navy”" in page.text
    text = render_markdown(scores, failures)
    for words in ("By topic, ", "Prudence ", "use a term to avoid", "llguidance", "For an answer the tuned"):
        assert text.count(words) == 1
    bare = {
        **scores,
        "slices": [],
        "baseline": None,
        **dict.fromkeys(("latency", "constrained", "honesty", "vocabulary")),
    }
    assert not there & set(Page(render_html({**bare, "calibration": None}, failures)).ids)
    assert "## Besides" not in render_markdown(bare, failures)


def test_a_slice_by_a_key_that_no_pair_has_is_said_and_not_drawn(scored: tuple[dict[str, Any], list[Any]]) -> None:
    scores, failures = scored
    row = {**scores["slices"][0]["values"][0], "value": None}
    page = Page(render_html({**scores, "slices": [{"key": "team", "values": [row], "left_out": 0}]}, failures))
    assert "slices-0" not in page.ids
    assert "By team No pair has this key in its meta." in page.text


def test_text_behaviour_gets_a_page() -> None:
    rules = eval_cases.behaviour(
        output=Output(format="text"), schema_document=None, abstain=None, answer=None, citations=None
    )
    pair = Pair(id="a", question="Why?", output="Because.", answerable=True)
    graded = grade(rules, [pair], {"a": Prediction(id="a", output="No idea", confidence=0.4)})
    scores = assemble_scores(rules, score_graded(rules, graded))
    failures = find_failures(rules, graded)
    assert [one.kinds for one in failures] == [("wrong",)]
    assert "No idea" in Page(render_html(scores, failures)).text
    assert render_markdown(scores, failures)


def test_many_failures_are_capped_and_counted(scored: tuple[dict[str, Any], list[Any]]) -> None:
    scores, failures = scored
    many = [failures[0].model_copy(update={"id": f"f{i}"}) for i in range(SHOWN + 7)]
    page = Page(render_html({**scores, "n": 1000}, many))
    assert [a.get("class") for _, a in page.elements].count("failure") == SHOWN
    assert f"{SHOWN + 7} of 1,000 answers" in page.text
    assert "failures.jsonl" in page.text
    markdown = render_markdown({**scores, "n": 1000}, many)
    assert f"{SHOWN} of them stand in report.html, some of every kind; all in failures.jsonl." in markdown


def test_markdown_gives_every_reason(scored: tuple[dict[str, Any], list[Any]]) -> None:
    reasons = [f"Line {i} is missed." for i in range(5)]
    markdown = render_markdown({**scored[0], "reasons": reasons}, [])
    assert all(one in markdown for one in reasons)


def test_the_filter_finds_some_of_every_kind_it_names(scored: tuple[dict[str, Any], list[Any]]) -> None:
    grave = [scored[1][0].model_copy(update={"id": f"f{i}", "kinds": ("hallucination",)}) for i in range(SHOWN + 50)]
    mild = [one.model_copy(update={"id": f"m{i}", "kinds": ("citation",)}) for i, one in enumerate(grave[:40])]
    chosen = choose_shown([*mild, *grave])
    assert len(chosen) == SHOWN
    assert sum(one.kinds == ("citation",) for one in chosen) == SHOWN_OF_KIND
    page = render_html({**scored[0], "n": 1000}, [*mild, *grave])
    assert f"({SHOWN_OF_KIND} of 40)</option>" in page
    assert choose_shown(mild[:3]) == mild[:3]


def test_long_texts_are_shortened_on_the_page_only(tmp_path: Path, scored: tuple[dict[str, Any], list[Any]]) -> None:
    scores, failures = scored
    long = failures[0].model_copy(update={"given": "x" * 50_000})
    assert "44,000 more characters" in Page(render_html(scores, [long])).text
    write_failures(tmp_path / "f.jsonl", [long])
    assert read_failures(tmp_path / "f.jsonl") == [long]


def test_the_same_scores_give_the_same_bytes(tmp_path: Path, scored: tuple[dict[str, Any], list[Any]]) -> None:
    for name in ("a", "b"):
        write_report(tmp_path / name, *scored)
    for page in ("report.html", "report.md", "failures.jsonl"):
        assert (tmp_path / "a" / page).read_bytes() == (tmp_path / "b" / page).read_bytes()


def test_a_retention_measured_by_losses_is_not_said_to_be_unmeasured() -> None:
    before = [Result(id=str(i), set="letters", nats_per_token=2 + i / 100) for i in range(50)]
    after = [one.model_copy(update={"nats_per_token": 3 + i / 90}) for i, one in enumerate(before)]
    rules, asked = eval_cases.behaviour(), eval_cases.pairs(30)
    scored = score_graded(rules, grade(rules, asked, eval_cases.predictions(asked, 0.9, 0.9)))
    scores = assemble_scores(rules, scored, None, retention_numbers(before, after))
    page = render_html(scores, [])
    assert "answered no general items" not in page
    assert "Loss on general text" in page
    assert re.search(
        r"Drop in retention \(letters\).*?missed</span><span class=\"interval\">by its loss", page, re.DOTALL
    )


def test_what_a_judge_called_wrong_is_not_said_to_be_compared() -> None:
    rules, pair = eval_cases.behaviour(), eval_cases.pairs(2)[1]
    told = Prediction(id=pair.id, output=json.dumps(pair.output), correct=False)
    (failure,) = find_failures(rules, grade(rules, [pair], {pair.id: told}))
    assert failure.wrong == ('The answer is "green"; wanted is "green" (a judge called it wrong).',)


def test_of_parts_that_fare_alike_none_is_called_the_worst() -> None:
    rules, asked = eval_cases.behaviour(), eval_cases.pairs(30)
    perfect = {pair.id: Prediction(id=pair.id, output=json.dumps(pair.output)) for pair in asked}
    found = score_graded(rules, grade(rules, asked, perfect), slices=("topic",))["slices"][0]
    assert slice_sentence(found).startswith("By topic, no part fares worse than another: 100.0\u00a0% right. Lines")
