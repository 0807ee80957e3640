package grpcdoor

import (
	"context"

	telfordv1 "telford.dev/telford/api/telford/v1"
	"telford.dev/telford/internal/errpb"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/server/internal/identity"
)

// identityService serves telford.v1.Identity.
type identityService struct {
	telfordv1.UnimplementedIdentityServer
	authority Authority
}

// Provision implements telfordv1.IdentityServer. The credential is in the request.
func (s *identityService) Provision(ctx context.Context, in *telfordv1.ProvisionRequest) (*telfordv1.ProvisionResponse, error) {
	issued, err := s.authority.Provision(ctx, identity.ProvisionRequest{
		KeyID: in.GetKeyId(), Secret: in.GetSecret(), CSR: in.GetCsr(), Service: in.GetService(), Instance: in.GetInstance(),
	})
	if err != nil {
		return nil, errpb.ToGRPC(errs.From(err).In("identity", "provision")).Err()
	}
	id := issued.Identity
	return &telfordv1.ProvisionResponse{
		Chain: issued.Chain, Roots: issued.Roots,
		Namespace: id.Namespace, Service: id.Service, Instance: id.Instance,
		TrustDomain: s.authority.TrustDomain(), NotAfterUs: id.NotAfter.UnixMicro(),
	}, nil
}

// Renew implements telfordv1.IdentityServer. The identity is that of the certificate.
func (s *identityService) Renew(ctx context.Context, in *telfordv1.RenewRequest) (*telfordv1.RenewResponse, error) {
	id, e := certificate(ctx)
	if e != nil {
		return nil, errpb.ToGRPC(e.In("identity", "renew")).Err()
	}
	issued, err := s.authority.Renew(ctx, id, in.GetCsr())
	if err != nil {
		return nil, errpb.ToGRPC(errs.From(err).In("identity", "renew")).Err()
	}
	return &telfordv1.RenewResponse{Chain: issued.Chain, Roots: issued.Roots, NotAfterUs: issued.Identity.NotAfter.UnixMicro()}, nil
}
