'use strict'
// A gateway in JSON, written from the description of the wire. It knows nothing that
// the oldest gateways do not: no answers for the dead, no updates of registrations.
const net = require('net')
const services = new Map()
const owner = new Map()
const frame = (m) => {
  const body = Buffer.from(JSON.stringify(m))
  const head = Buffer.alloc(4)
  head.writeUInt32BE(body.length)
  return Buffer.concat([head, body])
}
const server = net.createServer((socket) => {
  let buffer = Buffer.alloc(0)
  const fail = (m, code, message) => socket.write(frame({ type: 'ERROR', id: m.id, error: { message, code, stack: 'IPCError: ' + message }, timestamp: Date.now() }))
  socket.on('data', (chunk) => {
    buffer = Buffer.concat([buffer, chunk])
    while (buffer.length >= 4 && buffer.length >= 4 + buffer.readUInt32BE(0)) {
      const end = 4 + buffer.readUInt32BE(0)
      const m = JSON.parse(buffer.subarray(4, end).toString())
      buffer = buffer.subarray(end)
      if (m.type === 'REGISTER') {
        if (services.has(m.serviceName)) {
          const message = `Service '${m.serviceName}' is already registered`
          socket.end(frame({ type: 'ERROR', error: { message, code: 'CONNECTION_FAILED' } }))
          continue
        }
        services.set(m.serviceName, socket)
        owner.set(socket, m.serviceName)
        socket.write(frame({ type: 'REGISTER_ACK' }))
      } else if (m.type === 'CALL') {
        if (Date.now() > m.context.deadline) fail(m, 'DEADLINE_EXCEEDED', 'Request deadline exceeded')
        else if (m.context.depth > 100) fail(m, 'MAX_DEPTH_EXCEEDED', 'Maximum call depth exceeded')
        else if (!services.has(m.to)) fail(m, 'SERVICE_NOT_FOUND', `Target service '${m.to}' not found`)
        else services.get(m.to).write(frame(m))
      } else if (m.type === 'RESPONSE') {
        if (services.has(m.to)) services.get(m.to).write(frame(m))
      }
    }
  })
  socket.on('error', () => {})
  socket.on('close', () => services.delete(owner.get(socket)))
})
server.listen(process.argv[2], () => console.log('ready'))
process.stdin.on('end', () => process.exit(0)).resume()
