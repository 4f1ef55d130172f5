"""Cells of any kind are compared and read."""

import datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pytest

from noisyfit.auditing.cells import LONGEST, Comparable, readable

COLUMNS: dict[str, Any] = {
    "float": [1.5, np.nan, 2.5, np.inf],
    "Int64": pd.array([1, None, 3, 2**62], "Int64"),
    "no Int64 at all": pd.array([None] * 4, "Int64"),
    "bool": [True, False, True, True],
    "boolean": pd.array([True, None, False, True], "boolean"),
    "date": pd.to_datetime(["2020-01-01", None, "1970-05-05", "2020-01-01"]),
    "date with zone": pd.to_datetime(["2020-01-01", None, "1970-05-05", "2020-01-01"], utc=True),
    "duration": pd.to_timedelta([1, None, 3, 2], unit="D"),
    "category": pd.Categorical(["a", None, "b", "a"]),
    "order": pd.Categorical(["a", None, "b", "a"], ordered=True),
    "period": pd.period_range("2020-01", periods=4, freq="M"),
    "interval": pd.interval_range(0, 4),
    "string": pd.array(["a", None, "b", "a"], "string"),
    "mixed": ["a", pd.NA, 3, datetime.date(2020, 1, 1)],
    "every gap": [None, np.nan, pd.NaT, pd.NA],
    "list": [[1, 2], None, [1, 2, 3], []],
    "array": [np.arange(3), None, np.arange(2), np.arange(3)],
    "dict": [{"a": 1}, {}, None, {"a": 1}],
    "decimal": [Decimal("1.5"), None, Decimal(2), Decimal(3)],
    "complex": [1j, 2, 3, 4],
    "huge": ["x" * 10_000, "y", None, "y"],
}


@pytest.mark.parametrize("column", COLUMNS)
def test_rarity__whatever_a_column_holds__is_a_share(column: str) -> None:
    frame = pd.DataFrame({column: pd.Series(COLUMNS[column])})
    cells = Comparable(frame)
    for row in range(4):
        (rarity,) = cells.rarity(row, np.arange(4))
        assert 0 <= rarity <= 1
        missing = frame[column].isna()
        assert np.isnan(cells.places[row, 0]) == missing[row]
        assert not missing[row] or rarity == 1 - missing.mean()


def test_rarity__by_hand() -> None:
    frame = pd.DataFrame(
        {
            "number": [1, 2, 3, 4, 99],
            "town": ["Rome", "Rome", "Oslo", None, "Rome"],
            "day": pd.to_datetime(["2020-01-03", "2020-01-01", "2020-01-02", None, None]),
        }
    )
    cells, everyone = Comparable(frame), np.arange(5)
    assert cells.rarity(4, everyone) == pytest.approx([4 / 5, 1 / 4, 3 / 5])
    assert cells.rarity(2, everyone) == pytest.approx([0, 3 / 4, 0])
    assert cells.rarity(0, everyone) == pytest.approx([4 / 5, 1 / 4, 2 / 3])
    assert cells.rarity(0, np.array([3])) == pytest.approx([1, 1, 1])


def test_rarity__lists_that_are_equal__are_the_same_value() -> None:
    cells = Comparable(pd.DataFrame({"tags": [["a"], ["a"], ["b"], ["a"]]}))
    assert cells.rarity(0, np.arange(4)) == pytest.approx([1 / 4])
    assert cells.rarity(2, np.arange(4)) == pytest.approx([3 / 4])


@pytest.mark.parametrize("column", COLUMNS)
def test_readable__whatever_a_column_holds__is_short_and_gaps_are_missing(column: str) -> None:
    cells = pd.Series(COLUMNS[column])
    shown = [readable(cells.iat[row]) for row in range(4)]
    assert max(map(len, shown)) <= LONGEST + 1
    assert [text == "missing" for text in shown] == cells.isna().tolist()


@pytest.mark.parametrize(
    "value, text",
    [
        (0.1 + 0.2, "0.3"),
        (np.float32(0.1), "0.1"),
        (3.0, "3"),
        (1234567.89, "1234567.89"),
        (-123456789012.5, "-123456789012.5"),
        (1.23456789e300, "1.23457e+300"),
        (0.000012345678, "1.23457e-05"),
        (-np.inf, "-inf"),
        (2014, "2014"),
        (2**63, "9223372036854775808"),
        (True, "True"),
        (pd.Timestamp("2014-03-17"), "2014-03-17"),
        (pd.Timestamp("2014-03-17 12:30"), "2014-03-17 12:30:00"),
        (pd.Timedelta(days=3), "3 days"),
        ("at 00:00:00", "at 00:00:00"),
        ("word " * 2000, "word " * 15 + "word…"),
        (["a", "b"], "['a', 'b']"),
    ],
)
def test_readable__value__is_as_people_write_it(value: Any, text: str) -> None:
    assert readable(value) == text
