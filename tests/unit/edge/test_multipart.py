"""Bodies of forms: cut at their boundaries, and heads that are written plainly read as the email package reads them."""

import re

import pytest

from serving.edge import multipart
from serving.errors import Fault, Kind

HEADS = [
    b'\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\nContent-Type: image/png',
    b'\r\ncontent-disposition: form-data; name="image"; filename=""\r\ncontent-type: application/dicom',
    b'\r\nContent-Disposition: form-data; name="request"\r\nContent-Type: application/json',
    b'\r\nContent-Disposition: form-data; name="labels"',
    b'\r\nContent-Disposition:form-data;name="image";filename="Gr\xc3\xb6\xc3\x9fe; name=other.png"\r\nContent-Type:Image/PNG',
    b'\r\nContent-Type: image/png\r\nContent-Disposition: form-data; name="image"; filename="a"',
    b"\r\nContent-Disposition: form-data; name=image; filename=a.png",
    b'\r\nContent-Disposition: form-data; name="im\\"age"',
    b'\r\nContent-Disposition: form-data; name="image"; filename="a\\"b"\r\nContent-Type: image/png',
    b"\r\nContent-Disposition: form-data; name=\"image\"; filename*=utf-8''a%20b",
    b'\r\nContent-Disposition: form-data;\r\n name="image"\r\nContent-Type: text/plain; charset=utf-8',
    b'\r\nContent-Disposition: form-data; name="image"\r\nContent-Type: nonsense',
    b'\r\nContent-Disposition: form-data; name="image"\r\nContent-Transfer-Encoding: binary',
]
NOTHING = re.compile(b"(?!)")


@pytest.mark.parametrize("head", HEADS)
def test_a_plain_head_means_what_it_means_to_the_email_package(head, monkeypatch):
    found = multipart._head(head)
    monkeypatch.setattr(multipart, "_PLAIN_HEAD", NOTHING)
    assert found == multipart._head(head)


def test_the_first_five_heads_are_plain():
    assert [bool(multipart._PLAIN_HEAD.fullmatch(head)) for head in HEADS] == [True] * 5 + [False] * 8


@pytest.mark.parametrize(
    ("said", "mark"),
    [("; boundary=b", b"b"), (';boundary="a-b_1"', b"a-b_1"), ("; charset=x; boundary=b", b"b"), ('; boundary="a b"', b"a b"),
     ("; boundary=" + "x" * 70, b"x" * 70)],
)  # fmt: skip
def test_boundaries(said, mark):
    assert multipart.boundary("multipart/form-data" + said) == mark


@pytest.mark.parametrize("said", ["", "; boundary=", "; boundary=" + "x" * 71, "; boundary=\u00e4"])
def test_no_boundary(said):
    with pytest.raises(Fault) as raised:
        multipart.boundary("multipart/form-data" + said)
    assert (raised.value.kind, raised.value.param) == (Kind.MALFORMED, "content-type")


HEAD = b'\r\nContent-Disposition: form-data; name="%s"\r\n\r\n'


@pytest.mark.parametrize("preamble", [b"", b"told to nobody\r\n", b"\r\n"])
def test_the_parts_in_order_byte_for_byte(preamble):
    contents = [b"", b"x", b"\r\n", b"-b--b", b"\r\n--", b"\r\n\r\n", bytes(range(256)) * 9]
    body = preamble + b"".join(b"--b%s%s\r\n" % (HEAD % b"p%d" % n, data) for n, data in enumerate(contents)) + b"--b--\r\n"
    found = multipart.split(body, b"b")
    assert [(part.name, part.data) for part in found] == [(f"p{n}", data) for n, data in enumerate(contents)]


@pytest.mark.parametrize(
    ("body", "says"),
    [(b"", "cut off"), (b"--b", "cut off"), (b"x--b--", "cut off"), (b"--b" + HEAD % b"a" + b"x\r\n--b", "cut off"),
     (b"--b\r\nx\r\n--b--", "no headers"), (b"--b\r\n" + b"x" * 9000 + b"\r\n\r\n\r\n--b--", "no headers"),
     (b"--b\r\nA: b\r\n\r\nx\r\n--b--", "no name"), (b"--b--\r\n--b--", "no headers")],
)  # fmt: skip
def test_what_is_no_form_is_refused(body, says):
    with pytest.raises(Fault, match=says) as raised:
        multipart.split(body, b"b")
    assert raised.value.kind is Kind.MALFORMED


def test_as_many_parts_as_are_taken():
    def body(parts):
        return (b"--b" + HEAD % b"a" + b"x\r\n") * parts + b"--b--"

    assert len(multipart.split(body(3), b"b", 3)) == 3
    assert multipart.split(b"--b--", b"b") == []
    with pytest.raises(Fault, match="too many parts"):
        multipart.split(body(4), b"b", 3)
