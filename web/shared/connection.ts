/**
 * The one WebSocket of a page, over pusher-js, and what it owes its reader: an honest state, and a call to
 * fetch `after_seq` whenever events may have been missed.
 */
import Pusher, { type Channel } from 'pusher-js'
import { ApiError } from './api'
import type { BroadcastingAuth, Realtime } from './api-types'

export type ConnectionState = 'connecting' | 'online' | 'offline'

export interface ChannelHandlers {
  /** Events by name. The data is what the publisher sent, already parsed. */
  events: Record<string, (data: never) => void>
  /**
   * Events may have been missed: the subscription is new or was renewed, or the gateway said so.
   * Whoever listens fetches what is after the last seq it knows.
   */
  onCatchUp: () => void
}

export interface ConnectionOptions {
  realtime: Realtime
  /** Posts the form to the auth endpoint and returns its answer, which is passed on whole. Adds the caller's Bearer or X-CSRF-Token itself. */
  authorize: (endpoint: string, form: { socket_id: string; channel_name: string }) => Promise<BroadcastingAuth>
  onState: (state: ConnectionState) => void
  /** Test hook. */
  createPusher?: (key: string, options: ConstructorParameters<typeof Pusher>[1]) => Pusher
}

export interface Connection {
  readonly state: ConnectionState
  /** Listens until the returned function is called. */
  subscribe: (channelName: string, handlers: ChannelHandlers) => () => void
  /** Tries at once instead of waiting for the next turn of the back-off. */
  reconnect: () => void
  close: () => void
}

const AUTH_RETRY_MS = 3_000

export function connect(options: ConnectionOptions): Connection {
  const { realtime } = options
  const create = options.createPusher ?? ((key, config) => new Pusher(key, config))
  /** pusher-js passes on only the text of an authorization error, so the refusals are remembered here. */
  const refused = new Set<string>()
  const pusher = create(realtime.key, {
    cluster: 'deskline',
    wsHost: realtime.wsHost,
    wsPort: realtime.wsPort,
    wssPort: realtime.wssPort,
    forceTLS: realtime.forceTLS,
    // The other one would only be refused: behind one address there is one of them.
    enabledTransports: realtime.forceTLS ? ['wss'] : ['ws'],
    enableStats: false,
    // A half-open socket is found after 30 s of silence plus 6 s without a pong.
    activityTimeout: 30_000,
    pongTimeout: 6_000,
    unavailableTimeout: 4_000,
    channelAuthorization: {
      transport: 'ajax',
      endpoint: realtime.authEndpoint,
      customHandler: ({ socketId, channelName }, done) => {
        options
          .authorize(realtime.authEndpoint, { socket_id: socketId, channel_name: channelName })
          .then((answer) => {
            refused.delete(channelName)
            done(null, answer)
          })
          .catch((error: unknown) => {
            if (error instanceof ApiError && (error.status === 401 || error.status === 403)) refused.add(channelName)
            done(error instanceof Error ? error : new Error(String(error)), null)
          })
      },
    },
  })

  let state: ConnectionState = 'connecting'
  const catchUps = new Set<() => void>()

  pusher.connection.bind('state_change', ({ current }: { current: string }) => {
    const next = stateOf(current, state)
    if (next === state) return
    state = next
    options.onState(next)
  })
  pusher.bind('deskline:resync', () => {
    for (const catchUp of catchUps) catchUp()
  })

  return {
    get state() {
      return state
    },
    subscribe(channelName, handlers) {
      const channel = pusher.subscribe(channelName)
      let retry: ReturnType<typeof setTimeout> | undefined
      const onError = (): void => {
        // Refused is refused; anything else (a restarting web node) is worth another try on the same socket.
        if (refused.has(channelName)) return
        retry = setTimeout(() => {
          resubscribe(channel)
        }, AUTH_RETRY_MS)
      }
      const bound: [string, (data: never) => void][] = [
        ...Object.entries(handlers.events),
        ['pusher:subscription_succeeded', handlers.onCatchUp],
        ['pusher:subscription_error', onError],
      ]
      for (const [event, handler] of bound) channel.bind(event, handler)
      catchUps.add(handlers.onCatchUp)
      return () => {
        clearTimeout(retry)
        catchUps.delete(handlers.onCatchUp)
        for (const [event, handler] of bound) channel.unbind(event, handler)
        pusher.unsubscribe(channelName)
      }
    },
    reconnect() {
      if (state === 'online') return
      pusher.disconnect()
      pusher.connect()
    },
    close() {
      pusher.disconnect()
    },
  }
}

/** pusher-js' states in the reader's words. A retry after a loss is still "offline" until it has succeeded. */
export function stateOf(pusherState: string, before: ConnectionState): ConnectionState {
  if (pusherState === 'connected') return 'online'
  if (pusherState === 'connecting' || pusherState === 'initialized') return before === 'offline' ? 'offline' : 'connecting'
  return 'offline'
}

function resubscribe(channel: Channel): void {
  if (!channel.subscribed && !channel.subscriptionPending) channel.subscribe()
}
