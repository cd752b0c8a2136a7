// What just happened: the latest events, the newest first. It stands still while someone points at it, or has paused it.

import { $, number, setText, t } from './words.js'
import { now } from './link.js'
import { roving } from './keys.js'
import { line } from './tell.js'

const most = 60 // that are shown
const known = 500 // that are kept, as a filter may leave few of them
const reading = 10000 // a pointer that has not moved for so long has been left there

export class Feed {
  #events = [] // the newest first
  #new = 0 // how many of them are not shown yet
  #paused = false
  #hovered = false
  #list = $('events')

  constructor(roster, open) {
    this.roster = roster
    this.open = open
    this.keys = roving(this.#list, 'button')
    let left
    const hover = is => {
      clearTimeout(left)
      if (is) left = setTimeout(hover, reading, false)
      this.#hovered = is
      this.render()
    }
    $('happened').addEventListener('pointermove', () => hover(true))
    $('happened').addEventListener('pointerleave', () => hover(false))
    $('pause').addEventListener('click', () => {
      this.#paused = !this.#paused
      $('pause').ariaPressed = String(this.#paused)
      setText($('pause'), t(this.#paused ? 'resume' : 'pause'))
      this.render()
    })
  }

  // reset begins anew; with what is known, if only the filter is another.
  reset(filtered = false) {
    if (!filtered) this.#events = []
    this.#new = 0
    this.replace = true
  }

  add(events) {
    for (const e of events) {
      if (this.#events.some(old => old.id === e.id)) continue
      this.#events.unshift(e)
      this.#new++
    }
    this.#events.length = Math.min(known, this.#events.length)
  }

  // shown are those of the latest events that are of agents whom the filter lets through.
  #shown(latest) {
    const events = this.#events.slice(0, latest)
    if (!this.roster.narrowed) return events.slice(0, most)
    const has = e => {
      const a = this.roster.agents.get(e.agent)
      return a !== undefined && this.roster.matches(a)
    }
    return events.filter(has).slice(0, most)
  }

  render() {
    const holds = this.#paused || this.#hovered || this.#list.contains(document.activeElement)
    const fresh = this.#shown(this.replace ? known : this.#new)
    $('narrowed').hidden = !this.roster.narrowed
    $('held').hidden = true
    if (holds && !this.replace) {
      $('held').hidden = fresh.length === 0
      setText($('held'), t('held', { n: fresh.length }))
      return
    }
    const at = now()
    const items = fresh.map(e => line(e, at, this.open))
    if (this.replace) this.#list.replaceChildren(...items)
    else this.#list.prepend(...items)
    while (this.#list.children.length > most) this.#list.lastChild.remove()
    if (items.length) this.keys()
    this.replace = false
    this.#new = 0
    const none = this.#list.children.length === 0
    $('nothing').hidden = !none
    if (none) setText($('nothing'), this.#events.length ? t('nothingHere', { n: number(this.#events.length) }) : t('nothing'))
  }
}
