package policy

import "hash/maphash"

// cacheSize bounds the decisions that an Index keeps: a power of two.
const cacheSize = 2048

// maxKept is the longest key, in bytes, that is worth keeping: names from outside must
// not take memory for long.
const maxKept = 1024

// kept is one decision and what it was about.
type kept struct {
	caller, callee, method string
	decision               Decision
}

var allowed = &Decision{Allowed: true}

// MayCall reports whether a service may call a method of another. It takes no lock, and
// no memory for what was asked before.
func (x *Index) MayCall(caller, callee, method string) bool {
	return x.Verdict(caller, callee, method).Allowed
}

// Verdict is Call for those who ask on every call: it keeps a bounded number of
// decisions. The decision is shared and must not be changed.
func (x *Index) Verdict(caller, callee, method string) *Decision {
	if x == nil || caller == Operator {
		return allowed
	}
	h := maphash.String(x.seed, caller)
	h = h*31 + maphash.String(x.seed, callee)
	h = h*31 + maphash.String(x.seed, method)
	first, second := &x.cache[h%cacheSize], &x.cache[(h>>32)%cacheSize]
	if k := first.Load(); k != nil && k.is(caller, callee, method) {
		return &k.decision
	}
	if k := second.Load(); k != nil && k.is(caller, callee, method) {
		return &k.decision
	}
	k := &kept{caller: caller, callee: callee, method: method, decision: x.Call(caller, callee, method)}
	if len(caller)+len(callee)+len(method) > maxKept {
		return &k.decision
	}
	if !first.CompareAndSwap(nil, k) {
		second.Store(k)
	}
	return &k.decision
}

func (k *kept) is(caller, callee, method string) bool {
	return k.method == method && k.callee == callee && k.caller == caller
}
