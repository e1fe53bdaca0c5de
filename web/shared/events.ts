/**
 * What an entry of kind `event` says, as a text of ours: its type decides the sentence, its data fill it.
 * A type that this page does not know yet gives null; the entry's own English text is shown then.
 */
import type { Message } from './api-types'

/** The key of the text, and its values; those of `translate` are keys themselves, those of `times` ISO times. */
export interface EventText {
  key: string
  values: Record<string, string>
  translate?: Record<string, string>
  times?: Record<string, string>
}

type Data = NonNullable<Message['event']>

export function describeEvent(event: Data): EventText | null {
  // Whose details were erased keeps the type only.
  if (event.by === undefined) return typeof event.type === 'string' ? { key: 'event.erased', values: {} } : null
  const name = text(event.by, 'name')
  const values = { name }
  switch (event.type) {
    case 'released':
      return event.from === undefined
        ? { key: 'event.released', values }
        : { key: 'event.releasedBySystem', values: { from: text(event.from, 'name') } }
    case 'claimed':
    case 'resolved':
    case 'ended':
      return { key: `event.${event.type}`, values }
    case 'woke':
      return { key: 'event.woke', values: {} }
    case 'assigned': {
      const to = text(event.to, 'name')
      return text(event.by, 'type') === 'system'
        ? { key: 'event.assignedBySystem', values: { to } }
        : { key: 'event.assigned', values: { name, to } }
    }
    case 'transferred': {
      const key = text(event.to, 'type') === 'team' ? 'event.transferredToTeam' : 'event.transferred'
      return { key, values: { name, to: text(event.to, 'name') } }
    }
    case 'snoozed':
      return typeof event.until === 'string' ? { key: 'event.snoozed', values, times: { until: event.until } } : null
    case 'reopened':
      return { key: text(event.by, 'type') === 'visitor' ? 'event.reopenedByVisitor' : 'event.reopened', values }
    case 'priority_changed':
      return typeof event.to === 'string' && PRIORITIES.includes(event.to)
        ? { key: 'event.priorityChanged', values, translate: { priority: `priority.${event.to}` } }
        : null
    case 'labels_changed': {
      const added = names(event.added)
      const removed = names(event.removed)
      if (added && removed) return { key: 'event.labelsChanged', values: { name, added, removed } }
      return added
        ? { key: 'event.labelsAdded', values: { name, added } }
        : { key: 'event.labelsRemoved', values: { name, removed } }
    }
    case 'participant_added':
      return { key: 'event.participantAdded', values: { name, user: text(event.user, 'name') } }
    case 'participant_removed':
      return { key: 'event.participantRemoved', values: { name, user: text(event.user, 'name') } }
    case 'rated':
      return { key: 'event.rated', values: { name, score: String(event.score) } }
    default:
      return null
  }
}

/** The event as done by a visitor of this name, when a visitor did it: how one is called depends on the language. */
export function withVisitorName(event: Data, name: string): Data {
  return text(event.by, 'type') === 'visitor' ? { ...event, by: { ...(event.by as object), name } } : event
}

const PRIORITIES = ['low', 'normal', 'high', 'urgent']

function text(from: unknown, key: string): string {
  const value = typeof from === 'object' && from !== null ? (from as Record<string, unknown>)[key] : undefined
  return typeof value === 'string' ? value : ''
}

function names(from: unknown): string {
  return Array.isArray(from) ? from.filter((item) => typeof item === 'string').join(', ') : ''
}
