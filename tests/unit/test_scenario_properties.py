# SPDX-License-Identifier: GPL-2.0-only
"""The scenario language: what holds for any scenario and for any input.

Valid scenarios are drawn with a book of their own, apart from the parser's.
"""

import re
from typing import get_args

from hypothesis import given, settings
from hypothesis import strategies as st
from scenario_drawing import scenarios
from scenario_texts import EVERYTHING

from rmaplab.errors import InputError
from rmaplab.scenario import Statement, format_scenario, parse

PLACED = re.compile(r"f\.rmap:([0-9]+):([0-9]+): ")


@given(scenarios())
def test_what_is_printed_parses_back(made):
    text = format_scenario(made)
    again = parse(text)
    assert again == made
    assert format_scenario(again) == text
    assert parse(text.encode().replace(b"\n", b"\r\n")) == made
    assert [s.text for s in again.statements] == text.split("\n")[:-1]
    assert [s.line for s in again.statements] == list(range(1, len(again.statements) + 1))


def parses_or_says_where(data):
    refusal = ""
    try:
        first = parse(data, "f.rmap")
    except InputError as error:
        refusal = str(error)
    if not refusal:
        assert parse(format_scenario(first)) == first
        return
    place = PLACED.match(refusal)
    assert place, refusal
    assert min(int(place[1]), int(place[2])) >= 1


@given(st.text() | st.binary() | st.text(alphabet=st.characters(categories=["Cs", "Cc", "Nd"])))
def test_any_input_parses_or_says_where(data):
    parses_or_says_where(data)


WORDS = [*EVERYTHING.split(), "\n", " ", "[", "..", "]", "=", "{", "}", ";", "||", "+", "-", "#", "\r"]


@given(st.lists(st.sampled_from(WORDS)))
def test_any_words_parse_or_say_where(words):
    parses_or_says_where(" ".join(words))


@given(scenarios(), st.data())
def test_mutated_scenarios_parse_or_say_where(made, data):
    text = format_scenario(made)
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 8)))
    put = data.draw(
        st.text(max_size=4) | st.sampled_from([" ", "\n", "0", "[", "]", "..", "=", "#", "{", "}", ";", "||", text])
    )
    parses_or_says_where(text[:start] + put + text[end:])


@given(st.lists(st.sampled_from(EVERYTHING.split("\n"))))
def test_any_lines_parse_or_say_where(lines):
    parses_or_says_where("\n".join(lines))


def test_every_statement_is_drawn():
    drawn = set()

    @settings(derandomize=True, max_examples=200)
    @given(scenarios())
    def draw(made):
        drawn.update(map(type, made.statements))

    draw()
    assert drawn == set(get_args(Statement))
