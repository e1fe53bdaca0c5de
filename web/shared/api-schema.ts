export interface components {
  schemas: {
    SenderRef: { id: number; name: string; avatar_url: string | null }
    UserRef: { id: number; name: string; avatar_url: string | null }
    InboxRef: { id: number; name: string }
    VisitorRef: { id: number; name: string | null; email: string | null }
    StreamSeqs: { public: number; staff: number }
    Message: {
      conversation_id: number
      stream: 'public' | 'staff'
      seq: number
      client_id: string
      sender_type: 'visitor' | 'agent' | 'system'
      sender: components['schemas']['SenderRef'] | null
      kind: 'text' | 'note' | 'file' | 'event'
      body: string
      attachments: unknown[]
      created_at: string
      edited_at: string | null
      deleted_at: string | null
    }
    VisitorContext: {
      language: string | null
      browser: string | null
      page: string | null
      referrer: string | null
      first_seen_at: string | null
      last_seen_at: string | null
    }
    Conversation: {
      id: number
      inbox: components['schemas']['InboxRef']
      visitor: components['schemas']['VisitorRef']
      status: 'open' | 'snoozed' | 'resolved'
      assignee: components['schemas']['UserRef'] | null
      last_seq: components['schemas']['StreamSeqs']
      read_seq: components['schemas']['StreamSeqs']
      unread: number
      visitor_read_seq: number
      staff_read_seq: number
      last_message: components['schemas']['Message'] | null
      created_at: string
      updated_at: string
      version: number
    }
    ConversationDetail: components['schemas']['Conversation'] & {
      visitor_context: components['schemas']['VisitorContext']
    }
    WidgetConversation: {
      id: number
      status: 'open' | 'snoozed' | 'resolved'
      assignee: components['schemas']['UserRef'] | null
      last_seq: number
      read_seq: number
      staff_read_seq: number
      unread: number
      created_at: string
    }
    Realtime: {
      key: string
      wsHost: string
      wsPort: number
      wssPort: number
      forceTLS: boolean
      authEndpoint: string
    }
    CurrentUser: { id: number; name: string; email: string; role: string; avatar_url: string | null }
    LoginAnswer: { user: components['schemas']['CurrentUser']; csrf_token: string }
    Me: {
      user: components['schemas']['CurrentUser']
      csrf_token: string
      realtime: components['schemas']['Realtime']
      inboxes: components['schemas']['InboxRef'][]
    }
    WidgetInbox: { id: number; name: string; greeting: string; color: string; languages: string[] }
    WidgetSession: {
      visitor_token: string
      visitor: { id: number; name: string | null }
      conversation: components['schemas']['WidgetConversation'] | null
      realtime: components['schemas']['Realtime']
      inbox: components['schemas']['WidgetInbox']
    }
    FirstMessageAnswer: {
      conversation: components['schemas']['WidgetConversation']
      message: components['schemas']['Message']
    }
    Problem: {
      type: string
      title: string
      status: number
      detail: string
      code: string
      errors?: { field: string; message: string }[]
      holder?: components['schemas']['UserRef']
    }
  }
}
