#!/usr/bin/env python3
"""Recomputes the tables of a results directory from the rows that others can check, and compares.

    python3 oracle.py DIRECTORY     compares; exit status 0 if all agrees, 1 if anything differs, 2 on wrong usage
    python3 oracle.py --self-test   tests of this script itself

| recomputed                                            | from                                            |
|-------------------------------------------------------|-------------------------------------------------|
| figures and sampling intervals of curve.csv, final.csv| samples.csv, and `measure.seed` in manifest.toml|
| figures of a row that follow from others of that row  | the row                                         |
| reference_loss, reference, excess_percent             | curve.csv and final.csv of all runs             |
| dip.csv                                               | curve.csv                                       |
| summary.csv                                           | final.csv, curve.csv, dip.csv, samples.csv      |

Written from the definitions (docs/columns.md, docs/intervals.md), not from the program. What no definition decides
(names of random streams, number of resamples, which order statistic is a quantile) is a constant below. Sums run in
the order of rows and groups, one number after the other in f64, so that even differences of nearly equal numbers agree.

Python 3.11 or later, the standard library and numpy.
"""

import csv
import hashlib
import json
import math
import sys
import tomllib
from functools import lru_cache
from pathlib import Path

import numpy as np

# ---------------------------------------------------------------------------------------------------------------------
# Conventions

LEVEL = 0.95
RESAMPLES = 1999
FEWEST_GROUPS = 5
THRESHOLDS = [10.0, 5.0, 3.0, 1.0, 0.3, 0.1]
CROSSINGS = ["first", "learnt", "settled", "confident"]
# Skill that is no more than rounding: "above 0" means above this.
ROUNDING_OF_SKILL = 1e-9
# Where nothing can be learnt, evaluations count whose loss is at most this many times that of the baseline.
NEAR_BASELINE = 1.1
# The smallest normal f64: what a floor of 0 stands for, so that 0 and less are censored.
SMALLEST = sys.float_info.min

# Agreement: relative, and absolute where one of the two is 0.
RELATIVE = 1e-9
ABSOLUTE = 1e-12


# ---------------------------------------------------------------------------------------------------------------------
# Random streams: ChaCha8, keyed by SHA-256(seed as u64, little-endian; name), block counter from 0, nonce 0

def chacha(state, rounds):
    """The ChaCha block function of `state [16, blocks]` (u32): rounds of quarter-rounds, plus the state."""
    x = [row.copy() for row in state]

    def rotate(v, by):
        return (v << np.uint32(by)) | (v >> np.uint32(32 - by))

    def quarter(a, b, c, d):
        for first, second, third, by in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
            x[first] = x[first] + x[second]
            x[third] = rotate(x[third] ^ x[first], by)

    for _ in range(rounds // 2):
        for column in range(4):
            quarter(column, 4 + column, 8 + column, 12 + column)
        for d in range(4):
            quarter(d, 4 + (d + 1) % 4, 8 + (d + 2) % 4, 12 + (d + 3) % 4)
    return np.array(x) + state


def chacha_state(key, counters, nonce=(0, 0)):
    """`[16, blocks]`: constants, key (32 bytes), a 64-bit block counter, two words of nonce."""
    state = np.zeros((16, len(counters)), np.uint32)
    state[0:4] = np.frombuffer(b"expand 32-byte k", "<u4")[:, None]
    state[4:12] = np.frombuffer(key, "<u4")[:, None]
    state[12] = counters & np.uint64(0xFFFFFFFF)
    state[13] = counters >> np.uint64(32)
    state[14:16] = np.array(nonce, np.uint32)[:, None]
    return state


def stream_key(seed, name):
    """The key of a named stream of a seed."""
    return hashlib.sha256(seed.to_bytes(8, "little") + name.encode()).digest()


def draws(key, count, rounds=8):
    """The first `count` u64 of a stream; of each the low word comes first."""
    blocks = np.arange(-(-count // 8), dtype=np.uint64)
    words = chacha(chacha_state(key, blocks), rounds).T.reshape(-1).astype("<u4")
    return words.view("<u8")[:count]


def draws_below(key, n, count):
    """`count` uniform draws from 0..n: remainders, those draws left out that would favour small ones."""
    zone = 2**64 - 1 - (2**64 - 1) % n
    asked = count + 8
    while True:
        drawn = draws(key, asked)
        kept = drawn[drawn < np.uint64(zone)]
        if len(kept) >= count:
            return (kept[:count] % np.uint64(n)).astype(np.intp)
        asked *= 2


# ---------------------------------------------------------------------------------------------------------------------
# One run: intervals from groups of samples

def added(values):
    """The sum, one after the other."""
    total = 0.0
    for value in values:
        total += value
    return total


def sums_by_group(numerators, denominators, groups):
    """`[groups]` twice: both added over the samples of each group, groups in the order of their numbers."""
    order, index = np.unique(np.asarray(groups, np.uint64), return_inverse=True)
    a, b = np.zeros(len(order)), np.zeros(len(order))
    np.add.at(a, index, numerators)
    np.add.at(b, index, denominators)
    return a, b


def ratio_and_error(a, b):
    """r = Σa / Σb along the first axis, and its standard error by linearisation, √(n/(n−1) Σ(a − r b)²) / Σb."""
    n = len(a)
    over, under = added(a), added(b)
    with np.errstate(all="ignore"):
        ratio = over / under
        squares = added((x - ratio * y) * (x - ratio * y) for x, y in zip(a, b))
        return ratio, np.sqrt(n / (n - 1.0) * squares) / under, (under > 0.0) & np.isfinite(ratio)


@lru_cache(maxsize=64)
def resamples(seed, name, n):
    """`[n, RESAMPLES]`: which groups each resample holds. One resample is drawn after the other."""
    return draws_below(stream_key(seed, name), n, RESAMPLES * n).reshape(RESAMPLES, n).T.copy()


def studentised_interval(a, b, seed, name, non_negative):
    """95% interval of r = Σa/Σb by the studentised bootstrap: [r − q₀.₉₇₅ s, r − q₀.₀₂₅ s] with the quantiles of
    (r* − r)/s*, the ⌊q (m + 1)⌋-th smallest of m pivots. Resamples without a ratio or a spread are left out.
    None for fewer than five groups; a point where all agree; from 0 up where the quantity is."""
    n = len(a)
    if n < FEWEST_GROUPS:
        return None
    ratio, error, valid = ratio_and_error(np.asarray(a, float), np.asarray(b, float))
    if not valid:
        return None
    if error == 0.0:
        return float(ratio), float(ratio)
    index = resamples(seed, name, n)
    ratios, errors, valid = ratio_and_error(np.asarray(a, float)[index], np.asarray(b, float)[index])
    usable = valid & (errors > 0.0)
    pivots = np.sort((ratios[usable] - ratio) / errors[usable])
    m = len(pivots)
    if m == 0:
        return None
    tail = 0.5 * (1.0 - LEVEL)
    low, high = (pivots[min(max(int(q * (m + 1)), 1), m) - 1] for q in (tail, 1.0 - tail))
    lower = float(ratio - high * error)
    return max(lower, 0.0) if non_negative else lower, float(ratio - low * error)


def ending_at(interval, most):
    """The interval of a share: its upper end is at most `most` (but never below its lower end)."""
    return interval and (interval[0], min(interval[1], max(most, interval[0])))


def influences(a, b):
    """ψ_g = a_g/Σa − b_g/Σb, what ln(Σa/Σb) owes to each group. None where there is no logarithm."""
    over, under = added(a), added(b)
    if not (over > 0.0 and under > 0.0 and math.isfinite(over / under)):
        return None
    return np.asarray(a) / over - np.asarray(b) / under


def variance_of_influences(psi):
    """G/(G−1) Σ ψ_g²; None for fewer than two groups or no influences."""
    if psi is None or len(psi) < 2:
        return None
    return len(psi) / (len(psi) - 1.0) * added(psi * psi)


# ---------------------------------------------------------------------------------------------------------------------
# Student's t

def incomplete_beta(a, b, x):
    """I_x(a, b), regularised, by its continued fraction (Lentz), from the side on which that converges fast."""
    if x <= 0.0 or x >= 1.0:
        return 0.0 if x <= 0.0 else 1.0
    if x > (a + 1.0) / (a + b + 2.0):
        return 1.0 - incomplete_beta(b, a, 1.0 - x)
    front = math.exp(
        math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    )
    tiny = 1e-300
    c, d = 1.0, 1.0 / (1.0 - (a + b) * x / (a + 1.0) or tiny)
    fraction = d
    for m in range(1, 10_000):
        for factor in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1.0 / (1.0 + factor * d or tiny)
            c = 1.0 + factor / c or tiny
            fraction *= c * d
        if abs(c * d - 1.0) < 1e-16:
            break
    return front * fraction / a


def t_upper_tail(t, df):
    """P(T > t) for t ≥ 0: half of I_{df/(df+t²)}(df/2, 1/2)."""
    square = t * t
    if square > df:
        return 0.5 * incomplete_beta(0.5 * df, 0.5, df / (df + square))
    return 0.5 * (1.0 - incomplete_beta(0.5, 0.5 * df, square / (df + square)))


def t_quantile(p, df):
    """The value below which a share p ≥ 1/2 of Student's t lies: bisection until the ends are neighbours."""
    low, high = 0.0, 1.0
    while t_upper_tail(high, df) > 1.0 - p:
        high *= 2.0
    for _ in range(200):
        middle = 0.5 * (low + high)
        if not low < middle < high:
            break
        low, high = (middle, high) if t_upper_tail(middle, df) > 1.0 - p else (low, middle)
    return 0.5 * (low + high)


def satterthwaite(parts):
    """Degrees of freedom of a sum of variances [(v, df)]: (Σv)² / Σ(v²/df); the fewest where nothing varies."""
    total = sum(v for v, _ in parts)
    if total == 0.0:
        return min(df for _, df in parts)
    return 1.0 / sum((v / total) ** 2 / df for v, df in parts)


# ---------------------------------------------------------------------------------------------------------------------
# Several seeds

def mean_interval(values, sampling):
    """m ± t_df √(s²/S + se²) of the mean m over S seeds, and df; `sampling` is (se², groups) or None."""
    seeds = len(values)
    if seeds < 2:
        return None
    mean = added(values) / seeds
    parts = [(added((v - mean) ** 2 for v in values) / (seeds - 1) / seeds, seeds - 1.0)]
    if sampling is not None:
        parts.append((sampling[0], max(sampling[1], 2) - 1.0))
    df = satterthwaite(parts)
    reach = t_quantile(0.5 * (1.0 + LEVEL), df) * math.sqrt(sum(v for v, _ in parts))
    return mean - reach, mean + reach, df


def log_interval(values, sampling):
    """The interval of the mean logarithm, as numbers again: exp of its ends, and df."""
    found = mean_interval([math.log(v) for v in values], sampling)
    return found and (math.exp(found[0]), math.exp(found[1]), found[2])


def standard_deviation(values):
    """√(Σ(x − mean)²/(n − 1)); None for one value."""
    n = len(values)
    mean = added(values) / n
    return math.sqrt(added((v - mean) ** 2 for v in values) / (n - 1)) if n > 1 else None


def censored_median(values, floors):
    """The median where a value at or below its floor may be anything up to it: (number, whether only a bound)."""
    ends = [(v, v) if v > f else (-math.inf, f) for v, f in zip(values, floors)]

    def middle(numbers):
        ordered = sorted(numbers)
        return 0.5 * (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2])

    least, most = middle(e[0] for e in ends), middle(e[1] for e in ends)
    return most, least != most


def order_coverage(seeds, k):
    """1 − 2 P(Bin(S, ½) < k): how often the k-th smallest to the k-th largest of S contain the median."""
    return 1.0 - 2.0 * sum(math.comb(seeds, i) for i in range(k)) / 2.0**seeds


def crossing_times(times):
    """Median and interval of the median of times, None for a seed that did not cross (later than all others):
    (median, lower, upper, coverage). The interval is of order statistics, the narrowest that reaches 95%, else the
    range; none for one seed or where none crossed."""
    seeds = len(times)
    ordered = sorted(math.inf if t is None else t for t in times)

    def known(time):
        return time if math.isfinite(time) else None

    median = known(0.5 * (ordered[(seeds - 1) // 2] + ordered[seeds // 2]))
    if seeds < 2 or not any(t is not None for t in times):
        return median, None, None, None
    k = 1
    while k + 1 <= seeds // 2 and order_coverage(seeds, k + 1) >= LEVEL:
        k += 1
    return median, known(ordered[k - 1]), known(ordered[seeds - k]), order_coverage(seeds, k)


# ---------------------------------------------------------------------------------------------------------------------
# Cells and tables

def number(text):
    """The number in a cell; None where it is empty."""
    return float(text) if text else None


def finite(numerator, denominator):
    """A quotient; None where there is none."""
    if denominator == 0.0:
        return None
    quotient = numerator / denominator
    return quotient if math.isfinite(quotient) else None


class Table:
    """A CSV file: column names, and rows as dictionaries of texts."""

    def __init__(self, path):
        with open(path, newline="", encoding="utf-8") as file:
            reader = csv.reader(file)
            self.columns = next(reader)
            self.rows = [dict(zip(self.columns, cells)) for cells in reader]

    def of_runs(self):
        """Rows that runs wrote while they trained, without those of `equivbench measure`."""
        return [row for row in self.rows if not row.get("measurement")]


class Comparison:
    """Counts cells that agree, and says which do not."""

    def __init__(self):
        self.agreed = {}
        self.columns = {}
        self.differences = []
        self.unchecked = {}

    def cell(self, table, row_name, column, there, expected):
        """Compares the text of a cell with what it should hold: None for empty, a text, a flag, or a number."""
        self.columns.setdefault(table, set()).add(column)
        if cell_agrees(there, expected):
            self.agreed[table] = self.agreed.get(table, 0) + 1
        else:
            self.differences.append(
                f"{table}, {row_name}: {column} is {there or 'empty'}, recomputed {cell_text(expected) or 'empty'}"
            )

    def cells(self, table, row_name, row, expected):
        """Compares those cells of a row that its table has."""
        for column, value in expected.items():
            if column in row:
                self.cell(table, row_name, column, row[column], value)

    def note(self, what):
        """Counts something that could not be checked."""
        self.unchecked[what] = self.unchecked.get(what, 0) + 1


def cell_text(value):
    """How a table writes a value, nearly: numbers may have more digits here."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def cell_agrees(there, expected):
    """Texts, flags and counts exactly; other numbers to 1e-9 relative, to 1e-12 absolute where one is 0."""
    if expected is None or isinstance(expected, (bool, str, int)):
        return there == cell_text(expected)
    try:
        there = float(there)
    except ValueError:
        return False
    if there == 0.0 or expected == 0.0:
        return abs(there - expected) <= ABSOLUTE
    return abs(there - expected) <= RELATIVE * max(abs(there), abs(expected))


def named(row, columns):
    """The keys of a row, for people."""
    return ", ".join(f"{c} {row[c]}" for c in columns if row.get(c))


# ---------------------------------------------------------------------------------------------------------------------
# Figures of one evaluation (curve.csv, final.csv)

def learnt(learnable, skill_lower):
    """Whether the lower end of the interval of skill is above 0 (by more than rounding); None where that is not known
    or there is nothing to learn."""
    return skill_lower > ROUNDING_OF_SKILL if learnable and skill_lower is not None else None


def figures_of_samples(terms, squared, seed):
    """All figures and intervals of an evaluation from the rows of its samples. `terms` holds an array `[samples]` for
    each column of samples.csv. Every figure is a ratio of sums over samples."""
    t = terms
    groups = t["group"]
    total, equiv, components = added(t["sum_total"]), added(t["sum_equiv"]), added(t["components"])
    powers = added(t["prediction_components"])
    spread, twirled_power = added(t["sum_spread"]) / powers, added(t["sum_twirled_power"]) / powers
    target_power = added(t["sum_target_power"]) / powers
    baseline = added(t["sum_baseline"]) / components
    loss, loss_equiv = total / components, equiv / components
    twirled = loss - loss_equiv
    own = twirled_power + spread
    per_sample = added(t["sum_total"] / t["components"])
    percent = 100.0 * loss_equiv / loss if loss else 0.0
    figures = {
        "loss_total": loss,
        "loss_twirled": twirled,
        "loss_equiv": loss_equiv,
        "equiv_percent": percent,
        "equiv_percent_per_sample": 100.0 * added(t["sum_equiv"] / t["components"]) / per_sample if per_sample else 0.0,
        "equiv_percent_plug_in": 100.0 * added(t["sum_equiv_plug_in"]) / total if total else 0.0,
        "loss_ratio": finite(loss_equiv, twirled),
        "target_power": target_power,
        "twirled_power": twirled_power,
        "relative_equiv_percent": 100.0 * min(spread / own, 1.0) if own > 0.0 else 0.0,
        "power_below_zero": bool(twirled_power < 0.0),
        "baseline_loss": baseline,
        "skill": 1.0 - twirled / baseline if squared and baseline > 0.0 else None,
        "skill_over_zero": 1.0 - twirled / target_power if squared and target_power > 0.0 else None,
        "samples": len(groups),
        "groups": len(set(groups)),
    }
    figures.update(intervals_of_samples(t, squared, seed, percent))
    return figures


def intervals_of_samples(t, squared, seed, percent):
    """Sampling intervals by the bootstrap over groups, and standard errors of logarithms."""
    groups = t["group"]
    percents = sums_by_group(100.0 * t["sum_equiv"], t["sum_total"], groups)
    losses = sums_by_group(t["sum_total"], t["components"], groups)
    relatives = sums_by_group(t["sum_spread"], t["sum_twirled_power"] + t["sum_spread"], groups)
    skills = sums_by_group(t["sum_baseline"] - (t["sum_total"] - t["sum_equiv"]), t["sum_baseline"], groups)
    relative = ending_at(studentised_interval(*relatives, seed, "bootstrap/relative", True), 1.0)
    found = {
        "equiv_percent": ending_at(studentised_interval(*percents, seed, "bootstrap", True), max(percent, 100.0)),
        "loss_total": studentised_interval(*losses, seed, "bootstrap/loss", True),
        "skill": studentised_interval(*skills, seed, "bootstrap/skill", False) if squared else None,
        "relative_equiv_percent": relative and tuple(100.0 * end for end in relative),
    }
    figures = {}
    for name, interval in found.items():
        for end, value in zip(("lower", "upper"), interval or (None, None)):
            figures[f"{name}_sampling_{end}"] = value
    for name, sums in (("equiv_percent", percents), ("loss_total", losses)):
        variance = variance_of_influences(influences(*sums))
        figures[f"{name}_log_se"] = None if variance is None else math.sqrt(variance)
    return figures


def figures_of_row(row):
    """Figures that follow from others of the same row."""
    value = {c: number(row[c]) for c in row if c.startswith(("loss_", "equiv_", "twirled", "target_", "baseline", "floor"))}
    total, twirled, equiv = value["loss_total"], value["loss_twirled"], value["loss_equiv"]
    squared = row["measured_loss"] == "mse"
    flow_time = number(row.get("flow_time", ""))
    learnable = flow_time != 0.0
    baseline, target_power = value["baseline_loss"], value["target_power"]
    clean = (1.0 - flow_time) ** 2 if squared and flow_time is not None else None
    figures = {
        "loss_total": twirled + equiv,
        "equiv_percent": 100.0 * equiv / total if total else 0.0,
        "loss_ratio": finite(equiv, twirled),
        "power_below_zero": value["twirled_power"] < 0.0,
        "skill": 1.0 - twirled / baseline if squared and baseline > 0.0 else None,
        "skill_over_zero": 1.0 - twirled / target_power if squared and target_power > 0.0 else None,
        "learnable": learnable,
        "learnt": learnt(learnable, number(row["skill_sampling_lower"])),
        "at_floor": value["equiv_percent"] <= value["floor_percent"] if row["floor_percent"] else None,
    }
    for part, loss in (("total", total), ("twirled", twirled), ("equiv", equiv)):
        figures[f"x1_loss_{part}"] = None if clean is None else clean * loss
    own = value["twirled_power"] + equiv
    # Where the two cancel, the rounding of the row's digits decides; of other losses the spread is not in the row.
    if squared and own > 1e-4 * (abs(value["twirled_power"]) + abs(equiv)):
        figures["relative_equiv_percent"] = 100.0 * min(equiv / own, 1.0)
    return figures


# ---------------------------------------------------------------------------------------------------------------------
# Percent of reducible loss

def question_of(row, axes, seeds):
    """The same samples and the same question, whoever answers. Samples are drawn by `measure.seed`: the same where it
    is, and where there are as many."""
    drawn = seeds.get((row["run"], row.get("measurement", "")), 0)
    return drawn, *(row.get(c, "") for c in ["dataset", "set", "split", "samples", *axes, "measured_loss"])


def lowest_losses(tables, axes, seeds):
    """For each question the lowest loss_twirled of all runs, and whose it is."""
    lowest = {}
    for table in tables:
        for row in table.of_runs():
            loss, question = number(row["loss_twirled"]), question_of(row, axes, seeds)
            if loss is not None and (question not in lowest or loss < lowest[question][0]):
                lowest[question] = loss, row["run"]
    return lowest


def excess_of(row, lowest, axes, seeds):
    """100 L_equiv / (L − R*): R* is the baseline's loss where that is the best there is, else the lowest loss_twirled
    that another run reached; empty for the run that has it."""
    exact = row["learnable"] == "false"
    reference = number(row["baseline_loss"]) if exact else None
    if not exact:
        loss, run = lowest.get(question_of(row, axes, seeds), (None, None))
        reference = loss if run != row["run"] else None
    if reference is None:
        return {"reference_loss": None, "reference": None, "excess_percent": None}
    above = number(row["loss_total"]) - reference
    return {
        "reference_loss": reference,
        "reference": "exact" if exact else "lowest seen",
        "excess_percent": 100.0 * number(row["loss_equiv"]) / above if above > 0.0 else None,
    }


# ---------------------------------------------------------------------------------------------------------------------
# dip.csv

def gather(items, key):
    """Lists of things that share a key, in the order of first appearance."""
    groups = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups


def crossing_index(holds, kind):
    """Index of the first of two evaluations in a row of which it holds (for `settled`: of all later ones too)."""
    start = 0
    if kind == "settled":
        start = max((i for i, h in enumerate(holds) if not h), default=-1) + 1
    return next((i for i in range(start, len(holds) - 1) if holds[i] and holds[i + 1]), None)


def below(row, quantity, threshold, kind):
    """Whether an evaluation lies below a threshold, in one of the readings."""
    if kind == "confident":
        upper = number(row[f"{quantity}_sampling_upper"])
        return upper is not None and upper < threshold
    return number(row[quantity]) < threshold and (kind != "learnt" or row["learnt"] == "true")


def counts(row):
    """Whether an evaluation says something of symmetry: learnt, or about as good as a baseline that is the best."""
    if row["learnable"] == "true":
        return row["learnt"] == "true"
    baseline = number(row["baseline_loss"])
    return baseline > 0.0 and number(row["loss_total"]) / baseline <= NEAR_BASELINE


def whole_curve(rows, quantity):
    """Minimum and rise over the evaluations that count."""
    counted = [row for row in rows if counts(row)]
    minimum = min(counted, key=lambda row: number(row[quantity]), default=None)
    rise = None
    if minimum is not None and number(minimum[quantity]) > 0.0:
        rise = finite(number(counted[-1][quantity]), number(minimum[quantity]))
    return {
        "minimum_percent": minimum and number(minimum[quantity]),
        "minimum_step": minimum and int(minimum["step"]),
        "minimum_skill": minimum and number(minimum["skill"]),
        "rise_ratio": rise,
        "last_step": int(rows[-1]["step"]),
    }


def crossing_of(rows, quantity, threshold, kind):
    """One reading of one threshold."""
    at = crossing_index([below(row, quantity, threshold, kind) for row in rows], kind)
    here = rows[at] if at is not None else None
    before = rows[at - 1] if at else None

    def cell(row, column, read=number):
        return read(row[column]) if row is not None and row[column] else None

    if at is None:
        nothing = kind == "learnt" and rows[0]["learnable"] == "false"
        status = "nothing to learn" if nothing else "not reached"
    else:
        status = "from the start" if at == 0 else "reached"
    return {
        "quantity": quantity,
        "threshold_percent": threshold,
        "crossing": kind,
        "status": status,
        "reached": at is not None,
        "step_after": cell(before, "step", int),
        "step_reached": cell(here, "step", int),
        "epoch_after": cell(before, "epoch"),
        "epoch_reached": cell(here, "epoch"),
        "train_s_reached": cell(here, "train_s"),
        "gpu_h_reached": cell(here, "gpu_h"),
        "percent_reached": cell(here, quantity),
        "skill_reached": cell(here, "skill"),
        "skill_sampling_lower_reached": cell(here, "skill_sampling_lower"),
        "relative_equiv_percent_reached": cell(here, "relative_equiv_percent"),
        "largest_percent_after": None if at is None else max(number(row[quantity]) for row in rows[at + 1:]),
    }


def dip_rows(curve, axes):
    """The rows of dip.csv from those of curve.csv: two quantities, six thresholds, four readings of each curve."""
    def key(row):
        return tuple(row[c] for c in ["run", "weights", *axes])

    rows = []
    by_run = gather(curve.of_runs(), lambda row: row["run"])
    for own in by_run.values():
        for evaluations in gather(own, key).values():
            evaluations = later_only(evaluations)
            first = evaluations[0]
            keys = [c for c in curve.columns[:curve.columns.index("step")] if c in first]
            shared = {c: first[c] for c in [*keys, "weights", *axes]}
            for quantity in ("equiv_percent", "relative_equiv_percent"):
                ends = whole_curve(evaluations, quantity)
                for threshold in THRESHOLDS:
                    for kind in CROSSINGS:
                        rows.append(shared | crossing_of(evaluations, quantity, threshold, kind) | ends)
    return rows


def later_only(rows):
    """Evaluations of which each comes after the one before."""
    kept = []
    for row in rows:
        if not kept or int(row["step"]) > int(kept[-1]["step"]):
            kept.append(row)
    return kept


# ---------------------------------------------------------------------------------------------------------------------
# summary.csv

PLACE = ["model", "size", "dataset", "train_samples", "settings", "weights", "set", "split"]
# Quantity: (numerator, denominator) of samples.csv, and the column with the standard error of its logarithm.
QUANTITIES = {
    "equiv_percent": (lambda t: t["sum_equiv"], lambda t: t["sum_total"], "equiv_percent_log_se"),
    "relative_equiv_percent": (
        lambda t: t["sum_spread"],
        lambda t: t["sum_twirled_power"] + t["sum_spread"],
        None,
    ),
    "loss_total": (lambda t: t["sum_total"], lambda t: t["components"], "loss_total_log_se"),
    "loss_twirled": (lambda t: t["sum_total"] - t["sum_equiv"], lambda t: t["components"], None),
}


def place_of(row, axes):
    """An architecture with data and settings, seen in one way: everything but the seed."""
    measured = {"set": "measured"}
    return tuple(row.get(c, measured.get(c, "")) for c in [*PLACE, *axes])


def sampling_of_samples(rows, terms, influences_of):
    """What the choice of groups adds to the variance of a mean over seeds, all measured on the same groups: the variance of the
    mean over seeds of the influences that the sums of a seed have, by group. (se², groups), or None."""
    mean, known = 0.0, None
    for row in rows:
        own = terms.get(evaluation_of(row))
        if own is None:
            return None
        names = sorted(set(own["group"]))
        psi = influences_of(own)
        if psi is None or (known is not None and names != known):
            return None
        known, mean = names, mean + psi / len(rows)
    variance = variance_of_influences(mean)
    return None if variance is None else (variance, len(known))


def influences_on_logarithm(quantity):
    """On ln of a quantity, for one seed."""
    over, under, _ = QUANTITIES[quantity]
    return lambda own: influences(*sums_by_group(over(own), under(own), own["group"]))


def influences_on_skill(own):
    """(a_g − r b_g)/Σb on r = L_mean / L_b, for one seed; None where there is no ratio."""
    a, b = sums_by_group(own["sum_total"] - own["sum_equiv"], own["sum_baseline"], own["group"])
    under = added(b)
    if not (under > 0.0 and math.isfinite(added(a) / under)):
        return None
    return (a - added(a) / under * b) / under


def sampling_of_rows(rows, quantity):
    """The mean over seeds of the squared standard errors in their rows: (se², groups), or None."""
    column = QUANTITIES[quantity][2]
    errors = [number(row.get(column, "")) for row in rows] if column else [None]
    groups = [int(row["groups"]) for row in rows if row["groups"]]
    if None in errors or not groups:
        return None
    return added(e * e for e in errors) / len(errors), min(groups)


def floor_of(row, quantity):
    """What rounding alone gives; as a share of the prediction's power for the relative error."""
    floor = number(row["floor_percent"]) or 0.0
    if quantity == "equiv_percent":
        return floor
    own = (number(row["twirled_power"]) or 0.0) + (number(row["loss_equiv"]) or 0.0)
    relative = quantity == "relative_equiv_percent" and own > 0.0
    return floor * number(row["loss_total"]) / own if relative else 0.0


def spread_of_logarithms(rows, quantity, terms):
    """Geometric mean over seeds with its intervals; their median where a seed is at the floor."""
    values = [number(row[quantity]) for row in rows]
    if None in values:
        return {}
    floors = [max(floor_of(row, quantity), SMALLEST) for row in rows]
    spread = {
        "smallest": min(values),
        "largest": max(values),
        "at_floor": sum(v <= f for v, f in zip(values, floors)),
        "groups": min((int(row["groups"]) for row in rows if row["groups"]), default=None),
    }
    if spread["at_floor"]:
        centre, bound = censored_median(values, floors)
        return spread | {"centre": centre, "centre_is": "median below" if bound else "median"}
    logs = [math.log(v) for v in values]
    spread |= {"centre": math.exp(added(logs) / len(logs)), "centre_is": "geometric mean"}
    if len(values) < 2:
        return spread
    one_step = len({row["step"] for row in rows}) == 1
    common = sampling_of_samples(rows, terms, influences_on_logarithm(quantity)) if one_step else None
    sampling = common or sampling_of_rows(rows, quantity)
    lower, upper, df = log_interval(values, sampling)
    given_lower, given_upper, _ = log_interval(values, None)
    if quantity.endswith("percent"):
        most = max(100.0, spread["centre"])
        upper, given_upper = min(upper, most), min(given_upper, most)
    return spread | {
        "lower": lower,
        "upper": upper,
        "degrees_of_freedom": df,
        "given_set_lower": given_lower,
        "given_set_upper": given_upper,
        "seed_sd": standard_deviation(logs),
        "sampling_se": sampling and math.sqrt(sampling[0]),
        "sampling_from": "samples" if common else "rows" if sampling else "none",
    }


def spread_of_numbers(rows, quantity, terms):
    """Arithmetic mean over seeds, and mean ± t_df √(s²/S + se²), at most 1 (or the largest of the seeds, where that is more)."""
    values = [number(row[quantity]) for row in rows]
    if None in values:
        return {}
    seeds = len(values)
    mean = added(values) / seeds
    spread = {
        "centre": mean,
        "centre_is": "mean",
        "smallest": min(values),
        "largest": max(values),
        "at_floor": 0,
        "groups": min((int(row["groups"]) for row in rows if row["groups"]), default=None),
    }
    if seeds < 2:
        return spread
    most = max(1.0, *values)
    one_step = len({row["step"] for row in rows}) == 1
    sampling = sampling_of_samples(rows, terms, influences_on_skill) if one_step else None
    lower, upper, df = mean_interval(values, sampling)
    given_lower, given_upper, _ = mean_interval(values, None)
    upper, given_upper = min(upper, most), min(given_upper, most)
    return spread | {
        "lower": lower,
        "upper": upper,
        "degrees_of_freedom": df,
        "given_set_lower": given_lower,
        "given_set_upper": given_upper,
        "seed_sd": standard_deviation(values),
        "sampling_se": sampling and math.sqrt(sampling[0]),
        "sampling_from": "samples" if sampling else "none",
    }


def seeds_together(place, moment, rows, terms):
    """A row for each quantity, from one row of each seed."""
    steps = {row["step"] for row in rows}
    shared = place | {"moment": moment, "seeds": len(rows), "step": int(rows[0]["step"]) if len(steps) == 1 else None}
    found = [shared | {"quantity": q} | spread_of_logarithms(rows, q, terms) for q in QUANTITIES]
    return [*found, shared | {"quantity": "skill"} | spread_of_numbers(rows, "skill", terms)]


def along_the_curve(place, rows, terms):
    """At step 0, at powers of ten before the last step, and where each seed's loss was lowest."""
    found = []
    by_step = gather(rows, lambda row: int(row["step"]))
    last = max(by_step)
    for step, own in by_step.items():
        if step != last and step in [0, *(10**k for k in range(20))]:
            found += seeds_together(place, "step", own, terms)
    by_run = gather(rows, lambda row: row["run"]).values()
    lowest = [min(own, key=lambda row: number(row["loss_total"])) for own in by_run]
    return found + seeds_together(place, "lowest loss", lowest, terms)


def crossings_together(place, key, rows):
    """When the seeds crossed one threshold, in one reading."""
    quantity, threshold, kind = key
    median, lower, upper, coverage = crossing_times([number(row["step_reached"]) for row in rows])
    return place | {
        "moment": "crossing",
        "step": None,
        "quantity": quantity,
        "seeds": len(rows),
        "crossing": kind,
        "threshold_percent": float(threshold),
        "reached": sum(row["reached"] == "true" for row in rows),
        "from_the_start": sum(row["status"] == "from the start" for row in rows),
        "nothing_to_learn": any(row["status"] == "nothing to learn" for row in rows),
        "step_median": median,
        "step_lower": lower,
        "step_upper": upper,
        "step_coverage": coverage,
    }


def summary_rows(tables, terms, axes):
    """The rows of summary.csv."""
    names = [*PLACE, *axes]

    def places(table):
        for place, rows in gather(table.of_runs(), lambda row: place_of(row, axes)).items():
            yield dict(zip(names, place)), rows

    found = []
    for place, rows in places(tables["final"]) if "final" in tables else ():
        found += seeds_together(place, "last", rows, terms)
    for place, rows in places(tables["curve"]):
        found += along_the_curve(place, rows, terms)
    if "dip" in tables:
        columns = ["quantity", "threshold_percent", "crossing"]
        keyed = gather(
            tables["dip"].of_runs(),
            lambda row: (place_of(row, axes), tuple(row[c] for c in columns)),
        )
        found += [crossings_together(dict(zip(names, place)), key, rows) for (place, key), rows in keyed.items()]
    return found


# ---------------------------------------------------------------------------------------------------------------------
# A results directory

EVALUATION = ["run", "measurement", "step", "weights", "set", "split"]
TERMS = [
    "components",
    "sum_total",
    "sum_equiv",
    "sum_equiv_plug_in",
    "sum_baseline",
    "sum_target_power",
    "sum_twirled_power",
    "sum_spread",
    "prediction_components",
]
# Axes of conditions, where summary.csv does not say.
AXES = ["flow_time", "variant"]


def evaluation_of(row):
    """Which evaluation a row of curve.csv, final.csv or samples.csv is of."""
    return tuple(row.get(c, "") for c in [*EVALUATION, *AXES])


def terms_of(samples):
    """For each evaluation the terms of its samples: an array for each column, in the order of rows."""
    def arrays(rows):
        return {c: np.array([float(row[c]) for row in rows]) for c in TERMS} | {
            "group": [int(row["group"]) for row in rows]
        }

    return {key: arrays(rows) for key, rows in gather(samples.rows, evaluation_of).items()}


def seeds_of_measurements(folder):
    """`measure.seed` by run, and by run and name of a later measurement."""
    path = folder / "manifest.toml"
    if not path.is_file():
        return {}
    seeds = {}
    for run in tomllib.loads(path.read_text(encoding="utf-8")).get("runs", []):
        if not run["config"]:
            continue  # A run that failed before its settings were complete: it has no rows.
        own = json.loads(run["config"])["measure"]["seed"]
        seeds[run["run"], ""] = own
        for later in run.get("measurements", []):
            of = [int(s.split("=")[1]) for s in later.get("set", []) if s.split("=")[0].strip() == "measure.seed"]
            seeds[run["run"], later["measurement"]] = of[-1] if of else own
    return seeds


def check_losses(name, table, terms, seeds, lowest, axes, comparison):
    """curve.csv or final.csv: figures and intervals from samples, what follows from the row, excess over the best."""
    for row in table.rows:
        row_name = named(row, [*EVALUATION, *axes])
        expected = figures_of_row(row)
        own = terms.get(evaluation_of(row))
        seed = seeds.get((row["run"], row.get("measurement", "")))
        if own is None:
            comparison.note(f"{name}: intervals and sums of an evaluation that has no rows in samples.csv")
        else:
            if seed is None:
                comparison.note(f"{name}: manifest.toml does not tell measure.seed of a run; 0 is taken")
            expected |= figures_of_samples(own, row["measured_loss"] == "mse", seed or 0)
            expected["learnt"] = learnt(expected["learnable"], expected["skill_sampling_lower"])
        comparison.cells(name, row_name, row, expected | excess_of(row, lowest, axes, seeds))


def check_made(name, table, made, keys, comparison):
    """A table whose rows are all made of other tables: the same rows in the same order, each with the same cells."""
    def key(row):
        texts = [cell_text(row.get(c)) for c in keys]
        return tuple(float(t) if t and c == "threshold_percent" else t for c, t in zip(keys, texts))

    there, expected = gather(table.rows, key), gather(made, key)
    for k in [k for k in there if k not in expected]:
        comparison.differences.append(f"{name}, {named(there[k][0], keys)}: no such row was recomputed")
    for k, rows in expected.items():
        row_name = named({c: cell_text(rows[0].get(c)) for c in keys}, keys)
        if len(there.get(k, [])) != len(rows):
            count = len(there.get(k, []))
            comparison.differences.append(f"{name}, {row_name}: recomputed {len(rows)} such rows, there are {count}")
            continue
        for row, own in zip(there[k], rows):
            comparison.cells(name, row_name, row, {c: own.get(c) for c in table.columns})
    if set(there) == set(expected) and list(there) != list(expected):
        comparison.differences.append(f"{name}: its rows are in another order than recomputed")


def check(folder):
    """Compares everything that a results directory holds."""
    comparison = Comparison()
    tables = {}
    for name in ("curve", "final", "samples", "dip", "summary"):
        path = folder / f"{name}.csv"
        if path.is_file():
            tables[name] = Table(path)
        else:
            comparison.note(f"{name}.csv: it is not there")
    columns = tables["summary"].columns if "summary" in tables else []
    axes = columns[columns.index("split") + 1:columns.index("moment")] if columns else AXES
    for axis in axes:
        if axis not in AXES:
            AXES.append(axis)
    terms = terms_of(tables["samples"]) if "samples" in tables else {}
    seeds = seeds_of_measurements(folder)
    losses = [name for name in ("curve", "final") if name in tables]
    lowest = lowest_losses([tables[name] for name in losses], axes, seeds)
    for name in losses:
        check_losses(f"{name}.csv", tables[name], terms, seeds, lowest, axes, comparison)
    if "dip" in tables:
        keys = ["run", "weights", *axes, "quantity", "threshold_percent", "crossing"]
        finished = {row["run"] for row in tables["dip"].rows}
        made = [row for row in dip_rows(tables["curve"], axes) if row["run"] in finished]
        for run in {row["run"] for row in tables["curve"].of_runs()} - finished:
            comparison.note("dip.csv: it has no rows of a run that curve.csv has (one that did not come to its end)")
        check_made("dip.csv", tables["dip"], made, keys, comparison)
    if "summary" in tables:
        keys = [c for c in [*PLACE, *axes, "moment", "step", "quantity", "threshold_percent", "crossing"] if c in columns]
        check_made("summary.csv", tables["summary"], summary_rows(tables, terms, axes), keys, comparison)
    return comparison, tables


def report(comparison, tables):
    """What agreed, what did not, and what could not be checked."""
    for name in ("curve.csv", "final.csv", "dip.csv", "summary.csv"):
        if name.removesuffix(".csv") in tables:
            wrong = sum(d.startswith(name) for d in comparison.differences)
            rows = len(tables[name.removesuffix(".csv")].rows)
            print(f"{name}: {comparison.agreed.get(name, 0)} cells of {rows} rows agree, {wrong} differences")
            given = [c for c in tables[name.removesuffix(".csv")].columns if c not in comparison.columns.get(name, ())]
            print(f"  taken as given: {', '.join(given) or 'nothing'}")
    if "samples" in tables:
        print(f"samples.csv: {len(tables['samples'].rows)} rows, taken as given: predictions are not made again")
    for what, count in comparison.unchecked.items():
        print(f"not checked, {count} times: {what}")
    for difference in comparison.differences:
        print(f"DIFFERENT: {difference}")
    return 1 if comparison.differences else 0


def main(arguments):
    """Exit status: 0 if all agrees, 1 if anything differs, 2 on wrong usage."""
    if arguments == ["--self-test"]:
        return self_test()
    if len(arguments) != 1 or arguments[0].startswith("-"):
        print("usage: oracle.py DIRECTORY | --self-test", file=sys.stderr)
        return 2
    folder = Path(arguments[0])
    if not (folder / "curve.csv").is_file():
        print(f"{folder}: no results directory: there is no curve.csv", file=sys.stderr)
        return 2
    return report(*check(folder))


# ---------------------------------------------------------------------------------------------------------------------
# Tests of this script

def self_test():
    """Runs the tests below."""
    import unittest

    class Streams(unittest.TestCase):
        def test_twenty_rounds_give_the_block_of_rfc_8439(self):
            """RFC 8439, 2.3.2: key 00..1f, counter 1, nonce 00000009 0000004a 00000000."""
            state = chacha_state(bytes(range(32)), np.array([1], np.uint64), (0x4A000000, 0))
            state[13] = 0x09000000
            block = chacha(state, 20)[:, 0]
            expected = "e4e7f110 15593bd1 1fdd0f50 c47120a3 c7f4d1c7 0368c033 9aaa2204 4e6cd4c3"
            self.assertEqual([f"{w:08x}" for w in block[:8]], expected.split())

        def test_eight_rounds_give_the_key_stream_of_strombergson(self):
            """draft-strombergson-chacha-test-vectors-01, TC1, 256-bit key of zeros, 8 rounds."""
            stream = draws(bytes(32), 8).tobytes().hex()
            self.assertTrue(stream.startswith("3e00ef2f895f40d67f5bb8e81f09a5a12c840ec3ce9a7f3b181be188ef711a1e"))

        def test_draws_below_agree_with_big_integers(self):
            key = stream_key(3, "b")
            slow = [int(d) % 7 for d in draws(key, 50) if int(d) < 2**64 - 1 - (2**64 - 1) % 7]
            self.assertEqual(draws_below(key, 7, 50).tolist(), slow)

    class Bootstrap(unittest.TestCase):
        def test_it_agrees_with_resampling_one_by_one(self):
            a, b = [1.0, 2.0, 0.5, 4.0, 1.5, 2.5], [3.0, 4.0, 2.5, 5.0, 3.5, 6.0]
            order, pivots, at = draws_below(stream_key(9, "x"), 6, 6 * RESAMPLES).tolist(), [], 0

            def of(pairs):
                x, y = sum(p[0] for p in pairs), sum(p[1] for p in pairs)
                return x / y, math.sqrt(6 / 5 * sum((p - x / y * q) ** 2 for p, q in pairs)) / y

            ratio, error = of(list(zip(a, b)))
            for _ in range(RESAMPLES):
                r, e = of([(a[i], b[i]) for i in order[at:at + 6]])
                at += 6
                if e > 0.0:
                    pivots.append((r - ratio) / e)
            pivots.sort()
            rank = [int(q * (len(pivots) + 1)) - 1 for q in (0.025, 0.975)]
            slow = ratio - pivots[rank[1]] * error, ratio - pivots[rank[0]] * error
            np.testing.assert_allclose(studentised_interval(a, b, 9, "x", False), slow, rtol=1e-12)

        def test_equal_groups_give_a_point_and_four_groups_none(self):
            self.assertEqual(studentised_interval([1.0] * 5, [4.0] * 5, 0, "x", False), (0.25, 0.25))
            self.assertIsNone(studentised_interval([1.0, 2.0, 1.0, 0.5], [4.0, 3.0, 5.0, 2.0], 0, "x", False))

        def test_samples_of_a_group_are_added(self):
            a, b = sums_by_group([1.0, 10.0, 3.0], [2.0, 20.0, 4.0], [7, 2, 7])
            self.assertEqual((a.tolist(), b.tolist()), ([10.0, 4.0], [20.0, 6.0]))

        def test_an_interval_of_a_share_ends_at_its_end(self):
            self.assertEqual(ending_at((0.5, 1.5), 1.0), (0.5, 1.0))
            self.assertEqual(ending_at((1.2, 1.5), 1.0), (1.2, 1.2))

    class Student(unittest.TestCase):
        def test_quantiles_are_those_of_tables(self):
            table = {1: 12.7062047362, 3: 3.1824463053, 5: 2.5705818356, 10: 2.2281388520, 30: 2.0422724563}
            for df, value in table.items():
                self.assertAlmostEqual(t_quantile(0.975, df), value, delta=1e-10)

        def test_quantiles_have_closed_forms_at_one_and_two_degrees(self):
            for p in (0.6, 0.9, 0.975, 0.999):
                self.assertAlmostEqual(t_quantile(p, 1.0) / math.tan(math.pi * (p - 0.5)), 1.0, delta=1e-12)
                two = (2 * p - 1) / math.sqrt(2 * p * (1 - p))
                self.assertAlmostEqual(t_quantile(p, 2.0) / two, 1.0, delta=1e-12)

        def test_broken_degrees_integrate_to_the_share(self):
            """Simpson's rule of the density from 0 to the quantile; 1e-10 is what 20,000 pieces leave."""
            for df in (1.3, 2.7, 21.4):
                t = np.linspace(0.0, t_quantile(0.975, df), 20_001)
                log = math.lgamma((df + 1) / 2) - math.lgamma(df / 2) - 0.5 * math.log(df * math.pi)
                density = np.exp(log) * (1 + t * t / df) ** (-(df + 1) / 2)
                area = (density[0] + density[-1] + 4 * density[1:-1:2].sum() + 2 * density[2:-1:2].sum()) * t[1] / 3
                self.assertAlmostEqual(area, 0.475, delta=1e-10)

        def test_equal_variances_add_their_degrees(self):
            self.assertAlmostEqual(satterthwaite([(2.0, 3.0), (2.0, 3.0)]), 6.0, delta=1e-12)
            self.assertEqual(satterthwaite([(0.0, 3.0), (0.0, 2.0)]), 2.0)

    class Seeds(unittest.TestCase):
        def test_medians_at_the_floor_are_bounds(self):
            self.assertEqual(censored_median([3.0, 0.05, 1.0], [0.1] * 3), (1.0, False))
            self.assertEqual(censored_median([0.05, 0.05, 1.0], [0.1] * 3), (0.1, True))
            self.assertEqual(censored_median([1.0, 0.05], [0.1] * 2), (0.55, True))

        def test_seeds_that_never_cross_are_later_than_all(self):
            self.assertEqual(crossing_times([500.0, None, 300.0]), (500.0, 300.0, None, 0.75))
            self.assertEqual(crossing_times([None, None]), (None, None, None, None))
            # Of nine the second smallest to the second largest: 1 - 2 (1 + 9) / 512.
            median, lower, upper, coverage = crossing_times([float(i) for i in range(9)])
            self.assertEqual((median, lower, upper, coverage), (4.0, 1.0, 7.0, 1.0 - 20.0 / 512.0))

    class Curves(unittest.TestCase):
        def test_a_crossing_takes_two_evaluations_and_a_settled_one_all_later(self):
            holds = [False, True, False, True, True, False, True, True]
            self.assertEqual(crossing_index(holds, "first"), 3)
            self.assertEqual(crossing_index(holds, "settled"), 6)
            self.assertIsNone(crossing_index(holds[:2], "first"))

    class Cells(unittest.TestCase):
        def test_texts_and_counts_agree_exactly_and_numbers_to_nine_digits(self):
            self.assertTrue(cell_agrees("1.0000000001", 1.0) and cell_agrees("", None) and cell_agrees("true", True))
            self.assertFalse(cell_agrees("1.00000001", 1.0) or cell_agrees("", 0.0) or cell_agrees("2", 3))
            self.assertFalse(cell_agrees("1e-5", 0.0) or cell_agrees("reached", "not reached"))

    loader = unittest.defaultTestLoader
    cases = [Streams, Bootstrap, Student, Seeds, Curves, Cells]
    suite = unittest.TestSuite(loader.loadTestsFromTestCase(case) for case in cases)
    return 0 if unittest.TextTestRunner().run(suite).wasSuccessful() else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
