// The worker that all tabs of a browser share. It has their one connection, knows what the stream said, and tells each tab that
// can be seen. Browsers open only six connections to a host over HTTP/1.1.
//
// build, which build of rollcall this is of, stands above all modules (site.go).

import { Stream } from './stream.js'

const linger = 10000 // how long the connection is kept for tabs that may be looked at again
const forget = 20000 // a tab that says nothing for so long is gone; each says something every 5 s
const recent = 60

const tabs = new Map() // by port: the number of its request, and when it said something
let rows = new Map(), fresh = null // agents by id; those of a connection that has not told all yet
let events = [], trust, server, ready = false, lost = null, left = 0

const stream = new Stream(new URL('events', location.href), heard, why => {
  ready = false
  fresh = null
  lost = why
  for (const port of tabs.keys()) tell(port, { lost })
})

const tell = (port, message) => port.postMessage({ ...message, to: tabs.get(port).number })

function heard(m) {
  lost = null
  if (m.build) server = m.build
  if (m.trust) trust = m.trust
  if (m.begin) {
    fresh = new Map()
    ready = false
  }
  for (const row of m.rows ?? []) {
    if (row.length > 1) (fresh ?? rows).set(row[0], row)
    else (fresh ?? rows).delete(row[0])
  }
  if (m.ready) {
    rows = fresh ?? rows
    fresh = null
    events = []
    ready = true
  }
  if (m.events) events = [...events, ...m.events].slice(-recent)
  for (const port of tabs.keys()) {
    if (m.ready) all(port)
    else if (ready) tell(port, m)
    else tell(port, { now: m.now, build: server, trust })
  }
}

// all tells a tab everything that is known.
function all(port) {
  const known = { now: stream.clock.now(), build: server, trust }
  tell(port, ready ? { ...known, begin: true, ready, rows: [...rows.values()], events } : known)
}

onconnect = ({ ports: [port] }) => {
  port.onmessage = ({ data }) => {
    if (data.join) {
      tabs.set(port, { number: data.join, at: performance.now() })
      tell(port, { worker: build })
      stream.check() // it may have slept as the tab did
      if (stream.live) all(port)
      else if (lost) tell(port, { lost })
      stream.open()
    } else if (data.leave) {
      tabs.delete(port)
      left = performance.now()
    } else if (tabs.has(port)) {
      tabs.get(port).at = performance.now()
      if (data.online && !stream.live) stream.open()
    }
  }
  port.start()
}

setInterval(() => {
  const at = performance.now()
  for (const [port, tab] of tabs) {
    if (at - tab.at < forget) continue
    tabs.delete(port)
    left = at
  }
  if (tabs.size || at - left < linger) return
  stream.close()
  rows = new Map()
  ready = false
  lost = fresh = trust = null
  events = []
}, 1000)
