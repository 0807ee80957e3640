package identity

import (
	"bytes"
	"context"
	"errors"
	"time"

	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/ident"
	"telford.dev/telford/server/internal/tx"
)

// maxSteps bounds the steps taken in a row: a whole rotation, and a contest with other
// nodes about each.
const maxSteps = 16

func (c *ca) lives() lives { return lives{leaf: time.Duration(c.longest.Load())} }

// lookEvery is how often the store is asked what other nodes have done.
func (c *ca) lookEvery() time.Duration { return min(upkeepLongest, c.leafLife/20) }

// confirm asks the store again when it was not asked for a while. A failure is no
// error: what is signed meanwhile gets the shorter, see latest.
func (c *ca) confirm(ctx context.Context) {
	age := c.clock.Now().Sub(c.current.Load().confirmed)
	if age >= 0 && age <= c.lookEvery() {
		return
	}
	if err := c.look(ctx); err != nil && ctx.Err() == nil {
		c.log.Warn("the state of the certificates could not be read; certificates get shorter until it can", "error", err)
	}
}

// look is refresh for who only wants to know whether another node has changed anything:
// where there is no other the store is not asked.
func (c *ca) look(ctx context.Context) error {
	if c.shared {
		return c.refresh(ctx)
	}
	return c.install(c.current.Load().row, c.clock.Now())
}

// refresh reads the hierarchy and puts it in force.
func (c *ca) refresh(ctx context.Context) error {
	now := c.clock.Now()
	var row, life []byte
	err := c.meta.db.Read(ctx, func(t tx.Tx) (err error) {
		if row, err = c.meta.store.Meta(t, metaHierarchy); err != nil {
			return err
		}
		life, err = c.meta.store.Meta(t, metaLeafLife)
		if errors.Is(err, tx.ErrNotFound) {
			return nil
		}
		return err
	})
	if err != nil {
		return storageError("read the state of the certificates", err)
	}
	if n, err := parseLife(life); err == nil && n > c.leafLife {
		c.longest.Store(int64(n))
	}
	return c.install(row, now)
}

// install puts a hierarchy in force that the store had at an instant.
func (c *ca) install(row []byte, confirmed time.Time) error {
	c.set.Lock()
	old := c.current.Load()
	if bytes.Equal(row, old.row) {
		// The clock may have been set back.
		c.current.Store(&standing{old.hierarchy, old.row, confirmed})
		c.set.Unlock()
		return nil
	}
	h, err := parseHierarchy(row)
	if err != nil {
		c.set.Unlock()
		return err
	}
	if h.Revision <= old.Revision { // a slower reader
		c.set.Unlock()
		return nil
	}
	c.current.Store(&standing{h, row, confirmed})
	c.set.Unlock()
	c.log.Info("the state of the certificates has changed", "phase", h.Phase, "revision", h.Revision, "root", h.active().cert.Subject.CommonName)
	c.changed()
	return nil
}

// swap makes next the hierarchy of the cluster, if it is still what it was. An error
// that is tx.ErrStale: another node was first.
func (c *ca) swap(ctx context.Context, was *standing, next *hierarchy) error {
	row, err := next.encode()
	if err != nil {
		return err
	}
	now := c.clock.Now()
	if err := c.meta.swap(ctx, metaHierarchy, was.row, row); err != nil {
		return err
	}
	return c.install(row, now)
}

// advance takes every step that is due. What it leaves undone is due again the next
// time, here or on another node: each step begins from what is stored and can be taken
// again after any part of it.
func (c *ca) advance(ctx context.Context) error {
	c.turn.Lock()
	defer c.turn.Unlock()
	read := c.look
	for range maxSteps {
		if err := read(ctx); err != nil {
			return err
		}
		now, h := c.clock.Now(), c.current.Load()
		step, at := h.due(c.lives())
		if now.Before(at) {
			return nil
		}
		if step == Distributing && !now.Before(h.active().cert.NotAfter) {
			return nil // renewing the issuer says what to do
		}
		if err := c.step(ctx, h, step); err != nil && !errors.Is(err, tx.ErrStale) {
			return err
		}
		read = c.refresh
	}
	return nil
}

// force begins a rotation, or, with now, goes to the next phase at once.
func (c *ca) force(ctx context.Context, now bool) error {
	const operation = "rotate the root"
	c.turn.Lock()
	defer c.turn.Unlock()
	for range maxSteps {
		if err := c.refresh(ctx); err != nil {
			return err
		}
		h := c.current.Load()
		if end := h.active().cert.NotAfter; c.clock.Now().After(end) {
			return errs.New(errs.FailedPrecondition, "the root expired at %s, and signs no successor; stop the runtime and run: telford pki recover",
				end.Format(time.RFC3339)).In(component, operation)
		}
		step, at := h.due(c.lives())
		if h.Phase != Steady && !now {
			return errs.New(errs.FailedPrecondition, "a rotation is under way: %s since %s, goes on by itself at %s; "+
				"to go on at once: telford pki rotate-root --now", h.Phase, h.Since.Format(time.RFC3339), at.UTC().Format(time.RFC3339)).In(component, operation)
		}
		err := c.step(ctx, h, step)
		switch {
		case err != nil:
		case now && h.Phase == Steady:
			err = c.step(ctx, c.current.Load(), Signing)
		case step == Retiring:
			err = c.step(ctx, c.current.Load(), Steady)
		}
		if !errors.Is(err, tx.ErrStale) {
			return err
		}
	}
	return errs.New(errs.Unavailable, "other nodes are changing the same; try again").In(component, operation)
}

func (c *ca) step(ctx context.Context, h *standing, to Phase) error {
	switch to {
	case Distributing:
		return c.distribute(ctx, h, h.Roots[len(h.Roots)-1].Generation+1)
	case Signing:
		return c.signWithNext(ctx, h)
	case Retiring:
		return c.retire(ctx, h)
	default:
		return c.finish(ctx, h)
	}
}

// distribute makes the next root and has the two vouch for each other.
//
// The secret comes first: its name follows from the state, so that whoever takes this
// step again, after a crash or on another node, finds it and goes on with it.
func (c *ca) distribute(ctx context.Context, was *standing, generation int) error {
	const operation = "make the next root"
	now, active := c.clock.Now(), was.active()
	old, err := c.rootKey(ctx, active)
	if err != nil {
		return err
	}
	fresh, generation, err := c.freshRoot(ctx, generation, now)
	if err != nil {
		return err
	}
	next := was.next(Distributing, now)
	if next.Former, err = linked(next.Former, old, fresh); err != nil {
		return errs.From(err).In(component, operation)
	}
	if next.Back, err = fresh.vouch(old.cert, old.cert.NotAfter); err != nil {
		return errs.From(err).In(component, operation)
	}
	next.Roots = []root{*active, {Generation: generation, State: rootNext, Cert: fresh.cert.Raw, Made: madeAt(fresh.cert)}}
	return c.swap(ctx, was, next)
}

// freshRoot loads the root that was prepared under a generation, or makes it. One that
// was left behind long ago has lost too much of its life and is passed over.
func (c *ca) freshRoot(ctx context.Context, generation int, now time.Time) (*authority, int, error) {
	const operation = "make the next root"
	for ; ; generation++ {
		name := rootSecret(generation)
		here := false
		secret, err := loadOrCreate(ctx, c.vault, name, func() ([]byte, error) {
			here = true
			return newRoot(generation, c.domain, now, c.rootLife)
		})
		if err != nil {
			return nil, 0, storageError(operation, err)
		}
		fresh, err := parseAuthority(name, secret)
		if err != nil {
			return nil, 0, err
		}
		made := madeAt(fresh.cert)
		if here || now.Sub(made) < fresh.cert.NotAfter.Sub(made)/10 {
			return fresh, generation, nil
		}
	}
}

// linked adds the way from a root to its successor.
func linked(ways []former, old, successor *authority) ([]former, error) {
	anchor, err := old.vouch(old.cert, noEnd())
	if err != nil {
		return nil, err
	}
	cross, err := old.vouch(successor.cert, noEnd())
	if err != nil {
		return nil, err
	}
	ways = append(ways, former{Anchor: anchor, Cross: cross})
	return ways[max(0, len(ways)-maxFormer):], nil
}

// signWithNext makes the next root the active one. Each node then makes an issuer below
// it, see freshIssuer.
func (c *ca) signWithNext(ctx context.Context, was *standing) error {
	prepared := was.root(rootNext)
	if prepared == nil {
		return tx.ErrStale
	}
	if _, err := c.rootKey(ctx, prepared); err != nil {
		if !errors.Is(err, tx.ErrNotFound) {
			return err
		}
		// Nothing was signed with it yet: another one takes its place.
		c.log.Error("the private key of the next root is lost; another root is made", "error", err)
		without := &standing{was.hierarchy.next(was.Phase, was.Since), was.row, was.confirmed}
		without.Former = without.Former[:len(without.Former)-1]
		return c.distribute(ctx, without, prepared.Generation+1)
	}
	next := was.next(Signing, c.clock.Now())
	next.Back = nil
	next.Roots[0].State, next.Roots[1].State = rootRetiring, rootActive
	if err := c.swap(ctx, was, next); err != nil {
		return err
	}
	return c.freshIssuer(ctx)
}

// retire takes the trust from the old root.
func (c *ca) retire(ctx context.Context, was *standing) error {
	if err := c.freshIssuer(ctx); err != nil {
		return err
	}
	if !c.issuerActive(c.issuer.Load()) {
		return errs.New(errs.Unavailable, "the old root stays until there is an issuer below the new one; the log says why there is none").
			In(component, "retire the old root")
	}
	return c.swap(ctx, was, was.next(Retiring, c.clock.Now()))
}

// finish destroys the private key of the old root and forgets it.
func (c *ca) finish(ctx context.Context, was *standing) error {
	const operation = "destroy the private key of the old root"
	old := was.root(rootRetiring)
	name := rootSecret(old.Generation)
	switch secret, err := c.vault.Load(ctx, name); {
	case errors.Is(err, tx.ErrNotFound):
	case err != nil:
		return storageError(operation, err)
	default:
		if key, err := parseAuthority(name, secret); err == nil && !bytes.Equal(key.cert.Raw, old.Cert) {
			c.log.Warn("the private key in the place of the old root's is another one and stays", "name", name)
		} else if err := c.vault.Delete(ctx, name); err != nil {
			return storageError(operation, err)
		}
	}
	next := was.next(Steady, c.clock.Now())
	next.Roots = []root{*was.active()}
	return c.swap(ctx, was, next)
}

// OnRoots has f called when the roots to trust, or which of them signs, have changed.
// f must not wait. cancel ends it, but does not wait for a call that has begun.
func (a *Authority) OnRoots(f func()) (cancel func()) {
	a.rootsMu.Lock()
	defer a.rootsMu.Unlock()
	n := a.nextRootsSub
	a.nextRootsSub++
	a.rootsSubs[n] = f
	return func() {
		a.rootsMu.Lock()
		defer a.rootsMu.Unlock()
		delete(a.rootsSubs, n)
	}
}

// SigningRoot returns the hash of the public key of the root under which certificates
// are issued now, and, while the root is rotated, within which time those that are
// under another one should be renewed; 0: at their usual time.
func (a *Authority) SigningRoot() (spki [32]byte, within time.Duration) {
	h := a.ca.current.Load()
	if h.Phase == Signing {
		within = a.ca.leafLife / 4
	}
	return ident.SPKI(h.active().cert), within
}

// rooted follows a change of the hierarchy.
func (a *Authority) rooted() {
	a.rootsMu.Lock()
	a.trust.SetRoots(a.ca.current.Load().trusted())
	subs := make([]func(), 0, len(a.rootsSubs))
	for _, f := range a.rootsSubs {
		subs = append(subs, f)
	}
	a.rootsMu.Unlock()
	for _, f := range subs {
		f()
	}
}

// RotateRoot begins to replace the root, which then goes on by itself, phase by phase;
// with now it goes to the next phase at once, and from steady on to signing. A
// FailedPrecondition says that a rotation is under way, when now is not set, or that the
// root has expired.
func (a *Authority) RotateRoot(ctx context.Context, now bool) (PKIStatus, error) {
	a.upkeep.work.Lock()
	defer a.upkeep.work.Unlock()
	if err := a.ca.force(ctx, now); err != nil {
		return PKIStatus{}, err
	}
	if err := a.followRoots(ctx); err != nil {
		return PKIStatus{}, err
	}
	a.upkeep.arm()
	return a.PKI(), nil
}

// followRoots gives the runtime a certificate by the issuer and with the chain of the
// hierarchy in force, unless it has it. It runs with upkeep.work held.
func (a *Authority) followRoots(ctx context.Context) error {
	if err := a.ca.freshIssuer(ctx); err != nil {
		return err
	}
	own := a.trust.Certificate()
	if own != nil && a.ownRevision == a.ca.current.Load().Revision && bytes.Equal(own.Certificate[1], a.ca.issuer.Load().cert.Raw) {
		return nil
	}
	return a.renewOwn(ctx)
}
