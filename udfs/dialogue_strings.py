"""Fine-tuning rows as one string each and back: what everybody says, thinks, passes to tools and is called, for jobs that look for values.

A value that stands in two messages of a row then gets one number, and the cue word of a question counts for its answer.
"""

import json
import re

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.udfs.dialogues import COLUMNS, MESSAGES, RESPONSES, Dialogues, relisted, with_text
from gristmill.udfs.errors import InputError

MARKS = [chr(code) for code in range(0xFDD0, 0xFDF0)]        # code points that are no characters, and stand in no text
BARE = re.compile(r'(?<=[:\[,])(\s*)(<[A-Z][A-Z0-9_]*(?:[_:][0-9A-Za-z]+)?>)(?=\s*[,}\]])')   # a mask in place of a bare number


class Joined:
    """A batch's strings, joined by row; `text` is large_string[n]. Raises InputError where a batch has every mark."""

    def __init__(self, rows: Dialogues):
        self.rows = rows
        calls = rows.field("tool_calls")
        self._calls = pc.struct_field(pc.list_flatten(calls), "arguments").cast(pa.large_string())
        parts = [(rows.contents, rows.rows), (rows.field("reasoning").cast(pa.large_string()), rows.rows),
                 (self._calls, rows.rows[pc.list_parent_indices(calls).to_numpy()])]
        self._extra = rows.field("extra")
        parts += [(rows.field("name").cast(pa.large_string()), rows.rows), (further(self._extra), rows.rows)]
        if rows.kind == "prompts":
            parts.append((rows.table["reference"].combine_chunks().cast(pa.large_string()), np.arange(len(rows))))
        self._ends = np.cumsum([len(values) for values, _ in parts])
        self._values = pa.concat_arrays([values for values, _ in parts])
        owners = np.concatenate([owner for _, owner in parts])
        there = np.flatnonzero(self._values.is_valid().to_numpy(zero_copy_only=False))
        self._order = there[np.argsort(owners[there], kind="stable")]
        self._counts = np.bincount(owners[there], minlength=len(rows))
        free = (mark for mark in MARKS if not pc.any(pc.match_substring(self._values, mark)).as_py())
        mark = next(free, None)
        if mark is None:
            raise InputError("rows that hold all of the noncharacters U+FDD0 to U+FDEF cannot be searched together")
        self.between = f"\n{mark}\n"
        offsets = pa.array(np.concatenate([[0], np.cumsum(self._counts)]), pa.int64())
        lists = pa.LargeListArray.from_arrays(offsets, self._values.take(pa.array(self._order)))
        self.text = pc.binary_join(lists, pa.scalar(self.between, pa.large_string())).fill_null("")

    def parted(self, text: pa.Array) -> pa.Table:
        """The batch's rows with the strings of these texts, large_string[n], and the `text` that follows; a null text leaves a row without
        messages. Raises ValueError where a text has more or fewer strings than its row."""
        lost = text.is_null().to_numpy(zero_copy_only=False)
        pieces = pc.split_pattern(text.filter(pa.array(~lost & (self._counts > 0))), self.between)
        counts = self._counts * ~lost
        if not np.array_equal(pc.list_value_length(pieces).to_numpy(), counts[counts > 0]):
            raise ValueError("a text came back with another number of messages")
        stays = np.repeat(~lost, self._counts)
        at, found = self._order[stays], pc.list_flatten(pieces)
        take = np.full(len(self._values), -1)
        take[at] = np.arange(len(at))
        new = pc.take(found, pa.array(take, mask=take < 0)) if len(found) else pa.nulls(len(take), pa.large_string())
        contents, reasoning, calls, names, extra, *more = (new[a:b] for a, b in zip([0, *self._ends[:-1]], self._ends, strict=True))
        fields = {"content": contents, "reasoning": reasoning, "tool_calls": self._called(calls), "name": names,
                  "extra": self._furthered(extra)}
        table = self.rows.rebuilt(fields).table
        for name, dtype in COLUMNS[self.rows.kind].items():
            place = table.schema.get_field_index(name)
            if name == "reference" and more:
                table = table.set_column(place, table.schema.field(place), more[0].cast(dtype))
            elif dtype in (MESSAGES, RESPONSES) and lost.any():
                table = table.set_column(place, table.schema.field(place), pc.if_else(pa.array(lost), pa.scalar(None, dtype), table[name]))
        return with_text(table, self.rows.kind)

    def _called(self, arguments: pa.Array) -> pa.Array:
        """The messages' calls with these arguments; a mask that stands where a bare number stood gets quotes, so that JSON stays JSON."""
        calls = self.rows.field("tool_calls")
        flat = pc.list_flatten(calls)
        changed = pc.not_equal(arguments, self._calls).fill_null(False).to_numpy(zero_copy_only=False)
        if changed.any():
            was = self._calls.filter(pa.array(changed)).to_pylist()
            now = arguments.filter(pa.array(changed)).to_pylist()
            repaired = [_json(before, after) for before, after in zip(was, now, strict=True)]
            arguments = pc.replace_with_mask(arguments, pa.array(changed), pa.array(repaired, pa.large_string()))
        children = [pc.struct_field(flat, "id"), pc.struct_field(flat, "name"), arguments.cast(pa.string())]
        return relisted(calls, pa.StructArray.from_arrays(children, fields=list(calls.type.value_type)))

    def _furthered(self, found: pa.Array) -> pa.Array:
        """The messages' `extra` with these further fields; those that are no JSON any more go, and how they were written stays."""
        was, made = further(self._extra), self._extra.to_pylist()
        for n in np.flatnonzero(pc.not_equal(found, was).fill_null(False).to_numpy(zero_copy_only=False)).tolist():
            facts = {key: value for key, value in json.loads(made[n]).items() if not key}
            try:
                fields = json.loads(_json(was[n].as_py(), found[n].as_py()))
            except ValueError:
                fields = {}
            made[n] = json.dumps({**fields, **facts}, ensure_ascii=False, separators=(",", ":")) if fields or facts else None
        return pa.array(made, pa.string())


def further(extra: pa.Array) -> pa.Array:
    """large_string[m]: of each message's `extra` the JSON of its further fields, by name; null where it only says how it was written."""
    if extra.null_count == len(extra):
        return pa.nulls(len(extra), pa.large_string())
    found = []
    for text in extra.to_pylist():
        fields = {key: value for key, value in json.loads(text).items() if key} if text and not text.startswith('{"":') else {}
        found.append(json.dumps(fields, ensure_ascii=False, sort_keys=True) if fields else None)
    return pa.array(found, pa.large_string())


def _json(before: str, after: str) -> str:
    try:
        json.loads(before)
    except ValueError:
        return after
    try:
        json.loads(after)
    except ValueError:
        return BARE.sub(r'\1"\2"', after)
    return after
