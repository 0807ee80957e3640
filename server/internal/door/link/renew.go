package linkdoor

import (
	"context"

	"google.golang.org/protobuf/proto"

	telfordv1 "telford.dev/telford/api/telford/v1"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/ident"
	"telford.dev/telford/internal/message"
	"telford.dev/telford/server/internal/identity"
	"telford.dev/telford/server/internal/router"
)

// The name under which an instance asks for its next certificate over its session.
const (
	builtIn     = "telford"
	renewMethod = "telford.v1.Identity/Renew"
)

// Router takes built-in methods; *router.Router is one.
type Router interface {
	HandleLocal(service, method string, fn router.LocalFunc)
}

// Authority issues certificates; *identity.Authority is one.
type Authority interface {
	Renew(ctx context.Context, id ident.Identity, csr []byte) (*identity.Issued, error)
}

// renew issues the next certificate to the instance that calls. Its identity is that of
// its connection, not of the message.
func (d *Door) renew(ctx context.Context, req *router.Request) (*message.Reply, error) {
	if ct := req.Call.ContentType; ct != message.Proto {
		return nil, errs.New(errs.InvalidArgument, "%s takes protobuf and the body is %q", renewMethod, ct.String()).Unstarted()
	}
	id, ok := d.cfg.Sessions.Identity(req.Caller.Namespace, req.Caller.Instance)
	switch {
	case !ok || id.Service != req.Caller.Service:
		return nil, errs.New(errs.FailedPrecondition, "a certificate is renewed over the session of the instance that it is for").Unstarted()
	case id.NotAfter.IsZero():
		return nil, errs.New(errs.FailedPrecondition, "instance %q holds its session by a key and has no certificate to renew; provision one", id.Instance).Unstarted()
	}
	in := new(telfordv1.RenewRequest)
	if err := proto.Unmarshal(req.Call.Body, in); err != nil {
		return nil, errs.New(errs.InvalidArgument, "decode RenewRequest: %w", err).Unstarted()
	}
	issued, err := d.cfg.Authority.Renew(ctx, id, in.GetCsr())
	if err != nil {
		return nil, err
	}
	body, err := proto.Marshal(&telfordv1.RenewResponse{
		Chain: issued.Chain, Roots: issued.Roots, NotAfterUs: issued.Identity.NotAfter.UnixMicro(),
	})
	if err != nil {
		return nil, errs.New(errs.Internal, "encode RenewResponse: %w", err)
	}
	return &message.Reply{ContentType: message.Proto, Body: body}, nil
}
