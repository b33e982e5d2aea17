"""Stage one: every frame once through the frozen backbone, into the feature store.

    python extract.py                                    as params.yaml says
    python extract.py -d /data/abaw -s abaw.zarr -b 256  a folder of frames, another store
    python extract.py --dry-run                          what would be done
    python extract.py --processor pca 256                and then the principal components of its training frames
    python extract.py --processor adapt-pca 256          the same with --grid 4: layers averaged over a 4 x 4 grid
    python extract.py --cuts '{tight: 0.8}'              and the middle of each frame, into features.tight.zarr
    python extract.py --maps list                        how large the maps of each stage would be, to train from
    python extract.py --maps blocks.5                    the input of that stage, into features.blocks.5.maps.zarr
    python extract.py --verify                           names what is damaged in the store; --repair extracts it again
    python extract.py --compact                          the store without holes and vanished frames
    python extract.py --import other.h5 -s other.zarr    features made elsewhere; --export FILE.h5 the other way
    python extract.py --ray auto                         on all machines of a Ray cluster, or all GPUs of this one
    python extract.py --part 3/16                        one part of the work; --join puts all parts into the store

What is in the store already is not computed again. After a stop, the same command goes on where it was.
"""

import sys
from collections.abc import Sequence

import pandas as pd

from pipeline.core.numbering import every_nth
from pipeline.core.params import UserError, entry, given_params, parse
from pipeline.core.tables import beside_store
from pipeline.extraction import commands, maps, parts
from pipeline.extraction.by_ray import on_ray
from pipeline.extraction.config import ExtractConfig
from pipeline.extraction.cuts import fill_together, plans_of_cuts
from pipeline.extraction.inputs import read_tables
from pipeline.extraction.plan import make_plan, print_dry_run
from pipeline.extraction.processor import check_training_frames, fit_projection, split_processor
from pipeline.extraction.run import computed_here, fill, report_outcome
from pipeline.extraction.upkeep import delete_replaced


def main(argv: Sequence[str] | None = None) -> int:
    argv, components = split_processor(sys.argv[1:] if argv is None else argv)
    params = given_params(argv)
    config = maps.of_maps(parse(ExtractConfig, argv, sections=["extract"], description=__doc__))
    others = config.verify or config.compact or config.export_to or config.import_from or config.part or config.maps
    if components and others:
        raise UserError("extract: --processor goes with an extraction alone: leave it out here")

    # What is done to a store without a frame table.
    if config.verify:
        return commands.verify(config.store)
    if config.export_to:
        commands.export_features(config.store, config.export_to)
        return 0
    if config.import_from:
        commands.import_features(config, config.import_from)
        return 0

    frames, labels = read_tables(config, params, with_labels=components is not None)
    if config.compact:
        commands.compact(config.store, frames)
        return 0

    # Which frames, through which backbone, into which store.
    video, frame = pd.factorize(frames.table["video"])[0], frames.table["frame"].to_numpy()
    wanted = frames.table[every_nth(video, frame, config.stride)]
    if config.maps == maps.LIST:
        maps.print_cuts(config, len(wanted))
        return 0
    if labels:
        check_training_frames(config.data, labels, wanted, components)
    plan = make_plan(config, frames, wanted)
    plans = {config.store: plan, **plans_of_cuts(plan, config)}
    print(plan)
    if config.maps:
        maps.say_size(plan, config)
    if config.dry_run:
        for path, of in plans.items():
            print_dry_run(of, path)
        return 0

    # A part of it is left beside the store, which stays as it is.
    if config.part:
        outcome = parts.make_part(plan, config.store, config.part)
        parts.print_outcome(config.part, outcome)
        return 1 if config.strict and outcome.skipped else 0

    # What the stores lack is extracted; a projection is fitted on the first where --processor asks for one.
    for path in plans if config.repair else ():
        if path == config.store or path.exists():
            commands.repair(path)
    if config.join:
        parts.check_parts(plan, config.store)
    supply = on_ray(config) if config.ray and not config.join else computed_here
    outcomes = fill_together(plans) if config.cuts else {config.store: fill(plan, config.store, supply)}
    for path, outcome in outcomes.items():
        if config.cuts:
            print(f"{path}:")
        delete_replaced(path, wanted)
        own = config.report if path == config.store else None
        report_outcome(outcome, len(wanted), own or beside_store(path, "extract.json"))
    if components:
        fit_projection(config.store, config.data, components, params)
    return 1 if config.strict and any(outcome.skipped for outcome in outcomes.values()) else 0


if __name__ == "__main__":
    entry(main)
