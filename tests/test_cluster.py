"""A cluster of machines that are as real as Linux makes them: `ray up`, sweeps from a laptop, `ray down`."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import yaml

from attnsweep.results import provenance
from attnsweep.results.store import Store

import hosts
from commands import PATIENCE_S, wait_for
from hosts import REPOSITORY, Machine

pytestmark = pytest.mark.cluster

FILE = "/root/work/cluster-local.yaml"
EPOCHS, TRIALS = 24, 12  # enough for a command to begin, and to join or stop them, while trials are left
SWEEP = ("sweeps/quickstart.py", "model=vit,cnn", "--no-latency", "--cluster", FILE)
QUICK = (*SWEEP, "seed=0,1,2", f"epochs={EPOCHS}")


class Laptop:
    """The machine that a person sits at, with a folder of work and what was printed there."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.work = machine.root / "root/work"

    def attnsweep(self, *words: str) -> "Command":
        """Starts a command of this package's."""
        run = (sys.executable, "-m", "attnsweep", *words)
        process = self.machine.start(*run, folder="/root/work", PYTHONPATH=str(REPOSITORY))
        return Command(process)

    def ray(self, *words: str) -> subprocess.CompletedProcess[str]:
        """One of Ray's commands, in the checkout."""
        return self.machine.run("ray", *words, folder=str(REPOSITORY))

    def rows(self) -> pd.DataFrame:
        """The rows as pandas alone reads them."""
        return pd.read_parquet(self.work / "results/trials")


class Command:
    """A command that runs on a machine."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def finish(self) -> tuple[int, str, str]:
        out, err = self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode, out, err

    def signal(self, number: int) -> None:
        """Sends a signal to the command itself, which `nsenter` started."""
        pid = self.process.pid
        (child,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        os.kill(int(child), number)

    def wait_for(self, word: str, *, times: int = 1) -> None:
        """Reads what it prints until a word has come so often."""
        assert self.process.stdout
        seen = ""
        for line in self.process.stdout:
            seen += line
            if seen.count(word) >= times:
                return
        pytest.fail(
            f"it ended without {word!r}:\n{seen}\n{self.process.stderr and self.process.stderr.read()}"
        )


def cluster_file(head: Machine, worker: Machine) -> str:
    """cluster-local.yaml with what one changes in it, one CPU per machine, and the environment at hand."""
    config = yaml.safe_load((REPOSITORY / "cluster-local.yaml").read_text())
    config["provider"] |= {"head_ip": head.address, "worker_ips": [worker.address]}
    config["auth"] = {"ssh_user": "root", "ssh_private_key": "~/.ssh/id_ed25519"}
    link = f"ln -sfn {sys.prefix} ~/attnsweep/venv"
    installs = [line for line in config["setup_commands"] if "pip install" in line or "-m venv" in line]
    config["setup_commands"] = [link, *(line for line in config["setup_commands"] if line not in installs)]
    for part in ("head", "worker"):
        commands = config[f"{part}_start_ray_commands"]
        commands[-1] = commands[-1].replace("ray start", "ray start --num-cpus=1")
    return yaml.safe_dump(config)


@pytest.fixture(scope="module")
def machines() -> Iterator[list[Machine]]:
    hosts.require()
    with hosts.machines("laptop", "head", "worker") as made:
        yield made


@pytest.fixture(scope="module")
def laptop(machines: list[Machine]) -> Laptop:
    """A laptop from which `ray up` has made a cluster of two machines."""
    first, head, worker = machines
    laptop = Laptop(first)
    first.write(FILE, cluster_file(head, worker))
    first.write("/root/work/sweeps/quickstart.py", (REPOSITORY / "sweeps/quickstart.py").read_text())
    assert laptop.ray("get-auth-token", "--generate").returncode == 0
    up = laptop.ray("up", "--yes", FILE)
    assert up.returncode == 0, up.stdout + up.stderr
    wait_for(lambda: "0.0/2.0 CPU" in laptop.ray("exec", FILE, "attnsweep/health").stdout)
    return laptop


def test_a_sweep_that_cannot_start_says_so_with_status_2(laptop: Laptop) -> None:
    status, out, err = laptop.attnsweep(*QUICK, "patch_size=3").finish()
    assert (status, "patch_size=3 does not divide" in out) == (2, True), out + err
    assert not (laptop.work / "results").exists()


def test_nothing_of_the_cluster_listens_without_a_token_and_the_dashboard_only_on_loopback(
    laptop: Laptop, machines: list[Machine]
) -> None:
    _, head, worker = machines
    listening = head.run("ss", "-Hltn", "sport", "=", "8265").stdout.split()
    assert "127.0.0.1:8265" in listening and len(listening) == 5
    asks = "import sys; from ray._raylet import GcsClient; GcsClient(sys.argv[1]).internal_kv_get(b'x', None)"
    address = f"{head.address}:6379"
    refused = worker.run(sys.executable, "-c", asks, address, RAY_AUTH_MODE="disabled")
    assert refused.returncode and "InvalidAuthToken" in refused.stderr
    assert worker.run(sys.executable, "-c", asks, address, RAY_AUTH_MODE="token").returncode == 0
    assert oct((worker.root / "root/.ray/auth_token").stat().st_mode)[-3:] == "600"


def test_a_sweep_from_a_laptop_outlives_connection_and_laptop_and_leaves_rows_of_both_machines(
    laptop: Laptop, machines: list[Machine]
) -> None:
    first = laptop.attnsweep(*QUICK)
    first.wait_for("done  val")
    assert laptop.machine.run("pkill", "-x", "ssh").returncode == 0, "the tunnel was there"
    first.wait_for("done  val")
    first.signal(signal.SIGKILL)
    first.finish()
    wait_for(lambda: laptop.machine.run("pgrep", "-x", "ssh").stdout == "")  # no tunnel is left
    status, out, err = laptop.attnsweep(*QUICK).finish()
    assert status == 0, out + err
    assert "joining: attnsweep-quickstart-" in out and "submitted" not in out
    assert f"{TRIALS} done in" in out and f"fetched {TRIALS} trials into results" in out
    rows = laptop.rows()
    assert len(rows) == TRIALS == rows["trial_id"].nunique() and set(rows["status"]) == {"done"}
    assert set(rows["host"]) == {"head", "worker"}
    assert set(rows["attempts"]) == {1}
    assert set(rows["code_hash"]) == {provenance.code_hash()}, "the code that was sent ran"
    epochs = pd.read_parquet(laptop.work / "results/epochs")
    secret = (laptop.work.parent / ".ray/auth_token").read_text()
    for machine in machines:
        places = ("/root/attnsweep", "/root/work", "/tmp/ray")
        found = machine.run("grep", "--recursive", "--files-with-matches", "--text", secret, *places)
        assert found.stdout == "", "the token is in no row and no log"
    assert (epochs.groupby("trial_id").size() == EPOCHS).all() and epochs["trial_id"].nunique() == TRIALS


def test_a_finished_sweep_runs_nothing_again_even_on_a_new_head(
    laptop: Laptop, machines: list[Machine]
) -> None:
    before = laptop.rows()
    assert machines[1].run("bash", "-c", "rm -r ~/attnsweep/attnsweep-quickstart-*").returncode == 0
    status, out, err = laptop.attnsweep(*QUICK).finish()
    assert (status, f"{TRIALS} trials (0 new, {TRIALS} done)" in out) == (0, True), out + err
    pd.testing.assert_frame_equal(laptop.rows(), before)


def test_ctrl_c_detaches_and_stop_ends_the_sweep_and_keeps_what_was_done(laptop: Laptop) -> None:
    long = (*SWEEP, "seed=3,4,5", f"epochs={2 * EPOCHS}")
    command = laptop.attnsweep(*long)
    command.wait_for("done  val")
    command.signal(signal.SIGINT)
    status, out, err = command.finish()
    assert status == 130 and "the sweep goes on there" in out and "Traceback" not in err
    status, out, err = laptop.attnsweep(*long, "--stop").finish()
    assert status == 130 and "stopped" in out, out + err
    assert TRIALS < len(laptop.rows()) < 2 * TRIALS
    status, out, err = laptop.attnsweep(*long, "--stop").finish()
    assert status == 2 and "no such sweep runs" in err
    Store(laptop.work / "results").compact()


def test_a_cluster_that_is_down_is_never_replaced_by_a_local_one(
    laptop: Laptop, machines: list[Machine]
) -> None:
    down = laptop.ray("down", "--yes", FILE)
    assert down.returncode == 0, down.stdout + down.stderr
    status, out, err = laptop.attnsweep(*QUICK).finish()
    assert (status, out) == (2, "") and f"ray up {FILE}" in err and "Traceback" not in err
    assert "gcs_server" not in machines[1].run("ps", "-eo", "comm").stdout
    wait_for(lambda: "raylet" not in machines[2].run("ps", "-eo", "comm").stdout)
