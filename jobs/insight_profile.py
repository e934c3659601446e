"""The figures of a profile, from the metrics by SQL: counts, histograms and values that any engine finds alike."""

import itertools
import math
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa

from gristmill.jobs import insight_columns, storage
from gristmill.jobs.insight_metrics import Plan, topics_of
from gristmill.jobs.insight_sql import Query, name
from gristmill.jobs.summary import SMALL
from gristmill.udfs.dialogues import SLOTS

TOP = 50                   # values of a column that are kept with their counts
CLASSES = 30               # most distinct values of a column that is a label, and the rows that each has on the average
ROWS_EACH = 10
CROSSED = 6                # columns of which each two are laid over each other
TURNS = 9                  # from which on turns are one
CHUNK = 16                 # histograms in a statement
AGGREGATES = 40            # values in a statement: of more, Spark makes code that it cannot compile
LARGE = "8.9e307"          # above it, infinity too, all values are one: the edge of the next bin is no double


def binned(value: str, unit: str) -> str:
    """summary.bin_of of a double in SQL; below zero, which only a user's column is, -1 - the bin of what stands behind the sign."""
    if unit == "ratio":
        return f"CAST(floor(least(greatest({value}, 0), 1) * {SMALL} + 1e-9) AS BIGINT)"
    size = f"least(abs({value}), {LARGE})"
    place = (f"CAST(CASE WHEN {size} < 1 THEN floor({size} * {SMALL} + 1e-9) "
             f"ELSE {SMALL} + floor(16 * log2(greatest({size}, 1)) + 1e-9) END AS BIGINT)")
    return f"CASE WHEN {value} < 0 THEN -1 - {place} ELSE {place} END"


def made(query: Query, plan: Plan) -> dict[str, Any]:
    """The whole profile but its findings."""
    units = {column: unit for column, (dtype, unit) in insight_columns.scores(plan.steps).items() if not pa.types.is_string(dtype)}
    numbers = {one.name: "" for one in plan.custom if one.numeric}
    texts = [column for column, (dtype, _) in insight_columns.scores(plan.steps).items() if pa.types.is_string(dtype)]
    tokens = [column for column in plan.schema.names if column.rpartition(".")[2] == "tokens"]
    whole = totals(query, plan)
    rows = whole["rows"]
    units |= dict.fromkeys(tokens, "tokens") | ({"overlap": "ratio"} if "overlap" in plan.schema.names else {})
    parts = histograms(query, units | numbers)
    for column, part in parts.items():
        part |= {"nulls": rows - part["n"], "least": whole["least"][column], "most": whole["most"][column]}
    own = {one.name: described(query, one, whole, parts) for one in plan.custom}
    languages = {column: counted(query, column)["values"] for column in insight_columns.languages(plan.kind)}
    out = {"kind": plan.kind, "rows": rows, "characters": whole["characters"], "tokens": whole["tokens"],
           "tokens_of": plan.options.get("tokenizer") or "", "length": plan.options["length"], "units": units,
           "scores": {column: parts[column] for column in units},
           "labels": {column: counted(query, column) for column in texts},
           "columns": own, "empty": whole["empty"], "languages": languages}
    if len(languages) == 2:
        a, b = languages
        out["answered"] = pairs(query, a, b)
    if "topic" in plan.schema.names:
        out["topics"] = counted(query, "topic")
        made_ = topics_of(storage.join(plan.folder, "_topics.npz"), plan.mark)
        out["topic_words"] = dict(zip(made_.names, made_.about, strict=True))
    if plan.kind != "pretrain":
        out["turns"] = by_turn(query)
        out["prompts"] = repeated(query, "prompt_hash")
    out["duplicates"] = repeated(query, "row_hash")
    out["mojibake"] = query("SELECT count(*) FROM metrics WHERE mojibake")[0][0]
    out["personal"] = dict(query("SELECT e, count(*) FROM (SELECT explode(personal) AS e FROM metrics) s GROUP BY 1 ORDER BY 2 DESC, 1"))
    return out | {"balance": balance(query, [*labels(out), *(["topic"] if out.get("topics", {}).get("distinct", 0) > 1 else [])], rows)}


def totals(query: Query, plan: Plan) -> dict[str, Any]:
    """Rows, characters, tokens; of each column its values, and of numbers the least and the greatest; rows that say nothing by slot."""
    asked: dict[tuple[str, str], str] = {("rows", ""): "count(*)", ("characters", ""): "sum(char_count)"}
    asked["tokens", ""] = f"sum({name('tokens' if 'tokens' in plan.schema.names else 'token_estimate')})"
    for field in plan.schema:
        asked["n", field.name] = f"count({name(field.name)})"
        if pa.types.is_integer(field.type) or pa.types.is_floating(field.type):
            asked["least", field.name], asked["most", field.name] = f"min({name(field.name)})", f"max({name(field.name)})"
    for one in plan.custom:
        if pa.types.is_string(one.dtype):
            asked["blank", one.name] = f"count(*) FILTER (WHERE trim({name(one.name)}) = '')"
            asked["characters_of", one.name] = f"sum(CAST(length({name(one.name)}) AS BIGINT))"
            asked["longest", one.name] = f"max(CAST(length({name(one.name)}) AS BIGINT))"
    for slot in ("", *SLOTS[plan.kind]):
        column = f"{slot}.char_count".lstrip(".")
        asked["empty", slot] = f"count(*) FILTER (WHERE coalesce({name(column)}, 0) = 0)"
    found: dict[str, Any] = {}
    for group in _batched(list(asked.items()), AGGREGATES):
        (row,) = query("SELECT " + ", ".join(statement for _, statement in group) + " FROM metrics")
        for ((what, column), _), value in zip(group, row, strict=True):
            found.setdefault(what, {})[column] = int(value) if what in ("tokens", "characters") and value is not None else value
    return found | {key: found[key][""] or 0 for key in ("rows", "characters", "tokens")}


def _batched(items: list[Any], size: int) -> Iterable[list[Any]]:
    return [items[at : at + size] for at in range(0, len(items), size)]


def histograms(query: Query, units: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """{column: {"n", "bins"}} as in a passport's summary; a statement reads CHUNK columns at once."""
    found: dict[str, dict[str, Any]] = {column: {"n": 0, "bins": {}} for column in units}
    for ratio in (True, False):
        for columns in _batched([column for column, unit in units.items() if (unit == "ratio") == ratio], CHUNK):
            numbers = ", ".join(f"({n})" for n in range(len(columns)))
            values = " ".join(f"WHEN {n} THEN CAST({name(column)} AS DOUBLE)" for n, column in enumerate(columns))
            inner = f"SELECT k.c AS c, CASE k.c {values} END AS v FROM metrics CROSS JOIN (VALUES {numbers}) k(c)"
            bins = binned("v", "ratio" if ratio else "")
            for n, bin_, count in query(f"SELECT c, {bins}, count(*) FROM ({inner}) s WHERE v IS NOT NULL GROUP BY 1, 2"):
                found[columns[n]]["bins"][str(bin_)] = count
    for part in found.values():
        part["bins"] = {bin_: part["bins"][bin_] for bin_ in sorted(part["bins"], key=int)}
        part["n"] = sum(part["bins"].values())
    return found


def counted(query: Query, column: str, values: bool = True) -> dict[str, Any]:
    """The commonest values of a column with their counts, and how many values and distinct ones there are."""
    (row,) = query(f"SELECT count({name(column)}), count(DISTINCT {name(column)}) FROM metrics")
    found: dict[str, Any] = {"n": row[0], "distinct": row[1], "values": {}}
    if values:
        value = f"CAST({name(column)} AS STRING)"
        found["values"] = dict(query(
            f"SELECT {value}, count(*) FROM metrics WHERE {name(column)} IS NOT NULL GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT {TOP}"))
    return found


def described(query: Query, one: insight_columns.Custom, whole: Mapping[str, Any], parts: Mapping[str, Any]) -> dict[str, Any]:
    """A column of the user: its gaps, what it is (label, number, text), and its values."""
    rows, found = whole["rows"], counted(query, one.name, not pa.types.is_floating(one.dtype))       # engines write them differently
    blank = whole.get("blank", {}).get(one.name, 0)
    out = found | {"original": one.original, "made": one.made, "missing": rows - found["n"] + blank}
    filled = {value for value in found["values"] if value.strip()}
    few = 2 <= len(filled) == found["distinct"] - (blank > 0) <= CLASSES and found["n"] >= ROWS_EACH * len(filled)
    if one.numeric:
        return out | {"is": "number", "histogram": parts[one.name]}
    if pa.types.is_boolean(one.dtype) or few and whole["longest"][one.name] <= 100:
        return out | {"is": "label"}
    lengths = histograms(query, {one.name: "characters"}) if pa.types.is_boolean(one.dtype) else _lengths(query, one.name)
    return out | {"is": "text", "characters": lengths, "longest": whole["longest"][one.name] or 0}


def _lengths(query: Query, column: str) -> dict[str, Any]:
    inner = f"SELECT CAST(length({name(column)}) AS DOUBLE) AS v FROM metrics WHERE {name(column)} IS NOT NULL"
    rows = query(f"SELECT {binned('v', 'characters')}, count(*) FROM ({inner}) s GROUP BY 1")
    return {"n": sum(count for _, count in rows), "bins": {str(bin_): count for bin_, count in sorted(rows)}}


def labels(profile: Mapping[str, Any]) -> list[str]:
    """The columns whose values are classes: the user's own, and a label that is learnt."""
    return [column for column, one in profile["columns"].items() if one["is"] == "label" and (not one["made"] or column == "label")]


def by_turn(query: Query) -> list[dict[str, Any]]:
    """Characters and tokens of messages by role and turn; the last turn is TURNS and what comes after it."""
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for what in ("characters", "tokens"):
        inner = (f"SELECT m.role AS role, least(m.turn, {TURNS}) AS turn, CAST(m.{what} AS DOUBLE) AS v "
                 "FROM (SELECT explode(lengths) AS m FROM metrics) e")
        rows = query(f"SELECT role, turn, {binned('v', what)}, count(*) FROM ({inner}) s GROUP BY 1, 2, 3 ORDER BY 1, 2, 3")
        for role, turn, bin_, count in rows:
            one = found.setdefault((role, turn), {"role": role, "turn": turn, "characters": {"bins": {}}, "tokens": {"bins": {}}})
            one[what]["bins"][str(bin_)] = count
    for one in found.values():
        one["n"] = one["characters"]["n"] = one["tokens"]["n"] = sum(one["characters"]["bins"].values())
    order = ["system", "user", "assistant", "tool", "other"]
    return sorted(found.values(), key=lambda one: (order.index(one["role"]), one["turn"]))


def repeated(query: Query, column: str) -> dict[str, Any]:
    """Groups of rows with the same hash: {"rows" in groups of several, "groups", "largest", "sizes": {size: groups}}."""
    sizes = query(f"SELECT size, count(*) FROM (SELECT count(*) AS size FROM metrics WHERE {column} IS NOT NULL GROUP BY {column}) s "
                  "WHERE size > 1 GROUP BY size ORDER BY size")
    return {"rows": sum(size * count for size, count in sizes), "groups": sum(count for _, count in sizes),
            "largest": max((size for size, _ in sizes), default=0), "sizes": {str(size): count for size, count in sizes}}


def pairs(query: Query, a: str, b: str) -> list[list[Any]]:
    """[value of a, value of b, rows], most rows first; null is '(none)'."""
    rows = query(f"SELECT coalesce(CAST({name(a)} AS STRING), '(none)'), coalesce(CAST({name(b)} AS STRING), '(none)'), count(*) "
                 "FROM metrics GROUP BY 1, 2 ORDER BY 3 DESC, 1, 2 LIMIT 2500")
    return [list(row) for row in rows]


def balance(query: Query, columns: list[str], rows: int) -> list[dict[str, Any]]:
    """Each two label columns over each other, with Cramér's V: 0 where one says nothing about the other, 1 where it decides it."""
    out = []
    for a, b in itertools.combinations(columns[:CROSSED], 2):
        table = pairs(query, a, b)
        out.append({"a": a, "b": b, "table": table, "v": cramers_v(table)})
    return sorted(out, key=lambda one: (-one["v"], one["a"], one["b"]))


def cramers_v(table: list[list[Any]]) -> float:
    """Cramér's V of [value, value, count], without the rows in which either is missing; 0 where there is but one value.

    Corrected for what chance gives (Bergsma 2013), which is much for columns of many values.
    """
    table = [row for row in table if "(none)" not in row[:2]]
    total = sum(count for *_, count in table)
    first, second = {a for a, *_ in table}, {b for _, b, _ in table}
    of_a = {a: sum(n for x, _, n in table if x == a) for a in first}
    of_b = {b: sum(n for _, y, n in table if y == b) for b in second}
    if min(len(first), len(second)) < 2 or total < 2:
        return 0.0
    a_, b_ = len(first) - 1, len(second) - 1
    squares = math.fsum(n * n / (of_a[a] * of_b[b]) for a, b, n in table) - 1 - a_ * b_ / (total - 1)
    least = min(a_ - a_ * a_ / (total - 1), b_ - b_ * b_ / (total - 1))
    return round(min(1.0, math.sqrt(max(0.0, squares) / least)), 6) if least > 0 else 0.0
