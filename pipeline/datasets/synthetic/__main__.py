"""Drawn face clips, laid out on disk as ABAW lays out Aff-Wild2, with its annotation files and its faults.

    python -m pipeline.datasets.synthetic

With it a clone without any licensed data runs the whole pipeline, through the reader that real data goes through. The
labels are true by construction: the same action units move the face and write the annotation files. What is measured
here says nothing about people. It says whether the pipeline can learn what was put in.

A clip is one person under one light, going through segments of differing emotions. An emotion is a prototype of
facial action units (AUs) after FACS and EMFACS (Ekman, Friesen and Hager 2002; Ekman and Friesen 1983), with onset,
apex and offset; valence and arousal lie where Russell's circumplex (1980) puts the emotion, as far out as the
envelope goes. Over that lie speech, blinks, flicker of single AUs, the crop's jitter, blur, noise and JPEG, so that
a single frame is often ambiguous where its neighbours decide. The constants of that noise are set so that a linear
probe on frozen ImageNet features gets a macro-F1 of about one half on unseen people, and averaging its
probabilities over seven frames to either side adds 0.05 to 0.08.

The same seed gives the same bytes, whatever the number of workers. Another build of OpenCV may round otherwise.
"""

import time
from collections.abc import Sequence

from pipeline.core.params import entry, parse
from pipeline.datasets.synthetic.loop import draw_all, make_empty, write_stray_files
from pipeline.datasets.synthetic.plan import SyntheticConfig, plan


def main(argv: Sequence[str] | None = None) -> int:
    config = parse(
        SyntheticConfig, argv, sections=["synthetic"], borrow=["dataset"], description=__doc__.split("\n\n")[0]
    )
    if config.out.resolve() != config.root.resolve():
        why = f"Nothing was drawn: dataset.root is {config.root.as_posix()}, not {config.out.as_posix()}."
        make_empty(config.out, why)
        print(why)
        return 0
    started = time.perf_counter()
    clips = plan(config)
    make_empty(config.out, f"Seed {config.seed}, {config.videos} videos of about {config.frames} frames.")
    num_frames = sum(draw_all(clips, config))
    write_stray_files(config.out)
    people = len(clips) - 1  # the last clip has annotations and no frames
    seconds = time.perf_counter() - started
    print(f"{people} videos, {num_frames} frames, {people} people in {seconds:.1f} s: {config.out}")
    return 0


if __name__ == "__main__":
    entry(main)
