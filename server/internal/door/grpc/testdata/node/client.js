// A service in Node: it holds a session over telford.v1.Session/Open, answers calls and
// streams, and calls another service by plain gRPC. It writes one JSON object a line.
'use strict';

const fs = require('node:fs');
const grpc = require('@grpc/grpc-js');
const loader = require('@grpc/proto-loader');

const env = process.env;
const report = (event, fields = {}) => process.stdout.write(JSON.stringify({ event, ...fields }) + '\n');

const definition = loader.loadSync('telford/v1/session.proto', {
  includeDirs: [env.PROTO_DIR], keepCase: true, longs: String, enums: String, oneofs: true, defaults: true,
});
const { Session } = grpc.loadPackageDefinition(definition).telford.v1;
const credentials = grpc.credentials.createSsl(fs.readFileSync(env.CA_FILE));
const metadata = () => {
  const m = new grpc.Metadata();
  m.set('authorization', 'Bearer ' + env.TELFORD_KEY);
  return m;
};

const client = new Session(env.TELFORD_SERVER, credentials);
const stream = client.Open(metadata());
const say = (kind, value) => stream.write({ [kind]: value });
const json = (value) => Buffer.from(JSON.stringify(value));
let received = 0; // the highest command, for acknowledgements
const waiting = new Map(); // calls of ours by number

function handle(call) {
  const seq = call.seq;
  if (call.stream) {
    const { n } = JSON.parse(call.body.toString());
    for (let i = 0; i < n; i++) say('chunk', { seq, body: json({ i }) });
    say('result', { seq, content_type: 'json', trailers: [{ key: 'count', value: Buffer.from(String(n)) }] });
    return;
  }
  received = Math.max(received, Number(seq));
  if (call.method === 'fail') {
    say('result', { seq, status: { code: 'handler', grpc_code: 9, message: 'node says no' } });
    return;
  }
  say('result', { seq, content_type: 'json', body: json({ echo: JSON.parse(call.body.toString()), caller: call.caller_service }) });
}

stream.on('data', (m) => {
  switch (m.message) {
    case 'hello_ack':
      report('hello', { instance: m.hello_ack.instance, resumed: m.hello_ack.resumed, namespace: m.hello_ack.namespace });
      say('register', {
        service: 'node', status: 'INSTANCE_STATUS_OK', sdk: 'node ' + process.version,
        methods: [
          { name: 'echo', kind: 'METHOD_KIND_UNARY', content_types: ['json'] },
          { name: 'fail', kind: 'METHOD_KIND_UNARY', content_types: ['json'] },
          { name: 'count', kind: 'METHOD_KIND_SERVER_STREAM', content_types: ['json'] },
        ],
      });
      break;
    case 'registered':
      report('registered', { refused: m.registered.refused && m.registered.refused.message });
      say('watch', { services: ['payments'] });
      break;
    case 'watch':
      report('watch', { snapshot: m.watch.snapshot, instances: m.watch.upserts.map((i) => i.id) });
      break;
    case 'revocation':
      report('revocation', { snapshot: m.revocation.snapshot });
      break;
    case 'ping':
      say('pong', { id: m.ping.id });
      say('ack', { commands: received });
      break;
    case 'call':
      handle(m.call);
      break;
    case 'result': {
      const done = waiting.get(m.result.seq);
      waiting.delete(m.result.seq);
      if (done) done(m.result);
      break;
    }
    case 'drain':
      report('drain', { reason: m.drain.reason });
      break;
    default:
      break;
  }
});
stream.on('error', (e) => report('error', { code: e.code, details: e.details }));
stream.on('end', () => { report('end'); client.close(); plain.close(); });

// Plain gRPC: any client, any codec; the bytes are ours.
const bytes = (b) => b;
const plain = new grpc.Client(env.TELFORD_SERVER, credentials);
function unary(method, service, body) {
  const m = metadata();
  m.set('telford-service', service);
  m.set('x-from', 'node');
  return new Promise((resolve) => {
    let trailers = {};
    const call = plain.makeUnaryRequest(method, bytes, bytes, body, m, { deadline: Date.now() + 5000 }, (e, answer) => {
      setImmediate(() => resolve({
        code: e ? e.code : 0, details: e ? e.details : '', body: answer ? answer.toString() : '', trailers,
      }));
    });
    call.on('status', (s) => { trailers = s.metadata.getMap(); });
  });
}
function serverStream(method, service, body) {
  const m = metadata();
  m.set('telford-service', service);
  return new Promise((resolve) => {
    const got = [];
    const call = plain.makeServerStreamRequest(method, bytes, bytes, body, m, { deadline: Date.now() + 5000 });
    call.on('data', (b) => got.push(b.toString()));
    call.on('error', (e) => resolve({ code: e.code, details: e.details, got }));
    call.on('end', () => resolve({ code: 0, got }));
  });
}

// The test says what to do, one JSON object a line.
let next = 1;
const lines = require('node:readline').createInterface({ input: process.stdin });
lines.on('line', async (line) => {
  const command = JSON.parse(line);
  switch (command.do) {
    case 'unary':
      report('unary', await unary(command.method, command.service, Buffer.from(command.body)));
      break;
    case 'stream':
      report('stream', await serverStream(command.method, command.service, Buffer.from(command.body)));
      break;
    case 'session': {
      const seq = String(next++);
      waiting.set(seq, (r) => report('session', { status: r.status && r.status.code, body: r.body.toString() }));
      say('call', { seq, service: command.service, method: command.method, content_type: 'json', body: Buffer.from(command.body), timeout_us: 5000000 });
      break;
    }
    case 'bye':
      say('goodbye', { reason: 'done' });
      break;
    default:
      report('error', { details: 'unknown command ' + line });
  }
});
lines.on('close', () => { stream.cancel(); });

say('hello', { instance: 'node-1', service: 'node', sdk: 'node ' + process.version });
