"""The tables of results: every column with its type, unit and meaning, and the schemas made of them.

Here are the columns that all tasks share; those of one task alone are in its room.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from attnsweep.core.columns import BITS, BOOL, FLOAT, INT, STR, TIME, Column
from attnsweep.tasks.registry import AXES, COLUMNS


@dataclass(frozen=True)
class Move:
    """Columns that earlier versions had in the table `out_of` and that are now in `into`, which has the same
    key and a row for each one with a value.
    """

    columns: tuple[str, ...]
    out_of: str
    into: str


SCHEMA_VERSION = 6
STATUSES = ("done", "failed", "stopped", "diverged")
FINAL = ("done", "diverged")  # running such a trial again would give the same row

ARROW = {str: STR, int: INT, float: FLOAT}
CONFIGURATION = tuple(Column(axis.name, ARROW[axis.kind], axis.unit, axis.meaning) for axis in AXES.values())
ARCHITECTURE = tuple(column for column in CONFIGURATION if AXES[column.name].architecture)
QUALITY = (
    Column(
        "val_acc", FLOAT, "fraction", "accuracy on the validation split, 0..1, which selects the epoch",
        "higher", per_epoch=True, over_seeds="mean", objective=True, shown=("closing", "pick", "curve"),
    ),
    Column(
        "test_acc", FLOAT, "fraction", "accuracy on the test split, 0..1; it selects nothing",
        "higher", per_epoch=True, over_seeds="mean", shown=("closing", "pick", "curve"),
    ),
    Column(
        "test_acc_best", FLOAT, "fraction",
        "highest test accuracy of any epoch; to compare with published tables", "higher", over_seeds="mean",
    ),
    Column("best_epoch", INT, "epoch", "the selected epoch, from 1: the first that is best on validation"),
    Column(
        "val_loss", FLOAT, "nat", "mean loss on the validation split", "lower", per_epoch=True,
        objective=True, shown=("curve",),
    ),
    Column("train_loss", FLOAT, "nat", "mean training loss of the last epoch", "lower"),
    Column("test_examples", INT, "example", "examples of the test split", of_selected=True),
    Column(
        "test_right", BITS, "",
        "a bit per test example, in the order of the split, the first in the highest bit of the first byte: "
        "whether it was answered right; numpy.unpackbits reads it",
        of_selected=True,
    ),
)  # fmt: skip
WHERE = ("measured_on", "latency_batch", "runtime")
ENDS = {
    "low": "lower end of the 95 % interval of latency_ms_p50",
    "high": "upper end of the 95 % interval of latency_ms_p50",
}
PERCENTILES = (10, 90, 99)
LATENCY_OF_TRIAL = (
    Column(
        "latency_ms_p50", FLOAT, "ms",
        "typical time of a forward pass (of a decoder: of an answer) at latency_batch under runtime, on "
        "measured_on: latency_rel times what the reference takes there",
        "lower", over_seeds="median", same=WHERE, objective=True, shown=("pick",),
    ),
    *(
        Column(f"latency_ms_{end}", FLOAT, "ms", meaning, over_seeds="median", same=WHERE)
        for end, meaning in ENDS.items()
    ),
    *(
        Column(
            f"latency_ms_p{p}", FLOAT, "ms", f"{p}th percentile of the same", "lower", over_seeds="median",
            same=WHERE,
        )
        for p in PERCENTILES
    ),
    Column(
        "latency_rel", FLOAT, "", "the same as a ratio to the reference, measured in alternation with it",
        "lower", over_seeds="median", same=WHERE,
    ),
    Column(
        "latency_unstable", BOOL, "", "whether half that interval exceeds 3 %", over_seeds="first",
        shown=("pick",),
    ),
    Column("latency_batch", INT, "example", "batch size of the latency columns", over_seeds="first"),
    Column(
        "latency_ms_per_token", FLOAT, "ms", "of a decoder: latency_ms_p50 over the tokens decoded in it",
        "lower", over_seeds="median", same=WHERE,
    ),
    Column(
        "throughput_per_s", FLOAT, "1/s",
        "examples per second at the throughput batch (see the latency table)",
        "higher", over_seeds="median", same=("measured_on", "runtime"),
    ),
    Column(
        "runtime", STR, "", "what ran the model as its latency was measured, such as eager or onnxruntime",
        over_seeds="first",
    ),
    Column(
        "measured_on", STR, "", "device and thread count that latency and throughput were measured on",
        over_seeds="first",
    ),
)  # fmt: skip
BY_LENGTH = (  # of models of sequences: `Task.cost_columns`
    Column("macs_2x", INT, "", "of models of sequences: macs at twice the length", "lower",
           over_seeds="first"),
    Column("macs_4x", INT, "", "macs at four times the length", "lower", over_seeds="first"),
    Column(
        "cache_bytes", INT, "B", "of a decoder: what its cache holds of an example at its length, as float32",
        "lower", over_seeds="first",
    ),
    Column(
        "cache_bytes_per_token", INT, "B",
        "what a further token adds to that; with a window, until the window is full", "lower",
        over_seeds="first",
    ),
)  # fmt: skip
COST = (
    Column("params", INT, "", "trainable parameters", "lower", over_seeds="first", objective=True,
           shown=("pick",)),
    Column(
        "macs", INT, "", "multiply-accumulates of one forward pass of one example; null where not countable",
        "lower", over_seeds="first", objective=True,
    ),
    *BY_LENGTH,
    *LATENCY_OF_TRIAL[:-2],
    Column(
        "peak_mem_mb", FLOAT, "MB",
        "peak memory of training: allocated on the GPU, or resident in the worker process",
        "lower", over_seeds="median", same=("device",),
    ),
    *LATENCY_OF_TRIAL[-2:],
)  # fmt: skip
EFFORT = (
    Column(
        "train_s", FLOAT, "s",
        "wall clock of the trial in its worker, evaluation included, over all attempts",
        "lower", over_seeds="median", same=("device",),
    ),
    Column(
        "epoch_s", FLOAT, "s", "median wall clock of one epoch's training steps",
        "lower", over_seeds="median", same=("device",),
    ),
    Column("samples_per_s", FLOAT, "1/s", "training examples per second, median over epochs"),
    Column("started_at", TIME, "UTC", "start of the first attempt that led to this row"),
    Column("finished_at", TIME, "UTC", "when the trial ended"),
    Column("attempts", INT, "", "how many times the trial was started"),
)  # fmt: skip
PROVENANCE = (
    Column("git_sha", STR, "", "commit of the working directory; null outside a repository"),
    Column("git_dirty", BOOL, "", "whether the working directory had uncommitted changes"),
    Column("code_hash", STR, "", "hash of the package's source files"),
    Column("data_sha256", STR, "", "SHA-256 over the data set's files"),
    *(column for column in COLUMNS if column.of_data),
    Column("torch", STR, "", "version of torch"),
    Column("cuda", STR, "", "version of CUDA that trained; null on other devices"),
    Column("ray", STR, "", "version of Ray"),
    Column("python", STR, "", "version of Python"),
    Column("attnsweep", STR, "", "version of this package"),
    Column("numerics", INT, "", "version of what the trial's task computes; with another the id is another"),
    Column(
        "device", STR, "", "what trained: name of the GPU, or of the CPU with its thread count",
        over_seeds="first",
    ),
    Column("cpu", STR, "", "name of the CPU"),
    Column("host", STR, "", "name of the host that trained"),
    Column("schema_version", INT, "", "version of this table's schema"),
)  # fmt: skip
IDS = (
    Column(
        "trial_id", STR, "", "12 hex digits; hash of all that determines the result",
        over_seeds="first", shown=("pick",),
    ),
    Column(
        "arch_id", STR, "", "12 hex digits; hash of all that determines latency and params",
        over_seeds="first",
    ),
    Column("sweep", STR, "", "the sweep that ran the trial first"),
    Column("status", STR, "", "done, failed, stopped (by a scheduler) or diverged (loss not finite)"),
    Column("error", STR, "", "why the trial failed or diverged"),
)  # fmt: skip
OF_TASKS = tuple(column for column in COLUMNS if column.table == "trials" and not column.of_data)
JUDGED = tuple(column for column in (*QUALITY, *COLUMNS) if column.per_epoch)
OF_SELECTED = tuple(column for column in (*QUALITY, *COLUMNS) if column.of_selected)
VERSION = PROVENANCE[-1]
EPOCHS = (
    Column("trial_id", STR, "", "the trial"),
    Column("epoch", INT, "epoch", "counted from 1", shown=("curve",)),
    Column("lr", FLOAT, "", "learning rate of the epoch's last step", shown=("curve",)),
    Column("train_loss", FLOAT, "nat", "mean loss over the epoch's training steps", shown=("curve",)),
    *JUDGED,
    Column("epoch_s", FLOAT, "s", "wall clock of the training steps", shown=("curve",)),
    Column("eval_s", FLOAT, "s", "wall clock of the evaluation"),
    Column("samples_per_s", FLOAT, "1/s", "training examples per second"),
    Column("finished_at", TIME, "UTC", "when the epoch ended"),
    VERSION,
)
LATENCY = (
    Column("arch_id", STR, "", "the architecture"),
    Column("measured_on", STR, "", "device and thread count"),
    Column("runtime", STR, "", "what ran the model: eager, compile, onnxruntime, openvino or cudagraphs"),
    Column("versions", STR, "", "the packages that determine it, with their versions"),
    Column("batch", INT, "example", "examples in one forward pass"),
    Column(
        "precision", STR, "",
        "fp32; bf16: weights and inputs cast once; int8: static quantisation of the weights of trial_id",
    ),
    *ARCHITECTURE,
    *COST[:2],
    Column(
        "latency_ms_p50", FLOAT, "ms",
        "typical time of one synchronised forward pass (of a decoder: of decoding an answer): latency_rel "
        "times reference_ms",
    ),
    *(Column(f"latency_ms_{end}", FLOAT, "ms", meaning) for end, meaning in ENDS.items()),
    *(Column(f"latency_ms_p{p}", FLOAT, "ms", f"{p}th percentile, of the ratios too") for p in PERCENTILES),
    Column("latency_ms_iqr", FLOAT, "ms", "interquartile range, of the ratios too"),
    Column("latency_ms_per_token", FLOAT, "ms", "latency_ms_p50 over the tokens decoded in it"),
    Column(
        "latency_rel", FLOAT, "",
        "middle of the ratios of a call's time to that of the reference just before and after it",
    ),
    Column("unstable", BOOL, "", "whether half the interval of latency_ms_p50 exceeds 3 % of it"),
    Column("reference", STR, "", "the small model that it was measured in alternation with"),
    Column("reference_ms", FLOAT, "ms", "what that takes on measured_on (table references)"),
    Column("raw_ms_p10", FLOAT, "ms", "10th percentile of the calls as they were, in processor time"),
    Column("raw_ms_p50", FLOAT, "ms", "median of the same, which wanders with the machine's speed"),
    Column("raw_ms_p90", FLOAT, "ms", "90th percentile of the same"),
    Column("raw_ms_p99", FLOAT, "ms", "99th percentile of the same"),
    Column("device_ms", FLOAT, "ms", "time of a pass by device events, synchronised once; null on CPUs"),
    Column("throughput_per_s", FLOAT, "1/s", "examples per second: batch over latency_ms_p50"),
    Column("max_abs_diff", FLOAT, "", "largest difference of an output from eager's in fp32; null for that"),
    Column("val_acc", FLOAT, "fraction", "of int8: accuracy on the validation split, judged anew"),
    Column("test_acc", FLOAT, "fraction", "of int8: accuracy on the test split, judged anew"),
    Column("trial_id", STR, "", "of int8: the trial whose weights were quantised"),
    Column("calls", INT, "", "timed calls"),
    Column("warmup_calls", INT, "", "calls before timing began"),
    Column("prepare_s", FLOAT, "s", "how long the runtime took to take the model: export, compilation"),
    Column("measure_s", FLOAT, "s", "how long the whole measurement took"),
    Column("peak_mem_mb", FLOAT, "MB", "peak memory of the passes: on the GPU, or of the process"),
    Column("threads", INT, "", "CPU threads of one forward pass"),
    Column("error", STR, "", "why there is no latency (of int8: no accuracy); not tried again unless asked"),
    Column("torch", STR, "", "version of torch"),
    Column("host", STR, "", "name of the host"),
    Column("measured_at", TIME, "UTC", "when the measurement ended"),
    VERSION,
)  # fmt: skip
REFERENCES = (
    Column("reference", STR, "", "the small model that others are measured in alternation with"),
    Column("measured_on", STR, "", "device and thread count"),
    Column("versions", STR, "", "the packages that determine it, with their versions"),
    Column("ms", FLOAT, "ms", "median over twenty bursts of calls, which lie over two seconds"),
    Column("host", STR, "", "name of the host"),
    Column("measured_at", TIME, "UTC", "when the measurement ended"),
    VERSION,
)
OWN = {  # to the columns of a table that one task has for itself
    name: (IDS[0], *(column for column in COLUMNS if column.table == name), VERSION)
    for name in dict.fromkeys(column.table for column in COLUMNS if column.table != "trials")
}
TABLES: dict[str, tuple[Column, ...]] = {
    "trials": (*IDS, *CONFIGURATION, *QUALITY, *OF_TASKS, *COST, *EFFORT, *PROVENANCE),
    "epochs": EPOCHS,
    "latency": LATENCY,
    "references": REFERENCES,
    **OWN,
}
KEYS = {
    "trials": ("trial_id",),
    "epochs": ("trial_id", "epoch"),
    "latency": ("arch_id", "measured_on", "runtime", "versions", "batch", "precision"),
    "references": ("reference", "measured_on", "versions"),
    **dict.fromkeys(OWN, ("trial_id",)),
}
BEFORE = {"runtime": "eager", "versions": "not recorded"}  # in files without such columns, of schemas up to 4
MEASURES = {  # the columns of a trial's row, wherever they stand, that can be compared
    column.name: column
    for column in (*TABLES["trials"], *(column for columns in OWN.values() for column in columns))
}
MOVED = tuple(  # since version 4
    Move(tuple(column.name for column in columns[1:-1]), out_of="trials", into=table)
    for table, columns in OWN.items()
)
SCHEMAS = {
    table: pa.schema(
        [pa.field(c.name, c.type, metadata={"unit": c.unit, "meaning": c.meaning}) for c in columns]
    )
    for table, columns in TABLES.items()
}


def by_table(row: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """A trial's row split over `trials` and its task's own table. Raises KeyError for a key that no
    column declares.
    """
    parts: dict[str, dict[str, Any]] = {}
    for key, value in row.items():
        if key not in MEASURES:
            raise KeyError(f"no table has a column {key}; declare it where its task declares its columns")
        parts.setdefault(MEASURES[key].table, {})[key] = value
    ordered = sorted(parts, key=lambda table: table == "trials")  # whose row says that the trial is complete
    return {table: {"trial_id": row["trial_id"], **parts[table]} for table in ordered}
