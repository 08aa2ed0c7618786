"""A workload process for tests: becomes a user, does as it is told on standard input, answers on standard output.

Usage: caller.py SOCKET [UID [GROUP…]]. Each line in is JSON {"do": NAME, …}; each line out is JSON. Commands:
x509, jwt, watch (one line for each update), validate, begin (RunTask: held), begin_process, begin_many, token,
token_many, proof, task_token,
attach, publish, publish_many, post, complete, wait, approvals, decide, delegate, accept (RunTask: held), accept_process,
allocate, exit. Of a task that waits for approval `begin` and `begin_process` say so (pending).
"""

import asyncio
import concurrent.futures.thread  # noqa: F401  # before the user changes: it may not be able to read it then
import json
import os
import sys
from urllib.parse import urlencode

from sojourn._pb.sojourn.v1 import approvals_pb2 as pb
from sojourn.errors import SojournError
from sojourn.sdk.client.client import Client
from sojourn.tasktoken.grants import Grant


def say(**value):
    print(json.dumps(value), flush=True)


async def main(socket, uid, groups):
    if uid is not None:
        os.setgroups(groups)
        os.setgid(uid)
        os.setuid(uid)
    say(event="up", pid=os.getpid(), uid=os.getuid())
    loop = asyncio.get_running_loop()
    held = []
    async with Client(socket) as client:
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            asked = json.loads(line)
            doing = asked.pop("do")
            try:
                await do(client, doing, asked, held)
            except SojournError as error:
                say(
                    event="error", kind=type(error).__name__, code=error.remote_code or error.code, message=error.public
                )
            if doing == "exit":
                os._exit(asked.get("status", 0))


async def do(client, doing, asked, held):
    match doing:
        case "x509":
            context = await client.fetch_x509_svids()
            say(
                event="x509",
                svids=[{"spiffe_id": str(s.spiffe_id), "serial": s.serial, "hint": s.hint} for s in context.svids],
            )
        case "jwt":
            svid = await client.fetch_jwt_svid(asked["audience"], asked.get("spiffe_id"))
            say(event="jwt", spiffe_id=str(svid.spiffe_id), token=svid.token)
        case "watch":
            held.append(asyncio.ensure_future(watch(client)))
        case "validate":
            verdict = await client.validate_token(asked["token"], asked["audience"], asked.get("action", ""))
            say(event="validated", valid=verdict.valid, code=verdict.code, reason=verdict.reason)
        case "begin":
            context = client.task(
                asked["type"],
                session=asked.get("session", False),
                params=asked.get("params"),
                grants=grants(asked),
                max_seconds=asked.get("max_seconds", 0),
                approve_wait=asked.get("approve_wait"),
                on_pending=pending,
            )
            task = await context.__aenter__()
            held.append((context, task))
            held.append(asyncio.ensure_future(ended(task)))
            say(event="task", id=task.id, state=task.state)
        case "delegate":
            made = await client.delegate_task(asked["task"], asked["to"], grants(asked), asked.get("max_seconds", 0))
            say(event="ticket", ticket=made.ticket, expires_at=made.expires_at.timestamp())
        case "accept":
            context = client.accept_delegation(asked["ticket"])
            task = await context.__aenter__()
            held.append((context, task))
            held.append(asyncio.ensure_future(ended(task)))
            say(event="task", id=task.id, state=task.state, parent=task.status.parent_id)
        case "accept_process":
            task = await client.begin_delegated(asked["ticket"])
            held.append(task)
            say(event="task", id=task.id, state=task.state, parent=task.status.parent_id)
        case "begin_process":
            task = await client.begin_task(
                asked["type"],
                holder_pid=asked.get("holder_pid", 0),
                grants=grants(asked),
                params=asked.get("params"),
                approve_wait=asked.get("approve_wait"),
                on_pending=pending,
            )
            held.append(task)
            say(event="task", id=task.id, state=task.state)
        case "begin_many":  # as many as are asked for, 50 at once, none of which is held
            begun, codes = 0, set()
            for start in range(0, asked["count"], 50):
                numbers = range(start, min(start + 50, asked["count"]))
                beginning = (client.begin_task(asked["type"], params=asked["params"]) for _ in numbers)
                done = await asyncio.gather(*beginning, return_exceptions=True)
                refused = [each.remote_code for each in done if isinstance(each, SojournError)]
                begun, codes = begun + len(done) - len(refused), codes | set(refused)
            say(event="begun_many", begun=begun, codes=sorted(codes))
        case "token_many":
            for start in range(0, asked["count"], 50):
                asking = (client.get_token(asked["task"]) for _ in range(start, start + 50))
                await asyncio.gather(*asking)
            say(event="tokens")
        case "token":
            options = {name: asked[name] for name in ("bound", "params_digest") if name in asked}
            token = await client.get_token(
                asked["task"], asked.get("resource", ""), asked.get("actions", ()), **options
            )
            say(event="token", token=token.token, resource=token.resource, actions=list(token.actions))
        case "proof":
            proof = await client.create_proof(asked["task"], asked["method"], asked["url"], asked["token"])
            say(event="proof", proof=proof)
        case "task_token":  # through the task that `begin` holds, which gets over a restart of the agent
            (task,) = (each[1] for each in held if isinstance(each, tuple) and each[1].id == asked["task"])
            token = await task.token(asked.get("resource", ""), asked.get("actions", ()))
            say(event="token", token=token.token, state=task.state)
        case "allocate":  # until the kernel has no more for it
            held.append(bytearray(os.urandom(asked["bytes"])))
            say(event="allocated")
        case "attach":
            status = await client.attach_task(asked["task"])
            say(event="task", id=status.id, state=status.state, reason=status.reason)
        case "publish":
            await client.publish_fact(asked["name"], asked["value"], subject=asked.get("subject", ""))
            say(event="said")
        case "publish_many":  # of as many subjects
            said, codes = 0, set()
            for start in range(0, asked["count"], 50):
                subjects = [f"spiffe://example.org/subject/{number}" for number in range(start, start + 50)]
                saying = (client.publish_fact(asked["name"], asked["value"], subject=each) for each in subjects)
                done = await asyncio.gather(*saying, return_exceptions=True)
                said += done.count(None)
                codes |= {each.remote_code for each in done if each is not None}
            say(event="said_many", said=said, codes=sorted(codes))
        case "post":  # a form to the HTTP side
            status, body = await post(str(client.socket), asked["path"], asked["fields"], asked.get("headers", {}))
            say(event="answered", status=status, body=body)
        case "complete":
            status = await client.complete_task(asked["task"], failed=asked.get("failed", False))
            say(event="task", id=status.id, state=status.state, reason=status.reason)
        case "wait":
            status = await client.wait_task(asked["task"])
            say(event="task", id=status.id, state=status.state, reason=status.reason)
        case "approvals":
            path = "/sojourn.v1.Approvals/ListApprovals"
            answer = await client.connection.unary(path, pb.ListApprovalsRequest(), pb.ListApprovalsResponse)
            say(event="approvals", found=[{"id": each.id, "digest": each.digest} for each in answer.approvals])
        case "decide":
            request = pb.DecideApprovalRequest(
                approval_id=asked["approval"],
                digest=asked["digest"],
                verdict=pb.DecideApprovalRequest.Verdict.Value(f"VERDICT_{asked['verdict'].upper()}"),
                reason=asked.get("reason", ""),
            )
            path = "/sojourn.v1.Approvals/DecideApproval"
            answer = await client.connection.unary(path, request, pb.DecideApprovalResponse)
            say(event="decided", state=answer.task.state)


async def post(socket, path, fields, headers):
    content = urlencode(fields)
    head = {"Host": "localhost", "Content-Type": "application/x-www-form-urlencoded", "Connection": "close"}
    lines = [f"POST {path} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in {**head, "Content-Length": len(content), **headers}.items()]
    reader, writer = await asyncio.open_unix_connection(socket)
    writer.write("\r\n".join([*lines, "", content]).encode())
    answer = await reader.read()
    writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)


def pending(status):
    say(event="pending", id=status.id, approval=status.approval.id, digest=status.approval.digest)


def grants(asked):
    return [Grant.parse(resource, actions) for resource, actions in asked["grants"]] if "grants" in asked else None


async def watch(client):
    def failed(error):
        say(event="watch_error", code=error.remote_code or error.code, message=error.public)

    async for context in client.watch_x509_contexts(failed):
        say(event="update", svids=[{"spiffe_id": str(s.spiffe_id), "serial": s.serial} for s in context.svids])


async def ended(task):
    await task.wait_ended()
    say(event="ended", id=task.id, state=task.state, reason=task.reason)


if __name__ == "__main__":
    numbers = [int(text) for text in sys.argv[2:]]
    asyncio.run(main(sys.argv[1], numbers[0] if numbers else None, numbers[1:]))
