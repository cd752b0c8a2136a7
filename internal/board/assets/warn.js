// Who has been on duty too long: ?warn=10h in the address marks them.

const units = { m: 60e3, min: 60e3, h: 3600e3, d: 86400e3 }

// duration is a time such as 90m, 10h, 1.5d or 1h30m in milliseconds; NaN if it is none.
export function duration(text) {
  const whole = text.trim().toLowerCase()
  if (!/^(\d+(\.\d+)?(min|m|h|d))+$/.test(whole)) return NaN
  let ms = 0
  for (const [, n, unit] of whole.matchAll(/(\d+(?:\.\d+)?)(min|m|h|d)/g)) ms += Number(n) * units[unit]
  return ms > 0 ? ms : NaN
}
