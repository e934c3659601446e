"""How far a judge's verdicts on pairs agree with people's, and what biases it has: order and length.

A verdict is good, same or bad, on the first of two answers. People's are words in Chinese or English, or 0 same, 1 the first, 2 the
second; of several votes the majority decides, and where there is none it is same.
"""

import itertools
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gristmill.jobs import dialogue_records, judging, parts, passport, readers, storage
from gristmill.jobs.audit_result import cohen, krippendorff, wilson
from gristmill.jobs.judge_reading import word
from gristmill.jobs.steps import nearest
from gristmill.udfs.errors import InputError, RecipeError

VERDICTS = ("good", "same", "bad")
VOTES = ("verdict", "human", "label", "vote", "votes", "annotator", "annotators")     # with a number behind them, too
LISTED = 10                # mistakes that are named


@dataclass
class Judged:
    """A pair with its verdict, in both orders where it was asked so, the characters of its answers, and {reviewer: vote}."""

    id: str
    verdict: str
    orders: tuple[str, str] | None
    lengths: tuple[int, int]
    votes: dict[str, str] = field(default_factory=dict)

    @property
    def human(self) -> str:
        """The majority of the votes; same where there is none."""
        counts = Counter(self.votes.values()).most_common(2)
        return counts[0][0] if len(counts) == 1 or counts[0][1] > counts[1][1] else "same"

    @property
    def longer(self) -> str:
        """The verdict that the longer answer would have: same where they are equally long."""
        first, second = self.lengths
        return "good" if first > second else "bad" if first < second else "same"


def measure(folder: str, human: str, columns: Sequence[str] = (), key: str = "id", tie: float = 0.0) -> dict[str, Any]:
    """The agreement of the verdicts in a sealed folder with people's: see `figures`.

    `human` is a column (several with commas between them, or `chosen` where people chose it) or a file whose `key` has the ids; `columns`
    are a file's columns of votes. Of scores, the better one wins by more than `tie`. Raises RecipeError or InputError.
    """
    sealed = passport.read(folder)
    found = parts.of_folder(folder)
    if not found:
        raise InputError(f"{folder}: has no rows")
    with storage.parquet(found[0].url) as file:
        schema = file.schema_arrow
    form = next((one for one in ("judge.verdict", "judge_margin") if one in schema.names), None)
    if form is None:
        raise InputError(f"{folder}: has no verdicts on pairs; `infer: {{task: judge, judge: {{form: pair}}}}` makes them")
    names = [name.strip() for name in human.split(",")]
    ours = all(name in schema.names for name in names)
    if not ours and ("," in human or "." not in human):
        raise RecipeError(f"--human {human}: no such column.{nearest(human, schema.names)}")
    votes = {} if ours else of_file(human, columns, key)
    rows, wrong = list[Judged](), list[str]()
    wanted = [name for name in ("id", "chosen", "rejected", "responses", "judge.verdict_ab", "judge.verdict_ba", form, *names)
              if name in schema.names]
    dropped = storage.join(folder, "dropped")               # a rule may have dropped rows by their verdict
    for url in [*(part.url for part in found), *(storage.join(dropped, name) for name in storage.names(dropped, ".parquet"))]:
        for batch in parts.batches(url, list(dict.fromkeys(wanted))):
            for row in batch.filter(batch[form].is_valid()).to_pylist():
                one = _judged(row, form, tie)
                one.votes, mistakes = _votes(row, names) if ours else (votes.get(one.id, {}), [])
                wrong += [f"{one.id}: {mistake}" for mistake in mistakes]
                rows.append(one)
    _refuse(wrong)
    unknown = sorted(set(votes) - {one.id for one in rows})
    if not any(one.votes for one in rows):
        raise InputError(f"{human}: no row has a vote" + (f"; its ids are such as {unknown[0]}, the set's such as {rows[0].id}"
                                                          if unknown and rows else ""))
    failed = sealed.get("ledger", {}).get("failed", {})
    return {"set": folder, "human": human, "without_a_row": len(unknown), "unreadable": failed.get("unreadable", 0),
            "failed": sum(failed.values()), **figures(rows)}


def _judged(row: Mapping[str, Any], form: str, tie: float) -> Judged:
    answers = [one["messages"] for one in row["responses"] or ()] if "responses" in row else [row["chosen"], row["rejected"]]
    # A row that was dropped may have no text any more.
    first, second = (len(judging.said(messages or (), "en")) for messages in [*answers, None, None][:2])
    value = row[form]
    if form == "judge_margin":
        return Judged(row["id"], "same" if abs(value) <= tie else "good" if value > 0 else "bad", None, (first, second))
    return Judged(row["id"], value, (row["judge.verdict_ab"], row["judge.verdict_ba"]), (first, second))


def _votes(row: Mapping[str, Any], names: Iterable[str]) -> tuple[dict[str, str], list[str]]:
    """({reviewer: verdict}, what is none) of a row; a list has several reviewers, and `chosen` is the better answer to whoever chose it."""
    found, wrong = dict[str, str](), list[str]()
    for name in names:
        if name == "chosen":
            found[name] = "good"
            continue
        several = row[name] if isinstance(row[name], list) else [row[name]]
        for n, value in enumerate(several, 1):
            said = word(value)
            if said is not None:
                found[name if len(several) == 1 else f"{name} {n}"] = said
            elif value is not None and str(value).strip():
                wrong.append(f"'{str(value)[:40]}' in {name} is no verdict")
    return found, wrong


def of_file(path: str, columns: Sequence[str], key: str) -> dict[str, dict[str, str]]:
    """{id: {reviewer: verdict}} of a file (CSV, TSV, JSONL, JSON, Parquet, packed or not). Raises InputError with every mistake.

    Several columns are several reviewers, and so are several rows with one id; a column `reviewer` names them.
    """
    found: dict[str, dict[str, str]] = defaultdict(dict)
    seen, wrong = Counter[str](), list[str]()
    for n, row in enumerate(_rows(path), 1):
        if isinstance(row, str):
            wrong.append(row)
            continue
        names = list(columns) or [name for name in row if name.rstrip("0123456789_ ").casefold() in VOTES]
        missing = [name for name in (key, *names) if name not in row]
        if missing or not names:
            have = f"has the columns {', '.join(row)[:200]}"
            raise InputError(f"{path}: {have}; name those of the votes with --votes" if not missing else
                             f"{path}: has no column '{missing[0]}'.{nearest(missing[0], row)}")
        id_ = str(row[key])
        seen[id_] += 1
        votes, mistakes = _votes(row, names)
        wrong += [f"row {n}, {id_}: {mistake}" for mistake in mistakes]
        who = str(row.get("reviewer") or "") or (str(seen[id_]) if seen[id_] > 1 else "")
        found[id_] |= {f"{name} {who}".strip(): vote for name, vote in votes.items()}
    _refuse([f"{path}: {line}" for line in wrong])
    return dict(found)


def _rows(path: str) -> Iterable[dict[str, Any] | str]:
    """The rows of a file, and what is wrong with others."""
    files = dialogue_records.settled(readers.find(path))
    for split in readers.split(files, 1 << 40):
        for _, rows, bad in dialogue_records.raw(split, readers.Options()):
            yield from rows if isinstance(rows, list) else rows.to_pylist()
            yield from (one.reason for one in bad)


def _refuse(wrong: Sequence[str]) -> None:
    if wrong:
        more = [f"and {len(wrong) - LISTED:,} more"] if len(wrong) > LISTED else []
        raise InputError("\n".join(["people's verdicts are not counted before these are mended:", *wrong[:LISTED], *more]))


def share(count: int, of: int) -> dict[str, Any]:
    """A share with Wilson's 95 % interval; None where there is nothing to count."""
    low, high = wilson(count, of)
    return {"count": count, "of": of, "share": count / of if of else None, "low": low, "high": high}


def figures(rows: Sequence[Judged]) -> dict[str, Any]:
    """What the verdicts say. Each share is {count, of, share, low, high}, each kappa None where chance alone would have all agree.

    `accuracy` of all pairs with votes; `decided` of those that people and judge both decided; `confusion` {people's: {the judge's: pairs}};
    `classes` {verdict: recall, precision}; `people`: how far they agree with each other, and each with the judge, which is to be compared
    with that; `orders`; `length`: how often the longer answer is chosen by the judge and by people, of pairs that they decided.
    """
    voted = [one for one in rows if one.votes]
    pairs = [(one.human, one.verdict) for one in voted]
    decided = [(a, b) for a, b in pairs if "same" not in (a, b)]
    counts = Counter(pairs)
    confusion = {a: {b: counts[a, b] for b in VERDICTS} for a in VERDICTS}
    classes = {name: {"recall": share(counts[name, name], sum(confusion[name].values())),
                      "precision": share(counts[name, name], sum(confusion[a][name] for a in VERDICTS))} for name in VERDICTS}
    return {"rows": len(rows), "voted": len(voted), "accuracy": _equal(pairs), "decided": _equal(decided), "kappa": cohen(pairs),
            "confusion": confusion, "classes": classes, "people": people(voted), "orders": orders(rows), "length": length(voted)}


def _equal(pairs: Sequence[tuple[Hashable, Hashable]]) -> dict[str, Any]:
    return share(sum(a == b for a, b in pairs), len(pairs))


def people(rows: Sequence[Judged]) -> dict[str, Any]:
    """How far people agree, which is the most that can be asked of a judge: of two votes on a pair the share that are equal, the mean of
    Cohen's kappas of two reviewers, Krippendorff's alpha; and the same of the judge and a single vote."""
    reviewers = sorted({name for one in rows for name in one.votes})
    both = [pair for one in rows for pair in itertools.combinations(one.votes.values(), 2)]
    kappas = [cohen([(one.votes[a], one.votes[b]) for one in rows if a in one.votes and b in one.votes])
              for a, b in itertools.combinations(reviewers, 2)]
    with_judge = [cohen([(one.votes[name], one.verdict) for one in rows if name in one.votes]) for name in reviewers]
    return {"reviewers": len(reviewers), "votes": sum(len(one.votes) for one in rows), "equal": _equal(both), "kappa": _mean(kappas),
            "alpha": krippendorff([list(one.votes.values()) for one in rows]),
            "judge_equal": _equal([(vote, one.verdict) for one in rows for vote in one.votes.values()]), "judge_kappa": _mean(with_judge)}


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def orders(rows: Sequence[Judged]) -> dict[str, Any] | None:
    """How often the two orders do not agree (`flipped`), contradict each other (`reversed`), and who gains: of the verdicts that name a
    winner, how many name the answer that was shown first. None where it was not asked in both orders."""
    asked = [one.orders for one in rows if one.orders]
    if not asked:
        return None
    shown_first = Counter(verdict for ab, ba in asked for verdict in (ab, judging.TURNED[ba]))
    return {"flipped": share(sum(ab != ba for ab, ba in asked), len(asked)),
            "reversed": share(sum({ab, ba} == {"good", "bad"} for ab, ba in asked), len(asked)),
            "first": share(shown_first["good"], shown_first["good"] + shown_first["bad"])}


def length(rows: Sequence[Judged]) -> dict[str, Any]:
    """Of pairs whose answers are not equally long, how often the longer one wins with the judge and with people."""
    differ = [one for one in rows if one.longer != "same"]
    judge = [(one.verdict, one.longer) for one in differ if one.verdict != "same"]
    human = [(one.human, one.longer) for one in differ if one.human != "same"]
    return {"judge": _equal(judge), "people": _equal(human)}
