"""`GET /`: a page for browsers that shows what the server does, and a greeting for all others.

The page is one document without any other request but those for `/activity`, for which it asks its
reader for the key. Its policy allows its own script and style alone, by their hashes, and no text
of a response to become HTML. It is served under a name of this machine only: where other machines
are let in, they see the greeting.
"""

from base64 import b64encode
from hashlib import sha256
from pathlib import Path

from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response

from pensieve.settings.resolve import is_loopback

_FOLDER = Path(__file__).parent
# Later ones use earlier ones.
SCRIPTS = ("format", "elements", "plot", "live", "machine", "history", "page")
GREETING = "pensieve speaks the Anthropic and OpenAI APIs here. GET /health reports its state.\n"


class PageEndpoint:
    def __init__(self) -> None:
        style = _read("style.css")
        script = "\n".join(_read(f"script/{name}.js") for name in SCRIPTS)
        self._html = _inlined(_inlined(_read("page.html"), "style", style), "script", script)
        self._headers = {**_PAGE_HEADERS, "content-security-policy": _policy(style, script)}

    async def root(self, request: Request) -> Response:
        if _is_for_page(request):
            return HTMLResponse(self._html, headers=self._headers)
        return await greeting(request)


async def greeting(_request: Request) -> Response:
    """For clients that warm up their connection, and for people who ask without a browser."""
    return PlainTextResponse(GREETING, headers={"vary": "accept"})


def _is_for_page(request: Request) -> bool:
    # The name was checked by AccessMiddleware, but may be another one that settings allow.
    return "text/html" in request.headers.get("accept", "") and is_loopback(
        request.url.hostname or ""
    )


_PAGE_HEADERS = {
    "cache-control": "no-cache",
    "vary": "accept",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
}


def _policy(style: str, script: str) -> str:
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src '{_hash(script)}'",
            f"style-src '{_hash(style)}'",
            "connect-src 'self'",
            "img-src data:",  # the icon
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        )
    )


def _hash(text: str) -> str:
    return f"sha256-{b64encode(sha256(text.encode()).digest()).decode()}"


def _inlined(html: str, element: str, text: str) -> str:
    """Put `text` into the one empty element of this name."""
    before, end, after = html.partition(f"</{element}>")
    return f"{before}{text}{end}{after}"


def _read(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")
