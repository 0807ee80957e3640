package router

import (
	"cmp"
	"slices"
	"strings"
)

// nearest returns up to three names that name may have been meant to be, the nearest
// first: those that differ in case only or by a few letters, and those of the same last
// segment.
func nearest(name string, names []string) []string {
	const (
		most      = 3
		looked    = 4096 // an unknown name must not cost more than a known one by much
		maxLength = 128
	)
	if name == "" || len(name) > maxLength {
		return nil
	}
	type scored struct {
		name     string
		distance int
	}
	var found []scored
	lower := strings.ToLower(name)
	limit := max(1, len(name)/3)
	for _, n := range names[:min(len(names), looked)] {
		if len(n) > maxLength {
			continue
		}
		d := distance(lower, strings.ToLower(n), limit)
		if d > limit && lastSegment(lower) == lastSegment(strings.ToLower(n)) {
			d = limit
		}
		if d <= limit {
			found = append(found, scored{n, d})
		}
	}
	slices.SortStableFunc(found, func(a, b scored) int { return cmp.Compare(a.distance, b.distance) })
	var out []string
	for _, s := range found[:min(len(found), most)] {
		out = append(out, s.name)
	}
	return out
}

func lastSegment(s string) string { return s[strings.LastIndexByte(s, '/')+1:] }

// distance is the number of letters to insert, delete or replace to make b of a, a swap
// of two neighbours counting as one; more than limit means too many.
func distance(a, b string, limit int) int {
	if abs(len(a)-len(b)) > limit {
		return limit + 1
	}
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := range len(a) {
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			row[j+1] = min(row[j]+1, last[j+1]+1, last[j]+cost)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}

func abs(n int) int { return max(n, -n) }
