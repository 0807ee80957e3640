package telford

import (
	"context"
	"errors"
	"io"
	"iter"
	"reflect"

	"telford.dev/telford/internal/codec"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/invoke"
	"telford.dev/telford/internal/message"
)

// Stream asks a service to run a streaming method and returns its messages. Leaving the
// loop ends the stream on both sides: the handler's context is cancelled. Messages that
// came before a failure are delivered; the failure comes last, with a nil message. A
// sequence can be ranged over once.
//
// A stream has no deadline of its own: Timeout and the context's bound it. It goes to
// one instance and is never retried. All else is as in Call.
func Stream[Chunk any](ctx context.Context, s *Service, service, method string, req any, opts ...StreamOption) iter.Seq2[*Chunk, error] {
	return func(yield func(*Chunk, error) bool) {
		v, err := s.running("stream " + service)
		if err != nil {
			yield(nil, err)
			return
		}
		o := s.streamOutbound()
		for _, opt := range opts {
			opt.applyStream(&o.set)
		}
		if req != nil {
			o.ContentType = codec.Natural(req)
		} else {
			o.ContentType = codec.Natural(new(Chunk))
		}
		r, err := s.typedRoute(v, o, service, method, reflect.TypeOf(req), reflect.TypeFor[Chunk]())
		if err != nil {
			o.free()
			yield(nil, err)
			return
		}
		st, err := s.openStream(ctx, v, r, o, service, method, req)
		if err != nil {
			yield(nil, err)
			return
		}
		defer st.close(nil) //nolint:contextcheck // the stream has its own
		for {
			chunk := new(Chunk)
			err := st.recv(chunk) //nolint:contextcheck // the stream has its own
			if errors.Is(err, io.EOF) {
				return
			}
			if err != nil {
				yield(nil, err)
				return
			}
			if !yield(chunk, nil) {
				return
			}
		}
	}
}

// streamOutbound returns a call with the defaults for streams.
func (s *Service) streamOutbound() *outbound {
	o := outbounds.Get().(*outbound)
	o.set = s.streamDefaults
	return o
}

// openedStream is a streaming call under way.
type openedStream struct {
	*invoke.Stream
	o               *outbound
	service, method string
	done            bool
}

// openStream encodes req and opens the stream.
func (s *Service) openStream(ctx context.Context, v *invoke.Invoker, r *invoke.Route, o *outbound, service, method string, req any) (*openedStream, error) {
	ctx, err := s.prepare(ctx, o, service, method, false)
	if err != nil {
		o.free()
		return nil, callError(err, service, method)
	}
	if err := o.encode(req); err != nil {
		o.free()
		return nil, callError(err, service, method)
	}
	st, err := v.Stream(ctx, r, &o.Call)
	if err != nil {
		if o.span != nil {
			endSpan(o.span, err)
		}
		return nil, callError(err, service, method)
	}
	return &openedStream{Stream: st, o: o, service: service, method: method}, nil
}

// recv decodes the next message into v; io.EOF at the orderly end.
func (s *openedStream) recv(v any) error {
	b, err := s.Recv()
	if err != nil {
		s.close(err)
		if errors.Is(err, io.EOF) {
			return io.EOF
		}
		return callError(err, s.service, s.method)
	}
	if s.o.set.maxRecv > 0 && len(b) > s.o.set.maxRecv {
		err := errs.New(errs.ResourceExhausted, "received message larger than max (%d vs. %d)", len(b), s.o.set.maxRecv)
		err.Retryable = false
		s.close(err)
		return callError(err, s.service, s.method)
	}
	if err := codec.Decode(b, v, s.contentType()); err != nil {
		s.close(err)
		return answerError(err, s.service, s.method)
	}
	return nil
}

func (s *openedStream) contentType() message.ContentType {
	if ct := s.ContentType(); ct != message.None {
		return ct
	}
	return s.o.ContentType
}

// close ends the stream, early if it has not ended; again is safe.
func (s *openedStream) close(err error) {
	if s.done {
		return
	}
	s.done = true
	var headers []message.Pair
	if s.o.set.header != nil && err != nil {
		headers, _ = s.Headers() // the end is there: it does not wait
	}
	trailers := s.Trailers()
	s.Close()
	s.o.deliver(headers, trailers)
	if s.o.span != nil {
		if errors.Is(err, io.EOF) {
			err = nil
		}
		endSpan(s.o.span, err)
	}
}
