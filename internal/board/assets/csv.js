// The view as a file for a spreadsheet.

import { t, typeName } from './words.js'

const stateWords = { 0: 'state.off', 1: 'state.on', 2: 'state.gone' }

// A spreadsheet would take a text that begins so for a formula, and these texts are the vendor's.
const formula = /^[=+\-@＝＋－＠\t\r\n]/

function cell(v) {
  const text = typeof v === 'number' ? String(v) : formula.test(v) ? "'" + v : v
  return /[",\r\n]/.test(text) ? '"' + text.replaceAll('"', '""') + '"' : text
}

// when is a time in the reader's time zone, with what that is ahead of UTC.
function when(ms) {
  const d = new Date(ms)
  if (Number.isNaN(d.getTime())) return ''
  const two = n => String(n).padStart(2, '0')
  const ahead = -d.getTimezoneOffset(), abs = Math.abs(ahead)
  return `${d.getFullYear()}-${two(d.getMonth() + 1)}-${two(d.getDate())}T${two(d.getHours())}:${two(d.getMinutes())}:${two(d.getSeconds())}` +
    `${ahead < 0 ? '-' : '+'}${two(Math.floor(abs / 60))}:${two(abs % 60)}`
}

// csv is a table of agents, with a mark in front by which spreadsheets know UTF-8.
export function csv(agents) {
  const heads = ['id', 'name', 'account', 'type', 'area', 'capacity', 'state', 'since', 'csvAtLeast'].map(key => t(key))
  const rows = agents.map(a => [a.id, a.name ?? '', a.account ?? '', typeName(a.type), a.area ?? '', a.capacity ?? '', t(stateWords[a.state]), when(a.since),
    t(a.atLeast ? 'v.yes' : 'v.no')])
  return '\ufeff' + [heads, ...rows].map(row => row.map(cell).join(',') + '\r\n').join('')
}

// save lets the browser save a text as a file.
export function save(name, text) {
  const a = document.createElement('a')
  a.href = URL.createObjectURL(new Blob([text], { type: 'text/csv;charset=utf-8' }))
  a.download = name
  a.click()
  setTimeout(() => URL.revokeObjectURL(a.href), 10000)
}
