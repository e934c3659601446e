"""Templates: what fills a slot, that every combination comes once, and what a wrong template or list is told."""

import datetime
import itertools
import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.udfs import templates
from gristmill.udfs.errors import RecipeError
from gristmill.udfs.slot_values import of_pattern, values

RUN = settings(max_examples=60, deadline=None)


def every(found):
    return [found.at(k) for k in range(found.size)]


def test_slots_in_order_and_braces():
    assert templates.slots("订单{order_id}到{城市}了吗？{order_id} {{不是}} {{{N}}}") == ["order_id", "城市", "N"]
    assert templates.fill("{{{n}}} {{}} }}{n}{{", {"n": "{n}"}) == "{{n}} {} }{n}{"


@pytest.mark.parametrize(("template", "part"), [("{a", "a { in '{a'"), ("a} b", "a } in"), ('{"a": 1}', "write {{"), ("{}", "a { in"), ("{a b}", "a {")])
def test_a_brace_that_is_no_slot(template, part):
    with pytest.raises(RecipeError, match=re.escape(part)):
        templates.slots(template)


def test_a_whole_row_gets_one_assignment():
    row = {"messages": [{"role": "user", "content": "订单{id}{day}到{city}吗？", "train": None},
                        {"role": "assistant", "content": "{id}明天到{city}。"}], "weight": 2, "tags": ("{city}", 1)}
    given_ = {"id": {"pattern": "[A-Z]{2}[0-9]{10}"}, "day": {"from": "2026-01-01", "to": datetime.date(2026, 12, 31), "format": "%Y年%-m月%-d日"},
              "city": ["上海", "北京"]}
    made, chosen = templates.filled(row, given_, random.Random(3))
    assert list(chosen) == ["id", "day", "city"]
    assert re.fullmatch("[A-Z]{2}[0-9]{10}", chosen["id"])
    assert re.fullmatch("2026年([1-9]|1[0-2])月[1-9][0-9]?日", chosen["day"])
    assert made == {"messages": [{"role": "user", "content": f"订单{chosen['id']}{chosen['day']}到{chosen['city']}吗？", "train": None},
                                 {"role": "assistant", "content": f"{chosen['id']}明天到{chosen['city']}。"}], "weight": 2, "tags": [chosen["city"], 1]}
    assert (made, chosen) == templates.filled(row, templates.checked(row, given_), random.Random(3))
    assert templates.count(row, given_) == 26**2 * 10**10 * 365 * 2


@RUN
@given(st.lists(st.integers(1, 7), max_size=4), st.integers(0, 999))
def test_every_combination_comes_once(sizes, seed):
    given_ = {f"s{k}": [f"{k}.{n}" for n in range(size)] for k, size in enumerate(sizes)}
    template = " ".join(f"{{{name}}}" for name in given_)
    made = [text for text, _ in templates.enumerated(template, given_, random.Random(seed))]
    assert sorted(made) == sorted(map(" ".join, itertools.product(*given_.values())))
    assert len(made) == templates.count(template, given_)
    assert made == [text for text, _ in templates.enumerated(template, given_, random.Random(seed))]


def test_the_order_is_by_chance():
    orders = {tuple(templates.shuffled(4, random.Random(seed))) for seed in range(600)}
    assert orders == set(itertools.permutations(range(4)))
    firsts = [next(templates.shuffled(1000, random.Random(seed))) for seed in range(600)]
    assert len(set(firsts)) > 400                      # 1000 * (1 - e^-0.6) = 451 expected


def test_a_huge_product_is_not_made():
    given_ = {"id": {"pattern": "[A-Z0-9]{40}"}, "n": {"min": 1, "max": 10**30}}
    assert templates.count("{id}{n}", given_) == 36**40 * 10**30
    some = list(itertools.islice(templates.enumerated("{id} {n}", given_, random.Random(1)), 300))
    assert len({text for text, _ in some}) == 300
    assert len({chosen["id"][0] for _, chosen in some}) > 25       # of 36, by chance all but a few


@pytest.mark.parametrize(("given_", "message"), [
    ({}, "the slot {city} has no values"),
    ({"City": ["上海"]}, "the slot {city} has no values; did you mean 'City'?"),
    ({"city": ["上海"], "day": ["1"]}, "'day' has values, but the template has no slot {day}"),
    ({"city": []}, "city: the list is empty"),
    ({"city": ["a", "b", "a"]}, "city: 'a' is in the list twice"),
    ({"city": [None]}, "city: None is neither text nor a number"),
    ({"city": [True]}, "city: True is neither text nor a number; write it in quotes"),
    ({"city": "上海"}, "city: '上海' is neither a list of values"),
    ({"city": {}}, "city: the keys (none) make no values"),
    ({"city": {"patern": "a"}}, "city: the keys patern make no values"),
    ({"city": {"pattern": "a", "decimal": 1}}, "city: 'decimal' does not go with 'pattern'"),
    ({"city": {"min": 1, "max": 2, "decimal": 1}}, "city: 'decimal' does not go with 'min', did you mean 'decimals'?"),
    ({"city": {"min": 1}}, "city: 'min' stands without 'max'"),
    ({"city": {"max": 1}}, "city: the keys max make no values"),
    ({"city": {"min": 2, "max": 1}}, "city: min 2 is above max 1"),
    ({"city": {"min": "x", "max": 1}}, "city: min is 'x', not a number"),
    ({"city": {"min": float("nan"), "max": 1}}, "city: min is nan, not a number"),
    ({"city": {"min": 0.5, "max": 1}}, "city: min is 0.5, which has more than 0 decimals"),
    ({"city": {"min": 1, "max": 2, "decimals": -1}}, "city: decimals is -1"),
    ({"city": {"from": "2026-01-02", "to": "2026-01-01"}}, "city: from 2026-01-02 is after to 2026-01-01"),
    ({"city": {"from": "2026-02-30", "to": "2026-03-01"}}, "city: from is '2026-02-30', not a day"),
    ({"city": {"from": 20260101, "to": "2026-03-01"}}, "city: from is 20260101, not a day"),
    ({"city": {"from": "2026-01-01", "to": "2026-01-02", "format": "%Q"}}, "city: %Q is unknown in a format"),
    ({"city": {"from": "2026-01-01", "to": "2026-01-02", "format": "%-B"}}, "city: %-B is unknown in a format"),
    ({"city": {"from": "2026-01-01", "to": "2026-01-02", "format": "5%"}}, "city: % is unknown in a format"),
    ({"city": {"pattern": "[a-"}}, "is not closed"),
    ({"city": {"pattern": "[]"}}, "holds nothing"),
    ({"city": {"pattern": "[z-a]"}}, "z-a is no range"),
    ({"city": {"pattern": "[^a]"}}, "write what they are"),
    ({"city": {"pattern": "(a"}}, "the ( at 1 is not closed"),
    ({"city": {"pattern": "a)"}}, "a ) at 2 closes nothing"),
    ({"city": {"pattern": "a+"}}, "+ has no end"),
    ({"city": {"pattern": "{3}"}}, "{ at 1 has no meaning there"),
    ({"city": {"pattern": "a{3,1}"}}, "{3,1} is no number of times"),
    ({"city": {"pattern": "a{1001}"}}, "{1001} is no number of times"),
    ({"city": {"pattern": "\\w"}}, "\\w is unknown"),
    ({"city": {"pattern": "a\\"}}, "ends in a lone"),
])
def test_what_is_wrong_is_said(given_, message):
    with pytest.raises(RecipeError, match=re.escape(message)):
        templates.filled("{city}", given_, random.Random(0))


@pytest.mark.parametrize(("pattern", "expected"), [
    ("", [""]), ("ab", ["ab"]), ("[a-c]", ["a", "b", "c"]), ("[a-]", ["a", "-"]), ("[甲乙]x?", ["甲", "乙", "甲x", "乙x"]),
    ("(SF|YT)1{0,2}", ["SF", "YT", "SF1", "YT1", "SF11", "YT11"]), ("a(b|)c", ["abc", "ac"]), ("\\[\\d{1}\\]", [f"[{n}]" for n in range(10)]),
    ("((a|b)|c){2}", ["aa", "ba", "ca", "ab", "bb", "cb", "ac", "bc", "cc"]), ("a{0}", [""]), ("a{002}", ["aa"]),
])
def test_patterns(pattern, expected):
    assert every(of_pattern(pattern)) == expected


@RUN
@given(st.recursive(
    st.sampled_from(["[a-d]", "x", "[0-9]", "[东西]", "\\."]),
    lambda inner: st.one_of(st.lists(inner, max_size=3).map("".join), st.lists(inner, min_size=1, max_size=3).map(lambda p: f"({'|'.join(p)})"),
                            inner.map(lambda p: f"({p}){{1,2}}"), inner.map(lambda p: f"({p})?")), max_leaves=5), st.integers(0, 2**64))
def test_a_pattern_means_what_re_says(pattern, number):
    found = of_pattern(pattern)
    assert re.fullmatch(pattern, found.at(number % found.size))


def test_numbers_and_dates():
    assert every(values("n", {"min": -1, "max": 1})) == ["-1", "0", "1"]
    assert every(values("n", {"min": "-0.1", "max": 0.2, "decimals": 1})) == ["-0.1", "0.0", "0.1", "0.2"]
    assert values("n", {"min": 0, "max": 1, "decimals": 2}).size == 101
    assert every(values("n", {"min": 0.3, "max": 0.3, "decimals": 3})) == ["0.300"]
    assert every(values("n", [1, 2.5, "三", datetime.date(2026, 1, 1)])) == ["1", "2.5", "三", "2026-01-01"]
    leap = every(values("d", {"from": "2024-02-28", "to": "2024-03-01"}))
    assert leap == ["2024-02-28", "2024-02-29", "2024-03-01"]
    one = {"from": "2026-01-05", "to": "2026-01-05"}
    assert every(values("d", {**one, "format": "%y/%-m/%-d 第%j天，%A %a %B %b 100%%"})) == ["26/1/5 第005天，Monday Mon January Jan 100%"]
    assert every(values("d", {**one, "format": "%-j"})) == ["5"]
