/** The wire objects by their short names. The schema itself is generated: `npm run types`. */
import type { components } from './api-schema'

type Schemas = components['schemas']

export type Message = Schemas['Message']
export type Stream = Message['stream']
export type SenderType = Message['sender_type']
export type UserRef = Schemas['UserRef']
export type InboxRef = Schemas['InboxRef']
export type Conversation = Schemas['Conversation']
export type ConversationDetail = Schemas['ConversationDetail']
export type VisitorContext = Schemas['VisitorContext']
export type WidgetConversation = Schemas['WidgetConversation']
export type Realtime = Schemas['Realtime']
export type CurrentUser = Schemas['CurrentUser']
export type LoginAnswer = Schemas['LoginAnswer']
export type Me = Schemas['Me']
export type WidgetInbox = Schemas['WidgetInbox']
export type WidgetSession = Schemas['WidgetSession']
export type FirstMessageAnswer = Schemas['FirstMessageAnswer']
export type Problem = Schemas['Problem']

/** One page of history, ascending by seq. `has_more`: there is more in the direction that was asked for. */
export interface MessagePage {
  items: Message[]
  next_cursor: null
  has_more: boolean
}

export interface ConversationPage {
  items: Conversation[]
  next_cursor: string | null
}

/** What `private-inbox.{id}` carries: a conversation without the reader's own fields. */
export type ConversationEvent = Omit<Conversation, 'read_seq' | 'unread'>

/** What `private-conversation.{id}` carries to a widget. */
export type WidgetConversationEvent = Omit<WidgetConversation, 'read_seq' | 'unread'>

/** The data of `read.moved`. */
export interface ReadMoved {
  conversation_id: number
  reader_type: 'visitor' | 'agent'
  reader_id: number
  stream: Stream
  seq: number
}
