import io
import itertools
import warnings

import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.offsetbox import AnnotationBbox, OffsetImage
from scipy.spatial.distance import cdist
from sklearn.decomposition import PCA
from sklearn.metrics import roc_auc_score

from pipeline.evaluation import plots
from pipeline.metrics.verification import pair_counts

TITLE = plots.heading("tcn_supcon", "synthetic", 12345)
CLASSES = ["Neutral", "Anger", "Fear"]


def texts(artists):
    return [artist.get_text() for artist in artists]


def legend(figure):
    return texts(figure.legends[0].get_texts())


def drawn(figure):
    """The picture as it is saved, after a check that nothing warns or sticks out of it."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.savefig(file := io.BytesIO(), format="png")
    box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    assert box.x0 >= -0.01
    assert box.y0 >= -0.01
    assert box.x1 <= width + 0.01
    assert box.y1 <= height + 0.01
    return file.getvalue()


def counted(num_bins=40):
    """Cosines of three kinds (30 same, 50 other, 20 opposite), and their numbers in even bins."""
    rng = np.random.default_rng(0)
    same, other, opposite = (rng.normal(*of).clip(-1, 1) for of in ((0.4, 0.2, 30), (0.1, 0.2, 50), (-0.1, 0.2, 20)))
    same[0] = 1  # in the last bin
    edges = np.linspace(-1, 1, num_bins + 1)
    numbers = [np.histogram(v, edges)[0] for v in (same, np.concatenate([other, opposite]), opposite)]
    return np.concatenate([same, other, opposite]), edges, numbers


def test_the_heading_says_run_data_set_and_number_of_frames():
    assert TITLE == "tcn_supcon · synthetic · 12,345 frames"


def test_histograms_have_area_one_and_lie_where_the_cosines_are():
    _, edges, numbers = counted()
    figure = plots.cosine_histograms(edges, *numbers, TITLE)
    assert TITLE in figure.get_suptitle()
    left, right = figure.axes
    assert left.get_xlim() == (-1, 1)
    for axis in (left, right):
        outlines = [patch for patch in axis.patches if not patch.get_fill()]
        assert len(outlines) == 3
        for patch, counts in zip(outlines, numbers, strict=True):
            density, bins, _ = patch.get_data()
            assert (density * np.diff(bins)).sum() == pytest.approx(1)
            for a, b, height in zip(bins[:-1], bins[1:], density, strict=True):  # each bin: its part of those given
                part = (np.minimum(edges[1:], b) - np.maximum(edges[:-1], a)).clip(0) / np.diff(edges)
                assert height * (b - a) == pytest.approx(part @ counts / counts.sum(), abs=1e-9)
    first, last = np.flatnonzero(sum(numbers))[[0, -1]]
    assert right.get_xlim() == pytest.approx((edges[first], edges[last + 1]))


def test_histograms_mark_and_name_the_means():
    edges = np.linspace(-1, 1, 5)  # middles -0.75, -0.25, 0.25, 0.75
    figure = plots.cosine_histograms(
        edges, np.array([0, 0, 1, 3]), np.array([1, 1, 1, 1]), np.array([2, 0, 0, 0]), TITLE
    )
    assert legend(figure) == ["same: mean 0.625", "different: mean 0.000", "opposite: mean -0.750"]
    for axis in figure.axes:
        assert [line.get_xdata()[0] for line in axis.lines] == [0.625, 0, -0.75]


def test_cosines_that_rounded_to_above_one_stay_in_the_picture():
    """Bins of twins lie around 1, half of them above."""
    z = np.ones((4, 3))
    pairs = pair_counts(z, np.zeros(4, dtype=int), np.arange(4), 1)
    same, other, opposite = pairs.histogram(np.ones((1, 4)))[0]
    left = plots.cosine_histograms(pairs.edges, same, other, opposite, TITLE).axes[0]
    (outline,) = (patch for patch in left.patches if not patch.get_fill())
    density, bins, _ = outline.get_data()
    assert (density * np.diff(bins)).tolist() == pytest.approx([0] * 99 + [1])


def test_the_roc_is_that_of_the_cosines_themselves():
    """With one cosine a bin, against a threshold at each of them, and sklearn's area."""
    values, edges, numbers = counted(num_bins=2_000_000)
    assert sum(numbers[:2]).max() == 1
    same, different, opposite = values[:30], values[30:], values[80:]
    figure = plots.roc_curves(edges, *numbers, TITLE)
    wanted = []
    for kind, negative in (("different", different), ("opposite", opposite)):
        truth = np.r_[np.ones(30), np.zeros(len(negative))]
        wanted.append(f"same / {kind}: AUC {roc_auc_score(truth, np.r_[same, negative]):.3f}")
    assert legend(figure) == [*wanted, "chance"]
    left, right = figure.axes
    assert (left.get_xlim(), left.get_ylim()) == ((0, 1), (0, 1))
    assert (right.get_xlim(), right.get_ylim()) == ((1e-3, 1), (0, 1))
    assert right.get_xscale() == "log"
    for line, negative in zip(left.lines[:2], (different, opposite), strict=True):
        points = set(zip(*np.round(line.get_data(), 6), strict=True))
        for at in values:
            assert (round((negative >= at).mean(), 6), round((same >= at).mean(), 6)) in points
    for line, negative in zip(right.lines[:2], (different, opposite), strict=True):
        at = {round(x, 9): y for x, y in zip(*line.get_data(), strict=True)}
        assert at[0.1] == pytest.approx((same >= np.sort(negative)[::-1][int(0.1 * len(negative))]).mean(), abs=0.034)
        assert at[0.001] == pytest.approx((same > negative.max()).mean(), abs=0.034)


def test_a_roc_of_one_seed_says_beside_its_own_area_what_the_tables_say_of_all():
    """The picture said .804 and the table .809, and nothing said why."""
    _, edges, numbers = counted()
    alone, more = (
        plots.roc_curves(edges, *numbers, TITLE, reported)
        for reported in (None, {"different": "0.809, of 2 seeds", "opposite": "0.935, of 2 seeds"})
    )
    first, second, _ = legend(alone)
    assert legend(more)[:2] == [
        f"{first}\n(in the tables 0.809, of 2 seeds)", f"{second}\n(in the tables 0.935, of 2 seeds)",
    ]  # fmt: skip
    drawn(more)


def test_the_logarithmic_roc_follows_the_straight_lines_of_the_other():
    edges = np.linspace(-1, 1, 3)
    right = plots.roc_curves(edges, np.array([1, 3]), np.array([3, 1]), np.array([0, 0]), TITLE).axes[1]
    x, y = right.lines[0].get_data()
    np.testing.assert_allclose(y, [3 * v if v <= 0.25 else 0.75 + (v - 0.25) / 3 for v in x])


def test_kinds_of_pairs_that_do_not_exist_are_said_not_to():
    none, some, edges = np.zeros(4), np.array([0, 1, 2, 3]), np.linspace(-1, 1, 5)
    figure = plots.cosine_histograms(edges, some, some, none, TITLE)
    assert legend(figure)[2] == "opposite: no pairs"
    assert legend(plots.roc_curves(edges, some, some, none, TITLE))[1] == "same / opposite: no pairs"
    for same, different in ((some, none), (none, some), (none, none)):
        drawn(plots.cosine_histograms(edges, same, different, none, TITLE))
        figure = plots.roc_curves(edges, same, different, none, TITLE)
        assert legend(figure) == ["same / different: no pairs", "same / opposite: no pairs", "chance"]
        drawn(figure)


def test_the_emotion_matrix_has_its_numbers_in_the_cells():
    matrix = np.array([[0.5, -0.25, np.nan], [-0.25, 1, -0.001], [np.nan, -0.001, -1]])
    figure = plots.emotion_matrix(matrix, CLASSES, TITLE)
    axis = figure.axes[0]
    np.testing.assert_array_equal(axis.images[0].get_array().filled(np.nan), matrix)
    assert axis.images[0].get_clim() == (-1, 1)
    assert texts(axis.texts) == ["0.50", "-0.25", "·", "-0.25", "1.00", "0.00", "·", "0.00", "-1.00"]
    assert [text.get_position() for text in axis.texts] == [(c, r) for r in range(3) for c in range(3)]
    assert texts(axis.get_xticklabels()) == texts(axis.get_yticklabels()) == CLASSES
    black, white = (axis.texts[place].get_color() for place in (0, 4))  # pale red and dark red
    assert (black, white) == ("black", "white")
    drawn(figure)


def test_the_confusion_matrix_colours_shares_and_writes_counts():
    confusion = np.array([[3, 1, 0], [0, 2000, 0], [0, 0, 0]])
    figure = plots.confusion_matrix(confusion, CLASSES, TITLE)
    axis = figure.axes[0]
    np.testing.assert_allclose(axis.images[0].get_array(), [[0.75, 0.25, 0], [0, 1, 0], [0, 0, 0]])
    assert axis.images[0].get_clim() == (0, 1)
    assert texts(axis.texts) == ["3", "1", "·", "·", "2,000", "·", "·", "·", "·"]
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("predicted", "true")
    drawn(figure)


def test_the_similarity_matrix_is_sorted_by_class_then_video_and_thinned():
    """Class 1 has no row, one row has no class; 9 of 12 rows may be shown."""
    labels = np.array([2, 0, 2, -1, 0, 0, 2, 0, 2, 2, 0, 0, 0])
    videos = np.array([2, 3, 1, 9, 1, 3, 4, 1, 2, 4, 3, 1, 2])
    z = np.random.default_rng(0).normal(size=(13, 5))
    figure = plots.similarity_matrix(z, labels, videos, CLASSES, TITLE, most=9)
    order = sorted(np.flatnonzero(labels >= 0), key=lambda i: (labels[i], videos[i], i))
    kept = [order[i] for i in np.linspace(0, 11, 9).round().astype(int)]
    unit = [row / np.linalg.norm(row) for row in z]
    axis = figure.axes[0]
    np.testing.assert_allclose(axis.images[0].get_array(), [[unit[a] @ unit[b] for b in kept] for a in kept], atol=1e-6)
    assert axis.images[0].get_clim() == (-1, 1)
    assert "9 of 12" in figure.get_suptitle()
    assert texts(axis.get_yticklabels()) == ["Neutral", "Fear"]
    boundary = next(i for i in range(9) if labels[kept[i]] == 2) - 0.5
    assert axis.lines[0].get_ydata() == [boundary, boundary]
    assert axis.lines[1].get_xdata() == [boundary, boundary]
    owner = [(labels[i], videos[i]) for i in kept]
    assert axis.get_xticks().tolist() == [i - 0.5 for i in range(9) if i == 0 or owner[i] != owner[i - 1]]
    drawn(figure)


def test_names_of_narrow_bands_stand_apart_and_near_them():
    centres = np.array([30.0, 61, 63, 65, 98.5, 99])
    places = plots._apart(centres, 2, 98, 5)
    assert (np.diff(places) >= 5 - 1e-9).all()
    assert places[0] == 30
    assert places.max() <= 98
    assert np.abs(places - centres).max() < 12.5
    np.testing.assert_allclose(plots._apart(np.full(20, 1.0), 2.5, 97.5, 5), np.arange(20) * 5 + 2.5)


def intervals_of(axis):
    """Ends of the horizontal lines of an axis, by their place."""
    segments = [segment for collection in axis.collections for segment in collection.get_segments() if len(segment)]
    return {segment[0, 1]: segment[:, 0].tolist() for segment in segments}


def test_bars_are_as_long_as_f1_and_a_class_without_frames_has_none():
    f1, intervals = np.array([0.5, np.nan, 0.25]), np.array([[0.4, 0.6], [np.nan, np.nan], [0.3, 0.35]])
    figure = plots.f1_bars(f1, CLASSES, TITLE, intervals)
    axis = figure.axes[0]
    assert axis.get_xlim() == (0, 1)
    assert [bar.get_width() for bar in axis.patches] == [0.5, 0, 0.25]
    assert texts(axis.get_yticklabels()) == CLASSES
    assert texts(axis.texts) == ["0.500", "", "0.250", "not among them"]
    assert axis.texts[3].get_position()[1] == 1
    # the last is not around its value: percentiles need not hold it
    assert intervals_of(axis) == {0: [0.4, 0.6], 2: [0.3, 0.35]}
    assert legend(figure) == ["mean 0.375"]
    drawn(figure)
    figure = plots.f1_bars(np.full(3, np.nan), CLASSES, TITLE)
    assert not figure.legends
    drawn(figure)


def strip(axis, place):
    """Start, end and colour of what the band at ``place`` shows, from left to right."""
    found = []
    for collection in axis.collections:
        for path in collection.get_paths():
            box = path.get_extents()
            if round((box.y0 + box.y1) / 2) == place:
                found.append((box.x0, box.x1, to_hex(collection.get_facecolor()[0])))
    return sorted(found)


FRAMES = np.array([10, 15, 20, 40, 45, 50])
TRUTH = np.array([0, 0, 1, 2, -1, 2])
PREDICTED = np.array([0, 1, 1, 1, 1, 1])
COSINES = np.array([np.nan, 0.9, 0.5, np.nan, 1.0000001, -0.2])


def test_the_timeline_has_a_band_for_truth_and_prediction_and_leaves_gaps_white():
    figure = plots.timeline("one", FRAMES, TRUTH, PREDICTED, COSINES, CLASSES, 5, TITLE)
    bands, below = figure.axes
    a, b, c = (to_hex(colour) for colour in plots.COLOURS[:3])
    none = to_hex(plots.GREY)
    assert texts(bands.get_yticklabels()) == ["predicted", "true"]
    assert strip(bands, 1) == [(7.5, 17.5, a), (17.5, 22.5, b), (37.5, 42.5, c), (42.5, 47.5, none), (47.5, 52.5, c)]
    assert strip(bands, 0) == [(7.5, 12.5, a), (12.5, 22.5, b), (37.5, 52.5, b)]
    assert below.get_xlim() == (7.5, 52.5)
    assert "one" in figure.get_suptitle()
    assert legend(figure) == ["none", *CLASSES, "true change"]
    drawn(figure)


def test_the_timeline_draws_the_cosines_given_and_no_line_over_a_gap():
    figure = plots.timeline("one", FRAMES, TRUTH, PREDICTED, COSINES, CLASSES, 5, TITLE)
    below = figure.axes[1]
    x, y = below.lines[0].get_data()
    np.testing.assert_array_equal(x, [10, 15, 20, np.nan, 40, 45, 50])
    np.testing.assert_array_equal(y, [np.nan, 0.9, 0.5, np.nan, np.nan, 1, -0.2])
    assert below.get_ylim() == (-1, 1)
    assert texts(below.get_yticklabels()) == ["1", "0.95", "0.8", "0.5", "0", "-1"]
    changes = [segment[0][0] for segment in below.collections[0].get_segments()]
    assert changes == [17.5]  # not those from and to a frame without a label, nor over the gap


def test_the_axis_of_the_cosines_is_even_in_the_distance_of_the_vectors():
    below = plots.timeline("one", FRAMES, TRUTH, PREDICTED, COSINES, CLASSES, 5, TITLE).axes[1]
    angles = np.array([0, 0.3, 1, 2, np.pi])
    cosines, ends = np.cos(angles), below.transData.transform([[10, -1], [10, 1]])[:, 1]
    place = below.transData.transform(np.stack([np.full(5, 10), cosines], 1))[:, 1]
    distance = [np.linalg.norm([1 - np.cos(t), np.sin(t)]) for t in angles]
    np.testing.assert_allclose((ends[1] - place) / (ends[1] - ends[0]), np.divide(distance, 2), atol=1e-6)


@pytest.mark.parametrize("count", [1, 4, 30])
def test_thumbnails_stand_in_order_and_apart_with_a_line_to_their_frame(count):
    frames = np.arange(100)
    images = [(i, np.full((40, 30, 3), i, dtype=np.uint8)) for i in range(count)]  # all at the very start
    nothing = np.zeros(100, dtype=int)
    figure = plots.timeline("one", frames, nothing, nothing, np.ones(100), CLASSES, 1, TITLE, images)
    drawn(figure)
    above = figure.axes[0]
    boxes = [artist for artist in above.artists if isinstance(artist, AnnotationBbox)]
    assert [box.xy for box in boxes] == [(i, 0) for i in range(count)]
    for box, (_, image) in zip(boxes, images, strict=True):
        assert isinstance(box.offsetbox, OffsetImage)
        np.testing.assert_array_equal(box.offsetbox.get_data(), image)
    places = [box.offsetbox.get_window_extent(FigureCanvasAgg(figure).get_renderer()) for box in boxes]
    assert all(a.x1 <= b.x0 for a, b in itertools.pairwise(places))
    row = above.get_window_extent()
    assert min(p.x0 for p in places) >= row.x0 - 1
    assert max(p.x1 for p in places) <= row.x1 + 1
    assert max(p.y1 for p in places) <= row.y1 + 1


def test_the_projection_is_that_of_sklearn_with_every_class_at_its_mean():
    rng = np.random.default_rng(0)
    z, labels = rng.normal(size=(60, 6)) * [5, 3, 1, 1, 1, 1], rng.integers(-1, 3, 60)
    figure = plots.projection_2d(z, labels, CLASSES, TITLE)
    axis = figure.axes[0]
    unit, label = z[labels >= 0] / np.linalg.norm(z[labels >= 0], axis=1, keepdims=True), labels[labels >= 0]
    pca = PCA(2).fit(unit)
    wanted = pca.transform(unit)
    means, drawn_means = (
        np.stack([wanted[label == c].mean(0) for c in range(3)]),
        np.stack([line.get_xydata()[0] for line in axis.lines]),
    )
    sign = np.sign((means * drawn_means).sum(0))  # either end of a component may be the positive one
    np.testing.assert_allclose(drawn_means, means * sign, atol=1e-5)
    (points,) = (c for c in axis.collections if len(c.get_offsets()))
    distance = cdist(wanted * sign, points.get_offsets())
    assert sorted(distance.argmin(1)) == list(range(len(label)))
    assert distance.min(1).max() < 1e-5
    colours = [to_hex(colour) for colour in points.get_facecolors()[distance.argmin(1)]]
    assert colours == [to_hex(plots.COLOURS[code]) for code in label]
    first, second = pca.explained_variance_ratio_
    assert axis.get_xlabel() == f"component 1 ({first:.0%} of the variance)"
    assert axis.get_ylabel() == f"component 2 ({second:.0%})"
    assert axis.get_aspect() == 1
    assert legend(figure) == CLASSES
    drawn(figure)


def test_the_projection_thins_evenly_and_says_so():
    z = np.random.default_rng(0).normal(size=(50, 4))
    figure = plots.projection_2d(z, np.zeros(50, dtype=int), CLASSES, TITLE, most=20)
    assert sum(len(c.get_offsets()) for c in figure.axes[0].collections) == 20
    assert "20 of 50" in figure.get_suptitle()


VALUES = np.array([[0.5, 0.4, 0.6], [0.75, np.nan, np.nan], [np.nan, np.nan, np.nan], [0.25, 0.3, 0.35]])
RUNS = ["frozen", "pca", "tcn", "mlp"]


def test_runs_are_compared_by_a_dot_and_an_interval_each():
    metrics = {"auc": VALUES, "flips": VALUES * 10, "nothing": np.full((4, 3), np.nan)}
    figure = plots.compare(RUNS, metrics, TITLE, ["frozen", "pca"], ["flips"])
    auc, flips, nothing = figure.axes
    assert [axis.get_title() for axis in figure.axes] == [
        "auc (higher is better)", "flips (lower is better)", "nothing (higher is better)",
    ]  # fmt: skip
    assert texts(auc.get_yticklabels()) == RUNS
    for axis, scale, best in ((auc, 1, 0.75), (flips, 10, 5)):
        adapters, baselines, line = axis.lines
        np.testing.assert_array_equal(adapters.get_xydata(), [[np.nan, 2], [0.25 * scale, 3]])
        np.testing.assert_array_equal(baselines.get_xydata(), [[0.5 * scale, 0], [0.75 * scale, 1]])
        assert adapters.get_marker() != baselines.get_marker()
        assert line.get_xdata() == [best, best]
        assert intervals_of(axis) == {0: [0.4 * scale, 0.6 * scale], 3: [0.3 * scale, 0.35 * scale]}
    assert texts(nothing.texts) == ["not measured"]
    assert legend(figure) == ["adapter", "baseline", "best baseline"]
    drawn(figure)


@pytest.mark.parametrize(
    ("value", "scale"), [(0.9985, "logit"), (0.6, "linear"), (1.0, "linear"), (99.5, "linear"), (np.nan, "linear")]
)
def test_what_is_close_to_one_is_spread_out(value, scale):
    numbers = np.array([[value, value * 0.999, value], [0.8, 0.7, 0.85], [np.nan] * 3])
    figure = plots.compare(RUNS[:3], {"steadiness": numbers}, TITLE)
    assert figure.axes[0].get_xscale() == scale
    drawn(figure)
    if scale == "logit":
        assert {"0.9", "0.99"} <= set(texts(figure.axes[0].get_xticklabels()))


@pytest.mark.parametrize(("num_runs", "num_metrics"), [(1, 1), (2, 5), (20, 9)])
def test_any_number_of_runs_and_metrics_fits(num_runs, num_metrics):
    names = [f"a_run_with_a_very_long_name_and_many_options_{i}" for i in range(num_runs)]
    values = np.random.default_rng(0).random((num_runs, 1)) + np.array([0, -0.1, 0.1])
    figure = plots.compare(names, {f"metric {i}": values for i in range(num_metrics)}, TITLE)
    assert legend(figure) == ["adapter"]
    drawn(figure)


def every(z, labels, videos, classes):
    """All the pictures of these embeddings; the prediction is the label of the frame before."""
    size, num = len(classes), len(labels)
    predicted, step = np.roll(labels, 1), 1
    confusion = np.zeros((size, size), dtype=int)
    np.add.at(confusion, (labels, predicted), 1)
    pairs = pair_counts(z, labels, videos, size)
    same, other, opposite = pairs.histogram(np.ones((1, videos.max(initial=-1) + 1)))[0]
    yield plots.cosine_histograms(pairs.edges, same, other, opposite, TITLE)
    yield plots.roc_curves(pairs.edges, same, other, opposite, TITLE)
    yield plots.emotion_matrix(np.full((size, size), np.nan), classes, TITLE)
    yield plots.similarity_matrix(z, labels, videos, classes, TITLE)
    yield plots.confusion_matrix(confusion, classes, TITLE)
    yield plots.f1_bars(np.diag(confusion) / 100, classes, TITLE)
    yield plots.projection_2d(z, labels, classes, TITLE)
    if num:
        yield plots.timeline("$v" * 100, np.arange(num), labels, predicted, np.ones(num), classes, step, TITLE)


@pytest.mark.parametrize(("num_frames", "num_classes"), [(0, 1), (1, 1), (2, 2), (3, 8), (200, 20)])
def test_every_picture_survives_few_frames_and_many_long_names(num_frames, num_classes):
    """Nothing is raised, nothing warns, everything drawn lies inside the picture."""
    labels = np.arange(num_frames) ** 3 % num_classes
    names = [f"Happily Surprised and also Afraid {i}" for i in range(num_classes)]
    z = np.random.default_rng(0).normal(size=(num_frames, 4))
    for figure in every(z, labels, np.arange(num_frames) // 7, names):
        drawn(figure)


def test_equal_embeddings_of_one_number_can_be_drawn():
    for z in (np.ones((5, 1)), np.zeros((5, 3))):
        for figure in every(z, np.arange(5) % 3, np.arange(5), CLASSES):
            drawn(figure)


def test_names_may_hold_any_signs():
    """A dollar begins no formula, an underscore hides no name from a legend, a line break makes no second line."""
    classes = ["a$b$", "_hidden", "c\n\td"]
    figures = list(every(np.eye(6), np.arange(6) % 3, np.arange(6), classes))
    for figure in figures:
        drawn(figure)
    assert texts(figures[4].axes[0].get_yticklabels()) == [r"a\$b\$", "_hidden", "c d"]
    assert figures[7].get_suptitle().startswith(r"Emotion along \$v\$v")
    assert legend(figures[6]) == [r"a\$b\$", "_hidden", "c d"]


def test_long_names_that_differ_at_their_end_stay_different():
    assert plots._name("x" * 40 + "1") != plots._name("x" * 40 + "2")
    assert len(plots._name("x" * 40 + "1")) == plots.LONGEST_NAME
    assert plots._name("x" * plots.LONGEST_NAME) == "x" * plots.LONGEST_NAME


def test_a_long_title_is_broken_into_lines():
    drawn(plots.emotion_matrix(np.eye(2), CLASSES[:2], plots.heading("run " * 20, "data " * 20, 3)))


def test_classes_look_different_up_to_four_times_the_palette():
    looks = {(plots._fill(c)["facecolor"], plots._fill(c)["hatch"]) for c in range(32)}
    assert len(looks) == len(plots.COLOURS) * len(plots.MARKERS) == 32
    assert plots._fill(32) == plots._fill(0)


def test_the_same_arrays_give_the_same_picture():
    z, labels = np.random.default_rng(0).normal(size=(40, 4)), np.arange(40) % 3
    one, two = (plots.projection_2d(z, labels, CLASSES, TITLE) for _ in range(2))
    assert drawn(one) == drawn(two)


def test_pictures_leave_nothing_open():
    before = plt.get_fignums()
    list(every(np.eye(6), np.arange(6) % 3, np.arange(6), CLASSES))
    assert plt.get_fignums() == before
