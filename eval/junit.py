"""A report's gate as JUnit XML, for the test tab of a CI: one case for each line of the gate."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from curate.files import write_text
from eval.pictures import Scores

JUNIT = "junit.xml"
_ILLEGAL = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # XML 1.0, section 2.2


def write_junit(directory: Path, scores: Scores) -> None:
    """Write junit.xml into `directory`."""
    write_text(directory / JUNIT, render_junit(scores))


def render_junit(scores: Scores) -> str:
    """The file's text. NO-GO is a failure; INCONCLUSIVE is an error, which fails a CI step too but reads apart.

    JUnit knows passed, failed, in error and skipped. A line that too few pairs leave open was not passed and was not
    skipped: it could not be judged, and that is what an error says. A gate without lines is one such case.
    """
    suite = ElementTree.Element("testsuite", name="tutelage gate")
    lines = scores["gate"] or [{"metric": "gate", "set": None, "verdict": scores["verdict"], **_first_reason(scores)}]
    for line in lines:
        label = f"{line['metric']} ({line['set']})" if line.get("set") else line["metric"]
        case = ElementTree.SubElement(suite, "testcase", classname="tutelage.gate", name=_legal(label))
        kind = {"NO-GO": "failure", "INCONCLUSIVE": "error"}.get(line["verdict"])
        if kind:
            found = ElementTree.SubElement(case, kind, type=line["verdict"], message=_legal(line["reason"]))
            found.text = _legal(line["reason"])
        else:
            ElementTree.SubElement(case, "system-out").text = _legal(line["reason"])
    verdicts = [line["verdict"] for line in lines]
    suite.set("tests", str(len(verdicts)))
    suite.set("failures", str(verdicts.count("NO-GO")))
    suite.set("errors", str(verdicts.count("INCONCLUSIVE")))
    suite.set("skipped", "0")
    whole = ElementTree.Element("testsuites", {**dict(suite.items()), "name": "tutelage"})
    whole.append(suite)
    ElementTree.indent(whole)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(whole, encoding="unicode") + "\n"


def _first_reason(scores: Scores) -> dict[str, Any]:
    return {"reason": next(iter(scores["reasons"]), "")}


def _legal(text: Any) -> str:
    """The text with what XML cannot hold written as U+FFFD."""
    return _ILLEGAL.sub("\ufffd", str(text))
