package ipc

import (
	"errors"
	"slices"
	"sync/atomic"
	"time"

	"telford.dev/telford/internal/ipcwire"
)

// conn is one connection to a gateway.
type conn struct {
	pipe
	g    *Gateway
	peer Peer
	enc  atomic.Uint32 // an Encoding, Unknown until a message told
	seen atomic.Int64  // when the last message came, in milliseconds since 1970
	gone chan struct{} // closed when the connection has left

	// services are the names that the connection holds: written by its reader under the
	// gateway's mutex, read by others under it.
	services []*service
	left     bool // under the gateway's mutex

	// What follows belongs to the reader.
	env     ipcwire.Envelope
	now     time.Time
	dirty   []*conn // have something to write that the reader sent
	refused bool    // waits for the peer to close
	buf     []byte
}

// encoding is what the connection is answered in.
func (c *conn) encoding() Serializer {
	if enc := Serializer(c.enc.Load()); enc != ipcwire.Unknown {
		return enc
	}
	return c.g.cfg.Serializer
}

// keepBuffer is what a connection may hold on to after a large message.
const keepBuffer = 256 << 10

// serve reads until the end of the connection.
func (c *conn) serve() {
	defer c.g.wg.Done()
	defer c.g.leave(c)
	r := ipcwire.NewReader(c.nc, c.g.cfg.MaxFrame)
	for {
		if !r.Buffered() {
			c.flushDirty()
		}
		frame, err := r.Next()
		if errors.Is(err, ipcwire.ErrFrameTooLarge) {
			c.complain(ipcwire.Value{}, CodeDeserializationFailed, "Failed to deserialize message: "+err.Error(), ipcError)
			c.finish(time.Second)
		}
		if err != nil {
			c.flushDirty()
			return
		}
		if c.refused {
			continue
		}
		c.now = c.g.cfg.clock.Now()
		c.seen.Store(c.now.UnixMilli())
		c.handle(frame)
		if cap(c.buf) > keepBuffer {
			c.buf = nil
		}
	}
}

// post sends frames to d, to be written when no whole message is left to be read.
func (c *conn) post(d *conn, frames []byte) error {
	if err := d.send(frames); err != nil {
		return err
	}
	if !slices.Contains(c.dirty, d) {
		if len(c.dirty) >= 32 {
			c.flushDirty()
		}
		c.dirty = append(c.dirty, d)
	}
	return nil
}

func (c *conn) flushDirty() {
	for i, d := range c.dirty {
		d.flush()
		c.dirty[i] = nil
	}
	c.dirty = c.dirty[:0]
}

// The names that stand before the text of a failure in the field stack.
const (
	ipcError  = "IPCError"
	typeError = "TypeError"
)

// handle takes one message, in the order of checks that the wire's clients know.
func (c *conn) handle(frame []byte) {
	body := frame[ipcwire.HeaderSize:]
	if Serializer(c.enc.Load()) == ipcwire.Unknown {
		if enc := ipcwire.Detect(body); enc != ipcwire.Unknown {
			c.enc.Store(uint32(enc))
		}
	}
	e := &c.env
	if err := e.Scan(body, c.encoding()); err != nil {
		c.complain(ipcwire.Value{}, CodeDeserializationFailed, "Failed to deserialize message: "+err.Error(), ipcError)
		return
	}
	switch e.Root {
	case ipcwire.Object, ipcwire.Array, ipcwire.Binary, ipcwire.Time:
	default:
		c.complain(ipcwire.Value{}, CodeInvalidMessage, "Message is not an object", ipcError)
		return
	}
	if !e.Type.Truthy() {
		c.complain(e.ID, CodeInvalidMessage, `Message missing "type" field`, ipcError)
		return
	}
	switch string(e.Type.Text) {
	case ipcwire.TypeCall:
		c.call(frame)
	case ipcwire.TypeResponse:
		c.response(frame)
	case ipcwire.TypeHeartbeat: // that it came was noted
	case ipcwire.TypeRegister:
		c.register()
	default:
		c.complain(e.ID, CodeInvalidMessage, "Unknown message type: "+e.Type.Shown(), ipcError)
	}
}

// complain sends an ERROR about the message with the given id to its sender.
func (c *conn) complain(id ipcwire.Value, code Code, message, stack string) {
	c.buf = ipcwire.AppendError(c.buf[:0], c.encoding(), id, string(code), message, stack, c.g.cfg.clock.Now().UnixMilli())
	_ = c.post(c, c.buf) // a connection that is closed learns nothing more
	if c.g.logs() {
		c.g.log("message refused", map[string]any{"code": code, "message": message})
	}
}

// leave takes a connection out of everything, closes it and tells those who wait for
// its answers.
func (g *Gateway) leave(c *conn) {
	g.mu.Lock()
	if c.left {
		g.mu.Unlock()
		return
	}
	c.left = true
	delete(g.conns, c)
	close(c.gone)
	var owed []flight
	var gone []string
	for _, s := range c.services {
		calls, last := s.remove(c)
		owed = append(owed, calls...)
		if last && g.services[s.name] == s {
			delete(g.services, s.name)
			gone = append(gone, s.name)
		}
	}
	stopping := g.stopping
	g.mu.Unlock()
	c.close()
	for _, f := range owed {
		f.fail(CodeConnectionLost, "Connection to service '"+f.to+"' was lost; whether the call was done is not known")
	}
	if stopping {
		return
	}
	for _, name := range gone {
		g.disconnected(name)
	}
}

// fail answers a call that its target will not answer.
func (f *flight) fail(code Code, message string) {
	if f.reply != nil {
		f.reply(answer{err: &Error{Code: code, Message: message, Target: f.to, RequestID: f.key.id}})
		return
	}
	d := f.destination()
	if d == nil {
		return
	}
	r := ipcwire.Reply{ID: f.key.id, From: f.to, To: f.key.from}
	if d.send(ipcwire.AppendFailure(nil, d.encoding(), r, string(code), message, ipcError+": "+message, nil)) == nil {
		d.flush()
	}
}
