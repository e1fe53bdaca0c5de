// A real pusher-js client for test_pusher_js.py: one JSON line on stdout for whatever happens.
// Arguments: port, key, channel, secret (to sign the subscription as the web process would).
const { createHmac } = require("node:crypto");
const Pusher = require("pusher-js");

const [port, key, channelName, secret] = process.argv.slice(2);
const say = (what, more) => process.stdout.write(JSON.stringify({ what, ...more }) + "\n");

const pusher = new Pusher(key, {
  cluster: "",
  wsHost: "127.0.0.1",
  wsPort: Number(port),
  forceTLS: false,
  enabledTransports: ["ws"],
  disableStats: true,
  channelAuthorization: {
    customHandler: ({ socketId, channelName: name }, callback) => {
      const signature = createHmac("sha256", secret).update(`${socketId}:${name}`).digest("hex");
      callback(null, { auth: `${key}:${signature}` });
    },
  },
});

pusher.connection.bind("state_change", ({ current }) => say("state", { state: current }));
pusher.connection.bind("error", (error) => say("error", { code: (error.data ?? error.error?.data)?.code ?? null }));
const channel = pusher.subscribe(channelName);
channel.bind("pusher:subscription_succeeded", () => say("subscribed"));
channel.bind("pusher:subscription_error", (error) => say("refused", { status: error.status }));
channel.bind("message.created", (data) => say("event", { data }));

// The test ends us by closing our input; should it die, we do not stay.
process.stdin.on("end", () => process.exit(0)).resume();
setTimeout(() => process.exit(3), 60_000);
