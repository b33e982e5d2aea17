"""Raw videos and pictures to aligned faces in ABAW's layout, with a table of where they were.

    python -m pipeline.faces --input videos --out data/faces

writes data/faces/cropped_aligned/<video>/00001.jpg (112 x 112, the number of the frame in the video, from 1),
data/faces/faces.parquet (one row a face: video, frame, time, box, five points, confidence, track) and
data/faces/faces.json (what was found, and every problem by the name of its file). 'dataset: {name: abaw, root:
data/faces}' in params.yaml reads these faces.

    python -m pipeline.faces --input clip.mp4          one file, added to what was cut into the folder before
    python -m pipeline.faces --names tree              folders are kept: class folders of videos become those of frames
    python -m pipeline.faces --stills frames --fps 25  folders of numbered pictures, clip/00001.jpg, are videos
    python -m pipeline.faces --landmarks afew_va       AFEW-VA's whole frames, cut by the points that come with them
    python -m pipeline.faces --ray auto                by the machines of a Ray cluster, which see the same disk
    python -m pipeline.faces --landmarks celeba        CelebA's photographs; a folder a person
    python -m pipeline.faces --points best.safetensors a trained aligner's points: python -m pipeline.faces.aligner
    python -m pipeline.faces --enlarge 0.2             more around the face, for recognition
    python -m pipeline.faces --sheet sheet.png         also draws originals, points and faces, to look at

A frame without a face leaves a gap. Several people become <video>_left and <video>_right, or <video>_p1, <video>_p2...
After a stop, the same command goes on with the unfinished video.
"""

import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from pipeline.core.alone import alone
from pipeline.core.files import read_json, table_writer, write_json
from pipeline.core.params import UserError, entry, parse
from pipeline.datasets import afew_va, celeba
from pipeline.datasets.config import DatasetConfig
from pipeline.datasets.dataset import counted
from pipeline.datasets.numbered import CROPS, RECORDS, frame_digits
from pipeline.datasets.scan import scan
from pipeline.faces import sheet
from pipeline.faces.by_ray import cut_on_ray
from pipeline.faces.config import CutSettings, FacesConfig
from pipeline.faces.loop import (
    PARTIAL,
    SCHEMA,
    FrameSequence,
    Task,
    cut_all,
    find_record,
    is_done,
    read_record_table,
    remove,
    stands,
)
from pipeline.faces.video import STILLS, VIDEOS, expected_frames

MOST_ON_SHEET = 24


def main(argv: Sequence[str] | None = None) -> int:
    """0; or 1 with ``--strict`` where a file has a problem."""
    config = parse(FacesConfig, argv, sections=["faces"], description=__doc__)
    started = time.perf_counter()
    settings = config.settings
    tasks, others = find_sequences(config, settings) if config.landmarks else find(config, settings)
    held = f"faces: another run is writing to {config.out}; wait for it, or name another --out"
    with alone(config.out / RECORDS / "lock", lambda: held, "faces: "):
        _check_settings(config.out, settings, config.rebuild)
        todo = [task for task in tasks if not is_done(task)]
        expected = sum(len(t.sequence.paths) if t.sequence else expected_frames(t.root / t.source) for t in todo)
        try:
            if config.ray:
                failed = cut_on_ray(todo, expected, config.ray, config.ray_workers)
            else:
                failed = cut_all(todo, expected, min(config.workers or os.cpu_count() or 1, max(len(todo), 1)))
        except OSError as error:  # of the output, such as a full disk: what cannot be read is a problem of its file
            raise UserError(f"faces: cannot write {error.filename or config.out}: {error.strerror}") from None
        shutil.rmtree(config.out / PARTIAL, ignore_errors=True)
        records = _records(config.out, [task.video for task in tasks])
        report = _report(tasks, failed, others, config.out, records)
        _write_table(config.out, [config.out / RECORDS / f"{video}.parquet" for video in records])
        write_json(config.out / "faces.json", report)
    for problem in report["problems"]:
        print(f"{problem['file']}: {problem['problem']}")
    if report["notes"]:
        print(f"{len(report['notes'])} notes on how files were read are in {config.out / 'faces.json'}")
    if config.sheet is not None:
        print(f"{config.sheet}: {sheet.write(config.sheet, tasks, MOST_ON_SHEET)} faces, to look at")
    earlier = report["of_earlier_inputs"]["count"]
    print(
        f"{report['faces']:,} faces in {report['folders']:,} folders, from {len(tasks) - len(failed):,} of "
        f"{len(tasks):,} files{f' and {earlier:,} of earlier inputs' if earlier else ''}, {len(todo):,} cut now, "
        f"in {time.perf_counter() - started:.1f} s: {config.out}"
    )
    return int(config.strict and bool(report["problems"]))


def find(config: FacesConfig, settings: CutSettings) -> tuple[list[Task], list[str]]:
    """One task a video, picture or folder of numbered frames, by name, and the files that are none of these.

    Raises ``UserError`` where there is none, where two would have one name, and for a frame number twice in a folder.
    """
    if config.input.is_file():
        name = config.input.name
        video = PurePosixPath(name).stem
        return [Task(config.input.parent, name, video, config.out, settings)], []
    if not config.input.is_dir():
        raise UserError(f"faces: there is no file or folder {config.input}: name yours with --input")
    scanned = scan(config.input, (*VIDEOS, *STILLS))
    sources: dict[str, FrameSequence | None] = {}
    for folder in scanned.folders:
        paths = [f"{folder.path}/{name}".lstrip("/") for name in folder.names]
        if config.stills == "frames" and (sequence := _frames(paths, config.fps)):
            sources[folder.path or "."] = sequence
            paths = sorted(set(paths).difference(sequence.paths.values()))
        sources |= dict.fromkeys(paths)
    if not sources:
        raise UserError(f"faces: no video ({' '.join(VIDEOS)}) and no picture ({' '.join(STILLS)}) in {config.input}")
    tasks: dict[str, Task] = {}
    for source, sequence in sorted(sources.items()):
        path = PurePosixPath(config.input.resolve().name if source == "." else source)
        path = path if sequence else path.with_suffix("")  # a folder's name has none
        video = {"stem": path.name, "path": "_".join(path.parts), "tree": "/".join(path.parts)}[config.names]
        if video in tasks:
            hint = "" if config.names == "path" else ", or set names: path"
            if sequence is None and source.lower().endswith(STILLS) and frame_digits(PurePosixPath(source).name):
                hint += "; where they are the frames of videos, set stills: frames"
            raise UserError(
                f"faces: '{tasks[video].source}' and '{source}' would both be called '{video}': rename one{hint}"
            )
        tasks[video] = Task(config.input, source, video, config.out, settings, sequence)
    for video, task in tasks.items():
        for parent in PurePosixPath(video).parents:
            if f"{parent}" in tasks:
                raise UserError(
                    f"faces: the folder of '{tasks[f'{parent}'].source}' would hold that of '{task.source}': rename one"
                )
    return list(tasks.values()), scanned.others + scanned.unreadable


def _frames(paths: list[str], fps: float | None) -> FrameSequence | None:
    """The pictures of a folder that are called by a number; None where there is none."""
    found: dict[int, str] = {}
    for path in sorted(paths):
        digits = frame_digits(PurePosixPath(path).name)
        if digits and path.lower().endswith(STILLS):
            if int(digits) in found:
                raise UserError(f"faces: '{found[int(digits)]}' and '{path}' are the same frame; keep one")
            found[int(digits)] = path
    return FrameSequence(found, fps=fps) if found else None


def find_sequences(config: FacesConfig, settings: CutSettings) -> tuple[list[Task], list[str]]:
    """One task a video of AFEW-VA, or a person of CelebA, which is a sequence of frames with landmarks.

    It is cut again when the file of its landmarks has changed.

    Raises ``UserError`` where there is none, as the reader of the data set does.
    """
    dataset = DatasetConfig(name=config.landmarks, root=config.input)
    if config.landmarks == "celeba":
        return [
            Task(config.input, source, person, config.out, settings, FrameSequence(paths, points))
            for person, (source, paths, points) in sorted(celeba.landmarks(dataset).items())
        ], []
    frames, given = afew_va.read(dataset).frames.table, afew_va.landmarks(dataset)
    tasks = []
    for video, rows in frames.groupby("video"):
        source, landmarks = given.get(video, (str(PurePosixPath(rows["path"].iloc[0]).parent), {}))
        sequence = FrameSequence(dict(zip(rows["frame"], rows["path"], strict=True)), landmarks)
        tasks.append(Task(config.input, source, video, config.out, settings, sequence))
    return tasks, [path for video, (path, _) in given.items() if video not in set(frames["video"])]


def _check_settings(out: Path, settings: CutSettings, rebuild: bool) -> None:
    """Faces cut in two ways never lie in one folder; ``rebuild`` removes those of the other way."""
    file, now = out / RECORDS / "settings.json", settings.facts
    way_out = f"Put back a copy, or delete {out} and cut all again"
    before = CutSettings().facts  # of what is not said: an older version had no such choice
    before = before | read_json(file, "the settings of the faces", way_out) if file.is_file() else now
    changed = ", ".join(f"{key} {before.get(key)} -> {value}" for key, value in now.items() if before.get(key) != value)
    if changed:
        if not rebuild:
            raise UserError(f"faces: {out} was cut with other settings ({changed}): name another --out, or --rebuild")
        for record in (out / RECORDS).rglob("*.parquet"):
            video = record.relative_to(out / RECORDS).with_suffix("").as_posix()
            remove(Task(out, "", video, out, settings))
    write_json(file, now)


def _records(out: Path, videos: list[str]) -> dict[str, dict[str, Any]]:
    """The records of the videos, in their order, then all others in ``out`` whose faces are still there."""
    there = {path.relative_to(out / RECORDS).with_suffix("").as_posix() for path in (out / RECORDS).rglob("*.parquet")}
    order = [video for video in videos if video in there] + sorted(there.difference(videos))
    found = {video: find_record(out / RECORDS / f"{video}.parquet") for video in order}
    return {v: record for v, record in found.items() if record and (v in videos or stands(out, record))}


def _report(
    tasks: list[Task], failed: dict[str, str], others: list[str], out: Path, records: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    """What each file gave, and every problem; nothing in it tells the time."""
    problems = [{"file": source, "problem": why} for source, why in failed.items()]
    problems += [{"file": r["source"], "problem": why} for r in records.values() for why in r["problems"]]
    notes = [{"file": r["source"], "note": note} for r in records.values() for note in r.get("notes", [])]
    folders = {name: faces for record in records.values() for name, faces in record["folders"].items()}
    return {
        "files": len(tasks),
        "folders": len(folders),
        "faces": sum(folders.values()),
        "problems": sorted(problems, key=lambda problem: (problem["file"], problem["problem"])),
        "notes": sorted(notes, key=lambda note: (note["file"], note["note"])),
        "other_files": counted(sorted(others)),
        "of_earlier_inputs": counted(sorted(set(records).difference(task.video for task in tasks))),
        "folders_of_no_file": counted(_folders_of_no_file(out / CROPS, set(folders))),
        "videos": {
            video: {key: r[key] for key in ("source", "frames", "fps", "folders")} for video, r in records.items()
        },
    }


def _folders_of_no_file(crops: Path, folders: set[str]) -> list[str]:
    parents = {".", *(str(parent) for name in folders for parent in PurePosixPath(name).parents)}
    there = {
        str(PurePosixPath(p, found.name)) for p in parents if (crops / p).is_dir() for found in (crops / p).iterdir()
    }
    return sorted(there - folders - parents)


def _write_table(out: Path, records: list[Path]) -> None:
    """All records end to end, one in memory at a time."""
    with table_writer(out / "faces.parquet", SCHEMA, {}) as writer:
        for record in records:
            writer.write_table(read_record_table(record))


if __name__ == "__main__":
    entry(main)
