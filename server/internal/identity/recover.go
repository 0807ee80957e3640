package identity

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"telford.dev/telford/internal/errs"
	"telford.dev/telford/server/internal/tx"
)

// Recovery is what Recover has done.
type Recovery struct {
	TrustDomain string
	// Root and Issuer are those in force now.
	Root, Issuer Certificate
	// KeysGood says that service keys printed before go on provisioning. Else every one
	// of them has to be rotated.
	KeysGood bool
	// Done and Next say what was done and what is to do, a sentence each.
	Done, Next []string
	// Roots are the roots to trust, DER.
	Roots [][]byte
}

// Recover gives a cluster whose root or issuer has expired, or whose private key is lost
// or damaged, working ones. No runtime may use the store meanwhile. It works by the
// private key of the root alone, however long ago its certificate ended: what a service
// key is pinned to is a public key, which has no end. It can be repeated after any
// failure.
//
// Errors: FailedPrecondition when there is nothing to recover, when a runtime uses a
// shared store, or when the vault cannot be opened with this cluster secret.
func Recover(ctx context.Context, cfg Config) (*Recovery, error) {
	const operation = "recover the certificates"
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	m := meta{cfg.DB, cfg.Storage}
	row, err := m.get(ctx, metaHierarchy)
	if errors.Is(err, tx.ErrNotFound) {
		return nil, errs.New(errs.FailedPrecondition, "there is no cluster here, and so nothing to recover; telford serve makes one").In(component, operation)
	}
	if err != nil {
		return nil, storageError(operation, err)
	}
	if err := checkUnused(ctx, m, cfg); err != nil {
		return nil, errs.From(err).In(component, operation)
	}
	// With another secret than the cluster's nothing of what follows could be used.
	if _, err := openSecret(ctx, m, cfg.Vault, cfg.ClusterSecret); err != nil {
		return nil, err
	}
	h, err := parseHierarchy(row)
	if err != nil {
		return nil, err
	}
	now := cfg.Clock.Now()
	c := &ca{
		clock: cfg.Clock, log: cfg.Log, vault: cfg.Vault, meta: m, changed: func() {}, domain: h.domain(),
		rootLife: cfg.RootLife, issuerLife: cfg.IssuerLife, leafLife: cfg.LeafLife,
	}
	c.longest.Store(int64(cfg.LeafLife))
	c.current.Store(&standing{h, row, now})
	r := &rescue{ca: c, now: now, out: &Recovery{TrustDomain: c.domain}}
	if err := r.run(ctx); err != nil {
		return nil, errs.From(err).In(component, operation)
	}
	return r.out, nil
}

// checkUnused refuses a shared store that a node has used a moment ago.
func checkUnused(ctx context.Context, m meta, cfg Config) error {
	if !cfg.Shared {
		return nil // the store itself is locked
	}
	value, err := m.get(ctx, metaAlive)
	if errors.Is(err, tx.ErrNotFound) {
		return nil
	}
	if err != nil {
		return storageError("look for runtimes", err)
	}
	us, err := parseNumber(metaAlive, value)
	if err != nil {
		return err
	}
	last := time.UnixMicro(us).UTC()
	if free := last.Add(aliveFor); cfg.Clock.Now().Before(free) {
		return errs.New(errs.FailedPrecondition, "a runtime has used this database at %s: stop every node, and try again after %s",
			last.Format(time.RFC3339), free.Format(time.RFC3339))
	}
	return nil
}

// rescue is one run of Recover.
type rescue struct {
	ca  *ca
	now time.Time
	out *Recovery
}

func (r *rescue) did(format string, args ...any) {
	r.out.Done = append(r.out.Done, fmt.Sprintf(format, args...))
}

func (r *rescue) todo(sentence string) { r.out.Next = append(r.out.Next, sentence) }

func (r *rescue) run(ctx context.Context) error {
	c := r.ca
	active := c.current.Load().active()
	key, why, err := r.usable(ctx, active)
	if err != nil {
		return err
	}
	expired := r.now.After(active.cert.NotAfter)
	switch {
	case key == nil || expired:
		if expired {
			r.did("the root %q expired at %s", active.cert.Subject.CommonName, active.cert.NotAfter.UTC().Format(time.RFC3339))
		}
		if key == nil {
			r.did("its private key %s: %s", rootSecret(active.Generation), why)
		}
		if err := r.replaceRoot(ctx, key, expired); err != nil {
			return err
		}
	default:
		sound, err := r.issuerSound(ctx)
		if err != nil {
			return err
		}
		if sound {
			return errs.New(errs.FailedPrecondition, "there is nothing to recover: the root is good until %s, and so is its issuer; "+
				"to replace the root, start the runtime and run: telford pki rotate-root", active.cert.NotAfter.UTC().Format(time.RFC3339))
		}
	}
	if err := c.renewIssuer(ctx, r.now); err != nil {
		return err
	}
	r.did("a new issuer is good until %s", c.issuer.Load().cert.NotAfter.UTC().Format(time.RFC3339))
	r.tell()
	return nil
}

// tell completes the report.
func (r *rescue) tell() {
	c, h := r.ca, r.ca.current.Load()
	for _, cert := range c.status(r.now, nil).Certificates {
		switch {
		case cert.Role == RoleRoot && cert.State == rootActive:
			r.out.Root = cert
		case cert.Role == RoleIssuer:
			r.out.Issuer = cert
		}
	}
	for _, cert := range h.trusted() {
		r.out.Roots = append(r.out.Roots, cert.Raw)
	}
	r.out.KeysGood = h.active().Generation == 1 || len(h.Former) > 0
	r.todo("start the runtime: telford serve")
	if r.out.KeysGood {
		r.todo("services need nothing: they provision again with the keys that they have, within their reconnect delay")
	} else {
		r.todo("make a successor of every service key, and give it to its service: no key printed before will provision. " +
			"List them with telford keys list, then run telford keys rotate ID for each")
		r.todo("restart each service with its new key")
	}
	r.todo("give ca.crt to everything that verifies this runtime by a copy of it, such as curl and Prometheus")
}

// usable loads the private key of a root; nil with the reason when it is lost. An error
// says that the vault cannot be read, which loses nothing.
func (r *rescue) usable(ctx context.Context, of *root) (key *authority, why string, err error) {
	name := rootSecret(of.Generation)
	secret, err := r.ca.vault.Load(ctx, name)
	if errors.Is(err, tx.ErrNotFound) {
		return nil, "is missing", nil
	}
	if err != nil {
		return nil, "", storageError("load "+name, err)
	}
	key, err = parseAuthority(name, secret)
	switch {
	case err != nil:
		return nil, "is damaged", nil //nolint:nilerr // damage is what Recover is for
	case !bytes.Equal(key.cert.Raw, of.Cert):
		return nil, "is that of another cluster", nil
	}
	return key, "", nil
}

// issuerSound reports whether the issuer in the vault is good.
func (r *rescue) issuerSound(ctx context.Context) (bool, error) {
	secret, err := r.ca.vault.Load(ctx, vaultIssuer)
	switch {
	case errors.Is(err, tx.ErrNotFound):
		r.did("the issuer %s is missing", vaultIssuer)
		return false, nil
	case err != nil:
		return false, storageError("load "+vaultIssuer, err)
	}
	issuer, err := parseAuthority(vaultIssuer, secret)
	if err != nil {
		r.did("the issuer %s is damaged", vaultIssuer)
		return false, nil //nolint:nilerr // damage is what Recover is for
	}
	if _, ok := r.ca.current.Load().under(issuer.cert); !ok {
		r.did("the issuer %s is that of a root which is not trusted here", vaultIssuer)
		return false, nil
	}
	if r.now.After(issuer.cert.NotAfter) {
		r.did("the issuer expired at %s", issuer.cert.NotAfter.UTC().Format(time.RFC3339))
		return false, nil
	}
	return true, nil
}

// replaceRoot puts another root in the place of the active one: the next one, where it
// was prepared already, else a new one that the old one vouches for, where its key is
// at hand.
func (r *rescue) replaceRoot(ctx context.Context, old *authority, expired bool) error {
	c := r.ca
	was := c.current.Load()
	active := *was.active()
	last := was.Roots[len(was.Roots)-1].Generation
	// While the old root lives its leaves do, and it is retired in its time.
	phase := Signing
	if expired {
		phase = Retiring
	}
	next := was.next(phase, r.now)
	next.Back = nil
	active.State = rootRetiring

	if prepared := was.root(rootNext); prepared != nil {
		key, _, err := r.usable(ctx, prepared)
		if err != nil {
			return err
		}
		if key != nil && r.now.Before(prepared.cert.NotAfter) {
			promoted := *prepared
			promoted.State = rootActive
			next.Roots = []root{active, promoted}
			r.did("the next root %q, which was prepared, takes over", prepared.cert.Subject.CommonName)
			return c.swap(ctx, was, next)
		}
		next.Former = next.Former[:len(next.Former)-1]
	}
	fresh, generation, err := c.freshRoot(ctx, last+1, r.now)
	if err != nil {
		return err
	}
	r.did("a new root %q is good until %s", fresh.cert.Subject.CommonName, fresh.cert.NotAfter.UTC().Format(time.RFC3339))
	if old != nil {
		if next.Former, err = linked(next.Former, old, fresh); err != nil {
			return err
		}
		r.did("the old root's key has signed the new root and a certificate for itself without an end, so that keys pinned to it provision")
	} else {
		next.Former = nil // nothing leads to the new root, from wherever
	}
	next.Roots = []root{active, {Generation: generation, State: rootActive, Cert: fresh.cert.Raw, Made: madeAt(fresh.cert)}}
	return c.swap(ctx, was, next)
}
