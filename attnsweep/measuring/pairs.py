"""Timing that repeats on a busy machine: a model and a small reference, in alternation.

The speed of a virtual core changes by a factor of two with what its neighbours do, so a median in
milliseconds taken now and one taken a minute later differ by as much. What a model takes *relative to a
reference that runs just before and just after it* does not: both meet the same machine. So a latency is the
middle of these ratios, the mean of the logarithms of their middle half, which a few that go astray move no
more than a median, and chance less; and its interval says how far it is known, but for what all passes share.

They take turns in short bursts, of which the first call does not count: after the other's, caches and branch
predictors are cold. Where single calls alternate, the reference takes up to 1.7 times what it takes by
itself, more beside a larger model, and every ratio comes out too low by another factor. The longer the bursts
are, the less do both meet the same machine.

A call that the scheduler cuts in two would take as long as its neighbour's slice. Where a call computes in
the calling thread alone, its time is therefore that thread's processor time, which stands still meanwhile;
elsewhere calls in which the process was preempted are left out.

For some seconds a neighbour may take from a model what it leaves to the reference, or the other way round:
then every ratio is off by as much as a fifth, and steady. So a latency is measured in passes some time apart,
until by the spread of passes, too, it is known.
"""

import itertools
import math
import resource
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

Call = Callable[[], object]

WARM_NS, WARM_CALLS, WARM_MOST_NS = 50_000_000, 3, 2_000_000_000
CALLS, COLD = 3, 1  # of a burst, and those of them that do not count
LONG = 4  # times the reference: a call that takes longer warms itself, and stands alone
LEAST_PAIRS, LEAST_NS, ENOUGH_NS, MOST_NS = 6, 125_000_000, 300_000_000, 3_000_000_000  # of a pass
MOST_PASSES, MOST_LONG_PASSES, LONG_NS = 8, 5, 1_000_000_000  # passes that take longer than that are long
PRECISE = 0.01  # half an interval, relative: no more pairs are needed
UNSTABLE = 0.03  # half an interval, relative, from which on a latency is called unstable
HOPELESS = 0.06  # half an interval after five passes, relative, which three more seldom bring below 3 %
BLOCKS = 10  # of pairs, or as many as there are pairs
FEW_PASSES = 4  # fewer have no spread that says much: then they are as far apart as they are
EXTREME = 0.2  # of values on either side, whose distance does not count
STUDENT_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)  # its 97.5 % quantiles
OTHERS = 0.05  # of the processor time of calls, that other threads may take where calls compute by themselves


class Switches(NamedTuple):
    """How often the process was preempted, and how often it waited for something."""

    preempted: int
    waited: int


def switches() -> Switches:
    """Those of this process until now (man 2 getrusage)."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return Switches(usage.ru_nivcsw, usage.ru_nvcsw)


class Clocks(NamedTuple):
    """The wall clock, the processor time of the calling thread and that of the process, all in ns."""

    wall: Callable[[], int] = time.perf_counter_ns
    thread: Callable[[], int] = time.thread_time_ns
    process: Callable[[], int] = time.process_time_ns
    switches: Callable[[], Switches] = switches


class Timed(NamedTuple):
    """One call: wall clock, processor time of its thread and of the process in ns, and whether the process
    was preempted, or waited, meanwhile.
    """

    wall: int
    thread: int
    process: int
    cut: bool
    waited: bool


@dataclass(frozen=True)
class Pairs:
    """Bursts of a model's calls in ns, none empty, and for each of them the mean of the reference's medians
    just before and just after it; of passes that were joined, half the interval (log) by their spread.
    """

    bursts: tuple[tuple[int, ...], ...]
    reference_ns: tuple[float, ...]
    warmup_calls: int = 0
    by_passes: float = 0.0

    @cached_property
    def ns(self) -> list[int]:
        """What all calls took."""
        return list(itertools.chain.from_iterable(self.bursts))

    @cached_property
    def ratios(self) -> list[float]:
        """The median of each burst over the reference's time around it."""
        return [statistics.median(burst) / reference for burst, reference in self.around()]

    @cached_property
    def of_calls(self) -> list[float]:
        """Each call over the reference's time around its burst."""
        return [ns / reference for burst, reference in self.around() for ns in burst]

    def around(self) -> Iterator[tuple[tuple[int, ...], float]]:
        """Each burst and the reference's time around it."""
        return zip(self.bursts, self.reference_ns, strict=True)

    def quantile(self, p: float) -> float:
        """The p-quantile of single calls over the reference, 0 < p < 1."""
        return quantile(self.of_calls, p)

    @cached_property
    def ratio(self) -> float:
        """The middle ratio."""
        return math.exp(midmean(self.logs))

    @property
    def logs(self) -> list[float]:
        """The logarithms of the ratios."""
        return [math.log(ratio) for ratio in self.ratios]

    @cached_property
    def half_width(self) -> float:
        """Half the 95 % interval of the ratio's logarithm, by the spread of ten blocks in succession (batch
        means), so that slow changes count; no less than by the spread of passes, and infinite for a single
        pair.
        """
        return max(self.by_passes, half_interval([midmean(block) for block in blocks(self.logs)]))

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the ratio."""
        return self.ratio * math.exp(-self.half_width), self.ratio * math.exp(self.half_width)

    @property
    def unstable(self) -> bool:
        """Whether the ratio is known to no better than 3 %."""
        return not self.half_width <= UNSTABLE


def joined(passes: Sequence[Pairs]) -> Pairs:
    """One or more passes as one."""
    logs = [math.log(one.ratio) for one in passes]
    few = len(passes) < FEW_PASSES
    return Pairs(
        bursts=tuple(itertools.chain.from_iterable(one.bursts for one in passes)),
        reference_ns=tuple(itertools.chain.from_iterable(one.reference_ns for one in passes)),
        warmup_calls=sum(one.warmup_calls for one in passes),
        by_passes=max(logs) - min(logs) if few else half_interval(logs),
    )


def are_enough(passes: Sequence[Pairs], known: Pairs) -> bool:
    """Whether no further pass is needed, as two or more, `known` together, say what is to be known; or is
    allowed; or would do, as five that disagree so much are not settled by three more.
    """
    most = MOST_LONG_PASSES if sum(passes[0].ns) > LONG_NS else MOST_PASSES
    hopeless = len(passes) > FEW_PASSES and known.half_width > HOPELESS
    return len(passes) == most or hopeless or (len(passes) > 1 and not known.unstable)


def midmean(values: Sequence[float]) -> float:
    """The mean of the middle half (interquartile mean) of one or more values."""
    cut = len(values) // 4
    return statistics.fmean(sorted(values)[cut : len(values) - cut])


def half_interval(values: Sequence[float]) -> float:
    """Half the 95 % interval of the mean of independent values without the most extreme fifth on either side,
    by their winsorised variance (Tukey and McLaughlin 1963); infinite for a single one.
    """
    cut, ordered = int(EXTREME * len(values)), sorted(values)
    used = ordered[cut : len(values) - cut]
    if len(used) < 2:
        return math.inf
    spread = statistics.stdev([used[0]] * cut + used + [used[-1]] * cut)
    return STUDENT_T[len(used) - 2] * spread * math.sqrt(len(values)) / len(used)


def blocks(values: Sequence[float]) -> list[Sequence[float]]:
    """The values in ten blocks of neighbours, as equal as can be; fewer values stand alone."""
    count = min(BLOCKS, len(values))
    ends = [round(i * len(values) / count) for i in range(count + 1)]
    return [values[start:end] for start, end in itertools.pairwise(ends)]


def quantile(values: Sequence[float], p: float) -> float:
    """The p-quantile of one or more values, interpolated linearly as numpy does."""
    ordered = sorted(values)
    place = p * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


class Alternation:
    """A model and a reference that take turns; what they took until now."""

    def __init__(self, call: Call, reference: Call, clocks: Clocks) -> None:
        self.call, self.reference, self.clocks = call, reference, clocks
        self.warmup = warm_up(call, reference, clocks)
        self.use_thread = computes_here(self.warmup)
        self.bursts, self.spent = list[tuple[int, ...]](), 0
        self.references = [self.reference_burst()]
        fastest = min(map(self.ns, self.warmup))
        self.is_long = fastest > LONG * self.references[0]

    def ns(self, one: Timed) -> int:
        """What a call took: processor time, or by the wall clock where others compute for it."""
        return max(1, one.thread if self.use_thread else one.wall)  # a clock may be coarse

    def turn(self) -> None:
        """A burst of the model, and one of the reference."""
        burst = self.burst(self.call, 1, 0) if self.is_long else self.burst(self.call)
        self.references.append(self.reference_burst())
        self.bursts.append(burst)

    def burst(self, call: Call, calls: int = CALLS, cold: int = COLD) -> tuple[int, ...]:
        """What the calls of a burst took that count: not the first ones, and by the wall clock none that was
        cut, unless all were.
        """
        done = [timed(call, self.clocks) for _ in range(calls)]
        self.spent += sum(map(self.ns, done))
        warm = done[cold:]
        whole = warm if self.use_thread else [one for one in warm if not one.cut] or warm
        return tuple(map(self.ns, whole))

    def reference_burst(self) -> float:
        """The median of a burst of the reference."""
        return statistics.median(self.burst(self.reference))

    def pairs(self) -> Pairs:
        """What is known now."""
        around = tuple(map(statistics.fmean, itertools.pairwise(self.references)))
        return Pairs(tuple(self.bursts), around, len(self.warmup))

    def enough(self) -> bool:
        """Whether that will do."""
        turns = len(self.bursts)
        if self.spent >= MOST_NS and turns >= 2:
            return True
        if turns < LEAST_PAIRS or self.spent < LEAST_NS:
            return False
        return self.spent >= ENOUGH_NS or (turns % BLOCKS == 0 and self.pairs().half_width <= PRECISE)


def time_pairs(call: Call, reference: Call, *, clocks: Clocks | None = None) -> Pairs:
    """One pass: times `call`, which waits for its own result, in turns with `reference`.

    Ends when the ratio is known to 1 % and an eighth of a second was computed; at the latest after 0.3 s, or
    for slow calls after six turns or 3 s.
    """
    both = Alternation(call, reference, clocks or Clocks())
    while not both.enough():
        both.turn()
    return both.pairs()


def timed(call: Call, clocks: Clocks) -> Timed:
    """Times one call."""
    before, process, wall, thread = clocks.switches(), clocks.process(), clocks.wall(), clocks.thread()
    call()
    thread, wall, process = clocks.thread() - thread, clocks.wall() - wall, clocks.process() - process
    after = clocks.switches()
    return Timed(wall, thread, process, after.preempted > before.preempted, after.waited > before.waited)


def computes_here(calls: Sequence[Timed]) -> bool:
    """Whether calls compute in the calling thread alone: others hardly do, and most calls wait for nothing.
    How long they took by the wall clock says nothing on a machine that others use.
    """
    others = sum(one.process - one.thread for one in calls)
    waiting = sum(one.waited for one in calls)
    return others <= OTHERS * sum(one.process for one in calls) and 2 * waiting < len(calls)


def ns_of(calls: Sequence[Timed]) -> list[int]:
    """What the calls took in ns: as processor time where that is all, else by the wall clock, then without
    those that were cut, unless all were.
    """
    if computes_here(calls):
        return [one.thread for one in calls]
    return [one.wall for one in calls if not one.cut] or [one.wall for one in calls]


def warm_up(call: Call, reference: Call, clocks: Clocks) -> list[Timed]:
    """Calls both in alternation, the first time to compile or allocate what they need, and then three times
    and 0.05 s at least, and 2 s at most; returns what the calls took.
    """
    done = [timed(call, clocks)]
    reference()
    began = clocks.wall()
    while (
        len(done) <= WARM_CALLS or clocks.wall() - began < WARM_NS
    ) and clocks.wall() - began < WARM_MOST_NS:
        done.append(timed(call, clocks))
        reference()
    return done
