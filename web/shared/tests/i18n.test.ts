import { readFileSync, readdirSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'
import { chooseLanguage, daysAgo, formatRelative, matchLanguage } from '../i18n'

type Tree = { [key: string]: string | Tree }
const folder = fileURLToPath(new URL('../i18n/', import.meta.url))
const faces = readdirSync(`${folder}en`)

async function load(language: string, face: string): Promise<Tree> {
  return ((await import(`../i18n/${language}/${face.replace('.ts', '')}.ts`)) as { default: Tree }).default
}

function flat(tree: Tree, prefix = ''): [string, string][] {
  return Object.entries(tree).flatMap(([key, value]) =>
    typeof value === 'string' ? [[prefix + key, value] as [string, string]] : flat(value, `${prefix}${key}.`),
  )
}

const placeholders = (text: string): string[] => [...new Set(text.match(/\{\w+\}/g) ?? [])].sort()

describe.each(faces)('both languages of %s', (face) => {
  it('have the same keys, none of them empty', async () => {
    const english = flat(await load('en', face))
    const chinese = flat(await load('zh-Hant-TW', face))
    expect(chinese.map(([key]) => key).sort()).toEqual(english.map(([key]) => key).sort())
    for (const [key, text] of [...english, ...chinese]) expect(text.trim(), key).not.toBe('')
  })

  it('have the same placeholders', async () => {
    const chinese = new Map(flat(await load('zh-Hant-TW', face)))
    for (const [key, text] of flat(await load('en', face))) {
      expect(placeholders(chinese.get(key) ?? ''), key).toEqual(placeholders(text))
    }
  })

  it('have no simplified characters and no half-width punctuation after Chinese', async () => {
    for (const [key, text] of flat(await load('zh-Hant-TW', face))) {
      expect(text, key).not.toMatch(/[们这话线发设应网页类时间题请输错误还开关闭对会来个]/u)
      expect(text, key).not.toMatch(/[\u4e00-\u9fff][,;!?]/u)
    }
  })
})

it('every language has every face', () => {
  expect(readdirSync(`${folder}zh-Hant-TW`)).toEqual(faces)
})

it('every key that the source names exists', async () => {
  const root = fileURLToPath(new URL('../../', import.meta.url))
  const known = new Set<string>()
  for (const face of faces) {
    const prefix = face === 'widget.ts' ? 'widget.' : ''
    for (const [key] of flat(await load('en', face), prefix)) known.add(key)
  }
  const sources = ['widget', 'dashboard', 'shop', 'docs', 'shared/ui'].flatMap((part) =>
    readdirSync(`${root}${part}`, { recursive: true, encoding: 'utf8' })
      .filter((name) => /\.(vue|ts)$/.test(name))
      .map((name) => readFileSync(`${root}${part}/${name}`, 'utf8')),
  )
  const named = sources.flatMap((source) => [...source.matchAll(/\bt\('([\w.]+)'/g)].map((match) => match[1] ?? ''))
  expect(named.length).toBeGreaterThan(80)
  expect(named.filter((key) => !known.has(key))).toEqual([])
})

describe('the language of the reader', () => {
  it('is found from script or region', () => {
    expect(['zh-TW', 'zh-Hant', 'zh-HK', 'en-GB', 'fr'].map(matchLanguage)).toEqual([
      'zh-Hant-TW',
      'zh-Hant-TW',
      'zh-Hant-TW',
      'en',
      null,
    ])
  })

  it('is the first wish that is offered, else the first offered', () => {
    expect(chooseLanguage(['fr', 'zh-TW', 'en'])).toBe('zh-Hant-TW')
    expect(chooseLanguage(['zh-TW'], ['en'])).toBe('en')
    expect(chooseLanguage(['fr'], ['zh-Hant-TW', 'en'])).toBe('zh-Hant-TW')
    expect(chooseLanguage(['zh-TW'], [])).toBe('zh-Hant-TW')
  })
})

describe('times', () => {
  const now = new Date(2026, 10, 23, 12, 0, 0)
  const before = (seconds: number): string => new Date(now.getTime() - seconds * 1000).toISOString()

  it('are told from now', () => {
    expect(formatRelative(before(20), 'en', now)).toBeNull()
    expect(formatRelative(before(180), 'en', now)).toMatch(/^3 ?m(in\.?)? ago$/)
    expect(formatRelative(before(7200), 'zh-Hant-TW', now)).toMatch(/^2 ?小時前$/)
  })

  it('count days on the calendar, not in 24 hours', () => {
    expect(daysAgo(new Date(2026, 10, 22, 23, 59).toISOString(), now)).toBe(1)
    expect(daysAgo(new Date(2026, 10, 23, 0, 1).toISOString(), now)).toBe(0)
  })
})
