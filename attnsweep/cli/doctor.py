"""`attnsweep doctor`: what this machine or cluster can run, and what is missing."""

import argparse
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

from attnsweep.cli.options import add_address, add_data, add_results
from attnsweep.core import terminal
from attnsweep.core.files import expanded
from attnsweep.core.text import counted
from attnsweep.core.version import installed
from attnsweep.results import storage
from attnsweep.space.plan import Folders, folders_of
from attnsweep.tasks.registry import TASKS

PACKAGES = ("torch", "torchvision", "vit-pytorch", "ray", "pyarrow", "pandas", "scikit-learn", "matplotlib")


def main(arguments: Sequence[str]) -> int:
    """What this machine or cluster can run, and what is missing."""
    parser = argparse.ArgumentParser(prog="python -m attnsweep doctor", description=main.__doc__)
    add_data(parser)
    add_results(parser)
    add_address(parser)
    options = parser.parse_args(arguments)
    return doctor(data=options.data, address=options.address, results=options.results)


def doctor(*, data: str | None, address: str | None, results: str = "results") -> int:
    """Prints the findings; returns 0, or 1 where something that every sweep needs is missing."""
    screen, missing = terminal.screen(), False
    where = folders_of(results, data)
    for good, finding in (*store_findings(where), *findings(where.data, address)):
        missing |= not good
        screen.print(f"{'[green]ok[/]     ' if good else '[red]missing[/]'} {finding}", highlight=False)
    return int(missing)


def findings(data_dir: Path, address: str | None) -> Iterator[tuple[bool, str]]:
    """Each finding: whether it is as it should be, and a sentence."""
    for package in PACKAGES:
        version = installed(package)
        missing = f"{package}; install it with pip install {package}"
        yield version is not None, f"{package} {version}" if version else missing
    import torch

    from attnsweep.tasks.images import cache  # here: it needs numpy

    if torch.cuda.is_available():
        yield True, f"{torch.cuda.device_count()} GPUs here: {torch.cuda.get_device_name()}"
    else:
        yield True, f"no GPU here: trials run on {os.cpu_count()} CPUs"
    named = (task.find(name) for task in TASKS.values() for name in task.dataset_names if "PATH" not in name)
    for dataset in filter(None, named):
        here = "here" if dataset.is_here(data_dir) else f"not in {data_dir}; made or fetched when first used"
        yield True, f"data set {dataset.name}: {here}"
    sets, size = cache.size_of(data_dir)
    if sets:
        yield (
            True,
            f"{counted(sets, 'decoded set')} of {size / 1e6:,.0f} MB in {data_dir / 'decoded'}; delete "
            "what you like, it is made again",
        )
    yield True, f"{shutil.disk_usage(Path.cwd()).free / 1e9:.0f} GB free on the disk of {Path.cwd()}"
    yield ray_finding(address)


def ray_finding(address: str | None) -> tuple[bool, str]:
    """What the cluster at an address has."""
    try:
        import ray

        from attnsweep.engine import cluster  # here: --serial does without Ray
    except ImportError as error:
        return False, f"Ray cannot be imported ({error}): sweeps run with --serial only"
    with cluster.connected(address):
        total = ray.cluster_resources()
        nodes = sum(node["Alive"] for node in ray.nodes())
        return True, f"Ray: nodes {nodes}, CPUs {total.get('CPU', 0):g}, GPUs {total.get('GPU', 0):g}"


def store_findings(where: Folders) -> Iterator[tuple[bool, str]]:
    """Whether results, and what lies beside them, can be written."""
    try:
        if "://" in where.results:
            probe = storage.below(where.checkpoints, f"doctor-{uuid.uuid4().hex[:8]}/probe.txt")
            storage.write(probe, b"attnsweep doctor")
            storage.drop(probe.replace("/probe.txt", ""), "probe")
        else:
            write_into(expanded(where.results).absolute())
            write_into(where.runs)
        yield True, f"{where.results} can be written"
    except (OSError, ValueError) as error:
        yield False, f"{where.results} cannot be written: {error}"


def write_into(folder: Path) -> None:
    """Writes into a folder, or where it would be made, and leaves nothing. Raises OSError."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    with tempfile.TemporaryDirectory(prefix=".doctor-", dir=there):
        pass
