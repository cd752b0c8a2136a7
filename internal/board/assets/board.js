// The page: it puts together what rollcall sends, the filters and the address.

import { $, collator, el, number, setText, t, typeName } from './words.js'
import { connect, now } from './link.js'
import { GONE, OFF, ON, Roster, sorts } from './roster.js'
import { Table } from './table.js'
import { Feed } from './feed.js'
import { History } from './history.js'
import { show } from './trust.js'

const roster = new Roster()
const history = new History(roster)
const table = new Table(roster, history.open)
const feed = new Feed(history.open)
const status = { trust: null, ready: false, lost: false, full: 0, heard: 0, on: 0 }

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
      history.about()
    }
    table.render(changed)
    if (changed && status.ready) feed.render()
    changed = false
  })
}

// What rollcall sends.

function receive(m) {
  status.lost = false
  status.full = m.full ?? 0
  status.heard = m.now
  if (m.trust) status.trust = m.trust
  if (m.begin) roster.begin()
  if (m.rows) roster.apply(m.rows)
  if (m.ready) {
    roster.ready()
    status.ready = true
    feed.reset()
  }
  if (m.events) {
    feed.add(m.events)
    history.add(m.events)
  }
  status.on = roster.counts[ON]
  show(status, now())
  if (m.rows || m.events || m.ready) draw(true)
}

function lost() {
  status.lost = true
  show(status, now())
}

// Filters, in the form and in the address.

const params = new URLSearchParams(location.search)
const states = ['on', 'off', 'gone', 'all']
const f = roster.filter
const q = $('q'), type = $('type'), area = $('area'), sort = $('sort')

function readAddress() {
  f.q = (params.get('q') ?? '').slice(0, 100)
  f.type = params.get('type') ?? ''
  f.area = params.get('area') ?? ''
  f.state = states.includes(params.get('state')) ? params.get('state') : 'on'
  const by = params.get('sort') ?? ''
  f.down = by.startsWith('-')
  f.sort = sorts.includes(by.replace(/^-/, '')) ? by.replace(/^-/, '') : 'name'
}

function writeAddress() {
  const set = (key, value, usual) => value === usual ? params.delete(key) : params.set(key, value)
  set('q', f.q, '')
  set('type', f.type, '')
  set('area', f.area, '')
  set('state', f.state, 'on')
  set('sort', (f.down ? '-' : '') + f.sort, 'name')
  const search = params.size ? '?' + params : ''
  window.history.replaceState(null, '', location.pathname + search + location.hash)
  const other = new URLSearchParams(params)
  other.set('lang', new URLSearchParams($('language').search).get('lang'))
  $('language').search = other
}

let announcing

function filtered() {
  f.words = f.q.toLowerCase().split(/\s+/).filter(Boolean)
  writeAddress()
  form()
  roster.refresh()
  draw(true)
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
  if (value !== 'none' && ![...select.options].some(o => o.value === value)) select.append(el('option', { value }, name(value)))
  if (value === 'none' && ![...select.options].some(o => o.value === value)) select.append(el('option', { value }, t(select === type ? 'noType' : 'noArea')))
  select.value = value
}

let kinds = -1

// choices offers the types and areas that there are.
function choices() {
  if (kinds === roster.kinds) return
  kinds = roster.kinds
  const fill = (select, all, values, name, none) => select.replaceChildren(el('option', { value: '' }, all),
    ...[...values].filter(Boolean).sort(collator.compare).map(v => el('option', { value: v }, name(v))),
    ...(values.has('') ? [el('option', { value: 'none' }, none)] : []))
  fill(type, t('allTypes'), roster.types, typeName, t('noType'))
  fill(area, t('allAreas'), roster.areas, a => a, t('noArea'))
  form()
}

function totals() {
  const [off, on, gone] = [roster.counts[OFF], roster.counts[ON], roster.counts[GONE]]
  setText($('count'), status.ready ? number(on) : '–')
  setText($('total'), status.ready ? t('ofAgents', { n: number(on + off) }) : '')
  for (const b of document.querySelectorAll('[data-count]')) setText(b, number({ on, off, gone, all: on + off }[b.dataset.count]))
  document.querySelector('input[value=gone]').parentNode.hidden = gone === 0 && f.state !== 'gone'
  const none = status.ready && roster.view.length === 0
  $('table').hidden = roster.view.length === 0
  $('none').hidden = status.ready && !none
  if (none) {
    const plain = f.q === '' && f.type === '' && f.area === ''
    setText($('none-text'), plain && roster.agents.size === 0 ? t('nobodyYet') : plain && f.state === 'on' ? t('nobody') : t('shown.none'))
    $('clear').hidden = plain && f.state === 'on'
  }
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
addEventListener('scroll', () => draw(false), { passive: true })
addEventListener('resize', () => { table.measure(); draw(true) })

// The heads of the columns stay below the bar, whose height depends on what is wrong.
new ResizeObserver(() => {
  document.documentElement.style.setProperty('--top', $('top').offsetHeight + 'px')
  draw(false)
}).observe($('top'))

readAddress()
filtered()
clearTimeout(announcing)
totals()
connect(receive, lost)
setInterval(() => show(status, now()), 500)
setInterval(() => { table.tick(); history.about(true) }, 15000)
