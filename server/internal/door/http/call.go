package httpdoor

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/message"
	"telford.dev/telford/server/internal/door/admit"
	"telford.dev/telford/server/internal/door/callmeta"
)

// prepare admits the caller and reads the request whole. On failure it has answered.
// release must be called when ok.
func (s *Server) prepare(ctx context.Context, w http.ResponseWriter, r *http.Request, fallback time.Duration) (_ context.Context, call *message.Call, release func(), ok bool) {
	grant, err := s.cfg.Gate.Bearer(ctx, r.Header.Get("Authorization"), r.Header.Get("Telford-Namespace"))
	if err != nil {
		fail(w, err)
		return nil, nil, nil, false
	}
	call, timeout, err := request(r)
	if call != nil && call.RequestID != "" {
		w.Header().Set(headerRequestID, call.RequestID)
	}
	if err == nil {
		call.Body, err = body(w, r)
	}
	if err == nil {
		err = checkForm(r.Header.Values("Content-Type"), call.Body)
	}
	if err != nil {
		fail(w, err)
		return nil, nil, nil, false
	}
	if len(call.Body) == 0 && call.ContentType == message.JSON {
		call.Body = []byte("{}") // curl -X POST without -d
	}
	if t := callmeta.FormatTraceparent(&call.Trace); t != "" {
		w.Header().Set("Traceparent", t)
	}
	call.Caller = grant.Caller
	ctx, release = s.begin(ctx, call, grant, timeout, fallback)
	return ctx, call, release, true
}

func (s *Server) begin(ctx context.Context, call *message.Call, grant *admit.Grant, timeout, fallback time.Duration) (context.Context, func()) {
	ctx, release := s.cfg.Gate.Hold(ctx, grant)
	if timeout == 0 {
		timeout = fallback
	}
	if timeout == 0 {
		return ctx, release
	}
	call.Deadline = time.Now().Add(timeout)
	ctx, cancel := context.WithDeadline(ctx, call.Deadline)
	return ctx, func() { cancel(); release() }
}

// call serves POST /call/{service}/{method...}.
func (s *Server) call(w http.ResponseWriter, r *http.Request) {
	ctx, call, release, ok := s.prepare(r.Context(), w, r, DefaultTimeout)
	if !ok {
		return
	}
	defer release()
	reply, err := s.cfg.Router.Call(ctx, s.routed(call))
	if err != nil {
		fail(w, because(ctx, err))
		return
	}
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(s.cfg.writeTimeout)) // not every writer has one
	h := w.Header()
	setPairs(h, prefixMeta, reply.Headers)
	setPairs(h, prefixTrailer, reply.Trailers)
	if reply.Err != nil {
		fail(w, reply.Err)
		return
	}
	h.Set("Content-Type", mediaType(reply.ContentType))
	h.Set("Content-Length", strconv.Itoa(len(reply.Body)))
	h.Set("X-Content-Type-Options", "nosniff")
	_, _ = w.Write(reply.Body) //nolint:gosec // not HTML: the content type says so, and nosniff
}

// because prefers the reason for which the door ended ctx over what the router made of
// the end of it.
func because(ctx context.Context, err error) *errs.Error {
	e := errs.From(err)
	if cause := context.Cause(ctx); cause != nil && e.Code == errs.Canceled {
		if c := errs.From(cause); c.Code != errs.Internal {
			return c
		}
	}
	return e
}
