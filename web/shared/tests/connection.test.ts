import type Pusher from 'pusher-js'
import { describe, expect, it, vi } from 'vitest'
import { connect, stateOf, type ConnectionState } from '../connection'

type Handler = (data: unknown) => void

class Emitter {
  readonly handlers = new Map<string, Set<Handler>>()
  bind(event: string, handler: Handler): void {
    this.handlers.set(event, (this.handlers.get(event) ?? new Set()).add(handler))
  }
  unbind(event: string, handler: Handler): void {
    this.handlers.get(event)?.delete(handler)
  }
  emit(event: string, data: unknown = {}): void {
    for (const handler of this.handlers.get(event) ?? []) handler(data)
  }
}

class FakePusher extends Emitter {
  readonly connection = new Emitter()
  readonly channels = new Map<string, Emitter>()
  subscribe(name: string): Emitter {
    const channel = this.channels.get(name) ?? new Emitter()
    this.channels.set(name, channel)
    return channel
  }
  unsubscribe(name: string): void {
    this.channels.delete(name)
  }
}

function start(): { pusher: FakePusher; states: ConnectionState[]; connection: ReturnType<typeof connect> } {
  const pusher = new FakePusher()
  const states: ConnectionState[] = []
  const connection = connect({
    realtime: { key: 'k', wsHost: 'localhost', wsPort: 80, wssPort: 443, forceTLS: false, authEndpoint: '/broadcasting/auth' },
    authorize: () => Promise.resolve({ auth: 'k:signature', channel_data: '{}' }),
    onState: (state) => states.push(state),
    createPusher: () => pusher as unknown as Pusher,
  })
  return { pusher, states, connection }
}

describe('the connection state tells the truth', () => {
  it('is offline until a retry has really succeeded', () => {
    const { pusher, states } = start()
    for (const current of ['connecting', 'connected', 'unavailable', 'connecting', 'connected']) {
      pusher.connection.emit('state_change', { current })
    }
    expect(states).toEqual(['online', 'offline', 'online'])
  })

  it('is "connecting" only before the first connection', () => {
    expect(stateOf('connecting', 'connecting')).toBe('connecting')
    expect(stateOf('connecting', 'offline')).toBe('offline')
    expect(stateOf('failed', 'connecting')).toBe('offline')
  })
})

describe('catching up', () => {
  it('is asked for after each subscription and when the gateway says resync, until the end of listening', () => {
    const { pusher, connection } = start()
    const onCatchUp = vi.fn()
    const onMessage = vi.fn()
    const stop = connection.subscribe('private-conversation.7', { events: { 'message.created': onMessage }, onCatchUp })
    const channel = pusher.channels.get('private-conversation.7')
    channel?.emit('pusher:subscription_succeeded')
    expect(onCatchUp).toHaveBeenCalledTimes(1)
    pusher.emit('deskline:resync')
    expect(onCatchUp).toHaveBeenCalledTimes(2)
    channel?.emit('message.created', { seq: 1 })
    expect(onMessage).toHaveBeenCalledWith({ seq: 1 })
    stop()
    pusher.emit('deskline:resync')
    channel?.emit('message.created', { seq: 2 })
    expect(onCatchUp).toHaveBeenCalledTimes(2)
    expect(onMessage).toHaveBeenCalledTimes(1)
  })
})
