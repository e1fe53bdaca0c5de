import { describe, expect, it, vi } from 'vitest'
import { ApiError, createApi, isTransient, NetworkError } from '../api'

function answer(status: number, body: string, headers: Record<string, string> = {}): typeof fetch {
  return () => Promise.resolve(new Response(status === 204 ? null : body, { status, headers }))
}

const problem = (status: number, code: string, more: object = {}): string =>
  JSON.stringify({ type: 'about:blank', title: code, status, detail: '', code, ...more })

describe('errors of the server', () => {
  it('carry the stable code and the holder of a lost claim', async () => {
    const holder = { id: 3, name: 'Ada', avatar_url: null }
    const api = createApi({
      headers: () => ({}),
      fetch: answer(409, problem(409, 'conversation_already_claimed', { holder })),
    })
    const error = await api.post('/x').catch((reason: unknown) => reason)
    expect(error).toBeInstanceOf(ApiError)
    expect(error).toMatchObject({ status: 409, code: 'conversation_already_claimed', holder })
    expect(isTransient(error)).toBe(false)
  })

  it('are understood when a proxy answers with its own page', async () => {
    const api = createApi({ headers: () => ({}), fetch: answer(503, '<html>', { 'Retry-After': '3' }) })
    const error = await api.get('/x').catch((reason: unknown) => reason)
    expect(error).toMatchObject({ status: 503, code: 'internal_error', retryAfterSeconds: 3 })
    expect(isTransient(error)).toBe(true)
  })

  it('of the session are told once', async () => {
    const onUnauthenticated = vi.fn()
    const api = createApi({ headers: () => ({}), onUnauthenticated, fetch: answer(401, problem(401, 'not_authenticated')) })
    await expect(api.get('/x')).rejects.toMatchObject({ status: 401 })
    expect(onUnauthenticated).toHaveBeenCalledOnce()
  })
})

it('no answer is a network error, which is worth a retry', async () => {
  const api = createApi({ headers: () => ({}), fetch: () => Promise.reject(new TypeError('Failed to fetch')) })
  const error = await api.get('/x').catch((reason: unknown) => reason)
  expect(error).toBeInstanceOf(NetworkError)
  expect(isTransient(error)).toBe(true)
})

it('leaves out empty query values and reads an empty answer as null', async () => {
  const send = vi.fn(answer(204, ''))
  const api = createApi({ headers: () => ({ 'X-CSRF-Token': 'token' }), fetch: send })
  expect(await api.get('/x', { a: 1, b: null, c: undefined, d: '' })).toBeNull()
  expect(send.mock.calls[0]?.[0]).toBe('/x?a=1')
  expect(send.mock.calls[0]?.[1]?.headers).toMatchObject({ 'X-CSRF-Token': 'token' })
})
