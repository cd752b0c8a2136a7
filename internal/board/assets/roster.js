// The agents, and those of them that the filters let through, in order.

import { collator } from './words.js'

export const OFF = 0, ON = 1, GONE = 2

// Beyond so many changes at a time, sorting everything anew is cheaper than placing each.
const many = 200

export const sorts = ['name', 'account', 'type', 'area', 'capacity', 'state', 'since']

const last = (a, b) => (a == null || a === '') - (b == null || b === '') // what is not known comes last, in either direction
const byText = key => (a, b, way) => last(a[key], b[key]) || (a[key] ? way * collator.compare(a[key], b[key]) : 0)
const byNumber = key => (a, b, way) => last(a[key], b[key]) || way * ((a[key] ?? 0) - (b[key] ?? 0))
const byID = (a, b) => a.id.length - b.id.length || (a.id < b.id ? -1 : a.id > b.id ? 1 : 0)
const orders = {
  name: byText('name'), account: byText('account'), type: byText('type'), area: byText('area'), capacity: byNumber('capacity'),
  state: (a, b, way) => way * ((a.state + 2) % 3 - (b.state + 2) % 3), // on duty first
  since: byNumber('since'),
}

function agent([id, name, account, type, area, capacity, state, since, revision]) {
  return { id, name, account, type, area, capacity, state, since, revision,
    hay: [name, account, id, area].filter(Boolean).join('\n').toLowerCase() }
}

export class Roster {
  agents = new Map() // by id; an agent that changes is another object
  view = [] // those that the filters let through, in order
  counts = [0, 0, 0] // by state
  types = new Set()
  areas = new Set()
  kinds = 0 // grows with types and areas
  filter = { q: '', type: '', area: '', state: 'on', sort: 'name', down: false }
  #fresh = null

  // begin puts what follows aside, until ready.
  begin() { this.#fresh = new Map() }

  ready() {
    if (!this.#fresh) return
    this.agents = this.#fresh
    this.#fresh = null
    this.counts = [0, 0, 0]
    this.types.clear()
    this.areas.clear()
    for (const a of this.agents.values()) this.#count(a, 1)
    this.refresh()
  }

  apply(rows) {
    if (this.#fresh) {
      for (const row of rows) this.#fresh.set(row[0], agent(row))
      return
    }
    const all = rows.length > many
    for (const row of rows) {
      const before = this.agents.get(row[0])
      const after = row.length > 1 ? agent(row) : undefined
      if (before) this.#count(before, -1)
      if (after) {
        this.#count(after, 1)
        this.agents.set(after.id, after)
      } else {
        this.agents.delete(row[0])
      }
      if (all) continue
      if (before && this.#passes(before)) this.view.splice(this.view.indexOf(before), 1)
      if (after && this.#passes(after)) this.view.splice(this.#place(after), 0, after)
    }
    if (all) this.refresh()
  }

  // refresh makes the view anew, for another filter.
  refresh() {
    this.view = []
    for (const a of this.agents.values()) if (this.#passes(a)) this.view.push(a)
    this.view.sort(this.#order)
  }

  #count(a, n) {
    this.counts[a.state] += n
    const size = this.types.size + this.areas.size
    if (n > 0) {
      this.types.add(a.type || '')
      this.areas.add(a.area || '')
    }
    this.kinds += this.types.size + this.areas.size - size
  }

  #passes(a) {
    const f = this.filter
    if (f.state === 'on' && a.state !== ON || f.state === 'off' && a.state !== OFF || f.state === 'gone' && a.state !== GONE) return false
    if (f.state === 'all' && a.state === GONE) return false
    if (f.type !== '' && (a.type || 'none') !== f.type) return false
    if (f.area !== '' && (a.area || 'none') !== f.area) return false
    return f.q === '' || f.words.every(w => a.hay.includes(w))
  }

  #order = (a, b) => {
    const f = this.filter
    return orders[f.sort](a, b, f.down ? -1 : 1) || orders.name(a, b, 1) || byID(a, b)
  }

  // place is where an agent belongs in the view.
  #place(a) {
    let low = 0, high = this.view.length
    while (low < high) {
      const middle = (low + high) >> 1
      if (this.#order(this.view[middle], a) < 0) low = middle + 1
      else high = middle
    }
    return low
  }
}
