"""Which built-in architectures run under which runtime, how far from eager, and what preparing them takes?

Every model of every task goes through the runtimes that are asked for, at its default sizes, batch 1, one
thread, in a process of its own that is ended after a limit. Printed are a sentence per runtime and a Markdown
table with a line per model and these columns:

    RUNTIME   the largest difference of an output from eager's, in fp32, over the largest value of eager's
              outputs; or that it does not run
    s         seconds of one core from the model to the first answers of all of them, export and compilers
              included, the imports that processes share left out

With --write the table replaces the one between `<!-- RUNTIMES -->` and `<!-- end -->` in a file, model by
model. A few minutes for onnxruntime and openvino; compile takes the better part of an hour.

    python benchmarks/runtimes.py --write docs/runtimes.md
    python benchmarks/runtimes.py --runtimes compile --models cnn,vit --write docs/runtimes.md
"""

import argparse
import multiprocessing
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from attnsweep.core.errors import UserError
from attnsweep.measuring import runtimes
from attnsweep.measuring.runtimes.outputs import answered
from attnsweep.tasks.registry import TASKS, build, procedure, resolve

LIMIT_S = 600.0
DATASETS = {"images": "mnist"}  # as its published models; only shapes matter here
VARIANTS: dict[str, list[dict[str, Any]]] = {
    "planning": [{}, {"sensor": "cameras", "dataset": "driving:small+cameras"}]
}


@dataclass(frozen=True)
class Outcome:
    """What came of a model: under each runtime its difference from eager over the scale, or why it does not
    run; and the seconds of one core that all took.
    """

    under: dict[str, float | str]
    seconds: float


def points(names: Sequence[str]) -> list[dict[str, Any]]:
    """A point for each built-in model that has parameters, of these names (none: all)."""
    found = []
    for task in TASKS.values():
        for model in task.models:
            dataset = DATASETS.get(task.name, task.default_dataset)
            for variant in VARIANTS.get(model, [{}]):
                point = {"model": model, "dataset": dataset, **variant}
                if (not names or model in names) and next(
                    build(resolve(point)).parameters(), None
                ) is not None:
                    found.append(point)
    return found


def tried(names: Sequence[str], point: dict[str, Any]) -> Iterator[Outcome]:
    """What comes of a model in this process, runtime by runtime."""
    torch.set_num_threads(1)
    config = resolve(point)
    torch.manual_seed(0)
    model, task = build(config).eval(), procedure(config["task"])
    inputs = task.example(config, 1)
    decodes = TASKS[config["task"]].decoded(config) is not None
    wanted = [] if decodes else answered(task.answer(model, inputs, config))
    scale = max((float(tensor.abs().nan_to_num().max()) for tensor in wanted), default=1.0)
    began, under = core_seconds(), dict[str, float | str]()
    for runtime in names:
        try:
            under[runtime] = prepared(runtime, model, inputs, config) / scale
        except (runtimes.Unavailable, MemoryError) as error:
            under[runtime] = str(error)
        yield Outcome(under, core_seconds() - began)


def prepared(runtime: str, model: nn.Module, inputs: tuple[Tensor, ...], config: dict[str, Any]) -> float:
    """The largest difference from eager. Raises as `runtimes.prepare` does."""
    return runtimes.prepare(runtime, runtimes.Inference(model, inputs, config)).max_abs_diff or 0.0


def core_seconds() -> float:
    """Seconds of computing until now, of this process and of the compilers that it started."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def apart(names: Sequence[str], point: dict[str, Any]) -> Outcome:
    """What comes of a model in a process that is forked from this one."""
    ours, theirs = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(target=send, args=(theirs, names, point))
    process.start()
    theirs.close()
    found = Outcome(
        dict.fromkeys(names, "its process died, or took too long"), 0.0
    )  # a runtime that crashes takes it along
    try:
        for _runtime in names:
            if not ours.poll(LIMIT_S):
                break
            outcome = ours.recv()
            found = Outcome({**found.under, **outcome.under}, outcome.seconds)
    except EOFError:
        pass
    finally:
        process.kill()
        process.join()
    return found


def send(door: Connection, names: Sequence[str], point: dict[str, Any]) -> None:
    """Answers through a pipe."""
    for outcome in tried(names, point):
        door.send(outcome)


# --- The table ---


def name_of(point: dict[str, Any]) -> str:
    """The model, and what of it is not by default."""
    return f"{point['model']} ({point['sensor']})" if "sensor" in point else point["model"]


def table(names: Sequence[str], found: dict[str, Outcome]) -> str:
    """The sentences and the table, of the outcomes by model."""
    lines = []
    for runtime in names:
        refused = {
            name: one.under[runtime] for name, one in found.items() if isinstance(one.under[runtime], str)
        }
        run, versions = len(found) - len(refused), runtimes.versions_of(runtime)
        lines.append(f"**{runtime}** ({versions}): {run} of {len(found)} models run.")
        lines += ["", *(f"- not {name}: {why}" for name, why in refused.items()), ""]
    seconds = sorted(one.seconds for one in found.values())
    lines += [f"Seconds: {seconds[len(seconds) // 2]:.1f} in the median, {seconds[-1]:.1f} at most.", ""]
    lines += [f"| model | {' | '.join(names)} | s |", "|---" * (2 + len(names)) + "|"]
    lines += [f"| {name} | {line(names, one)} |" for name, one in found.items()]
    return "\n".join(lines)


def line(names: Sequence[str], outcome: Outcome) -> str:
    """The cells of an outcome."""
    under = [outcome.under[runtime] for runtime in names]
    cells = ["no" if isinstance(one, str) else f"{one:.0e}" for one in under]
    return " | ".join([*cells, f"{outcome.seconds:.1f}"])


def write(path: Path, names: Sequence[str], text: str) -> None:
    """Puts a table into the place that a file has for these runtimes. Raises UserError where it has none."""
    begin = f"<!-- {','.join(names)} -->"
    page, count = re.subn(
        f"{re.escape(begin)}.*?<!-- end -->",
        lambda _: f"{begin}\n{text}\n<!-- end -->",
        path.read_text(),
        flags=re.DOTALL,
    )
    if not count:
        raise UserError(f"{path} has no place for it: {begin} ... <!-- end -->")
    path.write_text(page)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runtimes", default="onnxruntime,openvino", help="with commas between them")
    parser.add_argument("--models", default="", help="with commas between them; default all")
    parser.add_argument("--write", type=Path, metavar="FILE", help="puts the table into a file")
    options = parser.parse_args()
    names = options.runtimes.split(",")
    for runtime in names:
        runtimes.preload(runtime)
    found: dict[str, Outcome] = {}
    for point in points([name for name in options.models.split(",") if name]):
        found[name_of(point)] = outcome = apart(names, point)
        print(name_of(point), "|", line(names, outcome), flush=True)
        if options.write:
            write(options.write, names, table(names, found))
    print(f"\n{table(names, found)}")


if __name__ == "__main__":
    main()
