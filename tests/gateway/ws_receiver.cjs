// The frame reader of Node's ws for test_oracles.py. Each line of stdin is a case, {chunks: [hex],
// limit: bytes}; each line of stdout is what ws made of it, {items: [[opcode, hex]], code}.
const { createInterface } = require("node:readline");
const { Receiver } = require("ws");

function read({ chunks, limit }) {
  return new Promise((resolve) => {
    const items = [];
    let code = null;
    const receiver = new Receiver({ isServer: true, maxPayload: limit });
    const note = (opcode) => (data) => items.push([opcode, data.toString("hex")]);
    receiver.on("message", (data, isBinary) => note(isBinary ? 2 : 1)(data));
    receiver.on("ping", note(9));
    receiver.on("pong", note(10));
    receiver.on("conclude", (status, reason) => {
      const head = Buffer.alloc(2);
      head.writeUInt16BE(status);
      note(8)(status === 1005 ? Buffer.alloc(0) : Buffer.concat([head, reason]));
    });
    receiver.on("error", (error) => {
      // ws keeps the close code of an error behind a symbol
      code = error[Object.getOwnPropertySymbols(error)[0]];
    });
    for (const chunk of chunks) {
      if (!receiver.writableEnded && !receiver.destroyed) receiver.write(Buffer.from(chunk, "hex"));
    }
    setImmediate(() => resolve({ items, code }));
  });
}

(async () => {
  for await (const line of createInterface({ input: process.stdin })) {
    process.stdout.write(JSON.stringify(await read(JSON.parse(line))) + "\n");
  }
})();
