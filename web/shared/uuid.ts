/**
 * A random UUID (RFC 9562, version 4). `crypto.randomUUID` exists in secure contexts only: not on a page that came
 * by plain http from another host than localhost, where random values are available all the same.
 */
export function randomUuid(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16))
  bytes.forEach((byte, index) => {
    if (index === 6) bytes[index] = (byte & 0x0f) | 0x40
    if (index === 8) bytes[index] = (byte & 0x3f) | 0x80
  })
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('')
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5')
}
