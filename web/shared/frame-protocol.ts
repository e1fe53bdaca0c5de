/** What the loader on the host page and the widget in its frame say to each other by postMessage. */

export type ToFrame =
  | { deskline: 'init'; open: boolean; page: { url: string; title: string; referrer: string }; language: string | null }
  | { deskline: 'open'; language: string | null; focus: boolean }
  | { deskline: 'close' }

export type ToHost =
  | { deskline: 'ready' }
  | { deskline: 'unread'; count: number }
  | { deskline: 'appearance'; color: string; label: string }
  | { deskline: 'close' }
