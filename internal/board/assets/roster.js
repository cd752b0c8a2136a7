// The agents, and those of them that the filters let through, in order.

import { collator, said } from './words.js'
import { spelt } from './pinyin.js'

export const OFF = 0
export const ON = 1
export const GONE = 2

// NONE is the choice of who has no type, or no area. Nothing can be called so: what is only blanks says nothing.
export const NONE = ' '

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

function agent([id, name, account, type, area, capacity, state, since, revision, atLeast]) {
  name = said(name)
  account = said(account)
  type = said(type)
  area = said(area)
  return { id, name, account, type, area, capacity, state, since, revision, atLeast: atLeast === 1,
    hay: [name, account, id, area].filter(Boolean).join('\n').toLowerCase(), spelt: null, changed: -Infinity }
}

const latin = /^[a-z]{2,}$/

// has reports whether a word is in what an agent may be looked for by.
function has(a, word) {
  if (a.hay.includes(word)) return true
  if (!a.name || !latin.test(word)) return false
  a.spelt ??= spelt(a.name)
  return a.spelt.includes(' ' + word)
}

const none = () => ({ counts: [0, 0, 0], types: new Map(), areas: new Map() })

export class Roster {
  agents = new Map() // by id; an agent that changes is another object
  view = [] // those that the filters let through, in order
  counts = [0, 0, 0] // of all, by state
  types = new Set()
  areas = new Set()
  kinds = 0 // grows with types and areas
  // found counts what the search and the choice of type and area let through: by state; and of the state that is shown, by type
  // and by area, each as if nothing were chosen there.
  found = none()
  filter = { q: '', words: [], type: '', area: '', state: 'on', sort: 'name', down: false }
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
    const all = rows.length > many, at = performance.now()
    for (const row of rows) {
      const before = this.agents.get(row[0])
      const after = row.length > 1 ? agent(row) : undefined
      if (before) this.#count(before, -1)
      if (after) {
        after.changed = at
        this.#count(after, 1)
        this.agents.set(after.id, after)
      } else {
        this.agents.delete(row[0])
      }
      if (all) continue
      if (before && this.#tally(before, -1)) this.view.splice(this.view.indexOf(before), 1)
      if (after && this.#tally(after, 1)) this.view.splice(this.#place(after), 0, after)
    }
    if (all) this.refresh()
  }

  // refresh makes the view anew, for another filter.
  refresh() {
    this.view = []
    this.found = none()
    for (const a of this.agents.values()) if (this.#tally(a, 1)) this.view.push(a)
    this.view.sort(this.#order)
  }

  // narrowed reports whether there is a search or a choice of type or area.
  get narrowed() {
    const f = this.filter
    return f.words.length > 0 || f.type !== '' || f.area !== ''
  }

  // matches reports whether an agent is one of those that are looked for, in whatever state.
  matches(a) {
    const f = this.filter
    return (f.type === '' || (a.type || NONE) === f.type) && (f.area === '' || (a.area || NONE) === f.area) && f.words.every(w => has(a, w))
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

  // tally counts an agent among what is found, and reports whether it is in the view.
  #tally(a, n) {
    const f = this.filter
    if (!f.words.every(w => has(a, w))) return false
    const state = f.state === 'all' ? a.state !== GONE : a.state === { on: ON, off: OFF, gone: GONE }[f.state]
    const type = a.type || NONE, area = a.area || NONE
    const ofType = f.type === '' || type === f.type, ofArea = f.area === '' || area === f.area
    const { counts, types, areas } = this.found
    if (ofType && ofArea) counts[a.state] += n
    if (state && ofArea) types.set(type, (types.get(type) ?? 0) + n)
    if (state && ofType) areas.set(area, (areas.get(area) ?? 0) + n)
    return state && ofType && ofArea
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
