// The keyboard: a list of controls is one stop of the tab key, and the arrow keys go from one to the next; "/" begins a search.

const steps = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1, Home: -Infinity, End: Infinity }

// roving makes what the selector finds in a list one tab stop. The function that it returns has to be called when there are
// others.
export function roving(list, selector) {
  const items = () => [...list.querySelectorAll(selector)].filter(e => e.offsetParent !== null)
  const only = chosen => {
    for (const e of list.querySelectorAll(selector)) e.tabIndex = e === chosen ? 0 : -1
  }
  list.addEventListener('focusin', e => { if (e.target.matches(selector)) only(e.target) })
  list.addEventListener('keydown', e => {
    if (!(e.key in steps) || e.ctrlKey || e.altKey || e.metaKey || !e.target.matches(selector)) return
    const all = items()
    const to = Math.max(0, Math.min(all.length - 1, all.indexOf(e.target) + steps[e.key]))
    e.preventDefault()
    all[to].focus()
  })
  const refresh = () => {
    const stops = [...list.querySelectorAll(selector)].filter(e => e.tabIndex === 0)
    if (stops.length !== 1 || stops[0].offsetParent === null) only(stops.find(e => e === document.activeElement) ?? items()[0])
  }
  refresh()
  return refresh
}

// slash takes whoever presses "/" to a field, unless they are writing.
export function slash(field) {
  addEventListener('keydown', e => {
    if (e.key !== '/' || e.ctrlKey || e.altKey || e.metaKey || document.querySelector('dialog[open]')) return
    if (e.target.closest('input:not([type=radio]), select, textarea')) return
    e.preventDefault()
    field.focus()
    field.select()
  })
}
