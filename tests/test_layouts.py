"""Layouts: golden rows of each, and laws over random ones: what is read and written again is as it was, and nothing is lost unsaid."""

import json
import zlib

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gristmill.jobs import dialogue_tables, layouts
from gristmill.jobs.layouts import Unreadable, Unwritable
from gristmill.jobs.layouts_parts import MARK
from gristmill.udfs.dialogues import COLUMNS, MESSAGES, of_rows
from gristmill.udfs.errors import RecipeError

KINDS = [kind for kind in COLUMNS if kind != "pretrain"]
ZH = "第一条：任何组织和个人都应当遵守法律。"
BASIC = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))


def system(text):
    return {"role": "system", "content": text}


def user(text):
    return {"role": "user", "content": text}


def assistant(text, **more):
    return {"role": "assistant", "content": text, **more}


def bare(row):
    """A canonical row without origin and what is null."""
    return {name: value for name, value in row.items() if name != "origin" and value is not None}


# ---- what each layout's rows are


CALL = '{"name": "weather", "arguments": {"city": "北京"}}'
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {}}}
FUNCTIONS = [{"name": "weather", "parameters": {}}]
LOOKED_UP = [user("Weather?"), {"role": "assistant", "content": None, "tool_calls": [{"id": None, "name": "weather", "arguments": '{"city": "北京"}'}]},
             {"role": "tool", "content": '{"sky": "clear"}'}, assistant("Clear.")]

GOLDEN = [
    # (layout, kind, the row, its canonical columns)
    ("alpaca", "conversations", {"instruction": "Add.", "input": "", "output": "3"}, {"messages": [user("Add."), assistant("3")]}),
    ("alpaca", "conversations", {"instruction": "Add.", "input": "1, 2", "output": ""}, {"messages": [user("Add.\n1, 2"), assistant("")]}),
    ("alpaca", "conversations", {"instruction": "Add.", "input": "", "output": "3", "system": "Be short.", "history": [["a", "b"]], "topic": "sums"},
     {"messages": [system("Be short."), user("a"), assistant("b"), user("Add."), assistant("3")], "topic": "sums"}),
    ("alpaca", "conversations", {"instruction": "Who?", "context": "Ada wrote it.", "response": "Ada", "category": "qa"},
     {"messages": [user("Who?\nAda wrote it."), assistant("Ada")], "category": "qa"}),
    ("alpaca", "unpaired", {"instruction": "Add.", "input": "1, 2", "output": "4", "kto_tag": False},
     {"prompt": [user("Add.\n1, 2")], "completion": [assistant("4")], "label": False}),
    ("alpaca", "preference", {"instruction": "Add.", "input": "", "chosen": "3", "rejected": "4"},
     {"prompt": [user("Add.")], "chosen": [assistant("3")], "rejected": [assistant("4")]}),
    ("alpaca", "prompts", {"instruction": "Add.", "input": "1, 2"}, {"prompt": [user("Add.\n1, 2")]}),
    ("sharegpt", "conversations", {"conversations": [{"from": "human", "value": "Weather?"}, {"from": "function_call", "value": CALL},
                                                     {"from": "observation", "value": '{"sky": "clear"}'}, {"from": "gpt", "value": "Clear."}],
                                   "system": "Be kind.", "tools": json.dumps(FUNCTIONS)},
     {"messages": [system("Be kind."), *LOOKED_UP], "tools": json.dumps(FUNCTIONS)}),
    ("sharegpt", "preference", {"conversations": [{"from": "human", "value": "Hi"}], "chosen": {"from": "gpt", "value": "Hello!"},
                                "rejected": {"from": "gpt", "value": "What?"}},
     {"prompt": [user("Hi")], "chosen": [assistant("Hello!")], "rejected": [assistant("What?")]}),
    ("sharegpt", "preference", {"conversations": [{"from": "human", "value": "Hi"}], "chosen": "Hello!", "rejected": "What?"},
     {"prompt": [user("Hi")], "chosen": [assistant("Hello!")], "rejected": [assistant("What?")]}),
    ("sharegpt", "unpaired", {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "What?"}], "kto_tag": False},
     {"prompt": [user("Hi")], "completion": [assistant("What?")], "label": False}),
    ("openai", "conversations", {"messages": [{"role": "developer", "content": "Be kind."}, user("Hi"), assistant("Hello!", weight=0)]},
     {"messages": [{**system("Be kind."), "extra": '{"":{"role":"developer"}}'}, user("Hi"), assistant("Hello!", train=False)]}),
    ("openai", "conversations",
     {"messages": [user("Weather?"), {"role": "assistant", "content": None, "tool_calls": [
         {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"北京"}'}}]},
         {"role": "tool", "tool_call_id": "call_1", "content": "clear"}, assistant("Clear.")], "tools": [TOOL]},
     {"messages": [user("Weather?"), {"role": "assistant", "content": None, "tool_calls": [
         {"id": "call_1", "name": "weather", "arguments": '{"city":"北京"}'}]},
         {"role": "tool", "tool_call_id": "call_1", "content": "clear"}, assistant("Clear.")],
      "tools": json.dumps([TOOL])}),
    ("openai", "conversations",
     {"messages": [user("Weather?"), {"role": "assistant", "content": None, "function_call": {"name": "weather", "arguments": "{}"}},
                   {"role": "function", "name": "weather", "content": "clear"}], "functions": FUNCTIONS},
     {"messages": [user("Weather?"), {"role": "assistant", "content": None, "tool_calls": [{"id": None, "name": "weather", "arguments": "{}"}],
                                      "extra": '{"":{"legacy":{"name":null,"arguments":false}}}'},
                   {"role": "tool", "name": "weather", "content": "clear", "extra": '{"":{"role":"function"}}'}],
      "tools": json.dumps(FUNCTIONS)}),
    ("openai", "conversations", {"messages": [{"role": "user", "content": [
        {"type": "text", "text": "What is "}, {"type": "image_url", "image_url": {"url": "https://x.org/a.png", "detail": "low"}},
        {"type": "text", "text": "?"}]}, assistant("A cat.", reasoning_content="whiskers")]},
     {"messages": [{"role": "user", "content": "What is <image>?", "images": ["https://x.org/a.png"],
                    "extra": json.dumps({"": {"parts": [8, {"at": "image_url", "part": {"type": "image_url", "image_url": {"url": None, "detail": "low"}}}, 1,
                                                       zlib.crc32(b"What is <image>?")]}}, separators=(",", ":"))},
                   assistant("A cat.", reasoning="whiskers")]}),
    ("openai", "conversations", {"messages": [user("<image><image>差别？"), assistant("一只狗。"), user("<image>呢？"), assistant("猫。")],
                                 "images": ["a.png", "b.png", "c.png"]},
     {"messages": [{**user("<image><image>差别？"), "images": ["a.png", "b.png"]}, assistant("一只狗。"),
                   {**user("<image>呢？"), "images": ["c.png"]}, assistant("猫。")]}),
    ("openai", "conversations", [user("Hi"), assistant("Hello!")], {"messages": [user("Hi"), assistant("Hello!")]}),
    ("openai", "unpaired", {"messages": [user("Hi"), assistant("Hello!")], "label": True},
     {"prompt": [user("Hi")], "completion": [assistant("Hello!")], "label": True}),
    ("openai", "prompts", {"messages": [system("Be kind."), user("Hi")]}, {"prompt": [system("Be kind."), user("Hi")]}),
    ("openai", "prompts", {"messages": [user("Hi"), assistant("Hello!")]}, {"prompt": [user("Hi")], "reference": "Hello!"}),
    ("openai_preference", "preference",
     {"input": {"messages": [user("Hi")], "tools": [], "parallel_tool_calls": True}, "preferred_output": [assistant("Hello!")],
      "non_preferred_output": [assistant("What?")]},
     {"prompt": [user("Hi")], "chosen": [assistant("Hello!")], "rejected": [assistant("What?")], "parallel_tool_calls": True}),
    ("chatml", "conversations",
     {"text": f"<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\n{ZH}\n<|im_end|>\n<|im_start|>assistant\nYes.<|im_end|>\n"},
     {"messages": [system("Be kind."), user(f"{ZH}\n"), assistant("Yes.")]}),
    ("chatml", "prompts", {"text": "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"}, {"prompt": [user("Hi")]}),
    ("prompt_completion", "conversations", {"question": "1+1?", "answer": "2"}, {"messages": [user("1+1?"), assistant("2")]}),
    ("prompt_completion", "conversations", {"query": "1+1?", "response": "2", "system": "Add.", "history": [["a", "b"]]},
     {"messages": [system("Add."), user("a"), assistant("b"), user("1+1?"), assistant("2")]}),
    ("prompt_completion", "preference", {"system": "Add.", "question": "1+1?", "chosen": "2", "rejected": "3"},
     {"prompt": [system("Add."), user("1+1?")], "chosen": [assistant("2")], "rejected": [assistant("3")]}),
    ("prompt_completion", "prompts", {"prompt": "1+1?"}, {"prompt": [user("1+1?")]}),
    ("prompt_completion", "prompts", {"question": "1+1?", "reference_response": "2"}, {"prompt": [user("1+1?")], "reference": "2"}),
    ("qianfan", "conversations", [{"system": "你是诗人。", "prompt": "写", "response": [["好"]]}, {"prompt": "再写", "response": [["再好"]]}],
     {"messages": [system("你是诗人。"), user("写"), assistant("好"), user("再写"), assistant("再好")]}),
    ("qianfan", "conversations", [{"prompt": "写", "response": [[""]]}], {"messages": [user("写"), assistant("")]}),
    ("qianfan", "conversations", {"prompt": "写", "response": [["好"]], "feedback": "like"}, {"messages": [user("写"), assistant("好")], "feedback": "like"}),
    ("qianfan", "prompts", [{"prompt": "写", "reference_response": "好"}], {"prompt": [user("写")], "reference": "好"}),
    ("qianfan", "preference", [{"system": "s", "user": "a", "assistant": "b"}, {"user": "c", "chosen": "d", "rejected": "e"}],
     {"prompt": [system("s"), user("a"), assistant("b"), user("c")], "chosen": [assistant("d")], "rejected": [assistant("e")]}),
    ("qianfan", "unpaired", [{"user": "hello", "rejected": "leave me alone"}],
     {"prompt": [user("hello")], "completion": [assistant("leave me alone")], "label": False}),
    ("qianfan", "ranked", [{"system": "s", "prompt": "a"}, {"response": [["b"], ["c"], ["d"]], "score": [2, 1, 0]}],
     {"prompt": [system("s"), user("a")], "responses": [{"messages": [assistant("b")], "score": 2.0}, {"messages": [assistant("c")], "score": 1.0},
                                                        {"messages": [assistant("d")], "score": 0.0}]}),
    ("qianfan", "ranked", [{"prompt": "a", "response": [["b"], ["c"]]}],
     {"prompt": [user("a")], "responses": [{"messages": [assistant("b")], "score": None}, {"messages": [assistant("c")], "score": None}]}),
    ("trl", "conversations", {"prompt": [user("Hi")], "completion": [assistant("Hello!")]}, {"messages": [user("Hi"), assistant("Hello!")]}),
    ("trl", "preference", {"prompt": "Hi", "chosen": "Hello!", "rejected": "What?", "margin": 0.5},
     {"prompt": [user("Hi")], "chosen": [assistant("Hello!")], "rejected": [assistant("What?")], "margin": 0.5}),
    ("trl", "preference", {"chosen": [user("Hi"), assistant("Hello!")], "rejected": [user("Hi"), assistant("What?")]},
     {"prompt": [user("Hi")], "chosen": [assistant("Hello!")], "rejected": [assistant("What?")]}),
    ("trl", "preference", {"chosen": "The sky is blue.", "rejected": "The sky is green."},
     {"prompt": [], "chosen": [assistant("The sky is blue.")], "rejected": [assistant("The sky is green.")]}),
    ("trl", "preference", {"prompt": "Hi", "prompt_id": "7", "chosen": [user("Hi"), assistant("Hello!")], "messages": [user("Hi"), assistant("Hello!")],
                           "rejected": [user("Hi"), assistant("What?")], "score_chosen": 8.0, "score_rejected": 2.0},
     {"prompt": [user("Hi")], "chosen": [assistant("Hello!")], "rejected": [assistant("What?")], "raw_prompt": "Hi", "prompt_id": "7",
      "messages": [user("Hi"), assistant("Hello!")], "score_chosen": 8.0, "score_rejected": 2.0}),
    ("trl", "unpaired", {"prompt": "Hi", "completion": "Hello!", "label": True},
     {"prompt": [user("Hi")], "completion": [assistant("Hello!")], "label": True}),
    ("trl", "prompts", {"prompt": [user("Hi")]}, {"prompt": [user("Hi")]}),
    ("hh_rlhf", "preference", {"chosen": "\n\nHuman: Hi\n\nAssistant: Hello!", "rejected": "\n\nHuman: Hi\n\nAssistant:What?"},
     {"prompt": [user("Hi")], "chosen": [assistant("Hello!")], "rejected": [assistant("What?", extra='{"":{"hh":""}}')]}),
    ("scored", "ranked", {"prompt": "Hi", "responses": ["Hello!", "What?"], "scores": [0.9, 0.1]},
     {"prompt": [user("Hi")], "responses": [{"messages": [assistant("Hello!")], "score": 0.9}, {"messages": [assistant("What?")], "score": 0.1}]}),
    ("scored", "ranked", {"instruction": "Hi", "source": "evol", "models": ["a", "b"], "completions": [
        {"model": "a", "response": "Hello!", "overall_score": 8.5}, {"model": "b", "response": "What?", "overall_score": 2}]},
     {"prompt": [user("Hi")], "raw_source": "evol", "models": ["a", "b"], "responses": [
         {"messages": [assistant("Hello!", extra='{"model":"a"}')], "score": 8.5}, {"messages": [assistant("What?", extra='{"model":"b"}')], "score": 2.0}]}),
    ("turns", "prompts", {"question_id": 81, "turns": ["Write.", "Again."], "reference": ["a", "b"]},
     {"prompt": [user("Write."), user("Again.")], "reference": "a\n\nb", "question_id": 81}),
    ("gristmill", "unpaired", {"prompt": [user("Hi")], "completion": [assistant("Hello!", train=True)], "label": False, "origin": None},
     {"prompt": [user("Hi")], "completion": [assistant("Hello!", train=True)], "label": False}),
]


@pytest.mark.parametrize(("layout", "kind", "row", "wanted"), GOLDEN, ids=[f"{n}-{case[0]}-{case[1]}" for n, case in enumerate(GOLDEN)])
def test_golden(layout, kind, row, wanted):
    before = json.dumps(row)
    name, found = layouts.named(row, kind)
    assert name == layout
    assert bare(found) == wanted
    assert layouts.read(row, kind, layout) == found
    assert layouts.write(found, kind, layout) == (row, [])
    assert json.dumps(row) == before
    if (layout, kind) not in {("openai", "prompts"), ("chatml", "prompts"), ("scored", "ranked")} and "label" not in row:
        assert layouts.detect(row) == (layout, kind)
    # What Arrow holds is written as the row was, too.
    table = of_rows([found], kind).to_pylist()[0]
    again = {**{name: table[name] for name in COLUMNS[kind]}, **{name: value for name, value in found.items() if name not in COLUMNS[kind]}}
    assert layouts.write(again, kind, layout) == (row, [])


def test_the_kind_of_most_rows():
    pairs, chats = {"prompt": "a", "chosen": "b", "rejected": "c"}, {"messages": [user("a"), assistant("b")]}
    assert layouts.guess_kind([pairs, chats, pairs, {"body": 1}]) == "preference"
    assert layouts.guess_kind([chats, pairs]) == "conversations"
    assert layouts.guess_kind([{"text": "a"}, {"content": "b"}]) == "pretrain"
    assert layouts.guess_kind([{"text": "a"}, chats]) == "pretrain"
    with pytest.raises(Unreadable, match=r'these fields.*\["body"\]'):
        layouts.guess_kind([{"body": 1}])
    with pytest.raises(Unreadable, match="there are no rows"):
        layouts.guess_kind([])


def test_a_kind_that_a_row_is_not_is_refused_by_name():
    with pytest.raises(Unreadable, match="is hh_rlhf with preference, and no conversations"):
        layouts.read({"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a\n\nAssistant: c"}, "conversations")
    with pytest.raises(Unwritable, match="alpaca has no ranked"):
        layouts.write({"prompt": [], "responses": []}, "ranked", "alpaca")
    kept = layouts.read({"messages": [user("a"), assistant("b")], "label": "refund", "kto_tag": True}, "conversations")
    assert (kept["label"], kept["kto_tag"]) == ("refund", True)


def test_columns_that_a_recipe_names():
    row = {"q": "1+1?", "a": "2", "prompt": "p7", "label": "x"}
    found = layouts.read(row, "conversations", columns={"prompt": "q", "response": "a"})
    assert bare(found) == {"messages": [user("1+1?"), assistant("2")], "raw_prompt": "p7", "label": "x"}
    assert layouts.write(found, "conversations", "prompt_completion") == (row, [])
    assert layouts.write(found, "conversations", "openai")[0] == {"messages": [user("1+1?"), assistant("2")], "raw_prompt": "p7", "label": "x"}
    with pytest.raises(Unreadable, match="`columns` are of objects"):
        layouts.read([], "conversations", columns={"prompt": "q"})
    layouts.check("conversations", "auto", {"prompt": "q"})
    with pytest.raises(RecipeError, match="layout: hh_rlhf has no prompts; those that have are alpaca sharegpt openai chatml"):
        layouts.check("prompts", "hh_rlhf", {})


# ---- laws

WORD = "\u2603"          # what random texts are made of, besides, so that a text can be told from a name
TEXT = st.lists(st.sampled_from(["a", "第", " ", "\n", "<image>", '"', "{", "[", "\u0000", "\U0001f600", "Human:"]), max_size=6).map(
    lambda parts: "".join(parts) + WORD)
SAID = st.one_of(st.just(""), TEXT)
NAME = st.sampled_from(["weather", "search"])
JSON = st.recursive(st.none() | st.booleans() | st.integers(-5, 5) | TEXT, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(
    st.sampled_from(["city", "n"]), inner, max_size=2), max_leaves=4)
PATH = st.sampled_from(["a.png", "https://x.org/b.png"])
MINE = {"topic", "feedback", "text", "id", "raw_text", "source", "raw_messages"}
OWN = st.fixed_dictionaries({}, optional={"topic": JSON, "feedback": st.booleans(), "text": TEXT, "id": st.integers(0, 9), "raw_text": TEXT,
                                          "source": TEXT, "raw_messages": st.just(1)})


def optional(fixed, **more):
    return st.fixed_dictionaries(fixed, optional=more)


def called(arguments, flat):
    call = optional({"name": NAME}, arguments=arguments)
    if flat:
        return call
    return st.one_of(optional({"type": st.just("function"), "function": call}, id=st.sampled_from(["c1", "c2", None]), index=st.just(0)), call)


PARTS = st.lists(st.one_of(
    optional({"type": st.just("text"), "text": SAID}, cache=st.just(1)),
    st.fixed_dictionaries({"type": st.just("image_url"), "image_url": st.one_of(PATH, optional({"url": PATH}, detail=st.just("low")))}),
    st.fixed_dictionaries({"type": st.just("image"), "image": PATH})), max_size=3)
ARGUMENTS = st.one_of(st.dictionaries(NAME, JSON, max_size=2), TEXT, st.dictionaries(NAME, JSON, max_size=2).map(json.dumps), st.none())
MORE = {"name": st.sampled_from(["Ada", None, 3]), "refusal": st.one_of(st.none(), TEXT), "weight": st.sampled_from([0, 1, None]),
        "tool_calls": st.sampled_from([None, []]), "loss": st.booleans()}


def said(role, parts=False):
    return optional({"role": st.sampled_from(role), "content": st.one_of(SAID, PARTS) if parts else SAID}, **MORE)


MESSAGE = st.one_of(
    said(["system", "developer"]), said(["user", "human", "User"], True),
    optional({"role": st.just("assistant")}, content=st.one_of(SAID, st.none()), reasoning_content=TEXT, **MORE),
    optional({"role": st.just("assistant"), "tool_calls": st.lists(called(ARGUMENTS, False), min_size=1, max_size=2)}, content=st.one_of(SAID, st.none())),
    optional({"role": st.just("assistant"), "content": st.none(), "function_call": called(ARGUMENTS, True)}),
    optional({"role": st.sampled_from(["tool", "function"]), "content": SAID}, tool_call_id=st.sampled_from(["c1", 7]), name=NAME))
DUMPED = st.tuples(st.one_of(called(ARGUMENTS, True), st.lists(called(ARGUMENTS, True), min_size=1, max_size=2)), st.booleans(), st.booleans()).map(
    lambda x: json.dumps(x[0], ensure_ascii=x[1], separators=(",", ":") if x[2] else None))
ITEM = st.one_of(
    optional({"from": st.sampled_from(["human", "gpt", "system", "observation", "user", "chatgpt"]), "value": SAID}, weight=st.sampled_from([0, 1]), tag=JSON),
    st.fixed_dictionaries({"from": st.sampled_from(["function_call", "tool_call"]), "value": DUMPED}))
TOOLS = st.one_of(st.none(), st.just([]), st.lists(st.sampled_from([TOOL, FUNCTIONS[0]]), min_size=1, max_size=2),
                  st.lists(st.sampled_from([TOOL, FUNCTIONS[0]]), max_size=2).map(json.dumps), st.just("a hammer"))
SYSTEM = {"system": st.one_of(st.none(), SAID), "tools": TOOLS}
HISTORY = {"history": st.one_of(st.none(), st.just(""), st.lists(st.lists(SAID, min_size=2, max_size=2), max_size=2))}
LABEL = st.sampled_from([True, False, 1, 0, "true", "good", "0"])
MARGIN = st.sampled_from([None, 0.5, -1, "0.25"])
MESSAGES_OF = st.lists(MESSAGE, min_size=1, max_size=4)
ITEMS = st.lists(ITEM, min_size=1, max_size=4)
TURN = st.one_of(st.fixed_dictionaries({"prompt": SAID, "response": SAID.map(lambda text: [[text]])}),
                 st.fixed_dictionaries({"user": SAID, "assistant": SAID}),
                 optional({"prompt": SAID}, system=st.one_of(st.none(), SAID), response=st.one_of(SAID, st.just([]), st.just([[]]), SAID.map(lambda t: [t])), note=JSON))


def joined(strategies, own=OWN):
    return st.tuples(strategies, own).map(lambda pair: {**pair[1], **pair[0]})


def text_row(layout, kind):
    asked = {"alpaca": ["instruction"], "prompt_completion": ["prompt", "question", "query"]}[layout]
    answered = ["output", "response"] if layout == "alpaca" else ["completion", "response", "answer"]
    more = SYSTEM | HISTORY | ({"input": st.one_of(st.none(), SAID)} if layout == "alpaca" else {})
    fixed = {"conversations": lambda a: {a: SAID}, "prompts": lambda a: {"reference": SAID}, "unpaired": lambda a: {a: SAID, "kto_tag": LABEL},
             "preference": lambda a: {"chosen": SAID, "rejected": SAID}}[kind]
    if kind == "preference":
        more = more | {"margin": MARGIN}
    return st.sampled_from([(q, a) for q in asked for a in answered]).flatmap(lambda names: joined(optional({names[0]: SAID, **fixed(names[1])}, **more)))


def chatml(pairs):
    return "".join(f"<|im_start|>{role}\n{text}<|im_end|>{gap}" for role, text, gap in pairs)


CHATML = st.lists(st.tuples(st.sampled_from(["system", "user", "assistant", "tool", "human"]), SAID, st.sampled_from(["\n", ""])), min_size=1, max_size=4).map(chatml)
HH = st.lists(st.tuples(st.sampled_from(["Human", "Assistant"]), st.sampled_from([" ", ""]), SAID), min_size=2, max_size=4).map(
    lambda turns: "".join(f"\n\n{who}:{gap}{text}" for who, gap, text in turns))
SCORED = st.one_of(
    st.lists(st.tuples(st.one_of(SAID, MESSAGES_OF), st.one_of(st.none(), st.floats(-1, 1))), min_size=1, max_size=3).map(
        lambda pairs: {"responses": [a for a, _ in pairs], "scores": [b for _, b in pairs]}),
    st.lists(SAID, min_size=1, max_size=3).map(lambda texts: {"answers": texts}),
    st.lists(st.tuples(SAID, st.integers(0, 9), JSON), min_size=1, max_size=3).map(
        lambda found: {"completions": [{"response": a, "rating": b, "model": c} for a, b, c in found]}))
SIDES = {"chosen": SAID, "rejected": SAID}
EARLIER = st.lists(TURN.filter(lambda turn: "response" in turn or "assistant" in turn), max_size=2)
LAST = st.tuples(st.sampled_from(["user", "prompt"]), SAID, st.one_of(st.none(), SAID)).map(
    lambda x: {x[0]: x[1], **({"system": x[2]} if x[2] is not None else {})})
TWO = st.lists(st.tuples(SAID, st.one_of(st.none(), st.integers(-3, 3), st.floats(-1, 1))), min_size=1, max_size=3)
RANKED = st.one_of(TWO.map(lambda x: {"response": [[a] for a, _ in x], "score": [b for _, b in x]}),
                   TWO.map(lambda x: {"response": [a if b is None else [a] for a, b in x]}))
WHOLE = st.tuples(MESSAGES_OF, MESSAGES_OF, MESSAGES_OF).map(lambda x: {
    "chosen": [user("a"), *x[0], *x[1]], "rejected": [user("a"), *x[0], *x[2]]})
TRL_SIDE = st.one_of(SAID, MESSAGES_OF.filter(lambda found: found[0]["role"] not in ("system", "developer", "user", "human", "User")))

ROWS = {
    **{(layout, kind): text_row(layout, kind) for layout in ("alpaca", "prompt_completion") for kind in ("conversations", "preference", "unpaired", "prompts")},
    ("sharegpt", "conversations"): joined(optional({"conversations": ITEMS}, **SYSTEM)),
    ("sharegpt", "prompts"): joined(optional({"conversations": ITEMS}, reference=st.one_of(st.none(), TEXT), **SYSTEM)),
    ("sharegpt", "unpaired"): joined(optional({"conversations": st.tuples(ITEMS, SAID).map(lambda x: [*x[0], {"from": "gpt", "value": x[1]}]), "label": LABEL}, **SYSTEM)),
    ("sharegpt", "preference"): joined(optional({"conversations": ITEMS, "chosen": st.one_of(SAID, ITEM, ITEMS), "rejected": st.one_of(SAID, ITEM)}, margin=MARGIN)),
    ("openai", "conversations"): st.one_of(joined(optional({"messages": MESSAGES_OF}, **SYSTEM)), MESSAGES_OF, joined(optional({"messages": MESSAGES_OF.map(json.dumps)}))),
    ("openai", "prompts"): joined(optional({"conversation": MESSAGES_OF}, ground_truth=st.one_of(st.none(), TEXT), **SYSTEM)),
    ("openai", "unpaired"): joined(optional({"messages": st.tuples(MESSAGES_OF, SAID).map(lambda x: [*x[0], assistant(x[1])]), "label": LABEL}, **SYSTEM)),
    ("openai", "preference"): joined(optional({"messages": MESSAGES_OF, "chosen": st.one_of(SAID, MESSAGE), "rejected": st.one_of(SAID, MESSAGE, MESSAGES_OF)}, margin=MARGIN)),
    ("openai_preference", "preference"): joined(st.fixed_dictionaries({
        "input": optional({"messages": MESSAGES_OF}, tools=TOOLS, parallel_tool_calls=st.booleans()), "preferred_output": MESSAGES_OF, "non_preferred_output": MESSAGES_OF})),
    ("chatml", "conversations"): joined(st.fixed_dictionaries({"text": CHATML}), st.fixed_dictionaries({}, optional={"topic": JSON})),
    ("chatml", "prompts"): joined(st.fixed_dictionaries({"chatml": st.tuples(CHATML, st.sampled_from(["", "<|im_start|>assistant\n"])).map("".join)}), st.just({})),
    ("qianfan", "conversations"): st.one_of(st.lists(TURN, min_size=1, max_size=3), TURN.filter(lambda turn: "prompt" in turn)),
    ("qianfan", "prompts"): st.tuples(EARLIER, st.one_of(LAST, TURN), st.sampled_from([{}, {"reference": "x"}, {"reference_response": [["x"]]}])).map(
        lambda x: [{**turn, **(x[2] if n == 0 else {})} for n, turn in enumerate([*x[0], x[1]])]),
    ("qianfan", "preference"): st.tuples(EARLIER, LAST, st.fixed_dictionaries(SIDES)).map(lambda x: [*x[0], {**x[1], **x[2]}]),
    ("qianfan", "unpaired"): st.tuples(EARLIER, LAST, st.sampled_from(["chosen", "rejected"]), SAID).map(lambda x: [*x[0], {**x[1], x[2]: x[3]}]),
    ("qianfan", "ranked"): st.one_of(st.tuples(EARLIER, LAST, RANKED).map(lambda x: [*x[0], x[1], x[2]]),
                                     st.tuples(EARLIER, LAST, RANKED).map(lambda x: [*x[0], {**x[1], **x[2]}])),
    ("trl", "conversations"): joined(st.fixed_dictionaries({"prompt": MESSAGES_OF, "completion": st.one_of(SAID, MESSAGES_OF)})),
    ("trl", "preference"): st.one_of(joined(WHOLE), joined(optional({"prompt": st.one_of(SAID, MESSAGES_OF), "chosen": TRL_SIDE, "rejected": TRL_SIDE}, margin=MARGIN))),
    ("trl", "unpaired"): joined(st.fixed_dictionaries({"prompt": st.one_of(SAID, MESSAGES_OF), "completion": st.one_of(SAID, MESSAGES_OF), "label": LABEL})),
    ("trl", "prompts"): joined(optional({"prompt": st.one_of(SAID, MESSAGES_OF)}, reference=st.one_of(st.none(), TEXT))),
    ("hh_rlhf", "preference"): joined(st.fixed_dictionaries({"chosen": HH, "rejected": HH})),
    ("scored", "ranked"): joined(st.tuples(optional({"prompt": st.one_of(SAID, MESSAGES_OF)}, system=SAID), SCORED).map(lambda x: {**x[0], **x[1]})),
    ("turns", "prompts"): joined(optional({"turns": st.lists(SAID, min_size=1, max_size=3)}, reference=st.one_of(st.none(), SAID, st.lists(SAID, max_size=2)), system=SAID)),
}


def test_every_layout_has_random_rows():
    assert {(layout, kind) for layout, one in layouts.LAYOUTS.items() for kind in one.kinds} - ROWS.keys() == {("gristmill", kind) for kind in KINDS}


def same_json(a, b):
    """Whether two values are the same JSON: 1 is 1.0 there, and is not true."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same_json(a[name], b[name]) for name in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same_json, a, b))
    return a == b and isinstance(a, bool) == isinstance(b, bool)


@pytest.mark.parametrize(("layout", "kind"), ROWS)
def test_what_is_read_is_written_as_it_was(layout, kind):
    @BASIC
    @given(ROWS[layout, kind])
    def law(row):
        found = layouts.read(row, kind, layout)
        again, losses = layouts.write(found, kind, layout)
        assert same_json(again, row) or decoded(again) == decoded(row)
        assert losses == []
        assert WORD not in (found["origin"] or "")
        assert set(COLUMNS[kind]) <= set(found)
        held = pa.table(dialogue_tables.columns([found], kind)).to_pylist()[0]
        assert layouts.write({**found, **held}, kind, layout) == (again, [])

    law()


@pytest.mark.parametrize(("layout", "kind"), ROWS)
def test_looking_at_a_row_finds_what_it_says(layout, kind):
    @BASIC
    @given(ROWS[layout, kind])
    def law(row):
        if isinstance(row, dict):
            row = {name: value for name, value in row.items() if name not in MINE or (layout, name) == ("chatml", "text")}
        found = layouts.read(row, kind, layout)
        if (layout, kind) == ("qianfan", "ranked") and len(found["responses"]) == 1 and found["responses"][0]["score"] is None:
            return          # a single response without a score is an answer
        name, seen = layouts.named(row, kind)
        assert name == layout or {name, layout} in ({"trl", "prompt_completion"}, {"qianfan", "prompt_completion"})     # one text, both ways
        assert same_json(substance(seen, kind), substance(found, kind))

    law()


def test_a_text_that_begins_with_a_space_now_keeps_it_where_none_stood_behind_the_colon():
    row = layouts.read({"chosen": "\n\nHuman:a b", "rejected": "\n\nHuman:c"}, "preference", "hh_rlhf")
    row["chosen"][0]["content"] = " b"
    again, losses = layouts.write(row, "preference", "hh_rlhf")
    assert (again, losses) == ({"chosen": "\n\nHuman:  b", "rejected": "\n\nHuman:c"}, [])
    assert layouts.read(again, "preference", "hh_rlhf")["chosen"][0]["content"] == " b"


@pytest.mark.parametrize(("layout", "kind"), ROWS)
def test_a_row_whose_texts_have_changed_is_written_with_the_new_ones(layout, kind):
    @BASIC
    @given(ROWS[layout, kind])
    def law(row):
        found = layouts.read(row, kind, layout)
        for m in everybody(found, kind):
            m["content"] = None if m["content"] is None else MARK * len(m.get("images") or ()) + m["content"].replace(MARK, "") + "!"
            for call in m.get("tool_calls") or ():
                call["arguments"] = call["arguments"] and call["arguments"][:-1]
        again, _ = layouts.write(found, kind, layout)
        assert contents(layouts.read(again, kind, layout), kind) == contents(found, kind)

    law()


def decoded(value):
    """With the JSON in texts as what it is: its blanks are no meaning."""
    if isinstance(value, dict):
        return {name: decoded(one) for name, one in value.items()}
    if isinstance(value, list):
        return list(map(decoded, value))
    if isinstance(value, str) and value[:1] in "[{":
        try:
            return decoded(json.loads(value))
        except ValueError:
            return value
    return value


def substance(row, kind):
    """What a row says, whatever it was laid out like."""
    def message(m):
        calls = [(call["name"], json.loads(call["arguments"]) if is_json(call["arguments"]) else call["arguments"]) for call in m.get("tool_calls") or ()]
        return (m["role"], m["content"] or None if calls else m["content"], m.get("reasoning"), calls, m.get("train"), m.get("images") or [], m.get("tool_call_id"), m.get("name"),
                {name: one for name, one in json.loads(m.get("extra") or "{}").items() if name and one is not None})

    def value(name, found):
        if COLUMNS[kind].get(name) == MESSAGES:
            return list(map(message, found))
        if name == "responses":
            return [(list(map(message, one["messages"])), one["score"]) for one in found]
        if name == "tools" and found:
            return [one.get("function", one) for one in json.loads(found)]
        return found
    return {name: value(name, found) for name, found in row.items() if name != "origin"}


def is_json(text):
    try:
        return not isinstance(json.loads(text), str)
    except (ValueError, TypeError):
        return False


def everybody(row, kind):
    lists = [row[name] for name, dtype in COLUMNS[kind].items() if dtype == MESSAGES] + [one["messages"] for one in row.get("responses", ())]
    return [m for messages in lists for m in messages]


def contents(row, kind):
    return [m["content"] for m in everybody(row, kind) if m["content"]]


@pytest.mark.parametrize(("layout", "kind"), ROWS)
def test_another_layout_holds_the_row_or_says_what_it_loses(layout, kind):
    others = [name for name, one in layouts.LAYOUTS.items() if kind in one.kinds and name != layout]

    @BASIC
    @given(ROWS[layout, kind])
    def law(row):
        found = layouts.read(row, kind, layout)
        for other in others:
            try:
                again, losses = layouts.write(found, kind, other)
            except Unwritable:
                continue
            back = layouts.read(json.loads(json.dumps(again)), kind, other)
            if "what is said before a tool call" not in losses:
                assert contents(back, kind) == contents(found, kind), (other, again)
            if not losses or losses == ["where `input` begins"]:
                assert same_json(substance(back, kind), substance(found, kind)), (other, again)
            assert layouts.write(back, kind, other) == (again, [])

    law()
