"""store/blocks.py: what is switched off outlives the agent, whoever has switched it off."""

import json

from fakes.databases import opened
from sojourn.audit.journal import Event
from sojourn.store import settings
from sojourn.store.audit import AuditTable
from sojourn.store.blocks import BlockTable
from sojourn.store.short_lists import TASK_BLOCKS, KeptList
from sojourn.tasks.blocks import Block

OPERATORS = [Block("type", "pay", "incident", 5), Block("person", "psn_a", "under review", 6)]
TOLD = [Block("person", "psn_a", "account-disabled", 7, "https://idp.example.net")]
SAID = [Event(1, "tasks_blocked", "{}")]


async def test_over_a_restart(tmp_path):
    """Blocks of operators and of signed events are there again, with whose they are."""
    with opened(tmp_path / "sojourn.db") as database:
        table = BlockTable(database, AuditTable(database))
        assert [] == table.load()
        await table.save([*TOLD, *OPERATORS], SAID)
    with opened(tmp_path / "sojourn.db") as database:
        journal = AuditTable(database)
        table = BlockTable(database, journal)
        assert [*OPERATORS, *TOLD] == table.load()
        assert ["tasks_blocked"] == [each.event for each in await journal.tail(5)]
        await table.save(OPERATORS, SAID)
        assert OPERATORS == table.load()


async def test_the_release_before(tmp_path):
    """The release before reads the operators' blocks as ever; and what that has written is read."""
    with opened(tmp_path / "sojourn.db") as database:
        journal = AuditTable(database)
        await BlockTable(database, journal).save([*OPERATORS, *TOLD], SAID)

        def kept(connection):
            return json.loads(settings.get(connection, TASK_BLOCKS))

        found = database.read_now("blocks", kept)
        assert [{"kind", "name", "reason", "since"}] * 2 == [set(each) for each in found]
        older = KeptList(database, journal, TASK_BLOCKS, Block)
        assert OPERATORS == older.load()
