/** Who is signed in, and the one socket of the page. */
import { defineStore } from 'pinia'
import { computed, ref, shallowRef } from 'vue'
import { ApiError, createApi } from '@shared/api'
import type { CurrentUser, InboxRef, LoginAnswer, Me, Realtime } from '@shared/api-types'
import { safeStorage } from '@shared/browser'
import { connect, type Connection, type ConnectionState } from '@shared/connection'

export type Boot = 'unknown' | 'signed-in' | 'signed-out' | 'unreachable'

/** Set while somebody is signed in. The cookie itself is hidden from scripts, and asking in vain is noise. */
const HINT_KEY = 'deskline:signed-in'
/** The server takes an agent for absent after 75 seconds; a tab in the background ticks once a minute. */
const HEARTBEAT_MS = 30_000

export const useSession = defineStore('session', () => {
  const boot = ref<Boot>('unknown')
  const user = shallowRef<CurrentUser | null>(null)
  const inboxes = shallowRef<readonly InboxRef[]>([])
  const connectionState = ref<ConnectionState>('connecting')
  /** True when a session that was there has ended without "log out". */
  const expired = ref(false)
  const connection = shallowRef<Connection | null>(null)
  const storage = safeStorage()
  let csrfToken = ''
  let realtime: Realtime | null = null
  let heartbeat: ReturnType<typeof setInterval> | undefined

  const api = createApi({
    headers: () => (csrfToken ? { 'X-CSRF-Token': csrfToken } : {}),
    onUnauthenticated: () => {
      if (boot.value !== 'signed-in') return
      expired.value = true
      forget()
    },
  })

  const signedIn = computed(() => boot.value === 'signed-in')

  /** Whether asking the server who we are has a chance. */
  function mayBeSignedIn(): boolean {
    return storage === null || storage.getItem(HINT_KEY) !== null
  }

  /** Asks who we are. Throws nothing: the answer is in `boot`. */
  async function load(): Promise<void> {
    try {
      const me = await api.get<Me>('/api/v1/me')
      user.value = me.user
      inboxes.value = me.inboxes
      csrfToken = me.csrf_token
      realtime = me.realtime
      boot.value = 'signed-in'
      storage?.setItem(HINT_KEY, '1')
      expired.value = false
      goLive()
    } catch (error) {
      boot.value = error instanceof ApiError && error.status === 401 ? 'signed-out' : 'unreachable'
    }
  }

  async function login(email: string, password: string): Promise<void> {
    const answer = await api.post<LoginAnswer>('/api/v1/auth/login', { email, password })
    csrfToken = answer.csrf_token
    await load()
  }

  async function logout(): Promise<void> {
    try {
      await api.post('/api/v1/auth/logout')
    } finally {
      expired.value = false
      forget()
    }
  }

  function forget(): void {
    storage?.removeItem(HINT_KEY)
    clearInterval(heartbeat)
    heartbeat = undefined
    connection.value?.close()
    connection.value = null
    user.value = null
    csrfToken = ''
    boot.value = 'signed-out'
  }

  function goLive(): void {
    heartbeat ??= setInterval(() => {
      if (navigator.onLine) void api.post('/api/v1/presence').catch(() => undefined)
    }, HEARTBEAT_MS)
    if (connection.value || !realtime) return
    connection.value = connect({
      realtime,
      authorize: (endpoint, form) => api.postForm(endpoint, form),
      onState: (state) => {
        connectionState.value = state
      },
    })
    connectionState.value = connection.value.state
  }

  return { boot, user, inboxes, connectionState, connection, expired, signedIn, api, mayBeSignedIn, load, login, logout }
})
