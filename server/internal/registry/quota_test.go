package registry

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/errs"
)

func TestQuotaOfInstances(t *testing.T) {
	t.Parallel()
	r := newBench(t)
	register := func(namespace, id string) error {
		_, _, err := r.Register(t.Context(), Owner{Namespace: namespace, Instance: id, Service: "payments"}, &catalog.Declaration{})
		return err
	}
	for i := range 3 {
		if err := register("default", fmt.Sprintf("in_%d", i)); err != nil {
			t.Fatal(err)
		}
	}
	r.SetQuota("default", 2)
	err := errs.From(register("default", "in_3"))
	if err == nil || err.Code != errs.ResourceExhausted || err.Meta["reason"] != "limit" || err.Meta["running"] != "3" || err.RetryAfter <= 0 ||
		!strings.Contains(err.Message, "quota of namespace default") {
		t.Errorf("beyond the quota: %+v", err)
	}
	if err := register("default", "in_2"); err != nil {
		t.Errorf("who is there already: %v", err)
	}
	if err := register("blue", "in_3"); err != nil {
		t.Errorf("another namespace: %v", err)
	}
	// However many come at once, no more get in than may.
	r.SetQuota("default", 5)
	var in atomic.Int64
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			if register("default", fmt.Sprintf("in_new_%d", i)) == nil {
				in.Add(1)
			}
		})
	}
	wg.Wait()
	if in.Load() != 2 {
		t.Errorf("%d got in, there were 2 places", in.Load())
	}
	if err := r.Deregister(t.Context(), "default", "in_0", catalog.Deregistered); err != nil {
		t.Fatal(err)
	}
	if err := register("default", "in_9"); err != nil {
		t.Errorf("after one has gone: %v", err)
	}
	r.SetQuota("default", 0)
	if err := register("default", "in_10"); err != nil {
		t.Errorf("without a quota: %v", err)
	}
}

func TestOnServiceHearsOfChanges(t *testing.T) {
	t.Parallel()
	r := newBench(t)
	var mu sync.Mutex
	heard := make(map[string]int)
	r.OnService(func(namespace, service string) {
		mu.Lock()
		defer mu.Unlock()
		heard[namespace+"/"+service]++
	})
	n := func() int {
		mu.Lock()
		defer mu.Unlock()
		return heard["default/payments"]
	}
	step := func(what string, f func() error) {
		t.Helper()
		before := n()
		if err := f(); err != nil || n() == before {
			t.Errorf("%s: %v, heard %d times", what, err, n()-before)
		}
	}
	step("register", func() error {
		_, _, err := r.Register(t.Context(), Owner{Namespace: "default", Instance: "in_1", Service: "payments"}, &catalog.Declaration{})
		return err
	})
	step("status", func() error { return r.SetStatus(t.Context(), "default", "in_1", catalog.Error, "") })
	step("drain", func() error { return r.Drain(t.Context(), "default", "in_1", true) })
	step("deregister", func() error { return r.Deregister(t.Context(), "default", "in_1", catalog.Deregistered) })
}
