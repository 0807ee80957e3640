// Package pick owns the choice of one instance among several: power of two choices on
// outstanding calls per weight, the caller's own locality first. It never finds
// candidates, never calls them and never asks for the time or for randomness; whoever
// calls it brings all of that. It starts no goroutines and allocates nothing.
package pick

import (
	"math/bits"
	"slices"
	"time"
)

// Candidate is one instance that could take a call.
type Candidate struct {
	// Load is the live state of the instance, shared by everybody in this process who
	// picks it. Two candidates of one pick have different Loads.
	Load *Load
	// Weight is the relative share of calls; below 1 means 1, above MaxWeight means
	// MaxWeight.
	Weight int
	// Local: in the locality of the caller.
	Local bool
}

// MaxWeight is the largest weight that is told from larger ones.
const MaxWeight = 1000

// SlowStart is how long the share of a fresh instance takes to grow from a tenth to the
// whole of what its weight gives it.
const SlowStart = time.Second

// scale is the share of a warmed-up instance of weight 1; a fresh one begins at
// scale/10.
const scale = 100

// Exclusions name the instances that are not to be picked, by their Loads.
type Exclusions struct {
	// Avoid are picked only when nothing else is left, for instance because an earlier
	// attempt failed on them.
	Avoid []*Load
	// Tried are never picked: they refused this very call.
	Tried []*Load
}

// tiers, best first: an instance of a later tier is picked only when no earlier tier has
// one. A full local instance gives way to one elsewhere that is not full.
const (
	localFree = iota
	free
	localFull
	full
	localAvoided
	avoided
	tiers
	excluded = tiers
)

// Pick returns the index of the chosen candidate, or -1 when all are excluded or away,
// or there are none. Two candidates of the best tier are drawn in proportion to their weights and
// the one with fewer outstanding calls per weight wins; at a tie the first drawn, so that
// idle instances too share calls by weight. now is on the scale of Load.Started, random
// is any 64 evenly distributed bits.
func Pick(candidates []Candidate, ex Exclusions, now time.Duration, random uint64) int {
	var (
		shares [tiers]uint64
		counts [tiers]int
		first  [tiers]int
	)
	for i := range candidates {
		c := &candidates[i]
		t := c.tier(ex)
		if t == excluded {
			continue
		}
		if counts[t] == 0 {
			first[t] = i
		}
		counts[t]++
		shares[t] += c.share(now)
	}
	for t := range tiers {
		switch counts[t] {
		case 0:
			continue
		case 1:
			return first[t]
		}
		// The high word of the product is the first draw, the low word is what remains
		// of the randomness for the second.
		at, rest := bits.Mul64(random, shares[t])
		a := draw(candidates, ex, now, t, first[t], -1, at)
		at, _ = bits.Mul64(rest, shares[t]-min(shares[t]-1, candidates[a].share(now)))
		b := draw(candidates, ex, now, t, first[t], a, at)
		if b != a && candidates[b].lessLoaded(&candidates[a], now) {
			return b
		}
		return a
	}
	return -1
}

// draw walks the shares of a tier, without the candidate at skip, up to at. Loads change
// meanwhile, so that a candidate may have left the tier; the walk then ends at the last
// one seen, which is still one that may be picked.
func draw(candidates []Candidate, ex Exclusions, now time.Duration, tier, first, skip int, at uint64) int {
	last := first
	for i := first; i < len(candidates); i++ {
		c := &candidates[i]
		if i == skip || c.tier(ex) != tier {
			continue
		}
		last = i
		s := c.share(now)
		if at < s {
			break
		}
		at -= s
	}
	return last
}

func (c *Candidate) tier(ex Exclusions) int {
	t := free
	switch {
	case c.Load.Away():
		return excluded
	case len(ex.Tried) != 0 && slices.Contains(ex.Tried, c.Load):
		return excluded
	case len(ex.Avoid) != 0 && slices.Contains(ex.Avoid, c.Load):
		t = avoided
	case c.Load.Full():
		t = full
	}
	if c.Local {
		t--
	}
	return t
}

// share is the weight scaled by how far a fresh instance has warmed up; never 0.
func (c *Candidate) share(now time.Duration) uint64 {
	w := uint64(min(max(c.Weight, 1), MaxWeight))
	age := now - c.Load.Started()
	switch {
	case age >= SlowStart:
		return w * scale
	case age <= SlowStart/10:
		return w * scale / 10
	default:
		return w * uint64(age*scale/SlowStart)
	}
}

// lessLoaded compares outstanding calls per share, exactly.
func (c *Candidate) lessLoaded(d *Candidate, now time.Duration) bool {
	return uint64(c.Load.Outstanding())*d.share(now) < uint64(d.Load.Outstanding())*c.share(now)
}
