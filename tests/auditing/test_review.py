"""The review answers its own page only, and stores a decision before it says so."""

import re
import socket
from pathlib import Path
from typing import Any

import pytest

from noisyfit import NoisyFitWarning
from noisyfit.auditing import decisions
from noisyfit.auditing.review import serve
from noisyfit.benchmark.table import only_writer
from tests.auditing.folders import write_audit
from tests.helpers import full_disk

pytest.importorskip("starlette", reason="needs noisyfit[review]")
testclient = pytest.importorskip("starlette.testclient", reason="needs httpx2")

from noisyfit.auditing.review import application  # noqa: E402

HERE = "http://127.0.0.1:8000"


@pytest.fixture
def audit(tmp_path: Path) -> Path:
    data = tmp_path / "pets.csv"
    data.write_text("kind\ncat\ndog\ncow\n")
    rows = [
        ("r0", "cat", "dog", "change"),
        ("r 1", "dog", "cat", "change"),
        ("r2", "cow", "cow", ""),
    ]
    return write_audit(tmp_path / "audit", data, rows)


@pytest.fixture
def client(audit: Path) -> Any:
    return testclient.TestClient(application(audit, "secret"), base_url=HERE)


def post(client: Any, card: Any = 0, decision: Any = "keep", label: Any = None, **sent: Any) -> Any:
    sent = {"headers": {"Origin": HERE}, "address": "/secret/decisions"} | sent
    asked = {"card": card, "decision": decision, "label": label}
    return client.post(sent["address"], json=asked, headers=sent["headers"])


def stored(audit: Path) -> list[tuple[str, str, str]]:
    return [one[1:] for one in decisions.read(audit / decisions.NAME)]


def test_decide__each_kind__is_stored_with_the_label_it_gives(client: Any, audit: Path) -> None:
    said = [post(client, 0, "keep"), post(client, 0, "accept"), post(client, 1, "other", 1)]
    said += [post(client, 0, "undo"), post(client, 0, "skip"), post(client, 1, "undo")]
    assert [answer.json() for answer in said] == [
        {"decision": "keep", "said": "Stays cat"},
        {"decision": "accept", "said": "Becomes dog"},
        {"decision": "other", "said": "Becomes cow"},
        {"decision": "keep", "said": "Stays cat"},
        {"decision": "skip", "said": "Skipped"},
        {"decision": None, "said": ""},
    ]
    assert stored(audit) == [
        ("r0", "keep", "cat"),
        ("r0", "accept", "dog"),
        ("r 1", "other", "cow"),
        ("r0", "undo", ""),
        ("r0", "skip", ""),
        ("r 1", "undo", ""),
    ]


def test_page__after_decisions__shows_them(client: Any) -> None:
    post(client, 1, "accept")
    page = client.get("/secret/").text
    assert page.count("Becomes cat") == 1
    assert 'data-row="r 1" data-decision="accept"' in page


def test_two_servers_one_after_the_other__go_on(audit: Path) -> None:
    for card in 0, 1:
        post(testclient.TestClient(application(audit, "secret"), base_url=HERE), card, "keep")
    assert [row for row, *_ in stored(audit)] == ["r0", "r 1"]


@pytest.mark.parametrize(
    "asked",
    [
        (2, "keep", None),
        (-1, "keep", None),
        ("0", "keep", None),
        (0, "kep", None),
        (0, "other", None),
        (0, "other", 3),
        (0, "other", "dog"),
        (None, "keep", None),
    ],
)
def test_decide__what_the_page_never_sends__is_refused(
    client: Any, audit: Path, asked: tuple[Any, Any, Any]
) -> None:
    assert post(client, *asked).status_code == 400
    assert stored(audit) == []


def test_decide__no_json__is_refused(client: Any) -> None:
    sent = {"content": b"{", "headers": {"Origin": HERE}}
    assert client.post("/secret/decisions", **sent).status_code == 400


@pytest.mark.parametrize(
    "sent, status",
    [
        ({"address": "/wrong/decisions"}, 404),
        ({"headers": {}}, 403),
        ({"headers": {"Origin": "http://evil.example"}}, 403),
        ({"headers": {"Origin": "null"}}, 403),
        ({"headers": {"Origin": "http://127.0.0.1:9"}}, 403),
        ({"headers": {"Origin": "http://evil.example", "Host": "evil.example"}}, 400),
    ],
)
def test_decide__from_elsewhere__is_refused(
    client: Any, audit: Path, sent: dict[str, Any], status: int
) -> None:
    assert post(client, **sent).status_code == status
    assert stored(audit) == []


@pytest.mark.parametrize("address", ["/", "/wrong/", "/secre/", "/secret/../", "/report.html"])
def test_page__without_the_token__is_not_shown(client: Any, address: str) -> None:
    assert client.get(address).status_code == 404


def test_page__for_another_host__is_not_shown(client: Any) -> None:
    assert client.get("/secret/", headers={"Host": "evil.example:8000"}).status_code == 400


def test_page__is_neither_stored_nor_framed(client: Any) -> None:
    headers = client.get("/secret/").headers
    assert headers["cache-control"] == "no-store"
    assert "frame-ancestors 'none'" in headers["content-security-policy"]


def test_decide__on_a_full_disk__says_so_and_stores_nothing(client: Any, audit: Path) -> None:
    before = (audit / decisions.NAME).read_bytes()
    with full_disk(len(before) + 5):
        answer = post(client)
    assert answer.status_code == 507
    assert (audit / decisions.NAME).read_bytes() == before


def test_start__after_a_crash__sets_the_torn_line_aside(audit: Path) -> None:
    decisions.open_log(audit / decisions.NAME)
    decisions.append(audit / decisions.NAME, "r0", "keep", "cat")
    with open(audit / decisions.NAME, "a") as file:
        file.write("2026-01-01T00:00:00,r 1,acc")
    with pytest.warns(NoisyFitWarning, match="must be whole"):
        application(audit, "secret")
    assert stored(audit) == [("r0", "keep", "cat")]


def refused(folder: Path, match: str, port: int = 0) -> None:
    with pytest.raises((ValueError, OSError), match=match):
        serve(folder, port=port, opens=False, say=print)


def test_serve__no_audit__is_refused(tmp_path: Path) -> None:
    refused(tmp_path, re.escape(f"Got {tmp_path}, which has no page.json"))


def test_serve__second_review__is_refused(audit: Path) -> None:
    with only_writer(audit):
        refused(audit, "One run at a time")


def test_serve__port_that_is_taken__is_refused(audit: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        refused(audit, "--port must be one that is free", other.getsockname()[1])
