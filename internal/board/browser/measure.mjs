// What the board costs, with 10,000 agents and 20 events a second: go test -v -timeout 1h -tags ci ./internal/board -args -measure 10m

import http from 'node:http'
import { launch, stage } from './browser.mjs'

const long = process.argv[2].replace(/^(\d+)m/, (_, m) => `${m * 60}+`).replace(/s$/, '').split('+').reduce((a, b) => a + Number(b), 0)
const url = process.env.BOARD
const act = stage(process.env.CONTROL)
const sleep = s => new Promise(r => setTimeout(r, s * 1000))
const usage = async () => JSON.parse(await act('usage'))
const round = (n, digits = 1) => Number(n.toFixed(digits))

await sleep(20) // the first reading

// The page: its main thread and its heap.
for (const path of ['/', '/?state=all']) {
  const browser = await launch()
  const page = await browser.newPage({ viewport: { width: 1280, height: 800 } })
  page.setDefaultTimeout(300000) // the machine may be busy
  const cdp = await page.context().newCDPSession(page)
  await cdp.send('Performance.enable', { timeDomain: 'threadTicks' }) // CPU time, which others on the machine do not lengthen
  const metrics = async () => {
    await cdp.send('HeapProfiler.collectGarbage')
    const { metrics } = await cdp.send('Performance.getMetrics')
    return Object.fromEntries(metrics.map(m => [m.name, m.value]))
  }
  await page.goto(url + path)
  await page.locator('#rows .row').first().waitFor()
  const opened = await metrics()
  await sleep(5)
  await page.evaluate(() => {
    window.slow = [] // frames that took more than 50 ms
    new PerformanceObserver(list => window.slow.push(...list.getEntries().map(e => e.duration)))
      .observe({ type: 'long-animation-frame' })
  })
  const a = await metrics()
  await sleep(long)
  const b = await metrics()
  const slow = await page.evaluate(() => window.slow)
  const frames = await page.evaluate(async s => { // at the end, since to count costs something
    let n = 0
    const count = () => { n++; next = requestAnimationFrame(count) }
    let next = requestAnimationFrame(count)
    await new Promise(r => setTimeout(r, s * 1000))
    cancelAnimationFrame(next)
    return n / s
  }, 10)
  console.log(`page ${path}, ${long} s: script ${round((b.ScriptDuration - a.ScriptDuration) * 1000 / long, 2)} ms/s, ` +
    `style and layout ${round((b.RecalcStyleDuration - a.RecalcStyleDuration + b.LayoutDuration - a.LayoutDuration) * 1000 / long, 2)} ms/s, ` +
    `all tasks ${round((b.TaskDuration - a.TaskDuration) * 1000 / long, 2)} ms/s; ` +
    `heap ${round(a.JSHeapUsedSize / 1e6)} MB, then ${round(b.JSHeapUsedSize / 1e6)} MB; nodes ${a.Nodes}, then ${b.Nodes}; ` +
    `script until the first rows ${round(opened.ScriptDuration * 1000)} ms; ` +
    `${round(frames)} frames a second, ${slow.length} frames longer than 50 ms, the longest ${round(Math.max(0, ...slow), 0)} ms`)
  await browser.close()
}

// The board's process, which does nothing else: nobody looks, then so many pages that read and do nothing.
const short = Math.min(long, 60)
await sleep(40) // until the board has forgotten
const open = []
let bytes = 0
let last
for (const pages of [0, 1, 101, 201]) {
  while (open.length < pages) {
    const request = http.get(url + '/events', { agent: false }, r => r.on('data', d => { bytes += d.length }))
    request.on('error', () => {})
    open.push(request)
  }
  await sleep(10)
  const a = await usage()
  const before = bytes
  await sleep(short)
  const b = await usage()
  if (b.pages !== pages) throw new Error(`${b.pages} pages are open in place of ${pages}`)
  const now = { pages, cpu: (b.cpu - a.cpu) * 1000 / short, memory: b.heap + b.stack }
  const more = last && pages > last.pages ? `; each page more: ${round((now.cpu - last.cpu) / (pages - last.pages), 2)} ms/s, ` +
    `${round((now.memory - last.memory) / 1e3 / (pages - last.pages))} kB` : ''
  console.log(`${pages} pages, ${short} s: CPU ${round(now.cpu)} ms/s, heap and stacks ${round(now.memory / 1e6)} MB, ` +
    `sent ${round((bytes - before) / short / 1000 / (pages || 1))} kB/s a page${more}`)
  last = now
}
for (const request of open) request.destroy()

// The curve of the last day, which nobody has asked for in the last five minutes.
const began = performance.now()
const spent = (await usage()).cpu
const day = await (await fetch(url + '/day')).text()
console.log(`/day: ${round(performance.now() - began, 0)} ms, CPU ${round(((await usage()).cpu - spent) * 1000, 0)} ms, ${day.length} bytes`)
