package rules

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"telford.dev/telford/internal/errs"
	"telford.dev/telford/server/internal/tx"
)

// maxAttempts is how often a change is prepared anew because another node was first.
const maxAttempts = 3

// edit is what one change does to the store and, once that is durable, to memory.
type edit struct {
	put    []*Row
	remove []*Row // namespace, kind and id
}

// change makes a change of the rules of a namespace. prepare looks at what holds and says
// what to do, nil for nothing; it may be asked again.
func (r *Rules) change(ctx context.Context, operation, namespace string, prepare func(now *snapshot) (*edit, error)) error {
	select {
	case r.writing <- struct{}{}:
		defer func() { <-r.writing }()
	case <-ctx.Done():
		return storageError(operation, ctx.Err())
	}
	for attempt := 1; ; attempt++ {
		e, err := prepare(r.snapshot(namespace))
		if err != nil {
			return storageError(operation, err)
		}
		if e == nil {
			return nil
		}
		err = r.write(ctx, namespace, e)
		first := errors.Is(err, tx.ErrExists) || errors.Is(err, tx.ErrStale) || errors.Is(err, tx.ErrNotFound)
		if !first || attempt == maxAttempts {
			return storageError(operation, err)
		}
		if err := r.Reload(ctx); err != nil {
			return err
		}
	}
}

func (r *Rules) write(ctx context.Context, namespace string, e *edit) error {
	return r.cfg.DB.Write(ctx, func(t tx.Tx) error {
		if err := r.hold(t, namespace); err != nil {
			return err
		}
		for _, row := range e.remove {
			if err := r.cfg.Storage.DeleteRule(t, row.Namespace, row.Kind, row.ID); err != nil {
				return err
			}
		}
		for _, row := range e.put {
			if err := r.cfg.Storage.PutRule(t, row); err != nil {
				return err
			}
		}
		t.AfterCommit(func() { r.apply(namespace, e) })
		return nil
	})
}

func (r *Rules) hold(t tx.Tx, namespace string) error {
	if r.cfg.Namespaces == nil {
		return nil
	}
	return r.cfg.Namespaces.HoldTx(t, namespace)
}

// apply runs in AfterCommit. What was prepared from one memory may meet another one,
// which was read anew meanwhile.
func (r *Rules) apply(namespace string, e *edit) {
	r.publish(namespace, func(now *snapshot) *snapshot {
		next := now.clone()
		for _, row := range e.remove {
			next.remove(row.Kind, row.ID)
		}
		for _, row := range e.put {
			if err := next.put(row); err != nil {
				// It was encoded a moment ago.
				r.log.Error("a rule was stored and cannot be read", "namespace", namespace, "rule", row.ID, "error", err)
			}
		}
		return next
	})
}

// row makes the row of a rule. revision is that of its predecessor, 0 for none.
func (r *Rules) row(namespace, kind, id, target string, spec any, revision int64, author string) (*Row, error) {
	raw, err := json.Marshal(spec)
	if err != nil {
		return nil, errs.New(errs.Internal, "encode a rule: %w", err)
	}
	return &Row{
		Namespace: namespace, Kind: kind, ID: id, Target: target, Spec: raw,
		Revision: revision + 1, Updated: r.now(), Author: author,
	}, nil
}

// now is the time as it is stored.
func (r *Rules) now() time.Time { return r.cfg.Clock.Now().UTC().Truncate(time.Microsecond) }

// room refuses one rule more than there may be.
func (r *Rules) room(namespace string, now *snapshot) error {
	if n := now.count(); n >= r.cfg.MaxRules {
		return errs.New(errs.ResourceExhausted, "namespace %q has %d rules, which is the limit; remove some, or say the same with patterns", namespace, n)
	}
	return nil
}

// notFound says that an id means no rule; list is the command that shows those there are.
func notFound(kind, id, namespace, list string) error {
	return errs.New(errs.NotFound, "%s rule %q does not exist in namespace %q; see: %s", kind, clip(id), namespace, list)
}

// clip keeps a value from outside short enough for a message.
func clip(s string) string {
	const most = 128
	if len(s) <= most {
		return s
	}
	return s[:most] + "…"
}

// RemoveNamespace takes away all rules of a namespace, and what was counted in it.
func (r *Rules) RemoveNamespace(ctx context.Context, namespace string) error {
	err := r.cfg.DB.Write(ctx, func(t tx.Tx) error { return r.RemoveNamespaceTx(t, namespace) })
	if err != nil {
		return storageError("remove the rules of a namespace", err)
	}
	return nil
}

// RemoveNamespaceTx is RemoveNamespace inside the transaction of who removes the
// namespace itself.
func (r *Rules) RemoveNamespaceTx(t tx.Tx, namespace string) error {
	if _, err := r.cfg.Storage.DeleteRules(t, namespace); err != nil {
		return err
	}
	if _, err := r.cfg.Storage.ClearShadow(t, namespace); err != nil {
		return err
	}
	t.AfterCommit(func() {
		r.publish(namespace, func(now *snapshot) *snapshot {
			if now.count() == 0 {
				return nil
			}
			return new(snapshot)
		})
		r.forget(namespace)
	})
	return nil
}
