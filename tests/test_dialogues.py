"""Fine-tuning rows as Arrow columns: what operators see of them, and that no job loses or mixes anything."""

import json
import re

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import HealthCheck, assume, given
from hypothesis import settings as tried
from hypothesis import strategies as st

from dialogue_rows import ingested, kept, rows, settings
from gristmill.jobs import clean, dedup, explain, label_conflict, passport, recipe, redact, stage
from gristmill.udfs import conflicts, dialogue_digest
from gristmill.udfs.dialogue_strings import Joined
from gristmill.udfs.dialogues import COLUMNS, MESSAGES, RESPONSES, ROLES, SLOTS, Dialogues, kind_of, of_rows
from gristmill.udfs.errors import InputError, RecipeError

KINDS = list(COLUMNS)[1:]
RUN = tried(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
each_kind = pytest.mark.parametrize("kind", KINDS)


def user(*texts):
    return [{"role": "user" if n % 2 == 0 else "assistant", "content": text} for n, text in enumerate(texts)]


def messages_of(row, kind):
    """[(column, response's place or None, message)] in order: the slow and obvious way."""
    out = []
    for name, dtype in COLUMNS[kind].items():
        if dtype == MESSAGES:
            out += [(name, None, message) for message in row[name] or []]
        elif dtype == RESPONSES:
            out += [(name, k, message) for k, response in enumerate(row[name] or []) for message in response["messages"] or []]
    return out


def said(row, kind, slot):
    """The slow twin of Dialogues.slot."""
    if slot == "reference":
        return row["reference"] or ""
    found = messages_of(row, kind)
    if kind == "conversations":
        answer = found[-1:] if found and found[-1][2]["role"] == "assistant" else []
        prompt = found[:-1] if answer else found
    else:
        prompt = [entry for entry in found if entry[0] == "prompt"]
        answer = [entry for entry in found if entry[0] == {"preference": "chosen", "unpaired": "completion"}.get(kind)]
        if kind == "ranked":
            scores = [(response["score"], -k) for k, response in enumerate(row["responses"] or []) if response["score"] is not None]
            answer = [entry for entry in found if entry[0] == "responses" and scores and entry[1] == -max(scores)[1]]
    asked = [entry for entry in prompt if entry[2]["role"] == "user"][-1:]
    chosen = {"all": found, "prompt": prompt, "response": answer, "question": asked}.get(slot)
    if chosen is None:
        chosen = [entry for entry in found if slot in ((entry[2]["role"],) if slot in ROLES else (entry[0],))]
    return "\n\n".join(entry[2]["content"] for entry in chosen if entry[2]["content"] is not None)


@each_kind
@RUN
@given(data=st.data())
def test_slots_are_what_the_slow_twin_says(kind, data):
    found = data.draw(rows(kind))
    table = of_rows([{"prompt": [], **found[0]}, *found], kind).slice(1)           # an offset in every buffer
    dialogues = Dialogues(table)
    assert dialogues.kind == kind_of(table.schema) == kind
    for slot in ("all", *SLOTS[kind]):
        assert dialogues.slot(slot).array.to_pylist() == [said(row, kind, slot) for row in found], slot


@each_kind
@RUN
@given(data=st.data())
def test_contents_can_be_replaced_and_nothing_else_changes(kind, data):
    table = of_rows(data.draw(rows(kind)), kind).slice(data.draw(st.integers(0, 1)))
    same = Dialogues(table).replaced(Dialogues(table).contents)
    assert same.table.schema == table.schema
    assert same.table.to_pylist() == table.to_pylist()
    upper = Dialogues(table).replaced(pc.utf8_upper(Dialogues(table).contents)).table.to_pylist()
    for row, changed in zip(table.to_pylist(), upper, strict=True):
        before, after = messages_of(row, kind), messages_of(changed, kind)
        # Arrow's upper case is of single code points, Python's may be longer.
        assert [m["content"] for *_, m in after] == [None if m["content"] is None else pc.utf8_upper(m["content"]).as_py() for *_, m in before]
        assert [{**m, "content": ""} for *_, m in after] == [{**m, "content": ""} for *_, m in before]


@each_kind
@RUN
@given(data=st.data())
def test_what_makes_a_row_differ_is_in_everything(kind, data):
    """The digest sees every field of a message but those that say where it comes from."""
    found = data.draw(rows(kind, 1))
    change = data.draw(st.sampled_from(["role", "content", "reasoning", "train"]))
    other = json.loads(json.dumps(found))
    entries = messages_of(other[0], kind)
    assume(entries)
    message = data.draw(st.sampled_from(entries))[2]
    message[change] = not message["train"] if change == "train" else (message[change] or "") + "x"
    one, two = (dialogue_digest.everything(Dialogues(of_rows(given_, kind)))[0].as_py() for given_ in (found, other))
    assert one != two


@each_kind
@RUN
@given(data=st.data())
def test_joined_strings_come_back(kind, data):
    table = of_rows(data.draw(rows(kind)), kind)
    joined = Joined(Dialogues(table))
    assert joined.parted(joined.text).to_pylist() == table.to_pylist()
    lost = np.array(data.draw(st.lists(st.booleans(), min_size=len(table), max_size=len(table))))
    back = joined.parted(pc.if_else(pa.array(lost), pa.scalar(None, pa.large_string()), joined.text)).to_pylist()
    for gone, row, made in zip(lost, table.to_pylist(), back, strict=True):
        if gone:
            assert not messages_of(made, kind)
            assert made["text"] == ""
        else:
            assert made == row


def test_a_mark_in_the_text_is_not_taken_for_one():
    table = of_rows([{"messages": user("a\n\ufdd0\nb", "c")}], "conversations")
    joined = Joined(Dialogues(table))
    assert "\ufdd0" not in joined.between
    assert joined.parted(joined.text).to_pylist() == table.to_pylist()
    every = "".join(chr(code) for code in range(0xFDD0, 0xFDF0))
    with pytest.raises(InputError, match="U\\+FDD0"):
        Joined(Dialogues(of_rows([{"messages": user(every)}], "conversations")))


CONVERSATIONS = [
    user("請問訂單怎麼查😀？", "登入後點「我的訂單」😀，電話 13812345678。"),
    user("退货要几天？", ""),
    [{"role": "system", "content": "客服"}, *user("你好", "您好！", "电话是 13812345678 吗？", "是的，13812345678。")],
    user("退货要几天？", "七天。"),
]


def test_clean_works_on_messages(tmp_path):
    """Transforms change messages, or those of a role; scores are of a slot; the ledger says why."""
    ingested(tmp_path, of_rows([{"messages": one} for one in CONVERSATIONS], "conversations"))
    made = settings(tmp_path, "conversations", max_error_rate=0, clean=[
        "to_simplified", {"user.remove_emoji": {}}, "assistant.char_count", "question.char_count", {"keep": ["assistant.char_count >= 1"]}])
    sealed = clean.run(made, "local")
    assert sealed["rules"] == {"assistant.char_count >= 1": 1}
    first, third, fourth = kept(tmp_path, "clean")
    assert [message["content"] for message in first["messages"]] == ["请问订单怎么查？", "登入后点「我的订单」😀，电话 13812345678。"]
    assert first["text"] == "请问订单怎么查？\n\n登入后点「我的订单」😀，电话 13812345678。"
    assert third["question.char_count"] == len("电话是 13812345678 吗？")
    assert third["assistant.char_count"] == len("您好！\n\n是的，13812345678。")
    assert fourth["messages"] == of_rows([{"messages": CONVERSATIONS[3]}], "conversations")["messages"][0].as_py()
    (gone,) = kept(tmp_path, "clean", "dropped")
    assert gone["why"] == [{"rule": "assistant.char_count >= 1", "value": 0.0, "evidence": None}]


def test_dropped_rows_hide_their_messages(tmp_path):
    ingested(tmp_path, of_rows([{"messages": one} for one in CONVERSATIONS], "conversations"))
    steps = ["assistant.char_count", {"keep": ["assistant.char_count >= 1000"]}]
    clean.run(settings(tmp_path, "conversations", dropped_text="hash", clean=steps), "local")
    for row in kept(tmp_path, "clean", "dropped"):
        assert row["messages"] is None
        assert len(row["text"]) == 64


def test_an_operator_that_raises_drops_its_row_alone(tmp_path, monkeypatch):
    from gristmill.udfs import registry

    step = recipe.steps(settings(tmp_path, "conversations", clean=["remove_emoji"]))[0]

    def broken(texts):
        if "bad" in texts.array.to_pylist():
            raise ValueError("bad")
        return texts.array

    monkeypatch.setitem(registry.OPERATORS, "remove_emoji", registry.Operator("remove_emoji", "transform", broken))
    table = of_rows([{"messages": user("good", "good")}, {"messages": user("good", "bad")}, {"messages": user("good")}], "conversations")
    result = stage.Stage((step,), {}, kind="conversations")(table)
    assert result.kept.tolist() == [True, False, True]
    assert [entry["rule"] for entry in result.table["why"][1].as_py()] == ["error:remove_emoji"]


def test_redact_finds_values_in_messages_reasoning_and_calls(tmp_path):
    call = {"id": "1", "name": "dial", "arguments": '{"phone": 13812345678, "to": "a@b-shop.cn"}'}
    last = {"role": "assistant", "content": None, "reasoning": "打 13812345678", "tool_calls": [call]}
    ingested(tmp_path, of_rows([{"messages": one} for one in [*CONVERSATIONS, [*user("打给13812345678"), last]]], "conversations"))
    sealed = redact.run(settings(tmp_path, "conversations", max_error_rate=0, redact={"default": "mask"}), "local")
    found = kept(tmp_path, "redact")
    text = json.dumps(found, ensure_ascii=False)
    assert "13812345678" not in text
    assert "b-shop" not in text
    # One number in a row is one mask, wherever it stands.
    assert [m["content"] for m in found[2]["messages"]] == ["客服", "你好", "您好！", "电话是 <PHONE_1> 吗？", "是的，<PHONE_1>。"]
    made = found[4]["messages"][1]
    assert made["reasoning"] == "打 <PHONE_1>"
    assert json.loads(made["tool_calls"][0]["arguments"]) == {"phone": "<PHONE_1>", "to": "<EMAIL_1>"}
    assert [row["pii_count"] for row in found] == [1, 0, 2, 0, 4]
    assert sealed["rows"]["kept"] == 5


def extra(fields, **facts):
    return json.dumps({**fields, **({"": facts} if facts else {})}, ensure_ascii=False, separators=(",", ":"))


def test_redact_finds_values_in_names_and_further_fields(tmp_path):
    """What stands beside a message's content is searched too; how it was written stays, and what is no JSON any more goes."""
    first = {"role": "user", "content": "你好，13812345678", "name": "a@b-shop.cn", "extra": extra({"tel": 13812345678, "from": {"mails": ["c@d-shop.cn"]}}, role="human")}
    other = {"role": "assistant", "content": "好", "name": "客服", "extra": extra({}, role="gpt")}
    broken = {"role": "user", "content": "嗯", "extra": extra({"tel": 13812345678, "n": 1}, null={"role": ["x"]})}
    table = of_rows([{"messages": [first, other]}, {"messages": [broken]}, {"messages": [other]}], "conversations")
    ingested(tmp_path, table)
    sealed = redact.run(settings(tmp_path, "conversations", max_error_rate=0, redact={"default": "mask"}), "local")
    found = kept(tmp_path, "redact")
    assert not re.search("13812345678|b-shop|d-shop", json.dumps(found, ensure_ascii=False))
    made = found[0]["messages"]
    assert (made[0]["content"], made[0]["name"]) == ("你好，<PHONE_1>", "<EMAIL_1>")
    assert made[0]["extra"] == extra({"from": {"mails": ["<EMAIL_2>"]}, "tel": "<PHONE_1>"}, role="human")
    assert made[1] == table["messages"][0].as_py()[1]
    assert found[1]["messages"][0]["extra"] == extra({"n": 1, "tel": "<PHONE_1>"}, null={"role": ["x"]})
    assert ([row["pii_count"] for row in found], sealed["rows"]["kept"]) == ([4, 1, 0], 3)
    assert "names of speakers and further fields of messages was looked at" in sealed["limits"][0]
    gone = settings(tmp_path, "conversations", max_error_rate=0, redact={"default": "remove"})
    redact.run(gone, "local", True)
    assert kept(tmp_path, "redact")[1]["messages"][0]["extra"] == extra({}, null={"role": ["x"]})       # {"n": 1, "tel": } is no JSON


def test_the_digest_sees_names_and_further_fields():
    plain = user("a", "b")
    named = [[{**plain[0], **more}, plain[1]] for more in (
        {}, {"name": "x"}, {"extra": extra({"x": 1})}, {"extra": extra({"x": 2})}, {"name": "x", "extra": extra({"x": 1})}, {"name": ""})]
    found = dialogue_digest.everything(Dialogues(of_rows([{"messages": one} for one in named], "conversations"))).to_pylist()
    assert len(set(found)) == len(found)
    alone = dialogue_digest.everything(Dialogues(of_rows([{"messages": named[0]}], "conversations"))).to_pylist()
    assert found[:1] == alone                                                  # whatever stands beside it
    written = [{**plain[0], "extra": extra({}, role="human")}, plain[1]]
    assert dialogue_digest.everything(Dialogues(of_rows([{"messages": written}], "conversations"))).to_pylist() == alone
    orders = [[{**plain[0], "extra": one}] for one in ('{"a":1,"b":2}', '{"b":2,"a":1}')]
    assert len(set(dialogue_digest.everything(Dialogues(of_rows([{"messages": one} for one in orders], "conversations"))).to_pylist())) == 1


def conflicting(kind, found):
    """{row: rows that contradict it}, each pair compared."""
    questions, answers = conflicts.verdicts(Dialogues(of_rows(found, kind)))
    return {i: [j for j in range(len(found)) if (questions[i] == questions[j]).all() and answers[i] != answers[j] and answers[i] and answers[j]]
            for i in range(len(found))}


CASES = {
    "conversations": [user("好吗？", "是的，很好。"), user("好吗", "不是。"), user("好 吗？", "Yes"), user("好吗", "看情况而定，取决于很多因素。"), user("坏吗", "否"),
                      user("情感：差", "负面"), user("情感：差", "正面"), user("12-3=", "9"), user("1-23=", "-22")],
    "unpaired": [({"prompt": user("q"), "completion": [{"role": "assistant", "content": c}]}, label) for c, label in
                 (("a", True), ("A。", False), ("b", True), ("b", True), ("c", None), ("c", False))],
}


def test_conflicts_by_kind(tmp_path):
    found = [{"messages": one} for one in CASES["conversations"]]
    assert conflicting("conversations", found) == {0: [1], 1: [0, 2], 2: [1], 3: [], 4: [], 5: [6], 6: [5], 7: [], 8: []}
    found = [{**row, "label": label} for row, label in CASES["unpaired"]]
    assert conflicting("unpaired", found) == {0: [1], 1: [0], 2: [], 3: [], 4: [], 5: []}
    one, two = ([{"role": "assistant", "content": text}] for text in ("good", "bad"))
    pairs = [{"prompt": user("q"), "chosen": a, "rejected": b} for a, b in ((one, two), (two, one), (one, one), (one, two))]
    assert conflicting("preference", pairs) == {0: [1], 1: [0, 3], 2: [], 3: [1]}
    ranked = [{"prompt": user("q"), "responses": [{"messages": one, "score": a}, {"messages": two, "score": b}]} for a, b in ((2, 1), (0, 1), (5, 4), (None, 1))]
    assert conflicting("ranked", ranked) == {0: [1], 1: [0, 2], 2: [1], 3: []}
    references = [{"prompt": user("q"), "reference": text} for text in ("72", "73", None, "72.")]
    assert conflicting("prompts", references) == {0: [1], 1: [0, 3], 2: [], 3: [1]}


@pytest.mark.parametrize("engine", ["local", pytest.param("spark", marks=pytest.mark.spark)])
@pytest.mark.parametrize("files", [1, 3])
def test_label_conflict_drops_or_marks(tmp_path, request, engine, files):
    if engine == "spark":
        request.getfixturevalue("spark")
    found = [{"messages": one} for one in CASES["conversations"]]
    truth = conflicting("conversations", found)
    for action in ("drop", "mark"):
        workdir = tmp_path / action
        ingested(workdir, of_rows(found, "conversations"), files)
        sealed = label_conflict.run(settings(workdir, "conversations", label_conflict={"action": action}), engine)
        rows_ = {int(row["id"]): row for side in ("kept", "dropped") for row in kept(workdir, "label_conflict", side)}
        assert {n: row["label_conflict"] for n, row in rows_.items()} == {n: len(others) for n, others in truth.items()}
        gone = {n: row["why"] for n, row in rows_.items() if row["why"]}
        assert set(gone) == ({n for n, others in truth.items() if others} if action == "drop" else set())
        for n, why in gone.items():
            assert int(why[0]["evidence"]) in truth[n]
        assert sealed["rows"]["dropped"] == len(gone)
        assert label_conflict.run(settings(workdir, "conversations", label_conflict={"action": action}), engine) == sealed


def test_label_conflict_is_the_same_after_a_kill(tmp_path):
    """Killed after the comparison and after a part: the marks are there or made anew."""
    found = of_rows([{"messages": one} for one in CASES["conversations"]], "conversations")
    made = [settings(tmp_path / name, "conversations", label_conflict={"action": "drop"}) for name in ("whole", "killed")]
    for one in made:
        ingested(one.workdir, found, 3)
    whole, calls = label_conflict.run(made[0], "local"), []
    real = passport.finish

    def dies(*arguments):
        real(*arguments)
        calls.append(1)
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(passport, "finish", dies)
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                label_conflict.run(made[1], "local")
    assert len(calls) == 2
    again = label_conflict.run(made[1], "local")
    assert again["resumed_parts"] == 2
    assert again["digest"] == whole["digest"]


PROMPT = "请用三句话介绍一下中国的四大发明以及它们对世界文明的影响，要求语言简洁、准确，并且适合中学生阅读。"


def test_near_duplicate_prompts_go_whatever_their_answers(tmp_path, capsys):
    found = [user(PROMPT, "甲" * 80), user(PROMPT.replace("简洁", "简练"), "乙" * 90), user("退货要几天？", "甲" * 80)]
    for slot, dropped in (("prompt", ["0000"]), ("text", []), ("response", ["0002"])):
        workdir = tmp_path / slot
        ingested(workdir, of_rows([{"messages": one} for one in found], "conversations"))
        made = settings(workdir, "conversations", dedup={"slot": slot, "threshold": 0.7})
        dedup.run(made, "local")
        assert [row["id"] for row in kept(workdir, "dedup", "dropped")] == dropped, slot
        if slot == "prompt":
            from rich.console import Console

            explain.document(Console(width=200), made, "0000")
            shown = capsys.readouterr().out
            assert "[-洁-][+练+]" in shown
            assert "乙" * 5 not in shown.partition("similarity")[2]


def test_recipes_for_the_wrong_kind_are_refused(tmp_path):
    for kind, sections, message in [
        ("pretrain", {"clean": ["assistant.char_count"]}, "documents have no 'assistant'"),
        ("conversations", {"clean": ["assistent.char_count"]}, "Did you mean 'assistant'"),
        ("preference", {"clean": ["chosen.char_count", {"keep": ["rejected.char_count >= 1"]}]}, "needs a score that no earlier step made"),
        ("pretrain", {"label_conflict": {"action": "drop"}}, "is for fine-tuning rows"),
        ("pretrain", {"dedup": {"slot": "prompt"}}, "have no 'prompt'"),
        ("unpaired", {"dedup": {"slot": "chosen"}}, "have no 'chosen'"),
        ("conversations", {"dedup": {"lines": {"max_documents": 5}}}, "is for documents"),
        ("prompts", {"clean": ["reference.to_simplified"]}, "is none"),
    ]:
        with pytest.raises(RecipeError, match=message):
            settings(tmp_path, kind, **sections)
