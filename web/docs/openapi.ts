/** The parts of an OpenAPI 3.1 document that the page draws. */

export interface Schema {
  $ref?: string
  type?: string | string[]
  format?: string
  description?: string
  enum?: unknown[]
  const?: unknown
  default?: unknown
  anyOf?: Schema[]
  oneOf?: Schema[]
  allOf?: Schema[]
  items?: Schema
  properties?: Record<string, Schema>
  required?: string[]
  additionalProperties?: boolean | Schema
  minimum?: number
  maximum?: number
  minLength?: number
  maxLength?: number
  examples?: unknown[]
  example?: unknown
}

export interface Parameter {
  name: string
  in: 'path' | 'query' | 'header' | 'cookie'
  required?: boolean
  description?: string
  schema?: Schema
}

export interface Answer {
  description: string
  content?: Record<string, { schema?: Schema }>
}

export interface Operation {
  operationId?: string
  tags?: string[]
  summary?: string
  description?: string
  security?: Record<string, string[]>[]
  parameters?: Parameter[]
  requestBody?: { required?: boolean; content: Record<string, { schema?: Schema }> }
  responses?: Record<string, Answer>
}

export interface OpenApi {
  info: { title: string; version: string; description?: string }
  tags?: { name: string; description?: string }[]
  paths: Record<string, Record<string, Operation>>
  components?: { schemas?: Record<string, Schema> }
}

export interface Call {
  id: string
  method: string
  path: string
  tag: string
  operation: Operation
}

const METHODS = ['get', 'post', 'put', 'patch', 'delete']

/** Every call of the document in its own order. */
export function callsOf(document: OpenApi): Call[] {
  return Object.entries(document.paths).flatMap(([path, operations]) =>
    METHODS.flatMap((method) => {
      const operation = operations[method]
      if (!operation) return []
      return [{ id: `${method}${path.replaceAll(/[^\w]+/g, '-')}`, method, path, tag: operation.tags?.[0] ?? '', operation }]
    }),
  )
}

export function refName(schema: Schema): string | null {
  return schema.$ref?.split('/').at(-1) ?? null
}

/** Follows references. Null stands for "or null". */
export function resolve(document: OpenApi, schema: Schema | undefined): Schema {
  let current = schema ?? {}
  for (let step = 0; step < 8; step += 1) {
    const name = refName(current)
    if (!name) break
    current = document.components?.schemas?.[name] ?? {}
  }
  return current
}

/** "string (uuid)", "Message[]", "UserRef | null": the type in one line. */
export function typeName(schema: Schema | undefined): string {
  if (!schema) return 'any'
  const name = refName(schema)
  if (name) return name
  const choices = schema.anyOf ?? schema.oneOf
  if (choices) return [...new Set(choices.map(typeName))].join(' | ')
  if (schema.allOf?.length === 1) return typeName(schema.allOf[0])
  if (schema.const !== undefined) return JSON.stringify(schema.const)
  if (schema.type === 'array') return `${typeName(schema.items)}[]`
  const type = Array.isArray(schema.type) ? schema.type.join(' | ') : (schema.type ?? 'any')
  return schema.format ? `${type} (${schema.format})` : type
}

/** The object schemas that a schema leads to directly: those whose fields are worth showing below it. */
export function objectsIn(document: OpenApi, schema: Schema | undefined): { name: string; schema: Schema }[] {
  if (!schema) return []
  const name = refName(schema)
  if (name) {
    const resolved = resolve(document, schema)
    return resolved.properties ? [{ name, schema: resolved }] : []
  }
  if (schema.items) return objectsIn(document, schema.items)
  return [...(schema.anyOf ?? []), ...(schema.oneOf ?? []), ...(schema.allOf ?? [])].flatMap((choice) =>
    objectsIn(document, choice),
  )
}

/** A plausible value, for the example call. Depth-limited: schemas may refer to themselves. */
export function sample(document: OpenApi, schema: Schema | undefined, depth = 0): unknown {
  const resolved = resolve(document, schema)
  if (resolved.examples?.[0] !== undefined) return resolved.examples[0]
  if (resolved.default !== undefined && resolved.default !== null) return resolved.default
  if (resolved.const !== undefined) return resolved.const
  if (resolved.enum) return resolved.enum[0]
  const choice = (resolved.anyOf ?? resolved.oneOf ?? resolved.allOf)?.find((item) => item.type !== 'null')
  if (choice) return sample(document, choice, depth)
  if (resolved.properties) {
    if (depth > 3) return {}
    const required = new Set(resolved.required ?? Object.keys(resolved.properties))
    return Object.fromEntries(
      Object.entries(resolved.properties)
        .filter(([key]) => required.has(key))
        .map(([key, value]) => [key, sample(document, value, depth + 1)]),
    )
  }
  if (resolved.type === 'array') return depth > 3 ? [] : [sample(document, resolved.items, depth + 1)]
  if (resolved.type === 'integer' || resolved.type === 'number') return resolved.minimum ?? 1
  if (resolved.type === 'boolean') return true
  if (resolved.format === 'uuid') return '3f0c9a52-6a1e-4b7e-9a3d-0c6f5d1b8e42'
  return resolved.type === 'string' ? 'text' : null
}

/** The call as a curl command line. */
export function curl(document: OpenApi, call: Call, origin: string): string {
  const path = call.path.replaceAll(/\{\w+\}/g, '1')
  const lines = [`curl ${call.method === 'get' ? '' : `-X ${call.method.toUpperCase()} `}'${origin}${path}'`]
  const ways = call.operation.security?.[0] ?? {}
  if ('visitor' in ways) lines.push(`-H "Authorization: Bearer $VISITOR_TOKEN"`)
  if ('session' in ways) lines.push(`-b "deskline_session=$SESSION"`)
  if ('csrf' in ways) lines.push(`-H "X-CSRF-Token: $CSRF_TOKEN"`)
  const content = call.operation.requestBody?.content
  const json = content?.['application/json']
  const form = content?.['application/x-www-form-urlencoded']
  if (json) {
    lines.push(`-H 'Content-Type: application/json'`, `-d '${JSON.stringify(sample(document, json.schema))}'`)
  } else if (form) {
    const fields = sample(document, form.schema)
    for (const [key, value] of Object.entries(fields as Record<string, unknown>)) {
      lines.push(`--data-urlencode '${key}=${String(value)}'`)
    }
  }
  return lines.join(' \\\n  ')
}
