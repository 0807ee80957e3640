package store_test

import (
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"

	"telford.dev/telford/server/internal/store"
	"telford.dev/telford/server/internal/store/storetest"
	"telford.dev/telford/server/internal/tx"
)

// BenchmarkWrite is one small write, synced before it is answered, by one writer and by
// many at once.
func BenchmarkWrite(b *testing.B) {
	for _, c := range []struct {
		name string
		open func(testing.TB) *store.Store
	}{
		{"sqlite", func(t testing.TB) *store.Store { return openConfig(t, store.Config{Data: t.TempDir()}) }},
		{"postgres", func(t testing.TB) *store.Store { return openConfig(t, store.Config{URL: storetest.Postgres(t)}) }},
	} {
		for _, writers := range []int{1, 64} {
			b.Run(fmt.Sprintf("%s/writers=%d", c.name, writers), func(b *testing.B) {
				s := c.open(b)
				procs := runtime.GOMAXPROCS(0)
				if writers < procs {
					defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(writers))
					procs = writers
				}
				b.SetParallelism(writers / procs)
				b.ReportAllocs()
				b.ResetTimer()
				value := make([]byte, 128)
				var id atomic.Int64
				before := s.Stats()
				b.RunParallel(func(p *testing.PB) {
					for p.Next() {
						name := fmt.Sprintf("%012d", id.Add(1)%100_000)
						if err := s.Write(b.Context(), func(t tx.Tx) error { return s.PutMeta(t, name, value) }); err != nil {
							b.Error(err)
							return
						}
					}
				})
				st := s.Stats()
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "writes/s")
				b.ReportMetric(float64(st.Writes-before.Writes)/float64(max(1, st.Batches-before.Batches)), "writes/commit")
			})
		}
	}
}

// BenchmarkRead is one row read in a transaction of its own.
func BenchmarkRead(b *testing.B) {
	for name, s := range map[string]*store.Store{
		"sqlite":   openConfig(b, store.Config{Data: b.TempDir()}),
		"postgres": openConfig(b, store.Config{URL: storetest.Postgres(b)}),
	} {
		if err := s.Write(b.Context(), func(t tx.Tx) error { return s.PutMeta(t, "name", make([]byte, 128)) }); err != nil {
			b.Fatal(err)
		}
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(p *testing.PB) {
				for p.Next() {
					if err := s.Read(b.Context(), func(t tx.Tx) error { _, err := s.Meta(t, "name"); return err }); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}
