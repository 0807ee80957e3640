package admin

import (
	"context"
	"encoding/hex"

	adminv1 "telford.dev/telford/server/api/telford/admin/v1"
	"telford.dev/telford/server/internal/identity"
)

// PKI is the part of the identity domain that keeps the certificates of the cluster;
// *identity.Authority is one.
type PKI interface {
	PKI() identity.PKIStatus
	RotateRoot(ctx context.Context, now bool) (identity.PKIStatus, error)
}

// pki implements telford.admin.v1.PKI.
type pki struct {
	adminv1.UnimplementedPKIServer
	api *API
}

func (p *pki) GetStatus(context.Context, *adminv1.GetPKIStatusRequest) (*adminv1.PKIStatus, error) {
	return pkiToProto(p.api.cfg.Authority.PKI()), nil
}

func (p *pki) RotateRoot(ctx context.Context, in *adminv1.RotateRootRequest) (*adminv1.PKIStatus, error) {
	status, err := p.api.cfg.Authority.RotateRoot(ctx, in.GetNow())
	if err != nil {
		return nil, err
	}
	return pkiToProto(status), nil
}

func pkiToProto(s identity.PKIStatus) *adminv1.PKIStatus {
	out := &adminv1.PKIStatus{
		TrustDomain: s.TrustDomain, Phase: string(s.Phase), PhaseSince: timestamp(s.Since),
		NextAt: timestamp(s.NextAt), RotateAt: timestamp(s.RotateAt),
	}
	for i := range s.Certificates {
		c := &s.Certificates[i]
		out.Certificates = append(out.Certificates, &adminv1.Certificate{
			Role: c.Role, State: c.State, Subject: c.Subject, Serial: c.Serial, Spki: hex.EncodeToString(c.SPKI[:]),
			NotBefore: timestamp(c.NotBefore), NotAfter: timestamp(c.NotAfter), DaysLeft: int32(c.DaysLeft),
		})
	}
	return out
}
