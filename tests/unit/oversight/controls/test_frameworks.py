"""frameworks.py, queries.py: the data files that are shipped, and what no data file may say."""

import pytest
from sojourn.errors import Bug, InvalidInput
from sojourn.oversight.controls import frameworks
from sojourn.oversight.controls.queries import _ALL, QUERIES

NAMES = ["ai-act", "ai-rmf", "csf", "maestro", "owasp-asi", "soc2"]
GOOD = """
title = "Some Framework"
version = "1"
source = "https://example.org/framework"
[[rows]]
id = "X1"
title = "First"
claim = "It is so."
query = "journal_whole"
"""
ROWS = {name: frameworks.load(name).rows for name in NAMES}


class TestShipped:
    def test_all_are_there(self):
        """The six frameworks are with the package, each with a source."""
        assert NAMES == frameworks.names()
        assert all(frameworks.load(each).source.startswith("https://") for each in NAMES)

    def test_every_query_is_named_and_there(self):
        """No row names a query that there is not, and no query is named by no row."""
        named = {row.query for rows in ROWS.values() for row in rows if row.query}
        assert set(QUERIES) == named
        assert len(QUERIES) == len(_ALL)

    def test_titles(self):
        """One ID has one title wherever it stands in a file."""
        for rows in ROWS.values():
            titles = {(row.id, row.title) for row in rows}
            assert len(titles) == len({row.id for row in rows})

    def test_rows_of_the_owasp_list(self):
        """OWASP's ten are all there, in their order; what the agent has no part in says so."""
        ids = list(dict.fromkeys(row.id for row in ROWS["owasp-asi"]))
        assert [f"ASI{number:02}" for number in range(1, 11)] == ids
        assert {"ASI05", "ASI06"} <= {row.id for row in ROWS["owasp-asi"] if row.not_ours}
        assert [f"L{number}" for number in range(1, 8)] == list(dict.fromkeys(row.id for row in ROWS["maestro"]))

    def test_what_is_not_verified(self):
        """Of one list alone the published text was not seen: each of its rows says so, with why."""
        unverified = {name for name, rows in ROWS.items() if any(row.why_not_verified for row in rows)}
        assert {"soc2"} == unverified
        assert all(row.why_not_verified for row in ROWS["soc2"])

    @pytest.mark.parametrize("query", sorted(QUERIES))
    def test_each_query_says_what_it_asserts(self, query):
        """Each query has an assertion in one sentence, and reads records or judges at the end."""
        kind = QUERIES[query]
        assert len(kind.assertion) > 20
        assert kind.events or "finish" in vars(kind)


class TestParse:
    def test_good(self):
        """A file with a title, a version, a source and a row is read."""
        found = frameworks.parse("some", GOOD)
        assert ("some", 1, "journal_whole") == (found.name, len(found.rows), found.rows[0].query)

    def test_unverified_row(self):
        """A row may be unverified by itself, with why."""
        said = '\nverified = false\nwhy_not_verified = "not published"'
        assert "not published" == frameworks.parse("some", GOOD + said).rows[0].why_not_verified

    @pytest.mark.parametrize(
        ("before", "after"),
        [
            ("journal_whole", "eval"),  # no query of ours
            ('claim = "It is so."', ""),
            ('query = "journal_whole"', ""),
            ('query = "journal_whole"', 'query = "journal_whole"\nnot_ours = "why"'),
            ('title = "First"', 'title = "First"\ncode = "1"'),
            ('id = "X1"', "id = 1"),
            ("https://example.org", "http://example.org"),
            ('version = "1"', ""),
            ('title = "First"', 'title = "First"\nverified = false'),
            ("[[rows]]", "[[lines]]"),
            ('id = "X1"', "id ="),
        ],
    )
    def test_wrong(self, before, after):
        """A file that names no query of ours, lacks something or says more than it may is refused."""
        assert before in GOOD
        with pytest.raises(Bug):
            frameworks.parse("some", GOOD.replace(before, after))

    def test_a_query_twice(self):
        """One row asks a query once."""
        row = GOOD[GOOD.index("[[rows]]") :]
        with pytest.raises(Bug, match="twice"):
            frameworks.parse("some", GOOD + row)

    def test_no_such_framework(self):
        """Whoever asks for another framework hears which there are."""
        with pytest.raises(InvalidInput, match=r"there are: ai-act, .*, soc2"):
            frameworks.load("../secrets")
