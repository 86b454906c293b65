"""
How the pages of the examples look.  Nothing here has to do with sessions.
"""

from __future__ import annotations

from twisted.web.template import Element, Tag, TagLoader, tags

__all__ = ["page"]

Content = Tag | str


def page(site: str, title: str, *content: Content, nav: Content = "") -> Element:
    """
    A page.  Whatever text is in its tags gets escaped when it is rendered.

    @param site: the name at the top of each page of the site.
    @param nav: what stands opposite that name.
    """
    return Element(
        TagLoader(
            tags.html(
                tags.head(
                    tags.meta(charset="utf-8"),
                    tags.meta(
                        name="viewport", content="width=device-width, initial-scale=1"
                    ),
                    tags.link(rel="icon", href="data:,"),
                    tags.title(f"{title} · {site}"),
                    tags.style(STYLE),
                ),
                tags.body(
                    tags.header(tags.a(site, href="/", class_="site"), nav),
                    Tag("main")(tags.h1(title), *content),
                ),
                lang="en",
            )
        )
    )


# No angle brackets and no ampersands in here: they would be escaped, which
# browsers do not undo inside of <style>.
STYLE = """
:root {
  color-scheme: light dark;
  --paper: #f5f4ef; --card: #ffffff; --line: #dcd9cf; --edge: #85888f;
  --ink: #1c2128; --soft: #565d69; --accent: #17605a; --hover: #0f4742;
  --on-accent: #ffffff; --bad: #9c1c28; --bad-paper: #fceeee;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #15181c; --card: #1e2227; --line: #343a42; --edge: #7d8590;
    --ink: #e8eaed; --soft: #a4acb8; --accent: #6fcfc4; --hover: #93e0d7;
    --on-accent: #0c2422; --bad: #ff9aa2; --bad-paper: #3a2023;
  }
}
* { box-sizing: border-box }
body {
  margin: 0; background: var(--paper); color: var(--ink);
  font: 1rem/1.6 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif;
  overflow-wrap: anywhere;
}
header {
  display: flex; flex-wrap: wrap; align-items: center;
  justify-content: space-between; gap: .25rem 1.25rem; min-height: 4rem;
  padding: .5rem clamp(1rem, 4vw, 2.5rem);
  background: var(--card); border-bottom: 1px solid var(--line);
}
.site { color: inherit; font-weight: 650; text-decoration: none }
nav { display: flex; align-items: center; gap: 1rem; margin-left: auto }
nav form { margin: 0 }
form + p { margin-top: 1.25rem }
main {
  width: min(100% - 2rem, 30rem); margin: clamp(1.5rem, 9vh, 5rem) auto 3rem;
  padding: clamp(1.25rem, 5vw, 2.25rem);
  background: var(--card); border: 1px solid var(--line); border-radius: .75rem;
}
h1 { margin: 0 0 1rem; font-size: 1.625rem; line-height: 1.25 }
p { margin: 0 0 1rem }
main :last-child { margin-bottom: 0 }
a { color: var(--accent); text-underline-offset: .2em }
a:hover { color: var(--hover) }
:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px }
code { padding: .125em .375em; border-radius: .25rem; background: var(--paper) }
.hint { color: var(--soft); font-size: .9375rem }
.alert {
  padding: .75rem 1rem; border-left: .25rem solid var(--bad);
  border-radius: .25rem; background: var(--bad-paper); color: var(--bad);
}
label { display: block; margin-bottom: .25rem; font-weight: 600 }
input {
  width: 100%; min-height: 2.75rem; margin-bottom: 1rem; padding: .5rem .75rem;
  font: inherit; color: inherit; background: var(--card);
  border: 1px solid var(--edge); border-radius: .5rem;
}
button, .button {
  display: inline-block; min-height: 2.75rem; padding: .5625rem 1.25rem;
  font: inherit; font-weight: 600; line-height: 1.5; text-align: center;
  white-space: nowrap; text-decoration: none; cursor: pointer;
  color: var(--on-accent);
  background: var(--accent); border: 1px solid transparent; border-radius: .5rem;
}
button:hover, .button:hover { background: var(--hover); color: var(--on-accent) }
nav button { min-height: 2.5rem; padding: .4375rem .875rem }
.wide { width: 100% }
.quiet { color: var(--accent); background: none; border-color: var(--edge) }
.quiet:hover { color: var(--on-accent) }
.row { display: flex; gap: .75rem; align-items: end; margin-bottom: 1.5rem }
.row div { flex: 1 1 0; min-width: 0 }
.row .small { flex: 0 0 5rem }
.row input { margin: 0 }
.items { margin: 0 0 1.5rem; padding: 0; list-style: none }
.items li {
  display: flex; flex-wrap: wrap; align-items: center;
  justify-content: space-between; gap: .5rem 1rem;
  padding: .5rem 0; border-bottom: 1px solid var(--line);
}
.items li div:first-child { flex: 1 1 8rem }
.items form { margin: 0 }
"""
