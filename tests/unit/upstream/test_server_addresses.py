"""server_addresses.py: which of all addresses is asked, and for how long."""

import asyncio

import pytest
from sojourn.errors import InvalidInput, UpstreamUnavailable
from sojourn.net.allowed_addresses import parse_address
from sojourn.upstream import server_addresses
from sojourn.upstream.server_addresses import ServerAddresses


class Names:
    """Addresses by name. `asked`: how often it was."""

    def __init__(self, **known: list[str]) -> None:
        self.known = known
        self.asked = 0

    async def of(self, host: str, _port: int):
        self.asked += 1
        if host not in self.known:
            raise OSError(f"{host} is not known")
        return [parse_address(each) for each in self.known[host]]


class TestAddresses:
    async def test_all_of_all_names(self) -> None:
        """Each address of each name is asked in its turn when the one before has failed."""
        found = ServerAddresses(["one:1", "two:2"], Names(one=["10.0.0.1", "fd00::1"], two=["10.0.0.2"]))
        seen = set()
        for _ in range(3):
            address = await found.get()
            seen.add(address)
            found.failed(address)
        assert {"10.0.0.1:1", "[fd00::1]:1", "10.0.0.2:2"} == seen
        assert "" == found.present

    async def test_sticky(self) -> None:
        """The one that answers is asked again, and names are not looked up for that."""
        names = Names(one=["10.0.0.1", "10.0.0.2", "10.0.0.3"])
        found = ServerAddresses(["one:1"], names)
        assert 1 == len({await found.get() for _ in range(20)})
        assert 1 == names.asked

    async def test_nodes_spread(self) -> None:
        """Nodes do not all begin with the same server."""
        names = Names(one=[f"10.0.0.{number}" for number in range(1, 9)])
        assert 1 < len({await ServerAddresses(["one:1"], names).get() for _ in range(50)})

    async def test_names_that_have_changed(self) -> None:
        """When all have failed the names are looked up again."""
        names = Names(one=["10.0.0.1"])
        found = ServerAddresses(["one:1"], names)
        found.failed(await found.get())
        names.known["one"] = ["10.0.0.2"]
        assert "10.0.0.2:1" == await found.get()

    async def test_a_name_that_is_not_known(self) -> None:
        """A name without an address is passed over; if none has any the names are told."""
        assert "10.0.0.1:1" == await ServerAddresses(["gone:1", "one:1"], Names(one=["10.0.0.1"])).get()
        with pytest.raises(UpstreamUnavailable, match="gone"):
            await ServerAddresses(["gone:1"], Names()).get()

    async def test_a_resolver_that_hangs(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A name whose resolver does not answer holds up the others for a while, and not for ever."""
        monkeypatch.setattr(server_addresses, "UPSTREAM_LOOKUP_SECONDS", 0.05)

        class Hanging(Names):
            async def of(self, host: str, port: int):
                if host == "hangs":
                    await asyncio.Event().wait()
                return await super().of(host, port)

        assert "10.0.0.1:1" == await ServerAddresses(["hangs:1", "one:1"], Hanging(one=["10.0.0.1"])).get()

    @pytest.mark.parametrize("names", [[], [""], ["host"], ["host:"], ["host:0"], ["host:70000"], [":1"], ["a:1", "b"]])
    def test_what_is_no_address(self, names: list[str]) -> None:
        """What is not HOST:PORT is refused at once."""
        with pytest.raises(InvalidInput):
            ServerAddresses(names, Names())
