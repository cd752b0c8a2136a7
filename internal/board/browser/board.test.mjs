// The board in a real browser, against the stage of stage_test.go, which the Go test starts: go test -tags ci ./internal/board

import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { after, afterEach, before, beforeEach, test } from 'node:test'
import { launch, live, stage } from './browser.mjs'

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
const until = async (what, ok) => {
  for (const deadline = Date.now() + 15000; Date.now() < deadline;) {
    if (await ok()) return
    await new Promise(r => setTimeout(r, 20))
  }
  assert.fail(`waited in vain for ${what}`)
}
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
  assert.match(await row(first).locator('.state').textContent(), /On duty/)
  await act('offline', { id: first })
  await gone(row(first))
  await feed(/signed out after/)
  assert.equal(await count(), before)
  assert.match(await page.title(), new RegExp(`^${before} of \\d+ on duty · rollcall$`))
})

test('filters narrow the list and live in the address', async () => {
  await open()
  await live(page)
  await page.locator('#type').selectOption({ label: 'Safety inspection' })
  await page.getByRole('radio', { name: /All/ }).check()
  await page.locator('#area').selectOption('华东')
  await page.getByRole('columnheader', { name: 'Account' }).getByRole('button').click()
  await page.getByRole('columnheader', { name: 'Account' }).getByRole('button').click()
  const params = new URL(page.url()).searchParams
  assert.deepEqual(Object.fromEntries(params), { type: '0', area: '华东', state: 'all', sort: '-account' })
  const accounts = () => page.locator('#rows .row .account').allTextContents()
  await until('the filter', async () => (await page.locator('#rows .row .type').allTextContents()).every(t => t === 'Safety inspection'))
  const shown = await accounts()
  assert.ok(shown.length > 0)
  assert.deepEqual(shown, [...shown].sort().reverse())
  assert.ok((await page.locator('#rows .row .area').allTextContents()).every(t => t === '华东'))
  assert.equal(await page.getByRole('columnheader', { name: 'Account' }).getAttribute('aria-sort'), 'descending')

  // Somebody else opens the address, and so does who reloads.
  await page.reload()
  await live(page)
  assert.deepEqual(await accounts(), shown)
  assert.equal(await page.locator('#area').inputValue(), '华东')

  await page.locator('#q').fill(shown[0].toUpperCase())
  await until('the search', async () => (await accounts()).length === 1)
  await page.locator('#q').fill('nobody at all')
  await page.getByText('No agent matches.', { exact: true }).first().waitFor()
  await page.getByRole('button', { name: 'Show everyone on duty' }).click()
  await page.locator('#rows .row').first().waitFor()
  assert.deepEqual(Object.fromEntries(new URL(page.url()).searchParams), { sort: '-account' })
})

test('an address with nonsense for filters shows what there is', async () => {
  await open('/?state=x&sort=constructor&type=%3Cimg%20src%3Dx%3E&area=__proto__&q=%00')
  await page.locator('html[data-trust=good]').waitFor()
  await page.getByText('No agent matches.', { exact: true }).first().waitFor()
  assert.equal(await page.locator('#type').locator('option:checked').textContent(), 'Type <img src=x>')
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
  assert.ok(await page.locator('#rows .row').count() < 60)
  assert.equal(await page.locator('#table').getAttribute('aria-rowcount'), '341')
  await page.evaluate(() => scrollTo(0, document.body.scrollHeight))
  await page.locator('#rows .row[aria-rowindex="341"]').waitFor()
  assert.ok(await page.locator('#rows .row').count() < 60)
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
  assert.match(await page.title(), /No connection/)
  assert.ok((await page.locator('#rows').innerText()).startsWith(shown.slice(0, 200)), 'what was there is still shown')
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
    assert.match(await banner('lost').textContent(), /No answer came within 10 seconds\. It tries again by itself\./)
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
      assert.match(await page.title(), /^⚠ Your login has expired/)
      assert.equal(await page.locator('html').getAttribute('data-trust'), 'bad')
      await act('front')
      const link = page.getByRole('link', { name: 'Sign in again' })
      await page.evaluate(() => { window.mark = 'the old page' })
      if (await link.isVisible()) await link.click({ timeout: 1000 }).catch(() => {}) // else it has come back by itself
      await live(page)
      assert.equal(new URL(page.url()).search, '?type=10')
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
        window.sleep = ms => { slept += ms }
      })
    }, front)
    await live(page)
    await act('front', { is: 'held' }) // the network is not back yet, but what was on its way arrives later
    const seen = await page.evaluate(async () => {
      const trust = () => document.documentElement.dataset.trust
      window.sleep(-3600e3) // the clock is set back
      await new Promise(r => setTimeout(r, 600))
      const back = trust()
      window.sleep(11 * 3600e3)
      await new Promise(r => setTimeout(r, 600))
      return { back, after: trust(), pulse: document.getElementById('pulse').textContent, title: document.title }
    })
    if (how === 'alone') {
      assert.equal(seen.back, 'bad')
      assert.equal(seen.after, 'bad')
      assert.match(seen.title, /^⚠ No connection/)
    }
    assert.doesNotMatch(seen.pulse, /Live.*as of \d+ s ago/)
    await page.evaluate(() => {
      window.green = []
      const look = () => {
        if (document.documentElement.dataset.trust === 'good') window.green.push(document.getElementById('pulse').textContent)
        requestAnimationFrame(look)
      }
      look()
    })
    await page.waitForTimeout(7000) // what is held is old now
    assert.deepEqual(await page.evaluate(() => window.green), [], 'it was believed while nothing came')
    await act('front') // what was held arrives all at once
    await live(page)
    const green = await page.evaluate(() => window.green)
    assert.ok(green.every(text => / [0-3](\.\d)? s ago/.test(text)), `old data was believed: ${green[0]}`)
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
    await new Promise(r => setTimeout(r, 8000))
    await cdp.send('Page.setWebLifecycleState', { state: 'active' })
    await live(page)
    await page.waitForTimeout(1000)
    const believed = await page.evaluate(() => window.believed)
    assert.ok(believed.every(text => / [0-3](\.\d)? s ago/.test(text)), `old data was believed: ${believed}`)
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
    assert.notEqual(await page.locator('html').getAttribute('data-trust'), 'good')
    assert.doesNotMatch(await page.title(), /\d/)
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
  assert.match(await banner('stale').textContent(), /Out of date.*An update was due by \d\d:\d\d:\d\d/)
  assert.match(await page.title(), /^⚠ Out of date/)
  assert.match(await page.locator('#pulse').textContent(), /Out of date · as of \d+ s ago/)
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
  assert.match(await banner('failing').textContent(), /ISDP\+ does not answer\. Failing since \d\d:\d\d:\d\d;/)
  await act('fault', { is: 'half' })
  await banner('holding').waitFor()
  assert.match(await banner('holding').textContent(), /Many agents vanished/)
  await page.locator('html[data-trust=warn]').waitFor()
  assert.match(await page.locator('#facts').textContent(), /340 not seen/)
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
  assert.equal(await cell.locator('.area').textContent(), area)
  assert.equal(await cell.locator('.account bdi').evaluate(e => getComputedStyle(e).unicodeBidi), 'isolate')
  assert.ok((await page.locator('#area').locator('option').allTextContents()).includes(area))
  await act('edit', { id: first, fields: JSON.stringify({ cityId: JSON.stringify('<b id=injected>') }) })
  await feed('<b id=injected>')
  await cell.click()
  await page.locator('#past li', { hasText: '<b id=injected>' }).first().waitFor()
  assert.equal(await page.locator('#history-title').textContent(), name)
  assert.equal(await page.locator('#injected, [onerror], #rows img, #past img, #events img').count(), 0)
  assert.match(await page.title(), /on duty · rollcall$/)
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
  assert.match(await dialog.textContent(), new RegExp(`Id${first}`))
  assert.match(await page.locator('#past').textContent(), /between \d\d:\d\d:\d\d and/)
  // It goes on while the dialog is open.
  await act('edit', { id: first, fields: JSON.stringify({ capacity: '77' }) })
  await page.locator('#past li', { hasText: '→ became 77' }).waitFor()
  await page.keyboard.press('Escape')
  await dialog.waitFor({ state: 'hidden' })
  assert.ok(await page.evaluate(() => Boolean(document.activeElement.closest('#rows'))), 'the focus is back')
  // The focus stays in the list when its agent leaves it.
  const other = '17814'
  await act('online', { id: other })
  await page.locator('#q').fill('1781')
  await row(first).getByRole('button').focus()
  await row(other).waitFor()
  await act('offline', { id: first })
  await gone(row(first))
  assert.ok(await page.evaluate(() => Boolean(document.activeElement.closest('#rows'))), 'the focus stays in the list')
  await page.getByText('Skip to the agents').focus()
  await page.keyboard.press('Enter')
  assert.equal(await page.evaluate(() => document.activeElement.id), 'agents')
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
  await act('full', { most: 1 })
  const another = new AbortController()
  await fetch(url + '/events', { signal: another.signal })
  await open()
  await banner('full').waitFor()
  assert.match(await banner('full').textContent(), /1 pages at a time/)
  another.abort()
  await gone(banner('full'))
  await live(page)
})

test('removed agents are behind a switch of their own', async () => {
  await open()
  await live(page)
  assert.equal(await page.getByRole('radio', { name: /Removed/ }).isVisible(), false)
  await act('delete', { id: '17820' })
  await page.getByRole('radio', { name: /Removed 1/ }).check()
  await row('17820').waitFor()
  assert.match(await row('17820').textContent(), /Removed/)
})

test('Chinese', async () => {
  await open('/?state=all&q=chen', { locale: 'zh-CN' })
  await live(page)
  assert.equal(await page.locator('html').getAttribute('lang'), 'zh-CN')
  const text = await page.locator('body').innerText()
  for (const word of ['人在岗', '339 名坐席中的', '按区域', '搜索', '数据可信吗？', '最新动态', '视频通话', '实时 · 截至']) assert.ok(text.includes(word), word)
  const own = await page.evaluate(() => { // without what the vendor says
    const copy = document.body.cloneNode(true)
    for (const e of copy.querySelectorAll('bdi, #area, noscript')) e.remove()
    return copy.textContent
  })
  assert.deepEqual(own.replaceAll(/rollcall|English|ISDP\+|JavaScript|chen/g, '').match(/[A-Za-z]{3,}/g), null, 'words that are not Chinese')
  await act('freeze')
  await banner('stale').waitFor()
  assert.match(await banner('stale').textContent(), /数据已过期/)
  await act('start')
  await gone(banner('stale'))
  // The other language keeps the filter.
  await page.getByRole('link', { name: 'English' }).click()
  await page.getByText('on duty', { exact: true }).waitFor()
  assert.deepEqual(Object.fromEntries(new URL(page.url()).searchParams), { state: 'all', q: 'chen', lang: 'en' })
})

test('on a phone', async () => {
  await open('/', { viewport: { width: 360, height: 740 }, isMobile: true, hasTouch: true })
  await live(page)
  assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), 'no scrolling sideways')
  await page.locator('#sort').selectOption('-since')
  await until('the order', async () => page.url().includes('sort=-since'))
  await page.getByRole('link', { name: 'What just happened' }).tap()
  await until('the jump', async () => page.evaluate(() => {
    const r = document.getElementById('happened').getBoundingClientRect()
    return r.top >= 0 && r.top < innerHeight
  }))
})

for (const colorScheme of ['light', 'dark']) {
  for (const locale of ['en-GB', 'zh-CN']) {
    test(`accessibility, ${colorScheme}, ${locale}`, async () => {
      await act('online', { id: first })
      await open('/?state=all', { colorScheme, locale })
      await live(page)
      await act('edit', { id: first, fields: JSON.stringify({ areaName: Math.random() < .5 ? '"华南"' : '"华北"', capacity: String(Math.floor(Math.random() * 1e6)) }) })
      await page.locator('#events li').first().waitFor()
      const audit = async where => {
        const { violations } = await page.evaluate(async source => {
          if (!window.axe) new Function(source)() // the policy forbids it to pages, not to the test
          return window.axe.run(document, { resultTypes: ['violations'] })
        }, axe)
        const serious = violations.filter(v => v.impact === 'serious' || v.impact === 'critical' || v.impact === 'moderate')
        assert.deepEqual(serious.map(v => `${where}: ${v.id}: ${v.nodes.map(n => n.target.join(' ')).slice(0, 3).join(', ')}: ${v.nodes[0].failureSummary}`), [])
      }
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
