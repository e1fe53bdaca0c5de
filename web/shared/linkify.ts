/** Splits a message into text and web links. Only http and https, so that no message can carry a script address. */
export interface Segment {
  text: string
  href: string | null
}

const LINK = /https?:\/\/[^\s<>"'`{}|\\^]+/gi
/** Punctuation that ends a sentence rather than an address, in both languages. */
const TRAILING = /[.,;:!?)\]}、。，；：！？）】」』]+$/u

export function linkify(body: string): Segment[] {
  const segments: Segment[] = []
  let at = 0
  for (const match of body.matchAll(LINK)) {
    const link = match[0].replace(TRAILING, '')
    if (!URL.canParse(link)) continue
    if (match.index > at) segments.push({ text: body.slice(at, match.index), href: null })
    segments.push({ text: link, href: link })
    at = match.index + link.length
  }
  if (at < body.length) segments.push({ text: body.slice(at), href: null })
  return segments
}
