package restreg

import (
	"context"
	"strconv"
	"time"

	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/server/internal/registry"
	"telford.dev/telford/server/internal/tx"
)

// Author is who asks, from its credential.
type Author struct {
	Namespace string
	KeyID     string
	// Service is what the key is for: such a key changes services of that name only. "":
	// the key is for no service in particular.
	Service string
}

func (by *Author) may(id string, metadata map[string]string) error {
	if name := ServiceName(id, metadata); by.Service != "" && by.Service != name {
		return errs.New(errs.PermissionDenied, "the key is of service %q and cannot change %q, which is of service %q; use a key of that service or an api key without one",
			by.Service, id, name).In(component, "")
	}
	return nil
}

// Create registers a service and returns its first heartbeat token. Of several that
// create the same id at once, one succeeds.
//
// already_exists: the id is taken, by a service or by an instance of another door;
// resource_exhausted, with the object in its facts: there are as many as there may be;
// permission_denied: the key is of another service.
func (d *Directory) Create(ctx context.Context, by Author, in Service) (UUID, error) {
	const operation = "create service"
	sp := spec{Tags: in.Tags, Metadata: in.Metadata, Timeout: int64(in.Timeout / time.Second)}
	sp.fill()
	if err := by.may(in.ID, sp.Metadata); err != nil {
		return UUID{}, err
	}
	if err := d.Settle(ctx, by.Namespace); err != nil {
		return UUID{}, err
	}
	unlock, err := d.locks.lock(ctx, key{by.Namespace, in.ID})
	if err != nil {
		return UUID{}, storeError(operation, err)
	}
	defer unlock()
	a := d.account(by.Namespace)
	if err := d.reserve(a, in.ID); err != nil {
		return UUID{}, err
	}
	now := d.now()
	s := &service{joining: true, id: in.ID, keyID: by.KeyID, created: now, revision: 1, spec: sp, deadline: now.Add(in.Timeout), place: -1}
	defer func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.joined(s)
	}()
	if err := d.register(ctx, by, s); err != nil {
		return UUID{}, err
	}
	if err := d.store(ctx, a, s, by.KeyID, Joined); err != nil {
		d.unregister(ctx, by.Namespace, s.id, catalog.Deregistered)
		return UUID{}, storeError(operation, err)
	}
	d.connect(by.Namespace, s)
	d.stats.created.Add(1)
	return token(&d.cfg.Secret, by.Namespace, s.id, s.created, s.deadline), nil
}

// reserve counts a service that is about to be there; the lock of its id is held.
func (d *Directory) reserve(a *account, id string) error {
	most := d.ServiceLimit(a.namespace)
	other, err := d.cfg.Instances.Get(a.namespace, id)
	taken := err == nil && other.Door != Door
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case a.services[id] != nil || taken:
		return errs.New(errs.AlreadyExists, "Service with id %s already exists.", id).In(component, "create service").With(MetaKey, id)
	case len(a.services)+a.joining >= most:
		return errs.New(errs.ResourceExhausted, "namespace %s has %d services and may have no more; delete some, or raise the limit: telford limits set --instances N --namespace %s",
			a.namespace, most, a.namespace).In(component, "create service").With(MetaObject, ObjectService).With(MetaMost, strconv.Itoa(most))
	}
	a.joining++
	return nil
}

// register makes the instance of a service what the service is.
func (d *Directory) register(ctx context.Context, by Author, s *service) error {
	dec := declaration(s.id, &s.spec)
	if have, err := d.cfg.Instances.Get(by.Namespace, s.id); err == nil && have.Declaration.Service != dec.Service {
		d.unregister(ctx, by.Namespace, s.id, catalog.Replaced)
	}
	owner := registry.Owner{Namespace: by.Namespace, Instance: s.id, Service: dec.Service, KeyID: s.keyID, Door: Door}
	_, _, err := d.cfg.Instances.Register(ctx, owner, dec)
	if err != nil {
		e := errs.From(err)
		if e.Code == errs.ResourceExhausted && e.Meta[errs.MetaReason] == errs.ReasonLimit {
			return e.With(MetaObject, ObjectService).With(MetaMost, strconv.Itoa(d.ServiceLimit(by.Namespace)))
		}
		return e
	}
	return nil
}

// unregister takes the instance of a service away. Where that fails its lease ends it.
func (d *Directory) unregister(ctx context.Context, namespace, id string, reason catalog.Reason) {
	err := d.cfg.Instances.Deregister(context.WithoutCancel(ctx), namespace, id, reason)
	if err != nil && errs.CodeOf(err) != errs.NotFound {
		d.dirty.Store(true)
		d.log.Warn("the instance of a service that is gone could not be deregistered; trying again", "namespace", namespace, "service", id, "error", err)
	}
}

// store writes a service, and an event about it unless event is "", and puts it into
// memory once that is durable.
func (d *Directory) store(ctx context.Context, a *account, s *service, author, event string) error {
	a.mu.Lock()
	row, err := s.row(a.namespace, d.now(), author)
	a.mu.Unlock()
	if err != nil {
		return err
	}
	return d.cfg.DB.Write(ctx, func(t tx.Tx) error {
		if err := d.cfg.Storage.PutRESTService(t, row); err != nil {
			return err
		}
		if event != "" {
			if err := d.append(t, a.namespace, s, Event{Type: event}); err != nil {
				return err
			}
		}
		t.AfterCommit(func() {
			a.mu.Lock()
			defer a.mu.Unlock()
			if old := a.services[s.id]; old != nil && event == "" {
				// Heartbeats have gone on meanwhile.
				s.deadline, s.lastSeen, s.floor = old.deadline, old.lastSeen, old.floor
			}
			a.joined(s)
			a.put(s)
		})
		return nil
	})
}

func (d *Directory) append(t tx.Tx, namespace string, s *service, e Event) (err error) {
	if d.cfg.Append == nil {
		return nil
	}
	if e.Payload, err = s.payload(); err != nil {
		return err
	}
	return d.cfg.Append(t, namespace, e)
}

// Update replaces parts of a service. Its deadline stays: the next heartbeat begins with
// the new timeout. not_found, permission_denied: as in Create.
func (d *Directory) Update(ctx context.Context, by Author, id string, c Change) error {
	const operation = "update service"
	if err := d.Settle(ctx, by.Namespace); err != nil {
		return err
	}
	unlock, err := d.locks.lock(ctx, key{by.Namespace, id})
	if err != nil {
		return storeError(operation, err)
	}
	defer unlock()
	a := d.account(by.Namespace)
	old, ok := a.get(id)
	if !ok {
		return notThere(ObjectService, id)
	}
	next := old.with(c)
	if err := by.may(id, old.spec.Metadata); err != nil {
		return err
	}
	if err := by.may(id, next.spec.Metadata); err != nil || c.Empty() {
		return err
	}
	a.mu.Lock()
	next.deadline, next.lastSeen, next.floor = old.deadline, old.lastSeen, old.floor
	a.mu.Unlock()
	if err := d.register(ctx, by, next); err != nil {
		return err
	}
	if err := d.store(ctx, a, next, by.KeyID, ""); err != nil {
		if e := d.register(ctx, by, old); e != nil {
			d.dirty.Store(true)
		}
		return storeError(operation, err)
	}
	d.disconnect(a, old)
	d.connect(by.Namespace, next)
	return nil
}

// with is the service with a change.
func (s *service) with(c Change) *service {
	next := &service{id: s.id, keyID: s.keyID, created: s.created, revision: s.revision + 1, spec: s.spec, place: -1}
	if c.Tags != nil {
		next.spec.Tags = *c.Tags
	}
	if c.Metadata != nil {
		next.spec.Metadata = *c.Metadata
	}
	if c.Timeout != nil {
		next.spec.Timeout = int64(*c.Timeout / time.Second)
	}
	next.spec.fill()
	return next
}

// Delete removes a service. not_found, permission_denied: as in Create.
func (d *Directory) Delete(ctx context.Context, by Author, id string) error {
	if err := d.Settle(ctx, by.Namespace); err != nil {
		return err
	}
	unlock, err := d.locks.lock(ctx, key{by.Namespace, id})
	if err != nil {
		return storeError("delete service", err)
	}
	defer unlock()
	a := d.account(by.Namespace)
	s, ok := a.get(id)
	if !ok {
		return notThere(ObjectService, id)
	}
	if err := by.may(id, s.spec.Metadata); err != nil {
		return err
	}
	return d.end(ctx, a, s, Removed)
}

// end removes a service and takes its instance away; the lock of its id is held.
func (d *Directory) end(ctx context.Context, a *account, s *service, event string) error {
	err := d.cfg.DB.Write(ctx, func(t tx.Tx) error {
		if err := d.cfg.Storage.DeleteRESTService(t, a.namespace, s.id); err != nil {
			return err
		}
		if err := d.append(t, a.namespace, s, Event{Type: event}); err != nil {
			return err
		}
		t.AfterCommit(func() {
			a.mu.Lock()
			defer a.mu.Unlock()
			a.drop(s)
		})
		return nil
	})
	if err != nil {
		return storeError("end service", err)
	}
	d.disconnect(a, s)
	d.unregister(ctx, a.namespace, s.id, catalog.Deregistered)
	return nil
}

// connect makes a service callable if it can be; the lock of its id is held.
func (d *Directory) connect(namespace string, s *service) {
	address := callable(&s.spec)
	if d.cfg.Connect == nil || address == "" {
		return
	}
	end := d.cfg.Connect(namespace, s.id, address)
	a := d.account(namespace)
	a.mu.Lock()
	s.end = end
	a.mu.Unlock()
}

// disconnect undoes connect.
func (d *Directory) disconnect(a *account, s *service) {
	a.mu.Lock()
	end := s.end
	s.end = nil
	a.mu.Unlock()
	if end != nil {
		end()
	}
}
