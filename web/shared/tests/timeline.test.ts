import { describe, expect, it } from 'vitest'
import type { PendingMessage } from '../outbox'
import {
  contiguousSeq,
  emptyTimeline,
  entries,
  hasHole,
  highestSeq,
  lowestSeq,
  merge,
  senderFilter,
  unreadCount,
  type Viewer,
} from '../timeline'
import { message } from './message'

const visitor: Viewer = {
  isOwn: (item) => item.sender_type === 'visitor',
  senderType: 'visitor',
  name: 'Me',
  readByOther: 0,
}

function waiting(clientId: string, change: Partial<PendingMessage> = {}): PendingMessage {
  return {
    clientId,
    conversationId: 7,
    body: 'typed',
    kind: 'text',
    createdAt: '2026-11-23T09:00:00.000Z',
    state: 'sending',
    attempts: 0,
    errorCode: null,
    retryable: true,
    ...change,
  }
}

const seqs = (items: readonly { seq: number | null }[]): (number | null)[] => items.map((item) => item.seq)

describe('sender filter: nobody sees an own message twice', () => {
  const pending = new Set(['mine'])

  it('knows the echo of a message that this tab is still sending', () => {
    expect(senderFilter(emptyTimeline, pending, message(1, { client_id: 'mine' }))).toBe('echo')
  })

  it('knows a message whose POST was answered before its echo came', () => {
    const { timeline } = merge(emptyTimeline, [message(1, { client_id: 'mine' })], pending)
    expect(senderFilter(timeline, new Set(), message(1, { client_id: 'mine' }))).toBe('duplicate')
  })

  it('lets through what the same person sent from another tab', () => {
    expect(senderFilter(emptyTimeline, pending, message(1, { client_id: 'from-another-tab' }))).toBe('new')
  })

  it('shows one bubble when the echo overtakes the answer', () => {
    const echo = message(1, { client_id: 'mine' })
    const first = merge(emptyTimeline, [echo], pending)
    expect(first.confirmed).toEqual(['mine'])
    const second = merge(first.timeline, [echo], new Set())
    expect(second.added).toEqual([])
    expect(second.timeline).toBe(first.timeline)
    expect(entries(second.timeline, [waiting('mine')], visitor)).toHaveLength(1)
  })

  it('keeps the bubble in its place: the key of the pending one and of the stored one are the same', () => {
    const [before] = entries(emptyTimeline, [waiting('mine')], visitor)
    const { timeline } = merge(emptyTimeline, [message(1, { client_id: 'mine' })], pending)
    const [after] = entries(timeline, [], visitor)
    expect(after?.key).toBe(before?.key)
    expect([before?.state, after?.state]).toEqual(['sending', 'sent'])
  })
})

describe('merge', () => {
  it('orders by seq whatever the order of arrival, and adds nothing twice', () => {
    const { timeline, added } = merge(emptyTimeline, [message(3), message(1), message(2), message(3)])
    expect(seqs(timeline.streams.public)).toEqual([1, 2, 3])
    expect(seqs(added)).toEqual([1, 2, 3])
    expect(merge(timeline, [message(2)]).added).toEqual([])
  })

  it('leaves the timeline that it was given alone', () => {
    const { timeline } = merge(emptyTimeline, [message(1)])
    merge(timeline, [message(2)])
    expect(seqs(timeline.streams.public)).toEqual([1])
    expect(emptyTimeline.streams.public).toEqual([])
  })

  it('takes an edit, but never goes back to the text before it', () => {
    const { timeline } = merge(emptyTimeline, [message(1)])
    const edited = merge(timeline, [message(1, { body: 'better', edited_at: '2026-11-23T09:00:00Z' })]).timeline
    expect(edited.streams.public[0]?.body).toBe('better')
    expect(merge(edited, [message(1)]).timeline.streams.public[0]?.body).toBe('better')
  })
})

describe('holes', () => {
  it('sees a hole between two messages and where to fetch from', () => {
    const { timeline } = merge(emptyTimeline, [message(4), message(5), message(8)])
    expect(hasHole(timeline, 'public')).toBe(true)
    expect(contiguousSeq(timeline, 'public')).toBe(5)
    expect(highestSeq(timeline, 'public')).toBe(8)
    expect(lowestSeq(timeline, 'public')).toBe(4)
    const filled = merge(timeline, [message(6), message(7)]).timeline
    expect(hasHole(filled, 'public')).toBe(false)
    expect(contiguousSeq(filled, 'public')).toBe(8)
  })

  it('sees a missing end when the server knows more', () => {
    const { timeline } = merge(emptyTimeline, [message(1), message(2)])
    expect(hasHole(timeline, 'public', 2)).toBe(false)
    expect(hasHole(timeline, 'public', 3)).toBe(true)
  })

  it('does not take history that is not loaded for a hole', () => {
    expect(hasHole(merge(emptyTimeline, [message(51), message(52)]).timeline, 'public')).toBe(false)
  })

  it('counts each stream for itself', () => {
    const { timeline } = merge(emptyTimeline, [message(1), message(1, { stream: 'staff' }), message(3, { stream: 'staff' })])
    expect(hasHole(timeline, 'public')).toBe(false)
    expect(hasHole(timeline, 'staff')).toBe(true)
  })
})

describe('entries', () => {
  it('puts notes between messages by time without ever swapping two of one stream', () => {
    const at = (second: number): string => new Date(Date.UTC(2026, 10, 23, 8, 0, second)).toISOString()
    const { timeline } = merge(emptyTimeline, [
      message(1, { created_at: at(10) }),
      // The second web node's clock is behind.
      message(2, { created_at: at(5) }),
      message(1, { stream: 'staff', kind: 'note', created_at: at(7) }),
    ])
    expect(entries(timeline, [], visitor).map((entry) => `${entry.stream}${entry.seq ?? ''}`)).toEqual([
      'staff1',
      'public1',
      'public2',
    ])
  })

  it('appends what is on its way, in the order typed', () => {
    const { timeline } = merge(emptyTimeline, [message(1)])
    const lines = entries(timeline, [waiting('a'), waiting('b', { state: 'failed', errorCode: 'network' })], visitor)
    expect(lines.map((line) => [line.clientId, line.state])).toEqual([
      ['client-public-1', 'sent'],
      ['a', 'sending'],
      ['b', 'failed'],
    ])
  })

  it('says "read" up to the mark of the other side, for own public messages only', () => {
    const { timeline } = merge(emptyTimeline, [
      message(1),
      message(2),
      message(3, { sender_type: 'agent' }),
    ])
    expect(entries(timeline, [], { ...visitor, readByOther: 1 }).map((line) => line.state)).toEqual([
      'read',
      'sent',
      'sent',
    ])
  })

  it('hides what lies before the part that is loaded of every stream', () => {
    const { timeline } = merge(emptyTimeline, [message(1, { stream: 'staff', kind: 'note' }), message(30)])
    expect(entries(timeline, [], visitor, message(30).created_at).map((line) => line.stream)).toEqual(['public'])
  })
})

it('counts as unread what others wrote behind the mark', () => {
  const { timeline } = merge(emptyTimeline, [
    message(1, { sender_type: 'agent' }),
    message(2),
    message(3, { sender_type: 'agent' }),
    message(4, { sender_type: 'system' }),
  ])
  expect(unreadCount(timeline, 1, visitor.isOwn)).toBe(2)
})
