"""The charts of the demo: tables in, Altair charts out.

All charts over time have one width and one time axis, so that they can be read one below the other. A click on one of
them, or on a dot of a map, selects a frame: the selection is called ``PICK`` and has the field 'frame'. An emotion has
one colour everywhere, that of the report.
"""

import base64
from collections.abc import Sequence
from typing import Any

import altair as alt
import cv2
import numpy as np
import pandas as pd
from altair.utils.schemapi import disable_debug_mode

from pipeline.core.colours import COLOURS, WEIGHTS
from pipeline.core.emotions import partners
from pipeline.core.tables import ABAW_CLASSES

PICK = "pick"
LEFT = 52  # pixels of the axis at the left, the same for all charts over time
THUMBNAILS = 16  # of a face strip, where the page is wide enough
THUMBNAIL = 72  # pixels
REFERENCE = "#D62728"  # the frame that the others are compared with
VA = {"valence": "#0072B2", "arousal": "#D55E00"}


# Altair would check each part of a chart against Vega-Lite's schema, and the whole again: seconds for each click.
disable_debug_mode()


class Drawn(alt.LayerChart):
    """Layers as one chart, which is not checked at being shown. The tests check it."""

    def to_dict(self, validate: bool = False, **options: Any) -> dict[str, Any]:
        return super().to_dict(validate, **options)


def _layered(*layers: alt.Chart) -> Drawn:
    return Drawn(layer=list(layers))


def class_colours(classes: Sequence[str]) -> dict[str, str]:
    """A colour for each class: ABAW's classes have those of the report, others take the rest in turn."""
    of_abaw = {name: COLOURS[code] for code, name in enumerate(ABAW_CLASSES)}
    known = {
        name: of_abaw[ABAW_CLASSES[partner]]
        for name, partner in zip(classes, partners(classes, ABAW_CLASSES), strict=True)
        if partner is not None
    }
    rest = [colour for colour in COLOURS if colour not in known.values()] or list(COLOURS)
    others = [name for name in classes if name not in known]
    return known | {name: rest[place % len(rest)] for place, name in enumerate(others)}


def face_strip(faces: pd.DataFrame, span: tuple[float, float], reference: float) -> Drawn:
    """``faces`` (frame, time_sec, picture), evenly spaced, as a strip; on a narrow page every second or fourth."""
    every = "width < 380 ? 4 : width < 760 ? 2 : 1"
    rows = faces.assign(place=np.arange(len(faces)), middle=0.5)
    images = (
        alt.Chart(rows)
        .transform_filter(f"datum.place % ({every}) == 0")
        .mark_image(
            width=alt.expr(f"min({THUMBNAIL}, ({every}) * width / {len(rows)} - 2)"), height=THUMBNAIL, cursor="pointer"
        )
        .encode(
            x=_time(span, title=None, labels=False),
            y=alt.Y("middle:Q", scale=alt.Scale(domain=[0, 1]), axis=_left("face", labels=False)),
            url=alt.Url("picture:N"),
            tooltip=_when(),
        )
        .add_params(_pick())
    )
    return _wide(_layered(images, _reference(reference)), THUMBNAIL)


def probabilities(table: pd.DataFrame, classes: Sequence[str], span: tuple[float, float], reference: float) -> Drawn:
    """Probabilities of the classes (columns p_<class>) over time, one upon the other.

    ``table`` has time_sec, end_sec (when the frame ends) and segment (a number for each stretch without a gap) as well.
    """
    names = {f"p_{name}": name for name in classes}
    columns = ["frame", "time_sec", "segment"]
    # Vega-Lite goes on with the last value up to the next segment, unless it ends at zero.
    ends = table.groupby("segment").tail(1)
    ends = ends.assign(time_sec=ends["end_sec"], **dict.fromkeys(names, 0.0))
    rows = pd.concat([table, ends])[[*columns, *names]].rename(columns=names)
    long = rows.melt(columns, var_name="emotion", value_name="probability")
    areas = (
        alt.Chart(long)
        .mark_area(interpolate="step-after", line=False, opacity=0.92)
        .encode(
            x=_time(span),
            y=alt.Y("probability:Q", stack="zero", scale=alt.Scale(domain=[0, 1]), axis=_left("probability", "%")),
            color=emotion_colour(classes, "emotion"),
            order=alt.Order("rank:Q"),
            detail=alt.Detail("segment:N"),
        )
        .transform_calculate(rank=f"indexof({list(classes)}, datum.emotion)")
    )
    top = table.assign(probability=table[list(names)].max(axis=1))
    says = [*_when(), alt.Tooltip("class:N", title="emotion"), alt.Tooltip("probability:Q", format=".0%")]
    return _wide(_layered(areas, _clickable(top, span, says), _reference(reference)), 190)


def valence_arousal(table: pd.DataFrame, span: tuple[float, float], reference: float) -> Drawn:
    """Valence and arousal over time, each from -1 to 1."""
    long = table.melt(["frame", "time_sec", "segment"], list(VA), var_name="measure", value_name="value")
    lines = (
        alt.Chart(long)
        .mark_line(strokeWidth=1.8)
        .encode(
            x=_time(span),
            y=alt.Y("value:Q", scale=alt.Scale(domain=[-1, 1]), axis=_left("-1 to 1", ".1f", [-1, -0.5, 0, 0.5, 1])),
            color=alt.Color(
                "measure:N", scale=alt.Scale(domain=list(VA), range=list(VA.values())), legend=_legend("top", "stroke")
            ),
            detail=alt.Detail("segment:N"),
        )
    )
    says = [*_when(), *(alt.Tooltip(f"{name}:Q", format="+.2f") for name in VA)]
    return _wide(_layered(lines, _clickable(table, span, says), _reference(reference)), 140)


def similarity(
    table: pd.DataFrame,
    classes: Sequence[str],
    span: tuple[float, float],
    reference: float,
    low: float,
) -> Drawn:
    """The column cosine over time, from ``low`` to 1: a line, and a dot a frame in the colour of its emotion."""
    base = alt.Chart(table).encode(
        x=_time(span),
        y=alt.Y("cosine:Q", scale=alt.Scale(domain=[low, 1], nice=False), axis=_left("cosine", ".2f")),
    )
    line = base.mark_line(strokeWidth=1, color="#888888").encode(detail=alt.Detail("segment:N"))
    colour = emotion_colour(classes, "class", legend=None) if classes else alt.ColorValue(COLOURS[4])
    dots = base.mark_circle(size=22, opacity=1).encode(color=colour)
    says = [*_when(), alt.Tooltip("cosine:Q", format=".3f"), *_emotion(classes)]
    return _wide(_layered(line, dots, _clickable(table, span, says), _reference(reference)), 150)


def plane(
    table: pd.DataFrame,
    explained: Sequence[float],
    classes: Sequence[str],
    reference: int,
    *,
    by_time: bool = False,
) -> Drawn:
    """The frames at x and y, coloured by emotion, or by time; a ring around the frame ``reference``."""
    if by_time:
        legend = alt.Legend(title="time (s)", orient="bottom", gradientLength=240)
        colour = alt.Color("time_sec:Q", scale=alt.Scale(scheme="viridis"), legend=legend)
    else:
        colour = emotion_colour(classes, "class", legend="bottom")
    middle = (table[["x", "y"]].max() + table[["x", "y"]].min()) / 2
    half = float((table[["x", "y"]].max() - table[["x", "y"]].min()).max()) / 2 * 1.08 or 1.0
    axes = {
        name: (f"{name}:Q", alt.Scale(domain=[middle[name] - half, middle[name] + half], nice=False))
        for name in ("x", "y")
    }
    titles = [f"component {place} ({share:.0%} of the variance)" for place, share in enumerate(explained, start=1)]
    x = alt.X(axes["x"][0], scale=axes["x"][1], title=titles[0])
    y = alt.Y(axes["y"][0], scale=axes["y"][1], title=titles[1])
    says = [*_when(), *_emotion(classes)]
    dots = (
        alt.Chart(table)
        .mark_circle(size=46, opacity=0.8, cursor="pointer")
        .encode(x=x, y=y, color=colour, tooltip=says)
        .add_params(_pick())
    )
    ring = (
        alt.Chart(table[table["frame"] == reference])
        .mark_point(size=170, strokeWidth=2.5, color=REFERENCE, filled=False)
        .encode(x=x, y=y)
    )
    return _wide(_layered(dots, ring), 380)


def matrix(names: Sequence[str], pictures: Sequence[str], cosines: np.ndarray) -> Drawn:
    """Cosines (n, n) of n pictures or people, their faces at both axes."""
    n = len(names)
    cell = int(np.clip(560 / n, 26, 84))
    rows, columns = np.divmod(np.arange(n * n), n)
    table = pd.DataFrame({
        "row": rows, "column": columns, "cosine": cosines.ravel(), "a": np.array(names)[rows],
        "b": np.array(names)[columns],
    })  # fmt: skip
    places = alt.Scale(domain=[0, n], nice=False)
    base = alt.Chart(table).transform_calculate(
        right="datum.column + 1", below="datum.row + 1", middle="datum.column + 0.5", centre="datum.row + 0.5"
    )
    x, y = alt.X("column:Q", scale=places, axis=None), alt.Y("row:Q", scale=places, sort="descending", axis=None)
    says = [alt.Tooltip("a:N", title="row"), alt.Tooltip("b:N", title="column"), alt.Tooltip("cosine:Q", format=".3f")]
    scale = alt.Scale(domain=[-1, 0, 1], range=["#2166AC", "#F7F7F7", "#B2182B"])
    legend = alt.Legend(title="cosine", orient="right", gradientLength=min(160, cell * n))
    colour = alt.Color("cosine:Q", scale=scale, legend=legend)
    right, below = alt.X2("right:Q"), alt.Y2("below:Q")
    layers = [base.mark_rect().encode(x=x, x2=right, y=y, y2=below, color=colour, tooltip=says)]
    if cell >= 34:
        ink = alt.ColorValue("black", condition={"test": "abs(datum.cosine) > 0.6", "value": "white"})
        text = alt.Text("cosine:Q", format=".2f")
        numbers = base.mark_text(fontSize=min(13, cell // 3))
        layers.append(numbers.encode(x=alt.X("middle:Q"), y=alt.Y("centre:Q"), text=text, color=ink))
    faces = (
        alt.Chart(pd.DataFrame({"place": np.arange(n) + 0.5, "picture": pictures, "name": names}))
        .mark_image(width=cell - 2, height=cell - 2)
        .encode(url=alt.Url("picture:N"), tooltip=alt.Tooltip("name:N"))
    )
    edge = -cell / 2 - 2
    layers.append(faces.encode(x=alt.X("place:Q"), y=alt.YValue(edge)))
    layers.append(faces.encode(x=alt.XValue(edge), y=alt.Y("place:Q")))
    return _as_it_is(_layered(*layers).properties(width=cell * n, height=cell * n))


def action_units(table: pd.DataFrame, units: Sequence[str], span: tuple[float, float], reference: float) -> Drawn:
    """The probability of each action unit (columns AU<number>) over time: a row each, the darker the more likely."""
    columns = ["frame", "time_sec", "end_sec"]
    long = table.melt(columns, list(units), var_name="unit", value_name="probability")
    says = [*_when(), alt.Tooltip("unit:N", title="unit"), alt.Tooltip("probability:Q", format=".0%")]
    axis = alt.Axis(title="action unit", minExtent=LEFT, maxExtent=LEFT, ticks=False, domain=False)
    legend = alt.Legend(title="probability", orient="top", format=".0%", offset=4)
    scale = alt.Scale(domain=[0, 1], scheme="blues")
    cells = (
        alt.Chart(long)
        .mark_rect(cursor="pointer")
        .encode(
            x=_time(span),
            x2=alt.X2("end_sec:Q"),
            y=alt.Y("unit:N", sort=list(units), axis=axis),
            color=alt.Color("probability:Q", scale=scale, legend=legend),
            tooltip=says,
        )
        .add_params(_pick())
    )
    return _wide(_layered(cells, _reference(reference)), 15 * len(units))


def of_pictures(table: pd.DataFrame, classes: Sequence[str], reference: int) -> Drawn:
    """Probabilities of the classes (columns p_<class>) of each picture, a bar each, its face beside it.

    ``table`` has frame (a number for each), name and picture. A ring is around the row ``reference``.
    """
    names = {f"p_{name}": name for name in classes}
    columns = ["frame", "name", "picture"]
    long = table[[*columns, *names]].rename(columns=names).melt(columns, var_name="emotion", value_name="probability")
    height = 46
    y = alt.Y(
        "frame:O", axis=alt.Axis(labels=False, ticks=False, title=None, domain=False, minExtent=LEFT, maxExtent=LEFT)
    )
    says = [alt.Tooltip("name:N"), alt.Tooltip("emotion:N"), alt.Tooltip("probability:Q", format=".0%")]
    bars = (
        alt.Chart(long)
        .mark_bar(size=height - 14, cursor="pointer")
        .encode(
            y=y,
            x=alt.X(
                "probability:Q",
                scale=alt.Scale(domain=[0, 1]),
                axis=alt.Axis(title="probability", format="%", grid=False),
            ),
            color=emotion_colour(classes, "emotion"),
            order=alt.Order("rank:Q"),
            tooltip=says,
        )
        .transform_calculate(rank=f"indexof({list(classes)}, datum.emotion)")
        .add_params(_pick())
    )
    faces = (
        alt.Chart(table)
        .mark_image(width=height - 2, height=height - 2)
        .encode(y=y, x=alt.XValue(-LEFT / 2), url=alt.Url("picture:N"), tooltip=alt.Tooltip("name:N"))
    )
    ring = (
        alt.Chart(table.iloc[[reference]])
        .mark_rect(filled=False, stroke=REFERENCE, strokeWidth=2)
        .encode(y=y, x=alt.XValue(-1), x2=alt.X2Value("width"))
    )
    return _wide(_layered(bars, faces, ring), height * len(table))


def frame_weights(table: pd.DataFrame) -> Drawn:
    """What the frames of a window (frame, time_sec, weight, picture) count for; the weights sum to 1."""
    equal = alt.Chart(pd.DataFrame({"weight": [1 / len(table)]})).mark_rule(strokeDash=[4, 4], color="#888888")
    x = alt.X("frame:O", axis=alt.Axis(title="frame", labelAngle=0))
    bars = (
        alt.Chart(table)
        .mark_bar(color="#0072B2")
        .encode(x=x, y=alt.Y("weight:Q", axis=_left("weight", ".0%")), tooltip=[*_when(), _share("weight")])
    )
    faces = (
        alt.Chart(table)
        .mark_image(width=alt.expr(f"min(44, width / {len(table)} - 2)"), height=44)
        .encode(x=x, y=alt.YValue(-24), url=alt.Url("picture:N"))
    )
    chart = _layered(bars, equal.encode(y=alt.Y("weight:Q")), faces)
    return _wide(chart, 140).properties(padding={"top": 52, "bottom": 5, "left": 5, "right": 5})  # the faces are above


def place_weights(weights: np.ndarray, picture: str) -> Drawn:
    """What each place (G, G) of a picture counts for, over it; the weights sum to 1."""
    grid, side = len(weights), 280
    rows, columns = np.divmod(np.arange(grid * grid), grid)
    table = pd.DataFrame(
        {"row": rows, "column": columns, "weight": weights.ravel(), "times": weights.ravel() * grid**2}
    )
    places = alt.Scale(domain=[0, grid], nice=False)
    most = max(2.0, float(table["times"].max()))
    colour = alt.Color(
        "times:Q",
        scale=alt.Scale(domain=[0, 1, most], range=list(WEIGHTS)),
        legend=alt.Legend(title="times the mean", orient="right"),
    )
    face = (
        alt.Chart(pd.DataFrame({"picture": [picture]}))
        .mark_image(width=side, height=side)
        .encode(x=alt.XValue(side / 2), y=alt.YValue(side / 2), url=alt.Url("picture:N"))
    )
    cells = (
        alt.Chart(table)
        .transform_calculate(right="datum.column + 1", below="datum.row + 1")
        .mark_rect(opacity=0.55)
        .encode(
            x=alt.X("column:Q", scale=places, axis=None), x2=alt.X2("right:Q"),
            y=alt.Y("row:Q", scale=places, sort="descending", axis=None), y2=alt.Y2("below:Q"),
            color=colour, tooltip=[_share("weight")],
        )
    )  # fmt: skip
    return _as_it_is(_layered(face, cells).properties(width=side, height=side))


def _emotion(classes: Sequence[str]) -> list[alt.Tooltip]:
    return [alt.Tooltip("class:N", title="emotion")] if classes else []


def _share(name: str) -> alt.Tooltip:
    return alt.Tooltip(f"{name}:Q", format=".1%")


def picture_of(jpeg: bytes, size: int = THUMBNAIL) -> str:
    """A JPEG as an address that holds it, not larger than ``size`` pixels."""
    image = cv2.imdecode(np.frombuffer(jpeg, dtype=np.uint8), cv2.IMREAD_COLOR)
    scale = size / max(image.shape[:2])
    if scale < 1:
        image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        jpeg = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 85])[1].tobytes()
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()


def emotion_colour(classes: Sequence[str], field: str, legend: str | None = "top") -> alt.Color:
    """The colour of the emotion that stands in the column ``field``; ``legend`` is where that is explained."""
    colours = class_colours(classes)
    scale = alt.Scale(domain=list(colours), range=list(colours.values()))
    return alt.Color(f"{field}:N", scale=scale, legend=_legend(legend) if legend else None)


def _legend(orient: str, symbol: str = "square") -> alt.Legend:
    """In a line; on a narrow page in rows of four or three."""
    columns = alt.expr("width < 400 ? 3 : width < 560 ? 4 : 0")
    return alt.Legend(title=None, orient=orient, direction="horizontal", columns=columns, symbolType=symbol, offset=4)


def _left(title: str, form: str = "", values: list[float] | None = None, labels: bool = True) -> alt.Axis:
    more = {} if values is None else {"values": values}
    shown = {"labels": labels, "ticks": labels, "grid": labels, "domain": labels}
    return alt.Axis(title=title, format=form, minExtent=LEFT, maxExtent=LEFT, tickCount=5, **shown, **more)


def _time(span: tuple[float, float], title: str | None = "time (s)", labels: bool = True) -> alt.X:
    axis = alt.Axis(title=title, grid=False, labels=labels, ticks=labels, domain=labels, tickCount=10)
    return alt.X("time_sec:Q", scale=alt.Scale(domain=list(span), nice=False), axis=axis)


def _when() -> list[alt.Tooltip]:
    return [alt.Tooltip("frame:Q", title="frame"), alt.Tooltip("time_sec:Q", title="time (s)", format=".2f")]


def _pick() -> alt.Parameter:
    return alt.selection_point(name=PICK, fields=["frame"], on="click", toggle=False, clear=False)


def _clickable(table: pd.DataFrame, span: tuple[float, float], says: list[alt.Tooltip]) -> alt.Chart:
    """An unseen bar over each frame, which answers to the mouse."""
    return (
        alt.Chart(table)
        .mark_rect(opacity=0, cursor="pointer")
        .encode(x=_time(span), x2=alt.X2("end_sec:Q"), y=alt.YValue(0), y2=alt.Y2Value("height"), tooltip=says)
        .add_params(_pick())
    )


def _reference(time_sec: float) -> alt.Chart:
    rows = pd.DataFrame({"time_sec": [time_sec]})
    return alt.Chart(rows).mark_rule(color=REFERENCE, strokeWidth=2).encode(x=alt.X("time_sec:Q"))


def _as_it_is(chart: Drawn) -> Drawn:
    """As large as it says, whatever stands around the plot."""
    return chart.properties(autosize=alt.AutoSizeParams(type="pad", contains="padding"))


def _wide(chart: Drawn, height: int) -> Drawn:
    """As wide as the page lets it be, axes and all; ``height`` is that of the plot without them."""
    return chart.properties(height=height, autosize=alt.AutoSizeParams(type="fit-x", contains="padding"))
