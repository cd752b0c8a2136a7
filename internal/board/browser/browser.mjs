// What the browser tests, the screenshots and the measurements share.

import http from 'node:http'
import { chromium } from 'playwright-core'

const executable = process.env.CHROMIUM || '/usr/bin/chromium'
const args = ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
  '--disable-component-update', '--disable-sync']

export const launch = (...more) => chromium.launch({ executablePath: executable, args: [...args, ...more] })

// stage lets something happen to rollcall, the tenant or NATS.
export const stage = control => async (what, values = {}) => {
  const response = await fetch(`${control}/${what}?${new URLSearchParams(values)}`)
  const text = await response.text()
  if (!response.ok) throw new Error(`${what}: ${text}`)
  return text
}

// live waits until a page shows the agents and believes them.
export const live = page => page.locator('html[data-trust=good] #rows .row').first().waitFor()

// crafted serves the page of a board with agents of one's own making: what takes a hundred days to come about. A row is as
// encodeRow makes it, with how long ago in place of since; days has answers for /day and /agents/…/day.
export async function crafted(board, rows, { events = [], trust = {}, days = {}, build } = {}) {
  const server = http.createServer((request, response) => {
    const path = new URL(request.url, board).pathname
    if (path in days) {
      response.writeHead(days[path] ? 200 : 503, { 'Content-Type': 'application/json' })
      return response.end(JSON.stringify(days[path]))
    }
    if (path !== '/events') {
      const asked = http.get(new URL(request.url, board), { headers: { ...request.headers, host: new URL(board).host } }, r => {
        response.writeHead(r.statusCode, r.headers)
        r.pipe(response)
      })
      asked.on('error', () => response.destroy())
      return
    }
    const now = Date.now()
    const watermark = { sweep: 7, startedAt: now, completedAt: now + 20, until: now + 3600e3, glancedAt: 0, missing: 0, rejected: 0, instance: 'replica-1', ...trust.watermark }
    const all = rows.map(([id, name, account, type, area, capacity, state, ago, atLeast = 0]) =>
      [id, name, account, type, area, capacity, state, now - ago, 1, atLeast])
    response.writeHead(200, { 'Content-Type': 'text/event-stream' })
    const say = message => response.write(`data: ${JSON.stringify({ now: Date.now(), ...message })}\n\n`)
    say({ build, begin: true, ready: true, rows: all, events, trust: { reading: true, self: 'replica-1', health: { state: 'ok', reason: '', detail: '', since: now - 864e5 }, ...trust, watermark } })
    const beat = setInterval(say, 1000, {})
    response.on('close', () => clearInterval(beat))
  })
  await new Promise(resolve => server.listen(0, '127.0.0.1', resolve))
  return { url: `http://127.0.0.1:${server.address().port}`, close: () => { server.closeAllConnections(); server.close() } }
}

// long are agents with the longest of everything.
export const long = (() => {
  const names = ['欧阳娜娜·买买提·阿卜杜热合曼', '王建国', 'Maximiliane-Alexandra von Hohenzollern-Sigmaringen', '李', '诸葛亮', '   ']
  const areas = ['华东', '新疆维吾尔自治区', '港澳', null, '内蒙古自治区呼伦贝尔市']
  const hour = 3600e3, day = 24 * hour
  const agos = [5e3, 59 * 60e3, 11 * hour, 12.9 * hour, 23.99 * hour, 13.5 * day, 100.99 * day, 299.9 * day, 400 * day, 1234.99 * day]
  return Array.from({ length: 60 }, (_, i) => [String(17813 + i), names[i % 6], `maximiliane.alexandra.hohenzollern${17813 + i}@example.com`, ['0', '1', '2', '10', '77'][i % 5],
    areas[(i * 7) % 5], i % 4 ? 10 ** (i % 5) : null, i % 9 === 4 ? 0 : 1, agos[i % 10], i % 3 ? 1 : 0])
})()
