package registry

import (
	"context"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"telford.dev/telford/internal/catalog"
)

// heavy is a size that is whole only in a soak.
func heavy(n int) int {
	if os.Getenv("TELFORD_SOAK") == "1" {
		return n
	}
	return n / 100
}

// fill registers n instances of a hundred each service without a store's delay.
func fill(b *bench, n int) {
	b.store.flat = true
	for i := range n {
		row := Row{
			Namespace: "default", ID: fmt.Sprintf("in_%06d", i), Service: fmt.Sprintf("s%d", i/100),
			Declaration: []byte(`{"status":"OK","weight":1,"ttl":90000000000,"methods":[{"name":"shop.v1.S/M","kind":"unary"}]}`),
			Registered:  noon, Revision: 1,
		}
		b.store.rows[key{row.Namespace, row.ID}] = row
	}
	b.open()
}

// TestManyInstancesAndWatchers: a hundred thousand instances, a thousand watchers of
// ten services each, every instance heard of, changed once and gone at last.
func TestManyInstancesAndWatchers(t *testing.T) {
	t.Parallel()
	instances, watchers := heavy(100_000), heavy(1_000)
	b := newBench(t)
	fill(b, instances)
	services := max(instances/100, 1)
	var wg sync.WaitGroup
	var left atomic.Int64
	left.Store(int64(watchers))
	for n := range watchers {
		names := make([]string, 10)
		for i := range names {
			names[i] = fmt.Sprintf("s%d", (n+i*7)%services)
		}
		w := b.Watch("default", names, catalog.Revision{})
		wg.Go(func() {
			defer w.Close()
			known := make(map[string]bool)
			for {
				u, err := w.Next(context.Background())
				if err != nil {
					t.Error(err)
					return
				}
				for _, s := range u.Removals {
					delete(known, s.ID)
				}
				for _, i := range u.Upserts {
					known[i.ID] = i.Reachable
				}
				if len(known) == 0 {
					return
				}
			}
		})
	}
	start := time.Now()
	for i := range instances {
		id := fmt.Sprintf("in_%06d", i)
		if !b.Touch("default", id) || !b.Reach("default", id, true) || !b.Reach("default", id, false) {
			t.Fatalf("%s is not registered", id)
		}
	}
	t.Logf("%d instances heard of, reached and lost, with %d watchers: %s", instances, watchers, time.Since(start))
	start = time.Now()
	b.pass(100 * time.Second)
	if got := b.ConfirmExpiry(""); got != instances {
		t.Fatalf("%d of %d are held back", got, instances)
	}
	b.pass(time.Second)
	t.Logf("all gone: %s", time.Since(start))
	wg.Wait()
	if s := b.Stats(); s.Instances != 0 || s.Reachable != 0 || s.Watchers != 0 {
		t.Fatalf("%+v", s)
	}
}

// TestReadersAndWriters has everything happen at once, for the race detector, and
// checks that readers see whole states.
func TestReadersAndWriters(t *testing.T) {
	t.Parallel()
	b := newBench(t, func(c *Config) { c.Retain = 64; c.Tick = time.Second })
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if err := b.Start(ctx); err != nil {
		t.Fatal(err)
	}
	var writers, readers sync.WaitGroup
	rounds := max(heavy(20_000), 100)
	for n := range 4 {
		writers.Go(func() {
			for i := range rounds {
				id, service := fmt.Sprintf("in_%d_%d", n, i%8), fmt.Sprintf("s%d", (n+i)%3)
				o := owner(id+service, service)
				_, _, err := b.Register(ctx, o, &catalog.Declaration{Version: fmt.Sprint(i % 5)})
				if err != nil {
					t.Error(err)
				}
				end, _ := b.Session("default", o.Instance)
				_ = b.SetStatus(ctx, "default", o.Instance, modelStatuses[i%3], "")
				b.Touch("default", o.Instance)
				end()
				if i%4 == 0 {
					_ = b.Deregister(ctx, "default", o.Instance, catalog.Deregistered)
				}
				if n == 0 {
					b.clock.Advance(100 * time.Millisecond)
				}
			}
		})
	}
	for n := range 2 {
		readers.Go(func() {
			for range rounds {
				for _, service := range b.Services("default") {
					last := ""
					for _, i := range b.Candidates("default", service) {
						if i.ID <= last || i.Declaration.Service != service || !visible(i) {
							t.Errorf("candidate %+v of %s after %s", i, service, last)
						}
						last = i.ID
					}
				}
			}
		})
		readers.Go(func() {
			w := b.Watch("default", []string{"s0"}, catalog.Revision{})
			defer w.Close()
			for i := 0; ; i++ {
				if _, err := w.Next(ctx); err != nil {
					return
				}
				if err := w.SetServices([]string{"s0", fmt.Sprintf("s%d", (i+n)%3)}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	writers.Wait()
	cancel()
	readers.Wait()
	b.stop()
}

func TestHotPathsAllocateNothing(t *testing.T) {
	b := newBench(t)
	b.register("in_1", "payments")
	for name, f := range map[string]func(){
		"Touch":              func() { b.Touch("default", "in_1") },
		"Candidates":         func() { b.Candidates("default", "payments") },
		"ServicesWithMethod": func() { b.ServicesWithMethod("default", "shop.v1.Payments") },
	} {
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("%s allocates %v times", name, n)
		}
	}
}

func BenchmarkCandidates(b *testing.B) {
	r := newBench(b)
	fill(r, 1000)
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			r.Candidates("default", "s3")
		}
	})
}

func BenchmarkTouch(b *testing.B) {
	r := newBench(b, func(c *Config) { c.Clock = nil })
	fill(r, 1000)
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			r.Touch("default", "in_000300")
		}
	})
}

func BenchmarkReach(b *testing.B) {
	r := newBench(b)
	fill(r, 10_000)
	on := false
	for b.Loop() {
		on = !on
		r.Reach("default", "in_000300", on)
	}
}
