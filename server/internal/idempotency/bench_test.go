package idempotency

import (
	"strconv"
	"sync/atomic"
	"testing"
)

// BenchmarkKeyed is what a key costs a call besides its transactions: the first call with
// each key, and repeated ones.
func BenchmarkKeyed(b *testing.B) {
	m := newMemory()
	k, err := New(Config{DB: m, Storage: m, Exclusive: true})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = k.Stop(b.Context()) }()
	h := &handler{}
	var n atomic.Int64
	for name, key := range map[string]func() string{
		"first": func() string { return strconv.FormatInt(n.Add(1), 10) }, "repeated": func() string { return "k" },
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if o := k.do(b.Context(), keyed(key(), "a"), h); o.err != nil {
					b.Fatal(o.err)
				}
			}
		})
	}
}
