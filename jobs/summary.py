"""What is counted while documents pass: sums that can be added in any order, so that tasks and engines do not matter."""

import hashlib
import itertools
import re
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.udfs import dialogue_digest
from gristmill.udfs.dialogues import Dialogues, kind_of

SMALL = 200            # bins from 0 to 1; above that, which no ratio is, 16 bins a doubling
BINS = 1 << 15         # more than there can be: the largest double is in bin 16,584
HIGHEST = 1024 - 2.0**-43      # the largest exponent of two that gives a double
MODULUS = 1 << 128
LABELS = 200           # distinct values of a text score that are counted, the rest goes to "(other)"


def empty() -> dict[str, Any]:
    return {"rows": 0, "kept": 0, "dropped": 0, "errors": 0, "bytes": 0, "tokens": 0, "kept_bytes": 0, "kept_tokens": 0, "digest": "0" * 32,
            "rules": {}, "only": {}, "seconds": {}, "scores": {}}


def rules_failed(whys: pa.ChunkedArray) -> list[list[str]]:
    """The rules in each `why`, without making a Python object of every entry, which would cost more than most operators do."""
    names: list[str] = []
    sizes: list[int] = []
    for chunk in whys.chunks:
        sizes += pc.fill_null(pc.list_value_length(chunk), 0).to_pylist()
        entries = pc.list_flatten(chunk)
        names += entries.field("rule").to_pylist() if pa.types.is_struct(entries.type) else []
    ends = np.cumsum([0, *sizes]).tolist()
    return [names[start:end] for start, end in itertools.pairwise(ends)]


def digest(ids: pa.Array | pa.ChunkedArray, texts: pa.Array | pa.ChunkedArray, rules: list[list[str]]) -> int:
    """Order-free digest of documents: the sum, modulo 2^128, of BLAKE2b over each one's id, text and the rules it failed."""
    total = 0
    identifiers, contents = pc.cast(ids, pa.binary()).to_pylist(), pc.cast(texts, pa.binary()).to_pylist()
    for identifier, text, failed in zip(identifiers, contents, rules, strict=True):
        one = hashlib.blake2b(identifier or b"", digest_size=16)
        one.update(b"\0null" if text is None else b"\0text")
        one.update(text or b"")
        for rule in failed:
            one.update(b"\0" + rule.encode())
        total += int.from_bytes(one.digest(), "big")
    return total % MODULUS


def bin_of(values: np.ndarray, unit: str) -> np.ndarray:
    """int64[n]: the histogram bin of each value; see edge_of."""
    values = np.clip(values, 0, 1 if unit == "ratio" else sys.float_info.max)
    large = SMALL + np.floor(16 * np.log2(np.maximum(values, 1)) + 1e-9)
    return np.where((values < 1) | (unit == "ratio"), np.floor(np.minimum(values, 1) * SMALL + 1e-9), large).astype(np.int64)


def edge_of(bin_: int, unit: str) -> float:
    """The least value in a bin."""
    return bin_ / SMALL if bin_ <= SMALL or unit == "ratio" else 2.0 ** min((bin_ - SMALL) / 16, HIGHEST)


def of_result(table: pa.Table, kept: np.ndarray, units: Mapping[str, str], languages: np.ndarray) -> dict[str, Any]:
    """The summary of one stage's batch. `units` names the score columns, `languages` object[n] each document's group."""
    found = empty()
    text, rules, only = table["text"], Counter[str](), Counter[str]()
    sizes = pc.fill_null(pc.binary_length(text), 0).to_numpy()
    tokens = token_estimates(table)
    failed = rules_failed(table["why"])
    for names in failed:
        rules.update(set(names))
        if len(names) == 1:
            only[names[0]] += 1
    found.update(
        rows=len(table), kept=int(kept.sum()), dropped=int((~kept).sum()), rules=dict(rules), only=dict(only),
        errors=sum(count for rule, count in rules.items() if rule.startswith("error:")),
        bytes=int(sizes.sum()), kept_bytes=int(sizes[kept].sum()), tokens=int(tokens.sum()), kept_tokens=int(tokens[kept].sum()),
        digest=f"{digest(table['id'], _content(table), failed):032x}",
    )
    names = list(dict.fromkeys(languages))
    groups = np.searchsorted(np.sort(names), languages) if names else np.empty(0, np.int64)
    for name, unit in units.items():
        found["scores"][name] = _distribution(table[name], unit, sorted(names), groups)
    return found


def _content(table: pa.Table) -> pa.Array | pa.ChunkedArray:
    """What makes each row what it is: a document's text, and all of a fine-tuning row's messages and labels."""
    return table["text"] if kind_of(table.schema) == "pretrain" else dialogue_digest.everything(Dialogues(table))


def of_documents(table: pa.Table, kept: bool) -> dict[str, Any]:
    """The summary of documents, or of ledger rows, that have no scores."""
    if "why" not in table.column_names:
        table = table.append_column("why", pa.array([[]] * len(table), pa.list_(pa.null())))
    return of_result(table, np.full(len(table), kept), {}, np.array([], object))


def token_estimates(table: pa.Table) -> np.ndarray:
    """int64[n]: the recipe's own token_estimate where it made one, else a token for each 4 bytes, which is near for zh and en alike."""
    if "token_estimate" in table.column_names:
        return pc.fill_null(table["token_estimate"], 0).to_numpy()
    return pc.fill_null(pc.binary_length(table["text"]), 0).to_numpy() // 4


def _distribution(column: pa.ChunkedArray, unit: str, names: list[str], groups: np.ndarray) -> dict[str, Any]:
    """{language: {"n", "sum", "nulls", "bins" | "labels"}} of one score; `groups` int64[n] is each document's place in `names`."""
    valid, text = column.is_valid().to_numpy(), pa.types.is_string(column.type)
    counts, of_valid = np.bincount(groups, minlength=len(names)), groups[valid]
    filled = np.bincount(of_valid, minlength=len(names))
    out: dict[str, Any] = {name: {"n": int(n), "nulls": int(all_ - n)} for name, n, all_ in zip(names, filled, counts, strict=True)}
    if text:
        labels = np.array(column.drop_null().to_pylist(), object)
        for k, name in enumerate(names):
            out[name]["labels"] = dict(Counter(labels[of_valid == k]).most_common(LABELS))
        return out
    values = column.drop_null().to_numpy().astype(np.float64)
    for name, total_ in zip(names, np.bincount(of_valid, values, len(names)), strict=True):
        out[name].update(sum=float(total_), bins={})
    found, sizes = np.unique(of_valid * BINS + bin_of(values, unit), return_counts=True)
    for key, size in zip(found.tolist(), sizes.tolist(), strict=True):
        out[names[key // BINS]]["bins"][str(key % BINS)] = size
    return out


def add(total: dict[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Add one summary to another, in place."""
    for key in ("rows", "kept", "dropped", "errors", "bytes", "tokens", "kept_bytes", "kept_tokens"):
        total[key] += other[key]
    total["digest"] = f"{(int(total['digest'], 16) + int(other['digest'], 16)) % MODULUS:032x}"
    for key in ("rules", "only", "seconds"):
        for name, value in other[key].items():
            total[key][name] = total[key].get(name, 0) + value
    for name, languages in other["scores"].items():
        mine = total["scores"].setdefault(name, {})
        for language, part in languages.items():
            _add_part(mine.setdefault(language, {"n": 0, "nulls": 0}), part)
    return total


def _add_part(mine: dict[str, Any], part: Mapping[str, Any]) -> None:
    for key in ("n", "nulls", "sum"):
        if key in part:
            mine[key] = mine.get(key, 0) + part[key]
    for key in ("bins", "labels"):
        if key in part:
            counts = Counter(mine.get(key, {}))
            counts.update(part[key])
            if len(counts) > LABELS and key == "labels":
                rest = sum(count for _, count in counts.most_common()[LABELS:])
                counts = Counter(dict(counts.most_common(LABELS)))
                counts["(other)"] += rest
            mine[key] = dict(counts)


def total(parts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    out = empty()
    for part in parts:
        add(out, part)
    return out


def quantile(part: Mapping[str, Any], share: float, unit: str) -> float | None:
    """The value below which this share of a distribution lies, to the width of a bin; None where it is empty."""
    bins = sorted((int(bin_), count) for bin_, count in part.get("bins", {}).items())
    wanted, seen = share * sum(count for _, count in bins), 0
    for bin_, count in bins:
        seen += count
        if seen >= wanted:
            return edge_of(bin_, unit)
    return None


def rule_name(rule: str) -> str:
    """The column that a rule's text is about."""
    return re.split(r"\s|:", rule, maxsplit=1)[0]
