package grpcdoor

import (
	"context"

	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/ident"
	"telford.dev/telford/server/internal/door/accept"
	"telford.dev/telford/server/internal/door/admit"
	"telford.dev/telford/server/internal/door/callmeta"
)

// peerOf returns what the handshake has shown of whoever calls.
func peerOf(ctx context.Context) accept.Peer {
	if p, ok := peer.FromContext(ctx); ok {
		if info, ok := p.AuthInfo.(accept.AuthInfo); ok {
			return info.Peer
		}
	}
	return accept.Peer{}
}

// certificate returns the proven identity of whoever calls.
func certificate(ctx context.Context) (ident.Identity, *errs.Error) {
	p := peerOf(ctx)
	switch {
	case p.Rejected != nil:
		return ident.Identity{}, p.Rejected
	case !p.Known:
		return ident.Identity{}, errs.New(errs.Unauthenticated, "this needs a client certificate and none was presented").Unstarted()
	}
	return p.Identity, nil
}

// admitted returns who calls: by the key in the metadata where there is one, else by
// the certificate. A certificate that was presented and is not believed fails the call
// even with a key, since the caller means to be somebody else.
func (s *Server) admitted(ctx context.Context, md metadata.MD) (*admit.Grant, *errs.Error) {
	namespace, err := single(md, callmeta.Namespace)
	if err != nil {
		return nil, err
	}
	p := peerOf(ctx)
	if p.Rejected != nil {
		return nil, p.Rejected
	}
	bearer, err := single(md, callmeta.Authorization)
	if err != nil {
		return nil, err
	}
	if bearer == "" && p.Known {
		return s.cfg.Gate.Certificate(p.Identity, namespace)
	}
	return s.cfg.Gate.Bearer(ctx, bearer, namespace)
}

func single(md metadata.MD, name string) (string, *errs.Error) {
	switch values := md.Get(name); len(values) {
	case 0:
		return "", nil
	case 1:
		return values[0], nil
	default:
		return "", errs.New(errs.InvalidArgument, "metadata %s was given %d times and may be given once", name, len(values)).Unstarted()
	}
}
