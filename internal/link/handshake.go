package link

import (
	"context"
	"net"
	"time"

	"google.golang.org/protobuf/proto"

	telfordv1 "telford.dev/telford/api/telford/v1"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/message"
)

// handshakeTime is how long the other end may take to say the first word.
const handshakeTime = 10 * time.Second

// Accept begins the accepting end of telford/1 on a handshaken connection: it says
// Accepted and starts to read.
func Accept(nc net.Conn, opt Options) (*Conn, error) {
	settings, err := proto.Marshal(&telfordv1.Settings{
		MaxFrame: MaxFrame, StreamWindow: StreamWindow, ConnectionWindow: ConnWindow,
		MaxPayload: message.MaxPayload, MaxNames: maxNames, MaxNameBytes: maxNameBytes,
	})
	if err != nil {
		return nil, errs.New(errs.Internal, "encode the settings: %w", err)
	}
	if err := sayFirst(nc, frameAccepted, settings); err != nil {
		return nil, err
	}
	c := newConn(nc, opt, false)
	c.dispatch(nil)
	return c, nil
}

// Refuse says why a connection is not accepted, and closes it.
func Refuse(nc net.Conn, e *errs.Error) error {
	defer nc.Close()
	return sayFirst(nc, frameRefused, appendStatus(nil, e))
}

func sayFirst(nc net.Conn, kind frameType, payload []byte) error {
	_ = nc.SetWriteDeadline(time.Now().Add(handshakeTime)) // a dead connection fails the write
	b := appendHeader(nil, kind, 0, 0, len(payload))
	if _, err := nc.Write(append(b, payload...)); err != nil {
		nc.Close()
		return lost(err)
	}
	_ = nc.SetWriteDeadline(time.Time{})
	return nil
}

// Dial begins the dialling end of telford/1 on a handshaken connection: it waits for
// the verdict of the acceptor. A refusal is returned as it was said.
func Dial(ctx context.Context, nc net.Conn, opt Options) (*Conn, error) {
	c := newConn(nc, opt, true)
	stop := context.AfterFunc(ctx, func() { _ = nc.SetReadDeadline(time.Unix(1, 0)) })
	_ = nc.SetReadDeadline(time.Now().Add(handshakeTime))
	h, p, err := c.in.next()
	if !stop() && ctx.Err() != nil {
		nc.Close()
		return nil, errs.From(ctx.Err()).In("link", "open a connection").Unstarted()
	}
	switch {
	case err != nil:
		nc.Close()
		return nil, lost(err).In("link", "open a connection").Unstarted()
	case h.kind == frameRefused:
		nc.Close()
		cur := cursor{p: p}
		e := cur.status()
		if cur.err != nil {
			return nil, cur.err
		}
		return nil, e.Unstarted()
	case h.kind != frameAccepted:
		nc.Close()
		return nil, protocolError("a frame of type %d where Accepted or Refused was due", h.kind)
	}
	var settings telfordv1.Settings
	if err := proto.Unmarshal(p, &settings); err != nil {
		nc.Close()
		return nil, protocolError("the acceptor's settings: %v", err)
	}
	_ = nc.SetReadDeadline(time.Time{})
	c.dispatch(nil) //nolint:contextcheck // inbound calls have contexts of their own, not the dialer's
	return c, nil
}
