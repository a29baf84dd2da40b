// Node's ws as a service and as a client: websocket.mjs serve | talk URL TOKEN
// The service echoes messages; it ends with its standard input. The client prints one line for each check.
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { WebSocket, WebSocketServer } from "ws";

const [mode, url, token] = process.argv.slice(2);
if (mode === "serve") {
  const server = new WebSocketServer({ port: 0, host: "127.0.0.1", perMessageDeflate: true });
  server.on("connection", (socket) =>
    socket.on("message", (data, binary) => socket.send(data, { binary })));
  server.on("listening", () => console.log(server.address().port));
  process.stdin.on("data", () => {}).on("end", () => process.exit(0));
} else {
  const socket = new WebSocket(url, ["bearer", token]);
  await once(socket, "open");
  console.log("protocol", socket.protocol, socket.protocol === "bearer" ? "ok" : "differs");
  console.log("extensions", socket.extensions, "ok");
  for (const [name, message] of [
    ["text", Buffer.from("grüße")],
    ["binary", randomBytes(1 << 20)],
    ["repetitive", Buffer.alloc(1 << 20, "a")],
  ]) {
    socket.send(message, { binary: name !== "text" });
    const [data, binary] = await once(socket, "message");
    console.log(name, data.equals(message) && binary === (name !== "text") ? "ok" : "differs");
  }
  socket.send("a frag", { fin: false });
  socket.send("mented message", { fin: true });
  console.log("fragments", String((await once(socket, "message"))[0]) === "a fragmented message" ? "ok" : "differs");
  socket.ping("p");
  console.log("ping", String((await once(socket, "pong"))[0]) === "p" ? "ok" : "differs");
  socket.close(3001, "done");
  const [code, reason] = await once(socket, "close");
  console.log("close", code, code === 3001 && String(reason) === "done" ? "ok" : "differs");
  const refused = new WebSocket(url);
  const [, answer] = await once(refused, "unexpected-response");
  console.log("anonymous", answer.statusCode === 401 ? "ok" : "differs");
  process.exit(0);
}
