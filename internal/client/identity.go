package client

import (
	"context"
	"crypto/tls"
	"math/rand/v2"
	"net"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/proto"

	telfordv1 "telford.dev/telford/api/telford/v1"
	"telford.dev/telford/internal/errpb"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/ident"
	"telford.dev/telford/internal/link"
	"telford.dev/telford/internal/message"
)

const (
	provisionTimeout = 10 * time.Second
	renewTimeout     = 10 * time.Second
)

// provision exchanges the key for a certificate, on a connection that is pinned to the
// root that the key names.
func (s *Session) provision(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, provisionTimeout)
	defer cancel()
	private, csr, err := ident.NewRequest()
	if err != nil {
		return err
	}
	pinned := ident.PinnedConfig(*s.opt.Key, s.opt.Trust.Clock())
	// gRPC tells only that the handshake has failed; our own verdict says why.
	var verdict atomic.Pointer[errs.Error]
	verify := pinned.VerifyConnection
	pinned.VerifyConnection = func(cs tls.ConnectionState) error {
		err := verify(cs)
		if err != nil {
			verdict.Store(errs.From(err))
		}
		return err
	}
	// It does not tell either what the runtime has said in place of the handshake.
	var opening atomic.Pointer[link.Opening]
	cc, err := grpc.NewClient("passthrough:///"+s.opt.Server,
		grpc.WithTransportCredentials(credentials.NewTLS(pinned)), grpc.WithDisableServiceConfig(),
		grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
			raw, err := s.opt.Dial(ctx, addr)
			if err != nil {
				return nil, err
			}
			o := &link.Opening{Conn: raw}
			opening.Store(o)
			return o, nil
		}))
	if err != nil {
		return errs.New(errs.Internal, "provision: %w", err)
	}
	defer cc.Close()
	answer, err := telfordv1.NewIdentityClient(cc).Provision(ctx, &telfordv1.ProvisionRequest{
		KeyId: s.opt.Key.ID, Secret: s.opt.Key.Secret[:], Csr: csr, Service: s.opt.Service, Instance: s.opt.Instance,
	})
	if e := verdict.Load(); err != nil && e != nil {
		return e.In("sdk", "provision at "+s.opt.Server)
	}
	if o := opening.Load(); err != nil && o != nil {
		if busy := o.Busy(); busy != nil {
			return busy.In("sdk", "provision at "+s.opt.Server)
		}
	}
	if err != nil {
		return errpb.FromTransport(err).In("sdk", "provision at "+s.opt.Server)
	}
	cert, err := ident.Certificate(answer.GetChain(), private)
	if err != nil {
		return errs.From(err).In("sdk", "provision at "+s.opt.Server)
	}
	return s.adopt(cert, answer.GetRoots())
}

// adopt puts a certificate and roots in force.
func (s *Session) adopt(cert tls.Certificate, roots [][]byte) error {
	parsed, err := ident.ParseCertificates(roots)
	if err != nil {
		return err
	}
	if len(parsed) > 0 {
		s.opt.Trust.SetRoots(parsed)
	}
	if err := s.opt.Trust.SetCertificate(cert); err != nil {
		return err
	}
	s.plan()
	own := s.opt.Trust.Identity()
	s.opt.Log.Debug("a certificate is in force", "identity", own.String(), "not_after", own.NotAfter)
	return nil
}

// usable reports whether the certificate in force is good for another connection.
func (s *Session) usable() bool {
	own := s.opt.Trust.Identity()
	if own.Instance == "" {
		return false
	}
	if s.opt.Key == nil {
		return true // it is not ours to replace
	}
	left := own.NotAfter.Sub(s.opt.Trust.Clock().Now())
	return left > own.NotAfter.Sub(own.NotBefore)/20
}

// plan decides when the certificate that has just come into force is renewed: at two
// thirds of its life, less up to a twentieth, so that instances started together do not
// renew together.
func (s *Session) plan() {
	own := s.opt.Trust.Identity()
	life := own.NotAfter.Sub(own.NotBefore)
	at := own.RenewAt().Add(-time.Duration(rand.Float64() * float64(life) / 20)) //nolint:gosec // spreads load, guards nothing
	s.renewAt.Store(&at)
}

// renewDue is when the certificate in force is to be renewed.
func (s *Session) renewDue() time.Time {
	at := s.renewAt.Load()
	if at == nil {
		s.plan() // the certificate is one from before this session
		at = s.renewAt.Load()
	}
	due := *at
	if w := s.wanted; !w.by.IsZero() && w.by.Before(due) && !s.opt.Trust.Under(w.signing) {
		due = w.by
	}
	return due
}

// renew gets the next certificate over the session and puts it in force.
func (s *Session) renew(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, renewTimeout)
	defer cancel()
	private, csr, err := ident.NewRequest()
	if err != nil {
		return err
	}
	body, err := proto.Marshal(&telfordv1.RenewRequest{Csr: csr})
	if err != nil {
		return errs.New(errs.Internal, "renew the certificate: %w", err)
	}
	reply, err := s.peer.Call(ctx, &message.Call{
		Service: ident.RuntimeService, Method: "telford.v1.Identity/Renew", ContentType: message.Proto, Body: body,
	})
	if err != nil {
		return err
	}
	if reply.Err != nil {
		return reply.Err
	}
	var answer telfordv1.RenewResponse
	if err := proto.Unmarshal(reply.Body, &answer); err != nil {
		return errs.New(errs.Internal, "renew the certificate: the answer cannot be read: %w", err)
	}
	cert, err := ident.Certificate(answer.GetChain(), private)
	if err != nil {
		return err
	}
	return s.adopt(cert, answer.GetRoots())
}
