/**
 * Messages that are typed but not yet acknowledged.
 *
 * Each has a `client_id` made once, so that any number of tries stores one message. They are sent one after the
 * other, in the order typed, and kept in localStorage until the server has acknowledged them: a reload, a crash
 * of the tab or a night without network loses nothing.
 */
import { ApiError, isTransient } from './api'
import { randomUuid } from './uuid'

export interface PendingMessage {
  clientId: string
  /** Null: the visitor's first message, which opens the conversation. */
  conversationId: number | null
  body: string
  kind: 'text' | 'note'
  /** The sender's own clock, for display until the server's time is known. */
  createdAt: string
  state: 'waiting' | 'sending' | 'failed'
  attempts: number
  errorCode: string | null
  /** False: the server refused it for good, only the person can decide. */
  retryable: boolean
}

export interface OutboxOptions {
  /** One per person and face, so that nobody sends what somebody else typed in the same browser. */
  storageKey: string
  storage: Pick<Storage, 'getItem' | 'setItem' | 'removeItem'> | null
  send: (message: PendingMessage) => Promise<void>
  onChange: (messages: readonly PendingMessage[]) => void
  makeId?: () => string
  now?: () => Date
  setTimer?: (callback: () => void, ms: number) => unknown
  clearTimer?: (timer: unknown) => void
}

/** Tries before the bubble says "failed"; the outbox itself goes on trying. */
export const TRIES_BEFORE_FAILED = 3
const FIRST_DELAY_MS = 1_000
const LONGEST_DELAY_MS = 30_000

export class Outbox {
  readonly #options: Required<OutboxOptions>
  #messages: PendingMessage[] = []
  #busy = false
  #timer: unknown = null
  #stopped = false

  constructor(options: OutboxOptions) {
    this.#options = {
      makeId: randomUuid,
      now: () => new Date(),
      setTimer: (callback, ms) => setTimeout(callback, ms),
      clearTimer: (timer) => {
        clearTimeout(timer as ReturnType<typeof setTimeout>)
      },
      ...options,
    }
    // What another page was sending when it died is unknown here: send again, the client_id makes it safe.
    this.#messages = this.#load().map((message) => ({ ...message, state: 'waiting', attempts: 0 }))
    if (this.#messages.length > 0) this.#changed()
  }

  get messages(): readonly PendingMessage[] {
    return this.#messages
  }

  /** Queues a message and starts sending. Returns its client_id. */
  add(conversationId: number | null, body: string, kind: PendingMessage['kind'] = 'text'): string {
    const message: PendingMessage = {
      clientId: this.#options.makeId(),
      conversationId,
      body,
      kind,
      createdAt: this.#options.now().toISOString(),
      state: 'waiting',
      attempts: 0,
      errorCode: null,
      retryable: true,
    }
    this.#messages = [...this.#messages, message]
    this.#store((stored) => [...stored, message])
    this.#changed()
    void this.#pump()
    return message.clientId
  }

  /** The person presses "retry". */
  retry(clientId: string): void {
    this.#update(clientId, { state: 'waiting', attempts: 0, errorCode: null, retryable: true })
    this.#wake()
  }

  /** The person gives the message up. */
  discard(clientId: string): void {
    this.confirm([clientId])
  }

  /** The network is back: everything that may succeed is tried at once. */
  resume(): void {
    this.#stopped = false
    this.#messages = this.#messages.map((message) =>
      message.state === 'failed' && message.retryable ? { ...message, state: 'waiting', attempts: 0 } : message,
    )
    this.#changed()
    this.#wake()
  }

  /** Sends nothing more (logged out, page closing). What is stored stays stored. */
  stop(): void {
    this.#stopped = true
    this.#options.clearTimer(this.#timer)
    this.#timer = null
  }

  /** These are known to be stored on the server, by an answer or by their echo. */
  confirm(clientIds: readonly string[]): void {
    if (clientIds.length === 0) return
    const gone = new Set(clientIds)
    this.#store((stored) => stored.filter((message) => !gone.has(message.clientId)))
    if (!this.#messages.some((message) => gone.has(message.clientId))) return
    this.#messages = this.#messages.filter((message) => !gone.has(message.clientId))
    this.#changed()
  }

  /** The first message opened this conversation: what was typed after it belongs there. */
  adopt(conversationId: number): void {
    this.#messages = this.#messages.map((message) => ({
      ...message,
      conversationId: message.conversationId ?? conversationId,
    }))
    this.#store((stored) =>
      stored.map((message) => ({ ...message, conversationId: message.conversationId ?? conversationId })),
    )
  }

  #wake(): void {
    this.#options.clearTimer(this.#timer)
    this.#timer = null
    void this.#pump()
  }

  async #pump(): Promise<void> {
    if (this.#busy) return
    this.#busy = true
    try {
      for (;;) {
        const message = this.#next()
        if (!message || this.#stopped || this.#timer !== null) return
        this.#update(message.clientId, { state: message.state === 'failed' ? 'failed' : 'sending' })
        try {
          await this.#options.send(message)
          this.confirm([message.clientId])
        } catch (error) {
          this.#failed(message.clientId, error)
        }
      }
    } finally {
      this.#busy = false
    }
  }

  /** The oldest message that may be sent. One that the server refused for good does not hold up the others. */
  #next(): PendingMessage | undefined {
    return this.#messages.find((message) => message.retryable)
  }

  #failed(clientId: string, error: unknown): void {
    const message = this.#messages.find((other) => other.clientId === clientId)
    // Its echo came in while the answer was lost: it is stored.
    if (!message) return
    const attempts = message.attempts + 1
    const errorCode = error instanceof ApiError ? error.code : 'network'
    if (!isTransient(error)) {
      this.#update(clientId, { state: 'failed', attempts, errorCode, retryable: false })
      return
    }
    this.#update(clientId, {
      state: message.state === 'failed' || attempts >= TRIES_BEFORE_FAILED ? 'failed' : 'waiting',
      attempts,
      errorCode,
    })
    const asked = error instanceof ApiError ? (error.retryAfterSeconds ?? 0) * 1000 : 0
    const delay = Math.max(asked, Math.min(LONGEST_DELAY_MS, FIRST_DELAY_MS * 2 ** (attempts - 1)))
    this.#timer = this.#options.setTimer(() => {
      this.#timer = null
      void this.#pump()
    }, delay)
  }

  #update(clientId: string, change: Partial<PendingMessage>): void {
    this.#messages = this.#messages.map((message) =>
      message.clientId === clientId ? { ...message, ...change } : message,
    )
    this.#changed()
  }

  #changed(): void {
    this.#options.onChange(this.#messages)
  }

  #load(): PendingMessage[] {
    try {
      const parsed: unknown = JSON.parse(this.#options.storage?.getItem(this.#options.storageKey) ?? '[]')
      return Array.isArray(parsed) ? parsed.filter(isPendingMessage) : []
    } catch {
      return []
    }
  }

  /** Reads, changes and writes: another tab of the same person may have stored messages of its own. */
  #store(change: (stored: PendingMessage[]) => PendingMessage[]): void {
    try {
      const next = change(this.#load())
      if (next.length > 0) this.#options.storage?.setItem(this.#options.storageKey, JSON.stringify(next))
      else this.#options.storage?.removeItem(this.#options.storageKey)
    } catch {
      // Storage full or forbidden: the message lives in memory for as long as the page does.
    }
  }
}

function isPendingMessage(value: unknown): value is PendingMessage {
  const item = value as Partial<PendingMessage> | null
  return (
    typeof item === 'object' &&
    item !== null &&
    typeof item.clientId === 'string' &&
    typeof item.body === 'string' &&
    (item.kind === 'text' || item.kind === 'note')
  )
}
