"""Rows behind findings, to read: a few of each, what they say cut short, and personal data in it masked."""

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.jobs import insight_columns, parts, stage, storage
from gristmill.udfs import redaction
from gristmill.udfs.dialogues import COLUMNS, Dialogues
from gristmill.udfs.pii_entities import KEYS
from gristmill.udfs.texts import Texts

SHOWN = 5              # rows of a finding
LENGTH = 300           # code points of what is shown of a slot
SHOW = {"pretrain": ("",), "conversations": ("question", "response"), "preference": ("question", "chosen", "rejected"),
        "unpaired": ("question", "completion"), "ranked": ("question", "response"), "prompts": ("question", "reference")}


def read(source: str, ids: Iterable[str]) -> dict[str, list[tuple[str, str, bool]]]:
    """{id: [(slot, text, whether there is more)]} of some rows of a sealed folder; only row groups that have one of them are read."""
    wanted, out = pa.array(sorted(set(ids)), pa.string()), dict[str, list[tuple[str, str, bool]]]()
    for part in parts.of_folder(source):
        if len(out) == len(wanted):
            break
        with storage.parquet(part.url) as file:
            columns = [name for name in ("id", "text", *COLUMNS[stage.kind_of(file.schema_arrow)]) if name in file.schema_arrow.names]
            for group in range(file.metadata.num_row_groups):
                there = pc.is_in(file.read_row_group(group, ["id"])["id"].combine_chunks(), wanted)
                if pc.any(there).as_py():
                    table = file.read_row_group(group, columns).filter(there)
                    out |= zip(table["id"].to_pylist(), _shown(table), strict=True)
    return out


def _shown(table: pa.Table) -> list[list[tuple[str, str, bool]]]:
    kind = stage.kind_of(table.schema)
    columns = []
    for slot in SHOW[kind]:
        texts = Dialogues(table, kind).slot(slot).array if kind != "pretrain" else table["text"].combine_chunks().cast(pa.large_string())
        cut = pc.utf8_slice_codeunits(texts.fill_null(""), 0, 4 * LENGTH)           # masked before it is cut to LENGTH: a mask is short
        columns.append([(slot, one[:LENGTH], len(one) > LENGTH) for one in _masked(cut)])
    return [list(row) for row in zip(*columns, strict=True)] if len(table) else []


def _masked(texts: pa.Array) -> list[str]:
    """The texts with personal data masked."""
    from gristmill.udfs import pii  # Presidio takes seconds to import: only where it is used

    names = [KEYS[key] for key in insight_columns.ENTITIES]
    spans = pii.spans(Texts(texts), names, dict.fromkeys(names, pii.THRESHOLD))
    found, plain = np.flatnonzero([len(some) for some in spans]).tolist(), texts.to_pylist()
    if found:
        made = redaction.redact([plain[row] for row in found], [spans[row] for row in found], dict.fromkeys(names, "mask"), None)
        for row, text in zip(found, made, strict=True):
            plain[row] = text
    return plain
