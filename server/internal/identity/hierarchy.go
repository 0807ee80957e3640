package identity

import (
	"crypto/x509"
	"encoding/json"
	"slices"
	"strconv"
	"time"

	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/ident"
)

// Phase is where the rotation of the root stands.
type Phase string

// The phases, in their order.
const (
	// Steady: one root, which signs.
	Steady Phase = "steady"
	// Distributing: the next root is trusted everywhere beside the old one, which signs.
	Distributing Phase = "distributing"
	// Signing: the new root signs, the old one is trusted until the last certificate
	// below it has ended.
	Signing Phase = "signing"
	// Retiring: the old root is trusted no more, its private key is destroyed.
	Retiring Phase = "retiring"
)

// Phases returns all phases in their order.
func Phases() []Phase { return []Phase{Steady, Distributing, Signing, Retiring} }

// The states of a root.
const (
	rootActive   = "active"   // signs
	rootNext     = "next"     // trusted, will sign
	rootRetiring = "retiring" // signs no more
	rootFormer   = "former"   // not trusted; keys pinned to it still provision
)

const (
	hierarchyFormat = 1
	// maxFormer is how many former roots are remembered. A key pinned to an older one
	// has to be rotated; whoever verifies takes 32 certificates.
	maxFormer = 10
)

// hierarchy is the durable state of the roots of a cluster, all of it public. It is one
// row of the store that changes only on condition of what it was, so that of several
// nodes one takes each step and all see the same; private keys are in the vault.
type hierarchy struct {
	Format   int       `json:"format"`
	Revision int64     `json:"revision"`
	Phase    Phase     `json:"phase"`
	Since    time.Time `json:"since"`
	Roots    []root    `json:"roots"` // oldest first: one, while rotating two
	// Former are the ways from older roots to the active one, oldest first. While the
	// root is rotated the last is that of the root which is replaced.
	Former []former `json:"former,omitempty"`
	// Back is the active root as signed by the next one, for peers that know only the
	// next. While distributing.
	Back []byte `json:"back,omitempty"`
}

// root is one root of the hierarchy.
type root struct {
	Generation int       `json:"generation"` // names its secret in the vault
	State      string    `json:"state"`
	Cert       []byte    `json:"cert"` // DER
	Made       time.Time `json:"made"`

	cert *x509.Certificate
}

// former is the way from a root to its successor. Neither certificate has an end: what
// they say is about public keys, for whoever has pinned the old one, and nobody can say
// it again once the old private key is destroyed.
type former struct {
	Anchor []byte `json:"anchor"` // the root's key, signed by itself, DER
	Cross  []byte `json:"cross"`  // its successor's key, signed by it, DER

	anchor, cross *x509.Certificate
}

// rootSecret is the name of a root's private key in the vault.
func rootSecret(generation int) string {
	if generation == 1 {
		return vaultRoot
	}
	return "root." + strconv.Itoa(generation) + ".pem"
}

// encode is the row of the store.
func (h *hierarchy) encode() ([]byte, error) {
	b, err := json.Marshal(h)
	if err != nil {
		return nil, errs.New(errs.Internal, "encode the hierarchy: %w", err)
	}
	return b, nil
}

// parseHierarchy is the reverse of encode. The error says what is wrong with the row.
func parseHierarchy(row []byte) (*hierarchy, error) {
	bad := func(format string, args ...any) (*hierarchy, error) {
		return nil, errs.New(errs.FailedPrecondition, "the state of the certificates in the database is damaged ("+format+"); restore it from a backup",
			args...).In(component, "open the certificate authority")
	}
	h := &hierarchy{}
	if err := json.Unmarshal(row, h); err != nil {
		return bad("%w", err)
	}
	if h.Format > hierarchyFormat {
		return nil, errs.New(errs.FailedPrecondition, "the state of the certificates has format %d and this version of telford knows %d; use the newer version that wrote it",
			h.Format, hierarchyFormat).In(component, "open the certificate authority")
	}
	if want, known := map[Phase][]string{
		Steady: {rootActive}, Distributing: {rootActive, rootNext}, Signing: {rootRetiring, rootActive}, Retiring: {rootRetiring, rootActive},
	}[h.Phase]; !known || !slices.Equal(want, h.states()) {
		return bad("phase %q with roots %q", h.Phase, h.states())
	}
	var err error
	for i := range h.Roots {
		r := &h.Roots[i]
		if r.cert, err = x509.ParseCertificate(r.Cert); err != nil {
			return bad("root %d: %w", r.Generation, err)
		}
		if len(r.cert.URIs) != 1 || r.cert.URIs[0].Host != h.Roots[0].cert.URIs[0].Host {
			return bad("root %d names no trust domain, or another one", r.Generation)
		}
	}
	for i := range h.Former {
		f := &h.Former[i]
		if f.anchor, err = x509.ParseCertificate(f.Anchor); err != nil {
			return bad("former root %d: %w", i+1, err)
		}
		if f.cross, err = x509.ParseCertificate(f.Cross); err != nil {
			return bad("cross-certificate %d: %w", i+1, err)
		}
	}
	return h, nil
}

func (h *hierarchy) states() []string {
	states := make([]string, len(h.Roots))
	for i, r := range h.Roots {
		states[i] = r.State
	}
	return states
}

// root returns the root in a state, nil when there is none.
func (h *hierarchy) root(state string) *root {
	for i := range h.Roots {
		if h.Roots[i].State == state {
			return &h.Roots[i]
		}
	}
	return nil
}

// active is the root that signs.
func (h *hierarchy) active() *root { return h.root(rootActive) }

func (h *hierarchy) domain() string { return h.Roots[0].cert.URIs[0].Host }

// trusted returns the roots in force.
func (h *hierarchy) trusted() []*x509.Certificate {
	var certs []*x509.Certificate
	for _, r := range h.Roots {
		if h.Phase != Retiring || r.State != rootRetiring {
			certs = append(certs, r.cert)
		}
	}
	return certs
}

// bridges returns, while two roots are in force, what leads whoever knows only the other
// one to the root with the key: DER.
func (h *hierarchy) bridges(spki [32]byte) [][]byte {
	active := ident.SPKI(h.active().cert)
	switch {
	case spki == active && h.Phase == Distributing && h.Back != nil:
		return [][]byte{h.Back}
	case spki == active && h.Phase == Signing && len(h.Former) > 0:
		return [][]byte{h.Former[len(h.Former)-1].Cross}
	}
	return nil
}

// ways returns what a runtime shows besides its chain to those who have only a key,
// whatever root it is pinned to: DER.
func (h *hierarchy) ways() [][]byte {
	var certs [][]byte
	for _, r := range h.trusted() {
		certs = append(certs, r.Raw)
	}
	for _, f := range slices.Backward(h.Former) {
		certs = append(certs, f.Cross, f.Anchor)
	}
	return certs
}

// pinnable reports whether a key pinned to the hash can be used here.
func (h *hierarchy) pinnable(spki [32]byte) bool {
	for _, r := range h.trusted() {
		if ident.SPKI(r) == spki {
			return true
		}
	}
	for _, f := range h.Former {
		if ident.SPKI(f.anchor) == spki {
			return true
		}
	}
	return false
}

// under returns the key of the root in force that has signed the certificate.
func (h *hierarchy) under(issuer *x509.Certificate) (spki [32]byte, ok bool) {
	for _, r := range h.trusted() {
		if issuer.CheckSignatureFrom(r) == nil {
			return ident.SPKI(r), true
		}
	}
	return spki, false
}

// once reports whether the certificate was signed by a root that is trusted no more.
func (h *hierarchy) once(issuer *x509.Certificate) bool {
	for _, f := range h.Former {
		if issuer.CheckSignatureFrom(f.anchor) == nil {
			return true
		}
	}
	for _, r := range h.Roots {
		if issuer.CheckSignatureFrom(r.cert) == nil {
			return true
		}
	}
	return false
}

// next returns a copy in another phase, for a step to complete.
func (h *hierarchy) next(phase Phase, now time.Time) *hierarchy {
	n := *h
	n.Format, n.Revision, n.Phase, n.Since = hierarchyFormat, h.Revision+1, phase, now.UTC().Truncate(time.Microsecond)
	n.Roots, n.Former = slices.Clone(h.Roots), slices.Clone(h.Former)
	return &n
}

// lives are the spans that the timing of a rotation follows from.
type lives struct {
	leaf time.Duration // the longest life that any certificate was ever given
}

// margin is kept beyond the life of a leaf: for nodes that hear of a step late, clocks
// that differ, and instances that renew at the last moment.
func (l lives) margin() time.Duration { return min(l.leaf/10, time.Hour) + 2*time.Second }

// wait is how long a phase lasts in which every leaf has to be renewed.
func (l lives) wait() time.Duration { return l.leaf + l.margin() }

// due is when the next phase begins by itself. It is a pure function of the state.
func (h *hierarchy) due(l lives) (next Phase, at time.Time) {
	active := h.active()
	switch h.Phase {
	case Steady:
		return Distributing, h.rotateAt()
	case Distributing:
		// A root that is about to end leaves no time: then a third of what it has left,
		// so that leaves can follow in the rest. Cross-certificates serve who has not heard.
		return Signing, h.Since.Add(min(l.wait(), max(0, active.cert.NotAfter.Sub(h.Since)/3)))
	case Signing:
		at = h.Since.Add(l.wait())
		// Nothing below the old root outlives it.
		if end := h.root(rootRetiring).cert.NotAfter.Add(l.margin()); end.Before(at) {
			at = end
		}
		if at.Before(h.Since) {
			at = h.Since
		}
		return Retiring, at
	default:
		return Steady, h.Since
	}
}

// rotateAt is when the rotation of the active root begins by itself: at two thirds of
// its life.
func (h *hierarchy) rotateAt() time.Time {
	active := h.active()
	return active.Made.Add(active.cert.NotAfter.Sub(active.Made) * 2 / 3)
}
