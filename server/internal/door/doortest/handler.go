package doortest

import (
	"context"

	"telford.dev/telford/internal/message"
)

// Handler makes functions into a message.Handler.
type Handler struct {
	Call   func(ctx context.Context, call *message.Call) *message.Reply
	Stream func(ctx context.Context, call *message.Call, out message.Sender) *message.Reply
}

// HandleCall implements message.Handler.
func (h Handler) HandleCall(ctx context.Context, call *message.Call) *message.Reply {
	if h.Call == nil {
		return nil
	}
	return h.Call(ctx, call)
}

// HandleStream implements message.Handler.
func (h Handler) HandleStream(ctx context.Context, call *message.Call, out message.Sender) *message.Reply {
	if h.Stream == nil {
		return nil
	}
	return h.Stream(ctx, call, out)
}

// Echo answers every call with its body.
func Echo() Handler {
	return Handler{Call: func(_ context.Context, call *message.Call) *message.Reply {
		return &message.Reply{ContentType: call.ContentType, Body: append([]byte(nil), call.Body...)}
	}}
}
