"""Files in results and runs that are torn, damaged, of other programs or made to harm: a sentence or a skip
with a warning, never a crash, never their code run, and the rows that are good stay as they are.
"""

import ast
import functools
import io
import json
import logging
import os
import pickle
import random
import shlex
import shutil
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import attnsweep
from attnsweep import Sweep
from attnsweep.cli.pick import pick
from attnsweep.cli.show import show
from attnsweep.core.errors import UserError
from attnsweep.core.source import digest
from attnsweep.core.terminal import exit_status
from attnsweep.core.trial import Trial
from attnsweep.engine import latency
from attnsweep.engine.writer import mend
from attnsweep.figures import front, table
from attnsweep.results import provenance
from attnsweep.results.merge import merge
from attnsweep.results.schema import KEYS, SCHEMAS
from attnsweep.results.store import Store
from attnsweep.space.plan import make_plan
from attnsweep.space.rerun import rerun_line
from attnsweep.space.trials import expand, make_trial
from attnsweep.tasks.registry import resolve
from attnsweep.training.trial import Options, run

pytestmark = pytest.mark.slow

TINY = dict(model="vit", depth=1, heads=1, dim=8, dim_head=8, mlp_dim=8, batch_size=2000, epochs=2)
SWEEP = Sweep(TINY, seed={"grid_search": [0, 1, 2]}, name="good")
TRIALS, _ = expand(SWEEP.points(), Path("."))


class Touch:
    """Pickled, a command that makes a file."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.canary,)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the results of three real trials, one of them in a file of its own."""
    folder = tmp_path_factory.mktemp("finished")
    store = Store(folder / "results")
    for i, trial in enumerate(TRIALS):
        end = list(run(trial, Options(data_dir="."))).pop()
        extra = {
            "sweep": "good",
            "status": "done",
            "attempts": 1,
            "latency_ms_p50": 1.0 + i,
            "measured_on": "x",
        }
        store.write("trials", [{**end["row"], **provenance.driver(), **extra}], trial.trial_id)
        store.write("epochs", [*end["curve"]], trial.trial_id)
        if i == 1:
            store.compact()
    deployed = {"runtime": "eager", "versions": "torch 2", "batch": 1, "precision": "fp32"}
    measured = {"measured_on": "x", **deployed, "latency_ms_p50": 1.0}
    store.write("latency", [{"arch_id": TRIALS[0].arch_id, **measured}], "one")
    return folder


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    shutil.copytree(finished / "results", tmp_path / "copy/results")
    return tmp_path / "copy"


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[Path]:
    """A file that code in a hostile file would make."""
    yield tmp_path / "canary"
    assert not (tmp_path / "canary").exists(), "the code of a file was run"


@functools.cache
def untouched_rows(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """The good trials' rows in a folder that nothing changes."""
    return good_rows(folder)


def good_rows(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """The good trials' rows of each table."""
    found = {}
    for name, keys in KEYS.items():
        rows = Store(folder / "results").read(name).to_pylist()
        good = {one.arch_id if name == "latency" else one.trial_id for one in TRIALS}
        ours = [row for row in rows if row[keys[0]] in good]
        found[name] = sorted(ours, key=lambda row: [row[key] for key in keys])
    return found


def assert_good(folder: Path, finished: Path) -> None:
    """Asserts that no good row is lost, doubled or changed."""
    assert good_rows(folder) == untouched_rows(finished)


def rewritten(folder: Path) -> None:
    """The tables as the next driver mends and compacts them."""
    store = Store(folder / "results")
    mend(store, folder / "runs")
    store.compact()


def resumed(folder: Path) -> None:
    """Runs the sweep again: nothing of it is new, so that no Ray is needed, and the tables are compacted."""
    rows = attnsweep.run(SWEEP, folder / "results", data=folder, latency=False)
    assert sorted(rows["trial_id"]) == sorted(one.trial_id for one in TRIALS)
    assert set(rows["status"]) == {"done"}


def looked_at(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that reads results: each ends well, or with a sentence and status 2."""
    results = str(folder / "results")
    assert show(results, TRIALS[0].trial_id) == 0
    pick(results, asked={}, dataset="digits")
    assert latency.subjects_of(Store(results), None).keys() == {(TRIALS[0].arch_id, "fp32")}
    analysed(folder, table, monkeypatch)


def analysed(folder: Path, script: types.ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", [script.__name__, "results"])
    assert exit_status(script.main) in (0, 2)


# --- Parquet ---


def foreign(**columns: Any) -> pa.Table:
    """A table with the key of `trials`, one of its own, and some columns more."""
    return pa.table({"trial_id": pa.array([strange_id(columns)]), **columns})


def strange_id(content: Any) -> str:
    """The id of a trial that the sweep has not."""
    return digest(repr(content))[:12]


def not_text() -> pa.Array:
    """A column of text whose bytes are none."""
    buffers = pa.array([b"\xff\xfe\x00\x80"], pa.binary()).buffers()
    return pa.StringArray.from_buffers(1, buffers[1], buffers[2])


def twice() -> pa.Table:
    return pa.Table.from_arrays(
        [pa.array(["z"]), pa.array([1]), pa.array([2])], ["trial_id", "depth", "depth"]
    )


def own_row(**changes: Any) -> pa.Table:
    """A row with all columns of the table, some of them as given."""
    own = {"trial_id": strange_id(changes), "seed": int(strange_id(changes)[:6], 16)}
    row = {**TRIALS[0].row(), **own, "status": "done", "sweep": "hostile", **changes}
    return pa.Table.from_pylist([row], schema=SCHEMAS["trials"])


def with_metadata(content: pa.Table, **entries: bytes) -> pa.Table:
    return content.replace_schema_metadata({**(content.schema.metadata or {}), **entries})


LIES = {
    "index_columns": ["nothing"], "columns": [{"name": "x", "pandas_type": "object", "numpy_type": "object"}],
    "partition_columns": ["y"], "column_indexes": [{"name": None}], "pandas_version": "99",
}  # fmt: skip
TABLES: dict[str, Callable[[], pa.Table]] = {
    "no key": lambda: pa.table({"x": [1]}),
    "no rows": lambda: foreign().slice(0, 0),
    "no columns": lambda: pa.table({}),
    "key of numbers": lambda: pa.table({"trial_id": [1, 2]}),
    "key of lists": lambda: pa.table({"trial_id": [[1]]}),
    "key of structs": lambda: pa.table({"trial_id": [{"a": {"b": [1]}}]}),
    "null as a key": lambda: pa.table({"trial_id": pa.array([None, "a"], pa.string())}),
    "column of nulls as a key": lambda: pa.table({"trial_id": pa.nulls(3)}),
    "key that is no text": lambda: pa.table({"trial_id": not_text()}),
    "value that is no text": lambda: foreign(error=not_text()),
    "binary for text": lambda: foreign(error=pa.array([b"\xff"])),
    "text for a number": lambda: foreign(lr=["high"]),
    "number that does not fit": lambda: foreign(depth=[1e300]),
    "struct for a number": lambda: foreign(depth=[{"x": 1}]),
    "map for a text": lambda: foreign(error=pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int64()))),
    "dictionary for a text": lambda: foreign(status=pa.array(["done"]).dictionary_encode()),
    "columns that nobody knows": lambda: foreign(**{f"x{i}": [i] for i in range(300)}),
    "one column twice": twice,
    "path as an id": lambda: own_row(trial_id="../../escaped"),
    "absolute path as an id": lambda: own_row(trial_id="/tmp/escaped"),
    "nul in an id": lambda: own_row(trial_id="a\0b"),
    "endless id": lambda: own_row(trial_id="a" * 1_000_000),
    "path as an architecture": lambda: own_row(arch_id="../../escaped"),
    "other architecture": lambda: own_row(arch_id="ba9876543210", dim=65536, depth=1000),
    "unknown status": lambda: own_row(status="exploded"),
    "no status": lambda: own_row(status=None),
    "time that ends never": lambda: own_row(train_s=float("inf")),
    "time that is none": lambda: own_row(train_s=float("nan"), val_acc=float("nan"), test_acc=float("inf")),
    "negative time": lambda: own_row(train_s=-1e300, epochs=-5, params=-1, latency_ms_p50=-1.0),
    "year 300,000": lambda: foreign(finished_at=pa.array([9 * 10**18], pa.timestamp("us", "UTC"))),
    "unknown zone": lambda: foreign(finished_at=pa.array([1], pa.timestamp("us", "Mars/Olympus"))),
    "markup as an error": lambda: own_row(status="failed", error="[/red][bold]\x1b[2J" * 9),
    "lies to pandas": lambda: with_metadata(own_row(), pandas=json.dumps(LIES).encode()),
    "nonsense for pandas": lambda: with_metadata(own_row(), pandas=b"\xff{"),
    "a megabyte of metadata": lambda: with_metadata(own_row(), mine=b"x" * 1_000_000),
}  # fmt: skip


def put(folder: Path, content: pa.Table, name: str) -> None:
    """Writes a file into each table."""
    for table_name in KEYS:
        (folder / f"results/{table_name}").mkdir(exist_ok=True)
        pq.write_table(content, folder / f"results/{table_name}/{name}.parquet")


@pytest.mark.parametrize("make", TABLES.values(), ids=TABLES)
def test_a_parquet_file_of_any_content_costs_no_good_row(
    make: Callable[[], pa.Table], folder: Path, finished: Path
) -> None:
    put(folder, make(), "aaa")
    assert_good(folder, finished)
    attnsweep.load(folder / "results", status=None)
    rewritten(folder)
    assert_good(folder, finished)


def test_all_such_files_together_stop_no_command_and_leave_a_front(
    folder: Path, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i, make in enumerate(TABLES.values()):
        put(folder, make(), f"aaa{i}")
    before = {path for path in folder.parent.rglob("*")}
    looked_at(folder, monkeypatch)
    analysed(folder, front, monkeypatch)
    assert_good(folder, finished)
    resumed(folder)
    assert_good(folder, finished)
    merge(folder / "results", folder / "merged")
    assert_good(folder, finished)
    new = {path for path in folder.parent.rglob("*")} - before
    allowed = [folder / name for name in ("results", "runs", "merged", "figures")]
    assert all(any(path == one or one in path.parents for one in allowed) for path in new)


def test_no_extension_type_of_a_file_is_unpickled(folder: Path, finished: Path, canary: Path) -> None:
    payload = pickle.dumps(Touch(canary), protocol=0)  # which is text, too
    names = (
        "arrow.py_extension_type", "ray.data.arrow_tensor", "ray.data.arrow_pickled_object", "pandas.period",
        "arrow.opaque",
    )  # fmt: skip
    for i, name in enumerate(names):
        metadata = {b"ARROW:extension:name": name.encode(), b"ARROW:extension:metadata": payload}
        fields = [pa.field("trial_id", pa.string()), pa.field("error", pa.binary(), metadata=metadata)]
        content = pa.table([pa.array(["0123456789ab"]), pa.array([payload])], schema=pa.schema(fields))
        pq.write_table(content, folder / f"results/trials/aaa{i}.parquet")
    assert_good(folder, finished)
    resumed(folder)
    assert_good(folder, finished)


def damage(folder: Path, *kinds_of_damage: str) -> None:
    """Puts things that are no tables of ours beside the good files of `trials`."""
    content = sorted((folder / "results/trials").iterdir())[0].read_bytes()
    for i, kind in enumerate(kinds_of_damage):
        put_damaged(folder / f"results/trials/aaa{i}.parquet", kind, content)


def put_damaged(path: Path, kind: str, content: bytes) -> None:
    """Puts one of these things there, some of them made of the content of a good file."""
    folder = path.parents[2]
    kinds: dict[str, Callable[[], Any]] = {
        "no byte": lambda: path.write_bytes(b""),
        "zeros": lambda: path.write_bytes(bytes(4096)),
        "magic alone": lambda: path.write_bytes(b"PAR1PAR1"),
        "footer of 2 GiB": lambda: path.write_bytes(b"PAR1" + b"\xff\xff\xff\x7f" + b"PAR1"),
        "encrypted": lambda: path.write_bytes(b"PARE" + content[4:-4] + b"PARE"),
        "torn": lambda: path.write_bytes(content[: len(content) // 2]),
        "footer alone": lambda: path.write_bytes(b"PAR1" + content[-9000:]),
        "pickle": lambda: path.write_bytes(pickle.dumps(Touch(folder.parent / "canary"))),
        "folder": lambda: path.mkdir(),
        "link to nothing": lambda: path.symlink_to("nowhere"),
        "link to itself": lambda: path.symlink_to(path),
        "link to a folder": lambda: path.symlink_to(folder),
        "link to a secret": lambda: path.symlink_to("/etc/passwd"),
        "pipe": lambda: os.mkfifo(path),
        "name that is no text": lambda: (path.parent / os.fsdecode(b"\xff\xfe.parquet")).write_bytes(b"PAR1"),
        "name with a line break": lambda: (path.parent / "a\nb.parquet").write_bytes(b"PAR1"),
    }
    kinds[kind]()


KINDS = (
    "no byte", "zeros", "magic alone", "footer of 2 GiB", "encrypted", "torn", "footer alone", "pickle",
    "folder", "link to nothing", "link to itself", "link to a folder", "link to a secret", "pipe",
    "name that is no text", "name with a line break",
)  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_parquet_file_costs_no_good_row(
    kind: str, folder: Path, finished: Path, canary: Path
) -> None:
    damage(folder, kind)
    assert_good(folder, finished)
    rewritten(folder)
    assert_good(folder, finished)


def test_all_such_things_together_stop_no_command(
    folder: Path, finished: Path, canary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    damage(folder, *KINDS)
    looked_at(folder, monkeypatch)
    resumed(folder)
    assert_good(folder, finished)


def test_a_file_that_may_not_be_read_is_left_where_it_is(
    folder: Path, finished: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Root may read everything: for it, opening is refused here."""
    pq.write_table(own_row(), folder / "results/trials/aaa.parquet")
    (folder / "results/trials/aaa.parquet").chmod(0)
    if os.geteuid() == 0:
        refuse(monkeypatch, "aaa.parquet")
    with caplog.at_level(logging.WARNING, "attnsweep"):
        assert_good(folder, finished)
        resumed(folder)
    assert "aaa.parquet, which cannot be read (" in caplog.text
    assert (folder / "results/trials/aaa.parquet").exists()


def refuse(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Has the system refuse to open files of that name."""
    opened = os.open

    def guard(path: Any, *arguments: Any, **named: Any) -> int:
        if str(path).endswith(name):
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *arguments, **named)

    monkeypatch.setattr(os, "open", guard)


def test_a_flipped_bit_is_noticed_or_changes_nothing(folder: Path, finished: Path) -> None:
    """In the pages: each has a checksum. The footer has none; a bit there may rename a column."""
    path = folder / f"results/trials/{TRIALS[2].trial_id}.parquet"
    whole, chance = path.read_bytes(), random.Random(0)
    footer = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    expected, noticed = Store(finished / "results").read("trials").to_pylist(), 0
    for _ in range(80):
        at = chance.randrange(4, footer)
        flipped = bytearray(whole)
        flipped[at] ^= 1 << chance.randrange(8)
        path.write_bytes(flipped)
        rows = Store(folder / "results").read("trials").to_pylist()
        noticed += len(rows) < len(expected)
        assert [row for row in expected if row["trial_id"] in {one["trial_id"] for one in rows}] == rows
        assert len(rows) >= 2, "the other files' rows"
    assert noticed > 40


def test_no_bit_of_a_footer_crashes_a_reader(folder: Path) -> None:
    path = folder / f"results/trials/{TRIALS[2].trial_id}.parquet"
    whole, chance = path.read_bytes(), random.Random(1)
    footer = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    for _ in range(80):
        flipped = bytearray(whole)
        for _ in range(chance.choice((1, 1, 1, 8))):
            flipped[chance.randrange(footer, len(whole))] ^= 1 << chance.randrange(8)
        path.write_bytes(flipped)
        rows = attnsweep.load(folder / "results", status=None)
        assert {one.trial_id for one in TRIALS[:2]} <= {*rows["trial_id"]}
        assert rows["trial_id"].is_unique


# --- Rows that would become code ---


HOSTILE = ("`touch {canary}`", "$(touch {canary})", "'; touch {canary}; '", '"; touch {canary}; "', "!!\\")


@pytest.mark.parametrize("text", HOSTILE)
def test_the_line_that_reruns_a_trial_runs_nothing_else(text: str, canary: Path, tmp_path: Path) -> None:
    hostile = text.format(canary=canary)
    arguments = json.dumps({"note": hostile, "width": 3})
    row = {
        **dict.fromkeys(SCHEMAS["trials"].names),
        **TRIALS[0].row(),
        "model": hostile,
        "model_args": arguments,
    }
    line = rerun_line(row)
    (tmp_path / "python").write_text('#!/bin/sh\nprintf %s "$2"\n')
    (tmp_path / "python").chmod(0o755)
    shell = subprocess.run(
        ["bash", "-c", line], env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, text=True, capture_output=True
    )
    call = ast.parse(shell.stdout).body[1].value  # type: ignore[attr-defined]
    given = {one.arg: ast.literal_eval(one.value) for one in call.args[0].keywords}
    assert (given["model"], given["note"], given["width"]) == (hostile, hostile, 3)
    assert shlex.split(line)[:2] == ["python", "-c"]


@pytest.mark.parametrize("text", ["{", "[1]", '{"x=print(1), y": 1}', '{"a b": 1}'])
def test_arguments_that_are_none_are_refused(text: str) -> None:
    row = {**dict.fromkeys(SCHEMAS["trials"].names), **TRIALS[0].row(), "model_args": text}
    with pytest.raises(UserError, match="not one of ours"):
        rerun_line(row)


def model_file(folder: Path, canary: Path) -> Path:
    path = folder / "evil.py"
    path.write_text(f"from pathlib import Path\nPath({str(canary)!r}).touch()\n")
    return path


def of_own_model(path: Path) -> Trial:
    """A trial of the model in a file, with ids as this package would give them."""
    named = {"model": f"{path}:Evil", "model_sha256": digest(path.read_text())}
    config = {**TRIALS[0].config, **named}
    from attnsweep.space.trials import arch_id_of

    return replace(TRIALS[0], trial_id="0123456789ab", arch_id=arch_id_of(config), config=config)


def test_code_of_others_that_only_a_row_names_is_not_run(
    folder: Path, tmp_path: Path, canary: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = model_file(tmp_path, canary)
    trial, store = of_own_model(path), Store(folder / "results")
    store.write("trials", [{**trial.row(), "status": "done"}], "aaa")
    good = (TRIALS[0].arch_id, "fp32")
    assert latency.subjects_of(store, None).keys() == {good, (trial.arch_id, "fp32")}, "the file is one's own"
    path.chmod(0o666)
    assert latency.subjects_of(store, None).keys() == {good}
    assert "may be somebody else's code" in caplog.text
    path.unlink()
    assert latency.subjects_of(store, None).keys() == {good}
    caplog.clear()
    assert latency.subjects_of(store, None, chosen=good[:1]).keys() == {good}
    assert caplog.messages == [], "nothing is said of what is not asked for"


def test_a_row_cannot_pass_code_off_as_a_trial_of_the_sweep(
    folder: Path, tmp_path: Path, canary: Path
) -> None:
    trial, store = of_own_model(model_file(tmp_path, canary)), Store(folder / "results")
    ours = {one.trial_id: one.arch_id for one in TRIALS}
    for arch_id in (trial.arch_id, TRIALS[2].arch_id):
        row = {**trial.row(), "trial_id": TRIALS[2].trial_id, "arch_id": arch_id, "status": "done"}
        store.write("trials", [row], TRIALS[2].trial_id)
        configs = latency.subjects_of(store, ours).values()
        assert all(one.config["model"] == "vit" for one in configs)


def test_a_log_of_starts_that_is_no_text_is_no_error(folder: Path) -> None:
    from attnsweep.core.terminal import screen
    from attnsweep.engine.live import Live
    from attnsweep.engine.recorder import Recorder

    plan, store = make_plan(SWEEP, (TRIALS, []), []), Store(folder / "results")
    (folder / "runs").mkdir()
    (folder / "runs/starts.log").write_bytes(b"\xff\xfe\0 " + TRIALS[0].trial_id.encode() + b"\n\x80")
    recorder = Recorder("good", store, folder / "runs", Live(screen(), plan, slots=1))
    assert recorder.starts[TRIALS[0].trial_id] == 1


# --- Checkpoints ---


def state_of(trial: Trial, folder: Path, *, epochs: int = 1) -> dict[str, Any]:
    """A checkpoint as the trial leaves it after so many epochs."""
    options = Options(data_dir=".", runs_dir=str(folder), checkpoint_s=0)
    begun = run(trial, options)
    for _ in range(epochs):
        next(begun)
    begun.close()
    state: dict[str, Any] = torch.load(folder / trial.trial_id / "checkpoint.pt", weights_only=True)
    return state


LONG = make_trial(resolve({**TINY, "epochs": 3}), Path("."))
OTHER = make_trial(resolve({**TINY, "epochs": 3, "seed": 7}), Path("."))


def changed(state: dict[str, Any], *path: Any, value: Any) -> dict[str, Any]:
    """The state with one thing in its depth changed."""
    *above, last = path
    part = state
    for key in above:
        part = part[key]
    part[last] = value
    return state


def first(state: dict[str, Any]) -> str:
    return next(iter(state["model"]))


def filled(state: dict[str, Any], value: float) -> torch.Tensor:
    """Something of the first weight's shape."""
    return torch.full_like(state["model"][first(state)], value)


DAMAGE: dict[str, Callable[[dict[str, Any]], Any]] = {
    "nothing": lambda state: {},
    "a list": lambda state: [state],
    "weights that are not finite": lambda state: changed(
        state, "model", first(state), value=filled(state, float("nan"))
    ),
    "weights of another shape": lambda state: changed(state, "model", first(state), value=torch.zeros(3, 3)),
    "a weight too many": lambda state: changed(state, "model", "more", value=torch.zeros(1)),
    "no weights": lambda state: changed(state, "model", value={}),
    "weights of text": lambda state: changed(state, "model", first(state), value="text"),
    "moments that are not finite": lambda state: changed(
        state, "optimizer", "state", 0, "exp_avg", value=filled(state, float("inf"))
    ),
    "another decay": lambda state: changed(state, "optimizer", "param_groups", 0, "weight_decay", value=1e9),
    "other betas": lambda state: changed(state, "optimizer", "param_groups", 0, "betas", value=(0.0, 0.0)),
    "no order": lambda state: changed(state, "order", value=None),
    "too short an order": lambda state: changed(state, "order", value=torch.zeros(3, dtype=torch.uint8)),
    "no curve": lambda state: changed(state, "curve", value=[]),
    "a curve of text": lambda state: changed(state, "curve", value="curve"),
    "too many epochs": lambda state: changed(state, "curve", value=state["curve"] * 50),
    "an epoch twice": lambda state: changed(state, "curve", value=state["curve"] * 2),
    "an epoch that comes later": lambda state: changed(state, "curve", 0, "epoch", value=2),
    "an accuracy of text": lambda state: changed(state, "curve", 0, "val_acc", value="high"),
    "an accuracy that is none": lambda state: changed(state, "curve", 0, "val_acc", value=float("nan")),
    "no accuracy": lambda state: state["curve"][0].pop("val_acc") and state,
    "an unknown column": lambda state: changed(state, "curve", 0, "wealth", value=1.0),
    "no end of an epoch": lambda state: changed(state, "curve", 0, "finished_at", value="soon"),
    "endless training": lambda state: changed(state, "train_s", value=float("inf")),
    "training of text": lambda state: changed(state, "train_s", value="long"),
    "no beginning": lambda state: changed(state, "started_at", value="once"),
    "best weights of text": lambda state: changed(state, "best_weights", value={"x": "text"}),
    "another trial": lambda state: changed(state, "curve", 0, "trial_id", value=OTHER.trial_id),
}  # fmt: skip


def timeless(row: dict[str, Any]) -> dict[str, Any]:
    """What of a row does not depend on when and how fast it was made."""
    timed = ("_s", "_at", "_mb")
    return {key: value for key, value in row.items() if not key.endswith(timed)}


@pytest.fixture(scope="module")
def undisturbed() -> dict[str, Any]:
    end = list(run(LONG, Options(data_dir="."))).pop()
    assert end["status"] == "done"
    return timeless(end["row"])


def goes_on(folder: Path) -> tuple[dict[str, Any], int]:
    """The end of the trial whose checkpoint lies in the folder, and with which epoch it began."""
    events = list(run(LONG, Options(data_dir=".", runs_dir=str(folder), checkpoint_s=1e9)))
    assert events[-1]["status"] == "done"
    told = next(event["epoch"] for event in events if "epoch" in event)
    return timeless(events[-1]["row"]), told


def begins_anew(folder: Path) -> bool:
    """Whether the trial whose checkpoint lies in the folder begins with its first epoch, and does in it what
    it would have done without the checkpoint.
    """
    events = run(LONG, Options(data_dir=".", runs_dir=str(folder), checkpoint_s=1e9))
    first_event = next(event for event in events if "epoch" in event)
    events.close()
    return first_event["epoch"] == 1 and [*map(timeless, first_event["curve"])] == first_epoch()


@functools.cache
def first_epoch() -> list[dict[str, Any]]:
    """The learning curve of the trial after an epoch, where there is no checkpoint."""
    events = run(LONG, Options(data_dir="."))
    curve = next(event["curve"] for event in events if "epoch" in event)
    events.close()
    return [*map(timeless, curve)]


def test_a_whole_checkpoint_is_gone_on_from(tmp_path: Path, undisturbed: dict[str, Any]) -> None:
    state_of(LONG, tmp_path)
    assert goes_on(tmp_path) == (undisturbed, 2)


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The file of a checkpoint as the trial leaves it after an epoch."""
    folder = tmp_path_factory.mktemp("left")
    state_of(LONG, folder)
    return (folder / LONG.trial_id / "checkpoint.pt").read_bytes()


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_checkpoint_that_no_such_trial_left_is_skipped(
    damage: Callable[[dict[str, Any]], Any], left: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / LONG.trial_id).mkdir()
    damaged_state = damage(torch.load(io.BytesIO(left), weights_only=True))
    torch.save(damaged_state, tmp_path / LONG.trial_id / "checkpoint.pt")
    with caplog.at_level(logging.WARNING, "attnsweep"):
        assert begins_anew(tmp_path)
    assert "skipped the checkpoint" in caplog.text


def test_an_absurd_rate_in_a_checkpoint_has_no_effect(tmp_path: Path, undisturbed: dict[str, Any]) -> None:
    state = changed(state_of(LONG, tmp_path), "optimizer", "param_groups", 0, "lr", value=1e30)
    torch.save(state, tmp_path / LONG.trial_id / "checkpoint.pt")
    assert goes_on(tmp_path) == (undisturbed, 2), "the rate is set in every step"


def test_the_checkpoint_of_another_seed_is_skipped(tmp_path: Path, undisturbed: dict[str, Any]) -> None:
    state_of(OTHER, tmp_path)
    shutil.copytree(tmp_path / OTHER.trial_id, tmp_path / LONG.trial_id)
    assert goes_on(tmp_path) == (undisturbed, 1)


def test_no_code_in_a_checkpoint_is_run(tmp_path: Path, canary: Path) -> None:
    state, path = state_of(LONG, tmp_path), tmp_path / LONG.trial_id / "checkpoint.pt"
    for part in ("model", "curve", "rng", "best_weights", "more"):
        torch.save({**state, part: Touch(canary)}, path)
        assert begins_anew(tmp_path)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        path.write_bytes(pickle.dumps(Touch(canary), protocol=protocol))
        assert begins_anew(tmp_path)


def test_torn_and_flipped_checkpoints_end_as_the_same_row(
    tmp_path: Path, undisturbed: dict[str, Any]
) -> None:
    """A flipped bit that is noticed by nobody is one of a number: those are covered by the zip's checksum."""
    state_of(LONG, tmp_path)
    path, chance = tmp_path / LONG.trial_id / "checkpoint.pt", random.Random(2)
    whole = path.read_bytes()
    for _ in range(8):
        path.write_bytes(whole[: chance.randrange(len(whole))])
        assert goes_on(tmp_path)[0] == undisturbed
    for _ in range(12):
        flipped = bytearray(whole)
        flipped[chance.randrange(len(whole))] ^= 1 << chance.randrange(8)
        path.write_bytes(flipped)
        assert goes_on(tmp_path)[0] == undisturbed
