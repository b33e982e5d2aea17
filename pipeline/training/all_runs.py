"""Trains the runs of params.yaml that are stale, several at a time, on the machines of a Ray cluster.

    python -m pipeline.training.all_runs                 each on a GPU of its own, or on a core where there are none
    python -m pipeline.training.all_runs --ray HEAD:6379 on the cluster at an address
    python -m pipeline.training.all_runs --only tcn_supcon tcn_arcface

DVC says which runs are stale and keeps what was trained: a worker does 'dvc repro --single-item train@NAME' where the
project lies, so all machines must see that folder. Heads are small: one run needs no more than one GPU. The stages
before the runs (index, weights, extract, reduce) must be done already. Run 'dvc repro' afterwards.
"""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.core import cluster
from pipeline.core.cluster import Crew, Mark
from pipeline.core.params import UserError, entry, one_of, option, parse, read

FOLDER = Path("runs")
BUSY = "Unable to acquire lock"  # of DVC, while another of its commands writes dvc.lock
TRIES, PAUSE_SEC = 20, 3.0


@dataclass(frozen=True)
class AllRunsConfig:
    """Flags of this command; it has no section of params.yaml."""

    ray: str = option("auto", help="the address of a Ray cluster, or auto: the one that runs, else one on this machine")
    ray_workers: int | None = option(
        None, help="runs at a time; default: one a GPU, or one a core where there are none", within="[1, 100_000]"
    )
    gpus_per_worker: float | None = option(
        None, help="GPUs of a run; default: 1 where the cluster has any; 0.5: two runs share one", within="[0, 64]"
    )
    only: list[str] = option([], help="only these runs; default: all")


def main(argv: Sequence[str] | None = None) -> int:
    """0; or 1 where a run could not be trained, which is named."""
    config = parse(AllRunsConfig, argv, sections=[], description=__doc__)
    runs = list(read(Path("params.yaml"), "runs"))
    for name in config.only:
        one_of("run", name, runs)
    if not Path("dvc.yaml").is_file():
        raise UserError(
            f"there is no dvc.yaml in {Path.cwd()}: run this in the project's folder, or in that of a profile"
        )
    names = [name for name in runs if name in config.only or not config.only]
    mark = Mark.put(FOLDER)
    failed = {}
    try:
        with cluster.connected(config.ray) as ray:
            size = cluster.size_of_workers(ray, config.gpus_per_worker)
            crew = Crew(ray, Trainer, (Path.cwd(), mark), size, config.ray_workers)
            for number, (status, said, seconds) in crew.run(names, [1] * len(names)):
                if status:
                    failed[names[number]] = said
                what = "could not be trained" if status else "was up to date" if "didn't change" in said else "trained"
                print(f"{names[number]}: {what} ({seconds:.0f} s)", flush=True)
    finally:
        mark.path.unlink(missing_ok=True)
    for name, said in failed.items():
        print(f"{name}: {said}", file=sys.stderr)
    return int(bool(failed))


class Trainer:
    """A worker that trains one run at a time, each in a process of its own."""

    def __init__(self, folder: Path, mark: Mark) -> None:
        self.folder, self.mark = folder, mark

    def ready(self) -> tuple[str, str | None]:
        """The name of this machine, and why it cannot work or None."""
        seen = self.mark.is_seen()
        return cluster.name_of_machine(), None if seen else f"does not see {self.folder}"

    def do(self, name: str) -> tuple[int, str, float]:
        """Exit status of a run, the last line that was said, and seconds."""
        start = time.monotonic()
        command = [sys.executable, "-m", "dvc", "repro", "--single-item", f"train@{name}"]
        path = os.pathsep.join(
            [str(Path(sys.executable).parent), os.environ.get("PATH", "")]
        )  # of 'python' in dvc.yaml
        env = os.environ | {"PATH": path}
        for _ in range(TRIES):
            done = subprocess.run(command, cwd=self.folder, env=env, capture_output=True, text=True, check=False)
            if not done.returncode or BUSY not in done.stderr:
                break
            time.sleep(PAUSE_SEC)
        lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        errors = [line for line in lines if line.lower().startswith("error: ")] if done.returncode else []
        unchanged = [line for line in lines if "didn't change" in line]
        return done.returncode, (errors or unchanged or lines or [""])[0], time.monotonic() - start


if __name__ == "__main__":
    entry(main)
