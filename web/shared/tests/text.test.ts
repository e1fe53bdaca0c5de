import { describe, expect, it } from 'vitest'
import { isHexColor, readableOn } from '../browser'
import { linkify } from '../linkify'

const links = (body: string): string[] => linkify(body).flatMap((segment) => segment.href ?? [])

describe('links in a message', () => {
  it('are web addresses only', () => {
    expect(links('see https://example.com/a?b=1 and javascript:alert(1) and data:text/html,x')).toEqual([
      'https://example.com/a?b=1',
    ])
  })

  it('end before the punctuation of the sentence, in both languages', () => {
    expect(links('(https://example.com/a). 看 https://example.com/b。')).toEqual([
      'https://example.com/a',
      'https://example.com/b',
    ])
  })

  it('lose no character of the text', () => {
    for (const body of ['a https://x.test/, b', 'https://', '<b>https://x.test</b>', '', '見https://x.test！']) {
      expect(linkify(body).map((segment) => segment.text).join('')).toBe(body)
    }
  })
})

it('text on the colour of an inbox stays readable', () => {
  expect(readableOn('#0d6b58')).toBe('#ffffff')
  expect(readableOn('#ffd400')).toBe('#101815')
  expect(isHexColor('#0d6b58')).toBe(true)
  expect(isHexColor('red;}')).toBe(false)
})
