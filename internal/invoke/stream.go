package invoke

import (
	"context"
	"errors"
	"io"
	"sync"

	"telford.dev/telford/internal/direct"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/link"
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

	cur    message.Stream
	on     choice // without a peer on the way through the runtime
	judged bool   // it is known how the instance does
	began  bool
	end    sync.Once
}

// Stream opens a streaming call.
func (v *Invoker) Stream(ctx context.Context, r *Route, c *Call) (*Stream, error) {
	if err := v.begin(r, c); err != nil {
		return nil, v.final(ctx, r, c, err)
	}
	s := &Stream{v: v, ctx: ctx, r: r, call: c}
	for attempts, before := 1, c.Attempt; ; attempts++ {
		err := s.open() //nolint:contextcheck // connections belong to the pool
		if err == nil {
			return s, nil
		}
		d := v.decide(r, c, err, attempts, before > 0, true)
		if !d.Retry || v.wait(ctx, r, c, d.Delay) != nil {
			return nil, v.final(ctx, r, c, err)
		}
		s.way = way{}
	}
}

func (s *Stream) open() error {
	switch s.call.plan {
	case Proxy:
		return s.openProxied()
	case proxyElseDirect:
		err := s.openProxied()
		if err == nil {
			return nil
		}
		if err = s.v.passOn(s.r, err); err != nil {
			return err
		}
		return s.openDirect()
	}
	err := s.openDirect()
	if err == nil {
		return nil
	}
	if err = s.v.toRuntime(s.r, s.call, &s.way, s.known, err); err != nil {
		return err
	}
	return s.openProxied()
}

func (s *Stream) openProxied() error {
	if err := s.v.checkProxy(s.call); err != nil {
		return err
	}
	s.r.throughRuntime(s.call)
	cur, err := s.v.opt.Proxy.Stream(s.ctx, &s.call.Call)
	if err != nil {
		return err
	}
	s.cur, s.on = cur, choice{}
	return nil
}

func (s *Stream) openDirect() error {
	known, err := s.v.locate(s.ctx, s.r, s.call)
	s.known = known
	if err != nil {
		return err
	}
	for {
		ch, err := s.v.choose(s.ctx, s.r, s.call, known, &s.way)
		if err != nil {
			return err
		}
		ch.conn.Used()
		ch.peer.Load.Begin()
		cur, err := ch.conn.Stream(s.ctx, &s.call.Call)
		if err == nil {
			s.cur, s.on, s.judged, s.call.Conn = cur, ch, false, ch.conn
			return nil
		}
		ch.peer.Load.End()
		if !s.v.refused(known, ch, &s.way, err) {
			return err
		}
	}
}

// judge takes in, once for each instance, the first that is known of how it does.
func (s *Stream) judge(err error) {
	if s.judged || s.on.peer == nil {
		return
	}
	s.judged = true
	if err == nil || errors.Is(err, io.EOF) || !failedOnTheWay(err) {
		s.on.peer.Ended(s.on.ticket, resilience.Succeeded)
		return
	}
	s.v.failed(s.known, s.on, errs.From(err))
}

// failedOnTheWay tells the failure of a path from the one that a handler has ended its
// stream with.
func failedOnTheWay(err error) bool {
	e := errs.From(err)
	return e.NotStarted || errors.Is(err, link.ErrEnded) || e.Code == errs.Canceled || e.Code == errs.DeadlineExceeded
}

// replace opens the stream elsewhere after a refusal; false when that is not allowed or
// not possible, and the refusal stands.
func (s *Stream) replace(err error) bool {
	if s.began || s.on.peer == nil || !resilience.Repick(errs.From(err)) {
		return false
	}
	s.cur.Close()
	s.on.peer.Load.End()
	s.judged = true
	s.v.refused(s.known, s.on, &s.way, err)
	s.on = choice{}
	return s.open() == nil
}

// Recv returns the next message; io.EOF after the orderly end.
func (s *Stream) Recv() ([]byte, error) {
	for {
		b, err := s.cur.Recv()
		if err == nil {
			s.began = true
			s.judge(nil)
			return b, nil
		}
		if s.replace(err) {
			continue
		}
		s.judge(err)
		s.v.denied(s.r, errs.From(err))
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
		s.judge(err)
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
		if s.on.peer != nil {
			s.on.peer.Load.End()
			if !s.judged {
				s.on.peer.Ended(s.on.ticket, resilience.Neither)
			}
		}
	})
}
