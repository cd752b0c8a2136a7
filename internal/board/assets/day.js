// The last day: how many were on duty, as a curve below the number, and when an agent was, as bars. What nobody knows is blank.

import { $, el, lasted, near, number, said, t } from './words.js'
import { get, now } from './link.js'
import { NONE, ON } from './roster.js'

const long = 24 * 3600e3
const often = 300e3, soon = 60e3 // until the curve is asked for again, and after it could not be read
const wide = 1000, high = 100 // of the drawings, whatever they are stretched to

const space = document.querySelector('#day svg').namespaceURI

function svg(name, attributes, ...children) {
  const e = document.createElementNS(space, name)
  for (const [key, value] of Object.entries(attributes)) e.setAttribute(key, value)
  e.append(...children)
  return e
}

const drawing = (what, ...children) =>
  svg('svg', { role: 'img', 'aria-label': what, viewBox: `0 0 ${wide} ${high}`, preserveAspectRatio: 'none' }, ...children)

// ends says when a drawing begins and ends.
const ends = (from, at) => el('p', { className: 'ends' }, el('span', {}, near(from, at, false)), el('span', {}, t('day.now')))

// token is how the stream's subjects name a type; null: by no name of its own.
const token = type => type === NONE ? '_' : /^[A-Za-z0-9-]{1,32}$/.test(type) ? type : null

// Curve is how many of those that are chosen by type and area were on duty.
export class Curve {
  #day = null
  #due = -Infinity // when it is to be asked for, by performance.now()
  #asking = false
  #told = ''
  #figure = $('day')

  constructor(roster) { this.roster = roster }

  // tick is to be called often: it asks for the day where that is due, and draws it. Whether the number is believed decides
  // whether the curve goes on to now.
  tick(believed) {
    if (!this.#asking && document.visibilityState !== 'hidden' && performance.now() >= this.#due) this.#ask(believed)
    this.draw(believed)
  }

  async #ask(believed) {
    this.#asking = true
    const { json } = await get('day')
    this.#asking = false
    if (json) this.#day = json
    this.#due = performance.now() + (json ? often : soon) * (0.9 + Math.random() / 5)
    this.draw(believed)
    if (!json) this.#figure.replaceChildren(el('figcaption', {}, t('day.error')))
  }

  draw(believed) {
    const { filter, found } = this.roster, d = this.#day
    const type = filter.type === '' ? '' : token(filter.type), area = filter.area === NONE ? null : filter.area
    this.#figure.hidden = filter.words.length > 0 || type === null
    if (!d || this.#figure.hidden) return
    const at = now(), from = at - long

    const counts = new Array(d.points).fill(0)
    for (const s of d.on) {
      if (type !== '' && s.type !== type || area !== '' && said(s.area) !== area) continue
      for (const [point, more] of s.changes) counts[point] += more
    }
    for (let i = 1; i < counts.length; i++) counts[i] += counts[i - 1]
    const time = i => d.from + i * d.step

    // The stretches of which something is known, each with its steps.
    const end = believed ? at : time(d.points - 1)
    const blank = d.unknown.filter(u => type === '' || u.type === type).sort((a, b) => a.from - b.from)
    const stretches = []
    let begin = from, dark = 0
    for (const u of blank) {
      if (u.from > begin) stretches.push([begin, u.from])
      dark += Math.max(0, u.to - Math.max(begin, u.from))
      begin = Math.max(begin, u.to)
    }
    if (end > begin) stretches.push([begin, end])
    let most = null, least = null
    const known = stretches.map(([a, b]) => {
      const steps = []
      for (let i = Math.max(0, Math.ceil((a - d.from) / d.step)); i < d.points && time(i) < b; i++) steps.push([steps.length ? time(i) : a, counts[i]])
      if (believed && b === at) steps.push([at, found.counts[ON]])
      for (const s of steps) {
        if (!most || s[1] > most[1]) most = s
        if (!least || s[1] < least[1]) least = s
      }
      return { b, steps }
    }).filter(k => k.steps.length > 0)
    const x = ms => Math.round((ms - from) / long * wide * 10) / 10
    const y = n => Math.round((high - 2 - (high - 6) * n / Math.max(1, most[1])) * 10) / 10
    const lines = known.map(({ b, steps: [[a, n], ...rest] }) => [`${x(a)} ${y(n)}` + rest.map(([ms, m]) => `H${x(ms)}V${y(m)}`).join('') + `H${x(b)}`, x(a), x(b)])

    const words = [most && t('day.says', { most: number(most[1]), mostAt: near(most[0], at, false), least: number(least[1]), leastAt: near(least[0], at, false) }),
      dark >= 60e3 && t('day.dark', { d: lasted(dark) })].filter(Boolean).join(' · ')
    const telling = JSON.stringify([lines, words])
    if (telling === this.#told && this.#figure.querySelector('svg')) return
    this.#told = telling
    this.#figure.replaceChildren(
      drawing(`${t('day.curve')}: ${words}`,
        svg('path', { class: 'area', d: lines.map(([l, a, b]) => `M${a} ${high}L${l}V${high}H${a}Z`).join('') }),
        svg('path', { class: 'line', d: lines.map(([l]) => 'M' + l).join('') })),
      ends(from, at), el('figcaption', {}, words))
  }
}

const kinds = { on: 'state.on', off: 'state.off', unknown: 'day.unknown' }

// bars are an agent's last day: what GET /agents/{id}/day says.
export function bars(day) {
  const x = ms => Math.round((ms - day.from) / (day.to - day.from) * wide * 10) / 10
  const sums = { on: 0, off: 0, unknown: 0 }
  const drawn = day.intervals.map(i => {
    sums[i.state] += i.to - i.from
    const e = svg('rect', { class: i.state, x: x(i.from), width: Math.max(2, x(i.to) - x(i.from)), y: i.state === 'off' ? 80 : 0, height: i.state === 'off' ? 20 : high })
    const title = svg('title', {}, t('day.bar', { what: t(kinds[i.state]), from: near(i.from, day.to, false), to: near(i.to, day.to, false), d: lasted(i.to - i.from) }))
    e.append(title)
    return e
  })
  drawn.sort((a, b) => (a.getAttribute('class') === 'on') - (b.getAttribute('class') === 'on')) // however short, it can be seen
  const legend = Object.keys(sums).filter(s => sums[s] > 0).map(s => el('li', { className: s }, t(kinds[s]) + ' ', el('b', {}, lasted(sums[s]))))
  return [drawing(`${t('day.title')}: ${legend.map(e => e.textContent).join(', ')}`, ...drawn), ends(day.from, day.to), el('ul', {}, ...legend)]
}

// fill shows a day in a figure. null: it can't be read.
export function fill(figure, day) {
  figure.hidden = day !== null && day.intervals.length === 0
  if (day === null) figure.replaceChildren(el('figcaption', {}, t('day.error')))
  else if (!figure.hidden) figure.replaceChildren(...bars(day))
}
