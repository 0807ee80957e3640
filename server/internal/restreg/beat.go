package restreg

import (
	"context"
	"time"

	"telford.dev/telford/internal/errs"
)

// Beat takes a heartbeat: the token is consumed, the deadline of the service moves, and
// the token for the next heartbeat is returned. A heartbeat that comes late saves the
// service as long as nothing has noticed. It writes nothing.
//
// not_found, with the object in its facts: there is no such service, or the token is not
// the one that is due. author is who asks; see Create.
func (d *Directory) Beat(ctx context.Context, by Author, id string, shown UUID) (next UUID, err error) {
	a := d.account(by.Namespace)
	a.mu.Lock()
	s := a.services[id]
	if s == nil || s.ending {
		a.mu.Unlock()
		return UUID{}, notThere(ObjectService, id)
	}
	if err := by.may(id, s.spec.Metadata); err != nil {
		a.mu.Unlock()
		return UUID{}, err
	}
	if !s.due(shown) || !shown.proves(&d.cfg.Secret, by.Namespace, id, s.created) {
		a.mu.Unlock()
		return UUID{}, notThere(ObjectToken, shown.String())
	}
	now := d.now()
	deadline := now.Add(s.timeout())
	if deadline.Equal(shown.Time()) {
		deadline = deadline.Add(time.Microsecond) // no token twice
	}
	s.lastSeen, s.floor = now, time.Time{}
	a.move(s, deadline)
	created := s.created
	a.mu.Unlock()
	d.stats.beats.Add(1)
	if !d.cfg.Instances.Touch(by.Namespace, id) && d.gone(ctx, by.Namespace, s) {
		return UUID{}, notThere(ObjectService, id)
	}
	return token(&d.cfg.Secret, by.Namespace, id, created, deadline), nil
}

// due reports whether a token of this time could be the one in force; account.mu is held.
func (s *service) due(shown UUID) bool {
	at := shown.Time()
	if s.floor.IsZero() {
		return at.Equal(s.deadline)
	}
	return !at.Before(s.floor) // made before the memory was
}

// gone ends a service whose instance somebody has taken away, and reports that.
func (d *Directory) gone(ctx context.Context, namespace string, s *service) bool {
	unlock, err := d.locks.lock(ctx, key{namespace, s.id})
	if err != nil {
		return false
	}
	defer unlock()
	if _, err := d.cfg.Instances.Get(namespace, s.id); errs.CodeOf(err) != errs.NotFound {
		return false // it was being registered
	}
	a := d.account(namespace)
	if now, ok := a.get(s.id); !ok || now != s {
		return true
	}
	if err := d.end(ctx, a, s, Removed); err != nil {
		d.log.Warn("a service whose instance was taken away could not be ended; its timeout ends it",
			"namespace", namespace, "service", s.id, "error", err)
	}
	return true
}
