package registry

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"time"

	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/server/internal/tx"
)

// Warning says that a part of a declaration will not have its full effect.
type Warning = catalog.DeclarationWarning

// Owner is who registers: from its credential, never from the declaration.
type Owner struct {
	Namespace string
	Instance  string
	Service   string
	KeyID     string
	// Door is the door that it came in by: "link", "grpc", ...
	Door string
}

func (o Owner) validate() error {
	switch {
	case !catalog.ValidName(o.Namespace):
		return errs.New(errs.InvalidArgument, "namespace %q must be 1 to %d of a-z, 0-9, '.', '_', '-'", o.Namespace, catalog.MaxName)
	case !catalog.ValidID(o.Instance):
		return errs.New(errs.InvalidArgument, "instance %q must be 1 to %d letters, digits, '.', '_', '-'", o.Instance, catalog.MaxName)
	case !catalog.ValidName(o.Service):
		return errs.New(errs.InvalidArgument, "service %q must be 1 to %d of a-z, 0-9, '.', '_', '-'", o.Service, catalog.MaxName)
	}
	return nil
}

// Register stores the declaration of an instance in place of an earlier one and
// answers once that is durable: with the revision from which it is seen and with what
// will not have its full effect. An empty service in the declaration is the owner's.
// Registering what is registered already only begins a new lease. A new instance is
// not reachable before Reach or Session says so.
//
// invalid_argument lists everything that is wrong with the declaration;
// permission_denied: it names another service than the owner's; already_exists: the id
// is that of an instance of another service; resource_exhausted: the registry or the
// store is full. Warnings may come with an error.
func (r *Registry) Register(ctx context.Context, o Owner, d *catalog.Declaration) (catalog.Revision, []Warning, error) {
	const operation = "register instance"
	rev, warnings, err := r.register(ctx, o, d)
	if err != nil {
		return catalog.Revision{}, warnings, storeError(operation, err)
	}
	return rev, warnings, nil
}

func (r *Registry) register(ctx context.Context, o Owner, d *catalog.Declaration) (catalog.Revision, []Warning, error) {
	none := catalog.Revision{}
	if err := o.validate(); err != nil {
		return none, nil, err
	}
	if d != nil {
		filled := *d
		filled.Service = cmp.Or(d.Service, o.Service)
		filled.TTL = cmp.Or(d.TTL, r.cfg.TTL)
		if d = &filled; d.Service != o.Service {
			return none, nil, errs.New(errs.PermissionDenied,
				"the credential is of service %q and cannot register %q; use a key of that service", o.Service, d.Service)
		}
	}
	d, warnings, err := catalog.Normalize(d)
	if err != nil {
		return none, warnings, err
	}
	warnings = append(warnings, r.forbidden(o.Namespace, d)...)
	raw, err := json.Marshal(d)
	if err != nil {
		return none, warnings, errs.New(errs.Internal, "encode declaration: %w", err)
	}
	rec := &record{
		key: key{o.Namespace, o.Instance}, declaration: d, digest: digest(raw),
		keyID: o.KeyID, door: o.Door, renew: true,
	}
	unlock, err := r.keys.lock(ctx, rec.key)
	if err != nil {
		return none, warnings, err
	}
	defer unlock()
	author := authorOf(ctx, o.Instance)
	for {
		if rev, ok, err := r.again(rec); ok || err != nil {
			return rev, warnings, err
		}
		rev, err := r.write(ctx, rec, raw, author)
		if err == nil {
			r.stats.registrations.Add(1)
		} else {
			r.unjoin(rec)
		}
		if !errors.Is(err, errReloaded) {
			return rev, warnings, err
		}
	}
}

// again completes rec with what is stored of the instance, and checks that it may be
// written. done: it is stored already, just so; the lease begins anew.
func (r *Registry) again(rec *record) (rev catalog.Revision, done bool, err error) {
	rec.registered, rec.revision, rec.drained = r.clock.Now(), 1, false
	rev = r.change(func(c *change) {
		rec.reloads = r.reloads
		e := r.entries[rec.key]
		if e == nil {
			switch {
			case r.stopped:
				err = stoppedError("")
			case len(r.entries) >= r.cfg.MaxInstances:
				err = errs.New(errs.ResourceExhausted, "the registry is full: %d instances are registered; deregister some or raise the limit", len(r.entries))
			default:
				err = r.join(rec)
			}
			return
		}
		if e.service.name != rec.declaration.Service {
			err = errs.New(errs.AlreadyExists, "instance %q belongs to service %q in namespace %q; choose another id", e.id, e.service.name, e.namespace)
			return
		}
		rec.registered, rec.revision = e.inst.Registered, e.inst.Revision+1
		rec.drained = e.drained
		if e.digest == rec.digest && e.inst.KeyID == rec.keyID && e.inst.Door == rec.door && !e.lease.ending.Load() {
			done = true
			e.leaving = false
			c.dropHint(e)
			r.renew(e, rec.declaration.TTL)
			c.refresh(e)
		}
	})
	return rev, done, err
}

// write makes rec durable and then seen. The lock of its key is held. errReloaded:
// nothing was written, and rec has to be prepared again.
func (r *Registry) write(ctx context.Context, rec *record, declaration []byte, author string) (catalog.Revision, error) {
	rec.registered = stored(rec.registered)
	row := &Row{
		Namespace: rec.namespace, ID: rec.id, Service: rec.declaration.Service, KeyID: rec.keyID, Door: rec.door,
		Declaration: declaration, Draining: rec.drained,
		Registered: rec.registered, Updated: stored(r.clock.Now()), Revision: rec.revision, Author: author,
	}
	var rev catalog.Revision
	err := r.cfg.DB.Write(ctx, func(t tx.Tx) error {
		if !r.asSeen(rec.reloads) {
			return errReloaded
		}
		if err := r.cfg.Storage.PutInstance(t, row); err != nil {
			return err
		}
		t.AfterCommit(func() { rev = r.change(func(c *change) { c.put(rec) }) })
		return nil
	})
	if err != nil {
		return catalog.Revision{}, err
	}
	return rev, nil
}

// edit writes an instance again with what f changes of its record, in the name of
// author unless the context names another. f returns false when there is nothing to
// change. The fields of the declaration are f's to replace, what they point to is not.
func (r *Registry) edit(ctx context.Context, operation string, k key, author string, f func(*record) bool) error {
	unlock, err := r.keys.lock(ctx, k)
	if err != nil {
		return storeError(operation, err)
	}
	defer unlock()
	for {
		rec := r.recorded(k)
		if rec == nil {
			return notFound(operation, k)
		}
		if !f(rec) {
			return nil
		}
		raw, err := json.Marshal(rec.declaration)
		if err != nil {
			return storeError(operation, err)
		}
		rec.digest = digest(raw)
		_, err = r.write(ctx, rec, raw, authorOf(ctx, author))
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, errReloaded):
			return storeError(operation, err)
		}
	}
}

// recorded returns an instance as the record of its next write; nil: not registered.
func (r *Registry) recorded(k key) *record {
	r.mu.RLock()
	defer r.mu.RUnlock()
	e := r.entries[k]
	if e == nil {
		return nil
	}
	i := e.inst
	declaration := i.Declaration
	declaration.Methods = e.methods
	return &record{
		key: k, declaration: &declaration, digest: e.digest, keyID: i.KeyID, door: i.Door,
		drained: e.drained, registered: i.Registered, revision: i.Revision + 1, reloads: r.reloads,
	}
}

// SetStatus changes the status of an instance and the message shown beside it, and
// answers once that is durable. An instance that becomes OFFLINE is no longer seen by
// watchers and callers, but stays registered. The next Register brings the status of
// its declaration. not_found: not registered.
func (r *Registry) SetStatus(ctx context.Context, namespace, id string, status catalog.Status, message string) error {
	const operation = "set status"
	if err := catalog.CheckStatus(status, message); err != nil {
		return err.In(component, operation)
	}
	return r.edit(ctx, operation, key{namespace, id}, id, func(rec *record) bool {
		d := rec.declaration
		if d.Status == status && d.StatusMessage == message {
			return false
		}
		d.Status, d.StatusMessage = status, message
		return true
	})
}

// Drain is an operator's word that an instance takes nothing new, or does again. It is
// stored, outlives new registrations of the instance, and ends with it.
// not_found: not registered.
func (r *Registry) Drain(ctx context.Context, namespace, id string, on bool) error {
	return r.edit(ctx, "drain instance", key{namespace, id}, "operator", func(rec *record) bool {
		if rec.drained == on {
			return false
		}
		rec.drained = on
		return true
	})
}

// Deregister removes an instance and leaves a tombstone with the reason, and answers
// once that is durable. not_found: not registered.
func (r *Registry) Deregister(ctx context.Context, namespace, id string, reason catalog.Reason) error {
	const operation = "deregister instance"
	k := key{namespace, id}
	if !reason.Final() {
		return errs.New(errs.InvalidArgument, "reason %q is none that an instance can go for", reason).In(component, operation)
	}
	unlock, err := r.keys.lock(ctx, k)
	if err != nil {
		return storeError(operation, err)
	}
	defer unlock()
	for {
		r.mu.RLock()
		e, reloads := r.entries[k], r.reloads
		r.mu.RUnlock()
		if e == nil {
			return notFound(operation, k)
		}
		err := r.end(ctx, []*entry{e}, reloads, reason, r.clock.Now())
		switch {
		case err == nil:
			r.stats.deregistrations.Add(1)
			return nil
		case !errors.Is(err, errReloaded):
			return storeError(operation, err)
		}
	}
}

// end removes instances of which the locks are held, in one transaction. errReloaded:
// nothing was written, and some of them may be gone.
func (r *Registry) end(ctx context.Context, list []*entry, reloads uint64, reason catalog.Reason, now time.Time) error {
	return r.cfg.DB.Write(ctx, func(t tx.Tx) error {
		if !r.asSeen(reloads) {
			return errReloaded
		}
		stones := make([]catalog.Tombstone, len(list))
		for i, e := range list {
			stones[i] = catalog.Tombstone{
				Namespace: e.namespace, ID: e.id, Service: e.service.name, Reason: reason, At: stored(now),
			}
			if err := r.bury(t, stones[i]); err != nil {
				return err
			}
		}
		t.AfterCommit(func() {
			r.change(func(c *change) {
				for i, e := range list {
					if r.entries[e.key] == e {
						c.remove(e, stones[i])
					}
				}
			})
		})
		return nil
	})
}
