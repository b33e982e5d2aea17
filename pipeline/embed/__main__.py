"""Videos and pictures to embeddings by a trained run; or the similarity matrix of a folder of pictures.

    python -m pipeline.embed --run runs/tcn_supcon clip.mp4 more -o out.parquet

writes out.parquet (or .csv, .npz): a row for each face and frame of the videos and pictures that you name, or that lie
in a folder, at any depth. It also writes out.parquet.json: what each file gave, and every problem by the name of its
file. A file without a face, or one that cannot be read, is such a problem; the other files are done. After a stop, the
same command goes on with the unfinished file. Called again with more files, it adds these.

    python -m pipeline.embed --run runs/tcn_supcon --matrix people -o people.png

draws how similar the faces of all pictures in a folder are, sorted by name, and writes the pairs at or above a
threshold to people.csv. docs/embed_command.md says more.
"""

import argparse
import dataclasses
import hashlib
import json
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.adapter.adapter import Adapter
from pipeline.core.alone import alone
from pipeline.core.files import write_json
from pipeline.core.params import UserError, add_flags, build, entry, option
from pipeline.core.progress import Line, clock
from pipeline.core.store import ALIKE
from pipeline.datasets.dataset import counted
from pipeline.datasets.scan import scan
from pipeline.embed import files as kept
from pipeline.embed import matrix
from pipeline.embed.embedder import Embedder
from pipeline.embed.files import Parts
from pipeline.embed.inputs import names_of
from pipeline.faces.config import CutSettings
from pipeline.faces.video import STILLS, VIDEOS, expected_frames

PICTURES = 64  # at a time: so many may have to be done again after a kill
_FACES = {field.name: field for field in dataclasses.fields(CutSettings)}


def _as_faces(name: str) -> Any:
    """The option of ``python -m pipeline.faces``."""
    of = _FACES[name]
    return option(of.default, help=of.metadata["help"], choices=of.metadata["choices"], within=of.metadata["within"])


@dataclass(frozen=True)
class EmbedConfig:
    """The flags. There is no section of params.yaml: the run says all else."""

    run: Path | None = option(None, help="the folder of a run, or of a bundle")
    output: Path | None = option(None, "-o", help="the file to write: .parquet, .csv or .npz; of a matrix .png")
    seed: int | str | None = option(None, help="of the run: a number, or 'all', their mean; default: the best one")
    alike: list[str] = option([], choices=ALIKE, help="what may differ from training: you say that it is alike")
    device: str = option("auto", choices=("auto", "cpu", "cuda"), help="where to compute")
    weights: Path | None = option(None, help="the backbone's file, if it has moved since training")
    every: int = _as_faces("every")
    min_face: int = _as_faces("min_face")
    confidence: float = _as_faces("confidence")
    min_frames: int = _as_faces("min_frames")
    most_people: int | None = _as_faces("most_people")
    enlarge: float | None = option(
        None, help=f"{_FACES['enlarge'].metadata['help']}; default: as the run's faces", within="[0, 2]"
    )
    points: Path | None = _as_faces("points")
    identity_run: Path | None = option(
        None, help="a run trained on people: its embeddings say which tracks of a video are one person"
    )
    same_person: float | None = option(
        None, help="with --identity-run, the cosine from which two tracks are one; default: its own", within="[-1, 1]"
    )
    matrix: Path | None = option(None, help="draw the similarity matrix of the pictures in this folder")
    threshold: float | None = option(
        None, help="with --matrix, the cosine from which pairs are listed; default: the run's own", within="[-1, 1]"
    )
    rebuild: bool = option(False, help="remove what was made before, and make all anew")
    strict: bool = option(False, help="exit status 1, after all is written, when a file has a problem")

    @property
    def cut(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _FACES if hasattr(self, name)}


def main(argv: Sequence[str] | None = None) -> int:
    """0; or 1 with ``--strict`` where a file has a problem."""
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.embed", description=__doc__, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("files", nargs="*", type=Path, help="videos, pictures, and folders of them")
    add_flags(parser, EmbedConfig)
    given = vars(parser.parse_args(argv))
    files = given.pop("files")
    config = build(EmbedConfig, given, "embed")
    if config.run is None:
        raise UserError("embed: name a run with --run, such as --run runs/tcn_supcon")
    if config.same_person is not None and config.identity_run is None:
        raise UserError("embed: --same-person is for --identity-run")
    if config.matrix is not None:
        if config.identity_run is not None:
            raise UserError("embed: --identity-run tells people of a video apart; with --matrix give that run as --run")
        if files:
            raise UserError(f"embed: --matrix takes its folder alone, and {files[0]} was given too")
        return _matrix(config)
    if config.threshold is not None:
        raise UserError("embed: --threshold is for --matrix")
    if not files:
        raise UserError("embed: name videos, pictures or folders of them")
    if config.output is None or config.output.suffix.lower() not in kept.WRITERS:
        raise UserError(
            f"embed: name the file to write with -o, ending in {', '.join(kept.WRITERS)}"
            + ("" if config.output is None else f", and not {config.output}")
        )
    return _files(config, files, config.output)


# --- many files ------------------------------------------------------------------------------------------------------


def _files(config: EmbedConfig, given: Sequence[Path], output: Path) -> int:
    started = time.perf_counter()
    paths, others, problems = find(given)
    embedder = _load(config)
    embedder.check_pictures(embedder.cut_settings(config.cut))
    folder = kept.parts_folder(output)
    held = f"embed: another run is writing {output}: wait for it, or name another output"
    with alone(folder / "lock", lambda: held, "embed: "):
        kept.take_up(output, job_of(embedder, config), config.rebuild)
        if not config.rebuild:
            kept.check_none_is_lost(output, paths)
        parts = Parts(folder, kept.schema_of(embedder))
        parts.find()
        todo = [path for path in paths if not parts.has(path)]
        with Line() as line:
            _embed(embedder, todo, config.cut, parts, line)
        names = names_of(paths, None)
        kept.write_output(output, parts, paths, names)
        report = _report(embedder, config, parts, paths, names, others, problems)
        write_json(kept.report_file(output), report, sealed=True)
    for problem in report["problems"]:
        print(f"{problem['file']}: {problem['problem']}")
    if count := report["other_files"]["count"]:
        print(f"{report['other_files']['first'][0]}: no video and no picture ({count:,} such files)")
    troubled = len({problem["file"] for problem in report["problems"]})
    print(
        f"{report['rows']:,} rows of {len(paths):,} files, {len(todo):,} of them embedded now, {troubled:,} with "
        f"problems, in {time.perf_counter() - started:.1f} s: {output}"
    )
    return int(config.strict and bool(report["problems"]))


def find(given: Sequence[Path]) -> tuple[list[Path], list[str], list[dict[str, str]]]:
    """The videos and pictures that are named or lie in a folder, each once; other files there; what cannot be read.

    A file that is named counts whatever its ending is. Raises ``UserError`` where there is nothing.
    """
    found, others, problems = dict[Path, Path](), [], []
    for path in given:
        if path.is_file():
            found.setdefault(path.resolve(), path)
        elif path.is_dir():
            scanned = scan(path, (*VIDEOS, *STILLS))
            inside = [path / of.path / name for of in scanned.folders for name in of.names]
            for file in sorted(inside):
                found.setdefault(file.resolve(), file)
            others += [f"{path / name}" for name in scanned.others if not name.endswith("/")]
            problems += [{"file": str(path), "problem": why} for why in scanned.unreadable]
        else:
            raise UserError(f"embed: there is no file or folder {path}")
    if not found:
        raise UserError(f"embed: no video ({' '.join(VIDEOS)}) and no picture ({' '.join(STILLS)}) in {given[0]}")
    return list(found.values()), others, problems


def job_of(embedder: Embedder, config: EmbedConfig) -> dict[str, Any]:
    """What makes the rows of a file, in words: two outputs of the same are of one kind."""
    name = config.run.resolve().name
    return {
        "adapters": [f"{name}/{of} {digest(adapter)}" for of, adapter in embedder.trained.adapters.items()],
        "weights": embedder.facts["made_by"].get("weights_sha256"),
        "alike": sorted(config.alike),
        **_cut_in_words(embedder.cut_settings(config.cut), config.cut),
        **_who_is_who(embedder),
    }


def _cut_in_words(settings: CutSettings, names: Collection[str]) -> dict[str, Any]:
    """The settings of these names; of some nothing is said where they are not used, as in older jobs."""
    words = {name: value for name, value in settings.facts.items() if name in names}
    return {name: value for name, value in words.items() if name not in ("enlarge", "points") or value}


def _who_is_who(embedder: Embedder) -> dict[str, Any]:
    """What tells people of a video apart, where that is a run."""
    if embedder.identity is None:
        return {}
    run, threshold = embedder.identity
    return {"identity": [digest(adapter) for adapter in run.adapters], "same_person": round(threshold, 6)}


def digest(adapter: Adapter) -> str:
    """16 digits that are others for another training: of all tensors and facts."""
    found = hashlib.sha256(json.dumps(adapter.facts, sort_keys=True, default=str).encode())
    tensors = {**adapter.modules().state_dict(), **({} if adapter.centres is None else {"centres": adapter.centres})}
    for name, tensor in sorted(tensors.items()):
        found.update(f"{name} {tuple(tensor.shape)}".encode() + tensor.cpu().numpy().tobytes())
    return found.hexdigest()[:16]


def _embed(embedder: Embedder, todo: Sequence[Path], cut: dict[str, Any], parts: Parts, line: Line) -> None:
    """Embeds the files, each video by itself and pictures some at a time, and keeps each part."""
    started, frames_done, files_done = time.monotonic(), 0, 0
    total = sum(map(expected_frames, todo))

    def show(frames: int) -> None:
        elapsed = max(time.monotonic() - started, 1e-9)
        rate = (frames_done + frames) / elapsed
        left = f", {clock(max(total - frames_done - frames, 0) / rate)} left" if rate else ""
        line.say(
            f"{files_done:,} of {len(todo):,} files, {frames_done + frames:,} of about {total:,} frames, "
            f"{rate:,.0f} frames/s{left}"
        )

    for unit in units(todo):
        results = [kept.facts_of(path) | {"rows": 0, "problems": [], "notes": []} for path in unit]
        table = _of_unit(embedder, unit, cut, results, lambda done, _: show(done))
        parts.keep(kept.to_part(table, parts.schema), results)
        frames_done, files_done = frames_done + sum(map(expected_frames, unit)), files_done + len(unit)


def units(paths: Sequence[Path]) -> Iterator[list[Path]]:
    """What is embedded and kept together, in order: a video, or up to ``PICTURES`` pictures."""
    pictures: list[Path] = []
    for path in paths:
        is_picture = path.suffix.lower() in STILLS
        if pictures and (not is_picture or len(pictures) == PICTURES):
            yield pictures
            pictures = []
        if is_picture:
            pictures.append(path)
        else:
            yield [path]
    if pictures:
        yield pictures


def _of_unit(
    embedder: Embedder, unit: list[Path], cut: dict[str, Any], results: list[dict[str, Any]],
    step: Callable[[int, int | None], None],
) -> pd.DataFrame | None:  # fmt: skip
    """The rows of a unit, ``video`` being the number of the file in it; ``results`` learn what was found."""
    numbers = [str(number) for number in range(len(unit))]
    try:
        if unit[0].suffix.lower() in STILLS:
            table = embedder.images(unit, names=numbers, on_progress=step, **cut)
        else:
            table = embedder.video(unit[0], name="0", on_progress=step, **cut)
    except UserError as error:
        if len(unit) > 1:  # none of them shows a face, and only one of them is named
            for path, result in zip(unit, results, strict=True):
                _of_unit(embedder, [path], cut, [result], lambda done, total: None)
        else:
            results[0]["problems"] = [str(error).removeprefix(f"{unit[0]}: ")]
        return None
    by_name = {str(path): result for path, result in zip(unit, results, strict=True)}
    for what in ("problems", "notes"):
        for found in table.attrs[what]:
            of = by_name.get(found["file"])  # or what is said of all pictures
            for result in results if of is None else [of]:
                result[what].append(found[what.removesuffix("s")])
    for number, rows in table["video"].value_counts().items():
        results[int(number)]["rows"] = int(rows)
    return table


def _report(
    embedder: Embedder, config: EmbedConfig, parts: Parts, paths: Sequence[Path], names: Sequence[str],
    others: list[str], problems: list[dict[str, str]],
) -> dict[str, Any]:  # fmt: skip
    """What each file gave, and every problem; nothing in it tells the time."""
    results = [parts.result(path) for path in paths]
    found = [{"file": str(p), "problem": why} for p, r in zip(paths, results, strict=True) for why in r["problems"]]
    return {
        **job_of(embedder, config),
        "classes_by": embedder.classes_by,
        "rows": sum(result["rows"] for result in results),
        "problems": found + problems,
        "other_files": counted(sorted(others)),
        "files": [{"video": name, **result} for name, result in zip(names, results, strict=True)],
    }


# --- a matrix --------------------------------------------------------------------------------------------------------


def _matrix(config: EmbedConfig) -> int:
    folder = config.matrix
    output = Path(f"{folder.resolve().name}.png") if config.output is None else config.output
    if output.suffix.lower() != ".png":
        raise UserError(f"embed: a matrix is drawn to a .png, and not to {output}")
    paths, _, problems = find([folder])
    pictures = [path for path in paths if path.suffix.lower() in STILLS]
    if not pictures:
        raise UserError(f"embed: no picture ({' '.join(STILLS)}) in {folder}")
    embedder = _load(config)
    with Line() as line:
        table = embedder.images(
            pictures, with_crops=True, **config.cut,
            on_progress=lambda done, total: line.say(f"{done:,} of {total:,} pictures"),
        )  # fmt: skip
    threshold, whose = matrix.threshold_of(embedder) if config.threshold is None else (config.threshold, "as given")
    figure, pairs = matrix.draw(table, threshold, whose)
    matrix.save(output, figure, pairs)
    problems += table.attrs["problems"]
    for problem in problems:
        print(f"{problem['file']}: {problem['problem']}")
    for pair in pairs.itertuples(index=False):
        print(f"{pair.cosine:.3f}  {pair.first}  {pair.second}")
    print(
        f"{len(table):,} faces of {len(pictures):,} pictures; {len(pairs):,} pairs at or above {threshold:.3f} "
        f"({whose}): {output}, {output.with_suffix('.csv')}"
    )
    return int(config.strict and bool(problems))


def _load(config: EmbedConfig) -> Embedder:
    embedder = Embedder.load(config.run, config.seed, config.alike, config.device, config.weights)
    if config.identity_run is None:
        return embedder
    run = Embedder.load(config.identity_run, None, config.alike, config.device, config.weights)
    return embedder.with_identity(run, config.same_person)


if __name__ == "__main__":
    entry(main)
