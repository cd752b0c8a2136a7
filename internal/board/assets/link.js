// The connection to rollcall: an EventSource that comes back by itself, and the server's clock.

const silence = 6000 // the server says something every 2 s
const longest = 15000

let base = Date.now(), at = performance.now() // the server's time, and when it said so

// now is the time by rollcall's clock, as a wrong clock of the browser must not make a stale picture look fresh.
export const now = () => base + performance.now() - at

// connect hands each message to receive, and calls lost whenever the connection is. Every connection begins with all there is.
export function connect(receive, lost) {
  let source, watchdog, retry, attempts = 0

  function open() {
    clearTimeout(retry)
    source?.close()
    source = new EventSource('/events')
    source.onmessage = heard
    source.onerror = fail
    watch()
  }

  function watch() {
    clearTimeout(watchdog)
    watchdog = setTimeout(fail, silence)
  }

  function heard(e) {
    watch()
    const message = JSON.parse(e.data)
    base = message.now
    at = performance.now()
    if (message.ready) attempts = 0
    receive(message)
    if (message.full) fail()
  }

  // The time until the next attempt grows, and has chance in it, so that a hundred pages do not come back at once.
  function fail() {
    source.close()
    clearTimeout(watchdog)
    const wait = Math.min(longest, 500 * 1.7 ** attempts++) * (0.5 + Math.random())
    clearTimeout(retry)
    retry = setTimeout(open, wait)
    lost()
  }

  window.addEventListener('online', () => {
    if (source.readyState === EventSource.CLOSED) open()
  })
  open()
}
