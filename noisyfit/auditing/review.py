"""``noisyfit review``: the page of an audit, served on this machine, where people decide."""

from __future__ import annotations

import secrets
import socket
import webbrowser
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from noisyfit.auditing import decisions, page
from noisyfit.auditing.decisions import ACCEPT, KEEP, KNOWN, OTHER
from noisyfit.auditing.page import Card, Review, Summary
from noisyfit.benchmark.table import only_writer

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

HOST = "127.0.0.1"
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Refused(ValueError):
    """A request that is not as our page sends it."""


class Reviewing:
    """The page of an audit, and what is asked of it.

    Parameters
    ----------
    folder : path
        The folder of the audit.

    Raises
    ------
    ValueError, OSError
        If the folder holds no audit that can be shown.
    """

    def __init__(self, folder: Path) -> None:
        self.summary, self.cards = read_page(folder)
        self.file = folder / decisions.NAME
        decisions.open_log(self.file)

    def page(self) -> str:
        """Return the page with all that was decided, in this tab and in others."""
        standing = decisions.standing(decisions.read(self.file))
        return page.render(self.summary, self.cards, review=Review(standing))

    def decide(self, asked: Any) -> dict[str, str | None]:
        """Store a decision and return what then holds for the row.

        Parameters
        ----------
        asked : dict
            The number of the card, the decision and, for another class, its number.
        """
        match asked:
            case {"card": int(number), "decision": str(decision), "label": int() | None as label}:
                card = _item(self.cards, number, "card")
            case _:
                raise Refused("a card, a decision and a label were expected.")
        if decision not in KNOWN:
            raise Refused(f"a decision must be one of {', '.join(KNOWN)}.")
        decisions.append(self.file, card.id, decision, self._label(card, decision, label))
        standing = decisions.standing(decisions.read(self.file)).get(card.id)
        return {"decision": standing and standing.decision, "said": page.said(standing)}

    def _label(self, card: Card, decision: str, label: int | None) -> str:
        if decision == OTHER:
            return _item(self.summary.classes, label, "class")
        return {KEEP: card.given, ACCEPT: card.suggested}.get(decision, "")


def read_page(folder: Path) -> tuple[Summary, list[Card]]:
    """Return what the folder of an audit shows.

    Raises
    ------
    ValueError
        If it is not such a folder.
    """
    try:
        return page.from_json((folder / "page.json").read_text("utf-8", "replace"))
    except FileNotFoundError:
        raise ValueError(
            f"The folder must be one that noisyfit audit wrote. Got {folder}, which has no "
            "page.json. Name the folder after --out."
        ) from None


def application(folder: Path, token: str) -> Starlette:
    """Return the server's answers, to requests that know the token.

    Parameters
    ----------
    folder : path
        The folder of the audit.
    token : str
        First part of each address.
    """
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse
    from starlette.routing import Route

    reviewing = Reviewing(folder)

    def is_known(request: Request) -> bool:
        return secrets.compare_digest(request.path_params["token"].encode(), token.encode())

    async def show(request: Request) -> Response:
        if not is_known(request):
            return PlainTextResponse("This address is not valid (any more).", 404, HEADERS)
        return HTMLResponse(reviewing.page(), headers=HEADERS)

    async def decide(request: Request) -> Response:
        if not is_known(request):
            return PlainTextResponse("the server was started anew.", 404, HEADERS)
        if request.headers.get("origin") != f"http://{request.headers['host']}":
            return PlainTextResponse("the page has another origin.", 403, HEADERS)
        try:
            return JSONResponse(reviewing.decide(await request.json()), headers=HEADERS)
        except OSError as error:
            return PlainTextResponse(f"{error.strerror}.", 507, HEADERS)
        except ValueError as error:
            return PlainTextResponse(str(error), 400, HEADERS)

    return Starlette(
        routes=[
            Route("/{token}/", show),
            Route("/{token}/decisions", decide, methods=["POST"]),
        ],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"])],
    )


def serve(folder: Path, *, port: int, opens: bool, say: Callable[[str], None]) -> None:
    """Serve the page until interrupted.

    Parameters
    ----------
    folder : path
        The folder of the audit.
    port : int
        0 for any that is free.
    opens : bool
        Whether to open the page in a browser.
    say : callable
        Told the address.

    Raises
    ------
    ImportError
        If the extra ``review`` is not installed.
    ValueError, OSError
        If the folder holds no audit, another review of it is running, or the port is taken.
    """
    try:
        import starlette  # noqa: F401
        import uvicorn
    except ModuleNotFoundError as error:
        raise ImportError(
            f"noisyfit review needs {error.name}. Install it with: pip install 'noisyfit[review]'"
        ) from error
    read_page(folder)
    with only_writer(folder), _listening(port) as listener:
        token = secrets.token_urlsafe(16)
        server = uvicorn.Server(
            uvicorn.Config(
                application(folder, token),
                log_level="warning",
                lifespan="off",
                timeout_graceful_shutdown=1,
            )
        )
        address = f"http://{HOST}:{listener.getsockname()[1]}/{token}/"
        say(f"{address}\nDecisions go to {folder / decisions.NAME}. Ctrl+C ends the review.")
        if opens:
            webbrowser.open(address)
        server.run(sockets=[listener])


def _listening(port: int) -> socket.socket:
    try:
        return socket.create_server((HOST, port))
    except OSError as error:
        raise OSError(
            error.errno, f"--port must be one that is free. Got {port}: {error.strerror}"
        ) from error


def _item(items: Any, number: int | None, name: str) -> Any:
    if number is None or not 0 <= number < len(items):
        raise Refused(f"there is no {name} {number}.")
    return items[number]
