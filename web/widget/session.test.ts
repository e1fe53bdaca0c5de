import { describe, expect, it, vi } from 'vitest'
import { ApiError, createApi, isTransient, NetworkError } from '@shared/api'
import type { WidgetSession } from '@shared/api-types'
import { Outbox, type PendingMessage } from '@shared/outbox'
import { VisitorSession } from './session'

const KEY = 'deskline:visitor:demo'

function memory(): Pick<Storage, 'getItem' | 'setItem' | 'removeItem'> {
  const kept = new Map<string, string>()
  return {
    getItem: (key) => kept.get(key) ?? null,
    setItem: (key, value) => void kept.set(key, value),
    removeItem: (key) => void kept.delete(key),
  }
}

function opened(token: string, visitorId = 7): WidgetSession {
  return { visitor_token: token, visitor: { id: visitorId, name: 'Visitor 1234' }, conversation: null } as WidgetSession
}

function answer(status: number, body: object = {}): Response {
  return new Response(JSON.stringify(body), { status })
}

/** A server that takes only the newest token for calls, as it does after a day or after a merge. */
function server(): { tokens: string[]; send: typeof fetch; open: (token: string | null) => Promise<WidgetSession> } {
  const tokens = ['t0']
  return {
    tokens,
    open: vi.fn(() => {
      tokens.push(`t${tokens.length}`)
      return Promise.resolve(opened(tokens.at(-1) ?? ''))
    }),
    send: vi.fn((_path: unknown, init?: RequestInit) => {
      const given = new Headers(init?.headers).get('Authorization')
      return Promise.resolve(
        given === `Bearer ${tokens.at(-1) ?? ''}` && tokens.length > 1
          ? answer(201, { seq: 1 })
          : answer(401, { code: 'not_authenticated' }),
      )
    }),
  }
}

describe('the token', () => {
  it('is kept, sent with the next opening, and replaced by its answer', async () => {
    const storage = memory()
    storage.setItem(KEY, 'old')
    const open = vi.fn(() => Promise.resolve(opened('new')))
    const onOpened = vi.fn()
    const session = new VisitorSession({ storageKey: KEY, storage, open, onOpened })
    expect(session.returning).toBe(true)
    await session.open()
    expect(open).toHaveBeenCalledExactlyOnceWith('old')
    expect(onOpened).toHaveBeenCalledOnce()
    expect(session.headers()).toEqual({ Authorization: 'Bearer new' })
    expect(storage.getItem(KEY)).toBe('new')
  })

  it('stays when the session cannot be opened', async () => {
    const storage = memory()
    storage.setItem(KEY, 'old')
    const blocked = new ApiError({ status: 403, code: 'visitor_blocked' })
    const session = new VisitorSession({
      storageKey: KEY, storage, open: () => Promise.reject(blocked), onOpened: () => undefined,
    })
    await expect(session.open()).rejects.toBe(blocked)
    expect(session.headers()).toEqual({ Authorization: 'Bearer old' })
    expect(storage.getItem(KEY)).toBe('old')
  })

  it('is remembered for the page where storage is forbidden', async () => {
    const storage = {
      getItem: () => {
        throw new Error('forbidden')
      },
      setItem: () => {
        throw new Error('forbidden')
      },
    }
    const session = new VisitorSession({
      storageKey: KEY, storage, open: () => Promise.resolve(opened('t1')), onOpened: () => undefined,
    })
    expect(session.returning).toBe(false)
    await session.open()
    expect(session.headers()).toEqual({ Authorization: 'Bearer t1' })
  })
})

describe('a call that is answered 401', () => {
  it('opens the session again and is made once more', async () => {
    const backend = server()
    const session = new VisitorSession({ storageKey: KEY, storage: memory(), open: backend.open, onOpened: () => undefined })
    const api = createApi({ headers: () => session.headers(), renew: () => session.renew(), fetch: backend.send })
    expect(await api.post('/messages', {})).toEqual({ seq: 1 })
    expect(backend.open).toHaveBeenCalledOnce()
    expect(backend.send).toHaveBeenCalledTimes(2)
  })

  it('is one opening for all calls that wait', async () => {
    const backend = server()
    const session = new VisitorSession({ storageKey: KEY, storage: memory(), open: backend.open, onOpened: () => undefined })
    const api = createApi({ headers: () => session.headers(), renew: () => session.renew(), fetch: backend.send })
    const answers = await Promise.all([1, 2, 3].map(() => api.post('/messages', {})))
    expect(answers).toHaveLength(3)
    expect(backend.open).toHaveBeenCalledOnce()
  })

  it('is made once more and no oftener', async () => {
    const send = vi.fn(() => Promise.resolve(answer(401, { code: 'not_authenticated' })))
    const renew = vi.fn(() => Promise.resolve())
    const api = createApi({ headers: () => ({}), renew, fetch: send })
    await expect(api.get('/x')).rejects.toMatchObject({ status: 401 })
    expect(renew).toHaveBeenCalledOnce()
    expect(send).toHaveBeenCalledTimes(2)
  })

  it('fails as the opening does, so that a cut line is a reason to try again', async () => {
    const api = createApi({
      headers: () => ({}),
      renew: () => Promise.reject(new NetworkError('cut')),
      fetch: () => Promise.resolve(answer(401)),
    })
    const error: unknown = await api.post('/messages', {}).catch((reason: unknown) => reason)
    expect(isTransient(error)).toBe(true)
  })
})

it('a message that meets an old token is sent, not failed', async () => {
  const backend = server()
  const storage = memory()
  const session = new VisitorSession({ storageKey: KEY, storage, open: backend.open, onOpened: () => undefined })
  const api = createApi({ headers: () => session.headers(), renew: () => session.renew(), fetch: backend.send })
  const states: string[] = []
  const outbox = new Outbox({
    storageKey: 'outbox',
    storage,
    send: async (message: PendingMessage) => {
      await api.post('/messages', { client_id: message.clientId, body: message.body })
    },
    onChange: (messages) => states.push(...messages.map((message) => message.state)),
  })
  outbox.add(1, 'hello')
  await vi.waitFor(() => {
    expect(outbox.messages).toHaveLength(0)
  })
  expect(states).not.toContain('failed')
})
