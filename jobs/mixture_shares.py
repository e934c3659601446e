"""How many rows of each set stand in a batch: exact shares, and a schedule that holds them in every batch and in any number of them.

`ratio` s makes a set the share s of the data, `ratio` "1:n" n times as much as the own data, which are the sets without a ratio;
`rate` r takes r times a set, and with neither it comes once. With a temperature T the shares are as the sizes to the power 1/T. An epoch
has each own set as often as its rate says; where all have a ratio, the first set once; with a temperature, as many rows as the sets have.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from gristmill.jobs.mixture_sets import Set
from gristmill.udfs.errors import RecipeError
from gristmill.udfs.kernels import jit

STRIDE = 1024            # batches from one stored count to the next
DIGITS = 10**9           # what shares are rounded to where their own denominator is too large for 64 bits


@dataclass(frozen=True)
class Wanted:
    """A set and how much of it is wanted."""

    set: Set
    ratio: float | str | None = None
    rate: float | None = None
    replay: bool = False


def amounts(wanted: Sequence[Wanted], temperature: float | None = None) -> tuple[list[Fraction], Fraction]:
    """(rows of each set that an epoch has, as exact fractions; their sum). Raises RecipeError where the ratios do not fit."""
    sizes = [one.set.rows for one in wanted]
    ratios = [Fraction(str(one.ratio)) if isinstance(one.ratio, int | float) else one.ratio for one in wanted]
    if temperature is not None:
        if temperature <= 0 or any(one.ratio is not None or one.rate is not None for one in wanted):
            raise RecipeError("train.data: a temperature above 0 says the share of every set by its size, so no set has a ratio or a rate")
        powers = [float(size) ** (1 / temperature) for size in sizes]
        rounded = [Fraction(max(1, round(power / sum(powers) * 10**6)), 10**6) for power in powers]      # so that no last bit decides
        return [sum(sizes) * share / sum(rounded) for share in rounded], Fraction(sum(sizes))
    several = {n: _parts(ratio) for n, ratio in enumerate(ratios) if isinstance(ratio, str)}
    shares = {n: ratio for n, ratio in enumerate(ratios) if isinstance(ratio, Fraction)}
    if any(one.rate is not None and (one.ratio is not None or not 0.01 <= one.rate <= 10) for one in wanted):
        raise RecipeError("train.data: a rate is how often a set comes, 0.01 to 10, and a set with a rate has no ratio")
    own = {n: Fraction(str(one.rate or 1)) * sizes[n] for n, one in enumerate(wanted) if one.ratio is None}
    left = 1 - sum(shares.values(), Fraction(0))
    if several and not own:
        raise RecipeError("train.data: a ratio such as \"1:5\" says how much for how much of the own data: give those no ratio")
    if any(not 0 < share <= 1 for share in shares.values()) or own and left <= 0 or not own and abs(left) > Fraction(1, 10**6):
        needs = "less than 1, which is left for the sets without a ratio" if own else "1, since every set has one"
        raise RecipeError(f"train.data: the ratios sum to {float(1 - left):g}; each is above 0, and they must sum to {needs}")
    fixed = own | {n: parts * sum(own.values(), Fraction(0)) for n, parts in several.items()}
    whole = sum(fixed.values(), Fraction(0)) / left if own else sizes[0] / shares[0]
    found = fixed | {n: share * whole / (1 if own else 1 - left) for n, share in shares.items()}
    return [found[n] for n in range(len(sizes))], whole


def _parts(ratio: str) -> Fraction:
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*:\s*(\d+(?:\.\d+)?)\s*", ratio)
    if not match or not float(match[1]) * float(match[2]):
        raise RecipeError(f"train.data: ratio {ratio}: write a share between 0 and 1, or how much for how much of the own data, \"1:5\"")
    return Fraction(match[2]) / Fraction(match[1])


@jit
def advance(parts, wholes, seats, start, stop, counts):
    """Give batches `start` to `stop` the `seats` rows each that fractions parts / wholes leave; counts are what each set has had so far.

    This is Pfair scheduling (the PD2 of Anderson and Srinivasan): a set has at most one a batch, and after k batches the
    floor or the ceiling of k times its fraction. Row j is due before batch ceil(j / fraction); ties go to the row after which the next
    one may fall into the same batch, then to the one whose chain of such rows is longer.
    """
    taken = np.zeros(len(parts), np.bool_)
    for k in range(start, stop):
        taken[:] = False
        for _ in range(seats):
            best, best_due, best_loose, best_chain = -1, 0, True, 0
            for i in range(len(parts)):
                p, q, j = parts[i], wholes[i], counts[i]
                if p == 0 or taken[i] or j * q // p > k:
                    continue
                j += 1
                due = -(-j * q // p)
                loose = j * q % p == 0
                chain = 0
                if 2 * p >= q:
                    late = -(-due * (q - p) // q)
                    chain = -(-late * q // (q - p))
                if best < 0 or due < best_due or due == best_due and (
                    loose < best_loose or loose == best_loose and chain > best_chain
                ):
                    best, best_due, best_loose, best_chain = i, due, loose, chain
            taken[best] = True
        for i in range(len(parts)):
            counts[i] += taken[i]


@dataclass(frozen=True)
class Schedule:
    """How many rows of each set stand in a batch: the floor or the ceiling of its share of it, and so of any number of first batches."""

    shares: tuple[Fraction, ...]     # they sum to 1
    whole: np.ndarray                # int64[sets]: rows that each batch has
    parts: np.ndarray                # int64[sets], and
    wholes: np.ndarray               # int64[sets]: the fraction of a row beyond these
    stored: np.ndarray               # int64[n, sets]: what the fractions have come to every STRIDE batches

    def before(self, step: int) -> np.ndarray:
        """int64[sets]: rows of each set in all batches before this one."""
        at = min(step // STRIDE, len(self.stored) - 1)
        counts = self.stored[at].copy()
        advance(self.parts, self.wholes, self._seats, at * STRIDE, step, counts)
        return counts + self.whole * step

    @property
    def _seats(self) -> int:
        return int(sum(Fraction(int(p), int(q)) for p, q in zip(self.parts, self.wholes, strict=True)))


def schedule(shares: Sequence[Fraction], batch: int, steps: int) -> Schedule:
    """The schedule of exact shares. Shares of more digits than 64 bits hold in so many steps are rounded at the ninth."""
    if any(share.denominator * (steps + 2) >= 2**62 for share in shares):
        rounded = [Fraction(round(share * DIGITS), DIGITS) for share in shares]
        rounded[int(np.argmax([float(share) for share in shares]))] += 1 - sum(rounded)
        shares = rounded
    asked = [share * batch for share in shares]
    whole = [int(rows) for rows in asked]
    left = [rows - n for rows, n in zip(asked, whole, strict=True)]
    parts, wholes = (np.array([getattr(one, name) for one in left], np.int64) for name in ("numerator", "denominator"))
    made = Schedule(tuple(shares), np.array(whole, np.int64), parts, wholes, np.zeros((steps // STRIDE + 1, len(left)), np.int64))
    for n in range(1, len(made.stored)):
        made.stored[n] = made.stored[n - 1]
        advance(parts, wholes, made._seats, (n - 1) * STRIDE, n * STRIDE, made.stored[n])
    return made
