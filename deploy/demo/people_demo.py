"""Two users of a real Keycloak have an agent refund their orders, until one of them logs out: `make demo-people`.

Fetches Keycloak through Maven if it is not there, starts it with the realm of docs/people.md, logs alice and bob in by
its form, and prints a line for each step with what was measured. Ends with `demo: ok`, or with the step that failed.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from demo import HERE, PATIENCE_SECONDS, SOJOURN, TRUST, Failed, Process, main
from keycloak_demo import KeycloakDemo, waiting
from keycloak_realm import Realm
from keycloak_server import Keycloak

ROOT = HERE.parents[1]
EXAMPLES = ROOT / "docs" / "examples" / "people"
# Somebody at a browser, who fills the login form in.
BROWSER = f"{sys.executable} {ROOT / 'tests' / 'harness' / 'loginbrowser.py'} %s"
AGENT = "/agent/refund"
REALM, CLIENT = "shop", "shop-app"
ORDERS = {"alice": "1001", "bob": "2002"}
LISTEN = """
[listen]
people = "127.0.0.1:0"                    # where Keycloak says who has logged out
people_certificate = "{certificate}"
people_key = "{key}"
"""


class PeopleDemo(KeycloakDemo):
    """The agent, Keycloak, the shop, a browser, an agent program for each person, and the steps."""

    roles = HERE / "people_roles.py"

    def run(self) -> None:
        home = self.fetched()
        (self.folder / "keycloak").mkdir()
        certificate, key = self.certificate()  # the agent's, where Keycloak says who has logged out
        keycloak = self.keycloak = Keycloak(home, self.folder / "keycloak", trusted=certificate)
        started = time.monotonic()
        keycloak.start()
        self._starting = True
        realm = Realm(keycloak.base, REALM, keycloak.admin_password)
        shop = self.shop_url()
        agent = self.ready(self.copied(realm.issuer, shop, certificate, key))
        heard = self.ready_line.partition(", PEOPLE ")[2].split(",")[0].strip()
        with waiting("Keycloak starts"):
            self.told(keycloak.wait)
        self.step("Keycloak ready", f"{keycloak.base}, {time.monotonic() - started:.1f} s after its start")
        self.told(lambda: realm.bring_in(representation(f"https://{heard}/people/corp/logout")))
        self.step(
            "realm set up", f"{REALM}: alice and bob are customers; {CLIENT} is where they log in, and tells {heard}"
        )
        self.register(AGENT, "refund")
        self.serving()
        users = self.users()
        bob, alice = self.logged_in(realm, "bob"), self.logged_in(realm, "alice")
        his, hers = self.agent_for("bob", bob, users), self.agent_for("alice", alice, users)
        self.logged_out(realm, hers, alice)
        self.goes_on(his)
        self.pseudonym(realm.issuer, users["alice"], alice.read_text())
        agent.end()
        if agent.status != 0:
            raise Failed(f"the agent ended with status {agent.status}")
        self.step("agent stopped", "drained on SIGTERM, exit status 0")

    # --- the steps ---

    def shop_url(self) -> str:
        with socket.create_server(("127.0.0.1", 0)) as held:
            url = f"http://localhost:{held.getsockname()[1]}"
        self.environment["SHOP"] = url
        return url

    def copied(self, issuer: str, shop: str, certificate: Path, key: Path) -> Path:
        """The example's files, for this Keycloak and this port. Returns the agent's configuration."""
        folder = self.folder / "people"
        shutil.copytree(EXAMPLES, folder)
        for file in (folder / "agent.toml", *(folder / "types").iterdir()):
            text = file.read_text().replace("http://127.0.0.1:8080/realms/shop", issuer)
            file.write_text(text.replace("http://localhost:8096", shop))
        config = folder / "agent.toml"
        config.write_text(config.read_text() + LISTEN.format(certificate=certificate, key=key))
        return config

    def serving(self) -> None:
        self.register("/service/shop", "shop")  # so that its guard may ask which task types are in force
        command = [str(self.folder / "shop" / "bin" / "shop"), str(self.folder / "people" / "orders_service.py")]
        shop = Process(command, self.role_environment(), self.folder / "shop.log")
        self.processes.append(shop)
        port = int(self.environment["SHOP"].rpartition(":")[2])
        ends = time.monotonic() + PATIENCE_SECONDS
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            if shop.status is not None or time.monotonic() > ends:
                raise Failed(f"the shop does not serve; its log: {shop.tail()}")
            time.sleep(0.05)
        self.step("shop serves", "its guard wants a person, and compares the request's customer with them")

    def users(self) -> dict[str, str]:
        found = json.loads((EXAMPLES / "realm.json").read_text())["users"]
        return {each["username"]: each["id"] for each in found}

    def logged_in(self, realm: Realm, name: str) -> Path:
        """Log them in at the form, and see what the agent says of the ID token. Returns its file."""
        file = self.folder / f"{name}.jwt"
        login = [sys.executable, str(EXAMPLES / "login.py"), realm.issuer, CLIENT, str(file), "--login-hint", name]
        before = time.monotonic()
        environment = {**self.environment, "BROWSER": BROWSER}
        done = subprocess.run(login, env=environment, capture_output=True, text=True, check=False, timeout=60)
        if done.returncode:
            raise Failed(f"{name} could not log in: {done.stderr[-1000:]}")
        took = (time.monotonic() - before) * 1000
        found = self.command("person", "check", "corp", "--token-file", str(file), "--spiffe-id", f"{TRUST}{AGENT}")
        steps = len(found["steps"])
        self.step(f"{name} logged in", f"by the form ({took:.0f} ms); of the ID token {steps} checks are well")
        return file

    def agent_for(self, name: str, file: Path, users: dict[str, str]) -> Process:
        """The agent program for one of them: what it does, and what it does not get."""
        other = next(each for each in users if each != name)
        program = self.start("refund", str(file), ORDERS[name], ORDERS[other], users[other])
        begun = program.event("begun")
        if begun["person"] != f"corp|{users[name]}":
            raise Failed(f"the task is for {begun['person']}")
        self.step(f"task for {name}", f"{begun['task']}, for {begun['person']} ({begun['milliseconds']:.0f} ms)")
        claims = program.event("token")["claims"]
        if (claims["sub"], claims["act"]["sub"]) != (users[name], f"{TRUST}{AGENT}"):
            raise Failed(f"the token is not theirs: {claims}")
        shown = {key: claims[key] for key in ("sub", "sub_id", "act", "auth_time", "acr") if key in claims}
        self.step("its token says", json.dumps(shown))
        for event, what, expected in (
            ("person", f"as {other}: refused", 403),
            ("order", f"{other}'s order: refused", 403),
            ("refund", f"{name}'s refund", 200),
        ):
            self.answered(program.event(event), what, expected)
        return program

    def answered(self, answer: dict[str, Any], what: str, expected: int) -> None:
        if answer["status"] != expected:
            raise Failed(f"{what}: {answer['status']} {answer['answer']}")
        found = answer["answer"]
        told = (
            found.get("error_description")
            or f"{found.get('refunded')} cents, for {found.get('for')}, by {found.get('by')}"
        )
        self.step(what, f"{expected} {told} ({answer['milliseconds']:.0f} ms)")

    def logged_out(self, realm: Realm, program: Process, file: Path) -> None:
        """Alice logs out at Keycloak, which tells the agent, and her agent's next call is refused."""
        hint = urllib.parse.urlencode({"id_token_hint": file.read_text()})
        before = time.time()
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(
            f"{realm.issuer}/protocol/openid-connect/logout?{hint}", timeout=PATIENCE_SECONDS
        ) as answer:
            answer.read()
        over = program.event("over")
        if over["why"] != "session_ended":
            raise Failed(f"her task ended otherwise: {over['why']}")
        took = (over["at"] - before) * 1000
        self.step("alice logged out", f"the next call is refused: {over['why']}, {took:.0f} ms after she asked for it")

    def goes_on(self, program: Process) -> None:
        os.kill(program.pid, signal.SIGUSR1)
        over = program.event("over")
        if over["why"]:
            raise Failed(f"bob's task ended too: {over['why']}")
        self.step("bob's goes on", "his calls were answered all the while, until the program ended")

    def pseudonym(self, issuer: str, subject: str, token: str) -> None:
        done = subprocess.run(
            [*SOJOURN, "person", "pseudonym", issuer, subject],
            env=self.environment, capture_output=True, text=True, check=True,
        )  # fmt: skip
        name = done.stdout.strip()
        records = json.dumps(self.command("audit", "tail", "-n", "1000"))
        if name not in records or "alice" in records or token.rpartition(".")[2] in records:
            raise Failed("the audit does not have her pseudonym, or has more of her")
        self.step("audit says", f"{name} {records.count(name)} times, and neither her name nor her token")


def representation(logout_url: str) -> dict[str, Any]:
    """The example's realm, whose application has somewhere to tell who has logged out."""
    found: dict[str, Any] = json.loads((EXAMPLES / "realm.json").read_text())
    found["clients"][0]["attributes"]["backchannel.logout.url"] = logout_url
    return found


if __name__ == "__main__":
    sys.exit(main(PeopleDemo))
