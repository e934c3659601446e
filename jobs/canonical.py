"""A release's Parquet read with the columns that sections have, so that every job takes one for a sealed folder."""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gristmill.udfs.dialogues import CALL, COLUMNS, MESSAGE, MESSAGES, RESPONSES, relisted, with_text

KIND = b"gristmill.kind"                                   # in the files' schema: what `text` is made from
RENAMED = {"reasoning": "reasoning_content"}               # as chat templates call it


class Canonical(pq.ParquetFile):
    """A file of a release, read with the columns that sections have: whole messages, and the `text` that they make.

    Arguments of calls that were no JSON stay the JSON strings that they became.
    """

    @property
    def kind(self) -> str:
        return super().schema_arrow.metadata[KIND].decode()

    @property
    def schema_arrow(self) -> pa.Schema:
        old = super().schema_arrow
        if self.kind == "pretrain":
            return old.remove_metadata()
        fields = {"id": pa.field("id", pa.string()), "text": pa.field("text", pa.string())}
        fields |= {name: pa.field(name, dtype) for name, dtype in COLUMNS[self.kind].items()}
        return pa.schema([*fields.values(), *(field for field in old if field.name not in fields)])

    def needed(self, columns: list[str] | None) -> list[str] | None:
        """The file's columns of which these are made."""
        there, wanted = super().schema_arrow.names, self.schema_arrow.names if columns is None else columns
        spoken = [name for name, dtype in COLUMNS[self.kind].items() if dtype in (MESSAGES, RESPONSES)] if "text" in wanted else []
        return [name for name in there if name in wanted or name in spoken]

    def made(self, table: pa.Table, columns: list[str] | None) -> pa.Table:
        wanted = [name for name in self.schema_arrow.names if columns is None or name in columns]
        for name, dtype in COLUMNS[self.kind].items():
            if name in table.column_names and dtype in (MESSAGES, RESPONSES):
                at, lists = table.schema.get_field_index(name), table[name].combine_chunks()
                table = table.set_column(at, pa.field(name, dtype), canonical(lists, dtype))
            elif name in wanted and name not in table.column_names:
                table = table.append_column(name, pa.nulls(len(table), dtype))
        if "text" in wanted and self.kind != "pretrain" and "text" not in table.column_names:
            table = with_text(table, self.kind)
        return table.select(wanted).replace_schema_metadata(None)       # the mark is of the file, not of its rows

    def iter_batches(self, batch_size: int = 65536, row_groups: Any = None, columns: Any = None, **more: Any) -> Iterator[pa.RecordBatch]:
        for batch in super().iter_batches(batch_size, row_groups, self.needed(columns), **more):
            yield from self.made(pa.Table.from_batches([batch]), columns).combine_chunks().to_batches()

    def read_row_group(self, i: int, columns: Any = None, **more: Any) -> pa.Table:
        return self.made(super().read_row_group(i, self.needed(columns), **more), columns)

    def read(self, columns: Any = None, **more: Any) -> pa.Table:
        return self.made(super().read(self.needed(columns), **more), columns)


def canonical(lists: pa.Array, dtype: pa.DataType) -> pa.Array:
    """Messages of a release, or responses of them, as sections have them."""
    flat = pc.list_flatten(lists)
    if dtype == RESPONSES:
        inner = [canonical(pc.struct_field(flat, "messages"), MESSAGES), pc.struct_field(flat, "score")]
        return relisted(lists, pa.StructArray.from_arrays(inner, fields=list(RESPONSES.value_type)))
    there, columns = [field.name for field in flat.type], []
    for field in MESSAGE:
        name = RENAMED.get(field.name, field.name)
        values = pc.struct_field(flat, name) if name in there else pa.nulls(len(flat), field.type)
        columns.append(_calls(values) if field.name == "tool_calls" and name in there else values)
    return relisted(lists, pa.StructArray.from_arrays(columns, fields=list(MESSAGE)))


def _calls(lists: pa.Array) -> pa.Array:
    flat = pc.list_flatten(lists)
    function = pc.struct_field(flat, "function")
    arguments = pc.struct_field(function, "arguments")
    ids = pc.struct_field(flat, "id") if any(field.name == "id" for field in flat.type) else pa.nulls(len(flat), pa.string())
    plain = arguments.storage if isinstance(arguments, pa.ExtensionArray) else arguments
    calls = pa.StructArray.from_arrays([ids, pc.struct_field(function, "name"), plain.cast(pa.string())], fields=list(CALL))
    return relisted(lists, calls)
