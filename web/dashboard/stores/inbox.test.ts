import { describe, expect, it } from 'vitest'
import type { Conversation, ConversationEvent } from '@shared/api-types'
import { message } from '@shared/tests/message'
import { applyEvent, applyRead, belongs } from './inbox'

const ME = 3
const ada = { id: ME, name: 'Ada', avatar_url: null }

function conversation(change: Partial<Conversation> = {}): Conversation {
  return {
    id: 7,
    inbox: { id: 1, name: 'Shop' },
    visitor: { id: 9, name: 'Visitor 1234', email: null },
    status: 'open',
    assignee: null,
    team: null,
    priority: 'normal',
    labels: [],
    snoozed_until: null,
    waiting_since: '2026-11-23T08:00:04Z',
    first_response_at: null,
    resolved_at: null,
    csat: null,
    last_seq: { public: 4, staff: 0 },
    last_edit: { public: 0, staff: 0 },
    read_seq: { public: 2, staff: 0 },
    unread: 2,
    visitor_read_seq: 1,
    visitor_delivered_seq: 1,
    staff_read_seq: 2,
    staff_delivered_seq: 2,
    last_message: message(4),
    created_at: '2026-11-23T08:00:00Z',
    updated_at: '2026-11-23T08:00:04Z',
    version: 4,
    ...change,
  }
}

function event(change: Partial<Conversation> = {}): ConversationEvent {
  const whole: Partial<Conversation> = conversation(change)
  delete whole.read_seq
  delete whole.unread
  return whole as ConversationEvent
}

describe('the event of a conversation', () => {
  it('moves the unread count by the reader’s own mark', () => {
    const next = applyEvent(conversation(), event({ version: 5, last_seq: { public: 6, staff: 0 } }), ME)
    expect(next.unread).toBe(4)
    expect(next.read_seq.public).toBe(2)
  })

  it('of an own answer leaves nothing unread', () => {
    const own = message(5, { sender_type: 'agent', sender: ada })
    const next = applyEvent(
      conversation(),
      event({ version: 5, last_seq: { public: 5, staff: 0 }, last_message: own }),
      ME,
    )
    expect(next.unread).toBe(0)
  })

  it('that was overtaken changes nothing', () => {
    const known = conversation()
    expect(applyEvent(known, event({ version: 3, assignee: ada }), ME)).toBe(known)
  })

  it('of a conversation not seen before is unread from its first message', () => {
    expect(applyEvent(undefined, event(), ME).unread).toBe(4)
  })
})

describe('a read mark', () => {
  it('of oneself, also from another tab, clears the count; of a colleague it does not', () => {
    const moved = { conversation_id: 7, reader_type: 'agent', stream: 'public', seq: 4 } as const
    expect(applyRead(conversation(), { ...moved, reader_id: ME }, ME).unread).toBe(0)
    const colleague = applyRead(conversation(), { ...moved, reader_id: 99 }, ME)
    expect([colleague.unread, colleague.staff_read_seq]).toEqual([2, 4])
  })

  it('of the visitor never goes back', () => {
    const moved = { conversation_id: 7, reader_type: 'visitor', reader_id: 9, stream: 'public' } as const
    expect(applyRead(conversation(), { ...moved, seq: 3 }, ME).visitor_read_seq).toBe(3)
    expect(applyRead(conversation({ visitor_read_seq: 4 }), { ...moved, seq: 3 }, ME).visitor_read_seq).toBe(4)
  })
})

it('a conversation stands in the views of its assignee', () => {
  const at = (assignee: Conversation['assignee']): boolean[] =>
    (['unassigned', 'mine', 'all'] as const).map((view) => belongs({ assignee }, view, ME))
  expect(at(null)).toEqual([true, false, true])
  expect(at(ada)).toEqual([false, true, true])
  expect(at({ ...ada, id: 99 })).toEqual([false, false, true])
})
