// An event in words.

import { bdi, el, fieldName, lasted, named, near, t, time, typeName } from './words.js'

function happened(e) {
  let d = e.previousSince && e.since > e.previousSince ? lasted(e.since - e.previousSince) : ''
  if (d && e.atLeast) d = t('d.least', { d })
  switch (e.reason) {
    case 'baseline': return t(e.online ? 'e.baselineOn' : 'e.baselineOff')
    case 'appeared': return t(e.online ? 'e.appearedOn' : 'e.appearedOff')
    case 'status': return e.online ? t(d ? 'e.signedInAfter' : 'e.signedIn', { d }) : t(d ? 'e.signedOutAfter' : 'e.signedOut', { d })
    case 'removed': {
      const key = e.deleted ? 'e.deleted' : 'e.left'
      return e.type === 'agent.offline' && d ? t(key + 'On', { d }) : t(key)
    }
    case 'fields': return ''
    default: return t('e.changed')
  }
}

function value(field, v) {
  if (v === null) return el('i', {}, t('absent'))
  if (v === '') return el('i', {}, t('empty'))
  if (field === 'type') return bdi(typeName(v))
  if (field === 'isArea' || field === 'deleteFlag') return bdi(v === '1' ? t('v.yes') : v === '0' ? t('v.no') : v)
  return bdi(v)
}

function change([field, from, to]) {
  return el('span', { className: 'change' }, el('span', { className: 'what' }, bdi(fieldName(field))), ' ', value(field, from),
    el('span', { className: 'arrow', ariaHidden: 'true' }, ' → '), el('span', { className: 'hidden' }, t('to')), ' ', value(field, to))
}

// What the words say already.
const said = e => c => !(e.reason === 'status' && c[0] === 'onlineStatus') && !(e.reason === 'removed' && c[0] === 'deleteFlag')

export const tone = e => e.type === 'agent.online' ? 'on' : e.type === 'agent.offline' ? 'off' : 'other'

// line is a list item: when, who (if open is given) and what.
export function line(e, now, open) {
  const what = el('div')
  const who = open ? [el('button', { type: 'button', className: 'link', onclick: () => open(e.agent) }, bdi(named(e.name)))] : []
  const words = happened(e)
  if (words) what.append(el('span', { className: 'words' }, words))
  for (const c of e.changes.filter(c => !c[3]).filter(said(e))) what.append(' ', change(c))
  if (!open) {
    const quiet = e.changes.filter(c => c[3])
    if (quiet.length) what.append(el('details', { className: 'quiet' }, el('summary', {}, t('h.quiet', { n: quiet.length })), ...quiet.map(change)))
    if (e.truncated) what.append(el('div', { className: 'quiet' }, t('h.truncated')))
    if (e.notBefore) what.append(el('div', { className: 'quiet' }, t('h.between', { from: near(e.notBefore, now), to: near(e.time, now) })))
  }
  return el('li', { className: tone(e) }, time(e.time, near(e.time, now)), el('div', {}, ...who, ' ', what))
}
