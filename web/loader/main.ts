/**
 * The launcher on the host page. It is on other people's pages: small, one global (`window.Deskline`), nothing
 * that their styles can reach (a shadow root), and the chat itself is loaded only when somebody wants it.
 */
import type { ToFrame, ToHost } from '../shared/frame-protocol'

interface Control {
  open: () => void
  close: () => void
  toggle: () => void
}

declare global {
  interface Window {
    Deskline?: Control
  }
}

const CSS = `
:host{all:initial}
*{box-sizing:border-box}
button,iframe{position:fixed;right:max(20px,env(safe-area-inset-right));border:0;z-index:2147483000}
button{bottom:max(20px,env(safe-area-inset-bottom));width:56px;height:56px;padding:0;border-radius:50%;background:var(--c,#0d6b58);color:var(--t,#fff);cursor:pointer;box-shadow:0 2px 6px rgb(0 0 0/.16),0 10px 28px -6px rgb(0 0 0/.38);transition:transform .16s}
button:hover{transform:translateY(-2px)}
button:focus-visible{outline:3px solid var(--c,#0d6b58);outline-offset:3px;box-shadow:0 0 0 3px #fff}
svg{position:absolute;inset:14px;width:28px;height:28px;fill:none;stroke:currentColor;stroke-width:2;stroke-linecap:round;stroke-linejoin:round;transition:opacity .16s,transform .16s}
.x,.o .b{opacity:0;transform:scale(.6) rotate(-20deg)}
.o .x{opacity:1;transform:none}
span{position:absolute;top:-4px;right:-4px;min-width:22px;height:22px;padding:0 6px;border-radius:11px;background:#b3261e;color:#fff;border:2px solid #fff;font:700 12px/18px system-ui,sans-serif;text-align:center}
[hidden]{display:none}
iframe{bottom:92px;width:390px;height:min(660px,100vh - 112px);border-radius:18px;background:#fff;color-scheme:light dark;box-shadow:0 4px 12px rgb(0 0 0/.1),0 24px 64px -12px rgb(0 0 0/.38);transition:opacity .18s,transform .18s}
iframe:not(.o){opacity:0;transform:translateY(10px);visibility:hidden;transition:opacity .18s,transform .18s,visibility 0s .18s}
@media(prefers-color-scheme:dark){iframe{background:#161b19}}
@media(max-width:480px){iframe{inset:0;width:100%;height:100%;border-radius:0}button.o{display:none}}
@media(prefers-reduced-motion:reduce){*{transition:none!important}}
`

const ICON =
  '<svg class="b" viewBox="0 0 28 28" aria-hidden="true"><path d="M8 4h12a5 5 0 0 1 5 5v7a5 5 0 0 1-5 5H3V9a5 5 0 0 1 5-5ZM9 10.5h10M9 15h6"/></svg>' +
  '<svg class="x" viewBox="0 0 28 28" aria-hidden="true"><path d="m7 11 7 7 7-7"/></svg>'

function start(script: HTMLScriptElement): void {
  const key = script.dataset['inbox']
  const base = new URL(script.src)
  // Two script tags by mistake make one launcher.
  if (!key || window.Deskline) return

  const seenKey = `deskline:${key}`
  const words = (count = 0): string[] =>
    /^zh/i.test(language() ?? navigator.language)
      ? ['開啟對話', '關閉對話', `，${count} 則未讀訊息`]
      : ['Open chat', 'Close chat', `, ${count} unread`]
  const language = (): string | null => script.dataset['lang'] ?? null

  const root = document.createElement('div')
  root.dataset['deskline'] = 'root'
  const shadow = root.attachShadow({ mode: 'open' })
  try {
    const sheet = new CSSStyleSheet()
    sheet.replaceSync(CSS)
    shadow.adoptedStyleSheets = [sheet]
  } catch {
    // Browsers before constructable style sheets (Safari < 16.4).
    shadow.append(Object.assign(document.createElement('style'), { textContent: CSS }))
  }

  const button = document.createElement('button')
  button.type = 'button'
  button.dataset['deskline'] = 'launcher'
  button.setAttribute('aria-haspopup', 'dialog')
  button.innerHTML = ICON
  const badge = document.createElement('span')
  badge.dataset['deskline'] = 'badge'
  badge.hidden = true
  badge.setAttribute('aria-hidden', 'true')
  button.append(badge)
  shadow.append(button)

  let frame: HTMLIFrameElement | null = null
  let ready = false
  let open = false
  let unread = 0

  function post(message: ToFrame): void {
    if (ready) frame?.contentWindow?.postMessage(message, base.origin)
  }

  function load(): void {
    if (frame) return
    frame = document.createElement('iframe')
    frame.dataset['deskline'] = 'frame'
    frame.title = words()[0] ?? ''
    frame.allow = 'clipboard-write'
    const address = new URL('/widget/', base)
    address.searchParams.set('inbox', key ?? '')
    address.searchParams.set('host', location.origin)
    const lang = language()
    if (lang) address.searchParams.set('lang', lang)
    frame.src = address.href
    shadow.append(frame)
  }

  function draw(): void {
    const [openLabel = '', closeLabel = '', unreadLabel = ''] = words(unread)
    button.setAttribute('aria-label', open ? closeLabel : openLabel + (unread ? unreadLabel : ''))
    button.setAttribute('aria-expanded', String(open))
    button.classList.toggle('o', open)
    frame?.classList.toggle('o', open)
    badge.hidden = open || unread === 0
    badge.textContent = unread > 99 ? '99+' : String(unread)
  }

  function setOpen(next: boolean): void {
    if (next === open) return
    open = next
    if (open) {
      load()
      try {
        localStorage.setItem(seenKey, '1')
      } catch {
        // Storage forbidden: the unread badge then waits for the next opening.
      }
    }
    draw()
    if (open) {
      frame?.focus()
      post({ deskline: 'open', language: language(), focus: true })
    } else {
      post({ deskline: 'close' })
      button.focus({ preventScroll: true })
    }
  }

  window.addEventListener('message', (event: MessageEvent<ToHost | null>) => {
    if (!frame || event.source !== frame.contentWindow || event.origin !== base.origin) return
    const message = event.data
    if (message?.deskline === 'ready') {
      ready = true
      post({
        deskline: 'init',
        open,
        page: { url: location.href, title: document.title, referrer: document.referrer },
        language: language(),
      })
    } else if (message?.deskline === 'unread') {
      unread = message.count
      draw()
    } else if (message?.deskline === 'appearance') {
      button.style.setProperty('--c', message.color)
      button.style.setProperty('--t', message.label)
    } else if (message?.deskline === 'close') setOpen(false)
  })
  window.addEventListener('keydown', (event) => {
    if (event.key === 'Escape' && open && !event.defaultPrevented) setOpen(false)
  })
  button.addEventListener('click', () => {
    setOpen(!open)
  })
  // The chat is on its way before the click lands.
  button.addEventListener('pointerenter', load, { once: true })

  const control: Control = {
    open: () => {
      setOpen(true)
    },
    close: () => {
      setOpen(false)
    },
    toggle: () => {
      setOpen(!open)
    },
  }
  window.Deskline = control

  const mount = (): void => {
    draw()
    document.body.append(root)
    let seen = false
    try {
      seen = localStorage.getItem(seenKey) !== null
    } catch {
      // Storage forbidden: treated as a first visit.
    }
    // Who has chatted before gets answers and the unread badge without opening.
    if (seen) setTimeout(load, 300)
  }
  if (document.readyState === 'loading') document.addEventListener('DOMContentLoaded', mount, { once: true })
  else mount()
}

if (document.currentScript instanceof HTMLScriptElement) start(document.currentScript)
