/**
 * The messages of one conversation as one reader sees them.
 *
 * Every way in (history, catch-up, live event, answer to an own POST) ends in `merge`, so that a message
 * is shown once whatever arrives first. Values in, values out; no clock, no network, no framework.
 */
import type { Message, SenderType, Stream } from './api-types'
import type { PendingMessage } from './outbox'

/** Per stream: the messages known, ascending by seq, each seq once. There may be holes. */
export interface Timeline {
  readonly streams: Readonly<Record<Stream, readonly Message[]>>
}

export const emptyTimeline: Timeline = { streams: { public: [], staff: [] } }

/** What the sender filter says about a message that came in. */
export type Verdict = 'new' | 'echo' | 'duplicate'

export interface Merged {
  timeline: Timeline
  /** Messages that were not known before, ascending by seq. */
  added: Message[]
  /** client_ids of own pending messages which these messages prove to be stored. */
  confirmed: string[]
}

/**
 * The sender filter: decides by `client_id` and `seq` whether a message is news.
 *
 * - `echo`: this tab sent it and still shows it as pending; it takes the pending bubble's place.
 * - `duplicate`: it is in the timeline already (its POST was answered first, or it was delivered twice).
 * - `new`: anything else, also a message that the same person sent from another tab.
 */
export function senderFilter(timeline: Timeline, pendingClientIds: ReadonlySet<string>, message: Message): Verdict {
  const known = timeline.streams[message.stream]
  if (known[position(known, message.seq)]?.seq === message.seq) return 'duplicate'
  if (known.some((other) => other.client_id === message.client_id)) return 'duplicate'
  return pendingClientIds.has(message.client_id) ? 'echo' : 'new'
}

/**
 * Adds messages of any source, in any order, any number of times.
 * A known message is replaced only by a later edit or deletion of itself.
 */
export function merge(
  timeline: Timeline,
  messages: readonly Message[],
  pendingClientIds: ReadonlySet<string> = new Set(),
): Merged {
  const streams: Record<Stream, Message[]> = {
    public: [...timeline.streams.public],
    staff: [...timeline.streams.staff],
  }
  const next: Timeline = { streams }
  const added: Message[] = []
  const confirmed: string[] = []
  let changed = false
  for (const message of messages) {
    if (pendingClientIds.has(message.client_id)) confirmed.push(message.client_id)
    const stream = streams[message.stream]
    const at = position(stream, message.seq)
    if (senderFilter(next, pendingClientIds, message) === 'duplicate') {
      const known = stream[at]
      if (known?.seq === message.seq && revision(message) > revision(known)) {
        stream[at] = message
        changed = true
      }
      continue
    }
    stream.splice(at, 0, message)
    added.push(message)
    changed = true
  }
  added.sort((a, b) => a.seq - b.seq)
  return { timeline: changed ? next : timeline, added, confirmed }
}

/** The seq up to which nothing is missing, counted from the oldest message that is loaded; 0 when empty. */
export function contiguousSeq(timeline: Timeline, stream: Stream): number {
  const known = timeline.streams[stream]
  let seq = known[0]?.seq ?? 0
  for (const message of known) {
    if (message.seq > seq + 1) break
    seq = message.seq
  }
  return seq
}

/** The highest seq known, 0 when none. */
export function highestSeq(timeline: Timeline, stream: Stream): number {
  return timeline.streams[stream].at(-1)?.seq ?? 0
}

/** The lowest seq known, or null when nothing is loaded. */
export function lowestSeq(timeline: Timeline, stream: Stream): number | null {
  return timeline.streams[stream][0]?.seq ?? null
}

/**
 * Whether messages are missing behind the oldest one that is loaded.
 * `serverSeq` is the stream's last seq as far as the server told, so that a missing tail counts too.
 */
export function hasHole(timeline: Timeline, stream: Stream, serverSeq = 0): boolean {
  return contiguousSeq(timeline, stream) < Math.max(highestSeq(timeline, stream), serverSeq)
}

export type BubbleState = 'sending' | 'sent' | 'read' | 'failed'

/** One line of the conversation, ready to draw. */
export interface Entry {
  /** Stays the same when a pending message becomes a stored one, so that the bubble does not jump. */
  key: string
  clientId: string
  seq: number | null
  stream: Stream
  kind: Message['kind']
  senderType: SenderType
  senderName: string
  own: boolean
  body: string
  /** What happened, of an entry that nobody wrote. */
  event: Message['event']
  createdAt: string
  state: BubbleState
  /** The stable error code of a failed message. */
  errorCode: string | null
}

export interface Viewer {
  isOwn: (message: Message) => boolean
  senderType: SenderType
  name: string
  /** The other side's public read mark. */
  readByOther: number
}

/**
 * Both streams and what is still on its way: stored messages by time, then the pending ones in the order typed.
 * Nothing before `horizon` (ISO time) is shown: one stream may be loaded further back than the other, and a note
 * above a gap would tell a wrong story.
 */
export function entries(
  timeline: Timeline,
  pending: readonly PendingMessage[],
  viewer: Viewer,
  horizon = '',
): Entry[] {
  const stored = interleave(timeline.streams.public, timeline.streams.staff).filter(
    (message) => message.created_at >= horizon,
  )
  const storedClientIds = new Set(stored.map((message) => message.client_id))
  const lines = stored.map((message): Entry => {
    const own = viewer.isOwn(message)
    return {
      key: message.client_id,
      clientId: message.client_id,
      seq: message.seq,
      stream: message.stream,
      kind: message.kind,
      senderType: message.sender_type,
      senderName: message.sender?.name ?? '',
      own,
      body: message.body,
      event: message.event,
      createdAt: message.created_at,
      state: own && message.stream === 'public' && message.seq <= viewer.readByOther ? 'read' : 'sent',
      errorCode: null,
    }
  })
  for (const item of pending) {
    if (storedClientIds.has(item.clientId)) continue
    lines.push({
      key: item.clientId,
      clientId: item.clientId,
      seq: null,
      stream: item.kind === 'note' ? 'staff' : 'public',
      kind: item.kind,
      senderType: viewer.senderType,
      senderName: viewer.name,
      own: true,
      body: item.body,
      event: null,
      createdAt: item.createdAt,
      state: item.state === 'failed' ? 'failed' : 'sending',
      errorCode: item.errorCode,
    })
  }
  return lines
}

/** Messages of others behind the reader's mark. */
export function unreadCount(timeline: Timeline, readSeq: number, isOwn: (message: Message) => boolean): number {
  return timeline.streams.public.filter((message) => message.seq > readSeq && !isOwn(message)).length
}

/** The index at which `seq` is or belongs. */
function position(messages: readonly Message[], seq: number): number {
  let low = 0
  let high = messages.length
  while (low < high) {
    const middle = (low + high) >>> 1
    if ((messages[middle]?.seq ?? 0) < seq) low = middle + 1
    else high = middle
  }
  return low
}

function revision(message: Message): string {
  return [message.edited_at ?? '', message.deleted_at ?? ''].sort().at(-1) ?? ''
}

/**
 * Merges the two streams by time without ever swapping two messages of one stream: clocks of two web nodes
 * may disagree, a seq cannot.
 */
function interleave(first: readonly Message[], second: readonly Message[]): Message[] {
  const result: Message[] = []
  let i = 0
  let j = 0
  while (i < first.length || j < second.length) {
    const a = first[i]
    const b = second[j]
    if (a && (!b || a.created_at <= b.created_at)) {
      result.push(a)
      i += 1
    } else if (b) {
      result.push(b)
      j += 1
    }
  }
  return result
}
