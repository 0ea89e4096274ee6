"""Heat over an image: none where there is no heat, colour where there is, a ring at the place."""

import numpy as np

from pipeline.core.report.figures.overlay import COLOURS, STRONGEST, heat_legend, overlay


def test_without_heat_the_image_is_gray_and_with_it_coloured():
    image = np.random.default_rng(0).integers(0, 256, (60, 60, 3), np.uint8)
    cold = overlay(image, np.zeros((3, 3)), (0.9, 0.9))
    assert cold.shape == image.shape and cold.dtype == np.uint8
    assert (np.ptp(cold, axis=2) == 0).all()
    hot = overlay(np.full((60, 60), 100, np.uint8), np.ones((3, 3)), (0.9, 0.9))
    expected = np.round((1 - STRONGEST) * 100 + STRONGEST * COLOURS[-1])
    assert (hot[:30, :30] == expected).all()


def test_heat_is_where_the_map_has_it():
    heat = np.zeros((4, 4))
    heat[0, 3] = 1
    drawn = overlay(np.full((80, 80), 90, np.uint8), heat, (0.5, 0.9)).astype(int)
    colour = drawn.max(2) - drawn.min(2)
    assert colour[10, 70] > 80 and not colour[50:, :40].any()


def test_the_ring_is_around_the_place():
    drawn = overlay(np.full((100, 100), 90, np.uint8), np.zeros((2, 2)), (0.25, 0.75))
    rows, columns = np.nonzero(drawn[:, :, 0] != 90)
    assert abs(rows.mean() - 75) < 1 and abs(columns.mean() - 25) < 1
    assert drawn[75, 25, 0] == 90 and drawn.max() > 240


def test_the_legend_has_every_colour_and_escapes_its_ends():
    html = heat_legend("a < b", "much")
    assert "a &lt; b" in html and html.count("rgb(") == len(COLOURS)
