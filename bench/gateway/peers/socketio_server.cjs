// The socket.io peer: rooms, `io.to(room).emit` for each event, WebSocket as the only transport.
const { createServer } = require('node:http')
const { Server } = require('socket.io')
const { Hub, isSigned, port, BACKLOG } = require('./hub.cjs')

const server = createServer()
const io = new Server(server, { transports: ['websocket'], perMessageDeflate: false })
const hub = new Hub((channel, text) => io.to(channel).emit('bench', text.toString()))

io.on('connection', (socket) => {
  let joined
  socket.on('subscribe', async ({ channel, auth }) => {
    if (!isSigned(socket.id, channel, auth)) return
    joined = channel
    socket.join(channel)
    await hub.join(channel)
    socket.emit('subscription_succeeded', channel)
  })
  socket.on('disconnect', () => {
    if (joined) hub.leave(joined)
  })
})

hub.ready.then(() => server.listen({ host: '127.0.0.1', port, backlog: BACKLOG }))
