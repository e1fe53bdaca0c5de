/** The visitor's side: session, the one conversation, the socket, and what is on its way. */
import { defineStore } from 'pinia'
import { computed, ref, shallowRef } from 'vue'
import { ApiError, createApi, isTransient } from '@shared/api'
import type {
  BroadcastingAuth,
  FirstMessageAnswer,
  Message,
  MessagePage,
  ReadMoved,
  WidgetConversation,
  WidgetConversationEvent,
  WidgetPage,
  WidgetSession,
} from '@shared/api-types'
import { safeStorage } from '@shared/browser'
import type { Connection, ConnectionState } from '@shared/connection'
import { Outbox, type PendingMessage } from '@shared/outbox'
import { startPolling } from '@shared/poll'
import { Thread } from '@shared/thread'
import { emptyTimeline, entries as toEntries, highestSeq, unreadCount } from '@shared/timeline'
import { VisitorSession } from './session'

export type Phase = 'idle' | 'opening' | 'ready' | 'failed'

const RETRY_MS = 4_000

export const useWidget = defineStore('widget', () => {
  const inboxKey = new URLSearchParams(location.search).get('inbox') ?? ''
  const storage = safeStorage()

  const phase = ref<Phase>('idle')
  const errorCode = ref<string | null>(null)
  const session = shallowRef<WidgetSession | null>(null)
  const conversation = shallowRef<WidgetConversation | null>(null)
  const connectionState = ref<ConnectionState>('connecting')
  const timeline = shallowRef(emptyTimeline)
  const horizon = ref('')
  const hasEarlier = ref(false)
  const loadingEarlier = ref(false)
  const historyReady = ref(false)
  const pending = shallowRef<readonly PendingMessage[]>([])
  const readSeq = ref(0)
  const lastArrived = shallowRef<Message | null>(null)

  let page: WidgetPage | undefined
  let connection: Connection | null = null
  let thread: Thread | null = null
  let opening: Promise<void> | null = null
  /** The visitor whose channel is listened to, and how to end that. */
  let listening: { visitorId: number; stop: () => void } | null = null

  const opener = createApi({ headers: () => ({}) })
  const visitor = new VisitorSession({
    storageKey: `deskline:visitor:${inboxKey}`,
    storage,
    open: (token) =>
      opener.post<WidgetSession>('/api/v1/widget/session', {
        inbox_key: inboxKey,
        ...(token ? { visitor_token: token } : {}),
        ...(page ? { page } : {}),
        language: navigator.language,
      }),
    onOpened: (answer) => {
      session.value = answer
      listenTo(answer.visitor.id)
      if (connection && answer.conversation) adopt(answer.conversation)
    },
  })
  const api = createApi({ headers: () => visitor.headers(), renew: () => visitor.renew() })
  const outbox = new Outbox({
    storageKey: `deskline:outbox:widget:${inboxKey}`,
    storage,
    send: deliver,
    onChange: (messages) => {
      pending.value = messages
    },
  })
  // Nothing can be sent before there is a session.
  outbox.stop()

  const isOwn = (message: Message): boolean => message.sender_type === 'visitor'
  const entries = computed(() =>
    toEntries(
      timeline.value,
      pending.value,
      { isOwn, senderType: 'visitor', name: '', readByOther: conversation.value?.staff_read_seq ?? 0 },
      horizon.value,
    ),
  )
  const unread = computed(() =>
    historyReady.value
      ? unreadCount(timeline.value, readSeq.value, isOwn)
      : (conversation.value?.unread ?? 0),
  )
  /** Whether this browser has been here before, so that a session is worth opening before the visitor asks. */
  const returning = visitor.returning

  function setPage(value: WidgetPage): void {
    page = value
  }

  /** Opens or resumes the session; goes on trying while the server does not answer. */
  function start(): Promise<void> {
    opening ??= open().finally(() => {
      opening = null
    })
    return opening
  }

  async function open(): Promise<void> {
    if (phase.value === 'ready') return
    phase.value = 'opening'
    try {
      const answer = await visitor.open()
      phase.value = 'ready'
      await connectLive(answer)
      if (answer.conversation) adopt(answer.conversation)
      else historyReady.value = true
      outbox.resume()
    } catch (error) {
      errorCode.value = error instanceof ApiError ? error.code : 'network'
      phase.value = 'failed'
      if (isTransient(error)) setTimeout(() => void start(), RETRY_MS)
    }
  }

  async function connectLive(answer: WidgetSession): Promise<void> {
    const { connect } = await import('@shared/connection')
    connection = connect({
      realtime: answer.realtime,
      authorize,
      onState: (state) => {
        connectionState.value = state
        if (state === 'online') outbox.resume()
      },
    })
    connectionState.value = connection.state
    listenTo(answer.visitor.id)
    let polls = 0
    startPolling({
      state: () => connectionState.value,
      poll: async () => {
        polls += 1
        // Marks and the assignee come with the session; messages are what cannot wait.
        await (polls % 4 === 0 || !thread ? refresh() : thread.catchUp())
        outbox.resume()
      },
    })
    window.addEventListener('online', () => {
      connection?.reconnect()
      outbox.resume()
    })
  }

  /** Signs a subscription. There an old token is answered 403, as everything that the protocol refuses. */
  async function authorize(endpoint: string, form: Record<string, string>): Promise<BroadcastingAuth> {
    try {
      return await api.postForm(endpoint, form)
    } catch (error) {
      if (!(error instanceof ApiError) || error.status !== 403) throw error
      await visitor.renew()
      return api.postForm(endpoint, form)
    }
  }

  /** The session may speak for another visitor than before: the one that this one turned out to be. */
  function listenTo(visitorId: number): void {
    if (!connection || listening?.visitorId === visitorId) return
    listening?.stop()
    const stop = connection.subscribe(`private-visitor.${visitorId}`, {
      events: {
        // The first message was sent from another tab.
        'conversation.created': (data: WidgetConversationEvent) => {
          adopt({ read_seq: 0, unread: 0, ...data })
        },
      },
      onCatchUp: () => void refresh().catch(() => undefined),
    })
    listening = { visitorId, stop }
  }

  /** Everything that events would have told, asked anew. */
  async function refresh(): Promise<void> {
    const answer = await visitor.open()
    if (!answer.conversation) return
    adopt(answer.conversation)
    await thread?.catchUp({ public: answer.conversation.last_seq })
  }

  function adopt(next: WidgetConversation): void {
    const known = conversation.value
    if (known?.id === next.id) {
      conversation.value = {
        ...next,
        staff_read_seq: Math.max(known.staff_read_seq, next.staff_read_seq),
        last_seq: Math.max(known.last_seq, next.last_seq),
      }
      readSeq.value = Math.max(readSeq.value, next.read_seq)
      return
    }
    conversation.value = next
    readSeq.value = next.read_seq
    outbox.adopt(next.id)
    thread = new Thread({
      streams: ['public'],
      fetchPage: (_stream, query) =>
        api.get<MessagePage>(`/api/v1/widget/conversations/${next.id}/messages`, { ...query }),
      pendingClientIds: () => new Set(pending.value.map((message) => message.clientId)),
      onConfirmed: (ids) => {
        outbox.confirm(ids)
      },
      onChange: (current, arrived) => {
        timeline.value = current.timeline
        hasEarlier.value = current.hasEarlier
        horizon.value = current.horizon
        historyReady.value = current.loaded
        const foreign = arrived.filter((message) => !isOwn(message)).at(-1)
        if (foreign) lastArrived.value = foreign
      },
    })
    const current = thread
    connection?.subscribe(`private-conversation.${next.id}`, {
      events: {
        'message.created': (message: Message) => {
          current.receive(message)
        },
        'conversation.updated': (data: WidgetConversationEvent) => {
          if (conversation.value?.id === data.id) conversation.value = { ...conversation.value, ...data }
        },
        'read.moved': (moved: ReadMoved) => {
          if (moved.stream !== 'public') return
          if (moved.reader_type === 'visitor') readSeq.value = Math.max(readSeq.value, moved.seq)
          else if (conversation.value) {
            conversation.value = {
              ...conversation.value,
              staff_read_seq: Math.max(conversation.value.staff_read_seq, moved.seq),
            }
          }
        },
      },
      onCatchUp: () => void refresh().catch(() => undefined),
    })
    current.catchUp({ public: next.last_seq }).catch(() => undefined)
  }

  async function deliver(message: PendingMessage): Promise<void> {
    const body = { client_id: message.clientId, body: message.body }
    const id = message.conversationId ?? conversation.value?.id ?? null
    if (id === null) {
      const answer = await api.post<FirstMessageAnswer>('/api/v1/widget/conversations', body)
      adopt(answer.conversation)
      thread?.receive(answer.message)
    } else {
      thread?.receive(await api.post<Message>(`/api/v1/widget/conversations/${id}/messages`, body))
    }
  }

  function send(body: string): void {
    outbox.add(conversation.value?.id ?? null, body)
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

  /** The visitor sees the end of the conversation. */
  async function markRead(): Promise<void> {
    const current = conversation.value
    const seq = highestSeq(timeline.value, 'public')
    if (!current || seq <= readSeq.value) return
    const before = readSeq.value
    readSeq.value = seq
    try {
      await api.post(`/api/v1/widget/conversations/${current.id}/read`, { seq })
    } catch {
      // Not told to the server: not read. The next look at it tells again.
      if (readSeq.value === seq) readSeq.value = before
    }
  }

  return {
    phase, errorCode, session, conversation, connectionState, entries, unread, returning, hasEarlier, loadingEarlier,
    historyReady, readSeq, lastArrived,
    setPage, start, send, loadEarlier, markRead,
    retry: (clientId: string) => {
      outbox.retry(clientId)
    },
    discard: (clientId: string) => {
      outbox.discard(clientId)
    },
    reconnect: () => connection?.reconnect(),
  }
})
