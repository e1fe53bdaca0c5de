import { beforeEach, describe, expect, it } from 'vitest'
import { ApiError, NetworkError } from '../api'
import { Outbox, TRIES_BEFORE_FAILED, type OutboxOptions, type PendingMessage } from '../outbox'

class MemoryStorage {
  readonly items = new Map<string, string>()
  getItem = (key: string): string | null => this.items.get(key) ?? null
  setItem = (key: string, value: string): void => void this.items.set(key, value)
  removeItem = (key: string): void => void this.items.delete(key)
}

let storage: MemoryStorage
let sent: PendingMessage[]
let answers: (Error | null)[]
let timers: { callback: () => void; ms: number }[]
let ids: number

beforeEach(() => {
  storage = new MemoryStorage()
  sent = []
  answers = []
  timers = []
  ids = 0
})

function make(change: Partial<OutboxOptions> = {}): Outbox {
  return new Outbox({
    storageKey: 'outbox',
    storage,
    makeId: () => `id-${++ids}`,
    now: () => new Date(0),
    setTimer: (callback, ms) => {
      const timer = { callback, ms }
      timers.push(timer)
      return timer
    },
    clearTimer: (timer) => {
      timers = timers.filter((other) => other !== timer)
    },
    onChange: () => undefined,
    send: (message) => {
      sent.push(message)
      const answer = answers.shift()
      return answer ? Promise.reject(answer) : Promise.resolve()
    },
    ...change,
  })
}

const settle = async (): Promise<void> => {
  for (let turn = 0; turn < 30; turn += 1) await Promise.resolve()
}

async function fireTimer(): Promise<void> {
  const timer = timers.shift()
  timer?.callback()
  await settle()
}

const stored = (): string[] =>
  (JSON.parse(storage.getItem('outbox') ?? '[]') as PendingMessage[]).map((message) => message.clientId)

describe('sending', () => {
  it('sends in the order typed, one at a time, and forgets what is acknowledged', async () => {
    const outbox = make()
    outbox.add(7, 'one')
    outbox.add(7, 'two')
    await settle()
    expect(sent.map((message) => message.body)).toEqual(['one', 'two'])
    expect(outbox.messages).toEqual([])
    expect(storage.items.size).toBe(0)
  })

  it('repeats with the same client_id and lets nothing overtake', async () => {
    answers = [new NetworkError(null)]
    const outbox = make()
    outbox.add(7, 'one')
    outbox.add(7, 'two')
    await settle()
    expect(sent.map((message) => message.clientId)).toEqual(['id-1'])
    await fireTimer()
    expect(sent.map((message) => message.clientId)).toEqual(['id-1', 'id-1', 'id-2'])
  })

  it('waits longer from try to try, says "failed" after some, and still goes on', async () => {
    answers = Array.from({ length: TRIES_BEFORE_FAILED + 2 }, () => new NetworkError(null))
    const outbox = make()
    outbox.add(7, 'one')
    await settle()
    const waits: (number | undefined)[] = []
    const states: (string | undefined)[] = []
    for (let turn = 0; turn <= TRIES_BEFORE_FAILED; turn += 1) {
      waits.push(timers[0]?.ms)
      states.push(outbox.messages[0]?.state)
      await fireTimer()
    }
    expect(waits).toEqual([1000, 2000, 4000, 8000])
    expect(states).toEqual(['waiting', 'waiting', 'failed', 'failed'])
    await fireTimer()
    expect(outbox.messages).toEqual([])
    expect(new Set(sent.map((message) => message.clientId))).toEqual(new Set(['id-1']))
  })

  it('keeps to the time that a busy server asks for', async () => {
    answers = [new ApiError({ status: 429 }, 7)]
    make().add(7, 'one')
    await settle()
    expect(timers[0]?.ms).toBe(7000)
  })

  it('does not repeat what the server refuses, and it does not hold up the next message', async () => {
    answers = [new ApiError({ status: 422, code: 'message_too_long' })]
    const outbox = make()
    outbox.add(7, 'too long')
    outbox.add(7, 'fine')
    await settle()
    expect(sent.map((message) => message.body)).toEqual(['too long', 'fine'])
    expect(outbox.messages.map((message) => [message.state, message.errorCode])).toEqual([['failed', 'message_too_long']])
    outbox.resume()
    await settle()
    expect(sent).toHaveLength(2)
    outbox.retry('id-1')
    await settle()
    expect(outbox.messages).toEqual([])
  })

  it('tries at once when the connection is back', async () => {
    answers = [new NetworkError(null)]
    const outbox = make()
    outbox.add(7, 'one')
    await settle()
    outbox.resume()
    await settle()
    expect(outbox.messages).toEqual([])
    expect(timers).toEqual([])
  })

  it('takes an echo for the acknowledgement when the answer was lost', async () => {
    answers = [new NetworkError(null)]
    const outbox = make()
    outbox.add(7, 'one')
    await settle()
    outbox.confirm(['id-1'])
    expect(outbox.messages).toEqual([])
    await fireTimer()
    expect(sent).toHaveLength(1)
  })
})

describe('across reloads and tabs', () => {
  it('sends after a reload what was not acknowledged before it, with the same client_id', async () => {
    const before = make({ send: () => new Promise(() => undefined) })
    before.add(7, 'one')
    before.add(7, 'two')
    await settle()
    expect(stored()).toEqual(['id-1', 'id-2'])
    const after = make()
    after.resume()
    await settle()
    expect(sent.map((message) => message.clientId)).toEqual(['id-1', 'id-2'])
    expect(stored()).toEqual([])
  })

  it('leaves alone what another tab has stored', async () => {
    const other = make({ send: () => new Promise(() => undefined), makeId: () => 'other-tab' })
    const here = make()
    other.add(7, 'there')
    here.add(7, 'here')
    await settle()
    expect(stored()).toEqual(['other-tab'])
  })

  it('gives the conversation, once there is one, to what was typed before', async () => {
    const outbox = make({ send: () => new Promise(() => undefined) })
    outbox.add(null, 'one')
    outbox.add(null, 'two')
    outbox.adopt(9)
    await settle()
    expect(outbox.messages.map((message) => message.conversationId)).toEqual([9, 9])
  })

  it('works without storage and with rubbish in it', async () => {
    storage.setItem('outbox', '{"no": "list"')
    make().add(7, 'one')
    make({ storage: null }).add(7, 'two')
    await settle()
    expect(sent.map((message) => message.body)).toEqual(['one', 'two'])
  })
})
