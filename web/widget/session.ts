/**
 * The visitor's session. One token is kept: it identifies the calls for a day, and opens the session again for
 * more than a year. When the server takes it no longer for calls (too old, or the visitor turned out to be
 * somebody else), the session is opened again behind the visitor's back, and the call is made once more.
 */
import type { WidgetSession } from '@shared/api-types'

export interface VisitorSessionOptions {
  storageKey: string
  storage: Pick<Storage, 'getItem' | 'setItem'> | null
  /** Asks the server for a session; the token is that of the last one. */
  open: (token: string | null) => Promise<WidgetSession>
  /** A session was opened, the first one or another. */
  onOpened: (session: WidgetSession) => void
}

export class VisitorSession {
  readonly #options: VisitorSessionOptions
  #token: string | null
  #opening: Promise<WidgetSession> | null = null

  constructor(options: VisitorSessionOptions) {
    this.#options = options
    try {
      this.#token = options.storage?.getItem(options.storageKey) ?? null
    } catch {
      this.#token = null
    }
  }

  /** Whether this browser has been here before. */
  get returning(): boolean {
    return this.#token !== null
  }

  /** What identifies the visitor's calls. */
  headers(): Record<string, string> {
    return this.#token === null ? {} : { Authorization: `Bearer ${this.#token}` }
  }

  /** Opens or resumes the session; who asks meanwhile gets the same answer. Rejects as the server answers. */
  open(): Promise<WidgetSession> {
    this.#opening ??= this.#open().finally(() => {
      this.#opening = null
    })
    return this.#opening
  }

  /** For `createApi`: a call was refused, so that the session has to be opened again. */
  async renew(): Promise<void> {
    await this.open()
  }

  async #open(): Promise<WidgetSession> {
    const answer = await this.#options.open(this.#token)
    this.#token = answer.visitor_token
    try {
      this.#options.storage?.setItem(this.#options.storageKey, answer.visitor_token)
    } catch {
      // Storage full: the visitor is remembered for as long as the page lives.
    }
    this.#options.onOpened(answer)
    return answer
  }
}
