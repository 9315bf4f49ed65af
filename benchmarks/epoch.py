"""Is a trial's own training loop as fast as the loop that everyone writes, is a trial per core right, and
what does augmentation cost?

A sweep tool that trained slower than the plain sample would be paid for in every trial. So three comparisons,
on CPUs, with the default models (dim 128, depth 6, heads 4, mlp 256), batch 64, the first two on MNIST:

1. attnsweep's loop (training.trial.epochs: images resident as uint8, a batch is a gather; channels-last;
   the layers of training.kernels; fused Adam) against the plain PyTorch sample (torchvision's MNIST,
   ToTensor and Normalize per image, DataLoader, plain Adam, torch's layers in their default layout). One
   thread each, in one process, the same initial weights, the same number of steps. They take turns by chunks
   of steps, each first in every other turn, so that what else the machine does falls on both. Printed per
   model: ms per step of each, the ratio per step as the median over the turns with its 95 % bootstrap
   interval, and what shows that the arithmetic is equal: the loss of the untrained model on the test images
   as each loop prepares them, then accuracy and loss on the test images after the last step, which differ by
   the order of the examples and the dropout only. The sample draws from all 60,000 training images, attnsweep
   from the 54,000 that are not held out for validation.
2. A single-threaded trial per core, side by side, against one trial on all cores: training examples per
   second of the former over those of the latter, in turns as above. However good the loop, this is at most
   two over what torch gains from the second thread: 1.3 where two threads are 1.5 times as fast as one.
3. A ViT on CIFAR-10 with augmentation against the same without it, one thread each, in turns as above:
   processor time per step of the former over that of the latter. Neither has dropout, which the modern recipe
   does without: what that spares is no merit of its augmentation.

Targets: 1. never slower, at least 1.15 times as fast; 2. at least 1.5 times; 3. crops and flips at most 1.1
times, the whole modern recipe at most 1.3 times. The whole epoch of all four models and the second part take
about 15 min on two cores that are otherwise idle, the third part 3 min. On busy cores the second part may not
end at all: threads that share a step spin while they wait for one another.
"""

import argparse
import functools
import multiprocessing
import os
import platform
import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision import transforms

from attnsweep.core.axes import Config
from attnsweep.core.errors import UserError
from attnsweep.results import provenance
from attnsweep.space.plan import folders_of
from attnsweep.space.trials import make_trial
from attnsweep.tasks.images import datasets
from attnsweep.tasks.images import training as images
from attnsweep.tasks.registry import AXES, build, resolve
from attnsweep.training import epoch
from attnsweep.training.history import History
from attnsweep.training.setup import Options, Setup, prepare
from attnsweep.training.trial import epochs

MODELS = ("cnn", "vit", "deepvit", "hybrid")
CORES = os.cpu_count() or 1
LEAST_SPEEDUP, LEAST_SIDE_BY_SIDE = 1.15, 1.5
PLAIN = dict(model="vit", dataset="cifar10", dropout=0.0, emb_dropout=0.0)  # what the others are held against
RECIPES: dict[str, tuple[dict[str, object], float | None]] = {  # and how many times as long they may take
    "crops and flips": (dict(augment="crop_flip"), 1.1),
    "RandAugment": (dict(augment="randaugment"), None),
    "TrivialAugment": (dict(augment="trivialaugment"), None),
    "mixup and CutMix": (dict(mixup=0.8, cutmix=1.0), None),
    "modern": (dict(recipe="modern"), 1.3),
    "modern, averaged": (dict(recipe="modern", ema=0.999, clip_norm=1.0), None),
}
EPOCH = 840  # steps: those of 54,000 images in batches of 64, without the first and the last few
CHUNK = 20  # steps in one turn
WARM_UP_STEPS = 3
SIDE_BY_SIDE_TURNS = 8
RECIPE_TURNS, RECIPE_CHUNK = 40, 2  # short ones: what else the machine does is to fall on both
BOOTSTRAPS = 1_000
LOOPS = "{:<9}{:>9}{:>11}{:>7}{:>14}  {:<11}{:<17}{:<17}{:<17}"
PLACES = "{:<9}{:>14}{:>14}{:>7}{:>14}  {:<11}"
COSTS = "{:<18}{:>9}{:>11}{:>7}{:>14}  {:<11}"


@dataclass(frozen=True)
class Ratio:
    """The median of paired ratios, one per turn, and its 95 % bootstrap interval."""

    median: float
    low: float
    high: float
    turns: int


@dataclass(frozen=True)
class Judgement:
    """A model on the test images: its mean loss before training, then accuracy and mean loss after it."""

    loss_before: float
    accuracy: float
    loss: float


@dataclass(frozen=True)
class Loops:
    """The two loops on one model: ms per step in the median turn, and what each made of the model."""

    ours_ms: float
    sample_ms: float
    speedup: Ratio
    ours: Judgement
    sample: Judgement


@dataclass(frozen=True)
class Places:
    """One model in both arrangements: training examples per second in the median turn."""

    side_by_side: float
    on_all_cores: float
    gain: Ratio


# --- The loops ---


def our_training(config: Config, data_dir: Path, *, threads: int = 1) -> Setup:
    """attnsweep's training of a model, before its first step."""
    training = prepare(make_trial(config, data_dir), Options(data_dir=str(data_dir), cpu=threads))
    assert training.device == "cpu", f"trials train on {training.device} here; these comparisons are for CPUs"
    return training


def our_steps(training: Setup) -> Iterator[object]:
    """attnsweep's loop, which can be stopped after every step."""
    epoch.PROGRESS_S = 0.0  # by default it tells of its progress every 2 s
    return epochs(training, History(training.config["task"]))


def sample_images(data_dir: Path, *, train: bool) -> DataLoader[tuple[Tensor, Tensor]]:
    """MNIST as the sample reads it."""
    prepare = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.1307,), (0.3081,))])
    dataset = torchvision.datasets.MNIST(str(data_dir), train=train, transform=prepare)
    return DataLoader(dataset, batch_size=64 if train else 1_000, shuffle=train)


def sample_steps(model: nn.Module, batches: DataLoader[tuple[Tensor, Tensor]], lr: float) -> Iterator[object]:
    """The loop of the PyTorch sample (github.com/pytorch/examples, mnist/main.py), without its printing."""
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    model.train()
    for inputs, labels in batches:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(inputs), labels)
        loss.backward()
        optimizer.step()
        yield loss


def judge_ours(training: Setup) -> tuple[float, float]:
    """Accuracy and mean loss on the test images as attnsweep prepares them."""
    with torch.inference_mode():
        found = images.answers(training.model.eval(), training.data, training.data.test)
    return found.measures("test")["test_acc"] or 0.0, found.loss


def judge_sample(model: nn.Module, batches: DataLoader[tuple[Tensor, Tensor]]) -> tuple[float, float]:
    """The same on the test images as the sample prepares them."""
    model.eval()
    correct = total = n = 0.0
    with torch.inference_mode():
        for inputs, labels in batches:
            logits = model(inputs)
            correct += (logits.argmax(dim=1) == labels).sum().item()
            total += F.cross_entropy(logits, labels, reduction="sum").item()
            n += len(labels)
    return correct / n, total / n


# --- Turns ---


def seconds(steps: Iterator[object], count: int, clock: Callable[[], float] = time.perf_counter) -> float:
    """How long so many steps take."""
    began = clock()
    for _ in range(count):
        next(steps)
    return clock() - began


def in_turns(one: Callable[[], float], other: Callable[[], float], turns: int) -> list[tuple[float, float]]:
    """What the two return in each turn; they go first by turns."""
    pairs = []
    for turn in range(turns):
        if turn % 2 == 0:
            first = one()
            pairs.append((first, other()))
        else:
            second = other()
            pairs.append((one(), second))
    return pairs


def ratio(ratios: Sequence[float]) -> Ratio:
    """The median of the ratios with its interval."""
    draw = random.Random(0)
    medians = sorted(statistics.median(draw.choices(ratios, k=len(ratios))) for _ in range(BOOTSTRAPS))
    low, high = medians[round(0.025 * BOOTSTRAPS)], medians[round(0.975 * BOOTSTRAPS) - 1]
    return Ratio(statistics.median(ratios), low, high, len(ratios))


# --- 1. The two loops ---


def compare_loops(config: Config, data_dir: Path, turns: int) -> Loops:
    """Trains one model by both loops in turns, from the same weights."""
    training = our_training(config, data_dir)
    model, test = build(config), sample_images(data_dir, train=False)
    model.load_state_dict(training.model.state_dict())
    before = judge_ours(training)[1], judge_sample(model, test)[1]
    ours, sample = our_steps(training), sample_steps(model, sample_images(data_dir, train=True), config["lr"])
    for steps in (ours, sample):
        seconds(steps, WARM_UP_STEPS)
    pairs = in_turns(lambda: seconds(ours, CHUNK), lambda: seconds(sample, CHUNK), turns)
    ours_ms, sample_ms = (1e3 * statistics.median(side) / CHUNK for side in zip(*pairs, strict=True))
    return Loops(
        ours_ms=ours_ms,
        sample_ms=sample_ms,
        speedup=ratio([theirs / own for own, theirs in pairs]),
        ours=Judgement(before[0], *judge_ours(training)),
        sample=Judgement(before[1], *judge_sample(model, test)),
    )


# --- 2. Side by side, or one on all cores ---


def serve(orders: Connection, config: Config, data_dir: Path, threads: int) -> None:
    """A process that trains as many steps as it is told, until it is told 0."""
    steps = our_steps(our_training(config, data_dir, threads=threads))
    seconds(steps, WARM_UP_STEPS)
    orders.send("ready")
    while count := orders.recv():
        seconds(steps, count)
        orders.send("done")


@contextmanager
def processes(config: Config, data_dir: Path, *, count: int, threads: int) -> Iterator[list[Connection]]:
    """So many processes that are ready to train."""
    spawn, orders = multiprocessing.get_context("spawn"), []
    for _ in range(count):
        here, there = spawn.Pipe()
        spawn.Process(target=serve, args=(there, config, data_dir, threads), daemon=True).start()
        there.close()  # so that the death of the process is noticed
        orders.append(here)
    for order in orders:
        order.recv()
    yield orders
    for order in orders:
        order.send(0)


def examples_per_s(orders: Sequence[Connection], batch_size: int) -> float:
    """Training examples per second of the processes together, in one turn."""
    began = time.perf_counter()
    for order in orders:
        order.send(CHUNK)
    for order in orders:
        order.recv()
    return len(orders) * CHUNK * batch_size / (time.perf_counter() - began)


def compare_places(config: Config, data_dir: Path) -> Places:
    """Trains one model in both arrangements, in turns."""
    size = config["batch_size"]
    with (
        processes(config, data_dir, count=CORES, threads=1) as many,
        processes(config, data_dir, count=1, threads=CORES) as one,
    ):
        pairs = in_turns(
            lambda: examples_per_s(many, size), lambda: examples_per_s(one, size), SIDE_BY_SIDE_TURNS
        )
    side_by_side, on_all_cores = (statistics.median(side) for side in zip(*pairs, strict=True))
    return Places(side_by_side, on_all_cores, ratio([many / one for many, one in pairs]))


# --- 3. With augmentation, or without ---


def compare_recipe(point: dict[str, object], data_dir: Path) -> tuple[float, float, Ratio]:
    """ms per step of a ViT under a recipe and without augmentation, in the median turn, and their ratio."""
    ours, plain = (
        our_steps(our_training(resolve({**PLAIN, "epochs": 1, **one}), data_dir)) for one in (point, {})
    )
    for steps in (ours, plain):
        seconds(steps, WARM_UP_STEPS)
    one, other = (functools.partial(seconds, each, RECIPE_CHUNK, time.process_time) for each in (ours, plain))
    pairs = in_turns(one, other, RECIPE_TURNS)
    ours_ms, plain_ms = (1e3 * statistics.median(side) / RECIPE_CHUNK for side in zip(*pairs, strict=True))
    return ours_ms, plain_ms, ratio([augmented / bare for augmented, bare in pairs])


# --- Printing ---


def machine() -> str:
    """Device, versions and how busy the machine is."""
    names = ("torch", "torchvision", "vit-pytorch")
    versions = ", ".join(f"{name} {provenance.installed(name)}" for name in names)
    load = os.getloadavg()[0]
    busy = "; BUSY: other work takes part of the cores" if load > 0.5 else ""
    where = f"{provenance.cpu_name()}, {CORES} cores, load {load:.1f} before the start{busy}"
    return f"{where}\npython {platform.python_version()}, {versions}"


def interval(found: Ratio) -> str:
    return f"{found.low:.2f} to {found.high:.2f}"


def verdict(found: Ratio, least: float) -> str:
    """How the ratio stands to its target."""
    if found.median >= least:
        return "met"
    return "MISSED" if found.median >= 1 else "SLOWER"


def loops_line(model: str, found: Loops) -> str:
    """A line of the first table."""
    ours, sample, speedup = found.ours, found.sample, found.speedup
    return LOOPS.format(
        model,
        f"{found.ours_ms:.1f}",
        f"{found.sample_ms:.1f}",
        f"{speedup.median:.2f}",
        interval(speedup),
        verdict(speedup, LEAST_SPEEDUP),
        f"{ours.loss_before:.4f} {sample.loss_before:.4f}",
        f"{ours.accuracy:.4f} {sample.accuracy:.4f}",
        f"{ours.loss:.4f} {sample.loss:.4f}",
    )


def print_loops(configs: Sequence[Config], data_dir: Path, turns: int) -> None:
    """The first comparison."""
    print(
        f"\n1. attnsweep's loop and the sample's, one thread, {turns * CHUNK} steps each in {turns} turns\n"
        f"   ratio per step, at least {LEAST_SPEEDUP} wanted; in each pair attnsweep, then the sample\n"
    )
    heads = ("ours ms", "sample ms", "ratio", "95 %", "target", "loss before", "accuracy after", "loss after")
    print(LOOPS.format("model", *heads), flush=True)
    for config in configs:
        print(loops_line(config["model"], compare_loops(config, data_dir, turns)), flush=True)


def print_places(configs: Sequence[Config], data_dir: Path) -> None:
    """The second comparison."""
    print(
        f"\n2. {CORES} single-threaded trials side by side, and one trial on {CORES} threads, in "
        f"{SIDE_BY_SIDE_TURNS} turns of {CHUNK} steps\n"
        f"   examples per second and their ratio, at least {LEAST_SIDE_BY_SIDE} wanted\n"
    )
    print(PLACES.format("model", "side by side", "on all cores", "ratio", "95 %", "target"), flush=True)
    for config in configs:
        found = compare_places(config, data_dir)
        speeds = (f"{found.side_by_side:,.0f}", f"{found.on_all_cores:,.0f}", f"{found.gain.median:.2f}")
        judged = (interval(found.gain), verdict(found.gain, LEAST_SIDE_BY_SIDE))
        print(PLACES.format(config["model"], *speeds, *judged), flush=True)


def print_recipes(data_dir: Path) -> None:
    """The third comparison."""
    print(
        f"\n3. A ViT on CIFAR-10 with augmentation, and without, one thread, in {RECIPE_TURNS} turns of "
        f"{RECIPE_CHUNK} steps\n   processor time per step, and the ratio\n"
    )
    print(COSTS.format("recipe", "ms", "without", "ratio", "95 %", "target"), flush=True)
    for name, (point, most) in RECIPES.items():
        ours_ms, plain_ms, found = compare_recipe(point, data_dir)
        judged = "" if most is None else f"at most {most}: {'met' if found.median <= most else 'MISSED'}"
        figures = (f"{ours_ms:.1f}", f"{plain_ms:.1f}", f"{found.median:.3f}", interval(found))
        print(COSTS.format(name, *figures, judged), flush=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--steps", type=int, default=EPOCH, help=f"of the first comparison; {EPOCH} are an epoch")
    add("--part", type=int, choices=(1, 2, 3), help="only this one of the three comparisons")
    add("--models", nargs="+", choices=MODELS, default=list(MODELS))
    add("--geometry", choices=AXES["geometry"].choices, default="image", help="published: 4 patches, not 16")
    add("--data", help="the folder of MNIST; default $ATTNSWEEP_DATA, else ~/.cache/attnsweep")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    point = dict(dataset="mnist", epochs=1, geometry=options.geometry)
    configs = [resolve({**point, "model": model}) for model in options.models]
    data_dir = folders_of(data=options.data).data
    print(machine())
    parts = {options.part} if options.part else {1, 2, 3}
    for name in (*(["mnist"] if parts & {1, 2} else []), *(["cifar10"] if 3 in parts else [])):
        datasets.DATASETS[name].ensure(data_dir)
    if 1 in parts:
        print_loops(configs, data_dir, max(1, min(options.steps, EPOCH) // CHUNK))
    if 2 in parts and CORES > 1:
        print_places(configs, data_dir)
    if 3 in parts:
        print_recipes(data_dir)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:  # such as MNIST's files not found
        raise SystemExit(str(error)) from None
