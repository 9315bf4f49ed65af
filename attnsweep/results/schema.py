"""The three tables of results: every column with its type, unit and meaning, and the schemas made of them."""

from dataclasses import dataclass

import pyarrow as pa

from attnsweep.core.axes import AXES, NOT_ARCHITECTURE

SCHEMA_VERSION = 3
STATUSES = ("done", "failed", "stopped", "diverged")
FINAL = ("done", "diverged")  # running such a trial again would give the same row

STR, INT, FLOAT, BOOL, TIME = pa.string(), pa.int64(), pa.float64(), pa.bool_(), pa.timestamp("us", tz="UTC")


@dataclass(frozen=True)
class Column:
    """One column of a table: its name, Arrow type, unit and meaning."""

    name: str
    type: pa.DataType
    unit: str
    meaning: str


ARROW = {str: STR, int: INT, float: FLOAT}
CONFIGURATION = tuple(Column(axis.name, ARROW[axis.kind], axis.unit, axis.meaning) for axis in AXES.values())
ARCHITECTURE = tuple(column for column in CONFIGURATION if column.name not in NOT_ARCHITECTURE)
TOKEN_ACCURACY = "share of the answers' tokens, each end included, that decoding gets right, on the"
QUALITY = (
    Column("val_acc", FLOAT, "fraction", "accuracy on the validation split at the selected epoch, 0..1"),
    Column("test_acc", FLOAT, "fraction", "accuracy on the test split at the selected epoch, 0..1"),
    Column("val_token_acc", FLOAT, "fraction", f"sequences: {TOKEN_ACCURACY} validation split"),
    Column("test_token_acc", FLOAT, "fraction", f"sequences: {TOKEN_ACCURACY} test split"),
    Column("test_acc_long", FLOAT, "fraction", "sequences: accuracy on test examples of twice the length"),
    Column(
        "test_acc_best",
        FLOAT,
        "fraction",
        "highest test accuracy of any epoch; to compare with published tables",
    ),
    Column(
        "best_epoch",
        INT,
        "epoch",
        "the selected epoch, from 1: first with the highest val_acc or val_score",
    ),
    Column("val_loss", FLOAT, "nat", "mean loss on the validation split at the selected epoch"),
    Column("train_loss", FLOAT, "nat", "mean training loss of the last epoch"),
)
CLOSED_LOOP = "closed-loop score of NAVSIM's shape, mean over the unseen"
PARTS = "mean over test maps of the score's part"
DRIVING = (
    Column("val_score", FLOAT, "fraction", f"driving: {CLOSED_LOOP} validation maps, 0..1"),
    Column("val_at_fault", FLOAT, "fraction", "driving: share of validation maps with an at-fault collision"),
    Column("val_l2_3s", FLOAT, "m", "driving: distance of plan and expert after 3 s on validation samples"),
    Column("test_score", FLOAT, "fraction", f"driving: {CLOSED_LOOP} test maps, 0..1"),
    Column("test_score_low", FLOAT, "fraction", "driving: its 95 % interval by bootstrap over maps, below"),
    Column("test_score_high", FLOAT, "fraction", "driving: the same, above"),
    Column("test_map_scores", STR, "", "driving: the score on each test map, in their order, as a JSON list"),
    Column("test_score_turn", FLOAT, "fraction", "driving: test_score of maps on which the route turns"),
    Column("test_score_interactive", FLOAT, "fraction", "driving: of maps on which the expert must stop"),
    Column("test_score_hard", FLOAT, "fraction", "driving: of maps where constant velocity soon fails"),
    Column("test_no_collision", FLOAT, "fraction", f"driving: {PARTS} for no collision at fault"),
    Column("test_ttc", FLOAT, "fraction", f"driving: {PARTS} for time to collision"),
    Column("test_progress", FLOAT, "fraction", f"driving: {PARTS} for progress against the expert's"),
    Column("test_comfort", FLOAT, "fraction", f"driving: {PARTS} for comfort"),
    Column("test_at_fault", FLOAT, "fraction", "driving: share of test maps with an at-fault collision"),
    Column("test_off_road", FLOAT, "fraction", "driving: share of test maps on which it leaves the road"),
    Column("test_wrong_route", FLOAT, "fraction", "driving: share of test maps on which it leaves its route"),
    Column("test_success", FLOAT, "fraction", "driving: share of test maps with score > 0, progress >= 0.8"),
    Column("test_lost", FLOAT, "fraction", "driving: share of plans that cannot be driven (NaN, far off)"),
    Column("test_finish_s", FLOAT, "s", "driving: median time to the end of the route, where it is reached"),
    Column("test_score_4s", FLOAT, "fraction", "driving: the score of 4 s plans among recorded traffic"),
    *(
        Column(f"test_l2_{k}s", FLOAT, "m", f"driving: distance of plan and expert after {k} s")
        for k in (1, 2, 3, 4)
    ),
    *(
        Column(f"test_l2avg_{k}s", FLOAT, "m", f"driving: the same, averaged over the steps up to {k} s")
        for k in (1, 2, 3)
    ),
    *(
        Column(f"test_l2_3s_{part}", FLOAT, "m", f"driving: test_l2_3s of {part} samples")
        for part in ("moving", "turn", "interactive", "hard")
    ),
    *(
        Column(f"test_col_{k}s", FLOAT, "fraction", f"driving: share of plans that hit anyone up to {k} s")
        for k in (1, 2, 3, 4)
    ),
    *(
        Column(f"test_col_4s_{part}", FLOAT, "fraction", f"driving: test_col_4s of {part} samples")
        for part in ("moving", "turn", "interactive", "hard")
    ),
    Column("test_gt_col_4s", FLOAT, "fraction", "driving: the expert's own; above 0 the data is wrong"),
    Column("test_legacy_col_3s", FLOAT, "fraction", "driving: collisions by 3 s in UniAD's protocol"),
    Column("test_offroad_4s", FLOAT, "fraction", "driving: share of plans that leave the road up to 4 s"),
    Column("test_ap", FLOAT, "fraction", "driving: detection AP, mean over 0.5, 1, 2, 4 m (nuScenes)"),
    Column("test_f1_2m", FLOAT, "fraction", "driving: detection F1 at 2 m"),
    Column("test_amota", FLOAT, "fraction", "driving: average multi-object tracking accuracy at 2 m"),
    Column("test_amotp", FLOAT, "m", "driving: average multi-object tracking precision"),
    Column("test_idf1", FLOAT, "fraction", "driving: F1 of identities kept over frames"),
    *(
        Column(f"test_map_iou_{kind}", FLOAT, "fraction", f"driving: map IoU, {kind}")
        for kind in ("drivable", "border", "divider")
    ),
    *(
        Column(f"test_line_f1_{name}", FLOAT, "fraction", f"driving: F1 of map lines at {metres} m Chamfer")
        for name, metres in (("05", 0.5), ("1", 1), ("15", 1.5))
    ),
    *(
        Column(f"test_{name}_{area}", FLOAT, "fraction", f"driving: occupancy {meaning}, {area}")
        for name, meaning in (("occ_iou", "IoU over 4 s"), ("vpq", "video panoptic quality"))
        for area in ("near", "far")
    ),
    Column("test_min_ade6", FLOAT, "m", "driving: minADE of 6 futures of agents that were found"),
    Column("test_min_fde6", FLOAT, "m", "driving: minFDE of the same"),
    Column("test_miss_rate", FLOAT, "fraction", "driving: share whose best future strays by more than 2 m"),
    Column("test_epa", FLOAT, "fraction", "driving: end-to-end prediction accuracy, (TP - FP / 2) / agents"),
    Column("test_score_blank", FLOAT, "fraction", "driving: test_score with a sensor that sees nothing"),
    Column("shortcut", BOOL, "", "driving: whether the score falls by less than 0.05 without the sensor"),
    Column("highway_env_score", FLOAT, "fraction", "driving: the score in highway-env's own environments"),
)
QUALITY_OF_EPOCH = (
    "val_acc", "val_loss", "test_acc", "val_token_acc", "test_token_acc", "test_acc_long", "val_score",
    "val_at_fault", "val_l2_3s",
)  # fmt: skip
LATENCY_OF_TRIAL = (
    Column(
        "latency_ms_p50",
        FLOAT,
        "ms",
        "median time of a forward pass (sequences: of decoding an answer) at latency_batch, on measured_on",
    ),
    Column("latency_ms_p90", FLOAT, "ms", "90th percentile of the same"),
    Column("latency_ms_p99", FLOAT, "ms", "99th percentile of the same"),
    Column("latency_batch", INT, "example", "batch size of the latency columns"),
    Column("latency_ms_per_token", FLOAT, "ms", "sequences: latency_ms_p50 over the tokens decoded in it"),
    Column(
        "throughput_per_s",
        FLOAT,
        "1/s",
        "examples per second at the throughput batch (see the latency table)",
    ),
    Column("measured_on", STR, "", "device and thread count that latency and throughput were measured on"),
)
COST = (
    Column("params", INT, "", "trainable parameters"),
    Column("macs", INT, "", "multiply-accumulates of one forward pass of one example"),
    *LATENCY_OF_TRIAL[:-1],
    Column(
        "peak_mem_mb",
        FLOAT,
        "MB",
        "peak memory of training: allocated on the GPU, or resident in the worker process",
    ),
    LATENCY_OF_TRIAL[-1],
)
EFFORT = (
    Column(
        "train_s", FLOAT, "s", "wall clock of the trial in its worker, evaluation included, over all attempts"
    ),
    Column("epoch_s", FLOAT, "s", "median wall clock of one epoch's training steps"),
    Column("samples_per_s", FLOAT, "1/s", "training examples per second, median over epochs"),
    Column("started_at", TIME, "UTC", "start of the first attempt that led to this row"),
    Column("finished_at", TIME, "UTC", "when the trial ended"),
    Column("attempts", INT, "", "how many times the trial was started"),
)
PROVENANCE = (
    Column("git_sha", STR, "", "commit of the working directory; null outside a repository"),
    Column("git_dirty", BOOL, "", "whether the working directory had uncommitted changes"),
    Column("code_hash", STR, "", "hash of the package's source files"),
    Column("data_sha256", STR, "", "SHA-256 over the data set's files"),
    Column("torch", STR, "", "version of torch"),
    Column("cuda", STR, "", "version of CUDA that trained; null on other devices"),
    Column("ray", STR, "", "version of Ray"),
    Column("python", STR, "", "version of Python"),
    Column("attnsweep", STR, "", "version of this package"),
    Column("device", STR, "", "what trained: name of the GPU, or of the CPU with its thread count"),
    Column("cpu", STR, "", "name of the CPU"),
    Column("host", STR, "", "name of the host that trained"),
    Column("schema_version", INT, "", "version of this table's schema"),
)
TABLES: dict[str, tuple[Column, ...]] = {
    "trials": (
        Column("trial_id", STR, "", "12 hex digits; hash of all that determines the result"),
        Column("arch_id", STR, "", "12 hex digits; hash of all that determines latency and params"),
        Column("sweep", STR, "", "the sweep that ran the trial first"),
        Column("status", STR, "", "done, failed, stopped (by a scheduler) or diverged (loss not finite)"),
        Column("error", STR, "", "why the trial failed or diverged"),
        *CONFIGURATION, *QUALITY, *DRIVING, *COST, *EFFORT, *PROVENANCE,
    ),
    "epochs": (
        Column("trial_id", STR, "", "the trial"),
        Column("epoch", INT, "epoch", "counted from 1"),
        Column("lr", FLOAT, "", "learning rate of the epoch's last step"),
        Column("train_loss", FLOAT, "nat", "mean loss over the epoch's training steps"),
        Column("val_acc", FLOAT, "fraction", "accuracy on the validation split after the epoch, 0..1"),
        Column("val_loss", FLOAT, "nat", "mean cross-entropy on the validation split after the epoch"),
        Column("test_acc", FLOAT, "fraction", "accuracy on the test split after the epoch; selects nothing"),
        *QUALITY[2:5], *DRIVING[:3],
        Column("epoch_s", FLOAT, "s", "wall clock of the training steps"),
        Column("eval_s", FLOAT, "s", "wall clock of the evaluation"),
        Column("samples_per_s", FLOAT, "1/s", "training examples per second"),
        Column("finished_at", TIME, "UTC", "when the epoch ended"),
        Column("schema_version", INT, "", "version of this table's schema"),
    ),
    "latency": (
        Column("arch_id", STR, "", "the architecture"),
        Column("measured_on", STR, "", "device and thread count"),
        Column("batch", INT, "example", "examples in one forward pass"),
        Column("precision", STR, "", "fp32, or bf16 by autocast"),
        *ARCHITECTURE,
        Column("params", INT, "", "trainable parameters"),
        Column("macs", INT, "", "multiply-accumulates of one forward pass of one example"),
        Column(
            "latency_ms_p50",
            FLOAT,
            "ms",
            "median host time of one synchronised forward pass (sequences: of decoding an answer)",
        ),
        Column("latency_ms_p90", FLOAT, "ms", "90th percentile"),
        Column("latency_ms_p99", FLOAT, "ms", "99th percentile"),
        Column("latency_ms_per_token", FLOAT, "ms", "latency_ms_p50 over the tokens decoded in it"),
        Column("latency_ms_iqr", FLOAT, "ms", "interquartile range"),
        Column("unstable", BOOL, "", "whether the interquartile range exceeds a tenth of the median"),
        Column("device_ms", FLOAT, "ms", "time of a pass by device events, synchronised once; null on CPUs"),
        Column("throughput_per_s", FLOAT, "1/s", "examples per second: batch over the median"),
        Column("calls", INT, "", "timed calls"),
        Column("warmup_calls", INT, "", "calls before timing began"),
        Column("peak_mem_mb", FLOAT, "MB", "peak memory of the passes: on the GPU, or of the process"),
        Column("threads", INT, "", "CPU threads of one forward pass"),
        Column("torch", STR, "", "version of torch"),
        Column("host", STR, "", "name of the host"),
        Column("measured_at", TIME, "UTC", "when the measurement ended"),
        Column("schema_version", INT, "", "version of this table's schema"),
    ),
}  # fmt: skip
KEYS = {
    "trials": ("trial_id",),
    "epochs": ("trial_id", "epoch"),
    "latency": ("arch_id", "measured_on", "batch", "precision"),
}
SCHEMAS = {
    table: pa.schema(
        [pa.field(c.name, c.type, metadata={"unit": c.unit, "meaning": c.meaning}) for c in columns]
    )
    for table, columns in TABLES.items()
}
