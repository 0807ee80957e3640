package invoke

import (
	"context"
	"sync"

	"telford.dev/telford/internal/direct"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/message"
	"telford.dev/telford/internal/resilience"
)

// Stream is an open streaming call. It goes to one instance and is never retried; only
// an instance that refuses it unbegun is replaced by another.
type Stream struct {
	v     *Invoker
	ctx   context.Context
	r     *Route
	call  *Call
	known *resolved
	way   way

	cur   message.Stream
	peer  *direct.Peer // nil on the way through the runtime
	began bool
	end   sync.Once
}

// Stream opens a streaming call.
func (v *Invoker) Stream(ctx context.Context, r *Route, c *Call) (*Stream, error) {
	s := &Stream{v: v, ctx: ctx, r: r, call: c}
	for attempts := 1; ; attempts++ {
		err := s.open() //nolint:contextcheck // connections belong to the pool
		if err == nil {
			return s, nil
		}
		d := v.decide(c, err, attempts, true)
		if !d.Retry || v.wait(ctx, r, c, d.Delay) != nil {
			return nil, v.final(ctx, r, c, err)
		}
		s.way = way{}
	}
}

func (s *Stream) open() error {
	if s.call.Mode != Proxy {
		err := s.openDirect()
		if err == nil || s.call.Mode == Direct || !s.v.fallsBack(err) || !s.v.opt.Proxy.Available() {
			return err
		}
	}
	if err := s.v.checkProxy(s.call); err != nil {
		return err
	}
	s.r.throughRuntime(s.call)
	cur, err := s.v.opt.Proxy.Stream(s.ctx, &s.call.Call)
	if err != nil {
		return err
	}
	s.cur, s.peer = cur, nil
	return nil
}

func (s *Stream) openDirect() error {
	s.known = s.v.resolve(s.r, s.call.Target)
	if s.known.err != nil && s.known.err.Code == errs.NoInstance {
		if err := s.v.discover(s.ctx, s.r, s.call); err != nil && s.call.Mode == Direct {
			return errs.New(errs.NoInstance, "the runtime has not said where %s is: %w", s.r.key.service, err).Unstarted()
		}
		s.known = s.v.resolve(s.r, s.call.Target)
	}
	if s.known.err != nil {
		return s.known.err
	}
	s.known.directly(s.call)
	for {
		p, conn, err := s.v.pickPeer(s.ctx, s.call.Deadline, s.known, &s.way)
		if err != nil {
			return err
		}
		conn.Used()
		p.Load.Begin()
		cur, err := conn.Stream(s.ctx, &s.call.Call)
		if err == nil {
			s.cur, s.peer, s.call.Conn = cur, p, conn
			return nil
		}
		p.Load.End()
		e := errs.From(err)
		if !resilience.Repick(e) {
			return err
		}
		if e.Code == errs.Unavailable {
			p.Refused(conn)
		}
		s.way.try(p, err)
	}
}

// replace opens the stream elsewhere after a refusal; false when that is not allowed or
// not possible, and the refusal stands.
func (s *Stream) replace(err error) bool {
	e := errs.From(err)
	if s.began || s.peer == nil || !resilience.Repick(e) {
		return false
	}
	s.cur.Close()
	s.peer.Load.End()
	if e.Code == errs.Unavailable {
		s.peer.Refused(s.call.Conn)
	}
	s.way.try(s.peer, err)
	s.peer = nil
	return s.open() == nil
}

// Recv returns the next message; io.EOF after the orderly end.
func (s *Stream) Recv() ([]byte, error) {
	for {
		b, err := s.cur.Recv()
		if err == nil {
			s.began = true
			return b, nil
		}
		if s.replace(err) {
			continue
		}
		s.finish()
		return nil, err
	}
}

// Headers waits for the response headers.
func (s *Stream) Headers() ([]message.Pair, error) {
	for {
		h, err := s.cur.Headers()
		if err != nil && s.replace(err) {
			continue
		}
		return h, err
	}
}

// Trailers is what came with the end.
func (s *Stream) Trailers() []message.Pair { return s.cur.Trailers() }

// ContentType of the messages.
func (s *Stream) ContentType() message.ContentType { return s.cur.ContentType() }

// Conn is the direct connection it came by, nil through the runtime.
func (s *Stream) Conn() *direct.Conn { return s.call.Conn }

// Close ends the stream early, end to end.
func (s *Stream) Close() {
	s.cur.Close()
	s.finish()
}

func (s *Stream) finish() {
	s.end.Do(func() {
		if s.peer != nil {
			s.peer.Load.End()
		}
	})
}
