// An agent and its recent history, in a dialog.

import { $, bdi, el, full, held, named, setText, t, typeName } from './words.js'
import { again, get, now } from './link.js'
import { fill } from './day.js'
import { GONE } from './roster.js'
import { line } from './tell.js'

const stateWords = { 0: 'state.off', 1: 'state.on', 2: 'state.gone' }

export class History {
  #id = null
  #asked = 0
  #about = undefined
  #dialog = $('history')

  // opened is told whose history is open; null: nobody's.
  constructor(roster, opened) {
    this.roster = roster
    this.opened = opened
    $('close').addEventListener('click', () => this.#dialog.close())
    $('again').addEventListener('click', () => this.#ask())
    this.#dialog.addEventListener('close', () => {
      this.#id = null
      opened(null)
    })
    this.#dialog.addEventListener('click', e => { if (e.target === this.#dialog) this.#dialog.close() }) // beside it
  }

  open = id => {
    this.#id = id
    this.opened(id)
    this.about(true)
    $('past').replaceChildren()
    $('more').hidden = $('agents-day').hidden = true
    this.#dialog.showModal()
    this.#dialog.scrollTop = 0
    this.#ask()
  }

  // add shows what has just happened to the agent that is shown.
  add(events) {
    for (const e of events) if (e.agent === this.#id) return void this.#ask() // with all that it changed
  }

  // about says how the agent is now, where it or the time has changed.
  about(ticked) {
    if (this.#id === null) return
    const a = this.roster.agents.get(this.#id)
    if (a === this.#about && !ticked) return
    this.#about = a
    setText($('history-title').firstChild, a ? named(a.name) : t('h.nobody'))
    const facts = [['id', bdi(this.#id)]]
    if (a) {
      facts.push(['account', bdi(a.account ?? '–')], ['type', bdi(typeName(a.type))], ['area', bdi(a.area || '–')], ['capacity', String(a.capacity ?? '–')],
        ['state', t(stateWords[a.state])], [a.state === GONE ? 'removedAt' : a.atLeast ? 'seenSince' : 'since', `${held(now() - a.since, a.atLeast)} · ${full(a.since)}`], ['revision', String(a.revision)])
    }
    $('about').replaceChildren(...facts.map(([key, value]) => el('div', {}, el('dt', {}, t(key)), el('dd', {}, value))))
  }

  async #ask() {
    const asked = ++this.#asked, id = this.#id
    $('again').hidden = true
    if (!$('past').children.length) setText($('history-state'), t('h.loading'))
    const lastDay = get(`agents/${encodeURIComponent(id)}/day`)
    const { json, status, signIn, timeout } = await get(`agents/${encodeURIComponent(id)}/history`)
    const answer = json ?? (status === '404' ? { events: [] } : null) // an address may ask for what is no agent's id
    if (asked !== this.#asked || id !== this.#id) return
    $('again').hidden = Boolean(answer)
    $('more').hidden = !answer?.more
    setText($('history-state'), answer?.events.length ? '' : t(answer ? 'h.none' : signIn ? 'b.signIn' : timeout ? 'r.timeout' : 'h.error'))
    if (signIn) $('history-state').append(' ', el('a', { href: again() }, t('signIn')))
    if (answer) $('past').replaceChildren(...answer.events.map(e => line(e, now())))
    const { json: day, status: none } = await lastDay
    if (asked === this.#asked && id === this.#id) fill($('agents-day'), day ?? (none === '404' ? { intervals: [] } : null))
  }
}
