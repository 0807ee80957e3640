package ipc

import (
	"context"
	"errors"
	"net"
	"time"

	"telford.dev/telford/internal/ipcwire"
)

// How long connecting and registering may take.
const (
	connectTimeout  = 10 * time.Second
	registerTimeout = 5 * time.Second
)

// link is one connection of a client. Its goroutine is Client.keep.
type link struct {
	pipe
	c     *Client
	place int
	in    *ipcwire.Reader
	env   ipcwire.Envelope
	acked bool   // the reader has seen the acknowledgement
	no    *Error // the refusal that came in its place

	// Under the client's mutex.
	registered bool
	updates    bool // the gateway takes another REGISTER on this connection
	told       int  // the version of the methods that it was told last
}

// connect makes the connection for a place in the pool and registers on it.
func (c *Client) connect(ctx context.Context, place int) (*link, error) {
	fail := func(err error) error { return Errorf(CodeConnectionFailed, "Failed to connect: %w", err) }
	dial, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	nc, err := new(net.Dialer).DialContext(dial, "unix", c.cfg.GatewayPath)
	if err != nil {
		return nil, fail(err)
	}
	l := &link{c: c, place: place, pipe: pipe{nc: nc.(*net.UnixConn), bound: 64 << 20, wg: &c.wg}}
	l.in = ipcwire.NewReader(l.nc, MaxFrame)
	c.mu.Lock()
	c.links[place] = l
	c.mu.Unlock()
	if err := l.register(ctx); err != nil {
		c.lost(l)
		return nil, fail(err)
	}
	c.mu.Lock()
	l.registered, l.updates = true, l.env.Updates.Present()
	c.up++
	first := c.up == 1
	c.mu.Unlock()
	c.log("registered", map[string]any{"place": place})
	if c.cfg.Events.Registered != nil {
		c.cfg.Events.Registered()
	}
	if first && c.cfg.Events.Connected != nil {
		c.cfg.Events.Connected()
	}
	// A method that was added while the list was on its way is told now.
	c.announce()
	return l, nil
}

// register sends what the service is and waits for the acknowledgement.
func (l *link) register(ctx context.Context) error {
	limit := time.Now().Add(registerTimeout)
	if d, ok := ctx.Deadline(); ok && d.Before(limit) {
		limit = d
	}
	_ = l.nc.SetReadDeadline(limit) // on a closed connection reading fails anyway
	stop := context.AfterFunc(ctx, func() { _ = l.nc.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := l.send(l.registration()); err != nil {
		return err
	}
	l.flush()
	for !l.acked {
		frame, err := l.in.Next()
		var timeout net.Error
		switch {
		case err == nil:
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.As(err, &timeout) && timeout.Timeout():
			return errors.New("Registration timeout")
		default:
			return err
		}
		l.handle(frame)
		if l.no != nil {
			return l.no
		}
	}
	if !stop() {
		return context.Cause(ctx)
	}
	_ = l.nc.SetReadDeadline(time.Time{}) // likewise
	return nil
}

// registration is the REGISTER, with the methods that there are now.
func (l *link) registration() []byte {
	c := l.c
	c.mu.Lock()
	l.told = c.version
	methods := c.names()
	c.mu.Unlock()
	return ipcwire.AppendRegister(nil, c.cfg.Serializer, ipcwire.Register{
		Name: c.cfg.ServiceName, Version: "1.0.0", Methods: methods,
		PoolIndex: l.place, PoolSize: c.cfg.PoolSize, Updates: true,
	})
}

// announce registers again, where the gateway takes it and does not know the methods.
func (c *Client) announce() {
	for _, l := range c.live() {
		c.mu.Lock()
		tell := l.registered && l.updates && l.told != c.version
		c.mu.Unlock()
		if tell && l.send(l.registration()) == nil {
			l.flush()
		}
	}
}

// read takes messages until the connection ends.
func (l *link) read() {
	for {
		frame, err := l.in.Next()
		if err != nil {
			return
		}
		l.handle(frame)
	}
}

// handle takes one message. One that cannot be decoded is skipped.
func (l *link) handle(frame []byte) {
	c := l.c
	e := &l.env
	body := frame[ipcwire.HeaderSize:]
	enc := ipcwire.Detect(body)
	if err := e.Scan(body, enc); err != nil {
		c.trouble(Errorf(CodeDeserializationFailed, "Failed to deserialize message: %w", err))
		return
	}
	switch string(e.Type.Text) {
	case ipcwire.TypeResponse:
		c.answered(e)
	case ipcwire.TypeCall:
		c.called(l, e)
	case ipcwire.TypeRegisterAck:
		l.acked = true
	case ipcwire.TypeError:
		err := readFailure(e.Error, enc)
		err.RequestID = string(e.ID.Text)
		if !l.acked {
			l.no = err
		}
		if c.cfg.Events.GatewayError != nil {
			c.cfg.Events.GatewayError(err)
		}
		if c.logs() {
			c.log("gateway error", map[string]any{"code": err.Code, "message": err.Message})
		}
	default:
		if c.logs() {
			c.log("unknown message type", map[string]any{"type": e.Type.Shown()})
		}
	}
}
