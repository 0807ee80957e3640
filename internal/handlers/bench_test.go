package handlers

import (
	"context"
	"testing"

	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/message"
)

// What a limit that does not bind adds to one call, without its way over a connection.
func BenchmarkLimits(b *testing.B) {
	for name, limits := range map[string][]catalog.Limit{
		"none": nil, "concurrency": {{Concurrency: 1000}}, "rate": {{Rate: 1e6, Burst: 1e6}}, "caller": {{Concurrency: 1000, Key: "caller"}},
		"field": {{Concurrency: 1000, Key: "field:tenant"}}, "two": {{Concurrency: 1000, Key: "caller"}, {Concurrency: 1000}},
	} {
		b.Run(name, func(b *testing.B) {
			m := unary("charge", func(*Context) (any, error) { return &body{}, nil })
			m.Limits = limits
			t := table(256, 256, m)
			t.Freeze()
			h := t.For(&Conn{})
			call := &message.Call{
				Method: "charge", ContentType: message.JSON, Body: []byte(`{"amount":12,"tenant":"blue"}`), Caller: message.Caller{Service: "orders"},
			}
			b.ReportAllocs()
			for b.Loop() {
				if r := h.HandleCall(context.Background(), call); r.Err != nil {
					b.Fatal(r.Err)
				}
			}
		})
	}
}
