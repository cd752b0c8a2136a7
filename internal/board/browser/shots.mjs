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

async function shoot(name, path, options, prepare = () => {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, locale: 'en-GB', timezoneId: 'Asia/Shanghai', ...options })
  const page = await context.newPage()
  await page.goto(url + path)
  await page.locator('#rows .row').first().waitFor()
  await prepare(page)
  await sleep(700)
  await page.screenshot({ path: `${dir}/${name}.png` })
  await context.close()
}

try {
  await shoot('light', '/', { colorScheme: 'light' }, live)
  await shoot('dark', '/?state=all&sort=-since', { colorScheme: 'dark', locale: 'zh-CN' }, live)
  await shoot('phone', '/', { colorScheme: 'light', viewport: { width: 390, height: 780 } }, live)
  await shoot('history', '/?q=wang', { colorScheme: 'light' }, async page => {
    await live(page)
    await page.locator('#events li .link').nth(1).click()
    await page.locator('#past li').first().waitFor()
  })
  await act('fault', { is: 'status' })
  await shoot('stale', '/', { colorScheme: 'light' }, page => page.locator('[data-problem=stale]').waitFor())
} finally {
  await browser.close()
}
