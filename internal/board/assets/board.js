// The page: it puts together what rollcall sends, the filters and the address.

import { $, collator, el, held, number, said, setText, t, typeName } from './words.js'
import { build, connect, now } from './link.js'
import { GONE, NONE, OFF, ON, Roster, sorts } from './roster.js'
import { Table } from './table.js'
import { Feed } from './feed.js'
import { History } from './history.js'
import { Tallies } from './tallies.js'
import { roving, slash } from './keys.js'
import { Curve } from './day.js'
import { csv, save } from './csv.js'
import { duration } from './warn.js'
import { show } from './trust.js'

const params = new URLSearchParams(location.search)
const wall = params.has('wall') // a screen that nobody sits at
document.documentElement.classList.toggle('wall', wall)

const roster = new Roster()
const history = new History(roster, id => { address('agent', id ?? '', '') })
const table = new Table(roster, history.open)
const feed = new Feed(roster, history.open)
const curve = new Curve(roster)
const tallies = new Tallies(roster, (key, value) => { f[key] = value; filtered() }, wall)
const status = { trust: null, ready: false, lost: null, newer: false, heard: 0, on: 0, of: 0, narrowed: false }

// Drawing waits for the next frame, however many messages come meanwhile.

let due = false, changed = false

function draw(data) {
  changed ||= data
  if (due) return
  due = true
  requestAnimationFrame(() => {
    due = false
    if (changed) {
      choices()
      totals()
      if (tallies.render() && wall) fit()
      history.about()
    }
    if (!wall) {
      table.render(changed)
      if (changed && status.ready) feed.render()
    }
    changed = false
  })
}

// What rollcall sends.

let reloading // as nobody does at a wall; not at once, since two builds may answer in turn

function receive(m) {
  status.lost = null
  if (m.build) status.newer = m.build !== build
  if (wall && status.newer) reloading ??= setTimeout(() => location.reload(), 60000)
  status.heard = m.now
  if (m.trust) status.trust = m.trust
  if (m.begin) roster.begin()
  if (m.rows) roster.apply(m.rows)
  if (m.ready) {
    roster.ready()
    status.ready = true
    feed.reset()
    if (linked !== null) history.open(linked)
    linked = null
  }
  if (m.events) {
    feed.add(m.events)
    history.add(m.events)
  }
  counted()
  show(status, now())
  if (m.ready) day()
  if (m.rows || m.events || m.ready) draw(true)
}

function lost(why) {
  status.lost = why
  show(status, now())
}

// Filters, in the form and in the address.

const states = ['on', 'off', 'gone', 'all']
const f = roster.filter
let linked = null // the agent that the address asks for, until the agents are there
const q = $('q'), type = $('type'), area = $('area'), sort = $('sort')

// In the address NONE is none, and what is called so has a blank more.
const written = v => v === NONE ? 'none' : /^none *$/.test(v) ? v + ' ' : v
const read = v => v === 'none' ? NONE : /^none +$/.test(v) ? v.slice(0, -1) : v

function readAddress() {
  f.q = (params.get('q') ?? '').slice(0, 100)
  f.type = read(params.get('type') ?? '')
  f.area = read(params.get('area') ?? '')
  f.state = states.includes(params.get('state')) && !wall ? params.get('state') : 'on'
  const by = params.get('sort') ?? ''
  f.down = by.startsWith('-')
  f.sort = sorts.includes(by.replace(/^-/, '')) ? by.replace(/^-/, '') : 'name'
  linked = params.get('agent') || null
  table.warn = params.has('warn') ? duration(params.get('warn')) : Infinity
}

// address says something in the address, unless it is as usual.
function address(key, value, usual) {
  if (value === usual) params.delete(key)
  else params.set(key, value)
  const search = params.size ? '?' + params : ''
  window.history.replaceState(null, '', location.pathname + search + location.hash)
  const other = new URLSearchParams(params)
  other.set('lang', new URLSearchParams($('language').search).get('lang'))
  $('language').search = other
}

function writeAddress() {
  address('q', f.q, '')
  address('type', written(f.type), '')
  address('area', written(f.area), '')
  address('state', f.state, 'on')
  address('sort', (f.down ? '-' : '') + f.sort, 'name')
}

// day draws what the last day was like, once there are agents.
function day() {
  if (status.ready && !wall) curve.tick(['good', 'warn'].includes(document.documentElement.dataset.trust))
}

let announcing

function filtered() {
  f.words = f.q.toLowerCase().split(/\s+/).filter(Boolean)
  writeAddress()
  form()
  roster.refresh()
  feed.reset(true)
  table.all = false
  counted()
  show(status, now())
  draw(true)
  day()
  clearTimeout(announcing)
  announcing = setTimeout(() => { // for those who can't see it
    const n = roster.view.length
    $('shown').textContent = n === 0 ? t('shown.none') : n === 1 ? t('shown.one') : t('shown.many', { n: number(n) })
  }, 700)
}

// form makes the form say what the filter is.
function form() {
  if (q.value !== f.q) q.value = f.q
  option(type, f.type, typeName)
  option(area, f.area, a => a)
  for (const radio of document.getElementsByName('state')) {
    radio.checked = radio.value === f.state
    if (radio.value === 'gone') radio.parentNode.hidden = roster.counts[GONE] === 0 && f.state !== 'gone'
  }
  sort.value = (f.down ? '-' : '') + f.sort
  for (const head of document.querySelectorAll('[data-sort]')) {
    head.ariaSort = head.dataset.sort === f.sort ? (f.down ? 'descending' : 'ascending') : 'none'
  }
}

// option selects a value that may be in the address and in no agent.
function option(select, value, name) {
  if (![...select.options].some(o => o.value === value)) {
    select.append(el('option', { value }, value !== NONE ? name(value) : t(select === type ? 'noType' : 'noArea')))
  }
  select.value = value
}

let kinds = -1

// choices offers the types and areas that there are.
function choices() {
  if (kinds === roster.kinds) return
  kinds = roster.kinds
  const fill = (select, all, values, name, none) => select.replaceChildren(el('option', { value: '' }, all),
    ...[...values].filter(Boolean).sort(collator.compare).map(v => el('option', { value: v }, name(v))),
    ...(values.has('') ? [el('option', { value: NONE }, none)] : []))
  fill(type, t('allTypes'), roster.types, typeName, t('noType'))
  fill(area, t('allAreas'), roster.areas, a => a, t('noArea'))
  form()
}

function counted() {
  status.on = roster.found.counts[ON]
  status.of = roster.counts[ON]
  status.narrowed = roster.narrowed
}

// chosen says what the filter is, each part kept from turning the others round.
const chosen = () => [f.type === '' ? null : f.type === NONE ? t('noType') : typeName(f.type), f.area === '' ? null : f.area === NONE ? t('noArea') : f.area, said(f.q)]
  .filter(part => part !== null).map(part => `\u2068${part}\u2069`).join(' · ')

function totals() {
  const [off, on, gone] = roster.found.counts
  const all = roster.counts[OFF] + roster.counts[ON], narrowed = roster.narrowed
  setText($('count'), status.ready ? number(on) : '–')
  setText($('of'), narrowed && status.ready ? t('onDutyOf', { n: number(roster.counts[ON]) }) : t('onDuty'))
  setText($('total'), !status.ready ? '' : narrowed ? t('found', { what: chosen(), m: number(on + off), n: number(all) }) : t('ofAgents', { n: number(all) }))
  long()
  for (const b of document.querySelectorAll('[data-count]')) setText(b, number({ on, off, gone, all: on + off }[b.dataset.count]))
  document.querySelector('input[value=gone]').parentNode.hidden = roster.counts[GONE] === 0 && f.state !== 'gone'
  const none = status.ready && roster.view.length === 0
  $('table').hidden = roster.view.length === 0
  $('none').hidden = status.ready && !none
  if (none) {
    setText($('none-text'), !narrowed && roster.agents.size === 0 ? t('nobodyYet') : !narrowed && f.state === 'on' ? t('nobody') : t('shown.none'))
    $('clear').hidden = !narrowed && f.state === 'on'
  }
}

// long says how many of those who are shown have been on duty longer than the address allows.
function long() {
  const most = table.warn
  $('long').hidden = most === Infinity || !status.ready
  if (Number.isNaN(most)) setText($('long'), t('warnBad', { what: params.get('warn').slice(0, 20) }))
  else if (most !== Infinity) {
    const before = now() - most
    let n = 0
    for (const a of roster.agents.values()) if (a.state === ON && a.since < before && roster.matches(a)) n++
    $('long').classList.toggle('some', n > 0)
    setText($('long'), t('warn', { n: number(n), d: held(most) }))
  }
}

// fit makes what is on the wall as large as the screen allows: nobody can scroll there.
function fit() {
  const root = document.documentElement
  let low = 8, high = 400
  while (high - low > 1) {
    const size = (low + high) / 2
    root.style.setProperty('--wall', size + 'px')
    const main = document.querySelector('main')
    if (main.offsetTop + main.offsetHeight <= innerHeight && root.scrollWidth <= innerWidth) low = size
    else high = size
  }
  root.style.setProperty('--wall', low + 'px')
}

setText($('tenant'), t('tenant', { id: $('tenant').dataset.id }))
for (const by of sorts) {
  for (const [key, order] of [[by, 'ascending'], ['-' + by, 'descending']]) {
    sort.append(el('option', { value: key }, t('sorted', { by: t(by), order: t(order) })))
  }
}
$('filters').addEventListener('submit', e => e.preventDefault())
q.addEventListener('input', () => { f.q = q.value; filtered() })
type.addEventListener('change', () => { f.type = type.value; filtered() })
area.addEventListener('change', () => { f.area = area.value; filtered() })
sort.addEventListener('change', () => { f.down = sort.value.startsWith('-'); f.sort = sort.value.replace(/^-/, ''); filtered() })
for (const radio of document.getElementsByName('state')) radio.addEventListener('change', () => { f.state = radio.value; filtered() })
for (const head of document.querySelectorAll('[data-sort]')) {
  head.firstChild.addEventListener('click', () => {
    f.down = f.sort === head.dataset.sort && !f.down
    f.sort = head.dataset.sort
    filtered()
  })
}
$('clear').addEventListener('click', () => {
  Object.assign(f, { q: '', type: '', area: '', state: 'on' })
  filtered()
  q.focus()
})
$('csv').addEventListener('click', () => {
  const at = new Date(now())
  save(`rollcall-${$('tenant').dataset.id}-${at.toISOString().slice(0, 19).replaceAll(':', '')}Z.csv`, csv(roster.view))
})
roving(document.querySelector('.head'), 'button')
slash(q)
addEventListener('scroll', () => draw(false), { passive: true })
addEventListener('resize', () => {
  table.measure()
  measure()
  draw(true)
})
// Who prints, or has the browser find something, means all rows and not only those on the screen.
addEventListener('beforeprint', () => { table.everything(true) })
addEventListener('afterprint', () => { table.everything(false) })
addEventListener('keydown', e => {
  if ((e.ctrlKey || e.metaKey) && !e.altKey && e.key.toLowerCase() === 'f') table.everything(true)
})

// The heads of the columns stay below the bar, whose height depends on what is wrong. Where it would take most of a small
// window, as it does when that is zoomed in, only its first line stays.
const line = document.querySelector('header'), banner = $('banner')

function measure() {
  const all = line.offsetHeight + banner.offsetHeight, low = all > innerHeight / 2 && !wall
  table.ceiling = low ? line.offsetHeight : all
  document.documentElement.classList.toggle('low', low)
  document.documentElement.style.setProperty('--top', table.ceiling + 'px')
  if (wall) fit()
  draw(false)
}

const sizes = new ResizeObserver(measure)
sizes.observe(line)
sizes.observe(banner)

readAddress()
filtered()
clearTimeout(announcing)
totals()
connect(receive, lost)
setInterval(() => show(status, now()), 500)
setInterval(() => { table.tick(); long(); history.about(true) }, 15000)
setInterval(day, 5000)
$('unstarted').remove()
