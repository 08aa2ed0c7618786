"""recovery.py: tasks of an earlier run that end as the agent starts: out of time, without their holder, or damaged."""

import json

import pytest
from fakes.children import child
from fakes.recovery_room import TYPES, damage, ends, restart_fixture, room_fixture  # noqa: F401 - fixtures
from fakes.registrations import entry
from fakes.task_room import EPOCH, TRIAGE_ENTRY
from fakes.task_types import TICKETS, task_type
from sojourn.tasks.blocks import Block
from sojourn.tasktoken.end_reasons import RESTART


class TestEnds:
    @pytest.mark.parametrize(
        ("seconds", "name", "state", "reason"),
        [(900, "triage", "expired", "deadline"), (60, "idle", "expired", "idle")],
    )
    async def test_time_is_up(self, room, restart, seconds, name, state, reason):
        """A task whose time ran out while there was no agent has ended so."""
        await room.begin(name)
        room.clock.advance(seconds)
        later = await restart()
        assert ([], [(state, reason)]) == (later.engine.tasks.all(), ends(room.store))

    async def test_another_boot(self, room, restart):
        """After a start of the machine every task is over, whatever its pid is now."""
        task = await room.begin()
        room.store.same_boot = False
        later = await restart()
        assert ([], [("revoked", RESTART)]) == (later.engine.tasks.all(), ends(room.store))
        assert ("revoked", EPOCH + 1) == (room.store.rows[task.id][0], room.store.rows[task.id][1] >> 32)

    async def test_one_shot(self, room, restart):
        """A one-shot task never comes back."""
        task = await room.begin()
        damage(room.store, task, binding="one-shot")
        await restart()
        assert [("revoked", RESTART)] == ends(room.store)

    @pytest.mark.parametrize("types", [{"idle": TYPES["idle"]}, {"triage": task_type(token_ttl='"50s"')}])
    async def test_the_type_has_changed(self, room, restart, types):
        """A task whose type has gone, or is not the same, ends."""
        await room.begin()
        await restart(types=types)
        assert [("revoked", "policy_changed")] == ends(room.store)

    async def test_switched_off(self, room, restart):
        """A task whose type was switched off, but whose end was not on disk, ends."""
        await room.begin()
        await restart(blocks=[Block("type", "triage", "because", 0)])
        assert [("revoked", "blocked")] == ends(room.store)

    @pytest.mark.parametrize(
        "entries",
        [(), (entry("/agent/triage", expires_at=1),), (entry("/web", id=TRIAGE_ENTRY.id),)],
        ids=["gone", "expired", "another ID"],
    )
    async def test_the_entry_has_gone(self, room, restart, entries):
        """A task ends if the entry that earned its holder the identity is not served any more."""
        await room.begin()
        await restart(entries=entries)
        assert [("revoked", "attestation_changed")] == ends(room.store)

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            ({"start_time": 1}, "holder_exited"),
            ({"pid": 2**22 + 1}, "holder_exited"),
            ({"program": [0, 1]}, "attestation_changed"),
            ({"program": None}, "attestation_changed"),
            ({"cgroup_digest": "00"}, "attestation_changed"),
        ],
        ids=["pid used again", "no such pid", "another program", "program unseen before", "another cgroup"],
    )
    async def test_not_the_same_holder(self, room, restart, change, reason):
        """A task goes back to the very process that held it, running the program that it ran, where it was."""
        task = await room.begin()
        damage(room.store, task, holder={**task.record().document["holder"], **change})
        later = await restart()
        assert ([("revoked", reason)], 0) == (ends(room.store), len(later.holders))

    async def test_another_user(self, room, restart):
        """A process that has become another user holds nothing."""
        task = await room.begin()
        damage(room.store, task, uid=task.uid + 1)
        later = await restart()
        assert ([("revoked", "attestation_changed")], 0) == (ends(room.store), len(later.holders))

    async def test_the_holder_has_gone(self, room, restart):
        """A holder that died meanwhile holds nothing, collected or not."""
        with child() as process:
            await room.begin(holder=process)
            process.kill()
            process.wait()
            await restart()
        assert [("revoked", "holder_exited")] == ends(room.store)

    async def test_too_many_holders(self, room, restart):
        """Processes that cannot be held any more, since fewer may be, hold nothing."""
        await room.begin()
        await restart(holders=0)
        assert [("revoked", RESTART)] == ends(room.store)

    async def test_what_has_ended_is_left_alone(self, room, restart):
        """Ended tasks stay what they are, and a start on them alone writes nothing."""
        task = await room.begin()
        await room.engine.revoke(task, "because")
        before = room.store.rows[task.id]
        later = await restart()
        assert ([], before, []) == (later.engine.tasks.all(), room.store.rows[task.id], room.store.events)


class TestDamage:
    @pytest.mark.parametrize(
        "document",
        [b"", b"{", b"\xff", b"[]", b"{}", b"null", b"7", b"[" * 100_000],
        ids=["none", "torn", "no text", "list", "empty", "null", "number", "deep"],
    )
    async def test_no_document(self, room, restart, document):
        """A row that cannot be read ends its task and nothing else; what stood there is kept."""
        task, other = await room.begin(), await room.begin()
        room.store.documents[task.id] = document
        later = await restart()
        assert ([other.id], [("revoked", "journal_damaged")]) == (
            [each.id for each in later.engine.tasks.all()],
            ends(room.store),
        )
        kept = json.loads(room.store.documents[task.id])
        assert ("journal_damaged", document.decode("utf-8", "backslashreplace")) == (
            kept["reason"],
            kept["damaged_document"],
        )

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("type", 7),
            ("type_digest", None),
            ("spiffe_id", "http://example.org"),
            ("spiffe_id", None),
            ("entry_id", 7),
            ("uid", "0"),
            ("uid", True),
            ("grants", [{"resource": TICKETS, "actions": ["ticket:destroy"]}]),
            ("grants", [{"resource": "https://elsewhere.example.org", "actions": ["ticket:read"]}]),
            ("grants", "all"),
            ("params", {"ticket": 1.5}),
            ("params", {"ticket": ["T-1"]}),
            ("created_at", 1e300),
            ("expires_at", "never"),
            ("deadline", 1e300),
            ("deadline", float("nan")),
            ("deadline", float("inf")),
            ("deadline", None),
            ("last_used", 1e12),
            ("last_used", float("nan")),
            ("holder", {}),
            ("holder", {"pid": 1, "start_time": 1}),
            ("holder", {"pid": 2**80, "start_time": 1, "program": None}),
            ("holder", {"pid": 1, "start_time": 1, "program": [1, 2, 3]}),
            ("holder", {"pid": 1, "start_time": 1, "program": None, "cgroup_digest": None}),
            ("binding", "thread"),
            ("session", 1),
            ("selectors", ["uid"]),
            ("suspensions", {"operator": None}),
            ("tokens_issued", -0.5),
            ("calls", "none"),
            ("uses", [[TICKETS, "ticket:read", 1]]),
        ],
    )
    async def test_a_document_that_cannot_be(self, room, restart, name, value):
        """A document with a member that no task has is a damaged one: the task ends, and gains nothing by it."""
        task = await room.begin()
        damage(room.store, task, **{name: value})
        later = await restart()
        assert ([], [("revoked", "journal_damaged")]) == (later.engine.tasks.all(), ends(room.store))
        assert 0 == len(later.holders)

    @pytest.mark.parametrize("version", ["many", None, -1, 1.5, (EPOCH + 1) << 32])
    async def test_a_version_that_cannot_be(self, room, restart, version):
        """A version that no earlier run can have given is damage too."""
        task = await room.begin()
        room.store.rows[task.id] = ("active", version)
        await restart()
        assert ("revoked", EPOCH + 1) == (room.store.rows[task.id][0], room.store.rows[task.id][1] >> 32)
        assert [("revoked", "journal_damaged")] == ends(room.store)
