/*
 * Express's side: the pages under /express.
 *
 * run.py starts it, tells it by the environment where Redis is and what the secret
 * is, and reads its port from the first line that it writes.  It ends when its stdin
 * is closed.
 */

'use strict'

const express = require('express')
const session = require('express-session')
const { RedisStore } = require('connect-redis')
const { createClient } = require('redis')

// The session.

const client = createClient({ url: process.env.REDIS_URL })
client.on('error', error => console.error(String(error))) // it tries again
client.connect()

const app = express()
app.use(session({
  store: new RedisStore({ client }),
  secret: process.env.TXSESSION_SECRET,
  cookie: { maxAge: 3600 * 1000, sameSite: 'lax' },
  resave: false,
  saveUninitialized: false
}))

// The pages.

app.use(express.urlencoded({ extended: false }))

app.get('/express', (req, res) => {
  const visits = req.session.visits ??= {}
  visits.express = (visits.express ?? 0) + 1
  res.set('Cache-Control', 'no-store').send(page(visits, req.session.notes ?? []))
})

app.post('/express/notes', (req, res, next) => {
  const notes = req.session.notes ??= []
  notes.push({ by: 'Express', text: String(req.body?.text ?? '') })
  seeOther(req, res, next)
})

app.post('/express/forget', (req, res, next) => {
  req.session.destroy(error => error ? next(error) : res.redirect(303, '/express'))
})

function seeOther (req, res, next) {
  // Express sends a redirect before the session is saved, unless it is told to wait.
  req.session.save(error => error ? next(error) : res.redirect(303, '/express'))
}

// How it looks: as Klein's pages do, whose style sheet this is.

function page (visits, notes) {
  return `<!DOCTYPE html>
<html lang="en">
<head>
  <meta charset="utf-8">
  <meta name="viewport" content="width=device-width, initial-scale=1">
  <link rel="icon" href="data:,">
  <title>Express · Side by side</title>
  <link rel="stylesheet" href="/style.css">
</head>
<body>
<header>
  <a class="site" href="/">Side by side</a>
  <nav><span class="hint">Express</span><a href="/klein/">Klein</a></nav>
</header>
<main>
  <h1>Express</h1>
  <p>You were ${times(visits.express)} here and ${times(visits.klein)} at Klein's.</p>
  <ul class="items">${notes.map(item).join('')}</ul>
  <form method="post" action="/express/notes">
    <label for="text">Something to remember</label>
    <input id="text" name="text" required autocomplete="off">
    <button class="wide">Write it down</button>
  </form>
  <p class="hint">Express and Klein keep this in one session.</p>
  <form method="post" action="/express/forget">
    <button class="quiet wide">Forget everything</button>
  </form>
</main>
</body>
</html>
`
}

function item ({ by, text }) {
  return `<li>${escape(text)}<span class="hint">${escape(by)}</span></li>`
}

function times (count = 0) {
  return count === 1 ? '1 time' : `${count} times`
}

function escape (text) {
  return String(text).replace(/[&<>"']/g, character => `&#${character.charCodeAt(0)};`)
}

// Started and ended by run.py.

const server = app.listen(0, '127.0.0.1', () => console.log(server.address().port))
process.stdin.resume().on('end', () => process.exit())
