// The Node.js `ws` peer: `send` for every delivery, of one Buffer for each event.
const { createServer } = require('node:http')
const { WebSocketServer } = require('ws')
const { Hub, isSigned, port, BACKLOG } = require('./hub.cjs')

const members = new Map()
let lastId = 0

const hub = new Hub((channel, text) => {
  for (const client of members.get(channel) ?? []) client.send(text, { binary: false })
})

const server = createServer()
const sockets = new WebSocketServer({ server, perMessageDeflate: false })

sockets.on('connection', (client) => {
  const id = `1.${++lastId}`
  let joined
  client.send(
    JSON.stringify({
      event: 'pusher:connection_established',
      data: JSON.stringify({ socket_id: id, activity_timeout: 120 }),
    }),
  )
  client.on('message', async (text) => {
    const { event, data } = JSON.parse(text)
    if (event !== 'pusher:subscribe' || !isSigned(id, data.channel, data.auth)) return
    joined = data.channel
    if (!members.has(joined)) members.set(joined, new Set())
    members.get(joined).add(client)
    await hub.join(joined)
    client.send(
      JSON.stringify({
        event: 'pusher_internal:subscription_succeeded',
        channel: joined,
        data: '{}',
      }),
    )
  })
  client.on('error', () => {})
  client.on('close', () => {
    if (!joined) return
    members.get(joined)?.delete(client)
    if (members.get(joined)?.size === 0) members.delete(joined)
    hub.leave(joined)
  })
})

hub.ready.then(() => server.listen({ host: '127.0.0.1', port, backlog: BACKLOG }))
