import { describe, expect, it } from 'vitest'
import type { Message, MessagePage, Stream } from '../api-types'
import { Thread, type PageQuery } from '../thread'
import { message } from './message'

/** A server that holds messages and answers like the messages route. */
class Server {
  readonly held: Record<Stream, Message[]> = { public: [], staff: [] }
  readonly asked: (PageQuery & { stream: Stream })[] = []
  fetchPage = (stream: Stream, query: PageQuery): Promise<MessagePage> => {
    this.asked.push({ stream, ...query })
    let found = this.held[stream]
    if (query.after_seq !== undefined) {
      found = found.filter((item) => item.seq > (query.after_seq ?? 0))
      return this.#page(found.slice(0, query.limit), found.length > query.limit)
    }
    if (query.before_seq !== undefined) found = found.filter((item) => item.seq < (query.before_seq ?? 0))
    return this.#page(found.slice(-query.limit), found.length > query.limit)
  }
  #page(items: Message[], more: boolean): Promise<MessagePage> {
    return Promise.resolve({ items, next_cursor: null, has_more: more, edits: [], last_edit: null })
  }
}

function make(server: Server, streams: Stream[] = ['public']): { thread: Thread; arrived: number[] } {
  const arrived: number[] = []
  const thread = new Thread({
    streams,
    fetchPage: server.fetchPage,
    pendingClientIds: () => new Set(),
    onConfirmed: () => undefined,
    onChange: (_thread, messages) => {
      arrived.push(...messages.map((item) => item.seq))
    },
  })
  return { thread, arrived }
}

const seqs = (thread: Thread, stream: Stream = 'public'): number[] =>
  thread.timeline.streams[stream].map((item) => item.seq)
const range = (from: number, to: number): number[] => Array.from({ length: to - from + 1 }, (_, index) => from + index)

describe('a thread', () => {
  it('opens with the latest page and loads earlier ones on demand', async () => {
    const server = new Server()
    server.held.public = range(1, 120).map((seq) => message(seq))
    const { thread, arrived } = make(server)
    await thread.catchUp()
    expect(seqs(thread)).toEqual(range(71, 120))
    expect(thread.hasEarlier).toBe(true)
    await thread.loadEarlier()
    await thread.loadEarlier()
    expect(seqs(thread)).toEqual(range(1, 120))
    expect(thread.hasEarlier).toBe(false)
    expect(arrived).toEqual([])
  })

  it('fills the hole that a live event shows', async () => {
    const server = new Server()
    server.held.public = [message(1)]
    const { thread, arrived } = make(server)
    await thread.catchUp()
    server.held.public = range(1, 5).map((seq) => message(seq))
    thread.receive(message(5))
    await thread.catchUp()
    expect(seqs(thread)).toEqual([1, 2, 3, 4, 5])
    expect([...arrived].sort()).toEqual([2, 3, 4, 5])
    expect(server.asked.find((query) => query.after_seq === 1)?.known_seq).toBe(5)
  })

  it('fetches after a reconnect until nothing is missing, however much it is', async () => {
    const server = new Server()
    server.held.public = [message(1)]
    const { thread } = make(server)
    await thread.catchUp()
    server.held.public = range(1, 950).map((seq) => message(seq))
    await thread.catchUp({ public: 950 })
    expect(seqs(thread)).toEqual(range(1, 950))
  })

  it('starts an empty conversation at its first message', async () => {
    const server = new Server()
    const { thread } = make(server)
    await thread.catchUp()
    server.held.public = [message(1), message(2)]
    await thread.catchUp()
    expect(seqs(thread)).toEqual([1, 2])
  })

  it('does not lose an event that overtakes the first page', async () => {
    const server = new Server()
    server.held.public = [message(1), message(2)]
    const { thread } = make(server)
    const opening = thread.catchUp()
    server.held.public = range(1, 4).map((seq) => message(seq))
    thread.receive(message(4))
    await opening
    expect(seqs(thread)).toEqual([1, 2, 3, 4])
  })

  it('tries the first page again after a failure', async () => {
    const server = new Server()
    server.held.public = [message(1)]
    let fail = true
    const { thread } = make(Object.assign(new Server(), {
      fetchPage: (stream: Stream, query: PageQuery) =>
        fail ? Promise.reject(new Error('down')) : server.fetchPage(stream, query),
    }))
    await expect(thread.catchUp()).rejects.toThrow('down')
    fail = false
    await thread.catchUp()
    expect(seqs(thread)).toEqual([1])
  })

  it('shows notes only back to where the messages are loaded too', async () => {
    const server = new Server()
    server.held.public = range(1, 60).map((seq) => message(seq))
    server.held.staff = [message(1, { stream: 'staff', kind: 'note' })]
    const { thread } = make(server, ['public', 'staff'])
    await thread.catchUp()
    expect(thread.horizon).toBe(message(11).created_at)
    await thread.loadEarlier()
    expect(thread.horizon).toBe('')
  })
})
