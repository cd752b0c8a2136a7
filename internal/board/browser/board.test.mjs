// The board in a real browser, against the stage of stage_test.go, which the Go test starts: go test -tags ci ./internal/board

import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { after, afterEach, before, beforeEach, test } from 'node:test'
import { crafted, launch, live, long, stage } from './browser.mjs'

const url = process.env.BOARD
const act = stage(process.env.CONTROL)
const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8')
const first = '17813'

let browser, context, page, complaints
let front, other // what stands before the board, and a board of another build

before(async () => {
  browser = await launch();
  ({ front, other } = JSON.parse(await act('addresses')))
})
after(() => browser?.close())

// open opens the board in a fresh profile. Whatever the browser complains of fails the test at its end.
async function open(path = '/', options = {}, prepare = () => {}, at = url) {
  await context?.close()
  context = await browser.newContext({ viewport: { width: 1280, height: 800 }, locale: 'en-GB', timezoneId: 'Asia/Shanghai', ...options })
  context.setDefaultTimeout(15000)
  page = await context.newPage()
  page.on('console', m => { if (m.type() === 'error' || m.type() === 'warning') complaints.push(m.text()) })
  page.on('pageerror', e => complaints.push(String(e.stack)))
  page.on('dialog', d => { complaints.push(`a dialog: ${d.message()}`); d.dismiss() })
  await prepare(page)
  await page.goto(at + path)
}

beforeEach(async () => {
  complaints = []
  await act('reset')
})
afterEach(async () => {
  await context?.close()
  context = null
  assert.deepEqual(complaints, [], 'the browser complains')
})

// What a browser says of a server that is away can't be helped.
const forgiveNetwork = () => { complaints = complaints.filter(c => !c.startsWith('Failed to load resource')) }

const row = id => page.locator('#rows .row', { hasText: new RegExp(`[a-z.]${id}(?!\\d)`) })
const count = async () => Number((await page.locator('#count').textContent()).replace(/\D/g, ''))
// soon repeats a check until it passes, for at most 15 s: a page draws what happened in its next frame.
const soon = async check => {
  for (const deadline = Date.now() + 15000; ;) {
    try {
      return await check()
    } catch (e) {
      if (Date.now() > deadline) throw e
    }
    await new Promise(r => setTimeout(r, 20))
  }
}
const until = (what, ok) => soon(async () => assert.ok(await ok(), `waited in vain for ${what}`))
const banner = key => page.locator(`#banner [data-problem=${key}]`)
const gone = locator => locator.waitFor({ state: 'detached' })
const feed = text => page.locator('#events li', { hasText: text }).first().waitFor()

test('who signs in appears, and who signs out goes', async () => {
  await act('offline', { id: first })
  await open('/?q=' + first)
  await page.locator('html[data-trust=good]').waitFor()
  await gone(row(first))
  const before = await count()
  await act('online', { id: first })
  await row(first).waitFor()
  await until('the count', async () => await count() === before + 1)
  await feed(/signed in after/)
  await soon(async () => assert.match(await row(first).locator('.state').textContent(), /On duty/))
  await act('offline', { id: first })
  await gone(row(first))
  await feed(/signed out after/)
  await soon(async () => assert.equal(await count(), before))
  await soon(async () => assert.match(await page.title(), new RegExp(`^${before} of \\d+ on duty · rollcall$`)))
})

test('filters narrow the list and live in the address', async () => {
  await open()
  await live(page)
  await page.locator('#type').selectOption({ label: 'Safety inspection' })
  await page.getByRole('radio', { name: /All/ }).check()
  await page.locator('#area').selectOption('华东')
  await page.getByRole('columnheader', { name: 'Account' }).getByRole('button').click()
  await page.getByRole('columnheader', { name: 'Account' }).getByRole('button').click()
  await soon(async () => assert.deepEqual(Object.fromEntries(new URL(page.url()).searchParams), { type: '0', area: '华东', state: 'all', sort: '-account' }))
  const accounts = () => page.locator('#rows .row .account').allTextContents()
  await until('the filter', async () => (await page.locator('#rows .row .type').allTextContents()).every(t => t === 'Safety inspection'))
  const shown = await accounts()
  assert.ok(shown.length > 0)
  assert.deepEqual(shown, [...shown].sort().reverse())
  await soon(async () => assert.ok((await page.locator('#rows .row .area').allTextContents()).every(t => t === '华东')))
  await soon(async () => assert.equal(await page.getByRole('columnheader', { name: 'Account' }).getAttribute('aria-sort'), 'descending'))

  // Somebody else opens the address, and so does who reloads.
  await page.reload()
  await live(page)
  await soon(async () => assert.deepEqual(await accounts(), shown))
  await soon(async () => assert.equal(await page.locator('#area').inputValue(), '华东'))

  await page.locator('#q').fill(shown[0].toUpperCase())
  await until('the search', async () => (await accounts()).length === 1)
  await page.locator('#q').fill('nobody at all')
  await page.getByText('No agent matches.', { exact: true }).first().waitFor()
  await page.getByRole('button', { name: 'Show everyone on duty' }).click()
  await page.locator('#rows .row').first().waitFor()
  await soon(async () => assert.deepEqual(Object.fromEntries(new URL(page.url()).searchParams), { sort: '-account' }))
})

test('an address with nonsense for filters shows what there is', async () => {
  await open('/?state=x&sort=constructor&type=%3Cimg%20src%3Dx%3E&area=__proto__&q=%00')
  await page.locator('html[data-trust=good]').waitFor()
  await page.getByText('No agent matches.', { exact: true }).first().waitFor()
  await soon(async () => assert.equal(await page.locator('#type').locator('option:checked').textContent(), 'Type <img src=x>'))
})

test('names sort as in a Chinese phone book', async () => {
  await open('/?state=all')
  await live(page)
  const names = await page.locator('#rows .row .name bdi').allTextContents()
  assert.ok(names[0].startsWith('陈'), `the first is ${names[0]}`)
  await page.getByRole('columnheader', { name: 'Name' }).getByRole('button').click()
  await until('the other end', async () => (await page.locator('#rows .row .name bdi').first().textContent()).startsWith('诸葛'))
})

test('only what can be seen is in the document', async () => {
  await open('/?state=all')
  await live(page)
  await soon(async () => assert.ok(await page.locator('#rows .row').count() < 60))
  await soon(async () => assert.equal(await page.locator('#table').getAttribute('aria-rowcount'), '341'))
  await page.evaluate(() => scrollTo(0, document.body.scrollHeight))
  await page.locator('#rows .row[aria-rowindex="341"]').waitFor()
  await soon(async () => assert.ok(await page.locator('#rows .row').count() < 60))
  // What is looked at stays in its place while others come above it.
  await page.evaluate(() => scrollTo(0, 6000))
  let at
  await until('the rows', async () => {
    at = await page.evaluate(() => [...document.querySelectorAll('#rows .row')].map(e => [e.agent.id, Math.round(e.getBoundingClientRect().top)])
      .find(([, top]) => top > 300 && top < 700))
    return at
  })
  await act('edit', { id: first, fields: JSON.stringify({ agentName: '"啊啊啊"' }) })
  await feed('啊啊啊')
  const top = await page.evaluate(id => Math.round([...document.querySelectorAll('#rows .row')].find(e => e.agent.id === id)?.getBoundingClientRect().top ?? -1), at[0])
  assert.equal(top, at[1])
})

test('the page comes back when rollcall does', async () => {
  await act('offline', { id: first })
  await open()
  await live(page)
  await page.evaluate(() => { window.mark = 'the same page' })
  const shown = await page.locator('#rows').innerText()
  await act('stop')
  await banner('lost').waitFor({ timeout: 5000 })
  await soon(async () => assert.match(await page.title(), /No connection/))
  await soon(async () => assert.ok((await page.locator('#rows').innerText()).startsWith(shown.slice(0, 200)), 'what was there is still shown'))
  await act('online', { id: first })
  await act('start')
  await gone(banner('lost'))
  await live(page)
  await page.locator('#q').fill(first)
  await row(first).waitFor()
  assert.equal(await page.evaluate(() => window.mark), 'the same page')
  forgiveNetwork()
})

// alone takes the workers away that tabs could share.
const alone = p => p.addInitScript(() => { delete window.SharedWorker })

// Both ways to hear of rollcall.
for (const [how, prepare] of [['shared', () => {}], ['alone', alone]]) {
  test(`a connection that has died in silence is given up, ${how}`, async () => {
    await act('front', { is: 'silent' })
    await open('/', {}, prepare, front)
    await banner('lost').waitFor()
    await act('front')
    await gone(banner('lost'))
    await live(page)
    forgiveNetwork()
  })

  test(`no answer within its time is told, ${how}`, async () => {
    await act('front', { is: 'unanswered' })
    await open('/', {}, prepare, front)
    await banner('lost').waitFor()
    await soon(async () => assert.match(await banner('lost').textContent(), /No answer came within 10 seconds\. It tries again by itself\./))
    await act('front', { is: '503' })
    await page.getByText('The answer was 503.').waitFor()
    await act('front')
    await gone(banner('lost'))
    await live(page)
    forgiveNetwork()
  })

  test(`a login that has expired is told, ${how}`, async () => {
    for (const is of ['302', '401', '403', 'html']) {
      await act('front', { is })
      await open('/?type=10#agents', {}, prepare, front)
      await banner('signIn').waitFor()
      await soon(async () => assert.match(await page.title(), /^⚠ Your login has expired/))
      await soon(async () => assert.equal(await page.locator('html').getAttribute('data-trust'), 'bad'))
      await act('front')
      const link = page.getByRole('link', { name: 'Sign in again' })
      await page.evaluate(() => { window.mark = 'the old page' })
      if (await link.isVisible()) await link.click({ timeout: 1000 }).catch(() => {}) // else it has come back by itself
      await live(page)
      await soon(async () => assert.equal(new URL(page.url()).search, '?type=10'))
    }
    // It expires while the page is open, and while a history is asked for.
    await act('front', { is: 'held' })
    await act('front', { is: '302' })
    await page.locator('#rows .row').first().click()
    await page.locator('#history-state').getByRole('link', { name: 'Sign in again' }).waitFor()
    forgiveNetwork()
  })

  test(`after sleep nothing old is believed, ${how}`, async () => {
    await open('/', {}, async p => {
      await prepare(p)
      await p.addInitScript(() => {
        const real = Date.now
        let slept = 0
        Date.now = () => real() + slept
        window.sleep = async (ms, worker) => {
          if (worker) await new Promise(r => { // front_test.go put a listener before the worker
            const channel = new BroadcastChannel('sleep')
            channel.onmessage = r
            channel.postMessage(ms)
          })
          slept += ms
        }
      })
    }, front)
    await live(page)
    await act('front', { is: 'held' }) // the network is not back yet, but what was on its way arrives later
    const seen = await page.evaluate(async worker => {
      const trust = () => document.documentElement.dataset.trust
      await window.sleep(-3600e3, worker) // the clock is set back
      await new Promise(r => setTimeout(r, 600))
      const back = trust()
      await window.sleep(11 * 3600e3, worker)
      await new Promise(r => setTimeout(r, 600))
      return { back, after: trust(), pulse: document.getElementById('pulse').textContent, title: document.title }
    }, how === 'shared')
    assert.equal(seen.back, 'bad')
    assert.equal(seen.after, 'bad')
    assert.match(seen.title, /^⚠ No connection/)
    assert.doesNotMatch(seen.pulse, /Live/)
    await page.evaluate(() => {
      window.green = []
      const look = () => {
        if (document.documentElement.dataset.trust === 'good') window.green.push(document.getElementById('pulse').textContent)
        requestAnimationFrame(look)
      }
      look()
    })
    await page.waitForTimeout(11000) // what is held is old now
    assert.deepEqual(await page.evaluate(() => window.green), [], 'it was believed while nothing came')
    await act('front') // what was held arrives all at once
    await live(page)
    const green = await page.evaluate(() => window.green)
    assert.ok(green.every(text => / \d(\.\d)? s ago/.test(text)), `old data was believed: ${green[0]}`)
    forgiveNetwork()
  })

  test(`a page that was frozen believes nothing old, ${how}`, async () => {
    await open('/', {}, prepare, front)
    await live(page)
    const cdp = await context.newCDPSession(page)
    await page.evaluate(() => {
      window.believed = []
      new MutationObserver(() => {
        if (document.documentElement.dataset.trust === 'good') window.believed.push(document.getElementById('pulse').textContent)
      }).observe(document.getElementById('pulse'), { subtree: true, characterData: true, childList: true })
    })
    await cdp.send('Page.setWebLifecycleState', { state: 'frozen' })
    await act('online', { id: first })
    await new Promise(r => setTimeout(r, 12000))
    await cdp.send('Page.setWebLifecycleState', { state: 'active' })
    await live(page)
    await page.waitForTimeout(1000)
    const believed = await page.evaluate(() => window.believed)
    assert.ok(believed.every(text => / \d(\.\d)? s ago/.test(text)), `old data was believed: ${believed}`)
    forgiveNetwork()
  })

  test(`nothing is asked for while nobody looks, ${how}`, async () => {
    await open('/', {}, async p => {
      await prepare(p)
      await p.addInitScript(() => {
        let state = 'visible'
        Object.defineProperty(Document.prototype, 'visibilityState', { get: () => state })
        window.look = is => {
          state = is
          document.dispatchEvent(new Event('visibilitychange'))
        }
      })
    })
    await live(page)
    await until('the page to be counted', async () => await act('pages') === '1')
    await page.evaluate(() => window.look('hidden'))
    await soon(async () => assert.notEqual(await page.locator('html').getAttribute('data-trust'), 'good'))
    await soon(async () => assert.doesNotMatch(await page.title(), /\d/))
    await until('the connection to be closed', async () => await act('pages') === '0')
    await act('edit', { id: first, fields: JSON.stringify({ agentName: '"Newly Named"' }) })
    await page.evaluate(() => window.look('visible'))
    await live(page)
    await page.locator('#q').fill('newly')
    await page.getByText('Newly Named').first().waitFor()
    await act('edit', { id: first, fields: JSON.stringify({ agentName: '"王建国"' }) })
  })
}

test('all tabs have one connection, and it ends with the last', async () => {
  await open()
  await live(page)
  const tabs = [page]
  for (let i = 0; i < 7; i++) {
    const tab = await context.newPage()
    await tab.goto(url + '/')
    await live(tab)
    tabs.push(tab)
  }
  assert.equal(await act('pages'), '1')
  await act('online', { id: first })
  for (const tab of tabs) {
    await tab.locator('#q').fill(first)
    await tab.locator('#rows .row').first().click()
    await tab.locator('#past li').first().waitFor()
  }
  // Those that stay hear on when others go.
  for (const tab of tabs.slice(1)) await tab.close()
  await page.keyboard.press('Escape')
  await act('edit', { id: first, fields: JSON.stringify({ capacity: '43' }) })
  await feed('43')
  assert.equal(await act('pages'), '1')
  await page.close()
  await until('the end', async () => await act('pages') === '0')
})

test('a stale picture is told', async () => {
  await open()
  await live(page)
  await act('freeze')
  await banner('stale').waitFor()
  await page.locator('html[data-trust=bad]').waitFor()
  await soon(async () => assert.match(await banner('stale').textContent(), /Out of date.*An update was due by \d\d:\d\d:\d\d/))
  await soon(async () => assert.match(await page.title(), /^⚠ Out of date/))
  await soon(async () => assert.match(await page.locator('#pulse').textContent(), /Out of date · as of \d+ s ago/))
  await act('start')
  await gone(banner('stale'))
  await live(page)
})

test('a wrong clock of the browser changes nothing', async () => {
  for (const wrong of [-86400e3, 86400e3]) {
    await open('/', {}, p => p.addInitScript(wrong => {
      const real = Date.now
      Date.now = () => real() + wrong
    }, wrong))
    await live(page)
    await page.waitForTimeout(1200)
    await until('the right age', async () => /^\s*Live · as of \d s ago/.test(await page.locator('#pulse').textContent()))
  }
})

test('failing and holding are told with their reasons', async () => {
  await open()
  await live(page)
  await act('fault', { is: 'status' })
  await banner('failing').waitFor()
  await soon(async () => assert.match(await banner('failing').textContent(), /ISDP\+ does not answer\. Failing since \d\d:\d\d:\d\d;/))
  await act('fault', { is: 'half' })
  await banner('holding').waitFor()
  await soon(async () => assert.match(await banner('holding').textContent(), /Many agents vanished/))
  await page.locator('html[data-trust=warn]').waitFor()
  await soon(async () => assert.match(await page.locator('#facts').textContent(), /340 not seen/))
  await act('fault')
  await gone(banner('holding'))
  await live(page)
})

test('a log that can\'t be read is told', async () => {
  await open()
  await live(page)
  await act('nats-stop')
  await banner('unread').waitFor()
  await act('start')
  await gone(banner('unread'))
  await live(page)
})

test('what the vendor says is text', async () => {
  const name = '<img src=x onerror=alert(1)><script>alert(2)</script>\u202Elive\u202C "&amp;'
  const area = '</option></select><b id=injected>x</b>'
  await act('edit', { id: first, fields: JSON.stringify({ agentName: JSON.stringify(name), areaName: JSON.stringify(area), agentAccount: JSON.stringify('\u202Eevil' + first) }) })
  await act('online', { id: first })
  await open('/?q=' + first)
  await live(page)
  const cell = page.locator('#rows .row').first()
  await until('the name', async () => await cell.locator('.name bdi').textContent() === name)
  await soon(async () => assert.equal(await cell.locator('.area').textContent(), area))
  await soon(async () => assert.equal(await cell.locator('.account bdi').evaluate(e => getComputedStyle(e).unicodeBidi), 'isolate'))
  await soon(async () => assert.ok((await page.locator('#area').locator('option').allTextContents()).includes(area)))
  await act('edit', { id: first, fields: JSON.stringify({ cityId: JSON.stringify('<b id=injected>') }) })
  await feed('<b id=injected>')
  await cell.click()
  await page.locator('#past li', { hasText: '<b id=injected>' }).first().waitFor()
  await soon(async () => assert.equal(await page.locator('#history-title').textContent(), name))
  assert.equal(await page.locator('#injected, [onerror], #rows img, #past img, #events img').count(), 0)
  await soon(async () => assert.match(await page.title(), /on duty · rollcall$/))
})

test('an agent\'s history, by keyboard', async () => {
  await act('edit', { id: first, fields: JSON.stringify({ agentName: '"王建国"', agentAccount: `"jianguo.wang${first}"`, areaName: '"华东"' }) })
  await act('online', { id: first })
  await open('/?q=' + first)
  await live(page)
  await page.locator('#q').focus()
  for (let i = 0; i < 30 && !await page.evaluate(() => document.activeElement.closest('#rows')); i++) await page.keyboard.press('Tab')
  await page.keyboard.press('Enter')
  const dialog = page.getByRole('dialog', { name: '王建国' })
  await dialog.waitFor()
  await page.locator('#past li').first().waitFor()
  await soon(async () => assert.match(await dialog.textContent(), new RegExp(`Id${first}`)))
  await soon(async () => assert.match(await page.locator('#past').textContent(), /between \d\d:\d\d:\d\d and/))
  // It goes on while the dialog is open.
  await act('edit', { id: first, fields: JSON.stringify({ capacity: '77' }) })
  await page.locator('#past li', { hasText: '→ became 77' }).waitFor()
  await page.keyboard.press('Escape')
  await dialog.waitFor({ state: 'hidden' })
  await soon(async () => assert.ok(await page.evaluate(() => Boolean(document.activeElement.closest('#rows'))), 'the focus is back'))
  // The focus stays in the list when its agent leaves it.
  const other = '17814'
  await act('online', { id: other })
  await page.locator('#q').fill('1781')
  await row(first).getByRole('button').focus()
  await row(other).waitFor()
  await act('offline', { id: first })
  await gone(row(first))
  await soon(async () => assert.ok(await page.evaluate(() => Boolean(document.activeElement.closest('#rows'))), 'the focus stays in the list'))
  await page.getByText('Skip to the agents').focus()
  await page.keyboard.press('Enter')
  await soon(async () => assert.equal(await page.evaluate(() => document.activeElement.id), 'agents'))
})

test('a history that can\'t be read is told, and tried again', async () => {
  await act('online', { id: first })
  await open('/?q=' + first)
  await live(page)
  await page.route('**/history', r => r.fulfill({ status: 503, body: 'no' }), { times: 1 })
  await row(first).click()
  await page.getByText('can\'t be read at the moment').waitFor()
  await page.getByRole('button', { name: 'Try again' }).click()
  await page.locator('#past li').first().waitFor()
  forgiveNetwork()
})

test('what just happened can be paused', async () => {
  await open()
  await live(page)
  await page.getByRole('button', { name: 'Pause' }).click()
  await page.mouse.move(5, 5)
  await page.locator('#q').focus()
  const top = await page.locator('#events').textContent()
  await act('edit', { id: first, fields: JSON.stringify({ capacity: '41' }) })
  await page.getByText('1 newer, waiting').waitFor()
  assert.equal(await page.locator('#events').textContent(), top)
  await page.getByRole('button', { name: 'Resume' }).click()
  await page.mouse.move(5, 5)
  await page.locator('#q').focus()
  await feed('41')
})

test('one page too many is told so', async () => {
  await until('the pages of the tests before to be gone', async () => await act('pages') === '0')
  await act('full', { most: 1 })
  const another = new AbortController()
  await fetch(url + '/events', { signal: another.signal })
  await until('another one reads', async () => await act('pages') === '1')
  await open()
  await banner('full').waitFor()
  await soon(async () => assert.match(await banner('full').textContent(), /1 pages at a time/))
  another.abort()
  await gone(banner('full'))
  await live(page)
})

test('removed agents are behind a switch of their own', async () => {
  await open()
  await live(page)
  await soon(async () => assert.equal(await page.getByRole('radio', { name: /Removed/ }).isVisible(), false))
  await act('delete', { id: '17820' })
  await page.getByRole('radio', { name: /Removed 1/ }).check()
  await row('17820').waitFor()
  await soon(async () => assert.match(await row('17820').textContent(), /Removed/))
})

test('Chinese', async () => {
  await open('/?state=all&q=chen', { locale: 'zh-CN' })
  await live(page)
  await soon(async () => assert.equal(await page.locator('html').getAttribute('lang'), 'zh-CN'))
  const text = await page.locator('body').innerText()
  for (const word of ['人在岗', '名坐席中的', '按区域', '搜索', '数据可信吗？', '最新动态', '视频通话', '实时 · 截至']) assert.ok(text.includes(word), word)
  const own = await page.evaluate(() => { // without what the vendor says
    const copy = document.body.cloneNode(true)
    for (const e of copy.querySelectorAll('bdi, #area, noscript')) e.remove()
    return copy.textContent
  })
  assert.deepEqual(own.replaceAll(/rollcall|English|ISDP\+|JavaScript|chen/g, '').match(/[A-Za-z]{3,}/g), null, 'words that are not Chinese')
  await act('freeze')
  await banner('stale').waitFor()
  await soon(async () => assert.match(await banner('stale').textContent(), /数据已过期/))
  await act('start')
  await gone(banner('stale'))
  // The other language keeps the filter.
  await page.getByRole('link', { name: 'English' }).click()
  await page.getByText(/^of \d+ on duty$/).waitFor()
  await soon(async () => assert.deepEqual(Object.fromEntries(new URL(page.url()).searchParams), { state: 'all', q: 'chen', lang: 'en' }))
})

test('on a phone', async () => {
  await open('/', { viewport: { width: 360, height: 740 }, isMobile: true, hasTouch: true })
  await live(page)
  await soon(async () => assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), 'no scrolling sideways'))
  await page.locator('#sort').selectOption('-since')
  await until('the order', async () => page.url().includes('sort=-since'))
  await page.getByRole('link', { name: 'What just happened' }).tap()
  await until('the jump', async () => page.evaluate(() => {
    const r = document.getElementById('happened').getBoundingClientRect()
    return r.top >= 0 && r.top < innerHeight
  }))
})

// audit has axe look at the page as it is.
async function audit(where) {
  const { violations } = await page.evaluate(async source => {
    if (!window.axe) new Function(source)() // the policy forbids it to pages, not to the test
    return window.axe.run(document, { resultTypes: ['violations'] })
  }, axe)
  assert.deepEqual(violations.map(v => `${where}: ${v.id}: ${v.nodes.map(n => n.target.join(' ')).slice(0, 3).join(', ')}: ${v.nodes[0].failureSummary}`), [])
}

for (const colorScheme of ['light', 'dark']) {
  for (const locale of ['en-GB', 'zh-CN']) {
    test(`accessibility, ${colorScheme}, ${locale}`, async () => {
      await act('online', { id: first })
      await open('/?state=all', { colorScheme, locale })
      await live(page)
      await act('edit', { id: first, fields: JSON.stringify({ areaName: Math.random() < .5 ? '"华南"' : '"华北"', capacity: String(Math.floor(Math.random() * 1e6)) }) })
      await page.locator('#events li').first().waitFor()
      await audit('live')
      await page.locator('#rows .row').first().click()
      await page.locator('#past li').first().waitFor()
      await audit('history')
      await page.keyboard.press('Escape')
      await act('fault', { is: 'half' })
      await banner('holding').waitFor()
      await audit('holding')
      await act('fault')
      await act('freeze')
      await banner('stale').waitFor()
      await audit('stale')
      await act('start')
      await live(page)
    })
  }
}

// What takes longer to come about than a test.

const hour = 3600e3, day = 24 * hour
const staff = [ // as crafted takes them
  ['1', '王建国', 'jianguo.wang1', '0', '华东', 5, 1, 11 * hour, 0],
  ['2', '单田芳', 'tianfang.shan2', '0', '华东', 3, 1, hour, 1],
  ['3', '张丽', 'li.zhang3', '10', '华东', 2, 1, 2 * hour, 0],
  ['4', '吕布', 'bu.lv4', '10', '华南', 2, 1, 3 * hour, 0],
  ['5', '陈芳', 'fang.chen5', '10', null, null, 0, 4 * hour, 0],
  ['6', '\u00a0 \u200b\u3000', 'blank6', '10', '华东', 1, 0, 20 * day, 1],
  ['7', '=HYPERLINK("http://x.invalid","a, b")', 'evil7', '77', '华东', 1, 1, 100 * day, 1],
  ['8', '李娜', 'na.li8', '0', '华南', 1, 2, 5 * 60e3, 0],
]
const happening = (id, agent, name, online) => ({ id, agent, name, type: online ? 'agent.online' : 'agent.offline', online, reason: 'status',
  time: Date.now() - 1000, notBefore: Date.now() - 2000, since: Date.now() - 1000, previousSince: Date.now() - 3600e3, atLeast: true, revision: 2, changes: [], truncated: false, deleted: false })

// craft opens a board with agents of the test's own making.
async function craft(t, rows, path = '/', options = {}, more = {}) {
  const board = await crafted(url, rows, more)
  t.after(() => board.close())
  await open(path, options, () => {}, board.url)
  return board
}
const texts = locator => locator.allTextContents()
const names = () => texts(page.locator('#rows .row .name bdi'))

test('the number is of those who are asked for', async t => {
  await craft(t, staff, '/', {}, { events: [happening('a', '3', '张丽', true), happening('b', '4', '吕布', true)] })
  await live(page)
  const head = async () => (await page.locator('h1').innerText()).replaceAll(/[\u2068\u2069]/g, '').replaceAll(/\s+/g, ' ')
  await soon(async () => assert.equal(await head(), '5 on duty of 7 agents'))
  await soon(async () => assert.equal(await page.title(), '5 On duty · rollcall'))
  const tally = name => page.locator('#tallies').getByRole('button', { name })
  await soon(async () => assert.deepEqual(await texts(page.locator('#by-type button')), ['Safety inspection 2', 'Video call 2', 'Type 77 1']))
  await soon(async () => assert.deepEqual(await texts(page.locator('#by-area button')), ['华东 4', '华南 1', 'No area 0']))

  await tally('Video call').click()
  await soon(async () => assert.equal(await head(), '2 of 5 on duty Video call: 4 of 7 agents'))
  await tally('华东').click()
  await soon(async () => assert.equal(await tally('华东').getAttribute('aria-pressed'), 'true'))
  await soon(async () => assert.equal(await head(), '1 of 5 on duty Video call · 华东: 2 of 7 agents'))
  await soon(async () => assert.equal(await page.title(), '1 of 5 on duty · rollcall'))
  await soon(async () => assert.deepEqual(await names(), ['张丽']))
  await soon(async () => assert.deepEqual(await texts(page.locator('.switch label:visible')), ['On duty 1', 'Off duty 1', 'Removed 0', 'All 2']))
  await soon(async () => assert.deepEqual(await texts(page.locator('#by-type b')), ['2', '1', '1'], 'of 华东'))
  await soon(async () => assert.deepEqual(await texts(page.locator('#by-area b')), ['1', '1', '0'], 'of video call'))
  await soon(async () => assert.deepEqual(await texts(page.locator('#events li .link')), ['张丽']))
  await page.getByText('Only of the agents that the filter lets through.').waitFor()
  await soon(async () => assert.deepEqual(Object.fromEntries(new URL(page.url()).searchParams), { type: '10', area: '华东' }))
  await soon(async () => assert.equal(await page.locator('#type').inputValue(), '10'))

  // Another click chooses all again, and the counts are of the state that is shown.
  await tally('Video call').click()
  await soon(async () => assert.equal(await head(), '4 of 5 on duty 华东: 5 of 7 agents'))
  await page.getByRole('radio', { name: /Off duty/ }).check()
  await soon(async () => assert.deepEqual(await texts(page.locator('#by-area b')), ['1', '0', '1']))
  await soon(async () => assert.deepEqual(await names(), ['(no name)']))
  await page.locator('#q').fill('zhang')
  await soon(async () => assert.equal(await head(), '1 of 5 on duty 华东 · zhang: 1 of 7 agents'))
})

test('the number follows what happens', async () => {
  await act('edit', { id: first, fields: JSON.stringify({ areaName: '"南沙"' }) })
  await act('online', { id: first })
  await open('/?area=南沙')
  await live(page)
  await until('who is there', async () => await count() === 1)
  const button = page.locator('#by-area button', { hasText: '南沙' })
  await soon(async () => assert.match(await button.textContent(), /南沙 1$/))
  await act('offline', { id: first })
  await until('nobody', async () => await count() === 0)
  await soon(async () => assert.match(await page.title(), /^0 of \d+ on duty/))
  await soon(async () => assert.match(await button.textContent(), /南沙 0$/))
  await act('online', { id: first })
  await until('who is back', async () => await count() === 1)
  // A new area can be chosen, and what is chosen stays when nobody is left there.
  await act('edit', { id: first, fields: JSON.stringify({ areaName: '"西沙"' }) })
  await page.locator('#by-area button', { hasText: '西沙' }).waitFor()
  await until('nobody', async () => await count() === 0)
  await soon(async () => assert.equal(await button.getAttribute('aria-pressed'), 'true'))
})

test('what was only found at a reading may have begun before', async t => {
  await craft(t, staff, '/?state=all')
  await live(page)
  const since = async name => (await page.locator('#rows .row', { hasText: name }).locator('.since .for').textContent())
  await soon(async () => assert.equal(await since('王建国'), '11 h 00 min'))
  await soon(async () => assert.equal(await since('单田芳'), '≥ 1 h 00 min'))
  await soon(async () => assert.match(await page.locator('#rows .row', { hasText: '单田芳' }).locator('time').getAttribute('title'), /^first seen .* it may have begun before that$/))
  await page.getByRole('button', { name: '单田芳' }).click()
  await soon(async () => assert.match(await page.locator('#about').textContent(), /Seen since≥ 1 h 00 min · /))
  await page.keyboard.press('Escape')
  // In the removed list it is the time of the removal.
  await page.getByRole('radio', { name: /Removed/ }).check()
  await soon(async () => assert.equal(await page.locator('#rows .row .since').innerText(), await page.locator('#rows .row time').innerText()))
  await page.getByRole('button', { name: '李娜' }).click()
  await soon(async () => assert.match(await page.locator('#about').textContent(), /Removed5 min · /))
})

test('at the first reading rollcall does not know since when', async () => {
  await act('online', { id: first })
  await open('/?state=all&q=' + first)
  await live(page)
  await act('edit', { id: '17815', fields: JSON.stringify({ capacity: '9' }) })
  await page.locator('#q').fill('17815')
  await soon(async () => assert.match(await row('17815').locator('.since').textContent(), /^≥ /))
  await row('17815').click()
  await soon(async () => assert.match(await page.locator('#about').textContent(), /Seen since≥ /))
  await soon(async () => assert.match(await page.locator('#past').textContent(), /was (not )?on duty at the first reading/))
  await page.keyboard.press('Escape')
  const online = (await row('17815').locator('.state').textContent()) === 'On duty'
  await act(online ? 'offline' : 'online', { id: '17815' })
  await feed(/signed (in|out) after at least \d/)
  await until('what is known', async () => /^\d/.test(await row('17815').locator('.since').textContent()))
})

for (const locale of ['en-GB', 'zh-CN']) {
  test(`nothing is cut at any width, ${locale}`, async t => {
    await craft(t, long, '/?state=all&warn=1h', { locale })
    await live(page)
    await page.keyboard.press('Control+f') // all rows
    await until('all rows', async () => await page.locator('#rows .row').count() === long.length)
    for (const width of [320, 360, 414, 480, 560, 600, 640, 680, 708, 736, 764, 800, 860, 930, 996, 1024, 1040, 1087, 1088, 1100, 1200, 1280, 1343, 1344, 1366, 1440, 1663, 1664, 1920, 2560]) {
      for (const state of ['all', 'on']) {
        await page.setViewportSize({ width, height: 900 })
        const wrong = await page.evaluate(async state => {
          const radio = document.querySelector(`input[value=${state}]`)
          if (!radio.checked) radio.click()
          await new Promise(r => requestAnimationFrame(() => requestAnimationFrame(r)))
          const found = [], text = e => {
            const range = document.createRange()
            range.selectNodeContents(e)
            return range.getBoundingClientRect()
          }
          if (document.documentElement.scrollWidth > innerWidth) found.push(`scrolls sideways by ${document.documentElement.scrollWidth - innerWidth}`)
          const table = document.querySelector('#table').getBoundingClientRect()
          for (const row of document.querySelectorAll('#rows .row')) {
            const box = row.getBoundingClientRect()
            for (const e of row.querySelectorAll('.since .for, .since time, .capacity > :first-child')) {
              const r = text(e)
              if (r.width === 0) continue
              if (r.left < table.left || r.right > table.right || r.top < box.top - 1 || r.bottom > box.bottom + 1) found.push(`outside: ${e.textContent}`)
              for (let a = e.parentNode; a !== row; a = a.parentNode) {
                const c = a.getBoundingClientRect()
                if (getComputedStyle(a).overflow !== 'visible' && (r.right > c.right + 1 || r.left < c.left - 1)) found.push(`cut: ${e.textContent}`)
              }
              for (const other of row.querySelectorAll('.name, .account, .type, .area, .capacity, .since time, .since .for')) {
                if (other.contains(e) || e.contains(other)) continue
                const o = other.getBoundingClientRect()
                if (o.width > 1 && o.left < r.right - 1 && r.left < o.right - 1 && o.top < r.bottom - 4 && r.top < o.bottom - 4) found.push(`over ${other.className}: ${e.textContent}`)
              }
            }
          }
          return [...new Set(found)].slice(0, 5)
        }, state)
        assert.deepEqual(wrong, [], `${width} px, ${state}`)
      }
    }
  })
}

test('by keyboard: arrows in the lists, / for the search, links past them', async t => {
  await craft(t, long, '/?state=all')
  await live(page)
  await page.locator('#rows .row').first().waitFor()
  await page.locator('body').press('/')
  const at = () => page.evaluate(() => document.activeElement.id || document.activeElement.closest('[id]')?.id)
  await soon(async () => assert.equal(await at(), 'q'))
  await page.keyboard.type('/')
  await soon(async () => assert.equal(await page.locator('#q').inputValue(), '/', 'who writes one means it'))
  await page.locator('#q').fill('')
  let stops = 0
  for (; await at() !== 'pause'; stops++) {
    assert.ok(stops < 12, `still in ${await at()} after ${stops} stops`)
    await page.keyboard.press('Tab')
  }
  await page.locator('#rows .row button').first().focus()
  const index = () => page.evaluate(() => Number(document.activeElement.closest('#rows .row')?.ariaRowIndex))
  const begin = await index()
  await page.keyboard.press('ArrowDown')
  await page.keyboard.press('ArrowDown')
  await page.keyboard.press('ArrowUp')
  await soon(async () => assert.equal(await index(), begin + 1))
  await page.keyboard.press('End')
  await soon(async () => assert.equal(await index(), long.length + 1))
  const seen = () => page.evaluate(() => {
    const r = document.activeElement.getBoundingClientRect()
    return document.elementFromPoint(r.left + 2, r.top + r.height / 2)?.closest('button') === document.activeElement
  })
  await soon(async () => assert.ok(await seen(), 'the last row is not in sight'))
  await page.keyboard.press('PageUp')
  await soon(async () => assert.ok(await index() < long.length))
  await page.keyboard.press('Home')
  await soon(async () => assert.equal(await index(), 2))
  await soon(async () => assert.ok(await seen(), 'the first row is not in sight'))
  await page.locator('#by-type button').first().focus()
  await page.keyboard.press('ArrowRight')
  await page.keyboard.press('Enter')
  await soon(async () => assert.equal(await page.locator('#by-type [aria-pressed=true]').textContent(), 'Quality inspection 12'))
  // The links to the parts show as soon as the keyboard comes to them.
  const links = page.locator('#sections a')
  await links.last().focus()
  await soon(async () => assert.ok((await links.last().boundingBox()).height > 10))
  await page.keyboard.press('Enter')
  await soon(async () => assert.equal(await at(), 'happened'))
})

test('with colours of the reader\'s own, and edges that can be seen', async t => {
  await craft(t, staff, '/?state=all&warn=10h', { forcedColors: 'active' })
  await live(page)
  const look = selector => page.locator(selector).first().evaluate(e => {
    const s = getComputedStyle(e)
    return [s.backgroundColor, s.borderTopWidth, s.borderTopColor].join(' ')
  })
  await soon(async () => assert.notEqual(await look('.switch input:checked + span'), await look('.switch input:not(:checked) + span')))
  await soon(async () => assert.notEqual(await look('.row.on .dot'), await look('.row.off .dot')))
  await page.locator('#by-area button').first().click()
  await soon(async () => assert.notEqual(await look('#by-area [aria-pressed=true]'), await look('#by-area [aria-pressed=false]')))
  await audit('forced colours')

  for (const colorScheme of ['light', 'dark']) {
    await craft(t, staff, '/?state=all', { colorScheme })
    await live(page)
    const weak = await page.evaluate(() => {
      const rgb = c => c.match(/[\d.]+/g).slice(0, 3).map(Number)
      const light = c => rgb(c).map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4).reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0)
      const ratio = (a, b) => (Math.max(light(a), light(b)) + 0.05) / (Math.min(light(a), light(b)) + 0.05)
      const ground = e => {
        const c = getComputedStyle(e).backgroundColor
        return c !== 'rgba(0, 0, 0, 0)' ? c : e.parentElement ? ground(e.parentElement) : 'rgb(255, 255, 255)'
      }
      return [...document.querySelectorAll('#q, select, #pause, #csv, #tallies button, .switch span, .row.off .dot')].filter(e => e.offsetParent)
        .map(e => [e.id || e.className || e.textContent, ratio(getComputedStyle(e).borderTopColor, ground(e.parentElement))]).filter(([, r]) => r < 3)
    })
    assert.deepEqual(weak, [], colorScheme)
  }
})

test('the banner speaks to shift leaders, the detail is behind a fold', async t => {
  const detail = 'get a token from http://10.0.0.1/auth: connection refused'
  for (const [reason, en, zh] of [['unreachable', 'ISDP+ does not answer', 'ISDP+ 没有响应'], ['credentials', 'ISDP+ no longer lets rollcall in', 'ISDP+ 不再允许'], ['something-new', 'The list of agents can\'t be read', '坐席名单读取不了']]) {
    const health = { state: 'failing', reason, detail, since: Date.now() - 60e3 }
    for (const [locale, words] of [['en-GB', en], ['zh-CN', zh]]) {
      await craft(t, staff, '/', { locale }, { trust: { health } })
      await banner('failing').waitFor()
      const shown = await banner('failing').innerText()
      assert.ok(shown.includes(words), shown)
      assert.ok(!shown.includes('10.0.0.1'), shown)
      await banner('failing').locator('summary').click()
      await soon(async () => assert.ok((await banner('failing').innerText()).includes(`${reason}: ${detail}`)))
    }
  }
})

test('?wall is all numbers, on any screen, and never stale unnoticed', async t => {
  for (const [width, height] of [[1920, 1080], [1080, 1920], [1280, 720], [3840, 2160]]) {
    await craft(t, long, '/?wall', { viewport: { width, height } })
    await page.locator('html[data-trust=good] #by-type b').first().waitFor()
    await until('it fits', async () => page.evaluate(() => {
      const root = document.documentElement, main = document.querySelector('main')
      return root.scrollWidth <= innerWidth && main.offsetTop + main.offsetHeight <= innerHeight && main.offsetTop + main.offsetHeight > innerHeight * .6
    }))
    await soon(async () => assert.equal(await page.locator('button:visible, input:visible, select:visible, a:visible').count(), 0, 'controls'))
    await soon(async () => assert.ok(await page.locator('#by-type b').first().evaluate(e => parseFloat(getComputedStyle(e).fontSize)) > height / 40))
    await audit('wall')
  }
  await open('/?wall&type=10')
  await page.locator('html[data-trust=good]').waitFor()
  await soon(async () => assert.match(await page.locator('h1').innerText(), /of \d+ on duty/))
  await act('freeze')
  await banner('stale').waitFor()
  await soon(async () => assert.equal(await page.locator('#count').evaluate(e => getComputedStyle(e).textDecorationLine), 'line-through'))
  await act('start')
  await gone(banner('stale'))
})

test('?wall reloads by itself when rollcall is of another build', async t => {
  const board = await crafted(url, staff, { build: 'another' })
  t.after(() => board.close())
  await open('/?wall', {}, p => p.addInitScript(() => {
    const real = window.setTimeout
    window.setTimeout = (f, ms, ...rest) => real(f, ms === 60000 ? 500 : ms, ...rest)
  }), board.url)
  await page.evaluate(() => { window.mark = 'the old page' })
  await banner('newer').waitFor()
  await until('another page', async () => page.evaluate(() => window.mark === undefined).catch(() => false))
  forgiveNetwork()
})

test('what changes is marked for a moment, and nothing is at the beginning', async t => {
  await act('offline', { id: first })
  await open('/?state=all&q=' + first)
  await live(page)
  await page.evaluate(() => {
    window.marked = new Set()
    const look = () => {
      for (const a of document.getAnimations()) if (a.effect.target?.classList.contains('row')) window.marked.add(a.effect.target.agent.id)
      requestAnimationFrame(look)
    }
    look()
  })
  await act('online', { id: first })
  await until('the mark', async () => page.evaluate(() => window.marked.size > 0))
  assert.deepEqual(await page.evaluate(() => [...window.marked]), [first])
  await page.emulateMedia({ reducedMotion: 'reduce' })
  await page.evaluate(() => { for (const a of document.getAnimations()) a.cancel(); window.marked.clear() })
  await act('offline', { id: first })
  await until('the change', async () => /Off duty/.test(await row(first).locator('.state').textContent()))
  assert.equal(await page.evaluate(() => window.marked.size), 0, 'who wants no motion gets none')
})

test('?warn marks who has been on duty for longer', async t => {
  await craft(t, staff, '/?state=all&warn=10h')
  await live(page)
  await soon(async () => assert.equal(await page.locator('#long').textContent(), '2 on duty for longer than 10 h 00 min'))
  await soon(async () => assert.deepEqual(await texts(page.locator('#rows .row.long .name bdi')), [staff[6][1], '王建国']))
  await page.locator('#type').selectOption('0')
  await soon(async () => assert.equal(await page.locator('#long').textContent(), '1 on duty for longer than 10 h 00 min'))
  for (const bad of ['', '10', 'x', '-1h', '0h', '1h2']) {
    await craft(t, staff, '/?warn=' + bad)
    await live(page)
    await soon(async () => assert.match(await page.locator('#long').textContent(), /is no time: write warn=10h/))
    await soon(async () => assert.equal(await page.locator('.row.long').count(), 0))
  }
})

test('the view as CSV', async t => {
  await craft(t, staff, '/?state=all&area=华东&sort=since')
  await live(page)
  const [download] = await Promise.all([page.waitForEvent('download'), page.getByRole('button', { name: 'CSV' }).click()])
  assert.match(download.suggestedFilename(), /^rollcall-886-\d{4}-\d\d-\d\dT\d{6}Z\.csv$/)
  const lines = readFileSync(await download.path(), 'utf8').split('\r\n')
  assert.equal(lines[0], '\ufeffId,Name,Account,Type,Area,Capacity,State,Since,On duty or off since before that')
  assert.equal(lines.length, 7, lines.join('\n')) // the last line ends too
  assert.match(lines[1], /^7,"'=HYPERLINK\(""http:\/\/x\.invalid"",""a, b""\)",evil7,Type 77,华东,1,On duty,\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+08:00,yes$/)
  assert.match(lines[2], /^6,,blank6,Video call,华东,1,Off duty,/)
  assert.match(lines[3], /^1,王建国,jianguo\.wang1,Safety inspection,华东,5,On duty,.*,no$/)
})

test('who has no area is not who has one that is called so', async t => {
  await craft(t, [['1', '王芳', 'a', '10', 'none', 1, 1, hour], ['2', '李娜', 'b', 'none', null, 1, 1, hour], ['3', '张丽', 'c', null, 'none ', 1, 1, hour]], '/?area=none')
  await live(page)
  await soon(async () => assert.deepEqual(await names(), ['李娜']))
  await soon(async () => assert.deepEqual(await texts(page.locator('#by-area button')), ['none 1', 'none  1', 'No area 1']))
  for (const [label, name] of [['none', '王芳'], ['none ', '张丽'], ['No area', '李娜']]) {
    await page.locator('#by-area button', { has: page.locator('bdi', { hasText: new RegExp(`^${label}$`) }) }).click()
    await soon(async () => assert.deepEqual(await names(), [name]))
    await page.reload()
    await live(page)
    await soon(async () => assert.deepEqual(await names(), [name], 'by its address'))
  }
  assert.equal(new URL(page.url()).search, '?area=none')
  await page.locator('#area').selectOption('')
  await page.locator('#type').selectOption({ label: 'No type' })
  await soon(async () => assert.deepEqual(await names(), ['张丽']))
})

test('zoomed in to 400 per cent, what is wrong leaves room for the list', async t => {
  const health = { state: 'failing', reason: 'unreachable', detail: '', since: Date.now() - 60e3 }
  for (const locale of ['en-GB', 'zh-CN']) {
    await craft(t, staff, '/?state=all', { locale, viewport: { width: 320, height: 256 } }, { trust: { health, watermark: { until: Date.now() - 1000 } } })
    await banner('stale').waitFor()
    await banner('failing').waitFor()
    await page.locator('#table').evaluate(e => e.scrollIntoView())
    await soon(async () => assert.ok(await page.evaluate(() => {
      const seen = e => {
        const { left, top, height } = e.getBoundingClientRect()
        return e.contains(document.elementFromPoint(left + 20, top + height / 2))
      }
      return [...document.querySelectorAll('#rows .row')].filter(seen).length >= 1 && seen(document.getElementById('pulse'))
    })))
  }
})

test('on paper, and for the browser\'s own search, all rows are there', async t => {
  await craft(t, Array.from({ length: 400 }, (_, i) => [String(i), `Agent ${i}`, 'a' + i, '0', null, 1, 1, hour, 0]))
  await live(page)
  await soon(async () => assert.ok(await page.locator('#rows .row').count() < 60))
  await page.emulateMedia({ media: 'print' })
  await page.evaluate(() => dispatchEvent(new Event('beforeprint')))
  await soon(async () => assert.equal(await page.locator('#rows .row').count(), 400))
  const last = await page.locator('#rows .row').last().boundingBox()
  const before = await page.locator('#rows .row').nth(398).boundingBox()
  assert.ok(last.y > before.y, 'rows lie above one another')
  await page.evaluate(() => dispatchEvent(new Event('afterprint')))
  await page.emulateMedia({ media: 'screen' })
  await until('only what can be seen', async () => await page.locator('#rows .row').count() < 60)
  await page.keyboard.press('Control+f')
  await until('all rows', async () => await page.locator('#rows .row').count() === 400)
})

test('a link to one agent', async () => {
  await act('edit', { id: first, fields: JSON.stringify({ agentName: '"王建国"' }) })
  await open(`/?agent=${first}&type=2`)
  await page.getByRole('dialog', { name: '王建国' }).waitFor()
  await page.locator('#past li').first().waitFor()
  await page.keyboard.press('Escape')
  await until('the address', async () => new URL(page.url()).search === '?type=2')
  await page.getByRole('radio', { name: /All/ }).check()
  await page.locator('#type').selectOption('')
  await page.locator('#q').fill(first)
  await row(first).click()
  await soon(async () => assert.equal(new URL(page.url()).searchParams.get('agent'), first))
  await open('/?agent=')
  await live(page)
  assert.equal(await page.locator('dialog[open]').count(), 0)
  await open('/?agent=no%2Fbody')
  await page.getByRole('dialog', { name: 'No such agent' }).waitFor()
  await page.getByText('no longer has events of this agent').waitFor()
  forgiveNetwork()
})

test('names are found by pinyin', async t => {
  await craft(t, [...staff, ['9', '重庆赵', 'x9', '0', null, 1, 1, hour, 0], ['10', 'Wang Li', 'x10', '0', null, 1, 1, hour, 0]], '/?state=all')
  await live(page)
  for (const [query, found] of [['wangjianguo', ['王建国']], ['WJG', ['王建国']], ['jianguo', ['王建国']], ['zhangli', ['张丽']], ['shan', ['单田芳']], ['dantian', ['单田芳']],
    ['lvbu', ['吕布']], ['wang', ['王建国', 'Wang Li']], ['zl', ['张丽']], ['王', ['王建国']], ['qxz', []]]) {
    await page.locator('#q').fill(query)
    await soon(async () => {
      const shown = await names()
      for (const name of found) assert.ok(shown.includes(name), `${query}: ${shown}`)
      if (!found.length) assert.deepEqual(shown, [], query)
      assert.ok(!shown.includes('陈芳'), `${query}: ${shown}`)
    })
  }
})

// dayOf is GET /day: points an hour apart would be few, so they are a quarter of one apart.
function dayOf(on, unknown) {
  const step = hour / 4, to = Date.now(), from = Math.ceil((to - day) / step) * step
  const at = ago => Math.ceil((to - ago * hour - from) / step)
  return { from, step, points: Math.floor((to - from) / step) + 1, on: on.map(([type, area, ...changes]) => ({ type, area, changes: changes.map(([ago, more]) => [Math.max(0, at(ago)), more]) })),
    unknown: unknown.map(([type, a, b]) => ({ type, from: to - a * hour, to: to - b * hour })) }
}

test('the last day as a curve, what nobody knows is blank', async t => {
  const days = { '/day': dayOf([['0', '华东', [24, 5], [10, 7], [1, -10]], ['10', '华东', [12, 1]], ['10', '', [4, 2]]], [['0', 8, 6], ['10', 7, 5]]) }
  await craft(t, staff, '/', {}, { days })
  await live(page)
  const say = async () => {
    await page.locator('#day figcaption').waitFor()
    return page.locator('#day figcaption').textContent()
  }
  await soon(async () => assert.match(await say(), /^most 15, at [^;]+; fewest 5, at .* · not known for 3 h 00 min$/))
  // Where the line is: from so many hours ago to so many.
  const lines = () => page.locator('#day .line').evaluate(e => e.getAttribute('d').split('M').filter(Boolean)
    .map(l => [l.split(' ')[0], l.match(/H([\d.]+)$/)[1]].map(x => Math.round((1 - x / 1000) * 240) / 10)))
  await soon(async () => assert.deepEqual(await lines(), [[24, 8], [5, 0]]))
  await soon(async () => assert.match(await page.locator('#day svg').getAttribute('aria-label'), /^On duty in the last 24 hours: most 15/))
  await audit('a curve')

  await page.locator('#type').selectOption('10')
  await soon(async () => assert.match(await say(), /^most 3, at [^;]+; fewest 0, at .* · not known for 2 h 00 min$/))
  await soon(async () => assert.deepEqual(await lines(), [[24, 7], [5, 0]]))
  await page.locator('#area').selectOption({ label: 'No area' })
  await soon(async () => assert.match(await say(), /^most 2,/))
  await page.locator('#q').fill('zhang') // which nobody counts
  await until('no curve', async () => page.locator('#day').isHidden())

  await craft(t, staff, '/', { locale: 'zh-CN', colorScheme: 'dark' }, { days })
  await live(page)
  await soon(async () => assert.match(await say(), /^最多 15 人（.+），最少 5 人（.+） · 其中 3 小时 00 分情况不明$/))
  await audit('a curve, Chinese, dark')

  await craft(t, staff, '/', {}, { days: { '/day': null } })
  await page.getByText("The last 24 hours can't be read at the moment.").waitFor()
  forgiveNetwork()
})

test('an agent\'s last day as bars', async t => {
  const to = Date.now()
  const intervals = [['unknown', 24, 20], ['off', 20, 9], ['on', 9, 5], ['unknown', 5, 4.5], ['off', 4.5, 0.001], ['on', 0.001, 0]]
    .map(([state, a, b]) => ({ state, from: to - a * hour, to: to - b * hour }))
  const days = { '/agents/1/day': { from: to - day, to, intervals }, '/agents/2/day': null, '/agents/3/day': { from: to - day, to, intervals: [] } }
  for (const options of [{}, { forcedColors: 'active' }]) {
    await craft(t, staff, '/?agent=1', options, { days })
    const bars = page.locator('#agents-day rect')
    await bars.first().waitFor()
    await soon(async () => assert.equal(await page.locator('#agents-day ul').innerText(), 'On duty 4 h 00 min\nOff duty 15 h 29 min\nNot known 4 h 30 min'))
    await soon(async () => assert.equal(await bars.count(), 6))
    await soon(async () => assert.match(await page.locator('#agents-day rect.on title').first().textContent(), /^On duty from .* to .*, 4 h 00 min$/))
    for (const bar of await page.locator('#agents-day rect.on').all()) assert.ok((await bar.boundingBox()).width >= 1, 'however short, it can be seen')
    const colours = await Promise.all(['on', 'unknown'].map(c => page.locator('#agents-day rect.' + c).first().evaluate(e => getComputedStyle(e).fill)))
    assert.notEqual(...colours)
    await audit('bars')
  }
  await craft(t, staff, '/?agent=2', {}, { days })
  await page.locator('#agents-day').getByText("The last 24 hours can't be read at the moment.").waitFor()
  await craft(t, staff, '/?agent=3', {}, { days })
  await page.locator('#past li, #history-state:not(:empty)').first().waitFor()
  await soon(async () => assert.ok(await page.locator('#agents-day').isHidden()))
  forgiveNetwork()
})

test('the last day is that of the stream', async () => {
  await act('online', { id: first })
  await open('/?state=all&q=' + first)
  await live(page)
  await row(first).click()
  await page.locator('#agents-day rect.on').first().waitFor()
  await soon(async () => assert.match(await page.locator('#agents-day ul').innerText(), /On duty .*\nNot known 2\d h/s)) // the stage began only now
  await page.keyboard.press('Escape')
  await page.getByRole('radio', { name: /On duty/ }).check()
  await page.locator('#q').fill('')
  await page.locator('#day figcaption').waitFor()
  const most = Number((await page.locator('#day figcaption').textContent()).match(/^most (\d+)/)[1])
  await soon(async () => assert.ok(most >= await count() && most <= 340, `most ${most}`))
})
