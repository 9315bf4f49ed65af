"""A sweep that is to run on a cluster, and what travels there for it."""

import functools
import hashlib
import re
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path

from attnsweep.core.errors import UserError
from attnsweep.results import merge, provenance
from attnsweep.space.files import own_sources, read_sweep
from attnsweep.space.plan import Folders

ENTRY = (
    "sent=$PWD; mkdir -p ~/{folder} && cd ~/{folder}"
    ' && python -m attnsweep.results.merge "$sent/known" results'
    ' && exec python -m attnsweep "$sent/"{arguments}'
)


@dataclass(frozen=True)
class RemoteSweep:
    """A sweep on a cluster: its file, the arguments after that, and where its rows go here."""

    cluster: Path
    file: Path
    arguments: tuple[str, ...]
    where: Folders

    @property
    def name(self) -> str:
        """Says which command it is: the sweep's name and 8 hex digits over its text and the arguments."""
        texts = [file.read_text() for file in self.files]
        content = "\0".join([*texts, *self.arguments, self.where.results])
        stem = re.sub(r"[^\w.]+", "_", self.file.stem)
        return f"attnsweep-{stem}-{hashlib.sha256(content.encode()).hexdigest()[:8]}"

    @functools.cached_property
    def files(self) -> list[Path]:
        """The sweep file, the user's own models beside it, and the modules that those import, beside it or
        below.

        Raises UserError where one lies elsewhere.
        """
        folder, sources = self.file.resolve().parent, own_sources(read_sweep(self.file))
        models = [Path(source.file) for source in sources]
        modules = [Path(module.file) for source in sources for module in source.modules if module.file]
        for file in (*models, *modules):
            here = file.resolve().parent
            if here != folder and (file in models or not here.is_relative_to(folder)):
                raise UserError(
                    f"{file} does not lie beside {self.file}; put it there, so that it can travel"
                )
        others = list(dict.fromkeys((*models, *modules)))
        return [self.file, *others]

    @property
    def folder(self) -> str:
        """Where its results lie on the head, below the home folder."""
        return f"attnsweep/{self.name}"

    @property
    def is_fetched(self) -> bool:
        """Whether rows come back here; a store with a URI is written to by the head."""
        return "://" not in self.where.results


def pack(sweep: RemoteSweep, folder: Path) -> None:
    """Lays out what travels: the package's source, the sweep file, and the rows that are known here."""
    ignore = shutil.ignore_patterns("__pycache__", "*.pyc")
    shutil.copytree(provenance.PACKAGE, folder / "attnsweep", ignore=ignore)
    for file in sweep.files:
        place = folder / "sweep" / file.resolve().relative_to(sweep.file.resolve().parent)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, place)
    if sweep.is_fetched:
        merge.extract(sweep.where.results, folder / "known")


def entrypoint(sweep: RemoteSweep) -> str:
    """The job's shell command: it works in a folder that outlives the job, with the code that was sent."""
    results = "results" if sweep.is_fetched else sweep.where.results
    words = [f"sweep/{sweep.file.name}", *sweep.arguments, "--results", results]
    return ENTRY.format(folder=shlex.quote(sweep.folder), arguments=shlex.join(words))
