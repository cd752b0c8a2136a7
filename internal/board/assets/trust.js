// Can it be believed? What is wrong with the picture, worst first, and the facts by which to judge.

import { again } from './link.js'
import { $, bdi, el, lasted, near, number, setText, t, time, took } from './words.js'

// For each reason there are words for whoever looks at the page, and what they can do.
const reasons = ['unreachable', 'credentials', 'unusable', 'inconsistent', 'missing', 'unidentified']
const why = h => t('r.' + (reasons.includes(h.reason) ? h.reason : h.state === 'holding' ? 'held' : 'other'))
const todo = h => t('n.' + (reasons.includes(h.reason) ? h.reason : 'other'))

// problems says what is wrong at a time of rollcall's clock.
export function problems(s, now) {
  const found = []
  const tell = (level, key, values) => found.push({ level, key, title: t('b.' + key), text: t('b.' + key + 'Text', values) })
  const at = ms => near(ms, now)
  const { lost } = s
  if (lost?.full) tell('bad', 'full', { n: number(lost.full) })
  else if (lost && !lost.hidden) {
    tell('bad', lost.signIn ? 'signIn' : 'lost')
    const text = lost.signIn ? t('b.signInText') : lost.timeout ? t('r.timeout') : lost.status ? t('r.status', { status: lost.status }) : ''
    found[0].text = [text, s.heard ? t('b.asOf', { time: at(s.heard) }) : '', t('b.tries')].filter(Boolean).join(' ')
    if (lost.signIn) found[0].link = t('signIn')
  }
  if (s.newer) {
    tell('warn', 'newer')
    found.at(-1).link = t('reload')
  }
  if (!s.trust) return found
  const { watermark: w, health: h, reading } = s.trust
  if (!reading && s.ready && !lost) tell('bad', 'unread')
  if (s.ready && !w?.sweep) tell('warn', 'none')
  else if (w?.sweep && now > w.until) tell('bad', 'stale', { time: at(w.startedAt), due: at(w.until) })
  if (h && h.state !== 'ok') {
    const known = h.state === 'failing' || h.state === 'holding'
    tell(h.state === 'holding' ? 'warn' : 'bad', known ? h.state : 'failing', { why: why(h), time: at(h.since), todo: todo(h) })
    found.at(-1).detail = [h.reason, h.detail].filter(Boolean).join(': ')
  }
  return found
}

const boxes = new Map() // by the problem's key

// box is a problem in the banner. It changes only where its words do, as it is read aloud, and what was unfolded stays so.
function box(p) {
  let e = boxes.get(p.key)
  if (!e) {
    e = el('div', {}, el('strong'), ' ', el('span'), ' ', el('a', { href: again() }), el('details', {}, el('summary', {}, t('b.detail')), el('bdi')))
    e.dataset.problem = p.key
    boxes.set(p.key, e)
  }
  const [title, text, link, fold] = e.children
  e.className = 'problem ' + p.level
  setText(title, p.title)
  setText(text, p.text)
  setText(link, p.link ?? '')
  link.href = again()
  link.hidden = !p.link
  setText(fold.lastChild, p.detail ?? '')
  fold.hidden = !p.detail
  return e
}

let told = ''

// show puts the problems where they can't be overlooked.
export function show(s, now) {
  const found = problems(s, now)
  const level = found.some(p => p.level === 'bad') ? 'bad' : found.length ? 'warn' : s.ready && !s.lost ? 'good' : 'wait'
  const telling = JSON.stringify(found)
  if (telling !== told) {
    told = telling
    const present = found.map(box), banner = $('banner')
    if (present.length !== banner.children.length || present.some((e, i) => e !== banner.children[i])) banner.replaceChildren(...present)
    for (const key of boxes.keys()) if (!found.some(p => p.key === key)) boxes.delete(key)
  }
  const w = s.trust?.watermark
  document.documentElement.dataset.trust = level
  const head = found.length ? found[0].title : level === 'good' ? t('p.live') : t('p.wait')
  setText($('pulse-text'), w?.sweep ? `${head} · ${t('p.as', { d: lasted(now - w.startedAt) })}` : head)
  document.title = found.length ? `⚠ ${found[0].title} · rollcall` : !s.ready || s.lost ? t('title') : s.narrowed ? t('titleOf', { n: number(s.on), of: number(s.of) }) : `${number(s.on)} ${t('title')}`
  facts(s, now, level)
}

const cells = new Map()

// fact shows a line of the list, or takes it away.
function fact(key, ...content) {
  let dd = cells.get(key)
  if (!dd) {
    dd = el('dd')
    cells.set(key, dd)
    $('facts').append(el('div', {}, el('dt', {}, t(key)), dd))
  }
  dd.parentNode.hidden = content.length === 0
  const telling = content.map(c => c.textContent ?? c).join('')
  if (dd.textContent !== telling) dd.replaceChildren(...content)
}

function facts(s, now, level) {
  setText($('verdict'), level === 'wait' ? t('loading') : t('t.verdict.' + level))
  $('verdict').className = level
  if (!s.trust) return
  const { watermark: w, health: h, self } = s.trust
  if (w?.sweep) {
    fact('t.age', time(w.startedAt, near(w.startedAt, now)), ` · ${t('t.ago', { d: lasted(now - w.startedAt) })}`)
    fact('t.took', `${took(w.completedAt - w.startedAt)} · ${t('t.sweep', { n: number(w.sweep) })}`)
    fact('t.due', time(w.until, near(w.until, now)))
    if (w.glancedAt) fact('t.glance', time(w.glancedAt, near(w.glancedAt, now)), ` · ${t('t.ago', { d: lasted(now - w.glancedAt) })}`)
    else fact('t.glance')
  } else {
    fact('t.age', t('t.none'))
    fact('t.took')
    fact('t.due')
    fact('t.glance')
  }
  if (h) fact('t.health', t('t.since', { what: ['ok', 'failing', 'holding'].includes(h.state) ? t('h.' + h.state) : h.state, time: near(h.since, now) }))
  else fact('t.health')
  if (w?.instance) fact('t.leader', bdi(!self || w.instance === self ? (self ? t('t.self', { name: w.instance }) : w.instance) : t('t.standby', { name: w.instance, self })))
  else fact('t.leader')
  if (w?.missing) fact('t.missing', t('t.missingText', { n: number(w.missing) }))
  else fact('t.missing')
  if (w?.rejected) fact('t.rejected', number(w.rejected))
  else fact('t.rejected')
}
