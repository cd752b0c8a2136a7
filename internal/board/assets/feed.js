// What just happened: the latest events, the newest first. It stands still while someone points at it, or has paused it.

import { $, setText, t } from './words.js'
import { now } from './link.js'
import { line } from './tell.js'

const most = 60
const reading = 10000 // a pointer that has not moved for so long has been left there

export class Feed {
  #events = [] // the newest first
  #new = 0 // how many of them are not shown yet
  #paused = false
  #hovered = false
  #list = $('events')

  constructor(open) {
    this.open = open
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

  reset() {
    this.#events = []
    this.#new = 0
    this.replace = true
  }

  add(events) {
    for (const e of events) {
      if (this.#events.some(known => known.id === e.id)) continue
      this.#events.unshift(e)
      this.#new++
    }
    this.#events.length = Math.min(most, this.#events.length)
  }

  render() {
    const held = this.#paused || this.#hovered || this.#list.contains(document.activeElement) && this.#list !== document.activeElement
    $('nothing').hidden = this.#events.length > 0
    $('held').hidden = !(held && this.#new)
    if (held && !this.replace) {
      if (this.#new) setText($('held'), t('held', { n: this.#new }))
      return
    }
    const at = now()
    const shown = this.replace ? this.#events.length : Math.min(this.#new, this.#events.length)
    const items = this.#events.slice(0, shown).map(e => line(e, at, this.open))
    if (this.replace) this.#list.replaceChildren(...items)
    else this.#list.prepend(...items)
    while (this.#list.children.length > most) this.#list.lastChild.remove()
    this.replace = false
    this.#new = 0
    $('held').hidden = true
  }
}
