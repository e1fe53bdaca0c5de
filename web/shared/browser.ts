/** Small things of the browser that both faces need. */

/** localStorage, or null where it is forbidden (some private modes, blocked third-party storage). */
export function safeStorage(): Storage | null {
  try {
    localStorage.getItem('deskline:probe')
    return localStorage
  } catch {
    return null
  }
}

/** Black or white: whichever reads better on `color` (#rrggbb). WCAG 2.2 relative luminance. */
export function readableOn(color: string): '#ffffff' | '#101815' {
  const channels = [1, 3, 5].map((at) => {
    const value = Number.parseInt(color.slice(at, at + 2), 16) / 255
    return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4
  })
  const [red = 0, green = 0, blue = 0] = channels
  const luminance = 0.2126 * red + 0.7152 * green + 0.0722 * blue
  return (luminance + 0.05) / 0.05 > 1.05 / (luminance + 0.05) ? '#101815' : '#ffffff'
}

/** Whether the text is a colour of the form that `readableOn` takes. */
export function isHexColor(value: string): boolean {
  return /^#[0-9a-f]{6}$/i.test(value)
}
