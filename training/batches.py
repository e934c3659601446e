"""A rank's micro-batches over a mixture plan: read row group by row group, never the whole set, and from any step on.

    stream = Batches(mixture_plan.make(…), rank=0, pad=tokenizer.pad_token_id)
    stream.load_state_dict(state)        # on a resume
    for micro in stream: ...             # plan.batch / (plan.world * plan.micro) of them a step
    for micro in Batches(mixture_plan.Once(held_out, world=1, micro=4), rank=0): ...
"""

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from gristmill.jobs import mixture_plan, mixture_sets, storage
from gristmill.udfs.errors import InputError, RecipeError
from gristmill.udfs.kernels import jit

READ = {"packed": ["input_ids", "loss_mask", "lengths"], "pairs": None, "unpaired": None, "prompts": None}    # None: every column
IGNORED = -100           # a label that is not trained
AHEAD = 2                # steps whose row groups are read before they are needed
Place = tuple[int, int, int, int, int]     # a row: the fields of mixture_plan.Draws but the rank


@jit
def fill(tokens, trained, lengths, pad, counts, ids, labels, positions):
    """A packed row into a row of each tensor; no label at a sample's first token, in the padding, or anywhere if the row does not count."""
    at = 0
    for length in lengths:
        for k in range(length):
            ids[at] = tokens[at]
            labels[at] = tokens[at] if counts and k and trained[at] else IGNORED
            positions[at] = k
            at += 1
    for k in range(len(ids) - at):
        ids[at + k], labels[at + k], positions[at + k] = pad, IGNORED, k


class Packed(NamedTuple):
    """A decoded row group of the form `packed`: values of all rows one after the other, and where a row's begin."""

    ids: np.ndarray          # int32[tokens]
    trained: np.ndarray      # uint8[tokens]
    ends: np.ndarray         # int64[rows + 1]
    lengths: np.ndarray      # int32[samples]
    samples: np.ndarray      # int64[rows + 1]
    sources: np.ndarray | None     # int8[samples]
    nbytes: int


class Groups:
    """The row groups of a plan that are being read, decoded by one thread; those used longest ago go once they are more than `limit` bytes.

    What the steps at hand need stays, even where it is more. `reads` counts the row groups read.
    """

    def __init__(self, plan: mixture_plan.Plan | mixture_plan.Once, limit: int, sources: Sequence[str] | None):
        self.plan, self.limit, self.sources, self.reads = plan, limit, sources, 0
        self._checked = set[int]()
        self._pool = ThreadPoolExecutor(1)
        self._held: OrderedDict[tuple[int, int], Future[Any]] = OrderedDict()

    def want(self, keys: Sequence[tuple[int, int]]) -> None:
        """Start to read these groups, and let go of what is over the limit and not among them."""
        for key in keys:
            if key not in self._held:
                self._held[key] = self._pool.submit(self._read, *key)
            self._held.move_to_end(key)
        done = {key: one.result().nbytes for key, one in self._held.items() if one.done() and one.exception() is None}
        over = sum(done.values()) - self.limit
        for key in [key for key in done if key not in set(keys)]:
            if over <= 0:
                break
            over -= done[key]
            del self._held[key]

    def get(self, key: tuple[int, int]) -> Any:
        return self._held[key].result()

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)
        self._held.clear()

    def _read(self, n: int, group: int) -> Any:
        one = self.plan.sets[n]
        url, number = storage.join(one.folder, one.files[one.file[group]]), int(one.number[group])
        columns = READ[one.form]
        if columns:      # position_ids follow from the lengths, and would take as much memory as the tokens: they are looked at once a set
            columns = [*columns, *(["sources"] if self.sources is not None else []), *([] if n in self._checked else ["position_ids"])]
        self._checked.add(n)
        self.reads += 1
        table = mixture_sets.read_group(url, number, columns, int(one.size[group]))
        return _packed(table, f"{url}: row group {number}", self.sources) if one.form == "packed" else table.combine_chunks()


def _packed(table: pa.Table, where: str, sources: Sequence[str] | None) -> Packed:
    """The arrays of a row group. Raises InputError where its columns do not fit each other."""
    lists = {name: _list(table[name], where, name) for name in table.column_names}
    (ids, ends), (trained, masks), (lengths, samples) = (
        (lists[name][0].to_numpy(), lists[name][1]) for name in ("input_ids", "loss_mask", "lengths")
    )
    total = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])[samples]
    for name, there in (("loss_mask", masks), ("lengths (summed)", total)):
        bad = np.flatnonzero(np.diff(there) != np.diff(ends))
        if len(bad):
            raise InputError(f"{where}: row {bad[0]} has {np.diff(ends)[bad[0]]} input_ids and {np.diff(there)[bad[0]]} in {name}, which "
                             "must be as many; make the file anew")
    if "position_ids" in lists:
        starts = np.cumsum(lengths) - lengths
        if not np.array_equal(lists["position_ids"][0], np.arange(len(ids)) - np.repeat(starts, lengths)):
            raise InputError(f"{where}: its position_ids do not start at 0 with each sample and count on; make the file anew")
    codes = None
    if sources is not None:
        names, there = lists["sources"]
        bad = np.flatnonzero(np.diff(there) != np.diff(samples))
        if len(bad):
            raise InputError(f"{where}: row {bad[0]} has {np.diff(there)[bad[0]]} sources and {np.diff(samples)[bad[0]]} lengths of "
                             "samples; make the file anew")
        codes = pc.index_in(names, pa.array(sources, pa.string())).fill_null(len(sources)).to_numpy().astype(np.int8)
    size = sum(each.nbytes for each in (ids, trained, ends, lengths, samples))
    return Packed(ids, trained, ends, lengths, samples, codes, size)


def _list(column: pa.ChunkedArray, where: str, name: str) -> tuple[pa.Array, np.ndarray]:
    """(values, int64[rows + 1] where each row's begin) of a list column."""
    whole = column.combine_chunks()
    whole = whole.chunk(0) if isinstance(whole, pa.ChunkedArray) else whole
    values = whole.flatten()
    if whole.null_count or values.null_count:
        raise InputError(f"{where}: {name} has a null; make the file anew")
    offsets = whole.offsets.to_numpy().astype(np.int64)
    return values, offsets - offsets[0]


class Batches(torch.utils.data.IterableDataset):
    """A rank's micro-batches, from `step` to the plan's end; a resume goes on with the same bytes, and reads nothing before its step.

    Of form `packed`: input_ids, labels and position_ids, int64[micro, tokens], padded to the longest row, or to `length`; `source`; and
    `tokens`, how many are no padding.
    labels are IGNORED where nothing is trained, in the padding, and at the first token of each sample, which nothing comes before. There
    is no attention_mask: position_ids start at 0 with each sample, and once more with the padding, so that these do not see each other.
    `source` is int64[micro], the number of the row's set in `names`; with `sources` given it is int8[micro, tokens], the number of the
    sample's own source in them, their number for any other, and -1 in the padding. Of the other forms a micro-batch is a list of rows as
    TRL's collators take them, {column: value}, with `set`, the name of the row's set, and `extra`: whether the row only stands in, which of
    form `packed` has no label (mixture_plan.Once).

    `cache` is how many bytes of row groups are kept; a rank alone needs the plan's window. Reading happens in a thread, AHEAD steps ahead.
    """

    def __init__(
        self, plan: mixture_plan.Plan | mixture_plan.Once, rank: int, *, pad: int = 0, length: int | None = None,
        sources: Sequence[str] | None = None, cache: int = 2**30,
    ):
        if not 0 <= rank < plan.world:
            raise RecipeError(f"rank {rank}: the plan is for {plan.world} ranks")
        if sources is not None and len(sources) > 126:
            raise RecipeError(f"{len(sources)} sources: the loss is shown for at most 126; name those that matter")
        self.plan, self.rank, self.pad, self.length, self.sources, self.cache = plan, rank, pad, length, sources, cache
        self.names = [*sources, "other"] if sources is not None else [one.name for one in plan.sets]
        self.step = 0            # steps whose micro-batches have all been handed out
        self.reads = 0           # row groups read

    def __len__(self) -> int:
        """Micro-batches of the whole run."""
        return self.plan.steps * (self.plan.batch // (self.plan.world * self.plan.micro))

    def state_dict(self, step: int | None = None) -> dict[str, Any]:
        """The state before a step, of all ranks, as JSON; the step after what was handed out, unless the trainer says which."""
        return self._training().state(self.step if step is None else step)

    def load_state_dict(self, state: Mapping[str, Any], *, allow_other_data: bool = False, allow_world_size: bool = False) -> None:
        """Go on from a state. Raises InputError where the batches would not be those of the run (mixture_plan.Plan.resumed)."""
        self.step = self._training().resumed(state, allow_other_data=allow_other_data, allow_world_size=allow_world_size)

    def _training(self) -> mixture_plan.Plan:
        if isinstance(self.plan, mixture_plan.Once):
            raise TypeError("validation has no state: it is read from its beginning each time")
        return self.plan

    def __iter__(self) -> Iterator[Any]:
        """Micro-batches from `step` on. Raises InputError where a file is broken or has changed."""
        worker = torch.utils.data.get_worker_info()
        if worker is not None and worker.num_workers > 1:
            raise RecipeError("a DataLoader over Batches has num_workers 0 or 1: it reads ahead in a thread; more would repeat each row")
        self.step = 0 if isinstance(self.plan, mixture_plan.Once) else self.step
        groups, ahead = Groups(self.plan, self.cache, self.sources), OrderedDict[int, mixture_plan.Draws]()
        make = self._tensors if self.plan.sets[0].form == "packed" else self._rows
        try:
            while self.step < self.plan.steps:
                step = self.step
                for coming in range(step, min(step + AHEAD + 1, self.plan.steps)):
                    if coming not in ahead:
                        ahead[coming] = self._mine(coming)
                groups.want([key for near in ahead.values() for key in zip(near.set.tolist(), near.group.tolist(), strict=True)])
                places = list(zip(*(column.tolist() for column in ahead.pop(step)[1:]), strict=True))
                for at in range(0, len(places), self.plan.micro):
                    made = make(groups, places[at : at + self.plan.micro])
                    self.reads, self.step = groups.reads, step + (at + self.plan.micro >= len(places))
                    yield made
        finally:
            groups.close()

    def _mine(self, step: int) -> mixture_plan.Draws:
        draws = self.plan.draws(step)
        return mixture_plan.Draws(*(column[draws.rank == self.rank] for column in draws))

    def _tensors(self, groups: Groups, places: Sequence[Place]) -> dict[str, Any]:
        found = [(groups.get((n, group)), row) for n, _, _, group, row in places]
        sizes = [int(one.ends[row + 1] - one.ends[row]) for one, row in found]
        shape = len(found), self.length or max(sizes)
        if max(sizes) > shape[1]:
            at = self.plan.sets[places[int(np.argmax(sizes))][0]]
            raise InputError(f"{at.folder}: has a row of {max(sizes)} tokens, and the run's length is {shape[1]}; tokenise it to that")
        ids, labels, positions = (np.empty(shape, np.int64) for _ in range(3))
        tokens = np.full(shape if self.sources is not None else (0, 0), -1, np.int8)
        for k, (one, row) in enumerate(found):
            inside, samples = slice(one.ends[row], one.ends[row + 1]), slice(one.samples[row], one.samples[row + 1])
            counts = places[k][1] >= 0
            fill(one.ids[inside], one.trained[inside], one.lengths[samples], self.pad, counts, ids[k], labels[k], positions[k])
            if one.sources is not None:
                tokens[k, : sizes[k]] = np.repeat(one.sources[samples], one.lengths[samples])
        source = torch.tensor([place[0] for place in places]) if self.sources is None else torch.from_numpy(tokens)
        return {"input_ids": torch.from_numpy(ids), "labels": torch.from_numpy(labels),
                "position_ids": torch.from_numpy(positions), "source": source, "tokens": sum(sizes)}

    def _rows(self, groups: Groups, places: Sequence[Place]) -> list[dict[str, Any]]:
        rows = ((place, groups.get((place[0], place[3])).slice(place[4], 1).to_pylist()[0]) for place in places)
        return [row | {"set": self.plan.sets[n].name, "extra": draw < 0} for (n, draw, *_), row in rows]
