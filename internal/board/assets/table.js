// The table: only the rows that can be seen are in the document, however many there are, unless all are asked for. They keep
// their places while others come and go above them, and the one that has the focus stays.

import { $, el, held, named, near, setText, setTime, t, typeName } from './words.js'
import { now } from './link.js'
import { OFF, ON } from './roster.js'

const spare = 8 // rows beyond what can be seen, for the tab key and quick fingers
const stateWords = { 0: 'state.off', 1: 'state.on', 2: 'state.gone' }
const stateClasses = { 0: 'off', 1: 'on', 2: 'gone' }
const flash = 2000 // how long a change is marked
const still = matchMedia('(prefers-reduced-motion: reduce)')

export class Table {
  #rows = $('rows')
  #shown = new Map() // id to its row's element
  #pool = []
  #height = 0
  #anchor = null // the agent at the top of the window, while the list is scrolled into
  #stop = null // the agent whose row the tab key stops at
  all = false // every row is in the document
  ceiling = 0 // how much of the window's top is covered, but for the heads
  warn = Infinity // who has been on duty for longer is marked

  constructor(roster, open) {
    this.roster = roster
    this.#rows.addEventListener('keydown', e => this.#key(e))
    this.#rows.addEventListener('focusin', e => {
      this.#stop = e.target.closest('.row').agent.id
      this.#stops()
    })
    this.#rows.addEventListener('click', e => {
      const row = e.target.closest('.row')
      if (row && !String(getSelection())) open(row.agent.id)
    })
  }

  // measure makes the next rendering ask how high a row is.
  measure() { this.#height = 0 }

  // everything puts all rows into the document, at once, or no longer does.
  everything(is) {
    if (this.all === is) return
    this.all = is
    this.render(true)
  }

  // render shows the view. After changes, it keeps what was at the top of the window there.
  render(changed) {
    if (this.all && !changed) return
    const view = this.roster.view
    const n = view.length
    if (!this.#height && n > 0) {
      const row = this.#row(view[0])
      this.#rows.append(row)
      this.#height = row.offsetHeight
      row.remove()
      this.#pool.push(row)
    }
    const h = this.#height
    const { ceiling } = this
    if (changed && this.#anchor) this.#hold(view, h)
    this.#rows.style.height = n * h + 'px'
    const top = this.#rows.getBoundingClientRect().top
    const first = this.all ? 0 : Math.max(0, Math.floor((ceiling - top) / (h || 1)) - spare)
    const end = this.all ? n : Math.min(n, Math.ceil((innerHeight - top) / (h || 1)) + spare)
    const visible = Math.max(0, Math.ceil((ceiling - top) / (h || 1)))
    this.#anchor = visible > 0 && visible < n ? { id: view[visible].id, index: visible } : null

    const focused = document.activeElement?.closest?.('#rows .row')
    const at = performance.now()
    const wanted = []
    for (let i = first; i < end; i++) wanted.push(i)
    let lost = -1
    if (focused) {
      const i = this.#find(focused.agent.id, focused.index)
      if (i < 0) lost = focused.index
      else if (i < first) wanted.unshift(i)
      else if (i >= end) wanted.push(i)
    }
    const keep = new Set(wanted.map(i => view[i].id))
    for (const [id, row] of this.#shown) {
      if (keep.has(id)) continue
      row.remove()
      this.#shown.delete(id)
      this.#pool.push(row)
    }
    let cursor = this.#rows.firstChild
    for (const i of wanted) {
      const a = view[i]
      let row = this.#shown.get(a.id)
      if (!row) {
        row = this.#row(a)
        this.#shown.set(a.id, row)
        if (at - a.changed < flash / 4) this.#flash(row)
      } else if (row.agent !== a) {
        this.#fill(row, a)
        if (at - a.changed < flash / 4) this.#flash(row)
      }
      if (row.index !== i) {
        row.index = i
        row.ariaRowIndex = i + 2
        row.style.transform = `translateY(${i * h}px)`
      }
      if (row === focused) { // moving it would take the focus from it: move what is before it
        while (cursor !== row) {
          const next = cursor.nextSibling
          cursor.remove()
          cursor = next
        }
      }
      if (cursor === row) cursor = row.nextSibling
      else this.#rows.insertBefore(row, cursor)
    }
    $('table').ariaRowCount = n + 1
    $('table').dataset.state = this.roster.filter.state
    if (!this.#shown.has(this.#stop)) this.#stop = view[Math.min(visible, n - 1)]?.id ?? null
    this.#stops()
    if (lost >= 0) {
      const next = n > 0 ? this.#shown.get(view[Math.min(lost, n - 1)].id) : null
      ;(next?.querySelector('button') ?? $('agents')).focus({ preventScroll: true })
    }
  }

  // tick makes the durations right.
  tick() {
    for (const row of this.#shown.values()) this.#since(row)
  }

  // stops makes the list one stop of the tab key.
  #stops() {
    for (const row of this.#shown.values()) {
      const button = row.firstChild.lastChild, is = row.agent.id === this.#stop ? 0 : -1
      if (button.tabIndex !== is) button.tabIndex = is
    }
  }

  #key(e) {
    if (e.ctrlKey || e.altKey || e.metaKey) return
    const row = e.target.closest('.row'), n = this.roster.view.length
    const page = Math.max(1, Math.floor((innerHeight - this.#ceiling()) / this.#height) - 1)
    const to = { ArrowDown: row.index + 1, ArrowUp: row.index - 1, PageDown: row.index + page, PageUp: row.index - page, Home: 0, End: n - 1 }[e.key]
    if (to === undefined) return
    e.preventDefault()
    this.#go(Math.max(0, Math.min(n - 1, to)))
  }

  // ceiling is where the rows come into sight, below what stays at the top of the window.
  #ceiling() {
    return this.ceiling + document.querySelector('.heads').offsetHeight
  }

  // go takes the focus to a row of the view, and the window with it.
  #go(i) {
    const h = this.#height, top = this.#rows.getBoundingClientRect().top + i * h
    const above = top - this.#ceiling(), below = top + h - innerHeight
    if (above < 0 || below > 0) scrollBy({ top: above < 0 ? above : below, behavior: 'instant' })
    this.render(false)
    this.#shown.get(this.roster.view[i].id)?.querySelector('button').focus({ preventScroll: true })
  }

  #flash(row) {
    if (still.matches || this.all) return
    row.flash?.cancel()
    row.flash = row.animate({ backgroundColor: ['var(--flash)', 'transparent'] }, { duration: flash, easing: 'ease-in' })
  }

  #find(id, near) {
    const view = this.roster.view
    if (view[near]?.id === id) return near
    const a = this.roster.agents.get(id)
    return a ? view.indexOf(a) : -1
  }

  #hold(view, h) {
    const i = this.#find(this.#anchor.id, this.#anchor.index)
    if (i < 0 || i === this.#anchor.index) return
    this.#rows.style.height = view.length * h + 'px'
    scrollBy({ top: (i - this.#anchor.index) * h, behavior: 'instant' })
  }

  #row(a) {
    let row = this.#pool.pop()
    if (!row) {
      const cell = (name, ...children) => el('div', { role: 'gridcell', className: name }, ...children)
      row = el('div', { role: 'row', className: 'row' },
        cell('name', el('span', { className: 'dot', ariaHidden: 'true' }), el('button', { type: 'button', className: 'link', tabIndex: -1 }, el('bdi'))),
        cell('account', el('bdi')), cell('type', el('bdi')), cell('area', el('bdi')), cell('capacity', el('span', { ariaHidden: 'true' }), el('span', { className: 'hidden' })),
        cell('state'), cell('since', el('span', { className: 'for' }), ' ', el('time'), el('span', { className: 'hidden' })))
    }
    row.index = -1
    row.flash?.cancel()
    this.#fill(row, a)
    return row
  }

  #fill(row, a) {
    row.agent = a
    row.className = 'row ' + stateClasses[a.state]
    const [name, account, type, area, capacity, state] = row.children
    setText(name.lastChild.firstChild, named(a.name))
    setText(account.firstChild, a.account ?? '')
    setText(type.firstChild, typeName(a.type))
    setText(area.firstChild, a.area || '–')
    setText(capacity.firstChild, a.capacity == null ? '–' : String(a.capacity))
    setText(capacity.lastChild, a.capacity == null ? '' : t('capacityOf', { n: a.capacity }))
    setText(state, t(stateWords[a.state]))
    this.#since(row)
  }

  #since(row) {
    const [lasts, , stamp, note] = row.lastChild.childNodes, a = row.agent, at = now()
    setText(lasts, a.state === ON || a.state === OFF ? held(at - a.since, a.atLeast) : '')
    setTime(stamp, a.since, near(a.since, at, false), a.atLeast)
    const long = a.state === ON && at - a.since > this.warn
    row.classList.toggle('long', long)
    lasts.title = long ? t('warnRow') : ''
    setText(note, lasts.title)
  }
}
