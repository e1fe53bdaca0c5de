/** The conversation lists: three views over one set of conversations, kept right by events. */
import { defineStore } from 'pinia'
import { computed, ref, shallowRef } from 'vue'
import type { Conversation, ConversationEvent, ConversationPage, Message, ReadMoved } from '@shared/api-types'
import { useSession } from './session'

export const views = ['unassigned', 'mine', 'all'] as const
export type View = (typeof views)[number]

interface ViewState {
  ids: ReadonlySet<number>
  cursor: string | null
  status: 'loading' | 'ready' | 'failed'
  loadingMore: boolean
}

const blank: ViewState = { ids: new Set(), cursor: null, status: 'loading', loadingMore: false }

/** Whether a conversation stands in a view. */
export function belongs(conversation: Pick<Conversation, 'assignee'>, view: View, userId: number): boolean {
  if (view === 'all') return true
  return view === 'unassigned' ? conversation.assignee === null : conversation.assignee?.id === userId
}

/**
 * A conversation of an event, completed with the reader's own fields.
 * Events may overtake each other, so marks and seqs never go back and an older version changes nothing.
 */
export function applyEvent(known: Conversation | undefined, event: ConversationEvent, userId: number): Conversation {
  if (known && event.version < known.version) return known
  const last = event.last_message
  const readSeq = { ...(known?.read_seq ?? { public: 0, staff: 0 }) }
  // Who writes has read what was before.
  if (last?.sender_type === 'agent' && last.sender?.id === userId) {
    readSeq[last.stream] = Math.max(readSeq[last.stream], last.seq)
  }
  const lastSeq = {
    public: Math.max(known?.last_seq.public ?? 0, event.last_seq.public),
    staff: Math.max(known?.last_seq.staff ?? 0, event.last_seq.staff),
  }
  return {
    ...event,
    last_seq: lastSeq,
    read_seq: readSeq,
    visitor_read_seq: Math.max(known?.visitor_read_seq ?? 0, event.visitor_read_seq),
    staff_read_seq: Math.max(known?.staff_read_seq ?? 0, event.staff_read_seq),
    unread: Math.max(0, lastSeq.public - readSeq.public),
  }
}

/** Moves the marks that a `read.moved` tells of. */
export function applyRead(known: Conversation, moved: ReadMoved, userId: number): Conversation {
  if (moved.reader_type === 'visitor') {
    return { ...known, visitor_read_seq: Math.max(known.visitor_read_seq, moved.seq) }
  }
  const next = { ...known }
  if (moved.stream === 'public') next.staff_read_seq = Math.max(known.staff_read_seq, moved.seq)
  if (moved.reader_id === userId) {
    next.read_seq = { ...known.read_seq, [moved.stream]: Math.max(known.read_seq[moved.stream], moved.seq) }
    next.unread = Math.max(0, next.last_seq.public - next.read_seq.public)
  }
  return next
}

export const useInbox = defineStore('inbox', () => {
  const session = useSession()
  const conversations = shallowRef<ReadonlyMap<number, Conversation>>(new Map())
  const state = ref<Record<View, ViewState>>({ unassigned: { ...blank }, mine: { ...blank }, all: { ...blank } })
  let stops: (() => void)[] = []

  const userId = computed(() => session.user?.id ?? 0)

  function rows(view: View): Conversation[] {
    return [...state.value[view].ids]
      .map((id) => conversations.value.get(id))
      .filter((conversation) => conversation !== undefined)
      .sort((a, b) => activity(b).localeCompare(activity(a)) || b.id - a.id)
  }

  function unreadIn(view: View): number {
    return rows(view).filter((conversation) => conversation.unread > 0).length
  }

  const totalUnread = computed(
    () => [...conversations.value.values()].filter((conversation) => conversation.unread > 0).length,
  )

  function put(conversation: Conversation): void {
    conversations.value = new Map(conversations.value).set(conversation.id, conversation)
    for (const view of views) {
      const ids = new Set(state.value[view].ids)
      if (belongs(conversation, view, userId.value)) ids.add(conversation.id)
      else ids.delete(conversation.id)
      state.value[view].ids = ids
    }
  }

  function putEvent(event: ConversationEvent): void {
    put(applyEvent(conversations.value.get(event.id), event, userId.value))
  }

  function moveRead(moved: ReadMoved): void {
    const known = conversations.value.get(moved.conversation_id)
    if (known) put(applyRead(known, moved, userId.value))
  }

  /** A message of the open conversation, which may be here before the list's own event. */
  function noteMessage(message: Message): void {
    const known = conversations.value.get(message.conversation_id)
    if (!known || message.seq <= known.last_seq[message.stream]) return
    put(
      applyEvent(
        known,
        {
          ...known,
          // What happened to it is no message of anybody.
          last_message: message.kind === 'event' ? known.last_message : message,
          last_seq: { ...known.last_seq, [message.stream]: message.seq },
        },
        userId.value,
      ),
    )
  }

  /** Loads the first page of a view again; what was loaded further down stays. */
  async function refresh(view: View): Promise<void> {
    const current = state.value[view]
    try {
      const page = await session.api.get<ConversationPage>('/api/v1/conversations', { view, limit: 50 })
      const merged = new Map(conversations.value)
      for (const conversation of page.items) {
        const known = merged.get(conversation.id)
        merged.set(conversation.id, known && known.version > conversation.version ? known : conversation)
      }
      conversations.value = merged
      // The page is the whole view unless there is a cursor; then what was loaded further down stays.
      const keep = page.next_cursor === null ? [] : [...current.ids].filter((id) => {
        const known = merged.get(id)
        return known !== undefined && belongs(known, view, userId.value)
      })
      current.ids = new Set([...page.items.map((conversation) => conversation.id), ...keep])
      if (current.status !== 'ready') current.cursor = page.next_cursor
      current.status = 'ready'
    } catch {
      // A list that is shown stays shown: the connection state tells that it may be old.
      if (current.status !== 'ready') current.status = 'failed'
    }
  }

  async function loadMore(view: View): Promise<void> {
    const current = state.value[view]
    if (!current.cursor || current.loadingMore) return
    current.loadingMore = true
    try {
      const page = await session.api.get<ConversationPage>('/api/v1/conversations', {
        view,
        limit: 50,
        cursor: current.cursor,
      })
      conversations.value = new Map([...page.items.map((item) => [item.id, item] as const), ...conversations.value])
      current.ids = new Set([...current.ids, ...page.items.map((item) => item.id)])
      current.cursor = page.next_cursor
    } finally {
      current.loadingMore = false
    }
  }

  async function retry(view: View): Promise<void> {
    state.value[view].status = 'loading'
    await refresh(view)
  }

  async function refreshAll(): Promise<void> {
    await Promise.all(views.map((view) => refresh(view)))
  }

  /** Listens to every inbox of the user. Call once after signing in; `stop` ends it. */
  function start(): void {
    stop()
    for (const inbox of session.inboxes) {
      const unsubscribe = session.connection?.subscribe(`private-inbox.${inbox.id}`, {
        events: {
          'conversation.created': putEvent,
          'conversation.updated': putEvent,
          'read.moved': moveRead,
        },
        onCatchUp: () => void refreshAll(),
      })
      if (unsubscribe) stops.push(unsubscribe)
    }
    void refreshAll()
  }

  function stop(): void {
    for (const end of stops) end()
    stops = []
    conversations.value = new Map()
    state.value = { unassigned: { ...blank }, mine: { ...blank }, all: { ...blank } }
  }

  return {
    conversations, state, totalUnread, rows, unreadIn, put, putEvent, moveRead, noteMessage, refreshAll, loadMore,
    retry, start, stop,
  }
})

function activity(conversation: Conversation): string {
  return conversation.last_message?.created_at ?? conversation.created_at
}
