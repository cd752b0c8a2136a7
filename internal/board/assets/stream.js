// The connection to rollcall: one answer that goes on, read as it comes. It comes back by itself.

import { Clock } from './clock.js'

export const patience = 10000 // for the beginning of an answer
const longest = 15000

// unfit says why an answer is not what was asked for: {signIn}, or what it was, {status}, or null.
export function unfit(response, kind) {
  const type = response.headers.get('Content-Type') ?? ''
  const login = response.type === 'opaqueredirect' || [401, 403, 407, 511].includes(response.status)
  if (login || response.ok && type.startsWith('text/html')) return { signIn: true }
  if (!response.ok) return { status: String(response.status) }
  return type.startsWith(kind) ? null : { status: type || '?' }
}

// ask is a fetch as rollcall's proxies understand it: a login that has expired is an answer like any other, no error.
export const ask = (address, kind, signal) => fetch(address, { redirect: 'manual', cache: 'no-store', headers: { Accept: kind }, signal })

// A Stream hands each message to receive, and calls lost with why whenever the connection is. Every connection begins with all
// there is.
export class Stream {
  clock = new Clock()
  live = false // something has been heard on the present connection
  #attempt = null // an AbortController; null: closed, or waiting for the next attempt
  #retry
  #watch
  #failures = 0

  constructor(address, receive, lost) {
    this.address = address
    this.receive = receive
    this.lost = lost
  }

  // open begins, unless it has.
  open() {
    if (!this.#attempt) this.#begin()
  }

  close() {
    this.live = false
    this.#attempt?.abort()
    this.#attempt = null
    clearTimeout(this.#retry)
    clearInterval(this.#watch)
  }

  // again gives the connection up for another one.
  again(why) {
    if (!this.#attempt) return
    this.close()
    // The time until the next attempt grows, and has chance in it, so that a hundred pages do not come back at once.
    const wait = Math.min(longest, 500 * 1.7 ** this.#failures++) * (0.5 + Math.random())
    this.#retry = setTimeout(() => this.#begin(), wait)
    this.lost(why)
  }

  // check notices what no timer could: that it, too, stood still.
  check() {
    if (this.live && this.clock.broken) this.again({ silent: true })
  }

  async #begin() {
    clearTimeout(this.#retry)
    const mine = this.#attempt = new AbortController()
    const fail = why => { if (this.#attempt === mine) this.again(why) }
    const timer = setTimeout(fail, patience, { timeout: true })
    try {
      const response = await ask(this.address, 'text/event-stream', mine.signal)
      clearTimeout(timer)
      const why = unfit(response, 'text/event-stream')
      if (why) return fail(why)
      this.clock.begin()
      this.#watch = setInterval(() => { if (this.clock.broken) fail({ silent: true }) }, 500)
      const reader = response.body.getReader(), decoder = new TextDecoder()
      let text = ''
      for (;;) {
        const { done, value } = await reader.read()
        if (this.#attempt !== mine) return
        if (done) return fail({ ended: true })
        text += decoder.decode(value, { stream: true })
        let from = 0
        for (let end; (end = text.indexOf('\n\n', from)) >= 0; from = end + 2) {
          this.#hear(text.slice(from, end), fail)
          if (this.#attempt !== mine) return
        }
        text = text.slice(from)
      }
    } catch (e) {
      clearTimeout(timer)
      fail({ error: String(e) })
    }
  }

  #hear(line, fail) {
    const message = JSON.parse(line.slice('data: '.length))
    if (!this.clock.hear(message.now)) return fail({ silent: true })
    this.live = true
    if (message.ready) this.#failures = 0
    if (message.full) fail({ full: message.full })
    else this.receive(message)
  }
}
