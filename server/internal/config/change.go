package config

import (
	"context"
	"errors"
	"time"

	"telford.dev/telford/internal/errs"
	"telford.dev/telford/server/internal/feed"
	"telford.dev/telford/server/internal/tx"
)

// The keys in the Meta of a conflict: the revision that the change was made for, and the
// one that the value has. 0: no value.
const (
	MetaWanted = "wanted_revision"
	MetaStored = "stored_revision"
)

// ReasonQuota is the reason of resource_exhausted when a namespace has all that it may.
const ReasonQuota = "quota"

// Set sets a value and returns it. changed is false where it had the same text and kind
// already: then nothing happens, and no event. invalid_argument: the id or the value;
// conflict: cond is not met; resource_exhausted: the namespace has all that it may;
// not_found: there is no such namespace.
func (v *Values) Set(ctx context.Context, namespace, id string, in Input, cond Cond, author string) (now Value, changed bool, err error) {
	const operation = "set a value"
	if err := CheckID(id); err != nil {
		return Value{}, false, storageError(operation, err)
	}
	if err := in.check(v.cfg.MaxValue); err != nil {
		return Value{}, false, storageError(operation, err)
	}
	err = v.write(ctx, namespace, func(t tx.Tx, h *Head) error {
		now, changed, err = v.set(t, h, namespace, id, in, cond, author, 0)
		return err
	})
	if err != nil {
		return Value{}, false, v.failed(operation, err)
	}
	return now, changed, nil
}

// Remove removes a value and returns what it was. not_found: there is none; conflict:
// cond is not met.
func (v *Values) Remove(ctx context.Context, namespace, id string, cond Cond, author string) (Value, error) {
	const operation = "remove a value"
	if err := CheckID(id); err != nil {
		return Value{}, storageError(operation, err)
	}
	var old Value
	err := v.write(ctx, namespace, func(t tx.Tx, h *Head) error {
		was, err := v.current(t, namespace, id)
		if err == nil {
			err = cond.check(id, was)
		}
		if err == nil && was == nil {
			err = unknown(namespace, id)
		}
		if err != nil {
			return err
		}
		old = *was
		return v.remove(t, h, was, author, 0)
	})
	if err != nil {
		return Value{}, v.failed(operation, err)
	}
	return old, nil
}

// Rollback makes a value what it was at a revision of it, in a new revision; a revision
// that removed it removes it again, and changed is false where the value is that already.
// not_found: history has no such revision of the value; conflict: cond is not met.
func (v *Values) Rollback(ctx context.Context, namespace, id string, to int64, cond Cond, author string) (now Change, changed bool, err error) {
	const operation = "roll a value back"
	if err := CheckID(id); err != nil {
		return Change{}, false, storageError(operation, err)
	}
	err = v.write(ctx, namespace, func(t tx.Tx, h *Head) error {
		was, err := v.cfg.Storage.ConfigRevision(t, namespace, id, to)
		if errors.Is(err, tx.ErrNotFound) {
			return noRevision(namespace, id, to)
		}
		if err != nil {
			return err
		}
		if !was.Removed {
			now = Change{Restored: to}
			now.Value, changed, err = v.set(t, h, namespace, id, Input{Value: was.Value.Value, JSON: was.JSON}, cond, author, to)
			return err
		}
		old, err := v.current(t, namespace, id)
		if err == nil {
			err = cond.check(id, old)
		}
		now, changed = was.Change, old != nil
		if err != nil || old == nil {
			return err
		}
		err = v.remove(t, h, old, author, to)
		now = Change{Value: Value{Namespace: namespace, ID: id, Revision: h.Revision, Author: author, At: h.At}, Removed: true, Restored: to}
		return err
	})
	if err != nil {
		return Change{}, false, v.failed(operation, err)
	}
	return now, changed, nil
}

// write runs f in a transaction with the head of a namespace, which it stores when f has
// made a revision.
func (v *Values) write(ctx context.Context, namespace string, f func(tx.Tx, *Head) error) error {
	return v.cfg.DB.Write(ctx, func(t tx.Tx) error {
		if v.cfg.Namespaces != nil {
			if err := v.cfg.Namespaces.HoldTx(t, namespace); err != nil {
				return err
			}
		}
		h, err := v.cfg.Storage.LockConfig(t, namespace)
		if err != nil {
			return err
		}
		before := h.Revision
		if err := f(t, &h); err != nil {
			return err
		}
		if h.Revision == before {
			return nil
		}
		if err := v.cfg.Storage.PutConfigHead(t, namespace, h); err != nil {
			return err
		}
		t.AfterCommit(func() {
			v.stats.changes.Add(1)
			v.hub.Wake(namespace)
		})
		return nil
	})
}

// current is a value, nil if there is none.
func (v *Values) current(t tx.Tx, namespace, id string) (*Value, error) {
	was, err := v.cfg.Storage.ConfigValue(t, namespace, id)
	if errors.Is(err, tx.ErrNotFound) {
		return nil, nil
	}
	return was, err
}

// set is one change inside a transaction.
func (v *Values) set(t tx.Tx, h *Head, namespace, id string, in Input, cond Cond, author string, restored int64) (Value, bool, error) {
	was, err := v.current(t, namespace, id)
	if err == nil {
		err = cond.check(id, was)
	}
	if err != nil {
		return Value{}, false, err
	}
	if was != nil && was.Value == in.Value && was.JSON == in.JSON {
		return *was, false, nil
	}
	event := feed.ConfigUpdated{NewValue: in.Value, ID: id}
	next := *h
	if was != nil {
		event.OldValue = &was.Value
		next.Bytes -= int64(len(was.Value))
	} else {
		next.Count++
	}
	next.Bytes += int64(len(in.Value))
	if err := v.room(namespace, h, &next); err != nil {
		return Value{}, false, err
	}
	v.advance(&next)
	*h = next
	now := Value{Namespace: namespace, ID: id, Value: in.Value, JSON: in.JSON, Revision: h.Revision, Author: author, At: h.At}
	if err := v.cfg.Storage.PutConfigValue(t, &now); err != nil {
		return Value{}, false, err
	}
	if err := v.record(t, h, &Change{Value: now, Restored: restored}); err != nil {
		return Value{}, false, err
	}
	_, err = v.cfg.Feed.AppendTx(t, feed.New{Namespace: namespace, Type: feed.ConfigUpdate, Payload: event})
	return now, true, err
}

// remove is one removal inside a transaction.
func (v *Values) remove(t tx.Tx, h *Head, was *Value, author string, restored int64) error {
	h.Count--
	h.Bytes -= int64(len(was.Value))
	v.advance(h)
	if err := v.cfg.Storage.DeleteConfigValue(t, was.Namespace, was.ID); err != nil {
		return err
	}
	c := &Change{
		Value:   Value{Namespace: was.Namespace, ID: was.ID, Revision: h.Revision, Author: author, At: h.At},
		Removed: true, Restored: restored,
	}
	if err := v.record(t, h, c); err != nil {
		return err
	}
	_, err := v.cfg.Feed.AppendTx(t, feed.New{
		Namespace: was.Namespace, Type: feed.ConfigRemove, Payload: feed.ConfigRemoved{OldValue: was.Value, ID: was.ID},
	})
	return err
}

// advance makes the next revision. Its time is not before that of the last one, however
// clocks are set, so that history by age is history by revision.
func (v *Values) advance(h *Head) {
	h.Revision++
	if now := v.cfg.Clock.Now().UTC().Truncate(time.Microsecond); now.After(h.At) {
		h.At = now
	}
}

// record adds a change to the history, and removes what that is then too long for.
func (v *Values) record(t tx.Tx, h *Head, c *Change) error {
	row := &Row{Change: *c}
	last, err := v.cfg.Storage.LastConfigRevision(t, c.Namespace, c.ID)
	switch {
	case err == nil:
		row.N, row.Total = last.N, last.Total
	case !errors.Is(err, tx.ErrNotFound):
		return err
	}
	row.N++
	row.Total += int64(len(c.Value.Value))
	if err := v.cfg.Storage.AddConfigRevision(t, row); err != nil {
		return err
	}
	forgotten, err := v.cfg.Storage.TrimConfigHistory(t, c.Namespace, c.ID, row.N-v.cfg.MaxHistory, row.Total-v.cfg.MaxHistoryBytes, row.Revision-1)
	h.Forgotten = max(h.Forgotten, forgotten)
	return err
}

// room refuses what would be more than a namespace may have. What makes it smaller goes.
func (v *Values) room(namespace string, now, next *Head) error {
	var err *errs.Error
	switch {
	case next.Count > now.Count && next.Count > v.cfg.MaxValues:
		err = errs.New(errs.ResourceExhausted, "namespace %q has %d configuration values, which is the limit; remove some: telford config rm ID", namespace, now.Count)
	case next.Bytes > now.Bytes && next.Bytes > v.cfg.MaxBytes:
		err = errs.New(errs.ResourceExhausted, "the configuration values of namespace %q would have %d bytes together, and the most is %d; remove some, or make some smaller", namespace, next.Bytes, v.cfg.MaxBytes)
	default:
		return nil
	}
	return err.With(errs.MetaReason, ReasonQuota)
}

// RemoveNamespaceTx removes all values of a namespace that ends with t, and tells their
// watchers.
func (v *Values) RemoveNamespaceTx(t tx.Tx, namespace string) error {
	if err := v.cfg.Storage.DeleteConfig(t, namespace); err != nil {
		return err
	}
	t.AfterCommit(func() { v.hub.Remove(namespace) })
	return nil
}
