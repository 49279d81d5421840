"""The table of public data sets against the readers that it names, which nothing imports before they are asked for."""

from __future__ import annotations

import inspect

import pytest

from citlr.data.sources.registry import DATA_SETS, reader
from citlr.data.sources.study import Study


@pytest.mark.parametrize("name", DATA_SETS)
def test_a_reader_takes_what_the_command_line_offers_of_it(name: str) -> None:
    taken = dict(inspect.signature(reader(name)).parameters)
    assert list(taken) == ["root", *DATA_SETS[name].options, "study", "narrator"]
    for option, offered in DATA_SETS[name].options.items():
        default = taken[option].default
        assert offered.default is ... if default is inspect.Parameter.empty else offered.default == default


def test_what_a_data_set_has_no_use_for_is_a_choice_of_a_study() -> None:
    choices = {"race": "races", "age_edge": "age_edges"}
    left_out = {choices.get(name, name) for one in DATA_SETS.values() for name in one.without}
    assert left_out <= set(inspect.signature(Study).parameters)
