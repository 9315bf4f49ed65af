"""A trained model as a file that runs without this package: ONNX, or a program of torch.export.

It takes what its data set or its sensors give: what training does to raw pixels is part of it.
"""

import io
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from attnsweep.core import child_process
from attnsweep.core.errors import UserError
from attnsweep.core.runtimes import Unavailable
from attnsweep.core.trial import Trial
from attnsweep.measuring.runtimes import explained
from attnsweep.measuring.runtimes.graph import exported, program_of
from attnsweep.measuring.runtimes.onnx_sessions import opened
from attnsweep.measuring.runtimes.outputs import answered, apart_from, named_tensors_of
from attnsweep.tasks.registry import build, procedure
from attnsweep.training.trained import fill

ANY, ONE = (2, 5), (1,)  # lengths of a batch with which a file is made and tried; exporters take 1 as fixed
Inputs = dict[str, Tensor]
METADATA = "metadata.json"  # in a file of torch.export
EXPORT_S = 900.0  # that exporting may take, both tries and what is held against the model


@dataclass(frozen=True)
class Raw:
    """A model that takes what is raw, and examples of that by the names of its inputs."""

    model: nn.Module
    examples: Callable[[int], Inputs]
    name: str  # of its answer, where that is one tensor


@dataclass(frozen=True)
class Deployed:
    """The bytes of a file, the shapes and types of its inputs for one example by their names, and whether it
    takes any number of those at once.
    """

    content: bytes
    inputs: Mapping[str, tuple[tuple[int, ...], str]]
    any_batch: bool


def deployed_apart(
    one: Trial, weights: str, data_dir: Path, *, suffix: str, metadata: Mapping[str, str]
) -> Deployed:
    """A trial's model with the weights in a file, see `deployed`; in a child process, since an exporter may
    crash, or come to no end. Raises UserError where it does, too.
    """
    try:
        [made] = child_process.results(
            made_of, one, weights, data_dir, suffix, dict(metadata), seconds=(EXPORT_S, EXPORT_S)
        )
    except TimeoutError:
        raise UserError(
            f"the model cannot be exported: {EXPORTERS[suffix]} took longer than {EXPORT_S:g} s"
        ) from None
    except ChildProcessError as error:
        raise UserError(f"the model cannot be exported: {error}") from error
    return made


def made_of(
    one: Trial, weights: str, data_dir: Path, suffix: str, metadata: Mapping[str, str]
) -> Iterator[Deployed]:
    """See `deployed_apart`."""
    model = build(one.config, one.source).eval()
    fill(model, weights)
    raw = raw_of(model, one.config, data_dir, one.data_sha256)
    yield deployed(raw, suffix=suffix, metadata=metadata)


def deployed(raw: Raw, *, suffix: str, metadata: Mapping[str, str]) -> Deployed:
    """The model as a file, `.onnx` or `.pt2`, for batches of any length, or where no exporter finds how for
    single examples. `metadata` are words that travel with it.

    What it answers is held against the model's own answer. Raises UserError where neither can be made.
    """
    refusals = []
    for batches in (ANY, ONE):
        try:
            with explained(f"{EXPORTERS[suffix]} cannot follow it"):
                content = WRITE[suffix](raw, batches[0], metadata)
                for batch in batches:
                    check(RUN[suffix](content), raw, batch)
                return Deployed(content, shapes_of(raw.examples(1)), batches is ANY)
        except (Unavailable, MemoryError) as error:
            refusals.append(str(error))
    raise UserError(f"the model cannot be exported: {refusals[-1]}")


def shapes_of(inputs: Inputs) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shape and type of each input, such as `uint8`."""
    return {name: (tuple(one.shape), str(one.dtype).removeprefix("torch.")) for name, one in inputs.items()}


def check(run: Callable[[Inputs], list[Tensor]], raw: Raw, batch: int) -> None:
    """Raises Unavailable where what was exported answers otherwise than the model."""
    inputs = raw.examples(batch)
    apart_from(lambda: run(inputs), lambda: raw.model(*inputs.values()), precision="fp32")


# --- What is raw ---


class FromPixels(nn.Module):
    """A classifier of raw images (b, c, s, s) of uint8."""

    def __init__(self, model: nn.Module, factor: Tensor, offset: Tensor) -> None:
        super().__init__()
        self.model = model
        self.factor: Tensor
        self.offset: Tensor
        self.register_buffer("factor", factor)
        self.register_buffer("offset", offset)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.model(torch.addcmul(self.offset, images.float(), self.factor))
        return logits


def of_images(model: nn.Module, config: Mapping[str, Any], data_dir: Path, sha256: str | None) -> Raw:
    """A classifier with the normalisation of its data set, whose checksum is `sha256` (None: any)."""
    from attnsweep.tasks.images.training import load_for

    data = load_for(config, str(data_dir), "cpu", sha256=sha256)
    images = data.test.images
    return Raw(
        FromPixels(model, data.factor, data.offset).eval(),
        lambda batch: {"images": images[torch.arange(batch) % len(images)]},
        name="logits",
    )


def of_sensors(model: nn.Module, config: Mapping[str, Any], data_dir: Path, sha256: str | None) -> Raw:
    """A planner, which takes its sensor's bytes as they are."""
    from attnsweep.tasks.driving.records.batches import inputs_of

    names, example = inputs_of(config), procedure(config["task"]).example
    return Raw(model, lambda batch: dict(zip(names, example(config, batch), strict=True)), name="plan")


RAW = {"images": of_images, "driving": of_sensors}


def raw_of(model: nn.Module, config: Mapping[str, Any], data_dir: Path, sha256: str | None) -> Raw:
    """The model of a trial in evaluation mode, on the CPU, as one that takes what is raw.

    Raises UserError where its answer is no single forward pass, or nobody has said what is raw in its task.
    """
    refuse_others(config)
    return RAW[config["task"]](model, config, data_dir, sha256)


def refuse_others(config: Mapping[str, Any]) -> None:
    """Raises UserError as `raw_of` does."""
    if config["task"] not in RAW:
        raise UserError(
            f"{config['model']} cannot be exported: its answer is decoded token by token, and a file holds "
            f"one forward pass; choose a trial of {' or '.join(RAW)}"
        )


# --- Files ---


def onnx_file(raw: Raw, batch: int, metadata: Mapping[str, str]) -> bytes:
    """An ONNX model, weights and all."""
    inputs = raw.examples(batch)
    graph = exported(
        raw.model,
        list(inputs.values()),
        names=list(inputs),
        outputs=list(output_names(raw)),
        dynamic_batch=batch > 1,
    )
    for key, value in metadata.items():
        graph.metadata_props.add(key=key, value=value)
    content: bytes = graph.SerializeToString()
    return content


def output_names(raw: Raw) -> Iterator[str]:
    """The names of the tensors of an answer, such as `logits`, or `agents.box`."""
    with torch.no_grad():
        answer = raw.model(*raw.examples(1).values())
    root = raw.name if isinstance(answer, Tensor) else ""
    return (name for name, _ in named_tensors_of(answer, root))


def pt2_file(raw: Raw, batch: int, metadata: Mapping[str, str]) -> bytes:
    """A program of torch.export, with `metadata.json` in it."""
    content = io.BytesIO()
    program = program_of(raw.model, list(raw.examples(batch).values()), dynamic_batch=batch > 1)
    torch.export.save(program, content, extra_files={METADATA: json.dumps(dict(metadata))})
    return content.getvalue()


def run_onnx(content: bytes) -> Callable[[Inputs], list[Tensor]]:
    """What answers by ONNX Runtime."""
    session = opened(content, device="cpu", threads=1)

    def run(inputs: Inputs) -> list[Tensor]:
        found = session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})
        return [torch.from_numpy(array) for array in found]

    return run


def run_pt2(content: bytes) -> Callable[[Inputs], list[Tensor]]:
    """What answers by torch alone."""
    module = torch.export.load(io.BytesIO(content)).module()
    return lambda inputs: answered(lambda: module(*inputs.values()))


EXPORTERS = {".onnx": "torch.onnx.export", ".pt2": "torch.export"}
WRITE = {".onnx": onnx_file, ".pt2": pt2_file}
RUN = {".onnx": run_onnx, ".pt2": run_pt2}
