/** The conversation that is open: its timeline, what is on its way, claiming and reading. */
import { defineStore } from 'pinia'
import { computed, ref, shallowRef } from 'vue'
import { ApiError, isTransient } from '@shared/api'
import type {
  Conversation,
  ConversationDetail,
  Message,
  MessagePage,
  ReadMoved,
  UserRef,
  VisitorContext,
} from '@shared/api-types'
import { safeStorage } from '@shared/browser'
import { Outbox, type PendingMessage } from '@shared/outbox'
import { Thread } from '@shared/thread'
import { emptyTimeline, entries as toEntries, highestSeq } from '@shared/timeline'
import { useInbox } from './inbox'
import { useSession } from './session'

export type Pane = 'none' | 'loading' | 'ready' | 'failed' | 'not-found' | 'forbidden'
export type ClaimOutcome = { kind: 'idle' | 'busy' | 'won' | 'failed' } | { kind: 'lost'; holder: UserRef }

export const useConversation = defineStore('conversation', () => {
  const session = useSession()
  const inbox = useInbox()

  const id = ref<number | null>(null)
  const pane = ref<Pane>('none')
  const context = shallowRef<VisitorContext | null>(null)
  const timeline = shallowRef(emptyTimeline)
  const horizon = ref('')
  const hasEarlier = ref(false)
  const loadingEarlier = ref(false)
  const pending = shallowRef<readonly PendingMessage[]>([])
  const newAfterSeq = ref<number | null>(null)
  const lastArrived = shallowRef<Message | null>(null)
  const claimOutcome = shallowRef<ClaimOutcome>({ kind: 'idle' })
  let thread: Thread | null = null
  let outbox: Outbox | null = null
  let stops: (() => void)[] = []

  const conversation = computed<Conversation | null>(() =>
    id.value === null ? null : (inbox.conversations.get(id.value) ?? null),
  )
  const isOwn = (message: Message): boolean =>
    message.sender_type === 'agent' && message.sender?.id === session.user?.id
  const entries = computed(() =>
    toEntries(
      timeline.value,
      pending.value.filter((message) => message.conversationId === id.value),
      {
        isOwn,
        senderType: 'agent',
        name: session.user?.name ?? '',
        readByOther: conversation.value?.visitor_read_seq ?? 0,
      },
      horizon.value,
    ),
  )

  /** One outbox for all conversations of the person who is signed in. */
  function startOutbox(userId: number): void {
    outbox = new Outbox({
      storageKey: `deskline:outbox:staff:${userId}`,
      storage: safeStorage(),
      send: async (message) => {
        const stored = await session.api.post<Message>(`/api/v1/conversations/${message.conversationId ?? 0}/messages`, {
          client_id: message.clientId,
          body: message.body,
          kind: message.kind,
        })
        if (message.conversationId === id.value) thread?.receive(stored)
        inbox.noteMessage(stored)
      },
      onChange: (messages) => {
        pending.value = messages
      },
    })
    outbox.resume()
  }

  async function open(next: number): Promise<void> {
    if (next === id.value && pane.value === 'ready') return
    close()
    id.value = next
    pane.value = 'loading'
    const current = new Thread({
      streams: ['public', 'staff'],
      fetchPage: (stream, query) =>
        session.api.get<MessagePage>(`/api/v1/conversations/${next}/messages`, { stream, ...query }),
      pendingClientIds: () => new Set(pending.value.map((message) => message.clientId)),
      onConfirmed: (ids) => outbox?.confirm(ids),
      onChange: (changed, arrived) => {
        if (thread !== changed) return
        timeline.value = changed.timeline
        horizon.value = changed.horizon
        hasEarlier.value = changed.hasEarlier
        for (const message of arrived) inbox.noteMessage(message)
        lastArrived.value = arrived.filter((message) => !isOwn(message) && message.kind !== 'event').at(-1) ?? lastArrived.value
      },
    })
    thread = current
    listen(next, current)
    try {
      const detail = await load(next)
      await current.catchUp(detail.last_seq)
      if (thread !== current) return
      newAfterSeq.value = detail.unread > 0 ? detail.read_seq.public : null
      pane.value = 'ready'
    } catch (error) {
      if (thread !== current) return
      pane.value = paneOf(error)
      if (isTransient(error)) {
        setTimeout(() => {
          if (thread === current && pane.value === 'failed') void retry()
        }, 4_000)
      }
    }
  }

  async function load(of: number): Promise<ConversationDetail> {
    const { visitor_context: visitorContext, ...rest } = await session.api.get<ConversationDetail>(
      `/api/v1/conversations/${of}`,
    )
    const known = inbox.conversations.get(of)
    inbox.put(known && known.version > rest.version ? known : rest)
    if (id.value === of) context.value = visitorContext
    return { ...rest, visitor_context: visitorContext }
  }

  function listen(of: number, current: Thread): void {
    const live = session.connection
    if (!live) return
    const onMessage = (message: Message): void => {
      current.receive(message)
    }
    const onCatchUp = (): void => {
      if (pane.value === 'ready') void catchUp().catch(() => undefined)
    }
    stops.push(
      live.subscribe(`private-conversation.${of}`, {
        events: {
          'message.created': onMessage,
          'read.moved': (moved: ReadMoved) => {
            inbox.moveRead(moved)
          },
        },
        onCatchUp,
      }),
      live.subscribe(`private-staff.${of}`, { events: { 'message.created': onMessage }, onCatchUp }),
    )
  }

  /** Everything that events would have told about the open conversation, asked anew. */
  async function catchUp(): Promise<void> {
    if (id.value === null || !thread) return
    const detail = await load(id.value)
    await thread.catchUp(detail.last_seq)
  }

  async function retry(): Promise<void> {
    const again = id.value
    if (again === null) return
    close()
    await open(again)
  }

  function close(): void {
    for (const stop of stops) stop()
    stops = []
    thread = null
    id.value = null
    pane.value = 'none'
    context.value = null
    timeline.value = emptyTimeline
    horizon.value = ''
    hasEarlier.value = false
    newAfterSeq.value = null
    lastArrived.value = null
    claimOutcome.value = { kind: 'idle' }
  }

  function send(body: string, kind: 'text' | 'note'): void {
    if (id.value !== null) outbox?.add(id.value, body, kind)
    newAfterSeq.value = null
  }

  async function loadEarlier(): Promise<void> {
    if (!thread || loadingEarlier.value) return
    loadingEarlier.value = true
    try {
      await thread.loadEarlier()
    } catch {
      // The button stays; pressing it or scrolling up again tries again.
    } finally {
      loadingEarlier.value = false
    }
  }

  async function claim(): Promise<void> {
    const of = id.value
    if (of === null) return
    claimOutcome.value = { kind: 'busy' }
    try {
      inbox.put(await session.api.post<Conversation>(`/api/v1/conversations/${of}/claim`))
      if (id.value === of) claimOutcome.value = { kind: 'won' }
    } catch (error) {
      if (id.value !== of) return
      if (error instanceof ApiError && error.status === 409 && error.holder) {
        claimOutcome.value = { kind: 'lost', holder: error.holder }
        const known = inbox.conversations.get(of)
        if (known) inbox.put({ ...known, assignee: error.holder })
      } else claimOutcome.value = { kind: 'failed' }
    }
  }

  /** The agent sees the end of the conversation. */
  async function markRead(): Promise<void> {
    const of = id.value
    const known = conversation.value
    const seq = highestSeq(timeline.value, 'public')
    if (of === null || !known || pane.value !== 'ready' || seq <= known.read_seq.public) return
    const reader = session.user?.id ?? 0
    inbox.moveRead({ conversation_id: of, reader_type: 'agent', reader_id: reader, stream: 'public', seq })
    try {
      await session.api.post(`/api/v1/conversations/${of}/read`, { seq })
    } catch {
      // Not told to the server: the next refresh of the list shows it as unread again, which is true.
    }
  }

  return {
    id, pane, context, conversation, entries, hasEarlier, loadingEarlier, newAfterSeq, lastArrived, claimOutcome,
    startOutbox, open, close, retry, send, loadEarlier, claim, markRead, catchUp,
    resumeOutbox: () => outbox?.resume(),
    stopOutbox: () => outbox?.stop(),
    retryMessage: (clientId: string) => outbox?.retry(clientId),
    discardMessage: (clientId: string) => outbox?.discard(clientId),
  }
})

function paneOf(error: unknown): Pane {
  if (error instanceof ApiError && error.status === 404) return 'not-found'
  if (error instanceof ApiError && error.status === 403) return 'forbidden'
  return 'failed'
}
