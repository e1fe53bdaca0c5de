/** The safety net under the socket: a slow poll while it is up, a quicker one while it is not. */
import type { ConnectionState } from './connection'

const ONLINE_MS = 30_000
const OFFLINE_MS = 4_000

export interface PollOptions {
  state: () => ConnectionState
  poll: () => Promise<void>
  /** 0 ≤ x < 1; spreads the polls of many clients that lost their socket at the same moment. */
  random?: () => number
}

/** Starts polling. Returns the function that ends it. */
export function startPolling({ state, poll, random = Math.random }: PollOptions): () => void {
  let timer: ReturnType<typeof setTimeout>
  let ended = false
  let waited = 0
  const tick = async (): Promise<void> => {
    waited += OFFLINE_MS
    const due = state() === 'online' ? waited >= ONLINE_MS : true
    if (due && document.visibilityState === 'visible' && navigator.onLine) {
      waited = 0
      await poll().catch(() => undefined)
    }
    if (!ended) schedule()
  }
  const schedule = (): void => {
    timer = setTimeout(() => void tick(), OFFLINE_MS * (0.85 + 0.3 * random()))
  }
  schedule()
  return () => {
    ended = true
    clearTimeout(timer)
  }
}
