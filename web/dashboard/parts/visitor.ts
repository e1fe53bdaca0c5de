import type { Conversation } from '@shared/api-types'

/**
 * What a visitor is called. The server names strangers "Visitor 1234": a made-up name, so it is worded
 * in the reader's language.
 */
export function visitorName(conversation: Conversation, word: (key: 'visitor.anonymous', values: { id: string }) => string): string {
  const { name, email } = conversation.visitor
  const stranger = /^Visitor (\d+)$/.exec(name)
  if (stranger?.[1]) return email ?? word('visitor.anonymous', { id: stranger[1] })
  return name
}
