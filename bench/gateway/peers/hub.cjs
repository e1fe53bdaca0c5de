// What the Node.js peers have in common: arguments, signatures, the Redis subscription.
const { createHmac } = require('node:crypto')
const Redis = require('ioredis')

const [port, redisPort, key, secret, prefix] = process.argv.slice(2)

/** Whether `auth` is the signature of a subscription. */
function isSigned(socketId, channel, auth) {
  const digest = createHmac('sha256', secret).update(`${socketId}:${channel}`).digest('hex')
  return auth === `${key}:${digest}`
}

/** The Redis side: counts who is in a channel, calls `deliver(channel, text)` for each event. */
class Hub {
  constructor(deliver) {
    this.counts = new Map()
    // without its check, which asks for INFO and may come after the first SUBSCRIBE
    this.redis = new Redis({
      host: '127.0.0.1',
      port: Number(redisPort),
      enableReadyCheck: false,
    })
    this.ready = new Promise((resolve) => this.redis.once('ready', resolve))
    this.redis.on('messageBuffer', (topic, payload) => {
      const channel = topic.toString('latin1').slice(prefix.length)
      deliver(channel, payload.subarray(payload.indexOf(10) + 1))
    })
  }

  /** Resolves when the channel's events flow. */
  join(channel) {
    const known = this.counts.get(channel)
    if (known) {
      known.count += 1
      return known.flowing
    }
    const flowing = this.redis.subscribe(prefix + channel)
    this.counts.set(channel, { count: 1, flowing })
    return flowing
  }

  leave(channel) {
    const known = this.counts.get(channel)
    if (known && --known.count === 0) {
      this.counts.delete(channel)
      this.redis.unsubscribe(prefix + channel)
    }
  }
}

module.exports = { Hub, isSigned, port: Number(port), BACKLOG: 4096 }
