// Words, times and durations in the reader's language and time zone, and small helpers for the document.

const words = JSON.parse(document.getElementById('words').textContent)
export const lang = document.documentElement.lang

// t is the text of a key, with {name} replaced by values.name.
export function t(key, values = {}) {
  return (words[key] ?? key).replace(/\{(\w+)\}/g, (_, name) => values[name] ?? '')
}

// A text of blanks and of what can't be seen says nothing: said is null for it.
const nothing = /^[\s\p{Cc}\p{Cf}\p{Z}\u115f\u1160\u2800\u3164\uffa0]*$/u
export const said = text => text == null || nothing.test(text) ? null : text
export const named = name => said(name) ?? t('noName')

const count = new Intl.NumberFormat(lang)
export const number = n => count.format(n)

// Names sort as a Chinese reader expects, by pinyin, whatever language the page is in: most names are Chinese.
export const collator = new Intl.Collator('zh-CN', { numeric: true, sensitivity: 'base' })

const day = { month: 'short', day: 'numeric' }
const minute = { hour: '2-digit', minute: '2-digit', hourCycle: 'h23' }
const second = { ...minute, second: '2-digit' }
const formats = {
  minute: new Intl.DateTimeFormat(lang, minute),
  second: new Intl.DateTimeFormat(lang, second),
  dayMinute: new Intl.DateTimeFormat(lang, { ...day, ...minute }),
  daySecond: new Intl.DateTimeFormat(lang, { ...day, ...second }),
  date: new Intl.DateTimeFormat(lang, { year: 'numeric', ...day }),
  full: new Intl.DateTimeFormat(lang, { dateStyle: 'medium', timeStyle: 'medium' }),
}

// The years that Intl can format are more than a log can say, but a page must not fail on one.
const format = (how, ms) => { try { return formats[how].format(ms) } catch { return '?' } }

export const full = ms => format('full', ms)

// near is the time of day, with the day where that is more than half a day ago.
export function near(ms, now, precise = true) {
  const how = precise ? 'second' : 'minute'
  const age = now - ms
  if (age > 300 * 86400e3) return format('date', ms)
  return format(age > 12 * 3600e3 || age < -60e3 ? (precise ? 'daySecond' : 'dayMinute') : how, ms)
}

// lasted is a duration in its two largest units.
export function lasted(ms) {
  const s = Math.max(0, Math.floor(ms / 1000)), m = Math.floor(s / 60), h = Math.floor(m / 60), d = Math.floor(h / 24)
  if (s < 60) return t('d.s', { s })
  if (m < 60) return t('d.m', { m })
  if (h < 24) return t('d.h', { h, m: String(m % 60).padStart(2, '0') })
  return t('d.d', { d: number(d), h: h % 24 })
}

// held is how long a state has lasted, or at least so long.
export const held = (ms, atLeast) => atLeast ? t('d.atLeast', { d: lasted(ms) }) : lasted(ms)

// took is a short duration with a digit more.
export function took(ms) {
  return ms < 10000 ? t('d.s', { s: new Intl.NumberFormat(lang, { maximumSignificantDigits: 2 }).format(ms / 1000) }) : lasted(ms)
}

const types = new Set(['0', '1', '2', '10'])
export const typeName = type => said(type) === null ? t('noType') : types.has(type) ? t('type.' + type) : t('type.other', { type })
export const fieldName = field => words['f.' + field] ?? field

export const $ = id => document.getElementById(id)

// el makes an element. Whatever goes into it is text: nothing here parses markup.
export function el(name, props = {}, ...children) {
  const e = document.createElement(name)
  for (const [key, value] of Object.entries(props)) {
    if (key in e) e[key] = value
    else e.setAttribute(key, value)
  }
  e.append(...children)
  return e
}

// bdi isolates a text that may be of any direction, or say that it is.
export const bdi = text => el('bdi', {}, text)

// setText leaves a document alone that says so already.
export function setText(e, text) {
  if (e.textContent !== text) e.textContent = text
}

export function time(ms, text) {
  const e = el('time', {}, text)
  setTime(e, ms, text)
  return e
}

// setTime says when; atLeast: or before that.
export function setTime(e, ms, text, atLeast = false) {
  setText(e, text)
  if (e.stamp === ms && e.atLeast === atLeast) return
  e.stamp = ms
  e.atLeast = atLeast
  try { e.dateTime = new Date(ms).toISOString() } catch { e.removeAttribute('datetime') }
  e.title = atLeast ? t('sinceOrBefore', { time: full(ms) }) : full(ms)
}
