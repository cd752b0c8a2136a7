// rollcall's time, as its messages say it, and whether what was heard can still be believed.

export const silence = 6000 // rollcall says something every 2 s
const jump = 2000 // the clock was set, or the machine slept: its other clock may stand still meanwhile
const late = 5000 // a message that was kept back so long, or rollcall's clock was set back

export class Clock {
  #ahead = Date.now() - performance.now() // how far rollcall's clock is ahead, by the message that came soonest
  #known = false
  #at = performance.now() // when something was heard last, by both clocks
  #wall = Date.now()

  // now is the time by rollcall's clock, as a wrong clock of the browser must not make a stale picture look fresh.
  now() {
    const slept = Date.now() - this.#wall - (performance.now() - this.#at)
    return this.#ahead + performance.now() + (slept > jump ? slept : 0)
  }

  // begin is for a new connection, which may be to another rollcall.
  begin() {
    this.#known = false
    this.#touch()
  }

  // broken reports whether nothing was heard for too long, or nobody knows for how long.
  get broken() {
    const gone = performance.now() - this.#at
    return gone > silence || Math.abs(Date.now() - this.#wall - gone) > jump
  }

  // hear takes the time that a message says, and reports whether the message is of now.
  hear(time) {
    const ahead = time - performance.now()
    if (this.broken || this.#known && ahead < this.#ahead - late) return false
    this.#ahead = this.#known ? Math.max(ahead, this.#ahead) : ahead
    this.#known = true
    this.#touch()
    return true
  }

  #touch() {
    this.#at = performance.now()
    this.#wall = Date.now()
  }
}
