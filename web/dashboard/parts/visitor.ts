import type { Conversation } from '@shared/api-types'

/** What a visitor is called: the name, else the e-mail address, else null (the caller words "Visitor 12"). */
export function visitorName(conversation: Conversation): string | null {
  return conversation.visitor.name ?? conversation.visitor.email ?? null
}
