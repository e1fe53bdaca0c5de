/** HTTP with problem documents (RFC 9457) turned into errors that say whether a retry can help. */
import type { Problem, UserRef } from './api-types'

/** The server answered with an error. `code` is stable, `status` is the HTTP status. */
export class ApiError extends Error {
  readonly status: number
  readonly code: string
  readonly detail: string
  readonly holder: UserRef | null
  /** Seconds that the server asks to wait, or null. */
  readonly retryAfterSeconds: number | null

  constructor(problem: Partial<Problem> & { status: number }, retryAfterSeconds: number | null = null) {
    super(problem.title ?? `HTTP ${problem.status}`)
    this.name = 'ApiError'
    this.status = problem.status
    this.code = problem.code ?? 'internal_error'
    this.detail = problem.detail ?? ''
    this.holder = problem.holder ?? null
    this.retryAfterSeconds = retryAfterSeconds
  }
}

/** No answer: offline, refused, cut, or slower than the limit. */
export class NetworkError extends Error {
  constructor(cause: unknown) {
    super('No answer from the server', { cause })
    this.name = 'NetworkError'
  }
}

/** True when the same request may succeed later without anybody changing it. */
export function isTransient(error: unknown): boolean {
  if (error instanceof NetworkError) return true
  return error instanceof ApiError && (error.status >= 500 || error.status === 408 || error.status === 429)
}

export interface ApiOptions {
  /** Headers of the caller's identity, asked for on every call because they may change. */
  headers: () => Record<string, string>
  /** Called once per 401 answer. */
  onUnauthenticated?: () => void
  /** Called when a call is answered 401: gets a new identity, and the call is made once more. What it rejects with
   * is what the call rejects with. */
  renew?: () => Promise<void>
  fetch?: typeof fetch
  timeoutSeconds?: number
}

export interface Api {
  get: <T>(path: string, query?: Query) => Promise<T>
  post: <T>(path: string, body?: unknown) => Promise<T>
  postForm: <T>(path: string, form: Record<string, string>) => Promise<T>
}

interface CallInit {
  body?: BodyInit
  type?: string
}

export type Query = Record<string, string | number | null | undefined>

export function createApi(options: ApiOptions): Api {
  const timeoutMs = (options.timeoutSeconds ?? 15) * 1000

  async function call<T>(method: string, path: string, init: CallInit = {}, again = false): Promise<T> {
    const send = options.fetch ?? fetch
    const headers: Record<string, string> = { Accept: 'application/json', ...options.headers() }
    if (init.type) headers['Content-Type'] = init.type
    let response: Response
    let text: string
    try {
      response = await send(path, {
        method,
        headers,
        body: init.body ?? null,
        credentials: 'same-origin',
        signal: AbortSignal.timeout(timeoutMs),
      })
      text = await response.text()
    } catch (cause) {
      throw new NetworkError(cause)
    }
    if (response.ok) return (text ? parse(text) : null) as T
    if (response.status === 401 && options.renew && !again) {
      await options.renew()
      return call(method, path, init, true)
    }
    if (response.status === 401) options.onUnauthenticated?.()
    const problem = parse(text)
    const retryAfter = Number(response.headers.get('Retry-After') ?? Number.NaN)
    throw new ApiError(
      { ...(isObject(problem) ? problem : {}), status: response.status },
      Number.isFinite(retryAfter) ? retryAfter : null,
    )
  }

  return {
    get: (path, query = {}) => call('GET', path + queryString(query)),
    post: (path, body) =>
      body === undefined
        ? call('POST', path)
        : call('POST', path, { body: JSON.stringify(body), type: 'application/json' }),
    postForm: (path, form) => call('POST', path, { body: new URLSearchParams(form) }),
  }
}

function queryString(query: Query): string {
  const parameters = new URLSearchParams()
  for (const [name, value] of Object.entries(query)) {
    if (value !== null && value !== undefined && value !== '') parameters.set(name, String(value))
  }
  const text = parameters.toString()
  return text ? `?${text}` : ''
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    // A proxy's HTML error page: the status still tells enough.
    return null
  }
}

function isObject(value: unknown): value is Partial<Problem> {
  return typeof value === 'object' && value !== null
}
