package link

import (
	"context"
	"io"
	"sync"
	"time"

	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/message"
)

// clientStream is the receiving end of a streaming call. The reader adds messages to
// a slab; Recv takes the whole slab and hands it out piece by piece, so that a fast
// stream costs one lock and one allocation for many messages.
type clientStream struct {
	conn *Conn
	p    *call
	ctx  context.Context
	stop func() bool // ends the watch over ctx

	mu      sync.Mutex
	slab    []byte // what arrived
	ends    []mark // the complete messages in slab
	partial mark   // the incomplete one: where it begins, and what of it is given back
	recv    window
	headers []message.Pair
	kind    message.ContentType
	started chan struct{} // closed at the headers, the first message or the end
	wake    chan struct{}
	final   *message.Reply // set at the end

	// Of the receiver alone.
	cur      []byte
	curEnds  []mark
	next     int
	pos      int
	hint     int
	trailers []message.Pair
	ended    error
}

// mark is where a message ends in a slab, and how many of its bytes had their credit
// given back while it arrived.
type mark struct{ at, given int }

// Stream runs a streaming call on the other end.
func (c *Conn) Stream(ctx context.Context, m *message.Call) (message.Stream, error) {
	left, e := remaining(ctx, m)
	if e == nil {
		e = message.CheckPayload(len(m.Body))
	}
	if e == nil {
		e = message.CheckHeaders(m.Headers)
	}
	if e != nil {
		return nil, e
	}
	s := &clientStream{
		conn: c, ctx: ctx, kind: m.ContentType, recv: newWindow(StreamWindow),
		started: make(chan struct{}), wake: make(chan struct{}, 1),
	}
	open := *m
	open.Stream = true
	c.mu.Lock()
	p, lead, rest, err := c.open(ctx, &open, left)
	if err != nil {
		c.mu.Unlock()
		return nil, err
	}
	p.stream, s.p = s, p
	c.mu.Unlock()
	if lead {
		c.flush(4)
	}
	stopContext := context.AfterFunc(ctx, func() { s.cancel(ctx.Err()) })
	s.mu.Lock()
	s.stop = stopContext
	if d, ok := ctx.Deadline(); left > 0 && (!ok || (!m.Deadline.IsZero() && m.Deadline.Before(d))) && s.final == nil {
		t := time.AfterFunc(left, func() { s.cancel(context.DeadlineExceeded) })
		s.stop = func() bool { t.Stop(); return stopContext() }
	}
	over := s.final != nil
	stop := s.stop
	s.mu.Unlock()
	if over {
		stop()
	}
	if len(rest) > 0 {
		c.sendRest(ctx, left, p, rest)
	}
	return s, nil
}

// arrive adds a piece of a message; called by the reader.
func (s *clientStream) arrive(piece []byte, more bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.recv.arrive(len(piece)) {
		return protocolError("stream %d sent more than its window", s.p.id)
	}
	if s.slab == nil && s.hint > 0 {
		s.slab = make([]byte, 0, s.hint)
	}
	s.slab = append(s.slab, piece...)
	if more {
		if len(s.slab)-s.partial.at > message.MaxPayload {
			return protocolError("a message of stream %d is over the limit of %d bytes", s.p.id, message.MaxPayload)
		}
		// The window would close on a message larger than itself, so what is incomplete
		// counts as consumed already.
		s.partial.given += len(piece)
		if give := s.recv.consume(len(piece), time.Now, s.conn.roundTrip()); give > 0 {
			s.conn.grant(s.p.id, give)
		}
		return nil
	}
	s.ends = append(s.ends, mark{at: len(s.slab), given: s.partial.given})
	s.partial = mark{at: len(s.slab)}
	s.signal()
	return nil
}

// signal wakes the receiver, with mu held.
func (s *clientStream) signal() {
	select {
	case <-s.started:
	default:
		close(s.started)
	}
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *clientStream) setHeaders(kind message.ContentType, pairs []message.Pair) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.headers == nil {
		s.headers = pairs
	}
	if kind != message.None {
		s.kind = kind
	}
	s.signal()
}

// end sets how the stream ended; the first one stays.
func (s *clientStream) end(r *message.Reply) {
	s.mu.Lock()
	if s.final == nil {
		s.final = r
		if s.headers == nil {
			s.headers = r.Headers
		}
		s.signal()
	}
	stop := s.stop
	s.mu.Unlock()
	if stop != nil {
		stop()
	}
}

// cancel ends the stream from this end.
func (s *clientStream) cancel(err error) {
	if s.conn.abandon(s.p) {
		s.end(&message.Reply{Err: errs.From(err).In("link", "stream")})
	}
}

// Recv implements message.Stream.
func (s *clientStream) Recv() ([]byte, error) {
	for s.next == len(s.curEnds) {
		if s.ended != nil {
			return nil, s.ended
		}
		if !s.take() {
			<-s.wake
		}
	}
	end := s.curEnds[s.next]
	b := s.cur[s.pos:end.at:end.at]
	s.pos = end.at
	s.next++
	s.mu.Lock()
	give := s.recv.consume(len(b)-end.given, time.Now, s.conn.roundTrip())
	s.mu.Unlock()
	if give > 0 {
		s.conn.grant(s.p.id, give)
	}
	return b, nil
}

// take moves what has arrived to the receiver's side; false when there is nothing.
func (s *clientStream) take() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.ends) == 0 {
		if s.final == nil {
			return false
		}
		s.trailers = s.final.Trailers
		s.ended = io.EOF
		if s.final.Err != nil {
			s.ended = s.final.Err
		}
		return true
	}
	whole := s.ends[len(s.ends)-1].at
	rest := s.slab[whole:]
	s.cur, s.pos, s.next = s.slab[:whole:whole], 0, 0
	s.curEnds, s.ends = s.ends, s.curEnds[:0]
	s.hint = min(max(whole, s.hint/2), StreamWindow)
	s.slab = nil
	if len(rest) > 0 {
		s.slab = append(make([]byte, 0, max(s.hint, len(rest))), rest...)
	}
	s.partial.at = 0
	return true
}

// Headers implements message.Stream.
func (s *clientStream) Headers() ([]message.Pair, error) {
	<-s.started
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.final != nil && s.final.Err != nil && len(s.ends) == 0 {
		return s.headers, s.final.Err
	}
	return s.headers, nil
}

// Trailers implements message.Stream.
func (s *clientStream) Trailers() []message.Pair { return s.trailers }

// ContentType implements message.Stream.
func (s *clientStream) ContentType() message.ContentType {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.kind
}

// Close implements message.Stream.
func (s *clientStream) Close() { s.cancel(context.Canceled) }
