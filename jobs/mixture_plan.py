"""Which rows of which tokenised sets stand in a global batch, and which rank reads them: a pure function of the plan and the step.

    wanted = [Wanted(read_set("out/zh/tokenise"), ratio=0.9), Wanted(read_set("out/general/tokenise"), ratio=0.1)]
    plan = make(wanted, batch=64, world=8, micro=2, seed=1, epochs=2)
    plan.rows_of(17)            # [(set, file, row_group, row, rank), …], 64 of them

mixture_shares has what ratios, rates, temperatures and an epoch are. Sets for replay have that share of every batch, and the others
the rest of it. A run ends with the batch in which its last epoch does, so that its last rows may be of the next one.

The global batches do not depend on the number of ranks; only who reads which of their rows does. Of each set every rank has the same
number of a batch's rows, or one more, and these by lanes (mixture_order), so that a row group is read by one rank or by two neighbours
where the batch has rows enough. No row is read by two ranks in a step, unless its set begins anew in this very batch.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from gristmill.jobs import mixture_order, mixture_shares, storage
from gristmill.jobs.mixture_sets import Set, read_group
from gristmill.jobs.mixture_shares import Wanted, amounts
from gristmill.udfs.errors import InputError, RecipeError

WINDOW = 512 * 2**20     # bytes of decoded row groups over which rows are shuffled, all sets together
LANES = 64               # row groups of a set that are open at a time, at most,
FEW = 8                  # and where a set has fewer rows than this in a batch
OFTEN = 10               # times that a set may come before a warning, as in `mix`


class Row(NamedTuple):
    """Where a row is: the set's name, the file, the row group and the row in it; and the rank that reads it."""

    set: str
    file: str
    row_group: int
    row: int
    rank: int


class Draws(NamedTuple):
    """Rows of a batch, int64[n] each: rank, number of the set, how many of its rows came before, epoch, row group of the set, its row."""

    rank: np.ndarray
    set: np.ndarray
    draw: np.ndarray
    epoch: np.ndarray
    group: np.ndarray
    row: np.ndarray


@dataclass(frozen=True, eq=False)
class Plan:
    """Made by `make`. `steps` is where the run ends, and decides nothing else: a run that is prolonged goes on in the same order."""

    sets: tuple[Set, ...]
    lanes: tuple[int, ...]
    schedule: mixture_shares.Schedule
    batch: int               # rows
    world: int
    micro: int
    seed: int
    steps: int
    epoch_rows: Fraction     # of a whole epoch, replay and all
    warnings: tuple[str, ...]

    @functools.cached_property
    def _orders(self) -> dict[tuple[int, int], mixture_order.Order]:
        return {}

    def _order(self, n: int, epoch: int) -> mixture_order.Order:
        if (n, epoch) not in self._orders:
            for old in [each for each in self._orders if each[0] == n and each[1] < epoch - 1]:
                del self._orders[old]
            self._orders[n, epoch] = mixture_order.order(self.sets[n].size, self.lanes[n], self._key(n, epoch))
        return self._orders[n, epoch]

    def _key(self, n: int, epoch: int) -> int:
        return mixture_order.key(self.seed, self.sets[n].name, epoch)

    def draws(self, step: int) -> Draws:
        """The rows of a global batch, by rank and in the order in which a rank has them. Costs the same for every step."""
        first, after = self.schedule.before(step), self.schedule.before(step + 1)
        found, dealt = list[Draws](), 0
        for n, one in enumerate(self.sets):
            draw = np.arange(first[n], after[n])
            epoch, at = np.divmod(draw, one.rows)
            lane, group, row = (np.empty_like(draw) for _ in range(3))
            for each in np.unique(epoch).tolist():
                mine = epoch == each
                lane[mine], group[mine], row[mine] = self._order(n, each).places(at[mine])
            ranks = np.arange(self.world)
            counts = len(draw) // self.world + ((ranks - dealt) % self.world < len(draw) % self.world)
            dealt += len(draw) % self.world
            rank = np.empty_like(draw)
            rank[np.argsort(lane, kind="stable")] = np.repeat(ranks, counts)
            found.append(Draws(rank, np.full_like(draw, n), draw, epoch, group, row))
        joined = Draws(*(np.concatenate(columns) for columns in zip(*found, strict=True)))
        slots = mixture_order.mixed(mixture_order.key(self.seed, "batch", step), np.arange(self.batch))
        by = np.lexsort((slots, joined.rank))
        return Draws(*(column[by] for column in joined))

    def rows_of(self, step: int, rank: int | None = None) -> list[Row]:
        """Where the rows of a global batch are, or those of one rank."""
        found = self.draws(step)
        return [self._row(found, k) for k in range(self.batch) if rank is None or found.rank[k] == rank]

    def _row(self, found: Draws, k: int) -> Row:
        one, group = self.sets[found.set[k]], found.group[k]
        return Row(one.name, one.files[one.file[group]], int(one.number[group]), int(found.row[k]), int(found.rank[k]))

    def ids_of(self, step: int) -> list[tuple[Row, list[str]]]:
        """The rows of a global batch with the ids of the samples in them; reads these from the files. Raises InputError."""
        rows, named = self.rows_of(step), dict[tuple[str, str, int], list[Any]]()
        folders = {one.name: one for one in self.sets}
        for each in sorted({row[:3] for row in rows}):
            one = folders[each[0]]
            column = "ids" if one.form == "packed" else "id"
            named[each] = read_group(storage.join(one.folder, each[1]), each[2], [column])[column].to_pylist()
        found = [(row, named[row[:3]][row.row]) for row in rows]
        return [(row, ids if isinstance(ids, list) else [ids]) for row, ids in found]

    def epoch(self, step: int) -> float:
        """How many epochs the batches before this one are."""
        return float(step * self.batch / self.epoch_rows)

    def state(self, step: int) -> dict[str, Any]:
        """What a checkpoint before this step holds, as JSON: the data, and of each rank the next row of each set (None: none in this step).

        `rng` is the key of the set's order in this epoch and the counter, how many of its rows came before.
        """
        found = self.draws(step)
        ranks: list[dict[str, Any]] = [dict.fromkeys(one.name for one in self.sets) for _ in range(self.world)]
        for k in np.argsort(found.draw, kind="stable")[::-1].tolist():
            at, n, epoch = self._row(found, k), int(found.set[k]), int(found.epoch[k])
            ranks[at.rank][at.set] = {"epoch": epoch, "file": at.file, "row_group": at.row_group, "row": at.row,
                                      "rng": [f"{self._key(n, epoch):016x}", int(found.draw[k])]}
        return {"step": step, "world": self.world, "batch": self.batch, "seed": self.seed, "data": self.data, "ranks": ranks}

    @property
    def data(self) -> list[dict[str, Any]]:
        """What the sets are, as JSON: another digest, layout, share or number of lanes means other batches."""
        return [{"set": one.name, "folder": one.folder, "digest": one.digest, "layout": one.layout, "lanes": lanes, "share": str(share)}
                for one, lanes, share in zip(self.sets, self.lanes, self.schedule.shares, strict=True)]

    def resumed(self, state: Mapping[str, Any], *, allow_other_data: bool = False, allow_world_size: bool = False) -> int:
        """The step at which a run goes on from a checkpoint's state. Raises InputError where what follows would not be the same.

        With `allow_other_data` it goes on at that step of this plan, which has other rows before it than the run had. With
        `allow_world_size` the global batches are the same, and only their rows go to other ranks.
        """
        then, now = ({one["set"]: one for one in said} for said in (state["data"], self.data))
        other = [f"set {name} is {_said(then.get(name))} in the checkpoint and {_said(now.get(name))} now"
                 for name in [*then, *(name for name in now if name not in then)] if _said(then.get(name)) != _said(now.get(name))]
        other += [f"{what} is {state[what]} in the checkpoint and {mine} now" for what, mine in (("batch", self.batch), ("seed", self.seed))
                  if state[what] != mine]
        if other and not allow_other_data:
            raise InputError(f"resume: the batches would not be those of the run: {'; '.join(other)}. Give back what the run had, or say "
                             "that other data is meant, `train: {resume: {allow: [data]}}`")
        if state["world"] != self.world and not allow_world_size:
            raise InputError(f"resume: the checkpoint is of {state['world']} ranks and this run has {self.world}; start {state['world']} "
                             "processes, or say that another number is meant, `train: {resume: {allow: [world]}}`: the global batches "
                             "stay the same")
        step = int(state["step"])
        if not other and state["world"] == self.world and state["ranks"] != self.state(step)["ranks"]:
            raise InputError("resume: the checkpoint's rows are not those of this step: a version of gristmill wrote it that orders rows "
                             "otherwise; go on with that version, or say that other data is meant, `train: {resume: {allow: [data]}}`")
        return step

    def described(self) -> list[dict[str, Any]]:
        """A row a set: its name, rows, tokens, share of every batch, rows of it in one, and how often it comes in the run."""
        used = self.schedule.before(self.steps)
        return [{"set": one.name, "rows": one.rows, "tokens": one.tokens, "share": float(share), "rows_a_batch": float(share * self.batch),
                 "times": float(used[n] / one.rows)} for n, (one, share) in enumerate(zip(self.sets, self.schedule.shares, strict=True))]


@dataclass(frozen=True, eq=False)
class Once:
    """Every row of held-out sets once, in their order, a part of them to each rank: what validation reads, in a Plan's place.

    All ranks have as many micro-batches; where rows are too few for that the last row stands in, with -1 for its `draw`.
    """

    sets: tuple[Set, ...]
    world: int
    micro: int

    @property
    def batch(self) -> int:
        return self.world * self.micro

    @property
    def steps(self) -> int:
        return -(-sum(one.rows for one in self.sets) // self.batch)

    def draws(self, step: int) -> Draws:
        """The rows of a step, by rank."""
        ends = np.cumsum([one.rows for one in self.sets])
        rank = np.repeat(np.arange(self.world), self.micro)
        draw = (rank * self.steps + step) * self.micro + np.arange(self.batch) % self.micro
        at = np.minimum(draw, ends[-1] - 1)
        n = np.searchsorted(ends, at, side="right")
        group, row = np.empty_like(at), np.empty_like(at)
        for each in np.unique(n).tolist():
            mine, sizes = n == each, self.sets[each].size
            inside = at[mine] - ends[each] + self.sets[each].rows
            group[mine] = np.searchsorted(np.cumsum(sizes), inside, side="right")
            row[mine] = inside - (np.cumsum(sizes) - sizes)[group[mine]]
        return Draws(rank, n, np.where(draw == at, draw, -1), np.zeros_like(at), group, row)


def make(
    wanted: Sequence[Wanted], *, batch: int, world: int = 1, micro: int = 1, seed: int = 0, epochs: float | None = None,
    steps: int | None = None, replay: float = 0.0, temperature: float | None = None, window: int = WINDOW,
) -> Plan:
    """The plan of a run over sets, `batch` rows a global batch on `world` ranks of `micro` rows at once. Raises RecipeError or InputError.

    `window` is what a rank alone holds of decoded row groups, in bytes; it decides how far rows are shuffled, so it belongs to the order.
    """
    _agree(wanted)
    _divides(batch, world, micro)
    if epochs is not None and steps is not None or epochs is not None and epochs <= 0 or steps is not None and steps <= 0:
        raise RecipeError("train: say epochs or steps, one of them and more than 0")
    if bool(replay) != any(one.replay for one in wanted) or not 0 <= replay < 1:
        raise RecipeError(f"train.replay: {replay:g}: a share of 0 to 1 of every batch, and with it replay_data, which it is taken from")
    main, past = ([one for one in wanted if one.replay is side] for side in (False, True))
    if not main:
        raise RecipeError("train.data: there is nothing but replay data; name the data to train on")
    found, rows = amounts(main, temperature)
    held = Fraction(str(replay))
    shares = [amount / rows * (1 - held) for amount in found]
    if past:
        again, of = amounts(past)
        shares += [amount / of * held for amount in again]
    if rows < world:
        raise RecipeError(f"train: an epoch has {float(rows):g} rows and there are {world} ranks, so that several would read the same row; "
                          f"use at most {max(1, int(rows))} processes, or more data")
    epoch_rows = rows / (1 - held)
    steps = steps or -int(-Fraction(str(epochs or 1)) * epoch_rows // batch)
    ordered = tuple(one.set for one in [*main, *past])
    lanes = tuple(_lanes(one, window // len(ordered), share * batch) for one, share in zip(ordered, shares, strict=True))
    planned = mixture_shares.schedule(shares, batch, steps)
    plan = Plan(ordered, lanes, planned, batch, world, micro, seed, steps, epoch_rows, ())
    return replace(plan, warnings=tuple(_warnings(plan)))


def _lanes(one: Set, window: int, rows: Fraction) -> int:
    """As many as the window holds; no more than a set has rows in a batch, so that the same ranks keep to the same lanes."""
    groups = len(one.size)
    return int(min(np.clip(window * groups // max(1, one.bytes), 2, LANES), max(-int(-rows // 1), FEW), groups))


def _agree(wanted: Sequence[Wanted]) -> None:
    if not wanted:
        raise RecipeError("train.data: names no set")
    first, names = wanted[0].set, [one.set.name for one in wanted]
    for one in (each.set for each in wanted):
        for what, mine, theirs in (("rows of the form", one.form, first.form), ("the tokenizer", one.tokenizer, first.tokenizer)):
            if mine != theirs:
                raise InputError(f"{one.folder}: has {what} {mine}, and {first.folder} {theirs}; tokenise both alike")
        if names.count(one.name) > 1:
            raise RecipeError(f"train.data: two sets are called '{one.name}' (one is {one.folder}): give one of them another name")


def _divides(batch: int, world: int, micro: int) -> None:
    if min(batch, world, micro) < 1:
        raise RecipeError(f"train: batch {batch}, {world} processes, micro_batch {micro}: each is 1 or more")
    at_once = world * micro
    if batch % at_once:
        near = [n * at_once for n in (batch // at_once, batch // at_once + 1) if n]
        worlds = [n for n in range(1, batch // micro + 1) if batch % (n * micro) == 0]
        close = sorted(sorted(worlds, key=lambda n: (abs(n - world), n))[:4])
        ranks = f", or use {' or '.join(map(str, close))} processes" if close else ""
        raise RecipeError(f"train.batch: {batch} rows cannot be dealt to {world} processes of {micro} rows at once: write "
                          f"{' or '.join(map(str, near))}{ranks}")


def _warnings(plan: Plan) -> list[str]:
    found = []
    for one, said in zip(plan.sets, plan.described(), strict=True):
        if said["rows_a_batch"] > one.rows:
            found.append(f"{one.name} has {one.rows} rows, and every batch {said['rows_a_batch']:g} of it: rows stand twice in a batch")
        elif said["times"] > OFTEN:
            found.append(f"{one.name} comes {said['times']:.1f} times in this run: it will be learnt by heart; take less of it")
        if len(one.size) < plan.world:
            found.append(f"{one.name} has {len(one.size)} row groups for {plan.world} ranks: each is read by several of them")
    return found


def _said(one: Mapping[str, Any] | None) -> str:
    """A set in a state, for messages; not where it lies."""
    if one is None:
        return "not there"
    return f"{one['digest'][:16]} (files {one['layout'][:8]}, share {one['share']}, {one['lanes']} lanes)"
