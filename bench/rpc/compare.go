package main

import (
	"fmt"
	"slices"

	"telford.dev/telford/bench/internal/measure"
)

// rivals says which peers a stack of Telford stands beside.
func rivals() []struct{ telford, peers []string } {
	return []struct{ telford, peers []string }{
		{[]string{"telford-stub", "telford-struct"}, []string{"grpc", "nats", "frames"}},
		{[]string{"telford-proxy"}, []string{"nats", "grpc"}},
		{[]string{"telford-stream"}, []string{"grpc-stream"}},
		{[]string{"telford-grpc"}, []string{"grpc"}},
	}
}

// compare puts the medians of what was measured side by side.
func compare(names []string, callers, sizes []int, results map[cell][]measure.Result) []measure.Comparison {
	var rows []measure.Comparison
	for _, size := range sizes {
		for _, n := range callers {
			for _, r := range rivals() {
				for _, ours := range r.telford {
					for _, peer := range r.peers {
						a, b := results[cell{ours, n, size}], results[cell{peer, n, size}]
						if !slices.Contains(names, ours) || !slices.Contains(names, peer) || len(a) == 0 || len(b) == 0 {
							continue
						}
						what := "calls"
						if stacks()[ours].stream {
							what = "chunks"
						}
						name := fmt.Sprintf("%s, %d callers, %d B", ours, n, size)
						rows = append(rows, measure.Compare(name, what, peer, measure.Median(a), measure.Median(b))...)
					}
				}
			}
		}
	}
	return rows
}
