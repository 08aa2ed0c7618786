"""single_request.py: content whose digest a token has is read in the way in which it was meant, or refused."""

import pytest
from sojourn.errors import InvalidInput
from sojourn.sdk.request.single_request import check_content

PARTS = b'--b1\r\nContent-Disposition: form-data; name="cents"\r\n\r\n2500\r\n--b1--\r\n'
FORM = "application/x-www-form-urlencoded"


def check(content, *types, **more):
    check_content([*(("Content-Type", each) for each in types), *more.items()], content)


class TestGood:
    @pytest.mark.parametrize(
        ("content", "types"),
        [
            (b"", ["multipart/form-data"]),
            (b'{"cents": 2500}', ["application/json"]),
            (b'{"cents": 2500}', ["application/json; charset=utf-8"]),
            (b'{"cents": 2500}', []),
            (b'{"cents": 2500}', ["text/plain"]),
            (b"cents=2500&note=a+b", [FORM]),
            (b"2500", [FORM]),
            (b"[a]=1&b[]=%7B%22x%22%3A1%7D&c=*-._~!$'(),;:@/?#", [FORM]),
            (b"[1]", [FORM]),
            (b"--b1--\r\n", ["multipart/form-data; boundary=b1"]),
            (b"--b1--", ["multipart/form-data; boundary=b1"]),
            (PARTS.replace(b"--b1\r\n", b"--b1 \t \r\n"), ["multipart/form-data; boundary=b1"]),
            (b"--b1-- \r\n", ["multipart/form-data; boundary=b1"]),
            (PARTS, ["multipart/form-data; boundary=b1"]),
            (PARTS, ['Multipart/Form-Data; charset=utf-8; Boundary="b1"']),
            (b"\x00\xff", ["application/octet-stream"]),
            (b"\x00\xff", []),
        ],
    )
    def test_it_says_itself_what_it_is(self, content, types):
        """What its type says and the content by itself says too is taken."""
        check(content, *types)


class TestBad:
    @pytest.mark.parametrize(
        "content",
        [
            b'{"a=1&cents=9900&b": 1}',
            b' ["&cents=9900"]',
            b'{"a": 1, "a": "&x=1"}',
            b'"a=1&cents=9900"',
            b"[ 1 ]",
            PARTS.replace(b"2500", b"&cents=9900&"),
            b"cents: 2500\nnote: '&cents=9900&'\n",
            b"<order note='&amp;cents=9900'/>",
            b"\x0a\x05&cents=9900&",
            b"caf\xc3\xa9=1",
            b"cents=2500\x7f",
        ],
    )
    @pytest.mark.parametrize("said", [FORM, "APPLICATION/X-WWW-Form-Urlencoded; charset=utf-8"])
    def test_other_content_as_a_form(self, content, said):
        """JSON, parts, XML, or whatever no form is made of, sent as a form, in which another reader finds other fields, is
        refused.
        """
        with pytest.raises(InvalidInput, match="sent as a form"):
            check(content, said)

    @pytest.mark.parametrize("byte", b'\x00\t\n\r "<>\\^`{|}\x7f\x80\xff')
    def test_bytes_of_no_form(self, byte):
        """A byte that is never left as it is when a form is made is refused in one."""
        with pytest.raises(InvalidInput, match="sent as a form"):
            check(b"a=1%sb=2" % bytes([byte]), FORM)

    @pytest.mark.parametrize(
        "said",
        [
            "multipart/form-data; boundary=b2",
            "multipart/form-data; boundary=b",
            "multipart/form-data; boundary=b1-",
            "multipart/form-data",
            "multipart/mixed; boundary=b1; boundary=b2",
            "multipart/form-data; boundary*=b1",
            "multipart/form-data; boundary=b1; boundary*=b2",
        ],
    )
    def test_parts_by_another_boundary(self, said):
        """Parts whose type names another boundary than that with which they begin, none or two, are refused."""
        with pytest.raises(InvalidInput, match="boundary"):
            check(PARTS, said)

    @pytest.mark.parametrize("boundary", ["b1 ", "b1 \t", " "])
    def test_spaces_are_no_boundary(self, boundary):
        """Spaces behind a boundary are not made a part of it by the type."""
        with pytest.raises(InvalidInput, match="boundary"):
            check(PARTS.replace(b"--b1\r\n", b"--b1 \t\r\n"), f'multipart/form-data; boundary="{boundary}"')

    @pytest.mark.parametrize(
        "content",
        [
            b"cents=1",
            b'{"a": 1}',
            b"x\r\n" + PARTS,
            b"\r\n" + PARTS,
            b"--b1",
            b"--b1 ",
            b"--b1\n" + PARTS,
            b"--b1-- x\r\n",
            b"--b1--\r\n" + PARTS,
            b"--b1 --\r\n",
            b"--b1-",
            b"--b1\r\r\n",
        ],
    )
    def test_other_content_as_parts(self, content):
        """What does not begin as parts is none."""
        with pytest.raises(InvalidInput, match="boundary"):
            check(content, "multipart/form-data; boundary=b1")

    def test_headers_by_which_it_is_another(self):
        """Two types, another charset, and an encoding that the digest knows nothing of are refused."""
        for types, more in (
            (["text/plain", "application/json"], {}),
            (["application/json; charset=utf-16"], {}),
            (["application/json"], {"content-encoding": "gzip"}),
        ):
            with pytest.raises(InvalidInput):
                check(b'{"a": 1}', *types, **more)
