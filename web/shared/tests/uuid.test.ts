import { describe, expect, it, vi } from 'vitest'
import { randomUuid } from '../uuid'

describe('randomUuid', () => {
  it('is a version 4 UUID, each time another', () => {
    const made = Array.from({ length: 200 }, randomUuid)
    for (const id of made) expect(id).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/)
    expect(new Set(made).size).toBe(made.length)
  })

  it('needs nothing that a page over plain http lacks', () => {
    vi.stubGlobal('crypto', { getRandomValues: (bytes: Uint8Array) => bytes.fill(255) })
    expect(randomUuid()).toBe('ffffffff-ffff-4fff-bfff-ffffffffffff')
    vi.unstubAllGlobals()
  })
})
