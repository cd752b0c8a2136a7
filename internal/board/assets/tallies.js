// How many there are of each type and in each area, beside the list. A click chooses one, another click all again.

import { $, collator, el, number, setText, t, typeName } from './words.js'
import { roving } from './keys.js'
import { NONE } from './roster.js'

class Group {
  #items = new Map() // value to its element
  #list

  constructor(key, name, none, roster, choose, fixed) {
    Object.assign(this, { key, name, none, roster, fixed })
    this.#list = $('by-' + key)
    this.keys = roving(this.#list, 'button')
    this.#list.addEventListener('click', e => {
      const value = e.target.closest('button')?.dataset.value
      if (value !== undefined) choose(key, this.roster.filter[key] === value ? '' : value)
    })
  }

  // values makes the list of what there is.
  values(all) {
    const chosen = this.roster.filter[this.key]
    const values = [...all].filter(Boolean).sort(collator.compare)
    if (all.has('')) values.push(NONE)
    if (chosen !== '' && !values.includes(chosen)) values.push(chosen)
    const items = new Map()
    for (const value of values) items.set(value, this.#items.get(value) ?? this.#item(value))
    this.#items = items
    this.#list.replaceChildren(...[...items.values()].map(item => el('li', {}, item)))
    this.#list.parentNode.hidden = values.length === 0
    this.keys()
  }

  #item(value) {
    const words = [el('bdi', {}, value === NONE ? this.none : this.name(value)), ' ', el('b')]
    if (this.fixed) return el('p', {}, ...words)
    const button = el('button', { type: 'button' }, ...words)
    button.dataset.value = value
    return button
  }

  render(found) {
    const chosen = this.roster.filter[this.key]
    this.#list.parentNode.classList.toggle('chosen', chosen !== '')
    for (const [value, item] of this.#items) {
      const n = found.get(value) ?? 0
      setText(item.lastChild, number(n))
      item.classList.toggle('zero', n === 0)
      if (!this.fixed) item.ariaPressed = String(value === chosen)
    }
  }
}

// Tallies are the counts by type and by area. Those that are fixed are to be read only.
export class Tallies {
  #kinds = -1

  constructor(roster, choose, fixed) {
    this.roster = roster
    this.types = new Group('type', typeName, t('noType'), roster, choose, fixed)
    this.areas = new Group('area', a => a, t('noArea'), roster, choose, fixed)
  }

  // render reports whether there is one more or less to choose from.
  render() {
    const { filter, found, kinds, types, areas } = this.roster
    const telling = [kinds, filter.type, filter.area].join('\n')
    const other = telling !== this.#kinds
    if (other) {
      this.#kinds = telling
      this.types.values(types)
      this.areas.values(areas)
    }
    this.types.render(found.types)
    this.areas.render(found.areas)
    return other
  }
}
