package router

import (
	"context"
	"errors"
	"io"
	"time"

	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/limit"
	"telford.dev/telford/internal/message"
	"telford.dev/telford/internal/resilience"
)

// Stream opens a streaming call. Who receives it reads until an error, or closes it;
// closing, and the end of ctx, reach the handler. Messages are pulled: as long as nobody
// receives, the instance is held back. A refusal before the start is picked again
// elsewhere, also when it arrives only with the first Recv or Headers; the Call is
// therefore read until one of those has returned. Errors are those of Router.Call.
func (r *Router) Stream(ctx context.Context, req *Request) (message.Stream, error) {
	now := r.clock.Now()
	key, err := r.admit(req)
	if err != nil {
		r.nowhere.streamsEnded.count(err)
		return nil, err
	}
	if req.Call.IdempotencyKey != "" {
		err := keyedStream(key.name, req.Call)
		r.nowhere.streamsEnded.count(err)
		return nil, err
	}
	if methods := (*r.locals.Load())[key.name]; methods != nil {
		err := unaryOnly(key.name, req.Call.Method, methods)
		r.nowhere.streamsEnded.count(err)
		return nil, err
	}
	own := *req
	st := &stream{want: req.Call.ContentType}
	ctx, st.deadline, st.cancel = withDeadline(ctx, req.Call.Deadline, 0)
	st.ctx = ctx
	st.picking = picking{router: r, key: key, now: now, req: &own, query: r.query(req, key.namespace, catalog.ServerStream)}
	s, v := r.current(key)
	st.meter = r.meter(s)
	st.meter.streams.Add(1)
	if err := st.permit(v); err != nil {
		st.finish(err)
		return nil, err
	}
	if st.quota, err = r.enterNamespace(ctx, key.namespace, req); err != nil {
		st.finish(err)
		return nil, err
	}
	if s != nil {
		s.budget.Deposit()
	}
	if err := st.open(ctx); err != nil {
		st.finish(err)
		return nil, err
	}
	return st, nil
}

// stream is the receiving end of a streaming call that may still move to another
// instance. Its methods are for one goroutine.
type stream struct {
	picking
	ctx      context.Context
	cancel   context.CancelFunc // nil when ctx is the caller's own
	deadline time.Time
	meter    *meter
	want     message.ContentType // of the caller

	current message.Stream
	entry   *entry
	sent    message.ContentType // what the request was turned into
	began   bool                // the handler has shown a sign of life
	judged  bool                // it is known how the instance does
	quota   *limit.Held         // of the namespace, nil where none binds
	held    limit.Held          // of the instance
	term    term                // of the call on the instance

	end      error // what Recv says from now on
	kind     message.ContentType
	headers  []message.Pair
	trailers []message.Pair
}

// open gives the call to instances until one takes it.
func (s *stream) open(ctx context.Context) *errs.Error {
	r := s.router
	for {
		svc, v := r.current(s.key)
		e, err := s.pick(svc, v)
		if err != nil {
			if e, err = s.pickOrWait(ctx); err != nil {
				return err
			}
		}
		if err = s.openOn(ctx, e); err == nil {
			return nil
		}
		if !resilience.Repick(err) {
			return err
		}
		if s.refused(ctx, e, err); len(s.tried) >= resilience.MaxRepicks {
			return s.usedUp()
		}
	}
}

func (s *stream) openOn(ctx context.Context, e *entry) *errs.Error {
	s.ended = s.now
	link := e.endpoint.reachable()
	if link == nil {
		s.judge(e, resilience.Neither, s.now)
		return unreachable(e)
	}
	if e.bounds != nil {
		if err := s.enter(ctx, e, &s.held); err != nil {
			s.pass(e)
			return err
		}
	}
	s.term = e.term(ctx, s.router.clock.Now(), s.deadline)
	err := s.openOver(s.term.ctx, s.term.end, e, link) //nolint:contextcheck // it derives from ctx
	if err != nil {
		s.free()
		err = s.term.overtime(e, s.router.clock.Now(), err)
	}
	return err
}

// free gives back what the call holds of the instance.
func (s *stream) free() {
	s.term.stop()
	s.held.Leave()
}

func (s *stream) openOver(ctx context.Context, deadline time.Time, e *entry, link message.Link) *errs.Error {
	call := s.req.Call
	kind, body, err := e.codec.Request(call.ContentType, call.Body)
	if err != nil {
		s.judge(e, resilience.Neither, s.now)
		return errs.From(err).In("router", operation(call.Service, call.Method)).Unstarted()
	}
	if kind != call.ContentType {
		s.meter.transcoded.Add(1)
	}
	out := new(message.Call)
	s.router.outgoing(out, e, s.req, deadline)
	out.ContentType, out.Body = kind, body
	s.meter.bytesIn.Add(uint64(len(call.Body)))
	e.endpoint.load.Begin()
	st, err := link.Stream(ctx, out)
	if err != nil {
		e.endpoint.load.End()
		s.ended = s.router.clock.Now()
		s.judge(e, resilience.Judge(errs.From(err)), s.ended)
		return errs.From(err).In("router", operation(call.Service, call.Method))
	}
	s.current, s.entry, s.sent, s.judged = st, e, kind, false
	return nil
}

// moved reports whether a stream that was refused before its start goes on elsewhere.
func (s *stream) moved(err error) bool {
	e := errs.From(err)
	if s.began || !resilience.Repick(e) {
		return false
	}
	s.settle(err)
	s.leave()
	s.ended = s.router.clock.Now()
	s.refused(s.ctx, s.entry, e)
	if err := s.open(s.ctx); err != nil {
		s.finish(err)
	}
	return true
}

// settle takes in, once for each instance, the first that is known of how it does.
func (s *stream) settle(err error) {
	if s.judged || s.current == nil {
		return
	}
	s.judged = true
	v := resilience.Succeeded
	if err != nil && !orderly(err) && lostStream(err) {
		v = resilience.Judge(errs.From(err))
	}
	s.judge(s.entry, v, s.router.clock.Now())
}

// leave closes the stream of the instance.
func (s *stream) leave() {
	if s.current != nil {
		if !s.judged {
			s.judged = true
			s.judge(s.entry, resilience.Neither, s.now)
		}
		s.current.Close()
		s.entry.endpoint.load.End()
		s.current = nil
		s.free()
	}
}

// finish ends the stream for its receiver; the first end stays.
func (s *stream) finish(err error) {
	if s.end != nil {
		return
	}
	s.end = err
	s.leave()
	if s.quota != nil {
		s.quota.Leave()
	}
	s.meter.streams.Add(-1)
	if orderly(err) {
		s.meter.streamsEnded.count(nil)
	} else {
		s.meter.streamsEnded.count(errs.From(err))
	}
	if s.cancel != nil {
		s.cancel()
	}
}

// orderly reports whether a stream ended as its handler meant it. Only the bare io.EOF
// says so: a lost connection may wrap the one of its socket.
func orderly(err error) bool {
	return err == io.EOF //nolint:errorlint // see above: a wrapped one is another end
}

// Recv implements message.Stream.
func (s *stream) Recv() ([]byte, error) {
	for s.end == nil {
		b, err := s.current.Recv()
		if err == nil {
			s.began = true
			s.settle(nil)
			if b, err = s.turn(b); err == nil {
				s.meter.bytesOut.Add(uint64(len(b)))
				return b, nil
			}
		}
		if !orderly(err) && s.moved(err) {
			continue
		}
		s.settle(err)
		s.keep()
		if !orderly(err) {
			e := errs.From(err).In("router", operation(s.key.name, s.req.Call.Method))
			if errors.Is(e, io.EOF) {
				e = e.WithCause(nil) // for receivers who ask with errors.Is
			}
			err = s.term.overtime(s.entry, s.router.clock.Now(), e)
		}
		s.finish(err)
	}
	return nil, s.end
}

// turn brings a message into the content type of the caller.
func (s *stream) turn(b []byte) ([]byte, error) {
	got := s.current.ContentType()
	if got == message.None {
		got = s.sent
	}
	if got == s.want || s.want == message.None {
		return b, nil
	}
	s.meter.transcoded.Add(1)
	return s.entry.codec.Reply(got, s.want, b)
}

// keep remembers what may be asked for after the end.
func (s *stream) keep() {
	s.headers, _ = s.current.Headers() // does not wait: the stream has ended
	s.trailers = s.current.Trailers()
	s.kind = s.current.ContentType()
}

// Headers implements message.Stream.
func (s *stream) Headers() ([]message.Pair, error) {
	for s.end == nil {
		h, err := s.current.Headers()
		if err == nil {
			s.began = true
			s.settle(nil)
			return h, nil
		}
		if !s.moved(err) {
			return h, errs.From(err).In("router", operation(s.key.name, s.req.Call.Method))
		}
	}
	if orderly(s.end) || s.began {
		return s.headers, nil
	}
	return s.headers, s.end
}

// Trailers implements message.Stream.
func (s *stream) Trailers() []message.Pair { return s.trailers }

// ContentType implements message.Stream.
func (s *stream) ContentType() message.ContentType {
	switch {
	case s.want != message.None:
		return s.want
	case s.current != nil:
		return s.current.ContentType()
	default:
		return s.kind
	}
}

// Close implements message.Stream.
func (s *stream) Close() {
	if s.end == nil {
		s.finish(errs.New(errs.Canceled, "the stream was closed by its receiver").In("router", operation(s.key.name, s.req.Call.Method)))
	}
}
