"""Paired timing, by clocks that only the calls advance."""

import functools
import math
import random
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils.benchmark import Timer

from attnsweep.core.deployment import DISPATCH
from attnsweep.measuring import measure, pairs
from attnsweep.measuring.device import cpu_threads
from attnsweep.measuring.pairs import Clocks, Pairs, Switches, time_pairs

MS = 1_000_000


@dataclass
class Machine:
    """A core whose speed changes, and which a scheduler may give to others in the middle of a call."""

    speed: Callable[[int], float] = lambda ns: 1.0  # by the wall clock
    slice_ns: Callable[[], int] = lambda: 0  # what others take of a call
    elsewhere: bool = False  # other threads compute
    wall: int = 0
    thread: int = 0
    process: int = 0
    cuts: int = 0
    waits: int = 0
    calls: dict[str, int] = field(default_factory=dict)

    def work(self, name: str, ns: int) -> None:
        took, others = round(ns / self.speed(self.wall)), self.slice_ns()
        self.thread += 0 if self.elsewhere else took
        self.process += took
        self.waits += self.elsewhere
        self.wall += took + others
        self.cuts += others > 0
        self.calls[name] = self.calls.get(name, 0) + 1
        assert self.calls[name] < 100_000, "the clock stands still"

    def clocks(self) -> Clocks:
        return Clocks(
            lambda: self.wall,
            lambda: self.thread,
            lambda: self.process,
            lambda: Switches(self.cuts, self.waits),
        )

    def time(self, ns: int, reference_ns: int = MS // 2) -> Pairs:
        call, reference = (functools.partial(self.work, *one) for one in (("m", ns), ("r", reference_ns)))
        return time_pairs(call, reference, clocks=self.clocks())


@pytest.mark.parametrize("ns", [MS // 10, MS, 20 * MS, 900 * MS])
def test_a_steady_machine_gives_the_ratio_itself(ns: int) -> None:
    timed = Machine().time(ns)
    assert timed.ratio == pytest.approx(timed.quantile(0.99)) == ns / (MS // 2)
    assert set(timed.ns) == {ns}
    if ns < 10 * MS:
        assert timed.half_width == 0 and timed.interval == (timed.ratio,) * 2 and not timed.unstable


@pytest.mark.parametrize(("ns", "most_s"), [(MS // 10, 0.2), (MS, 0.2), (20 * MS, 0.3), (900 * MS, 3.5)])
def test_it_ends_once_it_knows_enough(ns: int, most_s: float) -> None:
    machine = Machine()
    timed = machine.time(ns)
    assert machine.wall <= most_s * 1e9 + 8 * ns + 3 * ns
    assert len(timed.ratios) >= (6 if ns < 100 * MS else 2)


def test_a_speed_that_halves_and_doubles_cancels() -> None:
    """Every 50 ms: the raw median depends on how long which speed held, the ratio does not."""
    found, raw = [], []
    for offset in range(0, 100, 10):
        machine = Machine(speed=lambda ns, o=offset: 1.0 if (ns // MS + o) // 50 % 3 else 0.5)
        timed = machine.time(2 * MS)
        found.append(timed.ratio)
        raw.append(statistics.mean(timed.ns))
    assert max(found) / min(found) < 1.01 and found[0] == pytest.approx(4, rel=0.01)
    assert max(raw) / min(raw) > 1.01


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_what_the_scheduler_takes_is_not_in_a_call_that_computes_in_its_own_thread(share: float) -> None:
    """Even where every call is cut."""
    chance = random.Random(0)
    machine = Machine(slice_ns=lambda: 4 * MS if chance.random() < share else 0)
    timed = machine.time(2 * MS)
    assert timed.ratio == 4 and set(timed.ns) == {2 * MS}


def test_by_the_wall_clock_calls_that_were_cut_do_not_count() -> None:
    chance = random.Random(0)
    machine = Machine(slice_ns=lambda: 4 * MS if chance.random() < 0.3 else 0, elsewhere=True)
    timed = machine.time(2 * MS)
    assert timed.ratio == 4
    assert timed.quantile(0.75) == 4


def test_slow_first_calls_are_warmed_away() -> None:
    machine = Machine()
    times = iter([400 * MS] * 2)
    timed = time_pairs(
        lambda: machine.work("m", next(times, MS)), lambda: machine.work("r", MS), clocks=machine.clocks()
    )
    assert set(timed.ns) == {MS} and timed.warmup_calls >= 3


def test_the_first_calls_of_a_burst_do_not_count() -> None:
    """They meet the other's caches: here each takes twice as long after the other."""
    machine, last = Machine(), [""]

    def work(name: str, ns: int) -> None:
        machine.work(name, ns if last[0] == name else 2 * ns)
        last[0] = name

    timed = time_pairs(lambda: work("m", MS), lambda: work("r", MS), clocks=machine.clocks())
    assert timed.ratio == 1


@pytest.mark.slow
def test_an_interval_holds_the_truth_at_its_rate() -> None:
    """Noise of 5 % on each burst, of which the median is known: 95 of 100 intervals, give or take three."""
    chance, holds = random.Random(0), 0
    for _ in range(1000):
        bursts = tuple((round(1e6 * math.exp(chance.gauss(0, 0.05))),) for _ in range(80))
        holds += Pairs(bursts, (1e6,) * 80).interval[0] <= 1 <= Pairs(bursts, (1e6,) * 80).interval[1]
    assert 0.92 <= holds / 1000 <= 0.98


@pytest.mark.parametrize(("noise", "unstable"), [(0.01, False), (0.3, True)])
def test_what_is_known_to_less_than_three_percent_is_unstable(noise: float, unstable: bool) -> None:
    chance = random.Random(0)
    bursts = tuple((round(1e6 * math.exp(chance.gauss(0, noise))),) for _ in range(80))
    assert Pairs(bursts, (1e6,) * 80).unstable is unstable


@pytest.mark.parametrize("count", [2, 4, 9])
def test_few_pairs_of_a_slow_model_have_an_interval_too(count: int) -> None:
    chance, holds = random.Random(0), 0
    for _ in range(400):
        bursts = tuple((round(1e6 * math.exp(chance.gauss(0, 0.05))),) for _ in range(count))
        low, high = Pairs(bursts, (1e6,) * count).interval
        holds += low <= 1 <= high
    assert holds / 400 >= 0.9
    assert not Pairs(((MS,),) * count, (MS,) * count).unstable


def test_a_single_pair_has_no_interval() -> None:
    one = Pairs(((MS,),), (MS,))
    assert one.unstable and one.interval == (0, math.inf)


def steady(ratio: float, count: int = 20) -> Pairs:
    """A pass whose bursts are all alike."""
    return Pairs(((round(MS * ratio),),) * count, (MS,) * count)


@pytest.mark.parametrize(
    ("ratios", "is_enough", "ratio", "unstable"),
    [
        ([1.0], False, 1.0, False),
        ([1.0, 1.02], True, 1.01, False),
        ([1.0, 1.15], False, 1.07, True),
        ([1.15, 1.0, 1.01], False, 1.03, True),
        ([1.15, 1.0, 1.01, 1.0, 1.01], True, 1.01, False),  # a neighbour was there, and went
        ([1.15, 1.0, 1.3, 1.0], False, 1.07, True),
        ([0.97, 0.9885, 1.0, 1.0115, 1.04], False, 1.0, True),
        ([0.9, 1.0, 1.1, 1.2, 1.3], True, 1.1, True),  # three more would not settle it
        ([0.9, 1.0, 1.1, 1.0] * 2, True, 1.0, True),  # there is an end
        ([1.15, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.3], True, 1.0, True),
    ],
)
def test_passes_are_enough_when_they_agree(
    ratios: list[float], is_enough: bool, ratio: float, unstable: bool
) -> None:
    passes = [steady(ratio) for ratio in ratios]
    known = pairs.joined(passes)
    assert pairs.are_enough(passes, known) is is_enough
    assert (known.ratio, known.unstable) == (pytest.approx(ratio, rel=0.006), unstable)
    low, high = known.interval
    assert low <= known.ratio <= high and len(known.ns) == 20 * len(ratios)


@pytest.mark.slow
@pytest.mark.parametrize(("spread", "astray"), [(0.02, 0), (0.02, 1), (0.1, 0)])
def test_an_interval_of_passes_holds_the_truth(spread: float, astray: int) -> None:
    """Eight passes, of which some meet a neighbour; what is within a pass is known."""
    chance, holds = random.Random(0), 0
    for _ in range(400):
        ratios = [math.exp(chance.gauss(0, spread)) for _ in range(8)]
        low, high = pairs.joined([steady(1.15 * one) for one in ratios[:astray]] +
                                 [steady(one) for one in ratios[astray:]]).interval  # fmt: skip
        holds += low <= 1 <= high
    assert holds / 400 >= 0.9


@pytest.mark.parametrize("seconds", [0.1, 2.0])
def test_long_passes_are_not_repeated_as_often(seconds: float) -> None:
    """Two seconds each, eight of which nobody would wait for."""
    passes = [Pairs(((round(seconds * 1e9 * ratio),),), (MS,)) for ratio in (1.0, 0.97, 0.9885, 1.0115, 1.04)]
    known = pairs.joined(passes)
    assert pairs.are_enough(passes, known) is (seconds > 1) and known.unstable


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=60))
def test_the_middle_mean_is_between_the_quartiles(values: list[float]) -> None:
    ordered, cut = sorted(values), len(values) // 4
    assert ordered[cut] - 1e-9 <= pairs.midmean(values) <= ordered[-1 - cut] + 1e-9


def test_half_an_interval_is_that_of_a_mean_by_student_and_of_a_trimmed_one() -> None:
    values = [1.0, 2.0, 4.0]
    alone = scipy.stats.t.interval(0.95, 2, np.mean(values), scipy.stats.sem(values))
    assert pairs.half_interval(values) == pytest.approx((alone[1] - alone[0]) / 2, rel=1e-3)
    values = [1.0, 2.0, 3.0, 4.0, 100.0]
    winsorised = np.std([2, 2, 3, 4, 4], ddof=1)
    expected = scipy.stats.t.ppf(0.975, 2) * winsorised / (0.6 * math.sqrt(5))
    assert pairs.half_interval(values) == pytest.approx(expected, rel=1e-3)
    assert pairs.half_interval([1.0]) == math.inf


@pytest.mark.slow
@given(st.lists(st.floats(0.1, 1e6), min_size=1, max_size=60), st.sampled_from([0.1, 0.25, 0.5, 0.99]))
def test_quantiles_are_those_of_numpy(values: list[float], p: float) -> None:
    assert pairs.quantile(values, p) == pytest.approx(np.quantile(values, p))


@given(st.integers(1, 300))
def test_blocks_are_neighbours_and_as_equal_as_can_be(count: int) -> None:
    parts = pairs.blocks(list(range(count)))
    assert [one for part in parts for one in part] == list(range(count))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.slow
def test_a_known_sleep_is_timed_by_the_wall_clock() -> None:
    timed = time_pairs(lambda: time.sleep(0.004), lambda: time.sleep(0.002))
    assert min(timed.ns) >= 4 * MS


@pytest.mark.slow
def test_the_median_agrees_with_the_benchmark_timer_of_torch() -> None:
    """Whose clock is the processor's here: the mean of its blocks would hold the time that others take."""
    model, images = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()).eval(), torch.randn(8, 3, 32, 32)
    names, ratios = {"model": model, "x": images}, []
    for _ in range(5):  # the processor's own speed varies
        with cpu_threads(1):
            timed = measure.time_model(functools.partial(model, images), DISPATCH, device="cpu")
            timer = Timer("with torch.inference_mode(): model(x)", globals=names, timer=time.process_time)
            theirs = timer.blocked_autorange(min_run_time=0.2).median * 1e9
        ratios.append(pairs.quantile(timed.ns, 0.5) / theirs)
        if 1 / 2 < ratios[-1] < 2:
            return
    pytest.fail(f"ours / theirs: {ratios}")
