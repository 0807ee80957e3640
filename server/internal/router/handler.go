package router

import (
	"context"
	"sync/atomic"

	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/message"
)

// AsHandler returns what a door gives to the link of a caller: calls that come in are
// routed in the namespace and on behalf of caller, whatever they say of themselves. An
// empty namespace means that of the caller.
func (r *Router) AsHandler(caller message.Caller, namespace string) message.Handler {
	if namespace == "" {
		namespace = caller.Namespace
	}
	return &handler{router: r, caller: caller, namespace: orDefault(namespace)}
}

type handler struct {
	router    *Router
	caller    message.Caller
	namespace string
	place     atomic.Pointer[place]
}

// place is the locality that the caller declared, as found in one snapshot.
type place struct {
	source   []*catalog.Instance
	locality string
}

func (h *handler) request(call *message.Call) Request {
	return Request{Namespace: h.namespace, Caller: h.caller, Call: call, Locality: h.locality(), Avoid: call.Avoid}
}

func (h *handler) locality() string {
	if h.caller.Instance == "" {
		return h.router.locality
	}
	source := h.router.index.Candidates(h.namespace, h.caller.Service)
	if len(source) == 0 {
		return h.router.locality
	}
	p := h.place.Load()
	if p == nil || !sameSlice(p.source, source) {
		p = &place{source, h.router.declaredLocality(source, h.caller.Instance)}
		h.place.Store(p)
	}
	return p.locality
}

// localityOf returns where a caller runs.
func (r *Router) localityOf(namespace string, caller *message.Caller) string {
	if caller.Instance == "" || caller.Service == "" {
		return r.locality
	}
	return r.declaredLocality(r.index.Candidates(namespace, caller.Service), caller.Instance)
}

func (r *Router) declaredLocality(source []*catalog.Instance, id string) string {
	for _, in := range source {
		if in.ID == id && in.Declaration.Locality != "" {
			return in.Declaration.Locality
		}
	}
	return r.locality
}

// HandleCall implements message.Handler.
func (h *handler) HandleCall(ctx context.Context, call *message.Call) *message.Reply {
	req := h.request(call)
	reply, err := h.router.Call(ctx, &req)
	if err != nil {
		return &message.Reply{Err: errs.From(err)}
	}
	return reply
}

// HandleStream implements message.Handler. It receives no further while Send waits for
// the caller, and closes the stream once the caller is gone.
func (h *handler) HandleStream(ctx context.Context, call *message.Call, out message.Sender) *message.Reply {
	req := h.request(call)
	in, err := h.router.Stream(ctx, &req)
	if err != nil {
		return &message.Reply{Err: errs.From(err)}
	}
	defer in.Close()
	if headers, err := in.Headers(); err == nil && len(headers) != 0 {
		if err := out.SendHeaders(headers); err != nil {
			return &message.Reply{Err: errs.From(err)}
		}
	}
	for {
		b, err := in.Recv()
		switch {
		case orderly(err):
			return &message.Reply{ContentType: in.ContentType(), Trailers: in.Trailers()}
		case err != nil:
			return &message.Reply{Err: errs.From(err), Trailers: in.Trailers()}
		}
		if err := out.Send(b); err != nil {
			return &message.Reply{Err: errs.From(err)}
		}
	}
}
