package telford

import (
	"context"
	"crypto/x509"
	"time"

	"google.golang.org/grpc/metadata"

	"telford.dev/telford/internal/grpcmeta"
	"telford.dev/telford/internal/handlers"
	"telford.dev/telford/internal/ident"
	"telford.dev/telford/internal/message"
)

// Caller is who makes a call: by its certificate, or, through the runtime, by what the
// runtime says of it.
type Caller struct {
	Namespace string
	Service   string
	Instance  string
	KeyID     string
}

// Inbound describes the call that a handler runs for.
type Inbound struct {
	// Method is the name under which it was called.
	Method string
	// RequestID names the logical call over all its attempts and hops.
	RequestID string
	Caller    Caller
	// Attempt is 0 as long as nobody tries again: neither the caller nor anybody further
	// up the chain. Calls made by the handler of another attempt are not retried
	// themselves, so that attempts do not multiply from hop to hop.
	Attempt int
	// Deadline is zero when the call has none.
	Deadline time.Time
	// ChainRoot is the request id of the first call of the chain that led here, and
	// Chain the methods passed since, oldest first.
	ChainRoot string
	Chain     []string
	// IdempotencyKey is the caller's, if it gave one.
	IdempotencyKey string
	// BusinessKey is the name by which the caller wants the call to be found later, if it
	// gave one.
	BusinessKey string
	// Headers are those that the caller sent.
	Headers metadata.MD
}

// InboundFrom returns the call that ctx, the context of a handler or one derived from
// it, belongs to; false outside of handlers.
func InboundFrom(ctx context.Context) (Inbound, bool) {
	c, ok := handlers.From(ctx)
	if !ok {
		return Inbound{}, false
	}
	call := c.Call()
	in := Inbound{
		Method: c.Method().Name, RequestID: call.RequestID, Attempt: call.Attempt, IdempotencyKey: call.IdempotencyKey,
		BusinessKey: call.BusinessKey,
		Caller:      Caller(call.Caller), Chain: call.Chain, ChainRoot: call.ChainRoot, Headers: grpcmeta.MD(call.Headers),
	}
	if in.ChainRoot == "" {
		in.ChainRoot = call.RequestID
	}
	in.Deadline, _ = c.Deadline()
	return in, true
}

func callerOf(cert *x509.Certificate) message.Caller {
	id, err := ident.FromCertificate(cert)
	if err != nil {
		return message.Caller{} // the handshake has let nobody in without one
	}
	return message.Caller{Namespace: id.Namespace, Service: id.Service, Instance: id.Instance, KeyID: id.KeyID}
}
