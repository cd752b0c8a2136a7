// The screenshots of docs/board.md: go test -tags ci ./internal/board -args -shots ../../docs/board, and then pngquant

import { launch, live, stage } from './browser.mjs'

const dir = process.argv[2]
const url = process.env.BOARD
const act = stage(process.env.CONTROL)
const sleep = ms => new Promise(r => setTimeout(r, ms))

// The stage's first half minute is five hours of its clock.
for (const end = Date.now() + 29000; Date.now() < end; await sleep(400)) await act('churn', { n: 7 })
await sleep(4000)
const browser = await launch()

// The stage has no day behind it, so what the page is told of it is made up: people come and go, and for an hour nobody looked.
const staffed = hour => [5, 5, 5, 5, 5, 10, 20, 35, 50, 60, 60, 55, 40, 50, 60, 60, 55, 45, 35, 25, 20, 15, 10, 5][Math.floor(hour)]
const inShanghai = ms => (ms / 3600e3 + 8) % 24
async function day(page) {
  await live(page)
  const number = Number((await page.locator('#count').textContent()).replace(/\D/g, ''))
  const to = Date.now(), step = 300e3, from = Math.ceil((to - 864e5) / step) * step, points = Math.floor((to - from) / step) + 1
  let before = 0
  const changes = Array.from({ length: points }, (_, i) => {
    const ms = from + i * step, wave = Math.round(3 * Math.sin(i * 1.7) * Math.sin(i / 9) * (points - i) / points)
    const after = Math.max(3, number + 2 * (staffed(inShanghai(ms)) - staffed(inShanghai(to))) + wave), more = after - before
    before = after
    return [i, more]
  })
  return { from, step, points, on: [{ type: '10', area: '', changes }], unknown: [{ type: '10', from: to - 9.5 * 3600e3, to: to - 8.2 * 3600e3 }] }
}
async function agentsDay(page) {
  const to = Date.now(), [on, since] = await page.evaluate(() => {
    const a = [...document.querySelectorAll('#rows .row')].map(r => r.agent).find(a => a.id === new URL(location).searchParams.get('agent'))
    return [a.state === 1, a.since]
  })
  const ends = [to, Math.max(since, to - 7 * 3600e3), to - 8.2 * 3600e3, to - 9.5 * 3600e3, to - 13 * 3600e3, to - 17.5 * 3600e3, to - 18 * 3600e3, to - 22 * 3600e3, to - 864e5]
  const states = [on, !on, null, !on, on, !on, on, !on].map(is => is === null ? 'unknown' : is ? 'on' : 'off')
  return { from: to - 864e5, to, intervals: states.map((state, i) => ({ state, from: ends[i + 1], to: ends[i] })).reverse() }
}

async function shoot(name, path, options, prepare = () => {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, locale: 'en-GB', timezoneId: 'Asia/Shanghai', ...options })
  const page = await context.newPage()
  const told = (where, what) => page.route(where, async r => r.fulfill({ json: await what(page) }))
  await told('**/day', day)
  await told('**/agents/*/day', agentsDay)
  await page.goto(url + path)
  await prepare(page)
  await sleep(700)
  await page.screenshot({ path: `${dir}/${name}.png` })
  await context.close()
}

try {
  const curve = page => page.locator('#day figcaption').waitFor()
  await shoot('light', '/', { colorScheme: 'light' }, curve)
  await shoot('dark', '/?state=all&sort=-since', { colorScheme: 'dark', locale: 'zh-CN' }, curve)
  await shoot('phone', '/', { colorScheme: 'light', viewport: { width: 390, height: 780 } }, curve)
  await shoot('history', '/?type=10', { colorScheme: 'light' }, async page => {
    await live(page)
    await page.locator('#rows .row button').nth(2).click()
    await page.locator('#past li').first().waitFor()
    await page.locator('#agents-day rect').first().waitFor()
  })
  await shoot('wall', '/?wall', { colorScheme: 'dark', viewport: { width: 1280, height: 720 } }, page => page.locator('html[data-trust=good] #by-type b').first().waitFor())
  await act('fault', { is: 'status' })
  await shoot('stale', '/', { colorScheme: 'light' }, page => page.locator('[data-problem=stale]').waitFor())
} finally {
  await browser.close()
}
