package httpdoor

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/message"
)

// aheadOfClient is how many messages a stream takes from its handler before the client
// has taken them from us.
const aheadOfClient = 16

// stream serves POST /stream/{service}/{method...}. The answer is NDJSON, one object a
// line: {"chunk": …} for each message, then {"end": true} or {"error": problem}. With
// "Accept: text/event-stream" each message is an event without a name, and the last
// event is "end" or "error". A line of a comment (SSE) or an empty line (NDJSON) is a
// sign of life.
func (s *Server) stream(w http.ResponseWriter, r *http.Request) {
	ctx, call, release, ok := s.prepare(r.Context(), w, r, 0)
	if !ok {
		return
	}
	defer release()
	if call.ContentType != message.JSON {
		fail(w, errs.New(errs.InvalidArgument, "a stream over HTTP is JSON and the request is %s; send application/json, or stream over gRPC", call.ContentType).
			Unstarted().With(metaStatus, strconv.Itoa(http.StatusUnsupportedMediaType)))
		return
	}
	call.Stream = true
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	in, err := s.cfg.Router.Stream(ctx, s.routed(call))
	if err != nil {
		fail(w, because(ctx, err))
		return
	}
	out := newStreamWriter(w, s.cfg.writeTimeout, wantsEvents(r.Header))
	s.pump(ctx, cancel, in, out)
}

// received is one message of a stream, or its end.
type received struct {
	body     []byte
	err      error
	headers  []message.Pair
	trailers []message.Pair
}

// pump moves messages from in to out until either ends. It returns when the goroutine
// that reads in has ended.
func (s *Server) pump(ctx context.Context, cancel func(), in message.Stream, out *streamWriter) {
	messages := make(chan received, aheadOfClient)
	go func() {
		defer close(messages)
		defer in.Close()
		for first := true; ; first = false {
			var m received
			m.body, m.err = in.Recv()
			if first {
				m.headers, _ = in.Headers() // its failure is that of Recv
			}
			if m.err != nil {
				m.trailers = in.Trailers()
			}
			select {
			case messages <- m:
			case <-ctx.Done():
				return
			}
			if m.err != nil {
				return
			}
		}
	}()
	defer func() {
		cancel()
		for range messages { // until the goroutine has ended
			continue
		}
	}()
	alive := time.NewTimer(s.cfg.keepAlive)
	defer alive.Stop()
	for {
		var m received
		var open bool
		select {
		case m, open = <-messages:
		default:
			// Nothing is waiting: the client gets what there is.
			if out.flush() != nil {
				return
			}
			select {
			case m, open = <-messages:
			case <-alive.C:
				if out.alive() != nil {
					return
				}
				alive.Reset(s.cfg.keepAlive)
				continue
			}
		}
		alive.Reset(s.cfg.keepAlive)
		if !open {
			m.err = ctx.Err()
		}
		if m.err != nil {
			if !errors.Is(m.err, io.EOF) {
				m.err = because(ctx, m.err)
			}
			out.end(m)
			return
		}
		if out.chunk(m) != nil {
			return
		}
	}
}

func wantsEvents(h http.Header) bool {
	for _, v := range h.Values("Accept") {
		if strings.Contains(v, "text/event-stream") {
			return true
		}
	}
	return false
}

// streamWriter writes the messages of a stream in one of the two forms.
type streamWriter struct {
	w       http.ResponseWriter
	rc      *http.ResponseController
	timeout time.Duration
	events  bool
	begun   bool
	buf     bytes.Buffer
}

func newStreamWriter(w http.ResponseWriter, timeout time.Duration, events bool) *streamWriter {
	return &streamWriter{w: w, rc: http.NewResponseController(w), timeout: timeout, events: events}
}

func (o *streamWriter) begin(headers []message.Pair) {
	if o.begun {
		return
	}
	o.begun = true
	h := o.w.Header()
	setPairs(h, prefixMeta, headers)
	if o.events {
		h.Set("Content-Type", "text/event-stream")
	} else {
		h.Set("Content-Type", "application/x-ndjson")
	}
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no") // proxies that buffer would hold the stream up
	h.Set("X-Content-Type-Options", "nosniff")
	o.w.WriteHeader(http.StatusOK)
}

func (o *streamWriter) chunk(m received) error {
	o.begin(m.headers)
	o.buf.Reset()
	if o.events {
		o.buf.WriteString("data: ")
	} else {
		o.buf.WriteString(`{"chunk":`)
	}
	body := m.body
	if len(body) == 0 {
		body = []byte("null")
	}
	// One line, whatever the handler's encoder does.
	if err := json.Compact(&o.buf, body); err != nil {
		o.end(received{err: errs.New(errs.Internal, "the handler sent a message that is not JSON: %w", err)})
		return err
	}
	if o.events {
		o.buf.WriteString("\n\n")
	} else {
		o.buf.WriteString("}\n")
	}
	return o.write()
}

func (o *streamWriter) end(m received) {
	failed := !errors.Is(m.err, io.EOF)
	e := errs.From(m.err)
	if failed && !o.begun {
		// Nothing was sent: the answer can still have the status of the failure.
		setPairs(o.w.Header(), prefixMeta, m.headers)
		setPairs(o.w.Header(), prefixTrailer, m.trailers)
		_ = o.rc.SetWriteDeadline(time.Now().Add(o.timeout)) // not every writer has one
		fail(o.w, e)
		return
	}
	o.begin(m.headers)
	last := ending{End: !failed, Trailers: pairMap(m.trailers)}
	name := "end"
	if failed {
		name = "error"
		last.Error = NewProblem(e, Status(e))
		last.Error.RequestID = o.w.Header().Get(headerRequestID)
	}
	text, err := json.Marshal(last)
	if err != nil { // strings and numbers only
		return
	}
	o.buf.Reset()
	if o.events {
		o.buf.WriteString("event: " + name + "\ndata: ")
	}
	o.buf.Write(text)
	o.buf.WriteString("\n")
	if o.events {
		o.buf.WriteString("\n")
	}
	if o.write() == nil {
		_ = o.flush() // the client may have gone
	}
}

// ending is the last line of a stream.
type ending struct {
	End      bool                `json:"end,omitempty"`
	Error    *Problem            `json:"error,omitempty"`
	Trailers map[string][]string `json:"trailers,omitempty"`
}

func (o *streamWriter) alive() error {
	o.begin(nil)
	o.buf.Reset()
	if o.events {
		o.buf.WriteString(":\n\n")
	} else {
		o.buf.WriteString("\n")
	}
	if err := o.write(); err != nil {
		return err
	}
	return o.flush()
}

func (o *streamWriter) write() error {
	_ = o.rc.SetWriteDeadline(time.Now().Add(o.timeout)) // not every writer has one
	_, err := o.w.Write(o.buf.Bytes())
	return err
}

func (o *streamWriter) flush() error {
	if !o.begun {
		return nil
	}
	_ = o.rc.SetWriteDeadline(time.Now().Add(o.timeout)) // not every writer has one
	return o.rc.Flush()
}

func pairMap(pairs []message.Pair) map[string][]string {
	if len(pairs) == 0 {
		return nil
	}
	h := make(http.Header)
	setPairs(h, "", pairs)
	m := make(map[string][]string, len(h))
	for k, v := range h {
		m[strings.ToLower(k)] = v
	}
	return m
}
