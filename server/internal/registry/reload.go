package registry

import (
	"context"
	"encoding/json"
	"errors"

	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/server/internal/tx"
)

// errReloaded ends a write that was prepared from a memory which has been read anew
// since. It never leaves the package.
var errReloaded = errors.New("the registry was read again meanwhile")

// Reload reads what is registered again, for when the store may know more than memory
// does: after a commit whose outcome was unknown. Instances that only the store has come
// back with a whole new lease, those that it no longer has go with the reason that it
// tells, and watchers are told of both; leases and sessions of all others go on. It
// writes nothing. No write of this process may run meanwhile, as is so where a store
// calls it.
func (r *Registry) Reload(ctx context.Context) error {
	const operation = "read the registry again"
	since := stored(r.clock.Now().Add(-r.cfg.KeepTombstones))
	var rows []*Row
	var stones []catalog.Tombstone
	err := r.cfg.DB.Read(ctx, func(t tx.Tx) (err error) {
		if rows, err = r.cfg.Storage.Instances(t); err != nil {
			return err
		}
		stones, err = r.cfg.Storage.Tombstones(t, since)
		return err
	})
	if err != nil {
		return storeError(operation, err)
	}
	var back, gone int
	r.change(func(c *change) {
		r.reloads++
		back, gone = c.reload(rows, stones)
	})
	r.log.Warn("the registry was read again from the store", "instances", len(rows), "changed", back, "gone", gone)
	return nil
}

// reload makes the memory say what rows say. It returns how many instances are there
// anew or otherwise than before, and how many are gone.
func (c *change) reload(rows []*Row, stones []catalog.Tombstone) (changed, gone int) {
	r := c.r
	known := make(map[key]bool, len(rows))
	for _, row := range rows {
		k := key{row.Namespace, row.ID}
		known[k] = true
		e := r.entries[k]
		if e != nil {
			// Its end, if one was being written, was not.
			e.lease.ending.Store(false)
		}
		if e != nil && e.matches(row) {
			continue
		}
		rec, err := row.record()
		if err != nil {
			r.log.Error("a stored registration cannot be read; what is in memory stays until the instance registers again",
				"namespace", row.Namespace, "instance", row.ID, "service", row.Service, "error", err)
			continue
		}
		c.put(rec)
		r.entries[k].lease.ttl.Store(int64(r.ttl(rec.declaration.TTL)))
		changed++
	}
	reasons := make(map[key]catalog.Tombstone, len(stones))
	for _, s := range stones {
		reasons[key{s.Namespace, s.ID}] = s
	}
	for k, e := range r.entries {
		if known[k] {
			continue
		}
		stone, ok := reasons[k]
		if !ok {
			stone = catalog.Tombstone{
				Namespace: k.namespace, ID: k.id, Service: e.service.name, Reason: catalog.Expired, At: stored(r.clock.Now()),
			}
		}
		c.remove(e, stone)
		gone++
	}
	return changed, gone
}

// record reads a row.
func (row *Row) record() (*record, error) {
	d := new(catalog.Declaration)
	if err := json.Unmarshal(row.Declaration, d); err != nil {
		return nil, err
	}
	d.Service = row.Service
	return &record{
		key: key{row.Namespace, row.ID}, declaration: d, digest: digest(row.Declaration),
		keyID: row.KeyID, door: row.Door, drained: row.Draining,
		registered: row.Registered, revision: row.Revision,
	}, nil
}

// matches reports whether row is what e was written as.
func (e *entry) matches(row *Row) bool {
	return e.digest == digest(row.Declaration) && e.service.name == row.Service && e.drained == row.Draining &&
		e.inst.KeyID == row.KeyID && e.inst.Door == row.Door && e.inst.Revision == row.Revision && e.inst.Registered.Equal(row.Registered)
}

// asSeen reports whether memory is still the one that a write was prepared from.
func (r *Registry) asSeen(reloads uint64) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.reloads == reloads
}
