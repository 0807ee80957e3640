package registry

import (
	"context"
	"encoding/json"
	"sync"
	"testing"

	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/server/internal/tx"
)

// switches is a policy of which services may handle calls.
type switches struct {
	mu  sync.Mutex
	off map[string]bool
}

func (s *switches) set(service string, on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.off[service] = !on
}

func (s *switches) Handles(namespace, service string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return namespace != "default" || !s.off[service]
}

func (s *switches) Warnings(namespace string, d *catalog.Declaration) (list []catalog.DeclarationWarning) {
	if s.Handles(namespace, d.Service) {
		return nil
	}
	for _, m := range d.Methods {
		list = append(list, Warning{Declaration: "rpc.handle", Value: m.Name, Side: "capability", Reason: "off"})
	}
	return list
}

func TestMethodsOfAServiceThatMayNotHandleCalls(t *testing.T) {
	t.Parallel()
	policy := &switches{off: map[string]bool{"payments": true}}
	b := newBench(t, func(c *Config) { c.Policy = policy })
	methods := func(id string) int {
		t.Helper()
		i, err := b.Get("default", id)
		if err != nil {
			t.Fatal(err)
		}
		return len(i.Declaration.Methods)
	}
	stored := func(id string) int {
		t.Helper()
		row, ok := b.store.row("default", id)
		var d catalog.Declaration
		if err := json.Unmarshal(row.Declaration, &d); err != nil || !ok {
			t.Fatalf("%t, %v", ok, err)
		}
		return len(d.Methods)
	}
	declared := func() *catalog.Declaration {
		return &catalog.Declaration{Service: "payments", Methods: []catalog.Method{{Name: "shop.v1.Payments/Charge"}, {Name: "charge"}}}
	}
	ctx := context.Background()
	_, warnings, err := b.Register(ctx, owner("in_1", "payments"), declared())
	if err != nil || len(warnings) != 2 || warnings[0].Side != "capability" {
		t.Fatalf("%v, %v", warnings, err)
	}
	b.register("in_2", "payments")
	b.register("or_1", "orders")
	if methods("in_1") != 0 || methods("or_1") != 2 || len(b.Forbidden("default", "in_1")) != 2 || b.Forbidden("default", "or_1") != nil || b.Forbidden("default", "nobody") != nil {
		t.Error("the wrong methods are published")
	}
	if b.ServicesWithMethod("default", "shop.v1.Payments") == nil || len(b.ServicesWithMethod("default", "shop.v1.Payments")) != 1 {
		t.Errorf("registered by %v, want orders alone", b.ServicesWithMethod("default", "shop.v1.Payments"))
	}
	// What others write does not lose what was declared.
	if err := b.SetStatus(ctx, "default", "in_1", catalog.Warning, "slow"); err != nil {
		t.Fatal(err)
	}
	if methods("in_1") != 0 || stored("in_1") != 2 {
		t.Errorf("%d published, %d stored", methods("in_1"), stored("in_1"))
	}

	w := b.Watch("default", []string{"payments"}, catalog.Revision{})
	defer w.Close()
	if _, err := w.Next(ctx); err != nil {
		t.Fatal(err)
	}
	writes := b.store.count()
	policy.set("payments", true)
	b.Apply("default")
	b.Apply("default")
	b.Apply("nowhere")
	update, err := w.Next(ctx)
	if err != nil || len(update.Upserts) != 2 || len(update.Upserts[0].Declaration.Methods) != 2 {
		t.Errorf("watchers are told %+v, %v", update, err)
	}
	if methods("in_1") != 2 || methods("in_2") != 2 || len(b.ServicesWithMethod("default", "shop.v1.Payments")) != 2 || b.store.count() != writes {
		t.Error("the methods have not come back, or something was written")
	}
	policy.set("payments", false)
	b.Apply("default")
	if update, err = w.Next(ctx); err != nil || len(update.Upserts) != 2 || len(update.Upserts[1].Declaration.Methods) != 0 {
		t.Errorf("watchers are told %+v, %v", update, err)
	}
	// The same after a start, and when the store is read again.
	b.open()
	if methods("in_1") != 0 || len(b.Forbidden("default", "in_1")) != 2 {
		t.Error("after a start they are published")
	}
	if err := b.Reload(ctx); err != nil {
		t.Fatal(err)
	}
	policy.set("payments", true)
	b.Apply("default")
	if methods("in_1") != 2 || methods("in_2") != 2 {
		t.Error("they have not come back")
	}
}

func TestANamespaceWithInstancesStays(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	end := func(namespace string) error {
		return b.store.Write(context.Background(), func(t tx.Tx) error { return b.RemoveNamespaceTx(t, namespace) })
	}
	if err := end("default"); err != nil {
		t.Error(err)
	}
	for _, id := range []string{"in_1", "in_2", "in_3", "in_4"} {
		b.register(id, "payments")
	}
	wantCode(t, end("default"), errs.FailedPrecondition, "(4)", "in_1 of payments", "...", "telford services deregister")
	if err := end("other"); err != nil {
		t.Error(err)
	}
}
