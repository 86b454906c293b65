/*
 * Express applications, made as the tests ask for them.
 *
 * Each line on stdin is a question, each line on stdout an answer or an event, all
 * of them JSON objects.  The process ends when stdin is closed.
 */

'use strict'

const { createInterface } = require('node:readline')
const { isDeepStrictEqual } = require('node:util')

const express = require('express')
const session = require('express-session')
const { RedisStore } = require('connect-redis')
const { createClient } = require('redis')
const { Pool } = require('pg')
const PostgreSQLStore = require('connect-pg-simple')(session)

// Stores.

const clients = new Map()

function once (key, make) {
  if (!clients.has(key)) clients.set(key, make())
  return clients.get(key)
}

async function storeOf ({ kind, url, ...options }) {
  if (kind === 'redis') {
    const client = await once(url, () => quiet(createClient({ url })).connect())
    return new RedisStore({ client, ...options })
  }
  const pool = once(url, () => quiet(new Pool({ connectionString: url })))
  return new PostgreSQLStore({ pool, ...options })
}

// The server may end before this process does.
function quiet (client) {
  return client.on('error', () => {})
}

// Applications.

const sites = new Map()

async function open ({ store, ...options }) {
  const app = express()
  app.use(session({
    secret: 'keyboard cat',
    resave: false,
    saveUninitialized: false,
    ...options,
    store: await storeOf(store)
  }))
  app.post('/do', express.text({ type: () => true }), run)
  app.use((error, req, res, next) => {
    if (!res.headersSent) res.status(500).send(String(error))
  })
  const server = app.listen(0, '127.0.0.1')
  await new Promise(resolve => server.once('listening', resolve))
  const { port } = server.address()
  sites.set(port, server)
  return port
}

function close (port) {
  sites.get(port).close()
  sites.get(port).closeAllConnections()
  sites.delete(port)
}

// The body of a request is what is to be done with its session.

const AsyncFunction = (async () => {}).constructor

async function run (req, res) {
  // What has a callback in express-session, as a promise.
  const verb = name => new Promise((resolve, reject) => {
    req.session[name](error => error ? reject(error) : resolve())
  })
  const script = new AsyncFunction('req', 'res', 'verb', 'pause', 'same', req.body)
  const result = await script(req, res, verb, pause, isDeepStrictEqual)
  if (!res.headersSent) res.json(result ?? null)
}

const paused = []

function pause () {
  return new Promise(resolve => {
    paused.push(resolve)
    say({ event: 'paused' })
  })
}

// Questions and answers.

function say (message) {
  process.stdout.write(JSON.stringify(message) + '\n')
}

const questions = {
  open,
  close,
  resume: () => paused.shift()()
}

// What JSON does not have: functions and the like are {"js": "an expression"}.
function revive (key, value) {
  const isCode = value !== null && typeof value === 'object' && 'js' in value
  return isCode ? (0, eval)(`(${value.js})`) : value
}

async function answer (line) {
  const { id, question, argument } = JSON.parse(line, revive)
  try {
    say({ id, result: await questions[question](argument) ?? null })
  } catch (error) {
    say({ id, error: error.stack })
  }
}

createInterface({ input: process.stdin })
  .on('line', answer)
  .on('close', () => process.exit())
