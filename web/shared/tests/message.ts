import type { Message } from '../api-types'

/** A stored message of conversation 7, one second after the one before it. */
export function message(seq: number, change: Partial<Message> = {}): Message {
  return {
    conversation_id: 7,
    stream: 'public',
    seq,
    client_id: `client-${change.stream ?? 'public'}-${seq}`,
    sender_type: 'visitor',
    sender: { id: 1, name: 'Visitor', avatar_url: null },
    kind: 'text',
    body: `message ${seq}`,
    attachments: [],
    event: null,
    created_at: new Date(Date.UTC(2026, 10, 23, 8, 0, seq)).toISOString(),
    edited_at: null,
    deleted_at: null,
    ...change,
  }
}
