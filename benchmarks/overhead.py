"""What does a sweep cost beyond the training itself?

Where a trial lasts a second and its scheduling two, people give the scheduler up for a loop in bash. So here
the same tiny trials (a ViT of one block, one epoch of digits; only the seed differs) go five ways, each in a
process of its own:

    plain loop    attnsweep.training.trial.run, one trial after another in one process, imports and data warm
    naive Tune    Ray Tune as its tutorials begin: a function trainable that imports and loads inside, nothing
                  reused, loggers on, all settings at their defaults, one CPU per trial; few trials, as each
                  takes seconds
    attnsweep     a real sweep: a new local Ray cluster, a worker per core, Parquet rows, no latency phase
    Ray is up     the same on a cluster of this machine that runs already
    --serial      the same in one process, without Ray

Printed is a line per way and number of trials, then each target beside what was reached. The columns:

    wall s        from the command to its end; of the loop, the loop alone
    train ms      mean wall clock of a trial in its worker (`train_s` of its row): the training itself
    beyond ms     (wall x workers - sum of train_s) / trials: all the rest, from the command to its end
    Tune/it       the same of naive Tune over this
    gap ms        the steady state: mean time that a worker is idle between two trials. Once all workers are
                  busy, the k-th trial to start takes the place that the k-th to end has left; the gap lies
                  between the two. Neither the start-up nor the last trials' end is in it; what the driver
                  takes from the workers' cores is not in it either, and shows in train ms
    p95 ms        95th percentile of the same
    first s       from the command to the first training step of the first trial
    rss, peak MB  memory of the driver after its sweep, and the most it ever had (1e6 bytes; Linux only)
"""

import argparse
import bisect
import contextlib
import json
import math
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from attnsweep import Sweep
from attnsweep.results import provenance

TINY = dict(model="vit", dataset="digits", depth=1, dim=16, heads=1, dim_head=16, mlp_dim=32, epochs=1)
RESOURCES = {"cpu": 1, "gpu": 0}
NO_DATA = "."  # the digits come with scikit-learn
# Targets are ratios, which hold on a slower machine, too: of the gap to the training of such a trial in a
# plain loop, and of naive Tune's gap to ours; of the first step to naive Tune's, where Ray has to start and
# where it need not; of what 100 more trials take to the driver's memory.
MOST_GAP_SHARE, LEAST_RATIO, MOST_FIRST_SHARE, MOST_MEMORY_SHARE = 0.2, 50, 0.5, 0.01
MOST_WARM_SHARE = 0.17
FEW, MANY = 64, 1_000  # trials; the gap at MANY is to be like that at FEW:
MOST_GROWTH = 1.25
LINE = "{:<11}{:>7}{:>9}{:>8}{:>10}{:>11}{:>9}{:>8}{:>8}{:>9}{:>8}{:>9}"
HEADS = (
    "way", "trials", "workers", "wall s", "train ms", "beyond ms", "Tune/it", "gap ms", "p95 ms",
    "first s", "rss MB", "peak MB",
)  # fmt: skip


@dataclass(frozen=True)
class Times:
    """When one trial started, made its first step and finished (seconds since 1970), and its `train_s`."""

    started: float
    stepped: float
    finished: float
    train_s: float


@dataclass(frozen=True)
class Report:
    """What the process of one way leaves. `wall_s` only where it is not that of the process."""

    trials: list[Times]
    workers: int
    rss_mb: float = math.nan
    peak_mb: float = math.nan
    wall_s: float | None = None


@dataclass(frozen=True)
class Figures:
    """One line of the table."""

    way: str
    trials: int
    workers: int
    wall_s: float
    train_ms: float
    beyond_ms: float
    gap_ms: float
    p95_ms: float
    first_s: float
    rss_mb: float
    peak_mb: float


# --- The ways ---


def plain_loop(trials: int) -> Report:
    """One trial after another in this process."""
    from attnsweep.space.trials import make_trial
    from attnsweep.tasks.registry import resolve
    from attnsweep.training.trial import Options, run

    options = Options(data_dir=NO_DATA)
    several = [make_trial(resolve({**TINY, "seed": seed}), Path(NO_DATA)) for seed in range(trials)]
    list(run(several[0], options))  # warm
    began = time.perf_counter()
    ends = [list(run(one, options)).pop() for one in several]
    wall_s = time.perf_counter() - began
    return Report([times(end["row"], end["curve"][0]) for end in ends], workers=1, wall_s=wall_s)


def naive_tune(trials: int) -> Report:
    """Ray Tune, used naively."""
    import ray
    from ray import tune

    ray.init(address="local")
    with tempfile.TemporaryDirectory(prefix="overhead-") as folder:
        space = {**TINY, "seed": tune.grid_search(list(range(trials)))}
        tuner = tune.Tuner(trainable, param_space=space, run_config=tune.RunConfig(storage_path=folder))
        results = tuner.fit()
        assert not results.errors, results.errors[0]
        rows = results.get_dataframe()[[f"times/{key}" for key in Times.__dataclass_fields__]]
        found = [Times(*row) for row in rows.itertuples(index=False)]
        return Report(found, workers=int((ray.cluster_resources() or {})["CPU"]))


def trainable(config: dict[str, Any]) -> None:
    """What the tutorials pass to Ray Tune: imports, data and training in one function."""
    from ray import tune

    from attnsweep.space.trials import make_trial
    from attnsweep.tasks.images import training as images
    from attnsweep.tasks.registry import resolve
    from attnsweep.training.trial import Options, run

    point = resolve(config)
    images.load_for(point, NO_DATA, "cpu")  # here, so that it does not count as training
    end = list(run(make_trial(point, Path(NO_DATA)), Options(data_dir=NO_DATA))).pop()
    tune.report({"times": asdict(times(end["row"], end["curve"][0]))})


def attnsweep_itself(trials: int) -> Report:
    """A real sweep."""
    from attnsweep.engine import cluster

    with cluster.connected("local"):
        return swept(trials, cluster.slots(RESOURCES))


def beside_ray(trials: int) -> Report:
    """A real sweep on the cluster at $RAY_ADDRESS."""
    from attnsweep.engine import cluster

    with cluster.connected(None):
        return swept(trials, cluster.slots(RESOURCES))


def serial(trials: int) -> Report:
    """A real sweep in this process."""
    return swept(trials, workers=1, serial=True)


def swept(trials: int, workers: int, *, serial: bool = False) -> Report:
    """What a sweep leaves, and the memory of this process after it."""
    from ray.tune import grid_search

    import attnsweep

    sweep = Sweep({**TINY, "seed": grid_search(list(range(trials)))}, resources=RESOURCES)
    with tempfile.TemporaryDirectory(prefix="overhead-") as folder:
        rows = attnsweep.run(sweep, results=f"{folder}/results", latency=False, serial=serial)
        rss_mb, peak_mb = memory_mb("VmRSS"), memory_mb("VmHWM")
        epochs = attnsweep.load(f"{folder}/results", "epochs").to_dict("records")
    assert (rows["status"] == "done").all(), f"trials failed: {rows['error'].dropna().unique()}"
    first_epochs = {epoch["trial_id"]: epoch for epoch in epochs}
    found = [times(row, first_epochs[row["trial_id"]]) for row in rows.to_dict("records")]
    return Report(found, workers, rss_mb, peak_mb)


WAYS: dict[str, Callable[[int], Report]] = {
    "plain loop": plain_loop,
    "naive Tune": naive_tune,
    "attnsweep": attnsweep_itself,
    "Ray is up": beside_ray,
    "--serial": serial,
}


def times(row: Mapping[str, Any], epoch: Mapping[str, Any]) -> Times:
    """The times of a trial, by its row and that of its first epoch: its steps, then its evaluation."""
    stepped = epoch["finished_at"].timestamp() - epoch["eval_s"] - epoch["epoch_s"]
    return Times(row["started_at"].timestamp(), stepped, row["finished_at"].timestamp(), row["train_s"])


def memory_mb(name: str) -> float:
    """VmRSS or VmHWM of this process (man 5 proc_pid_status) in MB; NaN where the system does not tell."""
    found = re.search(rf"^{name}:\s*(\d+) kB", provenance.contents(Path("/proc/self/status")), re.MULTILINE)
    return int(found[1]) * 1024 / 1e6 if found else math.nan


# --- Figures ---


def figures(way: str, report: Report, *, began: float, wall_s: float) -> Figures:
    """The line of one way, begun at `began` (seconds since 1970); see the module for what its figures are."""
    trials, wall = report.trials, report.wall_s or wall_s
    trained, idle = sum(one.train_s for one in trials), gaps(trials, report.workers)
    return Figures(
        way=way,
        trials=len(trials),
        workers=report.workers,
        wall_s=wall,
        train_ms=1e3 * trained / len(trials),
        beyond_ms=1e3 * (wall * report.workers - trained) / len(trials),
        gap_ms=1e3 * statistics.fmean(idle) if idle else math.nan,
        p95_ms=1e3 * percentile_95(idle),
        first_s=math.nan if report.wall_s else min(one.stepped for one in trials) - began,
        rss_mb=report.rss_mb,
        peak_mb=report.peak_mb,
    )


def gaps(trials: Sequence[Times], workers: int) -> list[float]:
    """How long, in seconds, each place was idle from an end to the next start, once all workers were busy (or
    had been, where they never are at one time, as with naive Tune).
    """
    starts, ends = sorted(one.started for one in trials), sorted(one.finished for one in trials)
    later = range(workers - 1, len(trials))
    full = (i for i in later if bisect.bisect(ends, starts[i]) == i + 1 - workers)
    first = next(full, workers - 1)  # with this start all workers are busy
    return [start - end for start, end in zip(starts[first + 1 :], ends[first + 1 - workers :], strict=False)]


def percentile_95(values: Sequence[float]) -> float:
    """The 95th percentile; NaN of less than two values."""
    return statistics.quantiles(values, n=20, method="inclusive")[-1] if len(values) > 1 else math.nan


# --- Processes ---


@contextlib.contextmanager
def running_ray() -> Iterator[str]:
    """The address of a Ray cluster of this machine, which a process of its own keeps."""
    code = (
        "import ray, sys; context = ray.init(address='local', include_dashboard=False, log_to_driver=False)\n"
        "print('at', context.address_info['gcs_address'], flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    ) as keeper:  # fmt: skip
        assert keeper.stdout
        yield next(line.split()[1] for line in keeper.stdout if line.startswith("at "))
        keeper.communicate()


def in_process_of_its_own(way: str, trials: int, **environment: str) -> Figures:
    """Runs this file for one way. Exits with what the process printed where it fails."""
    with tempfile.TemporaryDirectory(prefix="overhead-") as folder:
        path = Path(folder) / "report.json"
        options = [f"--way={way}", "--trials", str(trials), "--report", str(path)]
        began, clock = time.time(), time.perf_counter()
        ended = subprocess.run(
            [sys.executable, __file__, *options], capture_output=True, text=True, env=os.environ | environment
        )
        wall_s = time.perf_counter() - clock
        if ended.returncode:
            sys.exit(f"{way} with {trials} trials failed:\n{ended.stdout[-2000:]}\n{ended.stderr[-4000:]}")
        report = json.loads(path.read_text())
    report["trials"] = [Times(**one) for one in report["trials"]]
    return figures(way, Report(**report), began=began, wall_s=wall_s)


# --- Printing ---


def machine() -> str:
    """Device, versions and how busy the machine is."""
    names = ("attnsweep", "torch", "ray", "pyarrow")
    versions = ", ".join(f"{name} {provenance.installed(name)}" for name in names)
    load = os.getloadavg()[0]
    busy = "; BUSY: other work takes part of the cores, so the figures are too high" if load > 0.5 else ""
    where = f"{provenance.cpu_name()}, {os.cpu_count()} cores, load {load:.1f} before the start{busy}"
    return f"{where}\npython {platform.python_version()}, {versions}"


def shown(value: float, digits: int = 1) -> str:
    return "-" if math.isnan(value) else f"{value:,.{digits if value < 1_000 else 0}f}"


def line(one: Figures, naive: Figures | None) -> str:
    """A line of the table; `naive` is that of naive Tune, where there is one."""
    ratio = naive.beyond_ms / one.beyond_ms if naive and one.way != "plain loop" else math.nan
    values = (one.wall_s, one.train_ms, one.beyond_ms, ratio, one.gap_ms, one.p95_ms)
    memory = (shown(one.rss_mb, 0), shown(one.peak_mb, 0))
    return LINE.format(one.way, one.trials, one.workers, *map(shown, values), shown(one.first_s), *memory)


Verdict = tuple[bool, str, str]  # whether a target is met, what it is, what was reached


def targets(
    sweeps: Sequence[Figures], warm: Sequence[Figures], loop: Figures, naive: Figures | None
) -> Iterator[Verdict]:
    """Each target that these figures can judge; `warm` are those of sweeps that need not start Ray."""
    largest = max(sweeps, key=lambda one: one.trials)
    few = min((one for one in sweeps if one.trials >= FEW), key=lambda one: one.trials, default=largest)
    yield short_gap(largest, loop)
    if naive:
        yield below_naive(largest, naive)
        yield sooner_than_naive(sweeps, naive, MOST_FIRST_SHARE)
        for one in warm:
            yield sooner_than_naive([one], naive, MOST_WARM_SHARE)
    if largest.trials >= MANY and few.trials == FEW:
        yield like_few(few, largest)
    if largest.trials > few.trials:
        yield memory_growth(few, largest)


def short_gap(ours: Figures, loop: Figures) -> Verdict:
    """How the gap compares with the training of a trial that nothing disturbs."""
    share = ours.gap_ms / loop.train_ms
    reached = f"{share:.1%} ({ours.gap_ms:.1f} ms / {loop.train_ms:.0f} ms with {ours.trials:,} trials)"
    return share <= MOST_GAP_SHARE, f"gap at most {MOST_GAP_SHARE:.0%} of a tiny trial's training", reached


def sooner_than_naive(sweeps: Sequence[Figures], naive: Figures, share: float) -> Verdict:
    """How long the first step takes to come, by naive Tune's first."""
    longest = max(one.first_s for one in sweeps)
    wanted = f"{sweeps[0].way}: first step after at most {share:g} times as long as with naive Tune"
    reached = f"{longest / naive.first_s:.2f} times ({longest:.1f} s at the longest / {naive.first_s:.1f} s)"
    return longest <= share * naive.first_s, wanted, reached


def below_naive(ours: Figures, naive: Figures) -> Verdict:
    """How the gap compares with that of naive Tune."""
    ratio = naive.gap_ms / ours.gap_ms
    reached = f"{ratio:.0f} times ({naive.gap_ms:,.0f} ms / {ours.gap_ms:.1f} ms)"
    return ratio >= LEAST_RATIO, f"gap at least {LEAST_RATIO} times below that of naive Tune", reached


def like_few(few: Figures, many: Figures) -> Verdict:
    """How the gap grows with the number of trials."""
    growth = many.gap_ms / few.gap_ms
    wanted = f"gap with {MANY:,} trials at most {MOST_GROWTH} times that with {FEW}"
    return growth <= MOST_GROWTH, wanted, f"{growth:.2f} times"


def memory_growth(few: Figures, many: Figures) -> Verdict:
    """By how much the driver's peak memory grows with 100 more trials."""
    growth = 100 * (many.peak_mb / few.peak_mb - 1) / (many.trials - few.trials)
    wanted = f"the driver's peak memory grows by at most {MOST_MEMORY_SHARE:.0%} per 100 trials"
    return growth <= MOST_MEMORY_SHARE, wanted, f"{growth:.2%} from {few.trials} to {many.trials:,} trials"


def compare(sizes: Sequence[int], *, naive_trials: int) -> None:
    """Goes all ways and prints the table and the targets."""
    print(f"{machine()}\n\n{LINE.format(*HEADS)}", flush=True)
    naive = in_process_of_its_own("naive Tune", naive_trials) if naive_trials else None
    loop = in_process_of_its_own("plain loop", min(FEW, max(sizes)))
    for one in (loop, *filter(None, [naive])):
        print(line(one, naive), flush=True)
    sweeps = []
    for size in sizes:
        sweeps.append(in_process_of_its_own("attnsweep", size))
        print(line(sweeps[-1], naive), flush=True)
    with running_ray() as address:
        warm = [in_process_of_its_own("Ray is up", min(sizes), RAY_ADDRESS=address)]
    warm.append(in_process_of_its_own("--serial", min(sizes)))
    for one in warm:
        print(line(one, naive), flush=True)
    print()
    for met, wanted, reached in targets(sweeps, warm, loop, naive):
        print(f"{'met   ' if met else 'MISSED'}  {wanted}: {reached}")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--trials", type=int, nargs="+", default=[8, 64, 256], help="sizes of the sweeps; 1000 may be added")
    add("--naive-trials", type=int, default=4 * (os.cpu_count() or 1), help="of naive Tune; 0: leave it out")
    add("--way", choices=WAYS, help="go only this way, with the first of --trials, and write --report")
    add("--report", type=Path, help="the JSON file for --way")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    if options.way:
        report = WAYS[options.way](options.trials[0])
        options.report.write_text(json.dumps(asdict(report)))
    else:
        compare(options.trials, naive_trials=options.naive_trials)


if __name__ == "__main__":
    main()
