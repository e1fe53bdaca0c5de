// A real pusher-js client for test_pusher_js.py: one JSON line on stdout for whatever happens.
// Arguments: port, key, channel, secret (to sign the subscription as the web process would).
// Lines of JSON on stdin tell it to do more: {"do": "signin" | "trigger" | "subscribe", …}.
const { createHmac } = require("node:crypto");
const { createInterface } = require("node:readline");
const Pusher = require("pusher-js");

const [port, key, channelName, secret] = process.argv.slice(2);
const say = (what, more) => process.stdout.write(JSON.stringify({ what, ...more }) + "\n");
const sign = (text) => `${key}:${createHmac("sha256", secret).update(text).digest("hex")}`;
let userData = "";

const pusher = new Pusher(key, {
  cluster: "",
  wsHost: "127.0.0.1",
  wsPort: Number(port),
  forceTLS: false,
  enabledTransports: ["ws"],
  disableStats: true,
  channelAuthorization: {
    customHandler: ({ socketId, channelName: name }, callback) => {
      callback(null, { auth: sign(`${socketId}:${name}`) });
    },
  },
  userAuthentication: {
    customHandler: ({ socketId }, callback) =>
      callback(null, { auth: sign(`${socketId}::user::${userData}`), user_data: userData }),
  },
});

pusher.connection.bind("state_change", ({ current }) => say("state", { state: current }));
pusher.connection.bind("error", (error) => say("error", { code: (error.data ?? error.error?.data)?.code ?? null }));
pusher.bind("pusher:signin_success", () => say("signed in"));
pusher.user.bind("note", (data) => say("note", { data }));
const channel = pusher.subscribe(channelName);
channel.bind("pusher:subscription_succeeded", () => say("subscribed"));
channel.bind("pusher:subscription_error", (error) => say("refused", { status: error.status }));
channel.bind("message.created", (data) => say("event", { data }));
channel.bind("client-typing", (data) => say("typing", { data }));

const tasks = {
  signin: ({ user }) => {
    userData = JSON.stringify({ id: user });
    pusher.signin();
  },
  trigger: ({ event, data }) => channel.trigger(event, data),
  subscribe: ({ channel: name }) => {
    const other = pusher.subscribe(name);
    other.bind("pusher:subscription_succeeded", () => say("subscribed too", { name }));
    other.bind("pusher:cache_miss", () => say("cache miss", { name }));
    other.bind("price", (data) => say("price", { data }));
  },
};
const input = createInterface({ input: process.stdin });
input.on("line", (line) => {
  const task = JSON.parse(line);
  tasks[task.do](task);
});
// The test ends us by closing our input; should it die, we do not stay.
input.on("close", () => process.exit(0));
setTimeout(() => process.exit(3), 60_000);
