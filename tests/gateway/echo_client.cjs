// A real Laravel Echo over a real pusher-js for test_real_clients.py. Arguments: port, key, address
// of the endpoint that signs. Each line of stdin is a command, {do, …}; each line of stdout is
// something that happened, {what, …}.
const { dirname, join } = require("node:path");
const { createInterface } = require("node:readline");
const { pathToFileURL } = require("node:url");
const Pusher = require("pusher-js");

const [port, key, signer] = process.argv.slice(2);
const say = (what, more) => process.stdout.write(JSON.stringify({ what, ...more }) + "\n");

async function main() {
  // Echo's main file is CommonJS in a package of ES modules, so Node takes only the other one.
  const module = join(dirname(require.resolve("laravel-echo")), "echo.js");
  const { default: Echo } = await import(pathToFileURL(module));

  const echo = new Echo({
    broadcaster: "reverb",
    Pusher,
    key,
    wsHost: "127.0.0.1",
    wsPort: Number(port),
    forceTLS: false,
    enabledTransports: ["ws"],
    disableStats: true,
    authEndpoint: `${signer}/broadcasting/auth`,
    userAuthentication: { endpoint: `${signer}/broadcasting/user-auth`, headers: {} },
    bearerToken: process.env.ECHO_USER,
  });
  const pusher = echo.connector.pusher;
  pusher.connection.bind("state_change", ({ current }) => say("state", { state: current }));
  pusher.user.bind("notice", (data) => say("notice", { data }));

  const kinds = {
    public: (name) => echo.channel(name),
    private: (name) => echo.private(name),
    encrypted: (name) => echo.encryptedPrivate(name),
    presence: (name) => echo.join(name),
  };
  const channels = {};
  const commands = {
    join({ kind, name }) {
      const channel = (channels[name] = kinds[kind](name));
      channel.subscribed(() => say("subscribed", { name }));
      channel.error((error) => say("refused", { name, status: error?.status ?? null }));
      channel.listen("OrderShipped", (data) => say("event", { name, data }));
      channel.listen(".message.created", (data) => say("event", { name, data }));
      channel.notification((data) => say("notification", { name, data }));
      channel.listenForWhisper?.("typing", (data) => say("whisper", { name, data }));
      if (kind === "presence") {
        channel.here((members) => say("here", { members }));
        channel.joining((member) => say("joining", { member }));
        channel.leaving((member) => say("leaving", { member }));
      }
    },
    whisper: ({ name, data }) => channels[name].whisper("typing", data),
    leave: ({ name }) => echo.leave(name),
    signin() {
      pusher.bind("pusher:signin_success", (data) => say("signed-in", { data }));
      echo.connector.signin();
    },
    socket: () => say("socket", { id: echo.socketId() }),
  };

  const input = createInterface({ input: process.stdin });
  input.on("line", (line) => {
    const command = JSON.parse(line);
    commands[command.do](command);
  });
  // The test ends us by closing our input; should it die, we do not stay.
  input.on("close", () => process.exit(0));
  setTimeout(() => process.exit(3), 90_000);
}

main();
