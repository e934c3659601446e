"""Findings: what is wrong with a set, each a sentence with a number, a condition that finds its rows, and the recipe that would mend it.

A finding is {"name", "grade" (3 broken, 2 harmful, 1 notable), "says", "why", "rows", "of", "where" (SQL over the metrics), "examples"
(ids), "mend" (a part of a recipe)}. They come by grade, then by the number of rows.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa

from gristmill.jobs import insight_profile, summary
from gristmill.jobs.insight_checks import BROKEN, CHECKS, HARMFUL, NOTABLE, repeated
from gristmill.jobs.insight_metrics import Plan
from gristmill.jobs.insight_sql import Query, literal, name
from gristmill.jobs.page import share
from gristmill.udfs.pii_entities import KEYS

EXAMPLES = 20              # ids that are kept with a finding
ENOUGH = 100               # rows under which a distribution says nothing
CLASS, CLASS_OF_TWO = 0.5, 0.8     # share of a class from which on it is most of the set; of two classes one always has half
SMALL_SHARE, SMALL_ROWS = 0.01, 20  # of a class, under which a model hardly meets it, and nobody can measure it
TOPIC = 0.5
SEVERAL = 0.1              # of production's dialogues have several turns, at least, and the set has not half that share: it is missing
FENCES = 3                 # doublings' quartile distances above the third quartile: 1 in a million of a log-normal length is beyond
LEAST_FENCE = 8            # and at least so many times the third quartile
MORE = "FOLDER_OF_MORE_ROWS"


def found(query: Query, profile: Mapping[str, Any], plan: Plan) -> list[dict[str, Any]]:
    """All findings of a profile, the gravest first, each with its rows counted and some of their ids."""
    if not profile["rows"]:
        return []
    out = []
    for one in [*_rows(query, profile, plan), *_several(query, profile, plan), *_whole(query, profile, plan)]:
        order = one.pop("order", "row_hash")
        ids = query(f"SELECT id FROM metrics WHERE {one['where']} ORDER BY {order}, id LIMIT {EXAMPLES}")
        out.append(one | {"of": profile["rows"], "examples": [id_ for (id_,) in ids]})
    return sorted(out, key=lambda one: (-one["grade"], -one["rows"], one["name"]))


def _finding(query: Query, total: int, name_: str, grade: int, where: str, says: str, why: str, mend: Mapping[str, Any], **more: Any
             ) -> Iterator[dict[str, Any]]:
    """The finding, where any row meets its condition; `says` has {of} where the rows are counted."""
    known = more.pop("known", {})
    rows = known[where] if where in known else query(f"SELECT count(*) FROM metrics WHERE {where}")[0][0]
    if rows and rows >= more.pop("least", 0) * total:
        of = f"{rows:,} of {total:,} rows ({share(rows, total)})"
        yield {"name": name_, "grade": grade, "says": says.replace("{of}", of) + ".", "why": why, "rows": rows, "where": where,
               "mend": dict(mend), **more}


def _rows(query: Query, profile: Mapping[str, Any], plan: Plan) -> Iterator[dict[str, Any]]:
    """What single rows have wrong, and what equal rows do."""
    there, total = set(plan.schema.names), profile["rows"]
    checks = [one for one in CHECKS if plan.kind in one.kinds and there.issuperset(one.needs)]
    plain = [one.where for one in checks if "SELECT" not in one.where]
    counts = query(f"SELECT {', '.join(f'count(*) FILTER (WHERE {where})' for where in plain)} FROM metrics")[0] if plain else ()
    known = dict(zip(plain, counts, strict=True))
    for one in checks:
        wanted = profile["scores"].get(f"{one.name.rpartition('_')[0]}_asked", {}).get("bins", {})
        asked = sum(count for bin_, count in wanted.items() if int(bin_) > 0)
        says = one.says + (f"; {asked:,} prompts ask" if asked else "")
        yield from _finding(query, total, one.name, one.grade, one.where, says, one.why, one.mend, least=one.least, order=one.order,
                            known=known)
    tokens, length = "tokens" if "tokens" in there else "token_estimate", profile["length"]
    yield from _finding(query, total, "too_long", HARMFUL, f"{tokens} > {length}", f"{{of}} have more than {length:,} tokens",
                        "A trainer cuts them off or leaves them out: the end of the answer is what is lost.",
                        {"clean": ["token_estimate", {"keep": [f"token_estimate <= {length}"]}]}, order=f"{tokens} DESC")
    personal = "pii" if "pii" in there else "pii_count"
    if profile["personal"]:
        keys = {value: key for key, value in KEYS.items()}
        kinds = ", ".join(f"{keys[entity]} {count:,}" for entity, count in profile["personal"].items())
        yield from _finding(query, total, "personal_data", HARMFUL, f"{personal} > 0", f"Personal data stands in {{of}}: {kinds}",
                            "A model gives away what it has read.", {"redact": {keys[entity]: "mask" for entity in profile["personal"]}})
    elif personal in there:
        yield from _finding(query, total, "personal_data", HARMFUL, f"{personal} > 0", "Personal data stands in {of}",
                            "A model gives away what it has read.", {"redact": {"default": "mask"}})
    if "overlap" in there:
        yield from _finding(query, total, "benchmark_overlap", BROKEN, "overlap > 0", "Pieces of benchmark items stand in {of}",
                            "A model that has read the test cannot be measured by it.",
                            {"decontaminate": {"benchmarks": list(plan.options["benchmarks"])}}, order="overlap DESC")


def _several(query: Query, profile: Mapping[str, Any], plan: Plan) -> Iterator[dict[str, Any]]:
    """What the set has in common with others, and with itself."""
    total, hash_ = profile["rows"], "row_hash" if plan.kind == "pretrain" else "prompt_hash"
    what = "text" if plan.kind == "pretrain" else "prompt"
    why = "What is measured on the validation rows is memory, and looks better than it is."
    split = next((column for column in profile["columns"] if column.lower() == "split"), None)
    if split:
        yield from _finding(query, total, "leak", BROKEN, repeated(hash_, name(split)),
                            f"The {what} stands in several splits in {{of}}", why, {"split": {"group": "near"}}, order=hash_)
    validation = plan.options["validation"]
    if validation:
        yield from _finding(query, total, "leak_validation", BROKEN, f"{hash_} IN (SELECT prompt_hash FROM validation)",
                            f"The {what} stands in the validation set too in {{of}}", why,
                            {"dedup": {"slot": what, "exact": "folded", "threshold": None, "against": [validation]}}, order=hash_)
    production = plan.options["production"]
    if production is not None and "turns" in profile["scores"]:
        wanted = production if isinstance(production, float) else _share(query, "production")
        here = _share(query, "metrics")
        if wanted >= SEVERAL and here < wanted / 2:
            says = (f"{{of}} have one turn; only {share(here, 1)} of the dialogues have several, and in production {share(wanted, 1)} have")
            yield from _finding(query, total, "one_turn", HARMFUL, "turns <= 1", says,
                                "A model that never saw a second turn forgets the first.", _mixed(round(wanted, 4)))


def _share(query: Query, table: str) -> float:
    ((rows, several),) = query(f"SELECT count(*), count(*) FILTER (WHERE turns > 1) FROM {table}")
    return several / rows if rows else 0.0


def _mixed(ratio: float) -> dict[str, Any]:
    """A mixture with more rows of what is missing, which have this share of it afterwards."""
    return {"mix": {"sources": [{"path": "self"}, {"path": MORE, "ratio": min(max(ratio, 0.0001), 1.0)}]}}


def _whole(query: Query, profile: Mapping[str, Any], plan: Plan) -> Iterator[dict[str, Any]]:
    """What a distribution has wrong."""
    total, texts = profile["rows"], {one.name for one in plan.custom if pa.types.is_string(one.dtype)}
    for column, one in profile["columns"].items():
        if one["missing"] and not one["made"]:
            blank = f" OR trim({name(column)}) = ''" if column in texts else ""
            yield from _finding(query, total, f"missing.{column}", NOTABLE, f"{name(column)} IS NULL{blank}",
                                f"`{one['original']}` is missing in {{of}}",
                                "What is chosen, balanced or split by it leaves these out.", {"audit": {"stratify": [one["original"]]}})
    classes = {column: profile["columns"][column] for column in insight_profile.labels(profile)}
    for column, one in classes.items():
        yield from _classes(query, total, column, one)
    words = profile.get("topic_words", {})
    for topic, rows in profile.get("topics", {}).get("values", {}).items():
        if words.get(topic) and total >= ENOUGH and rows > TOPIC * total:
            says = f"{{of}} are about one topic, `{topic}`; most of them say `{words[topic]}`"
            yield from _finding(query, total, "one_topic", HARMFUL, f"topic = {literal(topic)}", says,
                                "What is asked about anything else is learnt from the rest alone.", _mixed(1 - TOPIC * total / rows))
    column = {"pretrain": "char_count", "prompts": "prompt.char_count"}.get(plan.kind, "response.char_count")
    limit = _fence(profile["scores"][column])
    if limit:
        yield from _finding(query, total, "outlier_length", NOTABLE, f"{name(column)} > {limit}",
                            f"{{of}} are far longer than all others: `{column}` above {limit:,}",
                            "Often a dump, a log or several rows in one; and they cost as much as many others.",
                            {"clean": [column, {"keep": [f"{column} <= {limit}"]}]}, order=f"{name(column)} DESC")


def _classes(query: Query, total: int, column: str, one: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """A class that is most of the set, and classes that are hardly there."""
    counts = {value: rows for value, rows in one["values"].items() if value.strip()}
    filled = sum(counts.values())
    if filled < ENOUGH or len(counts) < 2:
        return
    value, rows = next(iter(counts.items()))
    if rows > (CLASS_OF_TWO if len(counts) == 2 else CLASS) * filled:
        yield from _finding(query, total, f"one_class.{column}", HARMFUL, _is(column, value),
                            f"`{one['original']}` is `{value}` in {{of}}", "The model learns to say what is always right.",
                            _mixed(1 - CLASS * filled / rows))
    few = [value for value, rows in counts.items() if rows < max(SMALL_ROWS, SMALL_SHARE * filled)]
    if few:
        listed = ", ".join(f"`{value}` {counts[value]:,}" for value in few[:5]) + (", …" if len(few) > 5 else "")
        says = f"{len(few)} of {len(counts)} classes of `{one['original']}` have few rows, {{of}} together: {listed}"
        need = sum(max(SMALL_ROWS, math.ceil(SMALL_SHARE * filled)) - counts[value] for value in few)
        yield from _finding(query, total, f"small_class.{column}", NOTABLE, " OR ".join(_is(column, value) for value in few), says,
                            "A class that is hardly seen is not learnt and cannot be measured.", _mixed(need / (filled + need)))


def _is(column: str, value: str) -> str:
    return f"CAST({name(column)} AS STRING) = {literal(value)}"


def _fence(part: Mapping[str, Any]) -> int | None:
    """The length above which a row is out of line, from the quartiles of the logarithms; None where too few rows say what the line is."""
    if part["n"] < ENOUGH:
        return None
    low, high = (max(summary.quantile(part, q, "characters") or 1, 1) for q in (0.25, 0.75))
    wide = FENCES * math.log2(high / low)
    return math.ceil(high * 2 ** max(wide, math.log2(LEAST_FENCE)))
