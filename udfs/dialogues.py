"""Fine-tuning rows as Arrow columns, and a batch of them as operators see it.

A row of each kind has lists of messages in the columns of COLUMNS; `text` is what all of its messages say, one after the other,
and is made anew whenever they change. A message's `train` is null where its role decides whether it is trained on.
"""

from collections.abc import Iterable
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.udfs.texts import Texts

CALL = pa.struct([("id", pa.string()), ("name", pa.string()), ("arguments", pa.string())])
MESSAGE = pa.struct([
    ("role", pa.string()), ("content", pa.string()), ("reasoning", pa.string()), ("tool_calls", pa.list_(CALL)),
    ("tool_call_id", pa.string()), ("name", pa.string()), ("train", pa.bool_()), ("images", pa.list_(pa.string())), ("extra", pa.string()),
])
MESSAGES = pa.list_(MESSAGE)
RESPONSES = pa.list_(pa.struct([("messages", MESSAGES), ("score", pa.float64())]))
ROLES = ("system", "user", "assistant", "tool")

# The columns of each kind. `tools` is the JSON of the functions that may be called, `origin` the JSON of how the row was laid out in
# its file, as far as the columns do not say it; both are null for most rows.
COLUMNS: dict[str, dict[str, pa.DataType]] = {
    "pretrain": {},
    "conversations": {"messages": MESSAGES},
    "preference": {"prompt": MESSAGES, "chosen": MESSAGES, "rejected": MESSAGES, "margin": pa.float64()},
    "unpaired": {"prompt": MESSAGES, "completion": MESSAGES, "label": pa.bool_()},
    "ranked": {"prompt": MESSAGES, "responses": RESPONSES},
    "prompts": {"prompt": MESSAGES, "reference": pa.string()},
}
for _columns in list(COLUMNS.values())[1:]:
    _columns |= {"tools": pa.string(), "origin": pa.string()}
# What a score can be asked about, besides a whole row: `assistant.char_count` is of what all of the assistant's messages say.
SLOTS: dict[str, tuple[str, ...]] = {
    "pretrain": (),
    "conversations": (*ROLES, "prompt", "question", "response"),
    "preference": (*ROLES, "prompt", "question", "response", "chosen", "rejected"),
    "unpaired": (*ROLES, "prompt", "question", "response", "completion"),
    "ranked": (*ROLES, "prompt", "question", "response", "responses"),
    "prompts": (*ROLES, "prompt", "question", "reference"),
}
BETWEEN = "\n\n"         # messages in a text


def kind_of(schema: pa.Schema) -> str:
    """The kind whose columns these are; pretrain where they are none's."""
    for kind in ("conversations", "preference", "unpaired", "ranked", "prompts"):
        wanted = COLUMNS[kind].items()
        if all(name in schema.names and schema.field(name).type == dtype for name, dtype in wanted):
            return kind
    return "pretrain"


class Place(NamedTuple):
    """The messages of one column: `lists` is the column, or the lists inside of its responses; `owner` int64: the row of each list."""

    column: str
    lists: pa.Array
    owner: np.ndarray
    messages: pa.StructArray


class Dialogues:
    """A batch of rows of one kind. Operators read `slot`, `messages` and the columns of `table`; only `replaced` makes a new one."""

    nulls: np.ndarray | None = None          # no row is null, as a text can be

    def __init__(self, table: pa.Table, kind: str | None = None):
        self.table = table
        self.kind = kind or kind_of(table.schema)
        self.cache: dict[str, Any] = {}           # what an operator leaves for another one
        self._slots: dict[str, Texts] = {}
        self._shared: dict[bytes, Texts] = {}

    def __len__(self) -> int:
        return len(self.table)

    @cached_property
    def places(self) -> list[Place]:
        """Every column of messages, in the order in which a reader meets them."""
        out = []
        for name, dtype in COLUMNS[self.kind].items():
            if dtype == MESSAGES:
                lists = whole(self.table[name])
                out.append(Place(name, lists, np.arange(len(lists)), pc.list_flatten(lists)))
            elif dtype == RESPONSES:
                outer = whole(self.table[name])
                lists = pc.struct_field(pc.list_flatten(outer), "messages")
                out.append(Place(name, lists, pc.list_parent_indices(outer).to_numpy(), pc.list_flatten(lists)))
        return out

    def field(self, name: str) -> pa.Array:
        """One field of all messages, m of them: place after place, row after row in each."""
        return pa.concat_arrays([pc.struct_field(place.messages, name) for place in self.places])

    @cached_property
    def contents(self) -> pa.Array:
        """What each message says, large_string[m]; null for a bare tool call."""
        return self.field("content").cast(pa.large_string())

    @cached_property
    def roles(self) -> np.ndarray:
        """int8[m]: the place of each message's role in ROLES, -1 for another."""
        return pc.index_in(self.field("role"), value_set=pa.array(ROLES)).fill_null(-1).to_numpy().astype(np.int8)

    @cached_property
    def rows(self) -> np.ndarray:
        """int64[m]: the row that each message stands in."""
        return np.concatenate([place.owner[pc.list_parent_indices(place.lists).to_numpy()] for place in self.places])

    @cached_property
    def columns(self) -> np.ndarray:
        """object[m]: the column that each message stands in."""
        return np.repeat(np.array([place.column for place in self.places], object), [len(place.messages) for place in self.places])

    @cached_property
    def last(self) -> np.ndarray:
        """bool[m]: whether a message is the last one of its list."""
        out = []
        for place in self.places:
            ends = np.cumsum(pc.list_value_length(place.lists).fill_null(0).to_numpy())
            mask = np.zeros(len(place.messages) + 1, bool)
            mask[ends - 1] = True              # an empty list marks the end of the one before, or the spare place
            out.append(mask[:-1])
        return np.concatenate(out)

    def chosen(self, slot: str) -> np.ndarray:
        """bool[m]: the messages of a slot, of `all` or of the `worst` response. Raises KeyError for another name."""
        if slot == "all":
            return np.ones(len(self.contents), bool)
        if slot in ROLES:
            return self.roles == ROLES.index(slot)
        if slot in ("chosen", "rejected", "completion", "responses"):
            return np.asarray(self.columns == slot)
        if slot in ("response", "worst"):
            return self._response(slot == "worst")
        if slot == "prompt":
            return ~self._response() if self.kind == "conversations" else np.asarray(self.columns == "prompt")
        if slot == "question":
            return self._latest(self.chosen("prompt") & (self.roles == ROLES.index("user")))
        raise KeyError(slot)

    def _response(self, worst: bool = False) -> np.ndarray:
        """The answer that is trained on: the last message where it is the assistant's, what is chosen, what has the best score; or the
        worst of several: what is rejected, what has the least score. Of equal scores the first is the best and the last the worst."""
        if self.kind == "conversations":
            return self.last & (self.roles == ROLES.index("assistant")) & (not worst)
        if self.kind != "ranked":
            column = {"preference": "rejected" if worst else "chosen", "unpaired": "" if worst else "completion"}.get(self.kind)
            return np.asarray(self.columns == column)
        outer = whole(self.table["responses"])
        scores = pc.struct_field(pc.list_flatten(outer), "score").fill_null(np.nan).to_numpy()
        parents, place = pc.list_parent_indices(outer).to_numpy(), np.arange(len(scores))
        scored = np.flatnonzero(~np.isnan(scores))
        order = scored[np.lexsort((place[scored], -scores[scored], parents[scored]))]
        edge = np.ones(len(order), bool)
        if worst:
            edge[:-1] = parents[order][1:] != parents[order][:-1]
        else:
            edge[1:] = parents[order][1:] != parents[order][:-1]
        taken = np.zeros(len(scores), bool)
        taken[order[edge]] = True
        prompt, responses = self.places
        return np.concatenate([np.zeros(len(prompt.messages), bool), taken[pc.list_parent_indices(responses.lists).to_numpy()]])

    def _latest(self, mask: np.ndarray) -> np.ndarray:
        """Of the messages of the mask, the last one in each row."""
        out = np.zeros(len(mask), bool)
        at = np.flatnonzero(mask)
        latest = np.full(len(self), -1)
        latest[self.rows[at]] = at             # of equal indices the last one is written
        out[latest[latest >= 0]] = True
        return out

    def slot(self, name: str) -> Texts:
        """Texts[n]: what the messages of a slot say in each row, BETWEEN them; empty where it has none, never null."""
        if name not in self._slots:
            if name == "reference":
                self._slots[name] = Texts(whole(self.table["reference"]).cast(pa.large_string()).fill_null(""))
            else:
                self._slots[name] = self._said(self._sorted(self.contents, self.chosen(name)))
        return self._slots[name]

    def each(self, at: np.ndarray) -> Texts:
        """Texts[k]: what the messages at these places say; where they are one for each row, the same object as the slot that has them."""
        found = self.contents.take(pa.array(at))
        alone = len(at) == len(self) and not found.null_count and np.array_equal(self.rows[at], np.arange(len(self)))
        return self._said(at) if alone else Texts(found)

    def _said(self, at: np.ndarray) -> Texts:
        """Texts[n] of the messages at these places, in the order of their rows; one object for the same messages, whatever slot it is."""
        key = at.tobytes()
        if key not in self._shared:
            self._shared[key] = Texts(self._joined(self.contents, at, BETWEEN))
        return self._shared[key]

    def _sorted(self, values: pa.Array, mask: np.ndarray) -> np.ndarray:
        at = np.flatnonzero(mask & values.is_valid().to_numpy(zero_copy_only=False))
        return at if (np.diff(self.rows[at]) >= 0).all() else at[np.argsort(self.rows[at], kind="stable")]

    def joined(self, values: pa.Array, mask: np.ndarray, between: str = BETWEEN) -> pa.Array:
        """large_string[n]: of each row the values, large_string[m], where the mask is true and the value is not null."""
        return self._joined(values, self._sorted(values, mask), between)

    def _joined(self, values: pa.Array, at: np.ndarray, between: str) -> pa.Array:
        ends = np.zeros(len(self) + 1, np.int64)
        np.cumsum(np.bincount(self.rows[at], minlength=len(self)), out=ends[1:])
        lists = pa.LargeListArray.from_arrays(pa.array(ends), values.take(pa.array(at)))
        return pc.binary_join(lists, pa.scalar(between, pa.large_string())).fill_null("")

    @property
    def texts(self) -> Texts:
        """What the whole rows say, Texts[n]."""
        return self.slot("all")

    @property
    def languages(self) -> np.ndarray:
        """What the script says of each row, object[n]; see Texts."""
        return self.texts.languages

    def part(self, mask: np.ndarray) -> "Dialogues":
        """The rows where the mask is true."""
        return self.take(mask)

    @cached_property
    def counts(self) -> np.ndarray:
        """int64[n]: messages of each row, of all columns."""
        return np.bincount(self.rows, minlength=len(self))

    def replaced(self, contents: pa.Array) -> "Dialogues":
        """The same rows whose messages say these contents, large_string[m]; `text` follows. A null content stays null."""
        return self.rebuilt({"content": contents})

    def rebuilt(self, fields: dict[str, pa.Array]) -> "Dialogues":
        """The same rows with other values of some fields of MESSAGE, [m] each, and the `text` that follows from them."""
        table, start = self.table, 0
        for place in self.places:
            stop = start + len(place.messages)
            children = {f.name: pc.struct_field(place.messages, f.name) for f in MESSAGE}
            children |= {name: values[start:stop].cast(MESSAGE.field(name).type) for name, values in fields.items()}
            messages = pa.StructArray.from_arrays(list(children.values()), fields=list(MESSAGE))
            column: pa.Array = relisted(place.lists, messages)
            if COLUMNS[self.kind][place.column] == RESPONSES:
                outer = whole(table[place.column])
                flat = pc.list_flatten(outer)
                inner = pa.StructArray.from_arrays([column, pc.struct_field(flat, "score")], fields=list(RESPONSES.value_type))
                column = relisted(outer, inner)
            table = table.set_column(table.schema.get_field_index(place.column), table.schema.field(place.column), column)
            start = stop
        return Dialogues(with_text(table, self.kind), self.kind)

    def take(self, mask: np.ndarray) -> "Dialogues":
        """The rows where the mask, bool[n], is true, or at these positions."""
        at = pa.array(mask)
        return Dialogues(self.table.filter(at) if pa.types.is_boolean(at.type) else self.table.take(at), self.kind)


def with_text(table: pa.Table, kind: str) -> pa.Table:
    """The table whose `text` is what its messages say."""
    text = Dialogues(table, kind).texts.array.cast(pa.string())
    at = table.schema.get_field_index("text")
    return table.append_column("text", text) if at < 0 else table.set_column(at, pa.field("text", pa.string()), text)


def of_rows(rows: Iterable[dict[str, Any]], kind: str, more: Iterable[pa.Field] = ()) -> pa.Table:
    """A table of one kind from Python rows, with its `text`; a column that a row lacks is null. For tests and small sets."""
    schema = pa.schema([*(pa.field(name, dtype) for name, dtype in COLUMNS[kind].items()), *more])
    return with_text(pa.Table.from_pylist(list(rows), schema), kind)


def whole(column: pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def relisted(lists: pa.Array, values: pa.Array) -> pa.Array:
    """Lists of the same lengths with other values; null lists stay null."""
    lengths = pc.list_value_length(lists).fill_null(0).to_numpy()
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
    return pa.ListArray.from_arrays(offsets, values, mask=lists.is_null() if lists.null_count else None)
