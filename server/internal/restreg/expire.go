package restreg

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/server/internal/registry"
	"telford.dev/telford/server/internal/tx"
)

const (
	// batch bounds the services that end in one transaction.
	batch = 256
	// parallel bounds the instances that are deregistered at once.
	parallel = 32
	// tick is how often the Directory looks for what nobody asks about.
	tick = time.Second
)

// Settle ends what is overdue in a namespace, and returns once all of it has ended, also
// what another began to end.
func (d *Directory) Settle(ctx context.Context, namespace string) error {
	d.mu.RLock()
	a := d.accounts[namespace]
	d.mu.RUnlock()
	if a == nil {
		return nil
	}
	return d.settle(ctx, a, d.now())
}

func (d *Directory) settle(ctx context.Context, a *account, before time.Time) error {
	select {
	case a.sweeping <- struct{}{}:
	case <-ctx.Done():
		return storeError("end overdue services", ctx.Err())
	}
	defer func() { <-a.sweeping }()
	for a.overdue(before) {
		if err := d.sweep(ctx, a, a.due(before, batch)); err != nil {
			return storeError("end overdue services", err)
		}
	}
	return nil
}

// sweep ends services for good: their rows go and the events come in one transaction.
func (d *Directory) sweep(ctx context.Context, a *account, list []*service) error {
	// Once begun it is finished, whoever waits for it.
	ctx = context.WithoutCancel(ctx)
	var ending []*service
	var unlocks []func()
	defer func() {
		for _, unlock := range unlocks {
			unlock()
		}
	}()
	for _, s := range list {
		unlock, err := d.locks.lock(ctx, key{a.namespace, s.id})
		if err != nil {
			a.again(list)
			return err
		}
		unlocks = append(unlocks, unlock)
		a.mu.Lock()
		if a.services[s.id] == s {
			ending = append(ending, s)
		}
		a.mu.Unlock()
	}
	if len(ending) == 0 {
		return nil
	}
	err := d.cfg.DB.Write(ctx, func(t tx.Tx) error {
		for _, s := range ending {
			if err := d.cfg.Storage.DeleteRESTService(t, a.namespace, s.id); err != nil {
				return err
			}
			// It is out of the queue, so that nothing moves its deadline.
			e := Event{Type: TimedOut, ID: token(&d.cfg.Secret, a.namespace, s.id, s.created, s.deadline).String(), At: s.deadline}
			if err := d.append(t, a.namespace, s, e); err != nil {
				return err
			}
		}
		t.AfterCommit(func() {
			a.mu.Lock()
			defer a.mu.Unlock()
			for _, s := range ending {
				a.drop(s)
			}
		})
		return nil
	})
	if err != nil {
		a.again(ending)
		return err
	}
	d.stats.timeouts.Add(uint64(len(ending)))
	d.leave(ctx, a, ending)
	return nil
}

// leave takes the instances of services away that have ended.
func (d *Directory) leave(ctx context.Context, a *account, list []*service) {
	var wg sync.WaitGroup
	turn := make(chan struct{}, parallel)
	for _, s := range list {
		d.disconnect(a, s)
		turn <- struct{}{}
		wg.Go(func() {
			defer func() { <-turn }()
			d.unregister(ctx, a.namespace, s.id, catalog.Expired)
		})
	}
	wg.Wait()
}

// run ends what nobody asks about until ctx is done.
func (d *Directory) run(ctx context.Context) {
	timer := d.clock.NewTimer(tick)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C():
		}
		d.pass(ctx)
		timer.Reset(tick + rand.N(tick/4)) //nolint:gosec // so that nodes take turns
	}
}

// pass is one look at everything.
func (d *Directory) pass(ctx context.Context) {
	if d.dirty.Swap(false) {
		if err := d.reconcile(ctx); err != nil && ctx.Err() == nil {
			d.dirty.Store(true)
			d.log.Warn("services and instances could not be compared; trying again", "in", tick, "error", err)
		}
	}
	before := d.now().Add(-d.cfg.Grace)
	for _, a := range d.all() {
		if !a.overdue(before) {
			continue
		}
		if err := d.settle(ctx, a, before); err != nil && ctx.Err() == nil {
			d.log.Warn("services that are overdue could not be ended; trying again", "namespace", a.namespace, "in", tick, "error", err)
		}
	}
}

// reconcile makes the registry what the services are: after a crash between two
// transactions, or one whose outcome was unknown, it may not be.
func (d *Directory) reconcile(ctx context.Context) error {
	for _, i := range d.cfg.Instances.List(registry.Filter{}) {
		if i.Door != Door {
			continue
		}
		if _, ok := d.account(i.Namespace).get(i.ID); ok {
			continue
		}
		if err := d.retire(ctx, i.Namespace, i.ID); err != nil {
			return err
		}
	}
	for _, a := range d.all() {
		a.mu.Lock()
		list := make([]*service, 0, len(a.services))
		for _, s := range a.services {
			list = append(list, s)
		}
		a.mu.Unlock()
		for _, s := range list {
			if err := d.restore(ctx, a, s); err != nil {
				return err
			}
		}
	}
	return nil
}

// retire takes an instance away that has no service.
func (d *Directory) retire(ctx context.Context, namespace, id string) error {
	unlock, err := d.locks.lock(ctx, key{namespace, id})
	if err != nil {
		return err
	}
	defer unlock()
	if _, ok := d.account(namespace).get(id); ok {
		return nil
	}
	err = d.cfg.Instances.Deregister(ctx, namespace, id, catalog.Expired)
	if err != nil && errs.CodeOf(err) != errs.NotFound {
		return err
	}
	return nil
}

// restore registers the instance of a service that has none, and makes it callable.
func (d *Directory) restore(ctx context.Context, a *account, s *service) error {
	unlock, err := d.locks.lock(ctx, key{a.namespace, s.id})
	if err != nil {
		return err
	}
	defer unlock()
	if now, ok := a.get(s.id); !ok || now != s {
		return nil
	}
	if _, err := d.cfg.Instances.Get(a.namespace, s.id); errs.CodeOf(err) == errs.NotFound {
		if err := d.register(ctx, Author{Namespace: a.namespace}, s); err != nil {
			return err
		}
	}
	a.mu.Lock()
	connected := s.end != nil
	a.mu.Unlock()
	if !connected {
		d.connect(a.namespace, s)
	}
	return nil
}
