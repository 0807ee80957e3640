package identity

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/x509"
	"fmt"
	"time"

	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/ident"
)

// maxCSR is the largest certificate request looked at, in bytes.
const maxCSR = 16 << 10

// ProvisionRequest asks for the first certificate of an instance.
type ProvisionRequest struct {
	KeyID  string
	Secret []byte `json:"-"`
	// CSR is a PKCS#10 request, DER: ECDSA P-256 or P-384, or Ed25519. Only its key is
	// used; the names in it are not.
	CSR []byte
	// Service must be the key's, or empty; with a dev key it must be given.
	Service string
	// Instance is the wanted id; empty has one made.
	Instance string
}

// Format implements fmt.Formatter: everything but the secret.
func (in ProvisionRequest) Format(s fmt.State, _ rune) {
	_, _ = fmt.Fprintf(s, "provision{key=%q service=%q instance=%q csr=%d bytes}", in.KeyID, in.Service, in.Instance, len(in.CSR))
}

// Issued is a certificate with what its holder needs besides.
type Issued struct {
	Chain    [][]byte // leaf and issuer, DER, without the root
	Roots    [][]byte // to trust, DER
	Identity ident.Identity
}

// Provision issues the first certificate of an instance to the holder of a service
// key. Errors: Unauthenticated for a key that is unknown, wrong, expired or revoked;
// PermissionDenied for a service that is not the key's, an api key, a revoked
// instance; AlreadyExists for an instance id that another service has; InvalidArgument
// for a request that cannot be read.
func (a *Authority) Provision(ctx context.Context, in ProvisionRequest) (*Issued, error) {
	const operation = "provision a certificate"
	k, err := a.authenticate(in.KeyID, in.Secret)
	if err != nil {
		return nil, errs.From(err).In(component, operation)
	}
	id, err := a.wanted(k, in)
	if err != nil {
		return nil, errs.From(err).In(component, operation)
	}
	public, err := checkCSR(in.CSR)
	if err != nil {
		return nil, errs.From(err).In(component, operation)
	}
	if err := a.checkFree(id); err != nil {
		return nil, errs.From(err).In(component, operation)
	}
	out, err := a.issue(ctx, k, id, public)
	if err != nil {
		return nil, errs.From(err).In(component, operation)
	}
	a.log.Info("certificate issued", "identity", out.Identity.String(), "key", k.ID, "not_after", out.Identity.NotAfter)
	return out, nil
}

// Renew issues the next certificate to the holder of a valid one: id must come from
// the verified certificate of the connection. It is refused once the certificate has
// expired, or its key or instance is revoked or expired, and with ResourceExhausted
// when one instance renews far more often than its certificates need.
func (a *Authority) Renew(ctx context.Context, id ident.Identity, csr []byte) (*Issued, error) {
	const operation = "renew a certificate"
	k, err := a.renewable(id)
	if err != nil {
		return nil, errs.From(err).In(component, operation)
	}
	if wait, ok := a.renewals.take(id.QualifiedInstance(), a.clock.Now()); !ok {
		return nil, errs.New(errs.ResourceExhausted, "%s renews too often; once per certificate, at two thirds of its life, is enough", id).
			After(wait).In(component, operation)
	}
	public, err := checkCSR(csr)
	if err != nil {
		return nil, errs.From(err).In(component, operation)
	}
	out, err := a.issue(ctx, k, id, public)
	if err != nil {
		return nil, errs.From(err).In(component, operation)
	}
	a.log.Debug("certificate renewed", "identity", out.Identity.String(), "key", k.ID, "not_after", out.Identity.NotAfter)
	return out, nil
}

// wanted returns the identity that a request of the key's holder is for.
func (a *Authority) wanted(k *Key, in ProvisionRequest) (ident.Identity, error) {
	id := ident.Identity{
		TrustDomain: a.ca.domain, Namespace: k.Namespace, Service: in.Service, Instance: in.Instance, KeyID: k.ID,
	}
	if id.Service == "" {
		id.Service = k.Service
	}
	switch k.Kind {
	case KindService:
		if id.Service != k.Service {
			return id, errs.New(errs.PermissionDenied, "key %s is the key of service %q, not of %q; create one with: telford keys create --service %s",
				k.ID, k.Service, clip(id.Service), clip(id.Service))
		}
	case KindDev:
		if id.Service == "" {
			return id, errs.New(errs.InvalidArgument, "a dev key may be any service: say which")
		}
	default:
		return id, errs.New(errs.PermissionDenied, "key %s is an %s key, which is for the HTTP, REST and bus doors; "+
			"create a service key with: telford keys create --service NAME", k.ID, k.Kind)
	}
	if err := checkOwnService(id.Service); err != nil {
		return id, err
	}
	if id.Instance == "" {
		id.Instance = a.ids.New("in", a.clock.Now())
	}
	if err := ident.CheckInstance(id.Instance); err != nil {
		return id, err
	}
	return id, a.checkInstance(id)
}

// checkInstance refuses a revoked instance.
func (a *Authority) checkInstance(id ident.Identity) error {
	if until, revoked := a.revs.instanceUntil(id.QualifiedInstance()); revoked {
		return errs.New(errs.PermissionDenied, "instance %s is revoked; its id is free again at %s",
			id.QualifiedInstance(), until.Format(time.RFC3339))
	}
	return nil
}

// checkFree refuses an instance id that a live instance of another service has.
func (a *Authority) checkFree(id ident.Identity) error {
	holder, held := a.issued.holder(id, a.clock.Now())
	if !held {
		a.holderMu.RLock()
		f := a.holder
		a.holderMu.RUnlock()
		if f != nil {
			holder, held = f(id.Namespace, id.Instance)
		}
	}
	if held && holder != id.Service {
		return errs.New(errs.AlreadyExists, "instance id %q is that of a live instance of service %q; choose another, or none to have one made",
			id.Instance, holder)
	}
	return nil
}

func (a *Authority) renewable(id ident.Identity) (*Key, error) {
	now := a.clock.Now()
	switch {
	case id.TrustDomain != a.ca.domain:
		return nil, errs.New(errs.Unauthenticated, "%s is of another trust domain; ours is %s", id, a.ca.domain)
	case id.KeyID == "":
		return nil, errs.New(errs.PermissionDenied, "%s was not issued by a service key, and cannot be renewed", id)
	case now.After(id.NotAfter):
		return nil, errs.New(errs.Unauthenticated, "%s expired at %s; provision again with the service key", id, id.NotAfter.Format(time.RFC3339))
	}
	k := a.keys.get(id.KeyID)
	if k == nil {
		return nil, errs.New(errs.Unauthenticated, "%s was issued by key %s, which is not known to this cluster", id, clip(id.KeyID))
	}
	if err := k.usable(now); err != nil {
		return nil, err
	}
	if k.Kind == KindDev && !a.cfg.Dev {
		return nil, errs.New(errs.PermissionDenied, "%s was issued by a dev key, and this runtime is not in dev mode", id)
	}
	if k.Kind == KindAPI || k.Namespace != id.Namespace || (k.Kind == KindService && k.Service != id.Service) {
		return nil, errs.New(errs.PermissionDenied, "%s is not what key %s is for", id, k.ID)
	}
	return k, a.checkInstance(id)
}

func (a *Authority) issue(ctx context.Context, k *Key, id ident.Identity, public any) (*Issued, error) {
	cert, chain, err := a.ca.sign(ctx, leaf{uri: id.URI(), keyID: k.ID, public: public, notAfter: k.Expires})
	if err != nil {
		return nil, err
	}
	// A revocation that came while signing is not outrun.
	now := a.keys.get(k.ID)
	if err := now.usable(a.clock.Now()); err != nil {
		return nil, err
	}
	if err := a.checkInstance(id); err != nil {
		return nil, err
	}
	if id, err = ident.FromCertificate(cert); err != nil {
		return nil, errs.New(errs.Internal, "read back what was signed: %w", err)
	}
	a.issued.put(id)
	out := &Issued{Chain: chain, Identity: id}
	for _, root := range a.trust.Roots() {
		out.Roots = append(out.Roots, root.Raw)
	}
	return out, nil
}

// checkCSR returns the public key of a request, once it is proved that the sender has
// the private one.
func checkCSR(der []byte) (any, error) {
	if len(der) == 0 {
		return nil, errs.New(errs.InvalidArgument, "certificate request: empty; want PKCS#10 in DER")
	}
	if len(der) > maxCSR {
		return nil, errs.New(errs.InvalidArgument, "certificate request: %d bytes, at most %d are looked at", len(der), maxCSR)
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, errs.New(errs.InvalidArgument, "certificate request: not PKCS#10 in DER: %w", err)
	}
	switch public := csr.PublicKey.(type) {
	case *ecdsa.PublicKey:
		if public.Curve != elliptic.P256() && public.Curve != elliptic.P384() {
			return nil, errs.New(errs.InvalidArgument, "certificate request: curve %s; want P-256, P-384 or Ed25519", public.Curve.Params().Name)
		}
	case ed25519.PublicKey:
	default:
		return nil, errs.New(errs.InvalidArgument, "certificate request: a %s key; want ECDSA P-256, ECDSA P-384 or Ed25519", csr.PublicKeyAlgorithm)
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, errs.New(errs.InvalidArgument, "certificate request: its signature is wrong: %w", err)
	}
	return csr.PublicKey, nil
}
