from pathlib import Path

import cv2
import numpy as np
import pytest
from test_faces import film, find_squares, picture

from pipeline.faces import __main__ as faces
from pipeline.faces import sheet
from pipeline.faces.align import TEMPLATE
from pipeline.faces.detect import DETECTORS


def test_each_person_has_a_cell_with_points_where_they_are_and_the_cut_face_beside(tmp_path, monkeypatch):
    monkeypatch.setitem(DETECTORS, "mtcnn", lambda min_face, confidence: find_squares)
    Path("params.yaml").write_text("faces: {}\n")
    film(tmp_path / "in/two.mp4", [picture(red=20, blue=100)] * 2)
    flags = ["--input", "in", "--out", "out", "--workers", "1", "--min-frames", "1", "--sheet", "sheet.png"]
    assert faces.main(flags) == 0
    drawn = cv2.imread("sheet.png", cv2.IMREAD_COLOR_RGB)
    assert drawn.shape == (sheet.CELL + sheet.LINE, 2 * 2 * sheet.CELL, 3)
    side = sheet.CELL - 4
    box = find_squares(picture(red=20)).boxes[0]
    scale = side / sheet.AROUND / (box[2] - box[0])  # the box stands in the middle, an AROUND-th of the cell wide
    for number, name in enumerate(("two_left", "two_right")):
        cell = drawn[:, number * 2 * sheet.CELL :]
        for point, colour in zip(TEMPLATE / 112 * 32, sheet.COLOURS, strict=True):
            x, y = (side - 1) / 2 + scale * (point - 15.5)
            assert np.abs(cell[round(y), round(x)].astype(int) - colour).max() < 30
        crop = cv2.imread(f"out/cropped_aligned/{name}/00001.jpg", cv2.IMREAD_COLOR_RGB)
        there = cell[:side, sheet.CELL : sheet.CELL + side]
        assert there.mean(axis=(0, 1)) == pytest.approx(crop.mean(axis=(0, 1)), abs=3)
