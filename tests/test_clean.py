"""Text from rows, files and URIs is shown as text: no terminal obeys it, and no key stands in it."""

import io
import json
import logging
import re
import unicodedata
import xml.etree.ElementTree
from collections import Counter
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnsweep.__main__ import main
from attnsweep.core.clean import KEPT, MOST, UNSEEN, clean, cleaned, lines, without_secrets
from attnsweep.core.errors import Interrupted, Unreachable, UserError, reason
from attnsweep.core.terminal import Screen
from attnsweep.engine.cluster import without_key
from attnsweep.engine.live import Live
from attnsweep.results.schema import SCHEMAS, STR
from attnsweep.results.store import Store
from attnsweep.space.plan import folders_of, make_plan
from attnsweep.space.sweep import Sweep
from attnsweep.space.trials import expand

CLEAR, TITLE, COLOUR, CSI = "\x1b[2J", "\x1b]0;owned\x07", "\x1b[31m", "\x9b2J"
BIDI, HIDDEN, FORGED = "\u202etxt.exe\u202c", "\U000e0041", "\nattnsweep: all is well"
HOSTILE = f"x{CLEAR}{TITLE}{COLOUR}{CSI}{BIDI}{HIDDEN}\r\b{FORGED}"


def is_clean(text: str) -> bool:
    """Whether a terminal obeys nothing of it but the ends of lines, and none of those is forged."""
    return text.replace("\n", "").replace("\t", "").isprintable() and FORGED not in text


# --- One text ---


def test_what_cannot_be_seen_is_written_as_an_escape() -> None:
    assert clean("a\x1b[2Jb") == r"a\x1b[2Jb"
    assert clean("a\nb\tc") == "a\\nb\tc" and lines("a\nb\x1b") == "a\nb\\x1b"
    assert clean("\u202eabc") == r"\u202eabc" and clean("\x9b") == r"\x9b" and clean("\ud800") == r"\ud800"


@pytest.mark.parametrize("text", ["größe", "注意", "👩‍💻", "می‌خواهم", "a b", "100 %", r"C:\x", ""])
def test_what_people_write_stays_as_it_is(text: str) -> None:
    assert clean(text) == text


@pytest.mark.slow
@given(st.text())
def test_every_text_becomes_one_line_that_a_terminal_prints(text: str) -> None:
    shown = clean(text)
    assert not {unicodedata.category(char) for char in shown if char not in KEPT} & set(UNSEEN)
    assert clean(shown) == shown
    shown.encode()


def test_nobody_reads_a_million_characters() -> None:
    assert len(clean("x" * 1_000_000)) < MOST + 50 and clean("x" * MOST) == "x" * MOST


# --- Keys in URIs ---


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("s3://KEY:SECRET@bucket/a", "s3://***@bucket/a"),
        ("s3://KEY:SEC/RET+x=@bucket/a?region=eu", "s3://***@bucket/a?region=eu"),
        ("S3://KEY@bucket", "S3://***@bucket"),
        ("abfs://:KEY@account.dfs.core.windows.net/a", "abfs://***@account.dfs.core.windows.net/a"),
        ("s3://b/a?access_key=KEY&secret_key=SECRET&region=eu", "s3://b/a?access_key=***&secret_key=***&region=eu"),
        ("abfs://b/a?sas_token=TOKEN", "abfs://b/a?sas_token=***"),
        ("https://b/a?X-Amz-Signature=SIG&X-Amz-Credential=ID", "https://b/a?X-Amz-Signature=***&X-Amz-Credential=***"),
        ("cannot parse 's3://K:S@b' or s3://K:S@c", "cannot parse 's3://***@b' or s3://***@c"),
        ("s3://bucket/user@example/a", "s3://bucket/user@example/a"),
        ("s3://bucket:9000/a", "s3://bucket:9000/a"),
        ("token_dim=16", "token_dim=16"),
        ("/home/ada/a?b=c", "/home/ada/a?b=c"),
    ],
)  # fmt: skip
def test_keys_in_a_uri_are_left_out(text: str, shown: str) -> None:
    assert without_secrets(text) == clean(text) == shown


KEYED = "s3://AKIDEXAMPLE:wJalrXUtnFEMI@bucket/results?secret_key=bPxRfiCYEXAMPLE"
KEYS = ("AKIDEXAMPLE", "wJalrXUtnFEMI", "bPxRfiCYEXAMPLE")


def test_no_sentence_error_or_warning_has_a_key_of_a_uri(caplog: pytest.LogCaptureFixture) -> None:
    log = logging.getLogger("attnsweep")
    log.warning("the store %s does not answer", KEYED)
    texts = [caplog.text, str(UserError(KEYED)), str(Interrupted(KEYED)), str(Unreachable(KEYED))]
    texts += [reason(OSError(KEYED)), reason(UserError(KEYED))]
    assert all("***@bucket" in text for text in texts)
    assert not [key for text in texts for key in KEYS if key in text]


@pytest.mark.parametrize(
    "words",
    [
        ["pick", "--results"], ["show", "abc", "--results"], ["doctor", "--results"], ["plot"], ["table"],
        ["measure", "--results"],
    ],
)  # fmt: skip
@pytest.mark.parametrize("uri", [KEYED, KEYED.replace("s3", "nosuch"), "s3://KEY:wJalrXUtnFEMI/@@@bucket"])
def test_no_command_prints_the_key_of_its_results(
    words: list[str], uri: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setattr("attnsweep.results.storage.PATIENCE_S", 0.0)
    if words[0] == "doctor":
        monkeypatch.setattr("attnsweep.cli.doctor.findings", lambda *_: ())
    assert main([*words, uri]) in (1, 2)
    printed = "".join(capfd.readouterr())
    assert printed and not [key for key in KEYS if key in printed]


@pytest.mark.parametrize("address", ["ada:KEY@head:6379", "ray://ada:KEY@head:10001", "head:6379?token=KEY"])
def test_the_key_of_an_address_is_left_out(address: str) -> None:
    assert without_key(address) == address.replace("ada:KEY", "***").replace("KEY", "***")
    assert without_key("127.0.0.1:6379") == "127.0.0.1:6379"


def test_a_key_does_not_travel_to_a_cluster(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Ray would keep it among what it tells of its jobs."""
    (tmp_path / "s.py").write_text("from attnsweep import Sweep\nsweep = Sweep(model='vit')\n")
    (tmp_path / "c.yaml").write_text("")
    command = [str(tmp_path / "s.py"), "--cluster", str(tmp_path / "c.yaml"), "--results", KEYED]
    assert main(command) == 2
    said = capsys.readouterr().err
    assert "AWS_ACCESS_KEY_ID" in said and not [key for key in KEYS if key in said]


def test_the_closing_lines_name_results_without_a_key(capsys: pytest.CaptureFixture[str]) -> None:
    from attnsweep.engine.console import show_closing

    counts = Counter(done=1)
    show_closing(
        Screen(width=200), counts, folders_of(KEYED).results, 1.0, tasks={"images"}, interrupted=False
    )
    printed = capsys.readouterr().out
    assert "s3://***@bucket/results" in printed and not [key for key in KEYS if key in printed]


# --- Rows ---


def hostile_rows(folder: Path, text: str) -> Path:
    """Results whose rows have the text wherever a text may be; two done ones on one data set, one failed."""
    trials, _ = expand(Sweep(model={"grid_search": ["vit", "cnn"]}).points(), folder)
    store, texts = Store(folder / "results"), {f.name: text for f in SCHEMAS["trials"] if f.type == STR}
    kept = {"task": "images", "status": "done", "model_args": json.dumps({text: text, "n": 1})}
    for i, trial in enumerate(trials):
        named = {
            "trial_id": trial.trial_id,
            "arch_id": trial.arch_id,
            "model": f"{trial.config['model']}{text}",
        }
        measures = {"val_acc": 0.5, "test_acc": 0.5 + i / 10, "latency_ms_p50": 1.0 + i, "latency_batch": 1}
        row = {**trial.row(), **texts, **kept, **named, **measures, "schema_version": 4}
        store.write("trials", [row], trial.trial_id)
        store.write("epochs", [{"trial_id": trial.trial_id, "epoch": 1, "val_acc": 0.5}], trial.trial_id)
    return folder / "results"


def run(words: list[str], capfd: pytest.CaptureFixture[str]) -> str:
    assert main(words) in (0, 2)
    return "".join(capfd.readouterr())


@pytest.mark.slow
@pytest.mark.parametrize("text", [HOSTILE, FORGED, "|\x1b[8m|"])  # the first holds all others
def test_no_command_shows_what_a_terminal_would_obey(
    tmp_path: Path, text: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    results = str(hostile_rows(tmp_path, text))
    trial_id = Store(results).read("trials")["trial_id"][0].as_py()
    commands = [
        ["pick", "--results", results], ["pick", "--results", results, "--latency-ms", "0.001"],
        ["pick", "--results", results, "--dataset", "other"], ["show", trial_id, "--results", results],
        ["table", results], ["table", results, "--by", "model_args"], ["plot", results],
        ["plot", results, "--dataset", "other"], ["attention", trial_id, "--results", results],
        ["planning", results], ["show", "nothing", "--results", results],
    ]  # fmt: skip
    for words in commands:
        printed = run(words, capfd)
        assert printed and is_clean(printed), (words, printed)
    for path in (tmp_path / "figures").glob("*.svg"):
        xml.etree.ElementTree.parse(path)


def test_rows_that_cannot_be_compared_are_listed_cleanly(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    results = hostile_rows(tmp_path, HOSTILE)
    row = {"trial_id": "z", "status": "done", "task": "images", "model": "vit", "params": 5, "val_acc": 0.1}
    Store(results).write("trials", [{**row, "dataset": HOSTILE * 2}], "z")
    printed = run(["pick", "--results", str(results)], capfd)
    assert "cannot be compared" in printed and is_clean(printed)


def test_a_warning_about_a_file_is_one_clean_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "results/trials"
    folder.mkdir(parents=True)
    name = HOSTILE.replace("/", "") + ".parquet"
    pq.write_table(pa.table({"x": [1]}), folder / "a.parquet")
    (folder / "a.parquet").rename(folder / name)
    Store(tmp_path / "results").read("trials")
    (record,) = caplog.records
    assert is_clean(record.getMessage()) and "\n" not in record.getMessage()


def test_the_live_table_shows_the_error_of_a_trial_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    trials, _ = expand(Sweep(model="vit").points(), Path("."))
    plan = make_plan(Sweep(model="vit"), (trials, []), [])
    live = Live(Screen(width=400), plan, slots=1)
    live.started(trials[0])
    live.ended(trials[0].trial_id, {"status": "failed", "error": f"[bold]{HOSTILE}"})
    printed = capsys.readouterr().out
    assert "[bold]x\\x1b[2J" in printed and is_clean(printed)


def test_a_terminal_keeps_its_colours_and_gets_no_others() -> None:
    file = io.StringIO()
    screen = Screen(file=file, force_terminal=True, color_system="standard", width=400)
    screen.print(f"[red]bad[/]: {HOSTILE}", highlight=False)
    assert re.findall(r"\x1b\[[0-9;]*m", file.getvalue()) == ["\x1b[31m", "\x1b[0m"]
    assert is_clean(re.sub(r"\x1b\[[0-9;]*m", "", file.getvalue()).replace(FORGED, ""))


def test_rows_are_cleaned_and_stay_otherwise_as_they_are() -> None:
    frame = pd.DataFrame(
        {"model": ["vit", "a\x1b", None], "depth": [1.0, 2.0, None], "done": [True, False, None]}
    )
    shown = cleaned(frame)
    assert shown["model"].tolist()[:2] == ["vit", r"a\x1b"] and pd.isna(shown["model"][2])
    pd.testing.assert_frame_equal(shown.drop(columns="model"), frame.drop(columns="model"))
    frame = pd.DataFrame({"model": pd.Categorical(["vit", "a\x1b"])})
    assert cleaned(frame)["model"].tolist() == ["vit", r"a\x1b"]


@pytest.mark.slow
@pytest.mark.parametrize("text", ["{", "[1]", "null", "[" * 5000, '{"a": "\\u001b[2J"}'])
def test_arguments_that_are_none_are_shown_as_they_are(
    tmp_path: Path, text: str, capfd: pytest.CaptureFixture[str]
) -> None:
    results = hostile_rows(tmp_path, "x")
    rows = Store(results).read("trials").to_pylist()
    for i, row in enumerate(rows):
        Store(results).write("trials", [{**row, "model_args": text if i else "{}"}], row["trial_id"])
    for words in (["table", str(results)], ["pick", "--results", str(results)]):
        assert is_clean(run(words, capfd))


def test_what_is_hostile_here_is_seen_to_be() -> None:
    assert not any(map(is_clean, (HOSTILE, CLEAR, TITLE, CSI, BIDI, HIDDEN, FORGED)))
