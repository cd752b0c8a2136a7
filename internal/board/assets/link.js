// What the page hears from rollcall: through a worker that all tabs of a browser share, or by itself where there is none. It
// hears nothing while nobody can see it.

import { Clock, silence } from './clock.js'
import { ask, patience, Stream, unfit } from './stream.js'

export const build = document.documentElement.dataset.build
const restless = 30000 // a worker that lives has said something by then, even if rollcall is away

// Proxies may serve the page below any path, with or without a slash at its end.
const base = new URL(location.pathname.replace(/\/?$/, '/'), location.origin)

// again is the address of this page, for a link: it leads through whatever asks for a login.
export const again = () => location.pathname + location.search

const clock = new Clock()
export const now = () => clock.now()

// get asks rollcall for something that is no stream. It returns {json}, or why there is none: {signIn}, {status}, {timeout} or
// {error}.
export async function get(path) {
  try {
    const response = await ask(new URL(path, base), 'application/json', AbortSignal.timeout(patience))
    return unfit(response, 'application/json') ?? { json: await response.json() }
  } catch (e) {
    return e.name === 'TimeoutError' ? { timeout: true } : { error: String(e) }
  }
}

// Both ways to hear have join, which asks for all there is and then what changes; leave; and nudge, for when there is a network
// again. They call take with each message, and tell with why there is none.

function alone(take, tell) {
  const stream = new Stream(new URL('events', base), take, tell)
  return {
    join() {
      stream.close()
      stream.open()
    },
    leave() { stream.close() },
    nudge() { if (!stream.live) stream.open() },
  }
}

// shared calls broken where there is no worker, or one of another build, which may speak otherwise.
function shared(take, tell, broken) {
  const address = new URL('worker.js', base)
  address.searchParams.set('build', build)
  const worker = new SharedWorker(address, 'rollcall')
  const { port } = worker
  let number = 0, joined = false, answered = false, ended = false, timer

  function listen() {
    clearTimeout(timer)
    timer = setTimeout(answered ? join : end, answered ? restless : silence)
  }

  function join() {
    joined = true
    answered = false
    port.postMessage({ join: ++number }) // what was asked for earlier is old by now
    listen()
  }

  function leave() {
    joined = false
    clearTimeout(timer)
    port.postMessage({ leave: true })
  }

  function end() {
    if (ended) return
    ended = true
    if (joined) leave()
    port.close()
    clearInterval(ticking)
    broken()
  }

  const ticking = setInterval(() => { if (joined) port.postMessage({ here: true }) }, 5000)
  worker.onerror = end
  port.onmessage = ({ data }) => {
    if (!joined || data.to !== number) return
    if (data.worker && data.worker !== build) return end()
    answered = true
    listen()
    if (data.lost) tell(data.lost)
    else if (data.now) take(data)
  }
  return { join, leave, nudge() { port.postMessage({ online: true }) } }
}

// connect hands each message to receive, and calls lost with why whenever nothing comes, or with {hidden: true} while nobody can
// see the page. What comes after that begins with all there is.
export function connect(receive, lost) {
  let way, hearing = false

  function take(message) {
    if (!hearing) clock.begin()
    if (!clock.hear(message.now)) return missed()
    hearing = true
    receive(message)
  }

  function tell(why) {
    hearing = false
    lost(why)
  }

  function missed() {
    tell({ silent: true })
    way.join()
  }

  function look() {
    if (document.visibilityState === 'hidden') {
      way.leave()
      tell({ hidden: true })
    } else {
      way.join()
    }
  }

  const byItself = () => {
    way = alone(take, tell)
    if (document.visibilityState !== 'hidden') way.join()
  }
  try {
    way = shared(take, tell, byItself)
    look()
  } catch { // there are no shared workers, or they are forbidden
    byItself()
  }

  // A machine that wakes up shows its last picture until this runs.
  const check = () => { if (hearing && clock.broken) missed() }
  setInterval(check, 250)
  document.addEventListener('visibilitychange', look)
  addEventListener('pageshow', e => { if (e.persisted) look() })
  addEventListener('pagehide', () => {
    way.leave()
    tell({ hidden: true })
  })
  addEventListener('online', () => way.nudge())
}
