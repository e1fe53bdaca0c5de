export default {
  connection: {
    connecting: 'Connecting…',
    online: 'Live',
    offline: 'Offline',
    offlineHelp: 'No live connection. Trying again by itself; what you send is kept until it gets through.',
    retryNow: 'Try now',
  },
  message: {
    sending: 'Sending…',
    sent: 'Sent',
    read: 'Read',
    failed: 'Not sent',
    retry: 'Try again',
    discard: 'Discard',
    deleted: 'This message was deleted',
    tooLong: 'Longer than {max} characters. Please shorten it.',
    refused: 'The server refused this message.',
    you: 'You',
    note: 'Note',
    received: 'New message from {name}: {body}',
  },
  day: {
    today: 'Today',
    yesterday: 'Yesterday',
    now: 'now',
  },
  action: {
    retry: 'Try again',
    close: 'Close',
  },
  language: {
    label: 'Language',
    en: 'English',
    zh: '繁體中文',
  },
}
