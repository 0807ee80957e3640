package feed

import (
	"context"
	"errors"

	"telford.dev/telford/internal/errs"
	"telford.dev/telford/server/internal/tx"
)

// Append appends an event in a transaction of its own: for what happened outside of the
// store.
func (f *Feed) Append(ctx context.Context, n New) (Event, error) {
	var e Event
	err := f.cfg.DB.Write(ctx, func(t tx.Tx) (err error) {
		e, err = f.AppendTx(t, n)
		return err
	})
	if err != nil {
		return Event{}, storageError("append an event", err)
	}
	return e, nil
}

// AppendTx appends an event inside the transaction of the change that it tells of, and
// holds the namespace. invalid_argument: type or payload; already_exists: the namespace
// has an event with the id; not_found: there is no such namespace. Others that append to
// the namespace wait until t ends.
func (f *Feed) AppendTx(t tx.Tx, n New) (Event, error) {
	payload, err := n.encode()
	if err != nil {
		return Event{}, err
	}
	if f.cfg.Namespaces != nil {
		if err := f.cfg.Namespaces.HoldTx(t, n.Namespace); err != nil {
			return Event{}, err
		}
	}
	row := &Row{Namespace: n.Namespace, ID: n.ID, Type: n.Type, Payload: payload}
	now := int64(0) // an event that is dated back moves no time
	if n.ID == (ID{}) {
		now = ticks(f.cfg.Clock.Now())
	}
	head, err := f.cfg.Storage.AdvanceFeed(t, n.Namespace, now)
	if err != nil {
		return Event{}, err
	}
	row.Seq = head.Seq
	if n.ID == (ID{}) {
		row.ID = ID{Ticks: head.Ticks, Rest: f.node}
	}
	if err := f.cfg.Storage.InsertEvent(t, row); err != nil {
		if errors.Is(err, tx.ErrExists) {
			return Event{}, errs.New(errs.AlreadyExists, "namespace %q has an event %s", n.Namespace, row.ID)
		}
		return Event{}, err
	}
	t.AfterCommit(func() {
		f.stats.appended.Add(1)
		f.hub.Wake(n.Namespace)
	})
	return row.event(), nil
}

// RemoveNamespaceTx removes all events of a namespace that ends with t, and tells its
// followers.
func (f *Feed) RemoveNamespaceTx(t tx.Tx, namespace string) error {
	if err := f.cfg.Storage.DeleteFeed(t, namespace); err != nil {
		return err
	}
	t.AfterCommit(func() { f.hub.Remove(namespace) })
	return nil
}

func (r *Row) event() Event {
	return Event{ID: r.ID.String(), Namespace: r.Namespace, At: r.ID.Time(), Type: r.Type, Payload: r.Payload}
}
