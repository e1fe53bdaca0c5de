/** Languages: which there are, which one fits the reader, and dates and times in it. */
import type { Plugin } from 'vue'
import { createI18n } from 'vue-i18n'

export const languages = ['en', 'zh-Hant-TW'] as const
export type Language = (typeof languages)[number]

const STORAGE_KEY = 'deskline:language'

/** Maps a BCP 47 tag to one of ours, or null. Traditional script is told by script or region: zh-Hant, zh-TW, zh-HK, zh-MO. */
export function matchLanguage(tag: string): Language | null {
  const lower = tag.toLowerCase()
  if (lower === 'en' || lower.startsWith('en-')) return 'en'
  if (/^zh(-|$)/.test(lower)) return 'zh-Hant-TW'
  return null
}

/** The first of the reader's languages that is offered, else the first offered. */
export function chooseLanguage(wished: readonly string[], offered: readonly string[] = languages): Language {
  const available = offered.map(matchLanguage).filter((language) => language !== null)
  for (const tag of wished) {
    const language = matchLanguage(tag)
    if (language && (available.length === 0 || available.includes(language))) return language
  }
  return available[0] ?? 'en'
}

/** The language that the person chose on this browser, else what the browser asks for. */
export function initialLanguage(): Language {
  let stored: string | null = null
  try {
    stored = localStorage.getItem(STORAGE_KEY)
  } catch {
    // Storage forbidden: the browser's wish it is.
  }
  return chooseLanguage(stored ? [stored, ...navigator.languages] : navigator.languages)
}

export function rememberLanguage(language: Language): void {
  try {
    localStorage.setItem(STORAGE_KEY, language)
  } catch {
    // Storage forbidden: the choice lasts as long as the page.
  }
}

export interface MessageTree {
  [key: string]: string | MessageTree
}

/** The vue-i18n instance of one face. Both languages are in the bundle: they are small and a switch is instant. */
export function createTranslator(messages: Record<Language, MessageTree>, language: Language): Plugin {
  document.documentElement.lang = language
  return createI18n({
    legacy: false,
    locale: language,
    fallbackLocale: 'en',
    messages,
    missingWarn: false,
    fallbackWarn: false,
  })
}

/** "14:05" or "下午2:05", as the language has it. */
export function formatTime(iso: string, language: string): string {
  return new Intl.DateTimeFormat(language, { hour: 'numeric', minute: '2-digit' }).format(new Date(iso))
}

/** "Monday, 23 November", in the language's own order. */
export function formatDay(iso: string, language: string): string {
  return new Intl.DateTimeFormat(language, { weekday: 'long', day: 'numeric', month: 'long' }).format(new Date(iso))
}

export function formatDateTime(iso: string, language: string): string {
  return new Intl.DateTimeFormat(language, { dateStyle: 'medium', timeStyle: 'short' }).format(new Date(iso))
}

/** Whole days between two moments on the reader's calendar: 0 is today, 1 yesterday. */
export function daysAgo(iso: string, now: Date): number {
  const midnight = (date: Date): number => new Date(date.getFullYear(), date.getMonth(), date.getDate()).getTime()
  return Math.round((midnight(now) - midnight(new Date(iso))) / 86_400_000)
}

/** "3 min ago", "2 days ago"; null for less than a minute, which the caller words itself. */
export function formatRelative(iso: string, language: string, now: Date): string | null {
  const seconds = Math.max(0, (now.getTime() - new Date(iso).getTime()) / 1000)
  const relative = new Intl.RelativeTimeFormat(language, { style: 'narrow', numeric: 'auto' })
  if (seconds < 60) return null
  if (seconds < 3600) return relative.format(-Math.floor(seconds / 60), 'minute')
  if (seconds < 86_400) return relative.format(-Math.floor(seconds / 3600), 'hour')
  if (seconds < 7 * 86_400) return relative.format(-Math.floor(seconds / 86_400), 'day')
  return new Intl.DateTimeFormat(language, { day: 'numeric', month: 'short' }).format(new Date(iso))
}
