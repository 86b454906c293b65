"""
What the plugin serves where no application is named: a page that shows a session
at work, and what to do next.
"""

from __future__ import annotations

from hmac import compare_digest
from secrets import token_urlsafe
from typing import Any

from twisted.internet.defer import Deferred
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from .resource import getSession
from .session import Session

__all__ = ["Welcome"]


class Welcome(Resource):
    """
    Counts the visits of a browser, and forgets them when told to.

    @param ttl: how many seconds a session lives whose cookie ends with the
        browser.
    @param absoluteTimeout: how many seconds any session lives, or L{None}.
    """

    def __init__(self, ttl: float, absoluteTimeout: float | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.ttl = ttl
        self.absoluteTimeout = absoluteTimeout
        self.putChild(b"", self)
        self.putChild(b"destroy", _Destroy())  # type: ignore[no-untyped-call]
        self.putChild(b"destroyed", _Destroyed())  # type: ignore[no-untyped-call]

    def render_GET(self, request: Any) -> Any:
        """
        Show the session.
        """
        return _answered(request, self._show(request))

    async def _show(self, request: Any) -> bytes:
        session = getSession(request)
        # With --lazy, that is for the application to ask for.
        await session.load()
        session["views"] = views = session.get("views", 0) + 1
        # Other sites can make a browser send a form, but they cannot read this.
        token = session.setdefault("token", token_urlsafe(16))
        times = "once" if views == 1 else f"{views} times"
        return _page(
            request,
            "It works: this is a session",
            f"""
<p class="count">You came <strong>{times}</strong>.</p>
<p><a class="button" href="/">Come again</a></p>
<p>The number is kept on the server. Your browser holds nothing but a cookie with
the signed ID of the session. {self._lifetime(session)}</p>
<form method="post" action="/destroy">
<input type="hidden" name="token" value="{token}">
<button class="quiet">Destroy the session</button>
</form>
<h2>What to do next</h2>
<p>Serve an app of your own, with a secret that lasts. It can be a Klein app or any
resource of Twisted Web:</p>
<pre>twistd -n txsession --app package.module:name \\
  --secret-file secret --create-secret</pre>
<p>Keep the sessions when the server ends: <code>--store sqlite:sessions.db</code></p>
<p>See what else there is: <code>twistd txsession --help</code></p>""",
        )

    def _lifetime(self, session: Session) -> str:
        lifetime = session.cookie.originalMaxAge
        if lifetime is None:
            text = (
                "It ends with the browser, or when you have not come for "
                f"{_span(self.ttl)}"
            )
        else:
            text = f"It ends when you have not come for {_span(lifetime)}"
        if self.absoluteTimeout is not None:
            text += f", and {_span(self.absoluteTimeout)} after it began at the latest"
        return f"{text}."


class _Destroy(Resource):
    """
    Ends the session of who has its token.
    """

    def render_POST(self, request: Any) -> Any:
        return _answered(request, self._destroy(request))

    async def _destroy(self, request: Any) -> bytes:
        session = getSession(request)
        await session.load()
        sent = request.args.get(b"token", [b""])[0]
        token = session.get("token")
        if token is None or not compare_digest(sent, token.encode()):
            request.setResponseCode(403)
            return _page(
                request,
                "That was not this page's form",
                "<p>Nothing was destroyed.</p>"
                '<p><a class="button" href="/">Back</a></p>',
            )
        await session.destroy()
        request.setResponseCode(303)
        request.setHeader(b"Location", b"/destroyed")
        return b""


class _Destroyed(Resource):
    """
    Says so, and has no session itself.
    """

    def render_GET(self, request: Any) -> bytes:
        return _page(
            request,
            "The session is destroyed",
            "<p>The server has forgotten it, and your browser its cookie.</p>"
            '<p><a class="button" href="/">Begin another</a></p>',
        )


def _answered(request: Any, answer: Any) -> int:
    def answered(body: bytes) -> None:
        request.write(body)
        request.finish()

    answering = Deferred.fromCoroutine(answer)
    answering.addCallback(answered)
    answering.addErrback(request.processingFailed)
    # It has been logged and answered.
    answering.addErrback(lambda failure: failure.cleanFailure())
    return NOT_DONE_YET


def _span(seconds: float) -> str:
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.3g} {unit}"
    return f"{seconds:.3g} seconds"


def _page(request: Any, title: str, content: str) -> bytes:
    request.setHeader(b"Content-Type", b"text/html; charset=utf-8")
    request.setHeader(
        b"Content-Security-Policy",
        b"default-src 'none'; style-src 'unsafe-inline'; img-src data:; "
        b"form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    )
    return f"""\
<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>{title}</title>
<style>{_STYLE}</style>
<main>
<h1>{title}</h1>
{content}
</main>
</html>
""".encode()


_STYLE = """
  :root { color-scheme: light dark;
          --paper: #f5f4ef; --card: #ffffff; --line: #dcd9cf; --ink: #1c2128;
          --soft: #565d69; --accent: #17605a; --on-accent: #ffffff }
  @media (prefers-color-scheme: dark) { :root {
          --paper: #15181c; --card: #1e2227; --line: #343a42; --ink: #e8eaed;
          --soft: #a4acb8; --accent: #6fcfc4; --on-accent: #0c2422 } }
  * { box-sizing: border-box }
  body { margin: 0; padding: 1rem; background: var(--paper); color: var(--ink);
         font: 1.0625rem/1.6 system-ui, sans-serif }
  main { max-width: 36rem; margin: clamp(0rem, 8vh, 5rem) auto;
         padding: clamp(1.25rem, 5vw, 2.5rem); background: var(--card);
         border: 1px solid var(--line); border-radius: .75rem }
  h1 { margin: 0 0 1rem; font-size: 1.75rem; line-height: 1.25 }
  h2 { margin: 2rem 0 .5rem; padding-top: 1.5rem; font-size: 1.125rem;
       border-top: 1px solid var(--line) }
  p { margin: 0 0 1rem }
  .count { font-size: 1.375rem }
  code, pre { font: .9375rem/1.6 ui-monospace, monospace; background: var(--paper);
              border-radius: .375rem }
  code { padding: .125em .375em; white-space: nowrap }
  pre { margin: 0 0 1rem; padding: .75rem 1rem; overflow-x: auto }
  button, .button { display: inline-block; padding: .5rem 1.25rem; font: inherit;
              font-weight: 600; line-height: 1.5; text-decoration: none;
              cursor: pointer; border: 1px solid var(--accent);
              border-radius: .5rem; background: var(--accent);
              color: var(--on-accent) }
  .quiet { background: none; color: var(--accent) }
  :focus-visible { outline: 3px solid var(--accent); outline-offset: 2px }
  main > :last-child { margin-bottom: 0 }
"""
