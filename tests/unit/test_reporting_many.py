"""Reports over many settings: figures that can still be read, and that say what they leave out."""

import pytest

from snnrobust.reporting import figures
from snnrobust.reporting.figures import MOST_LINES, MOST_POINTS, MOST_SERIES, spread
from snnrobust.reporting.records import collect
from snnrobust.reporting.tables import summarise
from tests.unit.test_reporting import content, put


def summary(root, settings):
    for number in range(settings):
        for seed in range(2):
            put(root / f"{number}-{seed}", content(round(0.01 * number, 3), seed))
    return summarise(collect([root]))


def panel(figure):
    (axes,) = figure.axes
    return axes


def legend(axes):
    return axes.get_legend().get_title().get_text()


@pytest.mark.parametrize("number", [1, MOST_LINES, MOST_LINES + 1, 400])
def test_of_very_many_lines_some_are_drawn_evenly(number):
    drawn = spread(range(number))
    assert drawn == sorted(set(drawn))
    assert len(drawn) == (number if number <= MOST_LINES else MOST_SERIES)
    assert (drawn[0], drawn[-1]) == (0, number - 1)


def test_a_crowded_figure_has_every_point_but_neither_bars_nor_numbers(tmp_path):
    few = panel(figures.tradeoff(summary(tmp_path / "few", 5)))
    many = panel(figures.tradeoff(summary(tmp_path / "many", MOST_POINTS + 1)))
    assert (len(few.texts), len(many.texts)) == (5, 0)
    assert (len(few.collections) > 0, len(many.collections)) == (True, 0), "bars"
    assert [len(line.get_xdata()) for line in many.get_lines()] == [MOST_POINTS + 1, 2 * (MOST_POINTS + 1)]
    assert "differ in weight" in legend(many)


def test_a_figure_of_very_many_lines_says_so(tmp_path):
    axes = panel(figures.budget(summary(tmp_path, MOST_LINES + 1)))
    assert len(axes.get_lines()) == 2 * MOST_SERIES, "solid and dashed"
    assert f"({MOST_SERIES} of {MOST_LINES + 1} series, evenly spaced)" in legend(axes)
    assert len(axes.get_legend().get_texts()) == MOST_SERIES
