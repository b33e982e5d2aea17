"""The page: what is chosen, and what is shown of it. What is computed stands in ``pipeline.embed``."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import streamlit as st

from pipeline.core.params import UserError
from pipeline.core.store import ALIKE
from pipeline.demo import charts, work
from pipeline.demo.work import RUNS, Choice, Job, Medium
from pipeline.embed import view
from pipeline.embed.embedder import Embedder

TITLE = "Emotion embeddings, frame by frame"
FIRST = "tcn_supcon"  # chosen at first, where it is there
DRAWN, UPLOAD, CAMERA = "Drawn sample", "Upload", "Camera"
MOST_FRAMES = 1500  # drawn of a clip
MOST_PERSONS = 40  # in a similarity matrix
MOST_RUNS = 4
NEAREST = 8
MOST_SNAPSHOTS = 12
VECTORS = ["embedding", "features", "crop", "box"]  # columns that no chart gets


def show() -> None:
    st.set_page_config(page_title="Emotion embeddings", layout="wide")
    st.title(TITLE)
    paths, seed = choose_runs()
    every = st.sidebar.slider(
        "Look for faces in every n-th frame", 1, 10, 3, help="In between they are followed. 1 takes the longest."
    )
    files = choose_files()
    chosen = [each for each in (usable_run(path, seed) for path in paths) if each is not None]
    if not chosen or not files:
        return
    tables = computed(work.jobs(chosen, files, every))
    if not tables:
        return
    runs = {each.label: work.load(each) for each in chosen if each.label in tables}
    look_at(runs, tables)


# --- what is chosen --------------------------------------------------------------------------------------------------


def choose_runs() -> tuple[list[Path], str | None]:
    """The folders of the runs that are chosen at the left, and which of their seeds."""
    with st.sidebar:
        st.header("Trained runs")
        found = {path.relative_to(RUNS).as_posix(): path for path in view.finished_runs(RUNS)}
        default = [name for name in found if name == FIRST] or list(found)[:1]
        names = st.multiselect(
            "Runs", list(found), default=default, max_selections=MOST_RUNS, placeholder="None is finished",
            disabled=not found, help="All runs in the folder runs that have a finished seed.",
        )  # fmt: skip
        other = st.text_input("Another run or bundle", placeholder="its folder")
        seeds = {"the best": None, "all, averaged": "all"}
        seed = seeds[st.radio("Seed", list(seeds), horizontal=True, help="The best by the run's own selection score.")]
    paths = [found[name] for name in names] + ([Path(other)] if other else [])
    if not paths:
        st.info(
            f"There is no run to use. Train one with 'make repro' or 'python train.py --run {FIRST}', or name the "
            "folder of a run or of a bundle at the left."
        )
    return list(dict.fromkeys(paths)), seed


def usable_run(path: Path, seed: str | None) -> Choice | None:
    """The run, if need be by the user's word that its pictures and these are alike.

    None where it cannot be used, which is said.
    """
    try:
        if not view.is_finished(path):
            Embedder.load(path)  # says what is missing
        chosen = work.choice(path, seed, ())
        refused = refusal(chosen)
        if refused is None:
            return chosen
        by_word = work.choice(path, seed, ALIKE)
        if refusal(by_word) is not None:
            st.error(refused)
            return None
    except UserError as error:
        st.error(str(error))
        return None
    st.warning(refused)
    return by_word if st.checkbox(f"I take them to be alike, and use {chosen.label}", key=f"alike {path}") else None


def refusal(chosen: Choice) -> str | None:
    """Why the run cannot take pictures that are cut here; None where it can."""
    try:
        work.load(chosen).check_pictures()
    except UserError as error:
        return str(error)
    return None


def choose_files() -> list[Medium]:
    source = st.segmented_control("What to look at", [DRAWN, UPLOAD, CAMERA], default=DRAWN, required=True)
    if source == DRAWN:
        st.caption(
            "A video that this project draws: two people whose emotions change. What a run says of them says nothing "
            "about real people."
        )
        return work.media([(work.SAMPLE, work.sample())])
    if source == UPLOAD:
        given = st.file_uploader("Clips or pictures", type=work.ENDINGS, accept_multiple_files=True)
        st.caption("They stay on the machine that runs this demo, in memory, until it ends.")
        return work.media([(file.name, file.getvalue()) for file in given])
    return snapshots()


def snapshots() -> list[Medium]:
    """All pictures that were taken, the last ones at the end."""
    taken = st.session_state.setdefault("snapshots", {})
    cameras = st.session_state.setdefault("cameras", 0)

    def forget() -> None:
        taken.clear()
        st.session_state["cameras"] = cameras + 1  # a new one, that holds no picture

    picture = st.camera_input("Take a picture; take several to compare them", key=f"camera {cameras}")
    if picture is not None and picture.file_id not in taken:
        taken[picture.file_id] = picture.getvalue()
        while len(taken) > MOST_SNAPSHOTS:
            del taken[next(iter(taken))]
    if taken:
        st.button("Forget the pictures", on_click=forget)
    return work.media([(f"snapshot {number}.jpg", content) for number, content in enumerate(taken.values(), start=1)])


# --- what is computed ------------------------------------------------------------------------------------------------


def computed(groups: Sequence[Sequence[Job]]) -> dict[str, pd.DataFrame]:
    """A table for each run, of all files; what has none is said."""
    todo = [(job, group) for group in groups for job in group if work.made(job) is None]
    if todo:
        keys = {job.key for job, _ in todo}
        if keys <= st.session_state.get("stopped", set()):
            st.info("Stopped. What was not finished is not shown.")
            st.button("Go on", on_click=partial(st.session_state.pop, "stopped"))
            return {}
        progress = work.Progress(stop=partial(st.session_state.update, stopped=keys))
        for job, group in todo:
            work.make(job, group, progress.of(f"{job.title}, {job.chosen.label}"))
        progress.end()
    parts: dict[str, list[pd.DataFrame]] = {}
    lines: dict[str, None] = {}  # each once, in their order
    for group in groups:
        for job in group:
            result = work.made(job)
            if isinstance(result, str):
                lines[result] = None
            elif result is not None:
                parts.setdefault(job.chosen.label, []).append(result)
                for problem in result.attrs["problems"]:
                    lines[f"{Path(problem['file']).name}: {problem['problem']}"] = None
    for line in lines:
        st.warning(line)
    return {label: pd.concat(tables, ignore_index=True) for label, tables in parts.items()}


# --- what is shown ---------------------------------------------------------------------------------------------------


def look_at(runs: dict[str, Embedder], tables: dict[str, pd.DataFrame]) -> None:
    labels = list(tables)
    label = labels[0] if len(labels) == 1 else st.segmented_control("Run", labels, default=labels[0], required=True)
    embedder, table = runs[label], tables[label]
    say_run(label, embedder, table)
    found = view.entries(table)
    sizes = table.groupby(["video", "person"], sort=False).size()
    moving = [entry for entry in found if sizes[entry] > 1]
    pictures = [entry for entry in found if sizes[entry] == 1]
    if moving:
        entry = choose_entry(moving)
        look_at_person(runs, tables, label, entry)
    if pictures:
        look_at_pictures(runs, tables, label, pictures)
    if len(found) > 1:
        look_at_all(table, label)
    with st.expander("About these pictures"):
        st.markdown(ABOUT)


def say_run(label: str, embedder: Embedder, table: pd.DataFrame) -> None:
    window, made_by = embedder.adapters[0].window, embedder.facts["made_by"]
    step = "" if window.step is None else f", {window.step} apart"
    by = {"classifier": "the run's own classifier", "class centres": "the nearest class centre of training"}
    classes = f" Emotions are those of {by[embedder.classes_by]}." if embedder.classes_by else ""
    st.caption(
        f"**{label}** ({view.members(list(embedder.trained.adapters))}): {embedder.embedding_size} numbers a frame, "
        f"from windows of {window.frames} frames{step}, on features of {made_by['backbone']}.{classes}"
    )


def choose_entry(found: Sequence[view.Entry]) -> view.Entry:
    if len(found) == 1:
        return found[0]
    one_video = len({video for video, _ in found}) == 1
    names = {view.entry_name(entry, with_video=not one_video): entry for entry in found}
    name = st.segmented_control("Person", list(names), default=next(iter(names)), required=True)
    return names[name]


def look_at_person(runs: dict[str, Embedder], tables: dict[str, pd.DataFrame], label: str, entry: view.Entry) -> None:
    """One person of one clip in time."""
    embedder, rows = runs[label], view.rows_of(tables[label], entry)
    classes, at = embedder.classes, reference(f"{entry}", rows)
    pick = partial(picked, f"{entry}")
    frame, time = int(rows["frame"].iloc[at]), float(rows["time_sec"].iloc[at])
    span = (float(rows["time_sec"].iloc[0]), float(rows["end_sec"].iloc[-1]))

    def drawn(own: pd.DataFrame) -> pd.DataFrame:
        return view.thinned(own.drop(columns=VECTORS), MOST_FRAMES, at)

    shown = drawn(rows)
    st.header(view.entry_name(entry))
    part = "" if len(shown) == len(rows) else f" Of these, {len(shown):,} are drawn, evenly spaced; the CSV has all."
    st.markdown(
        f"{len(rows):,} faces in {span[1] - span[0]:.1f} s.{part} **Click a face, a chart or a dot** to choose the "
        f"frame that the others are compared with. Now it is **frame {frame}**, at {time:.2f} s: the red line."
    )
    faces = rows.iloc[np.unique(np.linspace(0, len(rows) - 1, charts.THUMBNAILS).round().astype(int))]
    strip = faces[["frame", "time_sec"]].assign(picture=faces["crop"].map(charts.picture_of))
    clickable(charts.face_strip(strip, span, time), "strip", pick, "Faces over time")
    if classes:
        clickable(
            charts.probabilities(shown, classes, span, time), "probabilities", pick, "Class probabilities over time"
        )
    if "valence" in rows:
        st.subheader("Valence and arousal")
        clickable(charts.valence_arousal(shown, span, time), "va", pick, "Valence and arousal over time")
    units = [name for name in rows if name.startswith("AU")]
    if units:
        st.subheader("Action units")
        clickable(charts.action_units(shown, units, span, time), "units", pick, "Action units over time")

    st.subheader(f"Similarity of every frame to frame {frame}")
    st.caption(
        "The cosine of two frames, on one axis for all: above the frozen backbone, below each run. A steady embedding "
        "is a line without jitter. A separating one is high at dots of one colour, and low elsewhere."
    )
    vectors = spaces(runs, tables, label, entry)
    ends = {name: float((of @ of[at]).min()) for name, (of, _) in vectors.items()}
    low = math.floor(10 * min(ends.values())) / 10
    cosines = {}
    for place, (name, (of, own)) in enumerate(vectors.items()):
        cosines[name] = np.clip(of @ of[at], -1, 1)
        st.markdown(f"**{name}** · {in_words(view.contrast(of, own, at))}")
        values = drawn(own.assign(cosine=cosines[name]))
        clickable(
            charts.similarity(values, classes, span, time, low), f"similarity{place}", pick,
            f"Similarity to frame {frame} by {name}",
        )  # fmt: skip

    st.subheader("Map of the frames")
    space = st.segmented_control("Space", list(vectors), default=label, required=True, key=f"space {entry} {label}")
    points, explained = view.plane(vectors[space][0])
    st.caption("The first two principal components (PCA) of these vectors. Near dots are alike; the ring is the frame.")
    on_map = drawn(rows.assign(x=points[:, 0], y=points[:, 1]))
    left, right = st.columns(2)
    if classes:
        with left:
            clickable(charts.plane(on_map, explained, classes, frame), "map", pick, "Map by emotion")
    with right if classes else left:
        clickable(charts.plane(on_map, explained, classes, frame, by_time=True), "map_time", pick, "Map by time")

    nearest_clips(embedder, rows, at, f"frame {frame}")
    attention(embedder, rows, at)
    download(
        "Download this person's frames as CSV", f"{entry[0]}_{entry[1] or 'face'}.csv",
        view.plain(rows, {f"cosine to frame {frame}, {name}": of for name, of in cosines.items()} | {
            f"map {axis}, {space}": points[:, place] for place, axis in enumerate("xy")
        }),
    )  # fmt: skip


def look_at_pictures(
    runs: dict[str, Embedder], tables: dict[str, pd.DataFrame], label: str, found: Sequence[view.Entry]
) -> None:
    """Faces of single pictures, side by side."""
    table, embedder, classes = tables[label], runs[label], runs[label].classes
    rows = view.numbered(table, found[:MOST_PERSONS])
    at = reference("pictures", rows)
    pick = partial(picked, "pictures")
    name = rows["name"].iloc[at]
    drawn = rows.drop(columns=VECTORS).assign(picture=rows["crop"].map(charts.picture_of))
    st.header(f"{len(found):,} {'face' if len(found) == 1 else 'faces'} in pictures")
    if len(rows) < len(found):
        st.caption(f"Drawn are the first {len(rows)}.")
    if classes:
        clickable(charts.of_pictures(drawn, classes, at), "pictures", pick, "Class probabilities of each picture")
    if "valence" in rows:
        st.dataframe(drawn[["name", "valence", "arousal"]], hide_index=True)
    nearest_clips(embedder, rows, at, name)
    attention(embedder, rows.iloc[[at]].reset_index(drop=True), 0)
    download("Download these faces as CSV", "pictures.csv", view.plain(rows, {}))


def look_at_all(table: pd.DataFrame, label: str) -> None:
    """The similarity matrix of all people of all clips and pictures."""
    found, frozen, adapted = view.persons(table, MOST_PERSONS)
    st.header("Similarity of people and pictures")
    st.caption(
        "The cosine of two people, each the mean of its frames; sorted by name, so that names alike stand together."
    )
    if (others := len(view.entries(table)) - len(found)) > 0:
        st.caption(f"These are the first {len(found)}; {others:,} more are left out.")
    names = [view.entry_name(entry) for entry in view.entries(found)]
    pictures = [charts.picture_of(crop, 84) for crop in found["crop"]]
    columns = st.columns(2) if len(names) <= 8 else [st.container(), st.container()]
    for column, title, cosines in zip(columns, (view.FROZEN, label), (frozen, adapted), strict=True):
        with column:
            st.markdown(f"**{title}**")
            st.altair_chart(charts.matrix(names, pictures, cosines), width="content", key=f"matrix {title}")
    both = pd.DataFrame(adapted, index=names, columns=names)
    download(f"Download the matrix of {label} as CSV", "similarity.csv", both.reset_index(names="cosine"))


def spaces(
    runs: dict[str, Embedder], tables: dict[str, pd.DataFrame], of: str, entry: view.Entry
) -> dict[str, tuple[np.ndarray, pd.DataFrame]]:
    """Unit vectors (n, .) of a person's frames, with its rows: by each backbone, and below it by each of its runs.

    Left out, which is said, is a run that has other frames of it than run ``of``, as where it is given whole pictures.
    """
    found: dict[str, tuple[np.ndarray, pd.DataFrame]] = {}
    seen: list[Embedder] = []
    main = view.rows_of(tables[of], entry)
    for label, embedder in runs.items():
        there = entry in view.entries(tables[label])
        rows = view.rows_of(tables[label], entry) if there else main[:0]
        if not rows["frame"].equals(main["frame"]):
            st.caption(f"{label} has other faces of this person, and is not compared here.")
            continue
        if not any(view.same_features(embedder, other) for other in seen):
            name = view.FROZEN if not seen else f"{view.FROZEN} of {label}"
            found[name] = (view.frozen_vectors(rows), rows)
            seen.append(embedder)
        found[label] = (view.vectors(rows), rows)
    return found


def nearest_clips(embedder: Embedder, rows: pd.DataFrame, at: int, what: str) -> None:
    st.subheader(f"Training clips nearest to {what}")
    try:
        found = embedder.nearest(rows["embedding"].iloc[at], NEAREST)
    except UserError as error:
        st.caption(str(error))
        return
    with st.container(horizontal=True, gap="medium"):
        for clip in found.itertuples():
            label = found.loc[clip.Index, "class"]
            with st.container(width=116, gap="small"):
                picture = view.thumbnail(clip.path)
                if picture is not None:
                    st.image(picture, width=104)
                st.caption(f"**{clip.cosine:.2f}** {label or ''}  \n{clip.video}, frame {clip.frame}")


def attention(embedder: Embedder, rows: pd.DataFrame, at: int) -> None:
    """What the head attends to; nothing for a head without attention."""
    frames = view.frame_weights(embedder, rows, at, view.frame_rate(rows))
    places = view.place_weights(embedder, rows, at)
    if frames is not None and len(frames) > 1:
        st.subheader("Attention to the frames of its window")
        st.caption("The weight of each frame in the embedding; dashed: the same for all.")
        picture = frames["crop"].map(charts.picture_of)
        st.altair_chart(charts.frame_weights(frames.drop(columns="crop").assign(picture=picture)), key="attention")
    if places is not None:
        st.subheader("Attention to the places of the face")
        st.caption("The weight of each place in the embedding: red is more than the mean, blue is less.")
        picture = charts.picture_of(rows["crop"].iloc[at], 224)
        st.altair_chart(charts.place_weights(places, picture), width="content", key="places")


# --- clicks, words and files -----------------------------------------------------------------------------------------


def reference(of: str, rows: pd.DataFrame) -> int:
    """The row of the frame that others are compared with: the one that was clicked, or the one in the middle."""
    wanted = st.session_state.get(f"frame of {of}", rows["frame"].iloc[len(rows) // 2])
    return int((rows["frame"] - wanted).abs().to_numpy().argmin())


def clickable(chart: charts.Drawn, name: str, pick: Callable[[str], None], words: str) -> None:
    """Draws a chart whose clicks ``pick`` is told of.

    A chart does not tell of a click on what was last chosen in it. So after a click elsewhere it is made anew.
    """
    key = f"{name}-{st.session_state.setdefault('elsewhere', {}).get(name, 0)}"
    st.altair_chart(chart, key=key, on_select=partial(pick, key), width="stretch", alt=words)


def picked(of: str, key: str) -> None:
    chosen = st.session_state[key]["selection"].get(charts.PICK)
    if not chosen:
        return
    st.session_state[f"frame of {of}"] = int(chosen[0]["frame"])
    elsewhere, name = st.session_state["elsewhere"], key.rpartition("-")[0]
    for other in CLICKED:
        elsewhere[other] = elsewhere.get(other, 0) + (other != name)


CLICKED = (
    "strip", "probabilities", "va", "units", "map", "map_time", "pictures",
    *(f"similarity{place}" for place in range(2 * MOST_RUNS)),
)  # fmt: skip


def in_words(found: view.Contrast) -> str:
    parts = {"neighbouring frames": found.neighbours, "its emotion": found.same, "other emotions": found.other}
    return "mean cosine of " + ", ".join(
        f"{name} {value:.3f}" for name, value in parts.items() if not math.isnan(value)
    )


def download(words: str, name: str, table: pd.DataFrame) -> None:
    st.download_button(words, table.to_csv(index=False).encode(), name, "text/csv", on_click="ignore")


ABOUT = """
- **Frozen features** are what the backbone gives of a single frame. A **run** is an adapter that was trained on them:
  its embedding of a frame is made of the window around it.
- A **cosine** of 1 is the same direction, 0 is nothing in common. All vectors are of length one.
- Emotions and values are what the run predicts. They are no statement about how a person feels.
"""
