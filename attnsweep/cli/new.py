"""`attnsweep new`: writes an example sweep file, to start from."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

from attnsweep.core.errors import UserError, did_you_mean

PACKAGE = Path(__file__).parent.parent
FOLDERS = (PACKAGE / "examples", PACKAGE.parent / "sweeps")  # in an installed package; in a checkout


def main(arguments: Sequence[str]) -> int:
    """Writes an example sweep file here."""
    parser = argparse.ArgumentParser(prog="python -m attnsweep new", description=main.__doc__)
    parser.add_argument("name", nargs="?", help="such as depth; without it, the examples are listed")
    options = parser.parse_args(arguments)
    return new(options.name, Path.cwd())


def examples() -> Mapping[str, Path]:
    """The example sweep files by their names, in the order of the alphabet."""
    folder = next(folder for folder in FOLDERS if folder.is_dir())
    return {path.stem: path for path in sorted(folder.glob("*.py"))}


def new(name: str | None, folder: Path) -> int:
    """Writes the example of that name, with the models of its own that it names, into `folder`; without a
    name lists the examples and the question that each asks. Returns the exit status.

    Raises UserError where there is none of that name, or a file would be overwritten.
    """
    known = examples()
    if name is None:
        for stem, path in known.items():
            if question := question_of(path):
                print(f"{stem:<24} {question}")
        print("\nwrite one: python -m attnsweep new NAME")
        return 0
    name = name.removesuffix(".py")
    if name not in known:
        raise UserError(
            f"there is no example {name!r}{did_you_mean(name, known)}; there are {', '.join(known)}"
        )
    for path in with_models(known, name):
        target = folder / path.name
        try:
            with target.open("x") as file:  # through no link either
                file.write(path.read_text())
        except FileExistsError:
            raise UserError(f"{target} is there already; move it, or go to another folder") from None
        print(f"wrote {target}")
    print(f"look at what it would run: python -m attnsweep {name}.py --dry-run")
    return 0


def with_models(known: Mapping[str, Path], name: str) -> list[Path]:
    """The file of an example, and the files of models that its text names."""
    text = known[name].read_text()
    return [known[name], *(path for stem, path in known.items() if f"{stem}.py:" in text)]


def question_of(path: Path) -> str:
    """The first line of a sweep's docstring; nothing for a file that is no sweep."""
    text = path.read_text()
    return text.removeprefix('"""').partition("\n")[0] if "\nsweep = " in text else ""
