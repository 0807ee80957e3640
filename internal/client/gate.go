package client

import (
	"context"

	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/message"
)

// gate holds the commands of a connection back until it carries the session. The runtime
// sends them right behind HelloAck, in the numbers of that session: before it is known
// here which one that is, they would be taken for those of the session before.
type gate struct {
	p     *port
	inner message.Handler
}

// pass waits until commands may pass; the refusal says that the connection has ended
// before.
func (g gate) pass(ctx context.Context) *message.Reply {
	select {
	case <-g.p.adopted:
		return nil
	default:
	}
	<-g.p.dialed // commands come after Hello, which goes out on what was dialed
	select {
	case <-g.p.adopted:
		return nil
	case <-g.p.conn.Done():
		return &message.Reply{Err: errs.New(errs.Unavailable, "the connection ended before it carried the session").Unstarted()}
	case <-ctx.Done():
		return &message.Reply{Err: errs.From(ctx.Err()).Unstarted()}
	}
}

// HandleCall implements message.Handler.
func (g gate) HandleCall(ctx context.Context, call *message.Call) *message.Reply {
	if refused := g.pass(ctx); refused != nil {
		return refused
	}
	return g.inner.HandleCall(ctx, call)
}

// HandleStream implements message.Handler.
func (g gate) HandleStream(ctx context.Context, call *message.Call, out message.Sender) *message.Reply {
	if refused := g.pass(ctx); refused != nil {
		return refused
	}
	return g.inner.HandleStream(ctx, call, out)
}
