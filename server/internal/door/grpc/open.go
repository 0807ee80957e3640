package grpcdoor

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	telfordv1 "telford.dev/telford/api/telford/v1"
	"telford.dev/telford/internal/errpb"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/ident"
	"telford.dev/telford/server/internal/door/sessions"
	"telford.dev/telford/server/internal/identity"
)

// sessionService serves telford.v1.Session.
type sessionService struct {
	telfordv1.UnimplementedSessionServer
	server *Server
}

// Open implements telfordv1.SessionServer: one stream is one connection of a session.
func (s *sessionService) Open(stream grpc.BidiStreamingServer[telfordv1.ClientMessage, telfordv1.ServerMessage]) error {
	owner, e := s.server.owner(stream.Context())
	if e == nil {
		e = s.server.cfg.Sessions.Admit()
	}
	if e != nil {
		return errpb.ToGRPC(e.In("session", "open")).Err()
	}
	port := s.server.cfg.Sessions.Port(owner)
	t := newTransport(transportOptions{
		send:    func(payload []byte) error { return stream.SendMsg(&raw{payload}) },
		handler: port.Handler(), control: port.Message, running: &s.server.handlers,
		clock: s.server.cfg.Clock, log: s.server.cfg.Log,
	})
	s.server.handlers.Add(1)
	go func() { // ends with the stream, which ends with this call
		defer s.server.handlers.Done()
		t.read(stream.Recv)
	}()
	var writer sync.WaitGroup
	writer.Add(1)
	s.server.handlers.Add(1)
	go func() {
		defer s.server.handlers.Done()
		defer writer.Done()
		t.write()
	}()
	stop := context.AfterFunc(stream.Context(), func() {
		t.Close(errs.New(errs.Unavailable, "the client ended the session's stream"))
	})
	defer stop()
	port.Serve(t)

	// What was queued goes out, for as long as the client takes it; returning is what
	// wakes a writer whose client does not.
	written := make(chan struct{})
	go func() { writer.Wait(); close(written) }()
	timer := time.NewTimer(farewellTime)
	defer timer.Stop()
	select {
	case <-written:
	case <-timer.C:
	}
	err := errs.From(t.Err())
	if errors.Is(err, errEndOfStream) {
		return nil
	}
	return errpb.ToGRPC(err).Err()
}

// errEndOfStream is in the chain of the reason of a stream that the client has ended in
// order.
var errEndOfStream = errors.New("the client has ended its half of the stream")

// read takes in what the client sends until the stream ends.
func (t *transport) read(recv func() (*telfordv1.ClientMessage, error)) {
	for {
		m, err := recv()
		switch {
		case errors.Is(err, io.EOF):
			t.Close(errs.New(errs.Unavailable, "%w", errEndOfStream))
			return
		case err != nil:
			t.Close(errs.New(errs.Unavailable, "the session's stream was lost: %w", err))
			return
		}
		if e := t.receive(m); e != nil {
			t.Close(e)
			return
		}
	}
}

// owner returns whose session a stream is to carry: by certificate, or by key.
func (s *Server) owner(ctx context.Context) (sessions.Owner, *errs.Error) {
	md, _ := metadata.FromIncomingContext(ctx)
	grant, e := s.admitted(ctx, md)
	if e != nil {
		return sessions.Owner{}, e
	}
	if grant.Operator {
		return sessions.Owner{}, errs.New(errs.PermissionDenied, "the operator's token opens no session; use a service key").Unstarted()
	}
	if grant.Kind == identity.KindAPI {
		return sessions.Owner{}, errs.New(errs.PermissionDenied, "key %s is an api key, which registers nothing; use a service key", grant.Caller.KeyID).Unstarted()
	}
	owner := sessions.Owner{Door: "grpc", AnyService: grant.Caller.Service == "", Identity: ident.Identity{
		Namespace: grant.Caller.Namespace, Service: grant.Caller.Service, Instance: grant.Caller.Instance, KeyID: grant.Caller.KeyID,
	}}
	if p := peerOf(ctx); p.Addr != nil {
		owner.Addr = p.Addr.String()
		if grant.Certified {
			owner.Identity = p.Identity
		}
	}
	return owner, nil
}
