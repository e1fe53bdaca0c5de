import type { Conversation } from '@shared/api-types'

export interface VisitorName {
  name: string
  /** The server made the name up ("Visitor 1234"); it is worded in the reader's language. */
  stranger: boolean
}

/** What a visitor is called. */
export function visitorName(
  conversation: Conversation,
  word: (key: 'visitor.anonymous', values: { id: string }) => string,
): VisitorName {
  const { name, email } = conversation.visitor
  const number = /^Visitor (\d+)$/.exec(name)?.[1]
  if (number === undefined) return { name, stranger: false }
  return email === null ? { name: word('visitor.anonymous', { id: number }), stranger: true } : { name: email, stranger: false }
}
