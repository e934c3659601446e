"""The drawn rows for people: a CSV for spreadsheets, JSONL, Label Studio's tasks and interface, a page for any browser, a guide.

No file has the verdict of another reviewer, and none says which stratum a row is of.
"""

import base64
import csv
import hashlib
import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from typing import Any
from xml.sax.saxutils import quoteattr

from gristmill.jobs import storage
from gristmill.jobs.audit_guide import REASONS, guide
from gristmill.jobs.audit_views import View
from gristmill.jobs.page import esc

CELL = 32_000              # characters of a cell; Excel cuts at 32,767 without a word
ASKED = ("item", "verdict", "reason", "note", "reviewer")
# What a spreadsheet takes for a formula, the full-width signs too (Excel in Chinese and Japanese), be there blanks before it.
FORMULA = re.compile(r"\s*[=+\-@＝＋－＠]|[\t\r\n]")
PLACES = {"conversations": ("prompt", "response"), "preference": ("prompt", "chosen", "rejected"), "unpaired": ("prompt", "completion"),
          "ranked": ("prompt", "responses"), "prompts": ("prompt", "reference"), "pretrain": ("text",)}


def write(folder: str, rows: Sequence[View], about: Mapping[str, Any]) -> dict[str, str]:
    """Write all of them; {file: SHA-256}. `about` has name, kind, draw, population, reviewers and threshold."""
    files = {
        "audit.csv": sheet(rows, about["kind"]), "audit.jsonl": lines(rows, about["draw"]), "label_studio.json": tasks(rows, about["draw"]),
        "label_studio.xml": interface(), "audit.html": page(rows, about),
        "guide.md": guide(about["name"], len(rows), about["population"], about["draw"], about["reviewers"], about["threshold"]).encode(),
    }
    for name, data in files.items():
        with storage.write(storage.join(folder, name)) as file:
            file.write(data)
    return {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}


def sheet(rows: Iterable[View], kind: str) -> bytes:
    """audit.csv: UTF-8 with the mark by which Excel knows it, every cell quoted, none of which a program calculates."""
    out = io.StringIO()
    writer = csv.writer(out, quoting=csv.QUOTE_ALL, lineterminator="\r\n")
    writer.writerow([*ASKED, *PLACES[kind], "fields", "id"])
    for row in rows:
        texts = [_text(row, place) for place in PLACES[kind]]
        fields = "\n".join(f"{name}: {value}" for name, value in row.fields.items())
        writer.writerow([row.item, "", "", "", "", *(cell(text) for text in [*texts, fields, row.id])])
    return b"\xef\xbb\xbf" + out.getvalue().encode()


def cell(text: str) -> str:
    """The text for a cell: not longer than Excel takes, and never a formula."""
    if len(text.encode("utf-16-le")) // 2 > CELL:
        text = f"{text.encode('utf-16-le')[: 2 * CELL].decode('utf-16-le', 'ignore')}… (cut here: audit.html has more)"
    return f"'{text}" if FORMULA.match(text) else text


def _text(row: View, place: str) -> str:
    """What a column of the sheet holds: the turns of the place, with their roles where there are several."""
    many = place == "responses"
    turns = [turn for turn in row.turns if turn.place.split(" ")[0] == ("response" if many else place)]
    out = []
    for number, turn in enumerate(turns):
        tail = f"… ({turn.cut:,} characters more)" if turn.cut else ""
        head = f"[{turn.place}] " if many and turn.place != (turns[number - 1].place if number else "") else ""
        head += f"[{turn.role}] " if turn.role and (len(turns) > 1 and not many or turn.role not in ("user", "assistant")) else ""
        out.append(f"{head}{turn.text}{tail}")
    if row.left and turns and turns[-1] == row.turns[-1]:
        out.append(f"({row.left:,} turns more)")
    return "\n\n".join(out)


def lines(rows: Iterable[View], draw: str) -> bytes:
    """audit.jsonl: a row a line, with the keys that a verdict fills."""
    return b"".join(json.dumps({**dict.fromkeys(ASKED), "item": row.item, "draw": draw, "id": row.id, **_shown(row)},
                               ensure_ascii=False).encode() + b"\n" for row in rows)


def _shown(row: View) -> dict[str, Any]:
    turns = [{"place": turn.place, "role": turn.role, "text": turn.text, **({"cut": turn.cut} if turn.cut else {})} for turn in row.turns]
    return {"turns": turns, **({"left": row.left} if row.left else {}), "fields": row.fields}


def tasks(rows: Iterable[View], draw: str) -> bytes:
    """label_studio.json: tasks to import; the texts stand in a tag that shows them as text."""
    out = []
    for row in rows:
        said = [{"author": " · ".join(filter(None, (turn.place, turn.role))),
                 "text": f"{turn.text or '(empty)'}{f'… ({turn.cut:,} characters more)' if turn.cut else ''}"} for turn in row.turns]
        said += [{"author": "…", "text": f"{row.left:,} turns more"}] if row.left else []
        said += [{"author": "fields", "text": "\n".join(f"{name}: {value}" for name, value in row.fields.items())}] if row.fields else []
        out.append({"data": {"item": row.item, "draw": draw, "row_id": row.id, "dialogue": said}})
    return json.dumps(out, ensure_ascii=False, indent=1).encode()


def interface() -> bytes:
    """label_studio.xml: verdict, reasons and a note beside the row."""
    reasons = "\n".join(f"    <Choice value={quoteattr(key)} hint={quoteattr(reason.question_en + ' ' + reason.question_zh)}/>"
                        for key, reason in REASONS.items())
    return f"""<View>
  <Style>.lsf-phrases, .htx-text {{ white-space: pre-wrap; }}</Style>
  <Header value="$item"/>
  <Paragraphs name="row" value="$dialogue" layout="dialogue" nameKey="author" textKey="text"/>
  <Choices name="verdict" toName="row" choice="single" required="true" showInline="true">
    <Choice value="accept" hotkey="a"/>
    <Choice value="reject" hotkey="r"/>
  </Choices>
  <Choices name="reason" toName="row" choice="multiple" showInline="true" visibleWhen="choice-selected" whenTagName="verdict"
           whenChoiceValue="reject">
{reasons}
  </Choices>
  <TextArea name="note" toName="row" placeholder="note" maxSubmissions="1" editable="true"/>
</View>
""".encode()


def page(rows: Iterable[View], about: Mapping[str, Any]) -> bytes:
    """audit.html: the rows as data that no browser runs, and one script, the only one that the page allows."""
    data = {
        "name": about["name"], "draw": about["draw"],
        "reasons": [[key, reason.en, reason.zh, reason.question_en, reason.question_zh] for key, reason in REASONS.items()],
        "rows": [{"item": row.item, "id": row.id, **_shown(row)} for row in rows],
    }
    held = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    held = held.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
    home = resources.files("gristmill.jobs")
    script, template = (home.joinpath(name).read_text("utf-8") for name in ("audit.js", "audit.html"))
    mark = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    template = template.replace("<!--hash-->", mark).replace("<!--title-->", esc(about["name"]))
    before, between, after = re.split("<!--(?:data|script)-->", template)
    return f"{before}{held}{between}{script}{after}".encode()
