"""`attnsweep export`: the trained model as a file that runs without this package."""

import argparse
import contextlib
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnsweep.cli.options import add_data, add_results
from attnsweep.core import files
from attnsweep.core.errors import UserError
from attnsweep.core.runtimes import Unavailable, versions_of
from attnsweep.space import plan
from attnsweep.space.rerun import find_trial, refuse_unfinished, trial_of
from attnsweep.tasks.registry import class_names

if TYPE_CHECKING:
    import pandas as pd

    from attnsweep.training.deployed import Deployed

SUFFIXES = (".onnx", ".pt2")


def main(arguments: Sequence[str]) -> int:
    """Writes the model of a trial to a file that runs without this package, and prints how to run it.

    It has the weights of the selected epoch, those that the sweep kept (keep_weights=True) or the trial is
    trained again, and takes raw images of uint8 as its data set has them. The file bears the names of the
    classes, the trial's id and its architecture's.
    """
    parser = argparse.ArgumentParser(prog="python -m attnsweep export", description=main.__doc__)
    parser.add_argument("trial_id", metavar="TRIAL_ID", help="the id, or its first digits")
    parser.add_argument("file", metavar="FILE", help="model.onnx, or model.pt2 for torch.export.load")
    add_results(parser)
    add_data(parser)
    parser.add_argument("--overwrite", action="store_true", help="in the place of a file that is there")
    options = parser.parse_args(arguments)
    export(
        options.trial_id,
        options.file,
        results=options.results,
        data=options.data,
        overwrite=options.overwrite,
    )
    return 0


def export(trial_id: str, file: str, *, results: str, data: str | None, overwrite: bool) -> None:
    """See `main`. Raises UserError where it cannot be done, before anything is trained where possible."""
    path = checked(files.expanded(file), overwrite=overwrite)
    row, folders = find_trial(results, trial_id), plan.folders_of(results, data)
    refuse_unfinished(row)
    made = made_file(row, folders, suffix=path.suffix)
    try:
        files.replace(path, made.content)
    except OSError as error:
        raise unwritable(path, error) from error
    print(f"wrote {path} ({len(made.content) / 1e6:.1f} MB).", end=" ")
    if row["precision"] != "fp32":
        print(f"It computes in fp32; trained and judged it was in {row['precision']}.", end=" ")
    print("To run it:\n")
    print("\n".join(LINES[path.suffix](path, made)))


def checked(path: Path, *, overwrite: bool) -> Path:
    """The path. Raises UserError where no model can be written there, or a package is missing for that."""
    if path.suffix not in SUFFIXES:
        name = path.stem.lstrip(".") if path.name not in SUFFIXES else ""
        raise UserError(f"{path} is neither NAME.onnx nor NAME.pt2; call it {name or 'model'}.onnx")
    if os.path.lexists(path) and not overwrite:
        raise UserError(f"{path} is there already; give another name, or --overwrite")
    if os.path.isdir(path):
        raise UserError(f"{path} is a folder; give another name")
    if not os.path.isdir(path.parent):
        raise UserError(f"{path.parent} is no folder; make it first")
    try:
        with contextlib.suppress(FileNotFoundError):
            path.lstat()  # may be too long a name
        with tempfile.TemporaryFile(dir=path.parent):
            pass  # as what has a mode that lets one write need not
    except OSError as error:
        raise unwritable(path, error) from error
    if path.suffix == ".onnx":
        try:
            versions_of("onnxruntime")
        except Unavailable as error:
            raise UserError(str(error)) from error
    return path


def unwritable(path: Path, error: OSError) -> UserError:
    """The error about a place that cannot be written."""
    return UserError(f"{path} cannot be written ({error.strerror or error}); give another place")


def made_file(row: "pd.Series[Any]", folders: plan.Folders, *, suffix: str) -> "Deployed":
    """The trial of a row as a file."""
    from attnsweep.training import checkpoint
    from attnsweep.training.deployed import deployed_apart, refuse_others
    from attnsweep.training.trained import trained

    one = trial_of(row, folders.data)
    refuse_others(one.config)
    model = trained(row, one, runs=folders.checkpoints, data=folders.data)
    metadata = metadata_of(row, one.config)
    with tempfile.TemporaryDirectory() as folder:
        weights = checkpoint.weights_path(folder, one.trial_id)
        checkpoint.write(model.state_dict(), weights)
        return deployed_apart(one, weights, folders.data, suffix=suffix, metadata=metadata)


def metadata_of(row: "pd.Series[Any]", config: Mapping[str, Any]) -> dict[str, str]:
    """What travels with a model, as words: its ids, and as JSON the names of its outputs, in order."""
    known = {"trial_id": row["trial_id"], "arch_id": row["arch_id"], "dataset": row["dataset"]}
    names = {"classes": json.dumps(class_names(config))} if config["num_classes"] else {}
    return known | names


# --- The lines that load and run it ---


def onnx_lines(path: Path, made: "Deployed") -> list[str]:
    """By ONNX Runtime alone."""
    given = ", ".join(f'"{name}": {name}' for name in made.inputs)
    return [
        *(["import json"] if "images" in made.inputs else []),
        "import numpy",
        "import onnxruntime",
        "",
        f"session = onnxruntime.InferenceSession({str(path)!r})",
        *input_lines(made, "numpy.zeros({shape}, numpy.{dtype})"),
        *(
            [
                'classes = json.loads(session.get_modelmeta().custom_metadata_map["classes"])',
                f"(logits,) = session.run(None, {{{given}}})",
                "print([classes[label] for label in logits.argmax(axis=1)])",
            ]
            if "images" in made.inputs
            else [f"(plan,) = session.run(['plan'], {{{given}}})", "print(plan)"]
        ),
    ]


def pt2_lines(path: Path, made: "Deployed") -> list[str]:
    """By torch alone."""
    given = ", ".join(made.inputs)
    return [
        *(["import json"] if "images" in made.inputs else []),
        "import torch",
        "",
        'files = {"metadata.json": ""}',
        f"model = torch.export.load({str(path)!r}, extra_files=files).module()",
        *input_lines(made, "torch.zeros({shape}, dtype=torch.{dtype})"),
        *(
            [
                'classes = json.loads(json.loads(files["metadata.json"])["classes"])',
                f"(logits,) = model({given})",
                "print([classes[label] for label in logits.argmax(dim=1)])",
            ]
            if "images" in made.inputs
            else [f"plan, *others = model({given})", "print(plan)"]
        ),
    ]


def input_lines(made: "Deployed", zeros: str) -> list[str]:
    """An input each, of one example, to be replaced by what is real."""
    lines = [
        f"{name} = {zeros.format(shape=shape, dtype=dtype)}" for name, (shape, dtype) in made.inputs.items()
    ]
    batch = "any number at once" if made.any_batch else "one at a time"
    what = "raw images, 0 to 255" if "images" in made.inputs else "what the sensors give"
    return [f"# {what}, {batch}: put yours here", *lines]


LINES = {".onnx": onnx_lines, ".pt2": pt2_lines}
