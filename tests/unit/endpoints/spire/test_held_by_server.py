"""held_by_server.py: what a node cannot do for an operator is refused, with the command to run at the server."""

import shlex
from types import SimpleNamespace

import pytest
from fakes.registrations import NODE
from sojourn._pb.sojourn.v1 import admin_pb2 as admin
from sojourn._pb.spire.api.server.entry.v1 import entry_pb2 as pb
from sojourn._pb.spire.api.types import types_pb2 as types
from sojourn.endpoints.admin import status, svid_revocation
from sojourn.endpoints.grpc.calls import Method
from sojourn.endpoints.spire import agent, bundle, entry, localauthority, svid, trustdomain
from sojourn.endpoints.spire.held_by_server import restricted
from sojourn.errors import HeldByServer

CALL = SimpleNamespace(by={})


def services(done):
    """The services of operators, none of which does anything but note that it was asked."""

    async def handle(_call, request):
        done.append(request)
        return "done"

    def noted(methods):
        return {name: Method(each.kind, each.request, handle) for name, each in methods.items()}

    class Anything:
        def __getattr__(self, name):
            return self

        def __call__(self, *_, **__):
            return self

    any_ = Anything()
    entries = entry.EntryApi(any_, any_, any_, any_)
    keys = localauthority.LocalAuthorityApi(any_, any_, any_)
    revoking = svid_revocation.RevokingApi(any_, any_, any_, any_, any_, any_, any_, any_)
    return {
        entry.SERVICE: noted(entries.methods()),
        bundle.SERVICE: noted(bundle.BundleApi(any_, any_, any_).methods()),
        trustdomain.SERVICE: noted(trustdomain.FederationApi(any_, any_, any_).methods()),
        localauthority.SERVICE: noted(keys.methods()),
        agent.SERVICE: noted(agent.AgentApi(any_, "1").methods()),
        svid.SERVICE: noted(svid.MintingApi(any_, any_, any_, any_, any_).methods()),
        status.SERVICE: noted(keys.admin_methods() | entries.admin_methods() | revoking.admin_methods()),
    }


READS = {
    entry.SERVICE: {"CountEntries", "ListEntries", "GetEntry"},
    bundle.SERVICE: {"CountBundles", "GetBundle", "ListFederatedBundles", "GetFederatedBundle"},
    trustdomain.SERVICE: {"ListFederationRelationships", "GetFederationRelationship"},
    localauthority.SERVICE: set(),
    agent.SERVICE: {"CountAgents", "ListAgents", "GetAgent"},
    svid.SERVICE: set(),
    status.SERVICE: {"RotateSvids", "ListRevocations"},
}


async def test_what_reads_is_answered_and_nothing_else():
    """Every call of these services either reads, and is answered, or is refused with a command of spire-server."""
    done = []
    made = restricted(services(done), lambda: NODE)
    for service, methods in made.items():
        for name in READS[service]:
            assert "done" == await methods[name].handler(CALL, methods[name].request())
        for name in methods.keys() - READS[service]:
            with pytest.raises(HeldByServer, match="spire-server "):
                await methods[name].handler(CALL, methods[name].request())
    assert sum(map(len, READS.values())) == len(done)


async def refusal(service, method, request):
    with pytest.raises(HeldByServer) as refused:
        await restricted(services([]), lambda: NODE)[service][method].handler(CALL, request)
    return refused.value.public


async def test_the_command_for_an_entry():
    """Who registers an entry here is told the command that registers the same at the server, ready to be typed."""
    asked = types.Entry(
        spiffe_id=types.SPIFFEID(trust_domain="example.org", path="/web"),
        selectors=[types.Selector(type="unix", value="path:/usr/bin/my web")],
    )
    said = await refusal(entry.SERVICE, "BatchCreateEntry", pb.BatchCreateEntryRequest(entries=[asked]))
    command = said.partition("run `")[2].partition("` there")[0]
    assert [
        *("spire-server", "entry", "create", "-parentID", str(NODE), "-spiffeID", "spiffe://example.org/web"),
        *("-selector", "unix:path:/usr/bin/my web"),
    ] == shlex.split(command)


async def test_the_command_for_a_huge_entry():
    """What is too long to be typed is not."""
    asked = types.Entry(selectors=[types.Selector(type="unix", value="x" * 500)] * 3)
    said = await refusal(entry.SERVICE, "BatchCreateEntry", pb.BatchCreateEntryRequest(entries=[asked]))
    assert f"entry create -parentID {NODE} -data FILE" in said


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        (admin.ChangeAuthorityKeyRequest(kind="jwt", step="taint"), "localauthority jwt taint"),
        (admin.ChangeAuthorityKeyRequest(kind="wit; rm", step="`"), "localauthority x509 show"),
    ],
)
async def test_the_command_for_a_key(request_, said):
    """A step of a key names the server's step, and nothing of what was not understood."""
    assert f"spire-server {said}`" in await refusal(status.SERVICE, "ChangeAuthorityKey", request_)


async def test_single_svids_are_revoked_here():
    """One SVID is put on this agent's deny list; all of an entry is the server's."""
    done = []
    revoke = restricted(services(done), lambda: NODE)[status.SERVICE]["RevokeSvids"].handler
    assert "done" == await revoke(CALL, admin.RevokeSvidsRequest(svid_id="ab"))
    assert 1 == len(done)
    with pytest.raises(HeldByServer, match="spire-server entry delete"):
        await revoke(CALL, admin.RevokeSvidsRequest(entry_id="ab"))
