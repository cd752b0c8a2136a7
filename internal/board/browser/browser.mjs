// What the browser tests, the screenshots and the measurements share.

import { chromium } from 'playwright-core'

const executable = process.env.CHROMIUM || '/usr/bin/chromium'
const args = ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
  '--disable-component-update', '--disable-sync']

export const launch = () => chromium.launch({ executablePath: executable, args })

// stage lets something happen to rollcall, the tenant or NATS.
export const stage = control => async (what, values = {}) => {
  const response = await fetch(`${control}/${what}?${new URLSearchParams(values)}`)
  const text = await response.text()
  if (!response.ok) throw new Error(`${what}: ${text}`)
  return text
}

// live waits until a page shows the agents and believes them.
export const live = page => page.locator('html[data-trust=good] #rows .row').first().waitFor()
