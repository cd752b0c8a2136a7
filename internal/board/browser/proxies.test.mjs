// The board in a real browser behind real proxies, which the Go test starts with the files of deploy/: go test -tags ci -run
// TestProxies ./internal/board

import assert from 'node:assert/strict'
import { after, afterEach, before, beforeEach, test } from 'node:test'
import { launch, live, stage } from './browser.mjs'

const { BOARD, CONTROL, AT_PATH, AT_TLS, AT_USUAL, AT_UNCUT, AT_SLACK, AT_BUILDS, AT_STRANGER, AT_GUARD } = process.env
const act = stage(CONTROL)

let browser, context, page, complaints, front

before(async () => {
  browser = await launch('--ignore-certificate-errors');
  ({ front } = JSON.parse(await act('addresses')))
})
after(() => browser?.close())
beforeEach(async () => {
  complaints = []
  await act('reset')
})
afterEach(async () => {
  await context?.close()
  context = null
  assert.deepEqual(complaints, [], 'the browser complains')
})

// open opens an address in a fresh profile. What the browser complains of fails the test, but for what the network did.
async function open(address, options = {}) {
  await context?.close()
  context = await browser.newContext({ viewport: { width: 1280, height: 800 }, locale: 'en-GB', ...options })
  context.setDefaultTimeout(20000)
  page = await tab()
  return page.goto(address)
}

async function tab() {
  const page = await context.newPage()
  page.on('console', m => { if (m.type() === 'error' && !m.text().startsWith('Failed to load resource')) complaints.push(m.text()) })
  page.on('pageerror', e => complaints.push(String(e.stack)))
  return page
}

const banner = key => page.locator(`#banner [data-problem=${key}]`)
const gone = locator => locator.waitFor({ state: 'detached' })
const until = async (what, ok) => {
  for (const deadline = Date.now() + 20000; Date.now() < deadline;) {
    if (await ok()) return
    await new Promise(r => setTimeout(r, 20))
  }
  assert.fail(`waited in vain for ${what}`)
}
const history = async () => {
  await page.locator('#rows .row').first().click()
  await page.locator('#past li').first().waitFor()
  await page.keyboard.press('Escape')
}

test('below a path, behind a password', async () => {
  const refused = await open(`${AT_PATH}/rollcall/`, { httpCredentials: { username: 'leader', password: 'wrong' } })
  assert.equal(refused.status(), 401)
  for (const address of ['/rollcall/?type=10', '/rollcall?type=10']) { // nginx adds the slash
    await open(AT_PATH + address, { httpCredentials: { username: 'leader', password: 'secret' } })
    await live(page)
    assert.equal(new URL(page.url()).pathname, '/rollcall/')
    assert.equal(new URL(page.url()).search, '?type=10')
    assert.equal(await page.locator('header').evaluate(e => getComputedStyle(e).display), 'flex', 'it has its style')
    await history()
    const other = await tab()
    await other.goto(AT_PATH + address)
    await live(other)
    assert.equal(await act('pages'), '1', 'all tabs have one connection')
    await page.reload()
    await live(page)
  }
})

test('below a path whose slash was forgotten', async () => {
  for (const path of ['/rollcall/?state=all', '/rollcall?state=all']) {
    await open(AT_SLACK + path)
    await live(page)
    assert.equal(page.url(), AT_SLACK + path)
    await history()
  }
})

test('a proxy that sends the wrong Host, or the whole path, is explained', async () => {
  let answer = await open(AT_USUAL + '/')
  assert.equal(answer.status(), 403)
  let text = await page.locator('body').innerText()
  assert.ok(text.includes(`"${new URL(AT_USUAL).hostname}"`) && text.includes('proxy_set_header Host localhost;'), text)
  answer = await open(AT_UNCUT + '/rollcall/')
  assert.equal(answer.status(), 404)
  text = await page.locator('body').innerText()
  assert.ok(text.includes('"/rollcall/"') && text.includes('proxy_pass with a / at its end'), text)
})

test('two builds behind one address', async () => {
  const builds = new Set()
  for (let i = 0; i < 10; i++) {
    if (i === 0) await open(AT_BUILDS)
    else await page.goto(AT_BUILDS)
    await page.locator('html:not([data-trust=bad]) #rows .row').first().waitFor()
    assert.equal(await page.locator('#unstarted').count(), 0)
    assert.notEqual(await page.locator('html').getAttribute('data-trust'), 'wait')
    await history()
    builds.add(await page.locator('html').getAttribute('data-build'))
  }
  assert.equal(builds.size, 2)
  // The file of compose.yaml lets no other name in.
  assert.equal((await page.goto(AT_STRANGER)).status(), 421)
})

for (const how of ['shared', 'alone']) {
  test(`an old page offers to reload, ${how}`, async () => {
    await open('about:blank')
    if (how === 'alone') await context.addInitScript(() => { delete window.SharedWorker })
    await page.goto(front + '/?type=10')
    await live(page)
    const old = await page.locator('html').getAttribute('data-build')
    await act('front', { is: 'other' })
    await act('stop') // whatever ends the connection
    await act('start')
    await banner('newer').waitFor()
    await gone(banner('lost'))
    await page.locator('html[data-trust=warn] #rows .row').first().waitFor()
    await page.getByRole('link', { name: 'Reload the page' }).click()
    await live(page)
    assert.notEqual(await page.locator('html').getAttribute('data-build'), old)
    assert.equal(new URL(page.url()).search, '?type=10')
    assert.equal(await banner('newer').count(), 0)
  })
}

test('behind TLS and a login that expires', async () => {
  const leader = () => page.getByRole('button', { name: 'I am a leader' })
  await open(AT_TLS + '/?type=10')
  await leader().click()
  await live(page)
  assert.equal(page.url(), AT_TLS + '/?type=10')
  await history()
  const other = await tab()
  await other.goto(AT_TLS)
  await live(other)
  assert.equal(await act('pages'), '1', 'all tabs have one connection')
  await other.close()

  await context.clearCookies()
  await page.locator('#rows .row').first().click()
  await page.locator('#history-state').getByRole('link', { name: 'Sign in again' }).waitFor()
  await page.keyboard.press('Escape')
  await act('stop') // whatever ends the connection
  await act('start')
  await banner('signIn').waitFor()
  await page.getByRole('link', { name: 'Sign in again' }).click()
  await leader().click()
  await live(page)
  assert.equal(page.url(), AT_TLS + '/?type=10')
  assert.equal(await banner('signIn').count(), 0)
  // Without a login, what the page asks for by itself is refused, and all else leads to the login.
  for (const [path, status] of [['/events', 401], ['/worker.js', 401], ['/day', 401], ['/agents/17813/history', 401], ['/api/roster', 401], ['/metrics', 302], ['/', 302]]) {
    assert.equal((await fetch(AT_GUARD + path, { redirect: 'manual' })).status, status, path)
  }
})

test('a page whose script does not run says so', async () => {
  await open('about:blank')
  await context.route(BOARD + '/', async route => { // something on the way that means well
    const response = await route.fetch(), body = await response.text()
    await route.fulfill({ response, body: body.replace('<script type="module">', '<script type="module">/* seen */') })
  })
  await page.goto(BOARD)
  await page.getByText('The script of this page has not run').waitFor()
  assert.equal(await page.locator('#rows .row').count(), 0)
  complaints = complaints.filter(c => !c.includes('Content Security Policy'))
  await open(BOARD, { javaScriptEnabled: false })
  await page.locator('noscript .noscript').waitFor()
  assert.match(await page.locator('noscript .noscript').textContent(), /This page needs JavaScript/)
  await page.waitForTimeout(5500)
  assert.equal(await page.locator('#unstarted').isVisible(), false)
  await open(BOARD)
  await live(page)
  assert.equal(await page.locator('#unstarted').count(), 0)
})
