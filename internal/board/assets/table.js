// The table: only the rows that can be seen are in the document, however many there are. They keep their places while others
// come and go above them, and the one that has the focus stays.

import { $, el, lasted, near, setText, setTime, t, typeName } from './words.js'
import { now } from './link.js'
import { OFF, ON } from './roster.js'

const spare = 8 // rows beyond what can be seen, for the tab key and quick fingers
const stateWords = { 0: 'state.off', 1: 'state.on', 2: 'state.gone' }
const stateClasses = { 0: 'off', 1: 'on', 2: 'gone' }

export class Table {
  #rows = $('rows')
  #shown = new Map() // id to its row's element
  #pool = []
  #height = 0
  #anchor = null // the agent at the top of the window, while the list is scrolled into

  constructor(roster, open) {
    this.roster = roster
    this.#rows.addEventListener('click', e => {
      const row = e.target.closest('.row')
      if (row && !String(getSelection())) open(row.agent.id)
    })
  }

  // measure makes the next rendering ask how high a row is.
  measure() { this.#height = 0 }

  // render shows the view. After changes, it keeps what was at the top of the window there.
  render(changed) {
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
    const ceiling = $('top').offsetHeight
    if (changed && this.#anchor) this.#hold(view, h)
    this.#rows.style.height = n * h + 'px'
    const top = this.#rows.getBoundingClientRect().top
    const first = Math.max(0, Math.floor((ceiling - top) / (h || 1)) - spare)
    const end = Math.min(n, Math.ceil((innerHeight - top) / (h || 1)) + spare)
    const visible = Math.max(0, Math.ceil((ceiling - top) / (h || 1)))
    this.#anchor = visible > 0 && visible < n ? { id: view[visible].id, index: visible } : null

    const focused = document.activeElement?.closest?.('#rows .row')
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
      } else if (row.agent !== a) {
        this.#fill(row, a)
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
    if (lost >= 0) {
      const next = n > 0 ? this.#shown.get(view[Math.min(lost, n - 1)].id) : null
      ;(next?.querySelector('button') ?? $('agents')).focus({ preventScroll: true })
    }
  }

  // tick makes the durations right.
  tick() {
    for (const row of this.#shown.values()) this.#since(row)
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
      const cell = (name, ...children) => el('div', { role: 'cell', className: name }, ...children)
      row = el('div', { role: 'row', className: 'row' },
        cell('name', el('span', { className: 'dot', ariaHidden: 'true' }), el('button', { type: 'button', className: 'link' }, el('bdi'))),
        cell('account', el('bdi')), cell('type', el('bdi')), cell('area', el('bdi')), cell('capacity', el('span', { ariaHidden: 'true' }), el('span', { className: 'hidden' })),
        cell('state'), cell('since', el('time'), ' ', el('span', { className: 'for' })))
    }
    row.index = -1
    this.#fill(row, a)
    return row
  }

  #fill(row, a) {
    row.agent = a
    row.className = 'row ' + stateClasses[a.state]
    const [name, account, type, area, capacity, state] = row.children
    setText(name.lastChild.firstChild, a.name || t('noName'))
    setText(account.firstChild, a.account ?? '')
    setText(type.firstChild, typeName(a.type))
    setText(area.firstChild, a.area || '–')
    setText(capacity.firstChild, a.capacity == null ? '–' : String(a.capacity))
    setText(capacity.lastChild, a.capacity == null ? '' : t('capacityOf', { n: a.capacity }))
    setText(state, t(stateWords[a.state]))
    this.#since(row)
  }

  #since(row) {
    const cell = row.lastChild, a = row.agent, at = now()
    setTime(cell.firstChild, a.since, near(a.since, at, false))
    setText(cell.lastChild, a.state === ON || a.state === OFF ? lasted(at - a.since) : '')
  }
}
