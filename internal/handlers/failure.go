package handlers

import (
	"context"
	"errors"
	"maps"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/resilience"
)

// Failure turns what a handler returned into what its caller gets: a Telford error with
// its code, a gRPC status verbatim, the end of its context by its meaning, and anything
// else as code handler with its text. What an error says of the way of a call that the
// handler made is never passed on as if it were about the way to the handler: the proof
// of not having begun, the part that failed, what is known of the outcome and of retries.
func Failure(err error) *errs.Error {
	var e *errs.Error
	if errors.As(err, &e) {
		c := *e
		c.NotStarted = false
		if c.Component != "" {
			c.Component = "handler"
		}
		c.Meta = withoutWay(c.Meta)
		if text := err.Error(); text != e.Error() && e.Code != errs.Handler {
			c.Message, c.Operation = text, "" // a wrapped error keeps what was said around it
		}
		return &c
	}
	if s, ok := fromStatus(err); ok {
		return s
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return errs.New(errs.DeadlineExceeded, "%w", err)
	case errors.Is(err, context.Canceled):
		return errs.New(errs.Canceled, "%w", err)
	}
	return errs.New(errs.Handler, "%s", err.Error()).WithCause(err)
}

// withoutWay returns the facts that are not about the way of a call; it changes nothing
// in meta.
func withoutWay(meta map[string]string) map[string]string {
	_, outcome := meta[resilience.MetaOutcome]
	_, retry := meta[resilience.MetaRetry]
	if !outcome && !retry {
		return meta
	}
	meta = maps.Clone(meta)
	delete(meta, resilience.MetaOutcome)
	delete(meta, resilience.MetaRetry)
	return meta
}

// fromStatus returns the status in the chain of err, verbatim.
func fromStatus(err error) (*errs.Error, bool) {
	var has interface{ GRPCStatus() *status.Status }
	if !errors.As(err, &has) {
		return nil, false
	}
	s, ok := status.FromError(err)
	if !ok || s.Code() == codes.OK {
		return nil, false
	}
	e := errs.New(errs.Handler, "%s", s.Message())
	e.GRPCCode = s.Code()
	for _, d := range s.Proto().GetDetails() {
		b, merr := proto.Marshal(d)
		if merr != nil {
			continue // an Any always marshals
		}
		e.Details = append(e.Details, b)
	}
	return e, true
}
