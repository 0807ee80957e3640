package identity

import (
	"context"
	"slices"
	"sync"
	"time"

	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/ident"
	"telford.dev/telford/server/internal/tx"
)

// revocationSlack is kept beyond the life of the last certificate, for clocks that
// are behind.
const revocationSlack = time.Hour

// revocations knows who is revoked at present: by an operator, which is stored, or
// because the key has expired, which follows from the keys. It changes only in
// AfterCommit, at the start and by the timer.
type revocations struct {
	keep time.Duration // how long a revocation matters
	// spreading orders what the Trust is told. It is taken before mu.
	spreading sync.Mutex

	mu        sync.Mutex
	keys      map[string]time.Time // key id: until when it matters
	instances map[string]time.Time // "namespace/instance"
	ended     map[string]struct{}  // expired keys whose certificates may still run
	lapsed    bool                 // rows of the store may be deleted
	nextSub   int
	subs      map[int]func(keys, instances []string)
}

func newRevocations(leafLife time.Duration) *revocations {
	return &revocations{
		keep: leafLife + revocationSlack, keys: make(map[string]time.Time), instances: make(map[string]time.Time),
		ended: make(map[string]struct{}), subs: make(map[int]func(keys, instances []string)),
	}
}

func (r *revocations) make(kind, id string, at time.Time, author, reason string) *Revocation {
	return &Revocation{Kind: kind, ID: id, At: at, NotAfter: at.Add(r.keep).Truncate(time.Microsecond), Author: author, Reason: reason}
}

func (r *revocations) add(row *Revocation) (keys, instances []string) {
	switch row.Kind {
	case RevokedKey:
		if _, known := r.keys[row.ID]; !known {
			keys = []string{row.ID}
		}
		r.keys[row.ID] = row.NotAfter
	case RevokedInstance:
		if _, known := r.instances[row.ID]; !known {
			instances = []string{row.ID}
		}
		r.instances[row.ID] = row.NotAfter
	}
	return keys, instances
}

// sweep forgets what no longer matters and takes note of expired keys. It returns the
// newly ended keys, whether anything was forgotten, and when the next may be.
func (r *revocations) sweep(now time.Time, ended []string) (fresh []string, forgot bool, next time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, set := range []map[string]time.Time{r.keys, r.instances} {
		for id, until := range set {
			if !until.After(now) {
				delete(set, id)
				forgot = true
			} else if next.IsZero() || until.Before(next) {
				next = until
			}
		}
	}
	set := make(map[string]struct{}, len(ended))
	for _, id := range ended {
		set[id] = struct{}{}
		if _, known := r.ended[id]; !known {
			fresh = append(fresh, id)
		}
	}
	r.lapsed = r.lapsed || forgot
	forgot = forgot || len(set) < len(r.ended)+len(fresh)
	r.ended = set
	slices.Sort(fresh)
	return fresh, forgot, next
}

func (r *revocations) snapshot() (keys, instances []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for id := range r.keys {
		keys = append(keys, id)
	}
	for id := range r.ended {
		if _, twice := r.keys[id]; !twice {
			keys = append(keys, id)
		}
	}
	for id := range r.instances {
		instances = append(instances, id)
	}
	slices.Sort(keys)
	slices.Sort(instances)
	return keys, instances
}

func (r *revocations) instanceUntil(qualified string) (until time.Time, revoked bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	until, revoked = r.instances[qualified]
	return until, revoked
}

func (r *revocations) tell(keys, instances []string) {
	r.mu.Lock()
	subs := make([]func(keys, instances []string), 0, len(r.subs))
	for _, f := range r.subs {
		subs = append(subs, f)
	}
	r.mu.Unlock()
	for _, f := range subs {
		f(slices.Clone(keys), slices.Clone(instances))
	}
}

// Revocations returns everything that is revoked at present, sorted: key ids, and
// instances as "namespace/instance". To miss nothing, subscribe first.
func (a *Authority) Revocations() (keys, instances []string) { return a.revs.snapshot() }

// OnRevocation has f called with what is newly revoked, in the same form as
// Revocations, before the revoking caller is answered. f must not wait nor write to the
// store. cancel ends it, but does not wait for a call that has begun.
func (a *Authority) OnRevocation(f func(keys, instances []string)) (cancel func()) {
	r := a.revs
	r.mu.Lock()
	defer r.mu.Unlock()
	n := r.nextSub
	r.nextSub++
	r.subs[n] = f
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.subs, n)
	}
}

// RevokeInstance takes the certificates of one instance back: its connections close,
// and its id is refused until the last of them would have ended. Its service's key
// stays good for other ids. Revoking again extends the time.
func (a *Authority) RevokeInstance(ctx context.Context, namespace, instance, author, reason string) error {
	const operation = "revoke an instance"
	for _, err := range []error{ident.CheckNamespace(namespace), ident.CheckInstance(instance), checkText("reason", reason)} {
		if err != nil {
			return errs.From(err).In(component, operation)
		}
	}
	row := a.revs.make(RevokedInstance, namespace+"/"+instance, a.now(), author, reason)
	err := a.db.Write(ctx, func(t tx.Tx) error {
		if err := a.store.InsertRevocation(t, row); err != nil {
			return err
		}
		t.AfterCommit(func() { a.revoked(row) })
		return nil
	})
	if err != nil {
		return storageError(operation, err)
	}
	a.log.Info("instance revoked", "namespace", namespace, "instance", instance, "author", author, "reason", reason)
	return nil
}

// revoked runs in AfterCommit, and when the rows of the store are read.
func (a *Authority) revoked(rows ...*Revocation) {
	a.revs.spreading.Lock()
	a.revs.mu.Lock()
	var keys, instances []string
	for _, row := range rows {
		moreKeys, moreInstances := a.revs.add(row)
		keys, instances = append(keys, moreKeys...), append(instances, moreInstances...)
	}
	a.revs.mu.Unlock()
	a.spread(keys, instances)
	a.revs.spreading.Unlock()
	a.upkeep.arm()
}

// spread tells this runtime's own connections and every subscriber.
func (a *Authority) spread(keys, instances []string) {
	if len(keys)+len(instances) == 0 {
		return
	}
	a.trust.Revoke(false, keys, instances)
	a.revs.tell(keys, instances)
}

// sweep brings the revocations up to the time: keys that have expired end their
// certificates, old revocations lapse. It returns when to come again, zero for never.
func (a *Authority) sweep(now time.Time) (next time.Time) {
	a.revs.spreading.Lock()
	defer a.revs.spreading.Unlock()
	ended, nextKey := a.keys.ended(now.Add(-a.revs.keep), now)
	fresh, forgot, next := a.revs.sweep(now, ended)
	a.spread(fresh, nil)
	if forgot {
		keys, instances := a.revs.snapshot()
		a.trust.Revoke(true, keys, instances)
	}
	if !nextKey.IsZero() && (next.IsZero() || nextKey.Before(next)) {
		next = nextKey
	}
	return next
}

// deleteLapsed removes from the store what sweep has forgotten.
func (a *Authority) deleteLapsed(ctx context.Context, now time.Time) error {
	a.revs.mu.Lock()
	lapsed := a.revs.lapsed
	a.revs.lapsed = false
	a.revs.mu.Unlock()
	if !lapsed {
		return nil
	}
	err := a.db.Write(ctx, func(t tx.Tx) error { return a.store.DeleteRevocationsBefore(t, now) })
	if err != nil {
		a.revs.mu.Lock()
		a.revs.lapsed = true
		a.revs.mu.Unlock()
		return storageError("delete old revocations", err)
	}
	return nil
}
