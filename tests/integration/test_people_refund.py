"""Two users of a real Keycloak each have a refund made by the same agent program, and neither reaches the other's."""

import json
import subprocess
import sys
from collections.abc import Iterator
from subprocess import PIPE

import httpx
import pytest
import sojourn
from harness.keycloak import running_keycloak
from harness.loginform import read_claims
from harness.peoplekeycloak import LoggedIn, PeopleRealm
from harness.refundplace import DESK, ORDERS, REFUND, Shop, refund_place
from sojourn.errors import SojournError, TaskOver
from sojourn.errors.people import OtherPersonHere

# Somebody's agent that looks at an order, once for each line that it is told.
LOOKING = """
import sys, time, sojourn
url, spiffe_id, order = sys.argv[1:]
person = sojourn.PersonToken.id_token(sys.stdin.readline().strip())
params = {"order": order, "cents": 1}
with sojourn.task("refund-for", person=person, params=params, spiffe_id=spiffe_id) as task, task.client(url) as client:
    while True:
        try:
            answer = client.get(f"/customers/{task.person.subject}/orders/{order}")
            print(answer.status_code, flush=True)
        except sojourn.SojournError as error:
            while not task.reason:
                time.sleep(0.01)
            print(error.code, task.reason, flush=True)
        if not sys.stdin.readline():
            break
"""


class Looking:
    """A person's agent, in a process of its own. Use as a context manager."""

    def __init__(self, shop: Shop, who: LoggedIn) -> None:
        command = [sys.executable, "-c", LOOKING, shop.url, REFUND, ORDERS[who.name]]
        self._process = subprocess.Popen(command, env=shop.environment, stdin=PIPE, stdout=PIPE, text=True)
        self.first = self.told(who.id_token)

    def told(self, line: str) -> str:
        """What it says when it is told a line: the status, or why nothing was sent."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        return self._process.stdout.readline().strip()

    def __enter__(self) -> "Looking":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()


pytestmark = [pytest.mark.full, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    for library in ("fastapi", "uvicorn", "httpx"):
        pytest.importorskip(library)
    keycloak = running_keycloak()
    with keycloak.realm(token_seconds=300) as realm:
        people = PeopleRealm(realm)
        people.make()
        with refund_place(keycloak, people, tmp_path_factory.mktemp("shop")) as running:
            yield running


@pytest.fixture(scope="module")
def alice(shop: Shop) -> LoggedIn:
    return shop.people.login("alice")


@pytest.fixture(scope="module")
def bob(shop: Shop) -> LoggedIn:
    return shop.people.login("bob")


@pytest.fixture
def here(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> Shop:
    """The shop, whose agent this process finds by itself."""
    monkeypatch.setenv("SPIFFE_ENDPOINT_SOCKET", f"unix://{shop.agent.socket}")
    return shop


def wanted(shop: Shop, who: LoggedIn, order: str, spiffe_id: str = REFUND) -> sojourn.Task:
    person = sojourn.PersonToken.id_token(who.id_token)
    return sojourn.task("refund-for", person=person, params={"order": order, "cents": 2500}, spiffe_id=spiffe_id)


class TestEachTheirOwn:
    @pytest.mark.parametrize("name", ["alice", "bob"])
    def test_a_refund(self, shop: Shop, name: str) -> None:
        """The same program refunds the order of whoever's token it was given; the service sees whose it is, by which
        issuer, and who acts for them.
        """
        who = shop.people.login(name)
        done = shop.refund(who.id_token, ORDERS[name], "2500")
        assert 0 == done.returncode, done.stderr
        first, answer = done.stdout.splitlines()
        assert first.startswith(f"for corp|{who.subject} in tsk_")
        said = {"order": ORDERS[name], "refunded": 2500, "for": who.subject, "issuer": shop.people.realm.issuer}
        assert f"200 {said | {'by': REFUND}}" == answer

    def test_the_tokens(self, here: Shop, alice: LoggedIn, bob: LoggedIn) -> None:
        """Each token says whose it is and by which issuer, and that the workload acts; it has nothing of their session,
        and not their names.
        """
        for who in (alice, bob):
            with wanted(here, who, ORDERS[who.name]) as task:
                claims = read_claims(task.token(here.url, bound="agent").token)
            assert (who.subject, {"sub": REFUND}) == (claims["sub"], claims["act"])
            issuer = here.people.realm.issuer
            assert {"format": "iss_sub", "iss": issuer, "sub": who.subject} == claims["sub_id"]
            assert (who.claims["auth_time"], "silver") == (claims["auth_time"], claims["acr"])
            said = json.dumps(claims)
            assert not any(each in said for each in (who.session, who.name, "example.org/realms", "customers"))


class TestNobodyElses:
    def test_another_customer(self, shop: Shop, alice: LoggedIn, bob: LoggedIn) -> None:
        """Alice's agent that names bob as the customer is refused by the guard."""
        done = shop.refund(alice.id_token, ORDERS["bob"], "2500", bob.subject)
        assert (0, True) == (done.returncode, done.stdout.splitlines()[1].startswith("403 ")), done.stdout + done.stderr

    def test_the_code(self, here: Shop, alice: LoggedIn, bob: LoggedIn) -> None:
        """What the guard answers is `wrong_person`; an order that the task is not for is out of its scope."""
        with wanted(here, alice, ORDERS["alice"]) as task, task.client(here.url) as client:
            for customer, order, code in (
                (bob.subject, ORDERS["alice"], "wrong_person"),
                (alice.subject, ORDERS["bob"], "insufficient_scope"),
            ):
                answer = client.post(f"/customers/{customer}/orders/{order}/refunds", json={"cents": 2500})
                assert (403, code) == (answer.status_code, answer.json()["error"]), answer.text

    def test_another_order(self, shop: Shop, alice: LoggedIn) -> None:
        """Alice's task for bob's order, in her own name, finds no such order: whose it is the shop itself knows."""
        done = shop.refund(alice.id_token, ORDERS["bob"], "2500")
        assert "404 no such order" == done.stdout.splitlines()[1], done.stdout + done.stderr

    def test_in_one_process(self, here: Shop, alice: LoggedIn, bob: LoggedIn) -> None:
        """A process that acts for alice begins nothing for bob, and alice's task is not renewed by his token."""
        his = wanted(here, bob, ORDERS["bob"])
        with wanted(here, alice, ORDERS["alice"]) as task:
            with pytest.raises(OtherPersonHere), his:
                pass
            with pytest.raises(SojournError) as refused:
                task.renew_person(sojourn.PersonToken.id_token(bob.id_token))
            assert "other_person" == refused.value.code
            assert alice.subject == task.person.subject

    def test_another_application(self, here: Shop, alice: LoggedIn) -> None:
        """The back end of another application gets nothing with the token that alice gave to this one."""
        with pytest.raises(SojournError) as refused, wanted(here, alice, ORDERS["alice"], DESK):
            pass
        assert "wrong_presenter" == refused.value.remote_code

    @pytest.mark.parametrize("kind", ["access_token", "refresh_token"])
    def test_another_kind(self, shop: Shop, alice: LoggedIn, kind: str) -> None:
        """Another token of the same login is no ID token, whatever the program says it is."""
        done = shop.refund(getattr(alice, kind), ORDERS["alice"], "2500")
        assert 1 == done.returncode
        assert done.stderr.startswith(("refused: wrong_kind", "refused: bad_algorithm", "refused: invalid_token"))

    def test_nobodys(self, here: Shop) -> None:
        """Without a token no such task is begun: the type needs a person."""
        asked = sojourn.task("refund-for", params={"order": "1001", "cents": 1}, spiffe_id=REFUND)
        with pytest.raises(SojournError) as refused, asked:
            pass
        assert "person_required" == refused.value.remote_code

    def test_a_token_that_was_taken(self, here: Shop, alice: LoggedIn) -> None:
        """A token of alice's task is of no use without the key that the agent has: it cannot be carried off."""
        with wanted(here, alice, ORDERS["alice"]) as task:
            text = task.token(here.url, bound="agent").token
            url = f"{here.url}/customers/{alice.subject}/orders/{ORDERS['alice']}/refunds"
            answer = httpx.post(url, json={"cents": 2500}, headers={"authorization": f"Bearer {text}"}, timeout=30)
        assert 401 == answer.status_code


class TestLogout:
    def test_she_logs_out(self, here: Shop) -> None:
        """Alice logs out at Keycloak: her agent's task is over, and its next call is not made. Bob's goes on.
        No task begins again with the token of before; with that of a new login one does.
        """
        alice, bob = (here.people.login(name) for name in ORDERS)
        with Looking(here, alice) as hers, Looking(here, bob) as his:
            assert ["200", "200"] == [hers.first, his.first]
            here.people.logout(alice)
            assert f"{TaskOver.code} session_ended" == hers.told("look")
            assert "200" == his.told("look")
        with pytest.raises(SojournError) as refused, wanted(here, alice, ORDERS["alice"]):
            pass
        assert "session_ended" == refused.value.remote_code
        with wanted(here, here.people.login("alice"), ORDERS["alice"]) as task:
            assert alice.subject == task.person.subject
