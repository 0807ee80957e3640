package ipc

import (
	"context"
	"time"

	"telford.dev/telford/internal/ipcwire"
)

// Context is what a call hands on to the calls made on its behalf: the id of the whole
// chain, who called, how deep it is, and until when.
type Context = ipcwire.Context

// NewContext begins a chain of calls by the service self.
func NewContext(self string, timeout time.Duration) Context {
	now := time.Now()
	return ipcwire.NewContext(self, newID("root", now), now.Add(timeout))
}

type contextKey struct{}

// WithContext returns a context in which calls extend c.
func WithContext(ctx context.Context, c Context) context.Context {
	return context.WithValue(ctx, contextKey{}, c)
}

// FromContext returns the context of the call that is being handled, and whether there
// is one.
func FromContext(ctx context.Context) (Context, bool) {
	c, ok := ctx.Value(contextKey{}).(Context)
	return c, ok
}
