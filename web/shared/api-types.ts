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
export type BroadcastingAuth = Schemas['BroadcastingAuth']
export type CurrentUser = Schemas['User']
export type LoginAnswer = Schemas['LoginResponse']
export type Me = Schemas['Me']
export type WidgetInbox = Schemas['WidgetInbox']
export type WidgetPage = Schemas['WidgetPage']
export type WidgetSession = Schemas['WidgetSession']
export type FirstMessageAnswer = Schemas['FirstMessage']
export type Problem = Schemas['ProblemDocument']
export type MessagePage = Schemas['MessagePage']
export type ConversationPage = Schemas['ConversationPage']
export type NewMessage = Schemas['NewMessage']
export type NewWidgetMessage = Schemas['NewWidgetMessage']

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
