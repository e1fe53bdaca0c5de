import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { callsOf, curl, objectsIn, sample, typeName, type OpenApi, type Schema } from './openapi'

const document: OpenApi = {
  info: { title: 'T', version: '1' },
  paths: {
    '/a/{id}': {
      get: { summary: 'Read' },
      post: {
        security: [{ session: [], csrf: [] }],
        requestBody: { content: { 'application/json': { schema: { $ref: '#/components/schemas/Node' } } } },
      },
    },
  },
  components: {
    schemas: {
      Node: {
        type: 'object',
        properties: {
          text: { type: 'string' },
          child: { anyOf: [{ $ref: '#/components/schemas/Node' }, { type: 'null' }] },
        },
        required: ['text', 'child'],
      },
    },
  },
}
const node: Schema = { $ref: '#/components/schemas/Node' }

describe('the reference page', () => {
  it('lists the calls', () => {
    expect(callsOf(document).map((call) => `${call.method} ${call.path}`)).toEqual(['get /a/{id}', 'post /a/{id}'])
  })

  it('names types', () => {
    expect(typeName({ anyOf: [node, { type: 'null' }] })).toBe('Node | null')
    expect(typeName({ type: 'array', items: { type: 'string', format: 'uuid' } })).toBe('string (uuid)[]')
    expect(objectsIn(document, { type: 'array', items: node }).map((found) => found.name)).toEqual(['Node'])
  })

  it('makes an end of schemas that contain themselves', () => {
    expect(JSON.stringify(sample(document, node)).length).toBeLessThan(200)
  })

  it('writes an example call with its credentials', () => {
    const post = callsOf(document)[1]
    const line = post ? curl(document, post, 'http://localhost:8000') : ''
    expect(line).toContain("curl -X POST 'http://localhost:8000/a/1'")
    expect(line).toContain('X-CSRF-Token')
    expect(line).toContain('"text":"text"')
  })

  it('can draw every call of the product’s own document', () => {
    const own = JSON.parse(readFileSync(new URL('../shared/openapi.json', import.meta.url), 'utf8')) as OpenApi
    const calls = callsOf(own)
    expect(calls.length).toBeGreaterThan(10)
    for (const call of calls) {
      expect(call.operation.summary, call.path).toBeTruthy()
      expect(curl(own, call, 'http://localhost')).toContain('curl')
    }
    expect(new Set(calls.map((call) => call.id)).size).toBe(calls.length)
  })
})
