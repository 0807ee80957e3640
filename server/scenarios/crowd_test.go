package scenarios

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"telford.dev/telford"
	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/server/internal/registry"
	"telford.dev/telford/server/telfordtest"
)

// A registry of very many instances tells very many watchers of a change, whatever else
// is registered. The runtime and the watchers share this process, so that what is told of
// memory and processor is of both.
func TestCrowdedRegistry(t *testing.T) {
	srv := telfordtest.Start(t)
	reg := srv.Runtime().Registry()
	instances, watchers := size(1000, 100_000), size(10, 1000)
	services := max(instances/100, 10)
	base := heap()

	began, cpu := time.Now(), processor()
	var wg sync.WaitGroup
	next := make(chan int)
	for range 64 {
		wg.Go(func() {
			for i := range next {
				o := registry.Owner{
					Namespace: "default", Instance: fmt.Sprintf("in_%06d", i), Service: fmt.Sprintf("s%d", i%services), KeyID: "key_x", Door: "link",
				}
				status := catalog.OK
				if i%services < 2 {
					status = catalog.Suspended // until the change that is waited for
				}
				_, _, err := reg.Register(context.Background(), o, &catalog.Declaration{
					Status: status, Version: "1.2.3", TTL: time.Hour, Methods: []catalog.Method{{Name: "shop.v1.Shop/Buy"}, {Name: "charge"}},
					Endpoints: []catalog.Endpoint{{Kind: "link", Host: "10.0.0.1", Port: 4000}}, Tags: []string{"blue"},
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	for i := range instances {
		next <- i
	}
	close(next)
	wg.Wait()
	t.Logf("%d instances of %d services registered in %v, with %v of processor time and %d bytes each",
		instances, services, time.Since(began).Round(time.Millisecond), (processor() - cpu).Round(time.Millisecond), int(heap()-base)/instances)

	// Everybody watches s0 and s1, and another service.
	base, began, cpu = heap(), time.Now(), processor()
	key := srv.Key(t, "watcher")
	all := make([]*telford.Service, watchers)
	indices := make(chan int)
	for range 16 {
		wg.Go(func() {
			for i := range indices {
				opts := []telford.Option{telford.WithServer(srv.Addr()), telford.WithKey(key), telford.CallerOnly(), telford.Uses("s0"), telford.Uses("s1"), telford.Uses(fmt.Sprintf("s%d", 2+i%(services-2)))}
				s, err := telford.New("watcher", opts...)
				if err == nil {
					ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
					err = s.Start(ctx)
					cancel()
				}
				if err != nil {
					t.Error(err)
					continue
				}
				all[i] = s
				t.Cleanup(func() { _ = s.Stop(context.Background()) }) // the runtime ends as well
			}
		})
	}
	for i := range watchers {
		indices <- i
	}
	close(indices)
	wg.Wait()
	if t.Failed() {
		return
	}
	t.Logf("%d watchers of about 300 instances each had their snapshots after %v, with %v of processor time and %d KiB each",
		watchers, time.Since(began).Round(time.Millisecond), (processor() - cpu).Round(time.Millisecond), int(heap()-base)/watchers/1024)

	for n, changed := range []int{1, 10} {
		hot := fmt.Sprintf("s%d", n)
		began, cpu = time.Now(), processor()
		for i := range changed {
			status := catalog.Suspended
			if i == changed-1 {
				status = catalog.OK
			}
			must(t, reg.SetStatus(t.Context(), "default", fmt.Sprintf("in_%06d", i*services+n), status, "changed"))
		}
		written := time.Since(began)
		for _, s := range all {
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
				defer cancel()
				if err := s.WaitReady(ctx, hot); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		t.Logf("%d of %d instances changed: stored after %v, known to all %d watchers after %v, with %v of processor time",
			changed, instances, written.Round(time.Millisecond), watchers, time.Since(began).Round(time.Millisecond), (processor() - cpu).Round(time.Millisecond))
	}
}

// heap is what is alive.
func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// processor is the processor time that this process has spent.
func processor() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
