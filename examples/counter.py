"""
Counts how often you have viewed each of its pages.

    python -m examples.counter [PORT]

Each visitor has a count of their own.  It is kept on the server; all that the
browser holds is a cookie with the signed ID of the session.
"""

from __future__ import annotations

from typing import Any

from klein import Klein

from txsession import MemoryStore, SessionResource, getSession

from .serving import serve, sessionSecret

app = Klein()


@app.route("/")
def home(request: Any) -> str:
    return show("Welcome!", countView(request, "home"))


@app.route("/<any(foo, bar):name>")
def page(request: Any, name: str) -> str:
    return show(name.capitalize(), countView(request, name))


def countView(request: Any, name: str) -> int:
    """
    How often this visitor has viewed the page, this time included.
    """
    views: dict[str, int] = getSession(request).setdefault("views", {})
    # Changing what is inside the session is enough: the change is noticed, and
    # saved before the response leaves.
    views[name] = views.get(name, 0) + 1
    return views[name]


def show(title: str, views: int) -> str:
    times = "1 time" if views == 1 else f"{views} times"
    return f"""\
<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>{title}</title>
<style>{STYLE}</style>
<h1>{title}</h1>
<p>You have viewed this page <strong>{times}</strong>.</p>
<nav><a href="/">Home</a> <a href="/foo">Foo</a> <a href="/bar">Bar</a></nav>
</html>
"""


STYLE = """
  :root { color-scheme: light dark }
  body { font: 1.125rem/1.6 system-ui, sans-serif;
         max-width: 32rem; margin: 12vh auto; padding: 0 1.25rem }
  strong { white-space: nowrap }
  nav a { display: inline-block; padding: .5rem 1rem .5rem 0 }
"""

resource = SessionResource(app, secret=sessionSecret(), store=MemoryStore())

if __name__ == "__main__":
    serve(resource)
