"""A list is all of its elements: each is compared, and a batch of three is three uses."""

import json
from collections.abc import Mapping
from typing import Any

import httpx
import pytest
from fakes.keyverifier import KeyVerifier, verified
from fakes.task_feed import signing_key, token
from google.protobuf.struct_pb2 import Struct
from sojourn._pb.sojourn.v1 import validation_pb2 as pb
from sojourn.errors import InvalidInput
from sojourn.errors.oauth import ParamNotBound, WrongParams
from sojourn.limits import GUARDED_MEMBERS_MAX, GUARDED_NAME_MAX
from sojourn.sdk.guard.http_params import HttpStated
from sojourn.sdk.guard.param_check import Arguments, Source, compare, in_python, times_of
from sojourn.sdk.guard.param_places import argument, body, field, form, header, query
from sojourn.sdk.guard.routes import Action
from sojourn.sdk.integrations.asgi import TaskTokenMiddleware
from sojourn.sdk.integrations.grpc_calls import MessageFields
from sojourn.tasktoken.tokens import TaskToken

KEY = signing_key()
REFUND, OTHER = "refund:create", "order:read"
PARAMS: dict[str, str | int | bool] = {"order": "O-1", "cents": 2500}
EACH = {"order": body("/items/*/order"), "cents": body("/items/*/cents")}
ONE = {"order": body("/items/0/order"), "cents": body("/items/0/cents")}
GOOD = {"order": "O-1", "cents": 2500}
JSON, FORM = "application/json", "application/x-www-form-urlencoded"


def refunding(params: Mapping[str, str | int | bool]) -> TaskToken:
    """The token of a task that has these parameters, and whose refunds are counted."""
    return verified(KEY, token(KEY, actions=(REFUND, OTHER), params=dict(params), asks=(REFUND,)))


def verdict(source: Source, params: Mapping[str, Any], task: Mapping[str, str | int | bool] = PARAMS) -> int | str:
    """How often a request of this source does the refund of a task, or the code of what is raised."""
    action = Action(REFUND, params={name: place.of(name) for name, place in params.items()})
    made = refunding(task)
    try:
        compare(made, action, source, in_python)
    except (WrongParams, ParamNotBound) as error:
        return error.code
    return times_of(made, action, source)


class TestJson:
    @pytest.mark.parametrize(
        ("items", "expected"),
        [
            ([GOOD], 1),
            ([GOOD, GOOD], 2),
            ([GOOD] * 30, 30),
            ([GOOD, {**GOOD, "cents": 9900}], "wrong_params"),
            ([{**GOOD, "order": "O-2"}, GOOD], "wrong_params"),
            ([GOOD, {**GOOD, "cents": "2500"}], "wrong_params"),
            ([GOOD, {**GOOD, "Cents": 9900}], "wrong_params"),
            ([GOOD, {"order": "O-1"}], "unbound_parameter"),
            ([GOOD, "O-1"], "unbound_parameter"),
            ([GOOD, [GOOD]], "unbound_parameter"),
            ([GOOD, {**GOOD, "cents": [2500, 9900]}], "wrong_params"),
            ([], "unbound_parameter"),
            ({"*": GOOD}, "unbound_parameter"),
            ({"0": GOOD}, "unbound_parameter"),
            (GOOD, "unbound_parameter"),
            (None, "unbound_parameter"),
        ],
    )
    def test_each(self, items: object, expected: int | str) -> None:
        """Each element of a list has the task's values, and so many times the action is done; a list of none is refused."""
        assert expected == verdict(HttpStated("", [], {}, document={"items": items}), EACH)
        places = {name: argument(place.name) for name, place in EACH.items()}
        assert expected == verdict(Arguments({"items": items}), places)

    @pytest.mark.parametrize(
        ("items", "expected"),
        [
            ([GOOD], 1),
            ([GOOD, GOOD], "unbound_parameter"),
            ([], "unbound_parameter"),
            ({"0": GOOD, "n": 1}, 1),
            ({"0": GOOD, "1": {**GOOD, "cents": 9900}}, "unbound_parameter"),
        ],
    )
    def test_one(self, items: object, expected: int | str) -> None:
        """A place that is one element of a list is good for a list of one, and for what some readers take for such a
        list: the service may take the others as well.
        """
        assert expected == verdict(HttpStated("", [], {}, document={"items": items}), ONE)
        places = {name: argument(place.name) for name, place in ONE.items()}
        assert expected == verdict(Arguments({"items": items}), places)

    def test_a_list_alike(self) -> None:
        """A list of a name that another reader takes for the same is compared too, and counts as well: some put them together."""
        for twin, expected in (([GOOD] * 3, 4), ([{**GOOD, "cents": 9900}], "wrong_params"), ([], "unbound_parameter")):
            assert expected == verdict(HttpStated("", [], {}, document={"items": [GOOD], "Items": twin}), EACH)

    def test_in_lists(self) -> None:
        """Lists within lists are all of theirs, and the content may be a list itself."""
        lines = {"order": body("/*/order"), "cents": body("/*/lines/*/cents")}
        document = [{"order": "O-1", "lines": [{"cents": 2500}] * 2}, {"order": "O-1", "lines": [{"cents": 2500}]}]
        assert 3 == verdict(HttpStated("", [], {}, document=document), lines)
        document[1]["lines"] = []
        assert "unbound_parameter" == verdict(HttpStated("", [], {}, document=document), lines)

    @pytest.mark.parametrize(
        ("document", "pointer", "expected"),
        [
            ({"items": [GOOD] * 3}, "/items/0/order", 3),
            ({"items": {"0": GOOD, "1": GOOD, "2": GOOD}}, "/items/*/order", 3),
            ({"items": {"0": GOOD, "1": GOOD, "2": GOOD}}, "/items/0/order", 3),
            ({"items": [{"cents": [1, 2, 3]}, {"cents": [4]}]}, "/items/cents", 4),
            ([{"cents": [1, 2, 3]}], "/cents", 3),
            ({"items": [{}, {}]}, "/items/*/order", 2),
            ({"items": []}, "/items/*/order", 1),
            ({"items": 5}, "/items/*/order", 1),
            ({"items": GOOD}, "/items/0/order", 1),
            ("O-1", "/order", 1),
        ],
    )
    def test_how_many(self, document: object, pointer: str, expected: int) -> None:
        """What is not compared is counted: whatever stands in lists on the way, and in what some take for lists."""
        free = Action(REFUND, params={"order": body(pointer)})
        assert expected == times_of(refunding({}), free, HttpStated("", [], {}, document=document))

    def test_what_is_too_much(self) -> None:
        """Lists and objects with more members than are looked through are refused, and so are long names."""
        for items in ([GOOD] * (GUARDED_MEMBERS_MAX + 1), [{"\u0315\u0300" * GUARDED_NAME_MAX: 1, **GOOD}]):
            for look in (
                verdict,
                lambda source, params: times_of(refunding({}), Action(REFUND, params=params), source),
            ):
                with pytest.raises(InvalidInput, match="at most"):
                    look(HttpStated("", [], {}, document={"items": items}), EACH)

    @pytest.mark.parametrize(
        ("said", "expected"),
        [
            ('["O-1", "O-2"]', 2),
            (' ["O-1"]', 1),
            ("[O-1", 1),
            ("O-1", 1),
            ('{"0": "O-1", "1": "O-2"}', 2),
            ("[" * 5000, 1),
        ],
    )
    def test_a_text_that_is_a_list(self, said: str, expected: int) -> None:
        """An argument that is the JSON of a list is counted as that list: libraries of MCP read it so."""
        free = Action(REFUND, params={"order": argument("/orders/*")})
        assert expected == times_of(refunding({}), free, Arguments({"orders": said}))

    def test_what_names_the_segment(self) -> None:
        """An element of a list of content that has the name of the route's segment must agree with that."""
        for other, expected in (("O-1", 1), ("O-2", "wrong_params")):
            source = HttpStated("", [], {"order": "O-1"}, document=[GOOD, {"order": other}])
            assert expected == verdict(source, {}, {"order": "O-1"})


class TestNames:
    @pytest.mark.parametrize(
        ("said", "expected"),
        [
            ("order=O-1", 1),
            ("order=O-1&order=O-1", 2),
            ("order[]=O-1&order[]=O-1&order=O-1", 3),
            ("order=O-1&Order=O-1", 2),
            ("order=O-1&order[0]=O-1&order[1]=O-1", 3),
            ("order=O-1&order[0]=O-1&order[0]=O-1", 3),
            ("order=O-1&note=a;b", 1),
            ("order=O-1&x=1;y=2", 1),
            ("x=1;order=O-1&order=O-1", 2),
            ("order=O-1&order=O-2", "wrong_params"),
        ],
    )
    def test_that_are_repeated(self, said: str, expected: int | str) -> None:
        """A name that is repeated in a query or a form is a list: each value is compared, and each is a use."""
        assert expected == verdict(HttpStated(said, [], {}), {"order": query()}, {"order": "O-1"})
        source = HttpStated("", [("content-type", FORM)], {}, form=said.encode())
        assert expected == verdict(source, {"order": form()}, {"order": "O-1"})

    def test_lines(self) -> None:
        """Lines of one header are a list."""
        assert 2 == verdict(
            HttpStated("", [("x-order", "O-1")] * 2, {}), {"order": header("x-order")}, {"order": "O-1"}
        )


class TestGrpc:
    @pytest.mark.parametrize(
        ("tokens", "expected"),
        [(["O-1"], 1), (["O-1"] * 3, 3), (["O-1", "O-2"], "wrong_params"), ([], "unbound_parameter")],
    )
    def test_repeated(self, tokens: list[str], expected: int | str) -> None:
        """A field that is repeated is all of its elements, by a message's path and by its own name."""
        messages = MessageFields(pb.ReportUseRequest(uses=[pb.TokenUse(token=each) for each in tokens]))
        assert expected == verdict(messages, {"order": field("uses.token")}, {"order": "O-1"})
        scalars = MessageFields(pb.Served(compared=tokens))
        assert expected == verdict(scalars, {"order": field("compared")}, {"order": "O-1"})
        assert expected == verdict(scalars, {}, {"compared": "O-1"})

    def test_maps_and_values(self) -> None:
        """A map, and a list within a Value, are all of theirs."""
        attributes = Struct()
        attributes.update({"a": "O-1", "b": "O-1"})
        assert 2 == verdict(MessageFields(attributes), {"order": field("fields.string_value")}, {"order": "O-1"})
        attributes.update({"b": "O-2"})
        places = {"order": field("fields.string_value")}
        assert "wrong_params" == verdict(MessageFields(attributes), places, {"order": "O-1"})
        attributes.update({"b": [1, [2, 3]]})
        assert 4 == times_of(
            refunding({}), Action(REFUND, params={"order": field("fields")}), MessageFields(attributes)
        )

    def test_what_is_too_much(self) -> None:
        """A message with more elements than are looked through is refused."""
        message = pb.ReportUseRequest(uses=[pb.TokenUse()] * (GUARDED_MEMBERS_MAX + 1))
        assert "unbound_parameter" == verdict(MessageFields(message), {"order": field("uses.token")}, {"order": ""})

    def test_an_element_without_the_field(self) -> None:
        """An element that has not set what is compared is refused."""
        refusals = [pb.TokenRefusal(request=pb.Served(action="O-1")), pb.TokenRefusal()]
        message = pb.ReportRefusalsRequest(refusals=refusals)
        assert "unbound_parameter" == verdict(
            MessageFields(message), {"order": field("refusals.request.action")}, {"order": "O-1"}
        )


class TestGuard:
    ROUTES: Mapping[str, Action] = {
        "POST /batch": Action(REFUND, params=EACH),
        "POST /one": Action(REFUND, params=ONE),
        "POST /plain": Action(REFUND, params={"order": body(), "cents": body()}),
        "POST /mixed": Action(REFUND, params={"order": body(), "note": form()}),
        "POST /unchecked": Action(REFUND, params=EACH, unchecked=("order", "cents")),
        "POST /look": Action(OTHER, params=EACH, unchecked=("order", "cents")),
    }

    async def ask(
        self, target: str, content: bytes, params: Mapping[str, Any], kind: str = JSON
    ) -> tuple[int, list[int]]:
        """The answer's status, and how many uses were told to the agent."""
        verifier = KeyVerifier(KEY)

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b""})

        guard = TaskTokenMiddleware(app, verifier=verifier, actions=self.ROUTES)  # type: ignore[arg-type]
        text = token(KEY, actions=(REFUND, OTHER), params=dict(params), asks=(REFUND,))
        headers = {"authorization": f"Bearer {text}", "content-type": kind}
        async with httpx.AsyncClient(transport=httpx.ASGITransport(guard), base_url="http://shop") as http:
            answer = await http.post(target, content=content, headers=headers)
        return answer.status_code, [served.times for served in verifier.used]

    @pytest.mark.parametrize("params", [PARAMS, {}], ids=["bound", "free"])
    async def test_a_batch(self, params: Mapping[str, Any]) -> None:
        """A batch is as many uses as it has elements, also for a task that is for all values, and none is one."""
        content = json.dumps({"items": [GOOD] * 3}).encode()
        assert (200, [3]) == await self.ask("/batch", content, params)

    async def test_what_is_not_compared_counts(self) -> None:
        """Elements that are not compared are uses all the same, and content that cannot be counted is refused."""
        content = json.dumps({"items": [GOOD, {"order": "O-9"}]}).encode()
        assert (200, [2]) == await self.ask("/unchecked", content, PARAMS)
        assert (200, [2]) == await self.ask("/one", content, {})
        assert (200, [3]) == await self.ask("/plain", b'{"order": "O-1", "cents": [1, 2, 3]}', {"order": "O-1"})
        assert (200, [1]) == await self.ask("/unchecked", b'{"items": []}', PARAMS)
        assert (403, []) == await self.ask("/unchecked", content, PARAMS, "text/plain")
        assert (400, []) == await self.ask("/unchecked", b"{", PARAMS)

    async def test_places_of_two_kinds(self) -> None:
        """Of a route whose places are in JSON and in a form, content of either kind is counted, and what it lacks is
        absent.
        """
        assert (200, [2]) == await self.ask("/mixed", b'{"order": ["O-1", "O-2"]}', {})
        assert (200, [2]) == await self.ask("/mixed", b"note=a&note=b", {}, FORM)
        assert (403, []) == await self.ask("/mixed", b"note=a&note=b", {"order": "O-1"}, FORM)
        assert (403, []) == await self.ask("/mixed", b"note=a&note=b", {}, "text/plain")

    async def test_an_action_that_is_not_counted(self) -> None:
        """Of an action that nobody counts the content is not read for that."""
        assert (200, [1]) == await self.ask("/look", b"{", PARAMS)
