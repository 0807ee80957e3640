package limit

import (
	"hash/maphash"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// DefaultKeys is how many keys one limit counts apart. A key that is idle, so that to
// forget it changes nothing, makes room for a new one; where a search finds none, the new
// key shares one count with all others beyond the bound.
const DefaultKeys = 10_000

const (
	// maxKey is the longest key that is kept as it is, in bytes.
	maxKey = 128
	// lookAt is how many keys are looked at to find an idle one.
	lookAt = 64
	// minBuckets is the least size of the table.
	minBuckets = 16
	gone       = -1 << 40
)

// counted is what one key has.
type counted struct {
	key    string
	gate   Gate
	bucket Bucket
	users  atomic.Int64 // those who hold it; far below 0 once it is forgotten
	seen   atomic.Bool  // since the search for idle ones came by
	at     int          // in keys.all
}

// pin keeps c from being forgotten, unless it is already.
func (c *counted) pin() bool {
	if c.users.Add(1) > 0 {
		if !c.seen.Load() {
			c.seen.Store(true)
		}
		return true
	}
	c.users.Add(-1)
	return false
}

func (c *counted) unpin() { c.users.Add(-1) }

// keys is the table of what is counted, by key. Finding takes no lock.
type keys struct {
	bounds *bounds
	pace   func() (rate float64, burst int)
	now    func() time.Duration
	most   int
	seed   maphash.Seed
	table  atomic.Pointer[[]atomic.Pointer[node]]

	mu   sync.Mutex
	all  []*counted
	hand int
	rest *counted // of all beyond the bound
}

// node is one link of a chain, which never changes.
type node struct {
	*counted
	next *node
}

func newKeys(b *bounds, most int, pace func() (float64, int), now func() time.Duration) *keys {
	if most <= 0 {
		most = DefaultKeys
	}
	k := &keys{bounds: b, pace: pace, now: now, most: most, seed: maphash.MakeSeed()}
	t := make([]atomic.Pointer[node], minBuckets)
	k.table.Store(&t)
	k.rest = k.fresh("")
	return k
}

func (k *keys) fresh(key string) *counted {
	c := &counted{key: key}
	c.gate.bounds = k.bounds
	rate, burst := k.pace()
	c.bucket.Set(rate, burst, k.now())
	return c
}

// value is the value of a key: a text, or bytes that belong to the call.
type value struct {
	s string
	b []byte // where s is empty
}

func (v value) len() int { return len(v.s) + len(v.b) }

func (v value) text() string {
	if v.b != nil {
		return string(v.b)
	}
	return v.s
}

func (v value) is(s string) bool {
	if v.b != nil {
		return string(v.b) == s
	}
	return v.s == s
}

func (v value) hash(seed maphash.Seed) uint64 {
	if v.b != nil {
		return maphash.Bytes(seed, v.b)
	}
	return maphash.String(seed, v.s)
}

// get returns what is counted for a key, pinned.
func (k *keys) get(key value) *counted {
	if key.len() > maxKey {
		key = value{s: k.shorten(key.text())}
	}
	h := key.hash(k.seed)
	if c := find(*k.table.Load(), h, key); c != nil && c.pin() {
		return c
	}
	return k.add(h, key)
}

// shorten gives a long key the size of others: its beginning and a hash of all.
func (k *keys) shorten(key string) string {
	return strings.ToValidUTF8(key[:maxKey-24], "") + "…#" + strconv.FormatUint(maphash.String(k.seed, key), 16)
}

func find(t []atomic.Pointer[node], h uint64, key value) *counted {
	for n := t[h&uint64(len(t)-1)].Load(); n != nil; n = n.next {
		if key.is(n.key) {
			return n.counted
		}
	}
	return nil
}

func (k *keys) add(h uint64, key value) *counted {
	k.mu.Lock()
	defer k.mu.Unlock()
	if c := find(*k.table.Load(), h, key); c != nil && c.pin() {
		return c
	}
	if len(k.all) >= k.most && !k.makeRoom() {
		k.rest.pin()
		return k.rest
	}
	c := k.fresh(strings.Clone(key.text()))
	c.pin()
	c.at = len(k.all)
	k.all = append(k.all, c)
	if t := *k.table.Load(); len(k.all) > len(t) {
		k.grow(2 * len(t))
	} else {
		put(t, h, c)
	}
	return c
}

func put(t []atomic.Pointer[node], h uint64, c *counted) {
	at := &t[h&uint64(len(t)-1)]
	at.Store(&node{c, at.Load()})
}

// grow makes the table anew; mu is held.
func (k *keys) grow(size int) {
	t := make([]atomic.Pointer[node], size)
	for _, c := range k.all {
		put(t, maphash.String(k.seed, c.key), c)
	}
	k.table.Store(&t)
}

// makeRoom forgets a key that is idle, rather one that was not used for long; mu is held.
func (k *keys) makeRoom() bool {
	now := k.now()
	var second *counted
	for range min(lookAt, len(k.all)) {
		k.hand = (k.hand + 1) % len(k.all)
		c := k.all[k.hand]
		if c.users.Load() != 0 || !c.bucket.Full(now) {
			continue
		}
		if !c.seen.Swap(false) {
			if k.forget(c) {
				return true
			}
		} else if second == nil {
			second = c
		}
	}
	return second != nil && k.forget(second)
}

// forget takes a key out unless somebody holds it; mu is held.
func (k *keys) forget(c *counted) bool {
	if !c.users.CompareAndSwap(0, gone) {
		return false
	}
	last := k.all[len(k.all)-1]
	k.all[c.at], last.at = last, c.at
	k.all[len(k.all)-1] = nil
	k.all = k.all[:len(k.all)-1]
	t := *k.table.Load()
	at := &t[maphash.String(k.seed, c.key)&uint64(len(t)-1)]
	var chain *node
	for n := at.Load(); n != nil; n = n.next {
		if n.counted != c {
			chain = &node{n.counted, chain}
		}
	}
	at.Store(chain)
	return true
}

// each calls f for every key and for what the rest shares.
func (k *keys) each(f func(*counted)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	f(k.rest)
	for _, c := range k.all {
		f(c)
	}
}
