package identity

import (
	"crypto/sha256"
	"sync"
	"sync/atomic"
)

// maxProved bounds the credentials remembered; beyond it they are all proved anew.
const maxProved = 10_000

// proved remembers, by its hash, which key a bearer credential has been proved to be.
// What a key may do is looked up each time; only the proof is saved. That the secret of
// a key never changes is what makes it lasting.
type proved struct {
	n  atomic.Int64
	by sync.Map // [sha256.Size]byte -> key id
}

func (p *proved) key(bearer string) (id string, ok bool) {
	v, ok := p.by.Load(hash(bearer))
	if !ok {
		return "", false
	}
	return v.(string), true
}

func (p *proved) add(bearer, id string) {
	if p.n.Add(1) > maxProved {
		p.by.Clear()
		p.n.Store(1)
	}
	p.by.Store(hash(bearer), id)
}

// hash has a fixed buffer for what credentials usually are, so that it costs no
// allocation.
func hash(text string) [sha256.Size]byte {
	var buf [192]byte
	return sha256.Sum256(append(buf[:0], text...))
}
