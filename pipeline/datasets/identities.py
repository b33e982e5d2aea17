"""A data set of people: the label is who is shown, and no one of the validation part was trained on.

The label table has the column ``identity_set`` then: 'query' and 'distractor' are the people among whom identification
is measured (``metrics.identification``), all of them in the validation part; it is null for everyone else.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from pipeline.core.params import UserError
from pipeline.core.tables import IDENTITY_SET, KEY, Frames, Labels
from pipeline.datasets.config import DatasetConfig
from pipeline.datasets.dataset import Dataset
from pipeline.datasets.splits import in_two_splits

OWN = ("celeba",)  # data sets whose labels are people


def refuse(config: DatasetConfig) -> None:
    """Raises ``UserError`` for settings that a data set of people has no use for, and for those that only it has."""
    of_people = config.identities is not None or config.name in OWN
    if of_people and config.name in OWN and config.identities not in (None, "label"):
        raise UserError(f"dataset: the labels of '{config.name}' are people: leave identities out")
    if not of_people and config.top_people is not None:
        raise UserError("dataset: top_people is for a data set of people: set dataset.identities too")
    if of_people:
        for name in ("folds", "class_map", "also"):
            if getattr(config, name) not in (None, []):
                raise UserError(f"dataset: {name} is not for a data set of people (identities): leave it out")


def as_identities(dataset: Dataset, config: DatasetConfig) -> Dataset:
    """The data set with people for labels and groups, those of ``config.top_people`` alone where that is given.

    Who is who: the labels, the groups or the videos, as ``config.identities`` says. A split that the data set brings is
    kept where each person is in one of its parts. The sets are not drawn yet: ``with_sets``.
    """
    table = dataset.labels.table
    which = "label" if config.name in OWN else config.identities
    column = {"label": "expression", "group": "group", "video": "video"}[which]
    if column not in table:
        raise UserError(f"dataset: identities 'label' needs labels, and data set '{dataset.labels.dataset}' has none")
    table = table[table[column].notna()]
    split = {"expression_split": table["expression_split"]} if "expression_split" in table else {}
    people = table[column].astype("str")
    table = table[KEY].assign(group=people, expression=people, **split)
    if split and (in_two_splits(table, "expression") or which != "label"):
        table = table.drop(columns="expression_split")
    table, frames, report = _of_top_people(table, dataset.frames, config.top_people)
    table[IDENTITY_SET] = pd.Series([None] * len(table), index=table.index, dtype=object)
    classes = sorted(table["expression"].unique(), key=lambda name: (len(name), name))
    labels = Labels(table.reset_index(drop=True), classes, dataset.labels.dataset)
    return replace(dataset, frames=frames, labels=labels, clips=None, multi_task=None, report=dataset.report | report)


def with_sets(labels: Labels, frames: Frames, config: DatasetConfig) -> tuple[Labels, str, list[str]]:
    """The labels with the people of the query and distractor sets drawn, what they are in words, and warnings.

    Drawn are ``query_people`` people with two pictures or more, and ``distractor_people`` others: of the validation
    part, and, where that has too few, of the test part, whose people then are in the validation part. Where both
    parts together have too few people, both numbers are lowered by the same factor, and at least one query is left.
    Who is drawn hangs on the seed and the person's name alone.
    """
    table = labels.table
    there = table[KEY].merge(frames.table[KEY].assign(there=True), on=KEY, how="left")["there"].notna().to_numpy()
    pictures = table[there].groupby("group").size()
    split = table[there].drop_duplicates("group").set_index("group").get("expression_split", pd.Series(dtype=object))
    order = [p for part in ("val", "test") for p in _drawn(split.index[split == part], config.seed)]
    wanted = config.query_people + config.distractor_people
    num_query, num_distractors = config.query_people, config.distractor_people
    warnings = []
    if len(order) < wanted:
        num_query = max(1, round(config.query_people * len(order) / wanted))
        num_distractors = len(order) - num_query
    query = [person for person in order if pictures[person] >= 2][:num_query]
    chosen = set(query)
    distractors = [person for person in order if person not in chosen][:num_distractors]
    if not query:
        return labels, "none", ["nobody of the validation part has two pictures: identification cannot be measured"]
    if len(query) < config.query_people or len(distractors) < config.distractor_people:
        warnings.append(
            f"identification is among {len(query):,} query people and {len(distractors):,} distractors, and not "
            f"{config.query_people:,} and {config.distractor_people:,}: {len(order):,} people are held out, of whom "
            f"{int((pictures.reindex(order) >= 2).sum()):,} have two pictures or more"
        )
    sets = {p: "query" for p in query} | {p: "distractor" for p in distractors}
    own = table["group"].map(sets)
    moved = own.notna() & (table["expression_split"] == "test")
    table = table.assign(**{IDENTITY_SET: own.astype(object).where(own.notna(), None)})
    table["expression_split"] = table["expression_split"].mask(moved, "val")
    words = [f"{name} {len(of):,} people, {int(pictures[of].sum()):,} pictures" for name, of in
             (("query", query), ("distractor", distractors))]  # fmt: skip
    if moved.any():
        words.append(f"{table.loc[moved, 'group'].nunique():,} people of test are in val for it")
    return replace(labels, table=table), f"{'; '.join(words)}; seed {config.seed}", warnings


def _of_top_people(
    table: pd.DataFrame, frames: Frames, most: int | None
) -> tuple[pd.DataFrame, Frames, dict[str, Any]]:
    """Rows and frames of the ``most`` training people with the most pictures, and of all who are not of training."""
    if most is None:
        return table, frames, {}
    training = table["expression_split"] == "train" if "expression_split" in table else np.ones(len(table), dtype=bool)
    counts = table[training].merge(frames.table[KEY], on=KEY).groupby("group").size()
    order = sorted(counts.index, key=lambda person: (-counts[person], len(person), person))
    left_out = set(order[most:])
    kept = table[~table["group"].isin(left_out)]
    videos = set(table["video"]) - set(kept["video"])
    frames = replace(frames, table=frames.table[~frames.table["video"].isin(videos)].reset_index(drop=True))
    of = order[:most]
    words = f"{len(of):,} people of {counts[of].min() if of else 0:,} pictures or more; {len(left_out):,} left out"
    return kept, frames, {"top_people": words}


def _drawn(people: Sequence[str], seed: int) -> list[str]:
    return sorted(people, key=lambda person: hashlib.sha256(f"{seed}/identity/{person}".encode()).hexdigest())
