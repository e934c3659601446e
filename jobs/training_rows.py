"""Rows as a trainer wants them: what stands in a release's files, made from a section's columns.

A message keeps the fields that some row of the release has; the rest would come out of `datasets` as None in every message. Calls get
OpenAI's layout, whose arguments `datasets` (4.7 or later) gives back as objects. `text` is left out where messages say it.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.jobs import storage
from gristmill.jobs.canonical import KIND, RENAMED
from gristmill.jobs.steps import nearest
from gristmill.udfs import dialogue_digest
from gristmill.udfs.dialogues import COLUMNS, MESSAGE, MESSAGES, RESPONSES, Dialogues, relisted
from gristmill.udfs.errors import InputError

ALWAYS = ("role", "content")
OPTIONAL = ("tools", "margin", "reference")                # columns of a kind that are left out where no row has a value
NULL = hashlib.blake2b(digest_size=16, person=b"null").digest()
TRAINING = ("dup_weight", "mixed_from", "seed_ids")        # columns that sections add which say how to train, and what not to test on


def used(urls: Iterable[str], kind: str) -> set[str]:
    """Columns, and fields of messages (`message.name`, `message.tool_calls.id`), that are not null everywhere; from the footers alone."""
    depth, found = {MESSAGES: 3, RESPONSES: 6}, set[str]()    # messages.list.element.FIELD, responses.list.element.messages.list…
    for url in urls:
        with storage.parquet(url) as file:
            groups = [file.metadata.row_group(n) for n in range(file.metadata.num_row_groups)]
            for column in (group.column(n) for group in groups for n in range(group.num_columns)):
                path, facts = column.path_in_schema.split("."), column.statistics
                field = path[depth.get(COLUMNS[kind].get(path[0]), 0) :]
                if field and (facts is None or not facts.has_null_count or facts.null_count < column.num_values):
                    inside = f"message.{field[0]}" if len(field) < len(path) else field[0]
                    found |= {inside, f"{inside}.{field[-1]}"}
    return found


def message_type(fields: set[str]) -> pa.DataType:
    """A message with those of its fields that are used, role and content."""
    call = [*([pa.field("id", pa.string())] if "message.tool_calls.id" in fields else []), pa.field("type", pa.string()),
            pa.field("function", pa.struct([("name", pa.string()), ("arguments", pa.json_(pa.string()))]))]
    kept = [field for field in MESSAGE if f"message.{field.name}" in fields or field.name in ALWAYS]
    return pa.struct([(RENAMED.get(field.name, field.name), pa.list_(pa.struct(call)) if field.name == "tool_calls" else field.type)
                      for field in kept])


def schema(source: pa.Schema, kind: str, own: Sequence[str], wanted: str | Sequence[str], fields: set[str]) -> pa.Schema:
    """The columns of a release: id, the kind's, source, the user's own, and those that were asked for (`training`, `all`, or names).

    Raises InputError for a name that the rows do not have.
    """
    message = pa.list_(message_type(fields))
    types = {MESSAGES: message, RESPONSES: pa.list_(pa.struct([("messages", message), ("score", pa.float64())]))}
    hidden = {"split", "origin"} | (set() if kind == "pretrain" else {"text"})
    named = [] if isinstance(wanted, str) else list(wanted)
    unknown = next((name for name in named if name not in source.names), None)
    if unknown is not None:
        raise InputError(f"release.columns: the rows have no column '{unknown}'.{nearest(unknown, source.names)}")
    more = [name for name in source.names if name not in hidden] if wanted == "all" else named
    kinds = [name for name in COLUMNS[kind] if name != "origin" and (name not in OPTIONAL or name in fields)]
    first = ["id", *(kinds or ["text"]), "source"]
    names = dict.fromkeys([*first, *own, *TRAINING, *more])
    left = [name for name in names if name in source.names and (name in kinds or name not in COLUMNS[kind])]
    return pa.schema([pa.field(name, types.get(COLUMNS[kind].get(name), source.field(name).type)) for name in left], {KIND: kind.encode()})


def converted(table: pa.Table, wanted: pa.Schema, kind: str) -> pa.Table:
    """Rows of a section as those of a release."""
    columns = {}
    for field in wanted:
        column, dtype = table[field.name].combine_chunks(), COLUMNS[kind].get(field.name)
        if dtype == MESSAGES:
            column = _messages(column, field.type)
        elif dtype == RESPONSES:
            inner, outer = pc.list_flatten(column), field.type.value_type
            lists = _messages(pc.struct_field(inner, "messages"), outer.field("messages").type)
            column = relisted(column, pa.StructArray.from_arrays([lists, pc.struct_field(inner, "score")], fields=list(outer)))
        columns[field.name] = column
    return pa.table(columns, schema=wanted)


def _messages(lists: pa.Array, dtype: pa.DataType) -> pa.Array:
    flat, old, columns = pc.list_flatten(lists), {new: name for name, new in RENAMED.items()}, []
    for field in dtype.value_type:
        values = pc.struct_field(flat, old.get(field.name, field.name))
        columns.append(_calls(values, field.type) if field.name == "tool_calls" else values)
    return relisted(lists, pa.StructArray.from_arrays(columns, fields=list(dtype.value_type)))


def _calls(lists: pa.Array, dtype: pa.DataType) -> pa.Array:
    """Calls in OpenAI's layout; a message with an empty list of them has none. What is no JSON becomes a JSON string."""
    flat, function = pc.list_flatten(lists), dtype.value_type.field("function").type
    arguments = pa.array([_json(text) for text in pc.struct_field(flat, "arguments").to_pylist()], pa.string())
    called = [pc.struct_field(flat, "name"), arguments.cast(function.field("arguments").type)]
    inner = pa.StructArray.from_arrays(called, fields=list(function))
    columns = {"id": pc.struct_field(flat, "id"), "type": pa.repeat(pa.scalar("function"), len(flat)), "function": inner}
    calls = pa.StructArray.from_arrays([columns[field.name] for field in dtype.value_type], fields=list(dtype.value_type))
    some = pc.greater(pc.list_value_length(lists).fill_null(0), 0)
    return relisted(pc.if_else(some, lists, pa.scalar(None, lists.type)), calls)


def _json(text: str | None) -> str | None:
    try:
        orjson.loads(text or "null")
    except orjson.JSONDecodeError:
        return json.dumps(text, ensure_ascii=False)
    return text or None


def content(table: pa.Table, kind: str) -> pa.Array:
    """What makes each row of a section what it is, whatever its columns beside: its text, or all of its messages and labels."""
    return table["text"].combine_chunks() if kind == "pretrain" else dialogue_digest.everything(Dialogues(table, kind))


def beside(table: pa.Table, names: Sequence[str]) -> pa.Array | None:
    """large_string[n]: the values of these columns, in a form that does not depend on the batch; None for no columns."""
    if not names:
        return None
    columns = [_plain(table[name]).fill_null("\0") for name in sorted(names)]
    return pc.binary_join_element_wise(*columns, pa.scalar("\x1f", pa.large_string()))


def _plain(column: pa.ChunkedArray) -> pa.Array:
    dtype, whole = column.type, column.combine_chunks()
    if pa.types.is_primitive(dtype) or pa.types.is_string(dtype) or pa.types.is_large_string(dtype):
        return whole.cast(pa.large_string())
    texts = (None if one is None else json.dumps(one, ensure_ascii=False, sort_keys=True, default=repr) for one in whole.to_pylist())
    return pa.array(texts, pa.large_string())


def digests(*columns: pa.Array | None) -> np.ndarray:
    """uint8[n, 16]: BLAKE2b over the values of each row; a null is not an empty string, and where one ends is part of it."""
    lists = [column.cast(pa.large_binary()).to_pylist() for column in columns if column is not None]
    if len(lists) == 1:
        found = b"".join(NULL if value is None else hashlib.blake2b(value, digest_size=16).digest() for value in lists[0])
    else:
        joined = (b"".join(b"\0" if value is None else b"%d:%b" % (len(value), value) for value in row) for row in zip(*lists, strict=True))
        found = b"".join(hashlib.blake2b(row, digest_size=16).digest() for row in joined)
    return np.frombuffer(found, np.uint8).reshape(-1, 16)
