package idempotency

import (
	"context"
	"slices"

	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/message"
	"telford.dev/telford/server/internal/tx"
)

// List returns the records of a key or of a business key, without their answers, in the
// order of namespace, caller, callee, method and key. invalid_argument: neither was
// given, or both, or one that cannot be a key.
func (k *Keys) List(ctx context.Context, f Filter) ([]*Record, error) {
	if (f.Key == "") == (f.BusinessKey == "") {
		return nil, errs.New(errs.InvalidArgument, "give a key or a business_key, one of the two").In("idempotency", "list keys")
	}
	if err := message.CheckKeys(&message.Call{IdempotencyKey: f.Key, BusinessKey: f.BusinessKey}); err != nil {
		return nil, err.In("idempotency", "list keys")
	}
	var all []*Record
	err := k.cfg.DB.Read(ctx, func(t tx.Tx) (err error) {
		all, err = k.cfg.Storage.IdempotencyRecords(t, f)
		return err
	})
	if err != nil {
		return nil, storeError("list idempotency keys", err).In("idempotency", "list keys")
	}
	now := k.clock.Now()
	return slices.DeleteFunc(all, func(r *Record) bool { return r.expired(now) }), nil
}

// RemoveNamespaceTx forgets the keys of a namespace that ends with t. It implements
// identity.Tenant.
func (k *Keys) RemoveNamespaceTx(t tx.Tx, namespace string) error {
	n, err := k.cfg.Storage.DeleteNamespaceIdempotencyRecords(t, namespace)
	if err != nil {
		return err
	}
	t.AfterCommit(func() { k.stats.records.Add(-int64(n)) })
	return nil
}
