package registry

import "context"

type authorKey struct{}

// WithAuthor names who asks for the writes made with the context, to be stored with
// the rows: "operator:alice". Without it the author is the instance or, of a Drain,
// "operator".
func WithAuthor(ctx context.Context, author string) context.Context {
	return context.WithValue(ctx, authorKey{}, author)
}

func authorOf(ctx context.Context, otherwise string) string {
	if a, ok := ctx.Value(authorKey{}).(string); ok && a != "" {
		return a
	}
	return otherwise
}
