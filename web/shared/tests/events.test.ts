import { describe, expect, it } from 'vitest'
import { describeEvent, withVisitorName } from '../events'
import en from '../i18n/en/common'
import { entries, merge, emptyTimeline } from '../timeline'
import { message } from './message'

const ann = { id: 1, name: 'Ann', type: 'agent' }
const visitor = { id: 2, name: 'Visitor 7', type: 'visitor' }
const system = { id: null, name: 'Deskline', type: 'system' }
const bo = { id: 3, name: 'Bo', type: 'agent' }

const known = [
  [{ type: 'claimed', by: ann }, 'event.claimed'],
  [{ type: 'released', by: ann }, 'event.released'],
  [{ type: 'released', by: system, from: bo }, 'event.releasedBySystem'],
  [{ type: 'assigned', by: ann, to: bo }, 'event.assigned'],
  [{ type: 'assigned', by: system, to: bo }, 'event.assignedBySystem'],
  [{ type: 'transferred', by: ann, to: bo }, 'event.transferred'],
  [{ type: 'transferred', by: ann, to: { id: 5, name: 'Billing', type: 'team' } }, 'event.transferredToTeam'],
  [{ type: 'snoozed', by: ann, until: '2026-11-24T09:00:00Z' }, 'event.snoozed'],
  [{ type: 'woke', by: system }, 'event.woke'],
  [{ type: 'resolved', by: ann }, 'event.resolved'],
  [{ type: 'ended', by: visitor }, 'event.ended'],
  [{ type: 'reopened', by: ann }, 'event.reopened'],
  [{ type: 'reopened', by: visitor }, 'event.reopenedByVisitor'],
  [{ type: 'priority_changed', by: ann, from: 'low', to: 'urgent' }, 'event.priorityChanged'],
  [{ type: 'labels_changed', by: ann, added: ['vip'], removed: [] }, 'event.labelsAdded'],
  [{ type: 'labels_changed', by: ann, added: [], removed: ['vip'] }, 'event.labelsRemoved'],
  [{ type: 'labels_changed', by: ann, added: ['a', 'b'], removed: ['c'] }, 'event.labelsChanged'],
  [{ type: 'participant_added', by: ann, user: bo }, 'event.participantAdded'],
  [{ type: 'participant_removed', by: ann, user: bo }, 'event.participantRemoved'],
  [{ type: 'rated', by: visitor, score: 4 }, 'event.rated'],
  [{ type: 'claimed' }, 'event.erased'],
] as const

function template(key: string): string {
  const [face, name] = key.split('.') as ['event' | 'priority', string]
  return (en[face] as Record<string, string>)[name] ?? ''
}

describe('the text of an event', () => {
  it.each(known)('%j is %s, with every value that the text needs', (event, key) => {
    const described = describeEvent(event)
    expect(described?.key).toBe(key)
    const given = { ...described?.values, ...described?.translate, ...described?.times }
    const needed = [...template(key).matchAll(/\{(\w+)\}/g)].map((match) => match[1])
    expect(Object.keys(given).sort()).toEqual(expect.arrayContaining(needed))
    for (const value of Object.values(given)) expect(value).not.toBe('')
    for (const translated of Object.values(described?.translate ?? {})) expect(template(translated)).not.toBe('')
  })

  it('uses every text that there is', () => {
    const used = known.map(([, key]) => key.replace('event.', ''))
    expect([...new Set(used)].sort()).toEqual(Object.keys(en.event).sort())
  })

  it.each([{ type: 'teleported', by: ann }, { type: 'snoozed', by: ann }, { type: 'priority_changed', by: ann, to: 9 }, {}])(
    '%j is left to the entry itself',
    (event) => {
      expect(describeEvent(event)).toBeNull()
    },
  )
})

it('a visitor is called as everywhere on the page', () => {
  const renamed = withVisitorName({ type: 'ended', by: visitor }, '訪客 7')
  expect(describeEvent(renamed)?.values).toEqual({ name: '訪客 7' })
  expect(withVisitorName({ type: 'claimed', by: ann }, '訪客 7').by).toEqual(ann)
})

it('an event stands in the timeline as what it is', () => {
  const event = { type: 'claimed', by: ann }
  const told = message(1, { stream: 'staff', kind: 'event', sender_type: 'system', sender: null, event })
  const viewer = { isOwn: () => false, senderType: 'agent', name: 'Ann', readByOther: 9 } as const
  const [entry] = entries(merge(emptyTimeline, [told]).timeline, [], viewer)
  expect(entry).toMatchObject({ kind: 'event', event, own: false, senderName: '', state: 'sent' })
})
