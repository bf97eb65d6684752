"""A run's folder gives back the panel that it was begun with."""

from tests.data.tables import SCHEMA, table
from wmjax.data.readers import read_panel
from wmjax.report.run import Run


def test_a_part_of_a_panel_comes_back_with_the_levels_of_the_whole(tmp_path):
    """Units 100, 101, .. have segments b, a, c by turns; two of them lack the level a, which stands first."""
    panel = read_panel(table(), SCHEMA).select(units=[100, 102, 103])
    assert set(panel.values("segment")) == {1.0, 2.0}
    run = Run(tmp_path / "run")
    run.claim(panel, None, 0, overwrite=False)
    again = run.panel(panel.levels)
    assert again.levels["segment"] == ("a", "b", "c")
    assert again.fingerprint == panel.fingerprint
