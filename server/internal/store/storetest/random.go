package storetest

import (
	"errors"
	"fmt"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/server/internal/config"
	"telford.dev/telford/server/internal/feed"
	"telford.dev/telford/server/internal/idempotency"
	"telford.dev/telford/server/internal/identity"
	"telford.dev/telford/server/internal/registry"
	"telford.dev/telford/server/internal/rules"
	"telford.dev/telford/server/internal/store/engine"
	"telford.dev/telford/server/internal/tx"
)

// operation is one call of a storage method with fixed arguments: what it returns is
// compared between implementations.
type operation struct {
	name string
	run  func(Store, tx.Tx) (any, error)
}

func (o operation) String() string { return o.name }

// transaction is several operations that succeed or fail together.
type transaction struct {
	ops   []operation
	abort bool // the function returns an error at its end
}

var errAbort = errors.New("aborted by the test")

// outcome is everything that one implementation said.
type outcome struct {
	Results []any
	Errors  []string
	Err     string
	After   int
}

// sentinels are the errors whose identity must agree; texts may differ.
var sentinels = map[string]error{
	"not found": tx.ErrNotFound, "exists": tx.ErrExists, "stale": tx.ErrStale, "abort": errAbort,
	"read-only": tx.ErrReadOnly, "invalid": tx.ErrInvalid, "full": tx.ErrFull, "unknown": tx.ErrOutcomeUnknown,
}

func sentinel(err error) string {
	if err == nil {
		return ""
	}
	for name, target := range sentinels {
		if errors.Is(err, target) {
			return name
		}
	}
	return "another error: " + err.Error()
}

// apply runs a transaction on one implementation.
func apply(t testing.TB, s Store, x transaction) outcome {
	var o outcome
	o.Err = sentinel(s.Write(t.Context(), func(t2 tx.Tx) error {
		after := o.After
		o = outcome{After: after} // the function may run twice
		t2.AfterCommit(func() { o.After++ })
		for _, op := range x.ops {
			v, err := op.run(s, t2)
			o.Results, o.Errors = append(o.Results, v), append(o.Errors, sentinel(err))
		}
		if x.abort {
			return errAbort
		}
		return nil
	}))
	return o
}

// Agree applies random transactions to all stores and to a model in memory and fails
// where one of them answers differently. It empties the stores.
func Agree(t *testing.T, all map[string]Store) {
	rapid.Check(t, func(r *rapid.T) {
		m := newModel()
		for name, s := range all {
			if err := clean(t, s); err != nil {
				r.Fatalf("%s: make it empty: %v", name, err)
			}
		}
		for _, x := range rapid.SliceOfN(transactions(), 1, 12).Draw(r, "transactions") {
			want := apply(t, m, x)
			for name, s := range all {
				got := apply(t, s, x)
				if d := gocmp.Diff(want, got); d != "" {
					r.Fatalf("%s disagrees with the model about %v (-model +%s):\n%s", name, x.ops, name, d)
				}
			}
		}
		want := dump(t, m)
		for name, s := range all {
			if d := gocmp.Diff(want, dump(t, s)); d != "" {
				r.Fatalf("%s ends in another state (-model +%s):\n%s", name, name, d)
			}
		}
	})
}

// clean empties every table.
func clean(t testing.TB, s Store) error {
	return s.Write(t.Context(), func(t2 tx.Tx) error {
		for _, table := range []string{"meta", "counters", "namespaces", "keys", "revocations", "instances", "tombstones", "rules", "shadow_denials", "idempotency", "idempotency_owners", "feed", "feed_heads", "config_values", "config_history", "config_heads", "rest_services"} {
			if _, err := t2.(engine.Tx).Exec("DELETE FROM " + table); err != nil {
				return err
			}
		}
		return nil
	})
}

// dump reads everything.
func dump(t testing.TB, s Store) map[string]any {
	all := map[string]any{}
	err := s.Read(t.Context(), func(t2 tx.Tx) (err error) {
		add := func(name string, v any, e error) {
			all[name], err = v, errors.Join(err, e)
		}
		keys, e := s.Keys(t2, identity.KeyFilter{})
		add("keys", keys, e)
		revocations, e := s.Revocations(t2)
		add("revocations", revocations, e)
		namespaces, e := s.Namespaces(t2)
		add("namespaces", namespaces, e)
		instances, e := s.Instances(t2)
		add("instances", instances, e)
		for _, key := range []string{"x", "payments"} {
			records, e := s.IdempotencyRecords(t2, idempotency.Filter{Key: key})
			add("records of "+key, records, e)
		}
		stones, e := s.Tombstones(t2, time.Time{})
		add("tombstones", stones, e)
		laid, e := s.Rules(t2)
		add("rules", laid, e)
		for _, namespace := range []string{"default", "Default", "über"} {
			head, e := s.FeedHead(t2, namespace)
			add("feed head of "+namespace, head, e)
			values, _, e := s.ConfigValues(t2, &config.Range{Namespace: namespace, Limit: 1000, MaxBytes: 1 << 20}, "", "\x7f")
			add("configuration of "+namespace, values, e)
			changes, _, e := s.ConfigChanges(t2, &config.Range{Namespace: namespace, Limit: 1000, MaxBytes: 1 << 20}, "", "\x7f", -1, 1<<60)
			add("configuration history of "+namespace, changes, e)
			events, e := s.EventsAfter(t2, &feed.Range{Namespace: namespace, Limit: 1000, MaxBytes: 1 << 20}, 0, 1<<60)
			add("events of "+namespace, events, e)
		}
		services, e := s.RESTServices(t2)
		add("rest services", services, e)
		shadow, e := s.ShadowDenials(t2, "")
		add("shadow denials", shadow, e)
		return err
	})
	if err != nil {
		t.Error(err)
	}
	return all
}

// The values are few, so that operations meet.
var (
	somewhere = rapid.SampledFrom([]string{"default", "Default", "über"})
	someID    = rapid.SampledFrom([]string{"a", "B", "a-1", "a_1", "é", ""})
	someText  = rapid.SampledFrom([]string{"", "x", "payments", "ω", "'; drop table keys; --"})
	someBytes = rapid.SliceOfN(rapid.Byte(), 0, 4)
	someTime  = rapid.Custom(func(t *rapid.T) time.Time {
		n := rapid.Int64Range(0, 4).Draw(t, "time")
		if n == 0 {
			return time.Time{}
		}
		return day.Add(time.Duration(n) * time.Microsecond)
	})
)

func transactions() *rapid.Generator[transaction] {
	return rapid.Custom(func(t *rapid.T) transaction {
		return transaction{
			ops:   rapid.SliceOfN(operations(), 1, 5).Draw(t, "ops"),
			abort: rapid.IntRange(0, 5).Draw(t, "abort") == 0,
		}
	})
}

func operations() *rapid.Generator[operation] {
	return rapid.Custom(func(t *rapid.T) operation {
		namespace, id, text := somewhere.Draw(t, "namespace"), someID.Draw(t, "id"), someText.Draw(t, "text")
		at, at2, data := someTime.Draw(t, "at"), someTime.Draw(t, "at2"), append([]byte{}, someBytes.Draw(t, "bytes")...)
		revision := rapid.Int64Range(0, 3).Draw(t, "revision")
		k := identity.Key{
			ID: id, Namespace: namespace, Service: text, Kind: identity.KindAPI, Name: text, SecretMAC: data,
			Created: at, Expires: at2, Revoked: at, Revision: revision, Updated: at2, Author: text,
		}
		row := registry.Row{
			Namespace: namespace, ID: id, Service: text, KeyID: id, Door: text, Declaration: data,
			Draining: revision == 1, Registered: at, Updated: at2, Revision: revision, Author: text,
		}
		stone := catalog.Tombstone{Namespace: namespace, ID: id, Service: text, Reason: catalog.Drained, At: at}
		revoked := identity.Revocation{Kind: namespace, ID: id, At: at, NotAfter: at2, Author: text, Reason: text}
		space := identity.Namespace{Name: id, Account: revision, Created: at}
		rule := rules.Row{
			Namespace: namespace, Kind: "limit", ID: id, Target: text, Spec: data, Revision: 1 + revision, Updated: at, Author: text,
		}
		denials := []rules.ShadowDenial{
			{Namespace: namespace, Service: id, Action: text, Count: revision, First: at, Last: at2},
			{Namespace: namespace, Service: text, Action: id, Count: 1, First: at2, Last: at},
		}
		nothing := func(err error) (any, error) { return nil, err }
		all := []operation{
			{"InsertKey", func(s Store, t tx.Tx) (any, error) { return nothing(s.InsertKey(t, &k)) }},
			{"Key", func(s Store, t tx.Tx) (any, error) { return pointer(s.Key(t, id)) }},
			{"Keys", func(s Store, t tx.Tx) (any, error) {
				return s.Keys(t, identity.KeyFilter{Namespace: namespace, Service: text})
			}},
			{"UpdateKey", func(s Store, t tx.Tx) (any, error) { return nothing(s.UpdateKey(t, &k)) }},
			{"InsertRevocation", func(s Store, t tx.Tx) (any, error) { return nothing(s.InsertRevocation(t, &revoked)) }},
			{"Revocations", func(s Store, t tx.Tx) (any, error) { return s.Revocations(t) }},
			{"DeleteRevocationsBefore", func(s Store, t tx.Tx) (any, error) { return nothing(s.DeleteRevocationsBefore(t, at)) }},
			{"InsertNamespace", func(s Store, t tx.Tx) (any, error) { return nothing(s.InsertNamespace(t, &space)) }},
			{"SetAccount", func(s Store, t tx.Tx) (any, error) { return nothing(s.SetAccount(t, id, revision, at, text)) }},
			{"HoldNamespace", func(s Store, t tx.Tx) (any, error) { return nothing(s.HoldNamespace(t, id)) }},
			{"DeleteNamespace", func(s Store, t tx.Tx) (any, error) { return nothing(s.DeleteNamespace(t, id)) }},
			{"Namespaces", func(s Store, t tx.Tx) (any, error) { return s.Namespaces(t) }},
			{"Meta", func(s Store, t tx.Tx) (any, error) { return s.Meta(t, id) }},
			{"InsertMeta", func(s Store, t tx.Tx) (any, error) { return nothing(s.InsertMeta(t, id, data)) }},
			{"SwapMeta", func(s Store, t tx.Tx) (any, error) {
				old := data // seldom what is there
				if now, err := s.Meta(t, id); err == nil && revision > 0 {
					old = now
				}
				return nothing(s.SwapMeta(t, id, old, data))
			}},
			{"DeleteMeta", func(s Store, t tx.Tx) (any, error) { return nothing(s.DeleteMeta(t, id)) }},
			{"PutMeta", func(s Store, t tx.Tx) (any, error) { return nothing(s.PutMeta(t, id, data)) }},
			{"PutInstance", func(s Store, t tx.Tx) (any, error) { return nothing(s.PutInstance(t, &row)) }},
			{"DeleteInstance", func(s Store, t tx.Tx) (any, error) { return nothing(s.DeleteInstance(t, namespace, id)) }},
			{"Instances", func(s Store, t tx.Tx) (any, error) { return s.Instances(t) }},
			{"PutTombstone", func(s Store, t tx.Tx) (any, error) { return nothing(s.PutTombstone(t, stone)) }},
			{"Tombstones", func(s Store, t tx.Tx) (any, error) { return s.Tombstones(t, at) }},
			{"DeleteTombstonesBefore", func(s Store, t tx.Tx) (any, error) { return s.DeleteTombstonesBefore(t, at) }},
			{"PutRule", func(s Store, t tx.Tx) (any, error) { return nothing(s.PutRule(t, &rule)) }},
			{"DeleteRule", func(s Store, t tx.Tx) (any, error) { return nothing(s.DeleteRule(t, namespace, "limit", id)) }},
			{"DeleteRules", func(s Store, t tx.Tx) (any, error) { return s.DeleteRules(t, namespace) }},
			{"Rules", func(s Store, t tx.Tx) (any, error) { return s.Rules(t) }},
			{"AddShadow", func(s Store, t tx.Tx) (any, error) { return nothing(s.AddShadow(t, denials)) }},
			{"ShadowDenials", func(s Store, t tx.Tx) (any, error) { return s.ShadowDenials(t, namespace) }},
			{"ClearShadow", func(s Store, t tx.Tx) (any, error) { return s.ClearShadow(t, namespace) }},
			{"NextEpoch", func(s Store, t tx.Tx) (any, error) { return s.NextEpoch(t) }},
		}
		all = append(all, keyedOperations(t)...)
		all = append(all, feedOperations(t)...)
		all = append(all, configOperations(t)...)
		all = append(all, restOperations(t)...)
		op := rapid.SampledFrom(all).Draw(t, "op")
		op.name = fmt.Sprintf("%s(%q %q %q %v %v %x %d)", op.name, namespace, id, text, at, at2, data, revision)
		return op
	})
}

// pointer keeps a nil pointer from hiding in a non-nil interface.
func pointer[T any](v *T, err error) (any, error) {
	if v == nil {
		return nil, err
	}
	return v, err
}
