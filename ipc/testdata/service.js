'use strict'
// A service in JSON or msgpack, written from the description of the wire:
//   node service.js SOCKET NAME ENCODING
// It answers echo, relay (which calls on to params.to with the extended context) and
// whoami. Each line on its input is a call {to, method, params}; it prints one line for
// each, and at once those the gateway sends on its own.
const net = require('net')
const [path, name, encoding] = process.argv.slice(2)

const pack = (v) => {
  if (v === undefined) return Buffer.from([0xd4, 0, 0])
  if (v === null) return Buffer.from([0xc0])
  if (typeof v === 'boolean') return Buffer.from([v ? 0xc3 : 0xc2])
  if (typeof v === 'number') {
    if (Number.isInteger(v) && v >= 0 && v < 128) return Buffer.from([v])
    if (Number.isInteger(v) && v >= -(2 ** 31) && v < 2 ** 31) {
      const b = Buffer.alloc(5)
      b[0] = 0xd2
      b.writeInt32BE(v, 1)
      return b
    }
    const b = Buffer.alloc(9)
    b[0] = 0xcb
    b.writeDoubleBE(v, 1)
    return b
  }
  if (typeof v === 'string') {
    const text = Buffer.from(v)
    return Buffer.concat([text.length < 32 ? Buffer.from([0xa0 | text.length]) : Buffer.from([0xda, text.length >> 8, text.length & 255]), text])
  }
  const items = Array.isArray(v) ? v : Object.entries(v).flat(1)
  const n = Array.isArray(v) ? v.length : Object.keys(v).length
  return Buffer.concat([Buffer.from([Array.isArray(v) ? 0xdc : 0xde, n >> 8, n & 255]), ...items.map(pack)])
}
const unpack = (b) => {
  let at = 0
  const items = (n) => Array.from({ length: n }, read)
  const map = (n) => Object.fromEntries(Array.from({ length: n }, () => [read(), read()]).filter(([, v]) => v !== undefined))
  const take = (n) => b.subarray(at, (at += n))
  function read () {
    const c = take(1)[0]
    if (c < 0x80) return c
    if (c < 0x90) return map(c & 15)
    if (c < 0xa0) return items(c & 15)
    if (c < 0xc0) return take(c & 31).toString()
    if (c >= 0xe0) return c - 256
    switch (c) {
      case 0xc0: return null
      case 0xc2: return false
      case 0xc3: return true
      case 0xca: return take(4).readFloatBE()
      case 0xcb: return take(8).readDoubleBE()
      case 0xcc: return take(1)[0]
      case 0xcd: return take(2).readUInt16BE()
      case 0xce: return take(4).readUInt32BE()
      case 0xcf: return take(8).readBigUInt64BE() // as the old clients have it
      case 0xd0: return take(1).readInt8()
      case 0xd1: return take(2).readInt16BE()
      case 0xd2: return take(4).readInt32BE()
      case 0xd3: return take(8).readBigInt64BE()
      case 0xd4: take(2); return undefined
      case 0xd9: return take(take(1)[0]).toString()
      case 0xda: return take(take(2).readUInt16BE()).toString()
      case 0xdb: return take(take(4).readUInt32BE()).toString()
      case 0xdc: return items(take(2).readUInt16BE())
      case 0xdd: return items(take(4).readUInt32BE())
      case 0xde: return map(take(2).readUInt16BE())
      case 0xdf: return map(take(4).readUInt32BE())
    }
    throw new Error('byte ' + c)
  }
  const v = read()
  if (at !== b.length) throw new Error('bytes behind the message')
  return v
}
const encode = encoding === 'msgpack' ? pack : (m) => Buffer.from(JSON.stringify(m))
const decode = encoding === 'msgpack' ? unpack : (b) => JSON.parse(b.toString())

const socket = net.connect(path)
const send = (m) => {
  const body = encode(m)
  const head = Buffer.alloc(4)
  head.writeUInt32BE(body.length)
  socket.write(Buffer.concat([head, body]))
}
const say = (v) => console.log(JSON.stringify(v))
const waiting = new Map()
let last = 0
const call = (to, method, params, outer) => new Promise((resolve) => {
  const id = `req-${Date.now()}-${String(++last).padStart(6, '0')}`
  const base = outer ?? { root: `root-${Date.now()}-000000`, chain: [name], depth: 1, deadline: Date.now() + 30000 }
  // The old clients extend a first context too.
  const context = { root: base.root, chain: [...base.chain, name], depth: base.depth + 1, deadline: base.deadline }
  waiting.set(id, resolve)
  send({ type: 'CALL', id, from: name, to, method, params, context })
})
const methods = {
  echo: async (params) => params,
  whoami: async (params, context) => ({ name, context }),
  relay: async (params, context) => {
    const r = await call(params.to, params.method, params.params, context)
    if (r.status !== 'success') throw Object.assign(new Error(r.error.message), { code: r.error.code })
    return r.data
  }
}
const handle = async (m) => {
  if (m.type === 'REGISTER_ACK') return say({ registered: true })
  if (m.type === 'ERROR') return say({ gateway: m.error.code, message: m.error.message })
  if (m.type === 'RESPONSE') {
    const resolve = waiting.get(m.id)
    waiting.delete(m.id)
    return resolve?.(m)
  }
  if (m.type !== 'CALL') return say({ unknown: m.type })
  const answer = { type: 'RESPONSE', id: m.id, from: m.to, to: m.from }
  try {
    if (!methods[m.method]) throw Object.assign(new Error(`Method '${m.method}' not found`), { code: 'METHOD_NOT_FOUND' })
    const data = await methods[m.method](m.params, m.context)
    send({ ...answer, status: 'success', data, context: m.context })
  } catch (e) {
    send({ ...answer, status: 'error', error: { message: e.message, code: e.code, stack: e.stack }, context: m.context })
  }
}
let buffer = Buffer.alloc(0)
socket.on('connect', () => send({ type: 'REGISTER', serviceName: name, methods: Object.keys(methods), version: '1.0.0', metadata: {} }))
socket.on('data', (chunk) => {
  buffer = Buffer.concat([buffer, chunk])
  while (buffer.length >= 4 && buffer.length >= 4 + buffer.readUInt32BE(0)) {
    const end = 4 + buffer.readUInt32BE(0)
    handle(decode(buffer.subarray(4, end)))
    buffer = buffer.subarray(end)
  }
})
socket.on('error', (e) => say({ error: e.message }))
socket.on('close', () => process.exit(0))
require('readline').createInterface({ input: process.stdin }).on('line', async (line) => {
  const { to, method, params } = JSON.parse(line)
  const r = await call(to, method, params)
  say(r.status === 'success' ? { data: r.data } : { code: r.error.code, message: r.error.message })
}).on('close', () => socket.end())
